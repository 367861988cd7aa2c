"""Pre-training: the pool, the episodes, the loop and the exported weights."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors import safe_open

from napari_ptsam.backbones import load_backbone
from napari_ptsam.backbones.backbone import decode_masks
from napari_ptsam.backbones.embedded import EmbeddedShape
from napari_ptsam.errors import BackboneError, TrainingError
from pretraining import episodes, pool, train
from pretraining.export import export, to_float16
from pretraining.model import Pretrainer, _support, mask_loss
from pretraining.pool import TypeScenes, make_type, read_type, type_file
from pretraining.recipe import Phase, Recipe
from pretraining.train import CHECKPOINT, batches

TINY = EmbeddedShape(64, (8, 16, 16), width=32, depth=2, heads=2, window=2, global_blocks=(1,))
RECIPE = Recipe(
    seed=1,
    weight_decay=0.02,
    phases=(
        Phase(4, 32, 2, 2, 1e-3, 1e-3, ("light",), pool_types=3),
        Phase(2, 64, 1, 2, 1e-3, 1e-4, ("light",), pool_types=3, more_clicks=2),
    ),
    shape=TINY,
)


@pytest.fixture(scope="module")
def small_pool(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three types of three scenes of 96x96."""
    folder = tmp_path_factory.mktemp("pool")
    (folder / "light").mkdir()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(pool, "SIDE", 96)
        for seed in range(3):
            make_type(folder, "light", 3, seed)
    return folder


def drawn_scenes() -> TypeScenes:
    """Two scenes of 80x80, each with objects of two kinds at known places."""
    kinds = np.zeros((2, 80, 80), np.uint8)
    instances = np.zeros((2, 80, 80), np.uint16)
    kinds[:, 10:40, 10:40], instances[:, 10:40, 10:40] = 1, 1
    kinds[:, 50:70, 20:60], instances[:, 50:70, 20:60] = 3, 300
    images = np.repeat((kinds * 60 + 20)[..., None], 3, -1)
    return TypeScenes(0, images, kinds, instances)


# The pool.


def test_every_group_has_families() -> None:
    for group in pool.GROUPS:
        names = [family.name for family in pool.families_of(group)]
        assert names
        assert len(set(names)) == len(names)


def test_scenes_of_a_type_are_a_function_of_its_seed(
    small_pool: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pool, "SIDE", 96)
    (tmp_path / "light").mkdir()
    make_type(tmp_path, "light", 3, 1)
    first = type_file(small_pool, "light", 1).read_bytes()
    assert type_file(tmp_path, "light", 1).read_bytes() == first
    assert type_file(small_pool, "light", 2).read_bytes() != first


def test_pooled_scenes_read_back_as_they_were_drawn(small_pool: Path) -> None:
    family = pool.families_of("light")[1]
    style = family.style(np.random.default_rng([1, 1]))
    scene = family.render(style, np.random.default_rng([1, 2, 2]), (96, 96))
    scenes = read_type(small_pool, "light", 1)
    assert scenes.images.shape == (3, 96, 96, 3)
    np.testing.assert_array_equal(scenes.images[2], scene.image)
    np.testing.assert_array_equal(scenes.kinds[2], scene.kinds)
    np.testing.assert_array_equal(scenes.instances[2], scene.instances)


def test_types_that_are_there_are_not_drawn_again(
    small_pool: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pool, "families_of", lambda group: pytest.fail("drawn again"))
    make_type(small_pool, "light", 3, 0)


