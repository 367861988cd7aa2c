"""The specialist: trained on files, saved, loaded, and applied alike."""

from __future__ import annotations

import subprocess
import sys
from contextlib import closing
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tifffile
from conftest import write_tiny_backbone
from numpy.typing import NDArray
from PIL import Image
from scenes import bright_discs

from napari_ptsam.backbones import load_backbone
from napari_ptsam.errors import InputError, PromptFileError, PtsamError, TrainingError
from napari_ptsam.normalize import Normalization
from napari_ptsam.objects import split_objects
from napari_ptsam.promptfile import PromptFile, read_prompt_file, write_prompt_file
from napari_ptsam.specialist import PlaneDone, Specialist, TrainStep
from napari_ptsam.training import loop

QUICK: dict[str, Any] = {"preset": "quick", "steps": 3, "device": "cpu", "scale": "fit"}


@pytest.fixture(scope="module")
def stack() -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
    """Images and masks, 6x64x64; the last two planes have no paint."""
    examples = bright_discs(6)
    masks = np.stack([e.mask for e in examples]).astype(np.uint8)
    masks[4:] = 0
    return np.stack([e.image[..., 0] for e in examples]).astype(np.uint8), masks


@pytest.fixture(scope="module")
def folders(stack: tuple[NDArray[Any], NDArray[Any]], tmp_path_factory: Any) -> tuple[Path, Path]:
    images, masks = (tmp_path_factory.mktemp(name) for name in ("images", "masks"))
    for number, (image, mask) in enumerate(zip(*stack, strict=True)):
        Image.fromarray(image).save(images / f"cell_{number}.png")
        if mask.any():
            tifffile.imwrite(masks / f"cell_{number}.tif", mask)
    return images, masks


@pytest.fixture(scope="module")
def specialist(stack: tuple[NDArray[Any], NDArray[Any]], tiny_backbone: Path) -> Specialist:
    return Specialist.train(*stack, backbone=tiny_backbone, class_name="disc", **QUICK)


def drained(steps: Any) -> tuple[list[Any], Any]:
    found = []
    while True:
        try:
            found.append(next(steps))
        except StopIteration as end:
            return found, end.value


def same_prompts(first: Specialist, second: Specialist) -> bool:
    one, other = first.method.tensors(), second.method.tensors()
    return one.keys() == other.keys() and all(bool((v == other[k]).all()) for k, v in one.items())


def test_folders_and_stacks_of_the_same_images_give_the_same_prompts(
    folders: tuple[Path, Path], specialist: Specialist, tiny_backbone: Path
) -> None:
    seen: list[TrainStep] = []
    images, masks = folders
    trained = Specialist.train(
        images, masks, backbone=tiny_backbone, on_step=seen.append, command="make it", **QUICK
    )
    assert [s.step for s in seen if s.phase == "train"] == [1, 2, 3]
    assert same_prompts(trained, specialist)
    assert trained.metadata.class_name == "object"
    record = trained.metadata.training
    assert (record["images"], record["seed"], record["command"]) == (4, 0, "make it")
    assert record["plan"]["preset"] == "quick"
    assert set(record["held_out"]) <= {f"cell_{i}" for i in range(4)}
    assert {"torch", "numpy", "napari-ptsam"} <= set(record["packages"])


def test_chosen_planes_of_a_stack_are_learned_from(
    stack: tuple[NDArray[Any], NDArray[Any]], specialist: Specialist, tiny_backbone: Path
) -> None:
    some = Specialist.train(*stack, planes=[0, 2], backbone=tiny_backbone, **QUICK)
    assert some.metadata.training["images"] == 2
    first = Specialist.train(*stack, limit=3, backbone=tiny_backbone, **QUICK)
    assert first.metadata.training["images"] == 3
    assert not same_prompts(some, specialist)


def test_a_saved_specialist_predicts_the_same(
    specialist: Specialist,
    stack: tuple[NDArray[Any], NDArray[Any]],
    tiny_backbone: Path,
    tmp_path: Path,
) -> None:
    path = specialist.save(tmp_path / "disc")
    assert path.name == "disc.ptsam.safetensors"
    assert path.stat().st_size < 16 * 1024
    loaded = Specialist.load(path, backbone=tiny_backbone, device="cpu")
    assert loaded.metadata == read_prompt_file(path).metadata
    assert loaded.trainable_parameters == specialist.trainable_parameters == 2048
    for image in stack[0]:
        one, other = specialist.predict(image), loaded.predict(image)
        np.testing.assert_array_equal(one.probability, other.probability)
        np.testing.assert_array_equal(one.mask, other.mask)
        assert one.mask.shape == image.shape


