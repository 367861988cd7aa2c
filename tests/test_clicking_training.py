"""Click specialists are trained, stopped, saved and used, also from the command line."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tifffile
from numpy.typing import NDArray
from scenes import disc

from napari_ptsam.backbones import Backbone, load_backbone
from napari_ptsam.cli import main
from napari_ptsam.clicking import (
    Click,
    Clicker,
    ClickPlan,
    ClickPrompt,
    ClickStep,
    click_plan,
    train_clicks,
)
from napari_ptsam.clicking.losses import LossWeights
from napari_ptsam.errors import InputError, PromptFileError, TrainingError
from napari_ptsam.methods.plm import PlmSettings
from napari_ptsam.promptfile import read_prompt_file
from napari_ptsam.specialist import Specialist

HERE = ClickPrompt((Click(20, 20),))


def two_kinds(count: int = 4) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
    """Planes of 64x64 with two bright discs each, and their ids."""
    images, labels = [], []
    for number in range(count):
        rng = np.random.default_rng([5, number])
        ids = np.zeros((64, 64), np.uint8)
        ids[disc((64, 64), (20, 20), 8)] = 1
        ids[disc((64, 64), (44, 42), 6)] = 7
        images.append(np.clip(40 + 150 * (ids > 0) + rng.normal(0, 8, ids.shape), 0, 255))
        labels.append(ids)
    return np.stack(images).astype(np.uint8), np.stack(labels)


@pytest.fixture(scope="module")
def backbone(tiny_backbone: Path) -> Backbone:
    return load_backbone(tiny_backbone)


def plan(steps: int = 4, **changes: Any) -> ClickPlan:
    return click_plan(steps=steps, **{"evaluate_every": 2, "views_per_image": 1} | changes)


def run(
    backbone: Backbone, on_step: Callable[[ClickStep], None] | None = None, **options: Any
) -> Clicker:
    images, labels = two_kinds()
    training = train_clicks(images, labels, backbone=backbone, **{"plan": plan()} | options)
    while True:
        try:
            step = next(training)
        except StopIteration as end:
            clicker: Clicker = end.value
            return clicker
        if on_step is not None:
            on_step(step)


@pytest.fixture(scope="module")
def trained(backbone: Backbone) -> Clicker:
    return run(backbone, class_name="disc", settings=PlmSettings(tokens=3))


def test_a_run_tells_of_each_step_and_previews(backbone: Backbone) -> None:
    steps: list[ClickStep] = []
    previews = []
    image = two_kinds()[0][0]

    def look(step: ClickStep) -> None:
        steps.append(step)
        if step.ready and step.embed is not None and step.preview is not None:
            previews.append(step.preview(step.embed(image), HERE).probability)

    run(backbone, look)
    assert [(s.phase, s.step) for s in steps if s.phase == "train"] == [
        ("train", n) for n in (1, 2, 3, 4)
    ]
    embedding = [s for s in steps if s.phase == "embed"]
    assert embedding[-1].step == embedding[-1].steps == len(embedding)
    assert not any(s.ready for s in embedding)
    assert [s.held_out_iou is not None for s in steps if s.phase == "train"] == [
        False, True, False, True,
    ]  # fmt: skip
    assert len(previews) == 4
    assert not np.array_equal(previews[0], previews[-1]), "it shows what is learned by then"


def test_the_same_seed_gives_the_same_numbers_and_another_does_not(backbone: Backbone) -> None:
    def numbers(seed: int) -> NDArray[np.float32]:
        method = run(backbone, plan=plan(seed=seed, held_out=0.0)).method
        assert method is not None
        weights: NDArray[np.float32] = method.last.weight.detach().numpy()
        return weights

    first = numbers(1)
    assert np.array_equal(first, numbers(1))
    assert not np.array_equal(first, numbers(2))


def test_what_was_best_on_held_out_objects_is_kept(
    backbone: Backbone, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Before the first step, after the second and after the fourth.
    score, kept = [0.1], {}
    monkeypatch.setattr("napari_ptsam.clicking.run.iou", lambda *_: score[0])

    def look(step: ClickStep) -> None:
        if step.embed is not None and step.preview is not None:
            kept[step.step] = step.preview(step.embed(two_kinds()[0][0]), HERE)
            score[0] = 0.8 if step.step == 1 else 0.3

    clicker = run(backbone, look, plan=plan(steps=4))
    record = clicker.metadata.training
    assert (record["held_out_iou"], record["steps"]) == (0.8, 2)
    again = clicker.answer(clicker.embed(two_kinds()[0][0]), HERE)
    assert np.array_equal(again.probability, kept[2].probability)


def test_a_stopped_run_gives_what_it_has_and_says_so(backbone: Backbone) -> None:
    seen: list[ClickStep] = []
    clicker = run(
        backbone,
        seen.append,
        should_stop=lambda: bool(seen) and seen[-1].phase == "train" and seen[-1].step >= 2,
    )
    assert clicker.metadata.training["stopped"] is True
    assert seen[-1].step == 2


def test_a_run_stopped_before_its_first_step_says_so(backbone: Backbone) -> None:
    with pytest.raises(TrainingError, match="before its first step"):
        run(backbone, should_stop=lambda: True)


def test_objects_that_are_too_small_to_click_are_told(backbone: Backbone) -> None:
    images, labels = two_kinds()
    labels[:] = 0
    labels[:, 5, 5] = 1
    training = train_clicks(images, labels, backbone=backbone, plan=plan(), scale="fit")
    with pytest.raises(TrainingError, match="large enough"):
        list(training)


def test_connected_regions_are_objects_where_masks_have_one_label(backbone: Backbone) -> None:
    images, labels = two_kinds()
    training = train_clicks(
        images, (labels > 0).astype(np.uint8), backbone=backbone, plan=plan(steps=1)
    )
    assert [s.phase for s in training][-1] == "train"


def test_plans_that_cannot_be_are_refused() -> None:
    with pytest.raises(InputError, match="boxes"):
        plan(boxes=2)
    with pytest.raises(InputError, match="adds up to 1"):
        plan(rounds=(0.5, 0.2))


# Files


def test_a_click_specialist_comes_back_from_its_file(trained: Clicker, tmp_path: Path) -> None:
    path = trained.save(tmp_path / "discs")
    again = Clicker.load(path, backbone=trained.backbone)
    image = two_kinds()[0][1]
    before, after = (c.answer(c.embed(image), HERE) for c in (trained, again))
    assert np.array_equal(before.probability, after.probability)
    assert before.score == after.score
    assert again.is_specialist
    assert again.title == "Click specialist: disc"
    assert np.array_equal(
        trained.everything(trained.embed(image)), again.everything(again.embed(image))
    )


def test_the_file_says_that_point_matching_is_not_in_it(trained: Clicker, tmp_path: Path) -> None:
    file = read_prompt_file(trained.save(tmp_path / "discs"))
    told = file.metadata.training["point_matching_module"]
    assert told == "only in training, not in this file"
    assert (
        file.trainable_parameters == 1_578_752 + 3 * 256 + 4 * 256
    )  # three tokens, and the readout
    assert file.metadata.training["plan"]["weights"] == asdict(LossWeights())


def test_each_kind_of_specialist_refuses_the_other_ones_file(
    trained: Clicker, tmp_path: Path
) -> None:
    clicks = trained.save(tmp_path / "clicks")
    with pytest.raises(PromptFileError, match="Click dock"):
        Specialist.load(clicks, backbone=trained.backbone)
    images, labels = two_kinds()
    free = Specialist.train(
        images, labels > 0, backbone=trained.backbone, preset="quick", steps=1
    ).save(tmp_path / "free")
    with pytest.raises(PromptFileError, match="train-clicks"):
        Clicker.load(free, backbone=trained.backbone)


def test_plain_sam_has_nothing_to_save_and_no_automatic_mode(backbone: Backbone) -> None:
    plain = Clicker.plain(backbone)
    assert plain.title == f"Plain SAM ({backbone.name})"
    assert not plain.is_specialist
    with pytest.raises(InputError, match="nothing to save"):
        plain.save("nowhere")
    with pytest.raises(InputError, match="answers clicks alone"):
        plain.everything(plain.embed(two_kinds()[0][0]))


# Command line


@pytest.fixture(scope="module")
def on_disk(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("clicks")
    images, labels = two_kinds()
    for name, stack in (("images", images), ("labels", labels)):
        tifffile.imwrite(folder / f"{name}.tif", stack, photometric="minisblack")
    return folder


def command(*arguments: object) -> int:
    return main([str(a) for a in arguments])


def test_a_specialist_is_trained_and_clicked_from_the_command_line(
    on_disk: Path, tiny_backbone: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file, out = on_disk / "discs.ptsam.safetensors", on_disk / "mask.tif"
    learn = ["train-clicks", "--images", on_disk / "images.tif", "--masks", on_disk / "labels.tif"]
    learn += ["--backbone", tiny_backbone, "--steps", 2, "--no-point-matching", "-o", file]
    assert command(*learn) == 0, capsys.readouterr().err
    assert "1,579,776 trained numbers" in capsys.readouterr().out
    assert read_prompt_file(file).metadata.training["point_matching_module"] == "not used"

    ask = ["click", on_disk / "images.tif", "--specialist", file, "--backbone", tiny_backbone]
    ask += ["--plane", 1, "--at", "20,20", "--not-at", "3,3", "-o", out]
    assert command(*ask) == 0, capsys.readouterr().err
    clicker = Clicker.load(file, backbone=tiny_backbone)
    prompt = ClickPrompt((Click(20, 20), Click(3, 3, positive=False)))
    expected = clicker.answer(clicker.embed(two_kinds()[0][1]), prompt).mask
    assert np.array_equal(tifffile.imread(out).squeeze() > 0, expected)


def test_an_object_is_followed_both_ways_until_it_ends(
    on_disk: Path, tiny_backbone: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def everything(self: Clicker, embedded: Any, prompt: ClickPrompt) -> Any:
        found = answer(self, embedded, prompt)
        found.mask[:] = disc((64, 64), (20, 20), 8)
        return found

    answer = Clicker.answer
    monkeypatch.setattr(Clicker, "answer", everything)
    out = on_disk / "followed.tif"
    asked = ["click", on_disk / "images.tif", "--backbone", tiny_backbone, "--plane", 2]
    assert command(*asked, "--box", "12,12,28,28", "--follow", "-o", out) == 0
    assert (tifffile.imread(out) > 0).sum((1, 2)).tolist() == [197] * 4


@pytest.mark.parametrize(
    ("arguments", "code", "words"),
    [
        (["--at", "5"], 2, "not of the form Y,X"),
        (["--at", "5,5"], 2, "--plane N"),
        (["--plane", "0", "--at", "500,5"], 1, "outside of the image"),
        (["--plane", "9", "--at", "5,5"], 1, "4 planes"),
        (["--plane", "0", "--not-at", "5,5"], 1, "only says what does not belong"),
    ],
)
def test_wrong_clicks_are_told_in_words(
    on_disk: Path,
    tiny_backbone: Path,
    capsys: pytest.CaptureFixture[str],
    arguments: list[str],
    code: int,
    words: str,
) -> None:
    asked = ["click", on_disk / "images.tif", "--backbone", tiny_backbone, "-o", on_disk / "x.tif"]
    assert command(*asked, *arguments) == code
    assert words in capsys.readouterr().err
    assert not (on_disk / "x.tif").exists()