def test_a_type_whose_drawing_is_interrupted_leaves_no_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "light").mkdir()

    def interrupted(*arguments: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(np, "save", interrupted)
    monkeypatch.setattr(pool, "SIDE", 64)
    with pytest.raises(KeyboardInterrupt):
        make_type(tmp_path, "light", 1, 0)
    assert not type_file(tmp_path, "light", 0).exists()


# Episodes.


@pytest.mark.parametrize("size", [32, 64, 128])
def test_crops_have_the_size_asked_for_and_keep_labels_on_their_pixels(size: int) -> None:
    for seed in range(8):
        crops = episodes.draw_crops(drawn_scenes(), 2, size, np.random.default_rng(seed))
        assert crops.images.shape == (2, 3, size, size)
        assert crops.kinds.shape == crops.instances.shape == (2, size, size)
        assert crops.images.min() >= -0.01
        assert crops.images.max() <= 255.01
        expected = torch.zeros_like(crops.kinds)
        expected[crops.kinds == 1] = 1
        expected[crops.kinds == 3] = 300
        assert torch.equal(crops.instances, expected)


def test_some_episodes_are_padded_and_nothing_is_asked_of_the_padding() -> None:
    padded = 0
    for seed in range(60):
        crops = episodes.draw_crops(drawn_scenes(), 2, 32, np.random.default_rng(seed))
        assert crops.valid[:, :, 0, 0].all()
        outside = crops.valid[:, 0] == 0
        assert not crops.kinds[outside].any()
        assert not crops.instances[outside].any()
        padded += bool(outside.any())
    assert 4 <= padded <= 24


def test_whole_scenes_are_shown_where_asked() -> None:
    kinds = np.zeros((2, 320, 320), np.uint8)
    kinds[:, 80:240, 80:240] = 1
    scenes = TypeScenes(0, np.repeat(kinds[..., None], 3, -1), kinds, kinds.astype(np.uint16))

    def shares(whole: float) -> list[float]:
        crops = (
            episodes.draw_crops(scenes, 2, 64, np.random.default_rng(seed), whole)
            for seed in range(20)
        )
        return [float((c.kinds > 0).float().sum() / c.valid.sum()) for c in crops]

    # A quarter of the scene, and at most twice that of a window of 0.7 times its side.
    assert all(0.1 < share < 0.75 for share in shares(1.0))
    assert np.std(shares(0.0)) > 1.5 * np.std(shares(1.0))


def test_crops_are_a_function_of_the_generator() -> None:
    first, again, other = (
        episodes.draw_crops(drawn_scenes(), 2, 32, np.random.default_rng(seed)).images
        for seed in (5, 5, 6)
    )
    assert torch.equal(first, again)
    assert not torch.equal(first, other)


def test_joined_crops_split_into_the_same() -> None:
    parts = [
        episodes.draw_crops(drawn_scenes(), 2, 32, np.random.default_rng(seed)) for seed in (1, 2)
    ]
    for part, again in zip(parts, episodes.split(episodes.join(parts), 2), strict=True):
        assert all(torch.equal(a, b) for a, b in zip(part.tensors, again.tensors, strict=True))


def test_a_task_asks_for_kinds_that_are_there() -> None:
    scenes = drawn_scenes()
    crops = episodes.draw_crops(scenes, 2, 64, np.random.default_rng(0))
    for seed in range(30):
        for kinds, complement in episodes.draw_tasks(crops, 2, np.random.default_rng(seed)):
            mask = episodes.task_masks(crops, (kinds, complement))
            assert mask.shape == (2, 1, 64, 64)
            asked = np.isin(crops.kinds.numpy(), kinds) != complement
            np.testing.assert_array_equal(mask[:, 0].numpy() > 0, asked)
            assert set(kinds) <= set(crops.kinds.unique().tolist()) - {0}


def test_scenes_without_objects_get_a_task_with_an_empty_mask() -> None:
    nothing = torch.zeros(2, 32, 32, dtype=torch.long)
    empty = episodes.Crops(torch.zeros(2, 3, 32, 32), nothing, nothing, torch.ones(2, 1, 32, 32))
    tasks = episodes.draw_tasks(empty, 3, np.random.default_rng(0))
    assert len(tasks) == 3
    assert all(not episodes.task_masks(empty, task).any() for task in tasks)
    masks, _, labels, present = episodes.draw_instances(empty, np.random.default_rng(0))
    assert not masks.any()
    assert not present.any()
    assert (labels == -1).all()


def test_clicks_lie_on_their_object_and_boxes_around_it() -> None:
    crops = episodes.draw_crops(drawn_scenes(), 2, 64, np.random.default_rng(0))
    kinds_of_prompt = set()
    for seed in range(20):
        drawn = episodes.draw_instances(crops, np.random.default_rng(seed))
        for mask, points, labels, present in zip(*drawn, strict=True):
            assert present
            kinds_of_prompt.add(tuple(labels.tolist()))
            rows, columns = torch.nonzero(mask[0], as_tuple=True)
            if labels[0] == 1:
                x, y = points[0].long()
                assert mask[0, y, x] == 1
                continue
            low = torch.stack([columns.min(), rows.min()])
            high = torch.stack([columns.max(), rows.max()])
            off = torch.stack([points[0] - low, points[1] - high]).abs()
            assert (off <= 0.5 * (high - low).clamp(min=1)).all()
    assert kinds_of_prompt == {(1, -1), (2, 3)}


def test_further_clicks_say_whether_they_hit_the_object() -> None:
    crops = episodes.draw_crops(drawn_scenes(), 2, 64, np.random.default_rng(0))
    numbers, said = set(), set()
    for seed in range(20):
        drawn = episodes.draw_instances(crops, np.random.default_rng(seed), more=3)
        for mask, points, labels, _ in zip(*drawn, strict=True):
            assert len(points) == len(labels) == 5
            further = labels[2:]
            given = further >= 0
            numbers.add(int(given.sum()))
            for (x, y), label in zip(points[2:][given].long(), further[given], strict=True):
                assert mask[0, y, x] == label
                said.add(int(label))
    assert numbers == {0, 1, 2, 3}
    assert said == {0, 1}


# The loop.


def test_a_steps_content_depends_on_its_number_alone(small_pool: Path) -> None:
    together = list(batches(RECIPE, small_pool, range(2, 6)))
    alone = next(iter(batches(RECIPE, small_pool, range(4, 5))))
    assert (together[2].step, together[2].phase) == (4, RECIPE.phases[1])
    assert torch.equal(together[2].crops.images, alone.crops.images)
    assert together[1].crops.images.shape == (4, 3, 32, 32)
    assert alone.crops.images.shape == (2, 3, 64, 64)


def weights(run: Path) -> dict[str, torch.Tensor]:
    loaded = torch.load(run / CHECKPOINT, weights_only=True)
    tensors: dict[str, torch.Tensor] = loaded["model"]
    return tensors


@pytest.fixture(scope="module")
def run(small_pool: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of six steps, in one go."""
    folder = tmp_path_factory.mktemp("run") / "new"
    train.train(RECIPE, small_pool, folder, "cpu")
    return folder


def test_a_run_that_was_stopped_goes_on_to_the_same_weights(
    run: Path, small_pool: Path, tmp_path: Path
) -> None:
    train.train(RECIPE, small_pool, tmp_path, "cpu", until=3)
    early = weights(tmp_path)
    train.train(RECIPE, small_pool, tmp_path, "cpu", until=3)  # nothing left to do
    train.train(RECIPE, small_pool, tmp_path, "cpu")
    whole, resumed = weights(run), weights(tmp_path)
    assert whole.keys() == resumed.keys()
    assert all(torch.equal(v, resumed[k]) for k, v in whole.items())
    assert any(not torch.equal(v, early[k]) for k, v in whole.items())


@pytest.mark.parametrize(
    ("changed", "told"),
    [
        (replace(RECIPE, seed=2), r"seed: 1 there, 2 here"),
        (replace(RECIPE, weight_decay=0.1), r"weight_decay: 0\.02 there, 0\.1 here"),
        (replace(RECIPE, shape=replace(TINY, width=64)), r"shape\.width: 32 there, 64 here"),
        (
            replace(RECIPE, phases=(replace(RECIPE.phases[0], first_rate=2e-3), RECIPE.phases[1])),
            r"phases\[0\]\.first_rate: 0\.001 there, 0\.002 here",
        ),
        (replace(RECIPE, phases=RECIPE.phases[:1]), r"phases\[1\]\.steps: 2 there, nothing here"),
    ],
    ids=["seed", "decay", "shape", "rate", "no second phase"],
)
def test_a_run_does_not_go_on_by_another_recipe(
    changed: Recipe, told: str, run: Path, small_pool: Path, tmp_path: Path
) -> None:
    shutil.copytree(run, tmp_path / "run")
    with pytest.raises(TrainingError, match=f"6 steps by another recipe.*{told}.*--run"):
        train.train(changed, small_pool, tmp_path / "run", "cpu")
    stored = json.loads((tmp_path / "run" / train.RECIPE).read_text())
    assert Recipe.parse(stored) == RECIPE


def test_phases_that_have_not_begun_may_be_changed_and_added(
    small_pool: Path, tmp_path: Path
) -> None:
    train.train(RECIPE, small_pool, tmp_path, "cpu", until=4)
    last = replace(RECIPE.phases[1], first_rate=5e-4)
    more = replace(RECIPE, phases=(RECIPE.phases[0], last, replace(last, steps=1)))
    train.train(more, small_pool, tmp_path, "cpu")
    assert Recipe.parse(json.loads((tmp_path / train.RECIPE).read_text())) == more
    assert torch.load(tmp_path / CHECKPOINT, weights_only=True)["step"] == 7


def test_all_is_trained_but_what_specialists_do_not_use(run: Path) -> None:
    start = Pretrainer(TINY, RECIPE.seed).state_dict()
    still = {
        name.removeprefix("sam.")
        for name, tensor in weights(run).items()
        # Six steps of weight decay alone move a weight by some 2e-6 of itself.
        if (tensor - start[name]).abs().max() < 1e-5 * (1 + start[name].abs().max())
    }
    unused = ("mask_downscaling", "pe_layer", "point_embeddings.0", "hypernetworks_mlps.2",
              "hypernetworks_mlps.3")  # fmt: skip
    assert {name for name in still if not any(part in name for part in unused)} == set()
    assert all(any(part in name for name in still) for part in unused)


def test_initial_weights_are_a_function_of_the_seed() -> None:
    torch.manual_seed(0)
    first = Pretrainer(TINY, 1).state_dict()
    torch.manual_seed(1)
    again, other = Pretrainer(TINY, 1).state_dict(), Pretrainer(TINY, 2).state_dict()
    assert all(torch.equal(v, again[k]) for k, v in first.items())
    assert not torch.equal(first["coarse_head.weight"], other["coarse_head.weight"])


def test_the_loss_falls_on_a_batch_that_is_shown_again_and_again(small_pool: Path) -> None:
    model = Pretrainer(TINY, 0)
    optimiser = torch.optim.AdamW(model.parameters(), lr=2e-3)
    (batch,) = batches(RECIPE, small_pool, range(1))
    totals = []
    for _ in range(12):
        seen = replace(batch, step=train.WARM_UP, rate=2e-3, rng=np.random.default_rng(0))
        found = train._learn(model, optimiser, seen)
        assert set(found) - {"click"} == {"dense", "task", "tuned", "pixel"}
        totals.append(sum(float(v.detach()) for v in found.values()))
    assert np.mean(totals[-3:]) < 0.8 * totals[0]


def test_a_crop_is_told_by_the_others_of_its_type_and_rarely_by_itself() -> None:
    rng = np.random.default_rng(0)
    others = torch.tensor([[0.0, 1, 1], [1, 0, 1], [1, 1, 0]])
    alone = 0
    for _ in range(300):
        support = _support(3, 2, rng)
        assert not support[:3, 3:].any()
        assert not support[3:, :3].any()
        assert torch.equal(support[:3, :3], support[3:, 3:])
        itself = torch.equal(support[:3, :3], torch.eye(3))
        assert itself or torch.equal(support[:3, :3], others)
        alone += itself
    assert 0.03 < alone / 300 < 0.2


def test_an_inner_step_lowers_the_loss_that_it_looks_at() -> None:
    model = Pretrainer(TINY, 0)
    generator = torch.Generator().manual_seed(0)
    images = torch.randn(3, 3, 64, 64, generator=generator)
    target = (torch.rand(3, 1, 32, 32, generator=generator) < 0.3).float()
    support = 1 - torch.eye(3)
    with torch.no_grad():
        embedding = model.sam.image_encoder(images)
    prompts = 0.1 * torch.randn(3, 8, 256, generator=generator)
    counted = torch.ones_like(target)
    step = model._inner_step(embedding, prompts, target, counted, support, np.random.default_rng(0))
    other = support.argmax(1)
    held = tuple(level[other] for level in embedding)
    before, after = (
        mask_loss(decode_masks(model.sam, held, p)[0][:, 1:2], target[other], counted)
        for p in (prompts, prompts + 0.1 * step)
    )
    assert after < before


def test_mask_loss_is_small_where_the_mask_is_right_and_leaves_out_what_does_not_count() -> None:
    target = torch.zeros(2, 1, 16, 16)
    target[:, :, :8] = 1
    everything = torch.ones_like(target)
    right, wrong = 20 * (2 * target - 1), -20 * (2 * target - 1)
    assert mask_loss(right, target, everything) < 1e-3
    assert mask_loss(wrong, target, everything) > 10
    mixed = torch.cat([right[:1], wrong[1:]])
    only_first = torch.tensor([1.0, 0.0])[:, None, None, None]
    assert mask_loss(mixed, target, only_first) < 1e-3


def test_the_shipped_recipe_reads_and_its_rates_are_linear() -> None:
    recipe = Recipe.read(Path(pool.__file__).with_name("recipe.toml"))
    assert recipe.shape == EmbeddedShape()
    assert set(recipe.phases[-1].groups) <= set(pool.GROUPS)
    assert recipe.steps == sum(phase.steps for phase in recipe.phases)
    last = recipe.phases[-1]
    assert recipe.phase_at(recipe.steps - last.steps) == (last, last.first_rate)
    middle = recipe.phase_at(recipe.steps - last.steps // 2)[1]
    assert middle == pytest.approx((last.first_rate + last.last_rate) / 2)
    with pytest.raises(IndexError):
        recipe.phase_at(recipe.steps)


def test_a_recipe_is_the_same_from_toml_and_from_a_runs_record(run: Path, tmp_path: Path) -> None:
    stored = json.loads((run / train.RECIPE).read_text())
    assert Recipe.parse(stored) == RECIPE
    assert Recipe.parse(stored).digest == RECIPE.digest != replace(RECIPE, seed=2).digest
    (tmp_path / "recipe.toml").write_text(
        "seed = 1\nweight_decay = 0.02\n"
        "[shape]\ninput_size = 64\nstem = [8, 16, 16]\nwidth = 32\ndepth = 2\nheads = 2\n"
        "window = 2\nglobal_blocks = [1]\n"
        "[[phases]]\nsteps = 4\ncrop = 32\ntypes = 2\nscenes = 2\nfirst_rate = 1e-3\n"
        'last_rate = 1e-3\ngroups = ["light"]\npool_types = 3\n'
        "[[phases]]\nsteps = 2\ncrop = 64\ntypes = 1\nscenes = 2\nfirst_rate = 1e-3\n"
        'last_rate = 1e-4\ngroups = ["light"]\npool_types = 3\nmore_clicks = 2\n'
    )
    assert Recipe.read(tmp_path / "recipe.toml") == RECIPE


# The exported weights.


def test_exported_weights_are_the_network_alone_and_load_as_a_backbone(
    run: Path, tmp_path: Path
) -> None:
    file = export(run, tmp_path / "new" / "weights.safetensors")
    with safe_open(file, "pt") as content:
        assert content.metadata()["recipe"] == RECIPE.digest
        assert content.metadata()["step"] == "6"
        names = set(content.keys())
    trained = weights(run)
    assert names == {n.removeprefix("sam.") for n in trained if n.startswith("sam.")}
    backbone = load_backbone(file)
    assert backbone.architecture == "embedded"
    for name, tensor in backbone.sam.state_dict().items():
        assert torch.equal(tensor, trained[f"sam.{name}"].half().float())
    assert [p.name for p in file.parent.iterdir()] == ["weights.safetensors"]


@pytest.mark.parametrize("value", [1e6, float("nan"), float("inf")])
def test_values_that_float16_cannot_hold_are_refused(value: float) -> None:
    state = {"fine": torch.ones(2), "broken": torch.tensor([0.0, value])}
    with pytest.raises(BackboneError, match=r"broken.*not finite|not finite.*broken"):
        to_float16(state)
    assert set(to_float16({"fine": torch.ones(2)})) == {"fine"}


def test_a_folder_without_a_run_is_refused_in_words(tmp_path: Path) -> None:
    with pytest.raises(BackboneError, match=r"holds no checkpoint\.pt"):
        export(tmp_path, tmp_path / "x.safetensors")