def test_encoder_prompts_are_saved_too(
    stack: tuple[NDArray[Any], NDArray[Any]], tiny_backbone: Path, tmp_path: Path
) -> None:
    trained = Specialist.train(*stack, backbone=tiny_backbone, encoder_prompts=True, **QUICK)
    assert trained.trainable_parameters == 2048 + 2 * 8 * 32
    loaded = Specialist.load(trained.save(tmp_path / "x"), backbone=tiny_backbone)
    assert same_prompts(trained, loaded)
    image = stack[0][0]
    np.testing.assert_array_equal(
        trained.predict(image).probability, loaded.predict(image).probability
    )


def test_another_backbone_is_refused_with_both_names(
    specialist: Specialist, tmp_path: Path
) -> None:
    path = specialist.save(tmp_path / "disc")
    other = load_backbone(write_tiny_backbone(tmp_path / "stranger.safetensors", seed=5))
    with pytest.raises(PromptFileError, match=r"backbone 'tiny'.*not on 'stranger'.*Load 'tiny'"):
        Specialist.load(path, backbone=other)


def test_another_version_of_the_same_backbone_is_refused_with_a_way_out(
    specialist: Specialist, tmp_path: Path
) -> None:
    path = specialist.save(tmp_path / "disc")
    other = load_backbone(write_tiny_backbone(tmp_path / "tiny.safetensors", seed=5))
    with pytest.raises(PromptFileError, match=r"two versions of it: train again"):
        Specialist.load(path, backbone=other)


def test_a_file_of_an_unknown_method_is_refused(
    specialist: Specialist, tiny_backbone: Path, tmp_path: Path
) -> None:
    file = read_prompt_file(specialist.save(tmp_path / "disc"))
    values = {**vars(file.metadata), "method": "crystal"}
    other = PromptFile(file.tensors, type(file.metadata)(**values))
    path = write_prompt_file(tmp_path / "other", other)
    with pytest.raises(PromptFileError, match=r"'crystal' is not known"):
        Specialist.load(path, backbone=tiny_backbone)


def test_the_threshold_decides_the_mask_and_is_saved(
    stack: tuple[NDArray[Any], NDArray[Any]],
    specialist: Specialist,
    tiny_backbone: Path,
    tmp_path: Path,
) -> None:
    own = Specialist.load(specialist.save(tmp_path / "a"), backbone=tiny_backbone)
    assert own.threshold == 0.5
    middle = float(np.median(own.predict(stack[0][0]).probability))
    own.threshold = middle
    again = Specialist.load(own.save(tmp_path / "b"), backbone=tiny_backbone)
    assert again.threshold == middle
    predicted = again.predict(stack[0][0])
    np.testing.assert_array_equal(predicted.mask, predicted.probability >= middle)
    assert 0.3 < predicted.mask.mean() < 0.7


# Applied to files.


def test_a_folder_is_segmented_into_a_folder(
    specialist: Specialist, folders: tuple[Path, Path], tmp_path: Path
) -> None:
    done, path = drained(specialist.segment(folders[0], tmp_path / "out"))
    assert path == tmp_path / "out"
    assert [(d.done, d.total, d.key) for d in done] == [(i + 1, 6, f"cell_{i}") for i in range(6)]
    assert sorted(p.name for p in path.iterdir()) == [f"cell_{i}.tif" for i in range(6)]
    with Image.open(folders[0] / "cell_4.png") as opened:
        image = np.asarray(opened)
    found = tifffile.imread(path / "cell_4.tif")
    np.testing.assert_array_equal(found > 0, specialist.predict(image).mask)


def test_chosen_planes_of_a_stack_are_segmented_with_their_probability(
    specialist: Specialist, stack: tuple[NDArray[Any], NDArray[Any]], tmp_path: Path
) -> None:
    run = specialist.segment(stack[0], tmp_path / "out.tif", planes=[4, 1], probability=True)
    done, path = drained(run)
    assert isinstance(done[0], PlaneDone)
    assert [d.index for d in done] == [4, 1]
    assert all(a.seconds <= b.seconds for a, b in pairwise(done))
    masks = tifffile.imread(path)
    probability = tifffile.imread(tmp_path / "out_probability.tif")
    assert masks.shape == probability.shape == (2, 64, 64)
    for number, index in enumerate((4, 1)):
        predicted = specialist.predict(stack[0][index])
        np.testing.assert_array_equal(probability[number], predicted.probability)
        np.testing.assert_array_equal(masks[number] > 0, predicted.mask)


def test_objects_below_the_minimum_size_are_left_out_of_each_plane(
    specialist: Specialist, stack: tuple[NDArray[Any], NDArray[Any]], tmp_path: Path
) -> None:
    mask = specialist.predict(stack[0][0]).mask
    sizes = np.bincount(split_objects(mask).ravel())[1:]
    _, path = drained(
        specialist.segment(
            stack[0], tmp_path / "out.tif", planes=[0], minimum_size=int(sizes.max())
        )
    )
    assert (tifffile.imread(path) > 0).sum() == sizes[sizes == sizes.max()].sum()
    _, path = drained(
        specialist.segment(
            stack[0], tmp_path / "none.tif", planes=[0], minimum_size=int(sizes.max()) + 1
        )
    )
    assert not tifffile.imread(path).any()


def test_segmenting_reads_a_plane_only_when_its_turn_comes(
    specialist: Specialist, stack: tuple[NDArray[Any], NDArray[Any]], tmp_path: Path
) -> None:
    read: list[int] = []

    class Noted:
        shape, dtype, ndim = stack[0].shape, stack[0].dtype, 3

        def __getitem__(self, index: Any) -> NDArray[Any]:
            read.append(index[0] if isinstance(index, tuple) else index)
            return stack[0][index]

        def __array__(self, *args: Any, **options: Any) -> NDArray[Any]:
            raise AssertionError("the whole stack was read")

    with closing(specialist.segment(Noted(), tmp_path / "out.tif")) as run:
        next(run)
        next(run)
        assert read == [0, 1]


# What was used in training is used again.


def test_the_channel_of_training_is_used_again(
    stack: tuple[NDArray[Any], NDArray[Any]], tiny_backbone: Path, tmp_path: Path
) -> None:
    images, masks = stack
    two = np.stack([np.random.default_rng(0).integers(0, 255, images.shape, np.uint8), images], 1)
    trained = Specialist.train(two, masks, axes="ZCYX", channel=1, backbone=tiny_backbone, **QUICK)
    loaded = Specialist.load(trained.save(tmp_path / "x"), backbone=tiny_backbone)
    assert loaded.metadata.channels == {"axes": "ZCYX", "channel": 1}
    _, path = drained(loaded.segment(two, tmp_path / "a.tif", planes=[0]))
    np.testing.assert_array_equal(
        np.squeeze(tifffile.imread(path)) > 0, loaded.predict(images[0]).mask
    )
    _, path = drained(loaded.segment(two, tmp_path / "b.tif", planes=[0], channel=0))
    other = loaded.predict(two[0, 0])
    np.testing.assert_array_equal(np.squeeze(tifffile.imread(path)) > 0, other.mask)
    assert not np.array_equal(other.probability, loaded.predict(images[0]).probability)


def test_axes_and_channel_of_training_are_no_matter_to_an_image_without_them(
    stack: tuple[NDArray[Any], NDArray[Any]], tiny_backbone: Path, tmp_path: Path
) -> None:
    images, masks = stack
    trained = Specialist.train(
        images[:, None], masks, axes="ZCYX", channel=0, backbone=tiny_backbone, **QUICK
    )
    for channel in (0, "DAPI"):
        trained.metadata = replace(trained.metadata, channels={"axes": "ZCYX", "channel": channel})
        _, path = drained(trained.segment(images[0], tmp_path / f"{channel}.tif"))
        found = np.squeeze(tifffile.imread(path)) > 0
        np.testing.assert_array_equal(found, trained.predict(images[0]).mask)
    with pytest.raises(InputError, match=r"specialist was trained on the channel 'DAPI'.*--chan"):
        drained(trained.segment(np.stack([images] * 2, 1), tmp_path / "two.tif"))
    with pytest.raises(InputError, match="name 4 axes"):
        drained(trained.segment(images[0], tmp_path / "asked.tif", axes="ZCYX"))


def test_a_range_measured_on_the_stack_is_stored_and_used_again(
    stack: tuple[NDArray[Any], NDArray[Any]], tiny_backbone: Path, tmp_path: Path
) -> None:
    images, masks = stack
    trained = Specialist.train(
        images.astype(np.uint16) * 100,
        masks,
        normalization=Normalization(per="stack"),
        backbone=tiny_backbone,
        **QUICK,
    )
    loaded = Specialist.load(trained.save(tmp_path / "x"), backbone=tiny_backbone)
    assert loaded.normalization == trained.normalization
    assert loaded.normalization.range is not None
    assert 0 < loaded.normalization.range[0] < loaded.normalization.range[1] <= 25500
    bright, dark = (loaded.predict(images[0].astype(np.uint16) * f) for f in (100, 50))
    assert not np.array_equal(bright.probability, dark.probability)


def test_normalising_each_image_makes_its_exposure_irrelevant(
    stack: tuple[NDArray[Any], NDArray[Any]], specialist: Specialist
) -> None:
    bright, dark = (specialist.predict(stack[0][0].astype(np.uint16) * f) for f in (100, 50))
    np.testing.assert_allclose(bright.probability, dark.probability, atol=1e-4)


def test_the_working_scale_of_training_is_used_again(
    stack: tuple[NDArray[Any], NDArray[Any]], tiny_backbone: Path, tmp_path: Path
) -> None:
    options = {**QUICK, "scale": 1.5}
    trained = Specialist.train(*stack, backbone=tiny_backbone, **options)
    loaded = Specialist.load(trained.save(tmp_path / "x"), backbone=tiny_backbone)
    assert loaded.scaling.factor == 1.5
    assert loaded.metadata.working_scale == {"mode": "fixed", "factor": 1.5}


# As a window uses it.


def test_a_preview_shows_what_was_learned_by_then(
    stack: tuple[NDArray[Any], NDArray[Any]], tiny_backbone: Path
) -> None:
    run = Specialist.train_steps(*stack, backbone=tiny_backbone, **QUICK)
    shown = [s.preview(stack[0][0]).probability for s in run if s.phase == "train" and s.preview]
    assert len(shown) == 3
    assert not np.array_equal(shown[0], shown[1])


def test_a_training_closed_early_releases_everything(
    stack: tuple[NDArray[Any], NDArray[Any]], tiny_backbone: Path, tmp_path: Path
) -> None:
    checkpoint = tmp_path / "run.safetensors"
    with closing(
        Specialist.train_steps(*stack, backbone=tiny_backbone, checkpoint=checkpoint, **QUICK)
    ) as run:
        assert next(run).phase == "embed"
    with pytest.raises(StopIteration):
        next(run)
    assert list(tmp_path.iterdir()) == []


def test_a_segmentation_closed_early_leaves_no_half_file(
    specialist: Specialist, stack: tuple[NDArray[Any], NDArray[Any]], tmp_path: Path
) -> None:
    with closing(specialist.segment(stack[0], tmp_path / "out.tif", probability=True)) as run:
        next(run)
    assert list(tmp_path.iterdir()) == []


def test_a_picture_of_augmented_samples_is_written_before_training(
    stack: tuple[NDArray[Any], NDArray[Any]], tiny_backbone: Path, tmp_path: Path
) -> None:
    picture = tmp_path / "views.png"
    with closing(
        Specialist.train_steps(
            *stack, backbone=tiny_backbone, augmentation_picture=picture, **QUICK
        )
    ) as run:
        next(run)
        with Image.open(picture) as opened:
            assert opened.size == (4 * 66, 4 * 66)


# Going on after being killed.

KILLED = """
import sys
import numpy as np
from napari_ptsam.specialist import Specialist
from napari_ptsam.training import loop

loop.CHECKPOINT_SECONDS = -1.0
data, backbone, checkpoint = sys.argv[1:]
with np.load(data) as arrays:
    images, masks = arrays["images"], arrays["masks"]
for step in Specialist.train_steps(
    images, masks, backbone=backbone, checkpoint=checkpoint,
    preset="quick", steps=2000, device="cpu", scale="fit",
):
    print(step.phase, step.step, flush=True)
"""


def test_a_process_that_was_killed_goes_on_to_the_same_prompts(
    stack: tuple[NDArray[Any], NDArray[Any]],
    tiny_backbone: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    checkpoint, data = tmp_path / "run.safetensors", tmp_path / "data.npz"
    np.savez(data, images=stack[0], masks=stack[1])
    words = [sys.executable, "-c", KILLED, data, tiny_backbone, checkpoint]
    process = subprocess.Popen([str(w) for w in words], stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    for line in process.stdout:
        if line == "train 3\n":
            process.kill()
            break
    process.stdout.close()
    assert process.wait(timeout=60) != 0
    assert checkpoint.is_file()
    long = {**QUICK, "backbone": tiny_backbone, "steps": 2000}
    stop_at = 12
    run = Specialist.train_steps(*stack, checkpoint=checkpoint, **long)
    resumed = _numbers_until(run, stop_at)
    assert 3 <= min(resumed) - 1 < stop_at
    whole = _numbers_until(Specialist.train_steps(*stack, **long), stop_at)
    for step, loss in resumed.items():
        assert loss == whole[step]


def _numbers_until(run: Any, stop_at: int) -> dict[int, float]:
    """Losses of the steps up to one of them."""
    found: dict[int, float] = {}
    with closing(run):
        for step in run:
            if step.phase == "train":
                found[step.step] = step.loss
                if step.step >= stop_at:
                    break
    return found


def test_a_finished_run_removes_its_checkpoint(
    stack: tuple[NDArray[Any], NDArray[Any]],
    tiny_backbone: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(loop, "CHECKPOINT_SECONDS", -1.0)
    checkpoint = tmp_path / "run.safetensors"
    seen = []
    run = Specialist.train_steps(*stack, backbone=tiny_backbone, checkpoint=checkpoint, **QUICK)
    for step in run:
        seen.append((step.phase, checkpoint.exists()))
    assert ("train", True) in seen
    assert not checkpoint.exists()


# Refused in words.


@pytest.mark.parametrize(
    ("options", "error", "told"),
    [
        ({"preset": "fast"}, InputError, r"no preset 'fast'.*quick, standard, paper"),
        ({"steps": 0}, InputError, r"at least one step.*not 0"),
        ({"scale": "huge"}, InputError, r"'auto', 'fit' or a number, not 'huge'"),
        ({"scale": 99}, InputError, r"0\.01 to 16.*99"),
        ({"device": "tpu"}, InputError, r"'tpu' is not available.*'auto'.*cpu"),
        ({"backbone": "vit_c"}, PtsamError, r"vit_c"),
        ({"planes": [5]}, PtsamError, r"(?i)object"),
        ({"label": 9}, PtsamError, r"9"),
    ],
)
def test_options_that_cannot_be_used_are_refused_in_words(
    stack: tuple[NDArray[Any], NDArray[Any]],
    tiny_backbone: Path,
    options: dict[str, Any],
    error: type[Exception],
    told: str,
) -> None:
    with pytest.raises(error, match=told):
        Specialist.train(*stack, **{"backbone": tiny_backbone, **QUICK, **options})


def test_masks_without_any_paint_are_refused_in_words(
    stack: tuple[NDArray[Any], NDArray[Any]], tiny_backbone: Path
) -> None:
    with pytest.raises(PtsamError, match=r"(?i)paint"):
        Specialist.train(stack[0], np.zeros_like(stack[1]), backbone=tiny_backbone, **QUICK)


def test_a_checkpoint_of_other_images_is_refused(
    stack: tuple[NDArray[Any], NDArray[Any]],
    tiny_backbone: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(loop, "CHECKPOINT_SECONDS", -1.0)
    options = {**QUICK, "backbone": tiny_backbone, "checkpoint": tmp_path / "run.safetensors"}
    with closing(Specialist.train_steps(*stack, **options)) as run:
        next(step for step in run if step.phase == "train")
    with pytest.raises(TrainingError, match="belongs to another run"):
        next(Specialist.train_steps(stack[0][:3], stack[1][:3], **options))


def test_the_standard_preset_looks_from_four_sides_and_another_number_is_kept(
    stack: tuple[NDArray[Any], NDArray[Any]], tiny_backbone: Path, tmp_path: Path
) -> None:
    settings = {**QUICK, "preset": "standard", "steps": 1}
    trained = Specialist.train(*stack, backbone=tiny_backbone, **settings)
    assert trained.rotations == 4
    averaged = trained.predict(stack[0][0]).probability
    trained.rotations = 1
    path = trained.save(tmp_path / "one")
    again = Specialist.load(path, backbone=tiny_backbone, device="cpu")
    assert again.rotations == 1
    single = again.predict(stack[0][0]).probability
    assert np.abs(averaged - single).max() > 1e-4
