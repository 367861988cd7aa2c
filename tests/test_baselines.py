"""What users would pick instead: a U-Net, a pixel classifier, and nnU-Net as a program."""

from __future__ import annotations

import json
import stat
import sys
from dataclasses import replace
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from PIL import Image
from scenes import bright_discs

from napari_ptsam.baselines import Baseline, forest
from napari_ptsam.baselines.forest import ForestBaseline
from napari_ptsam.baselines.nnunet import NnUnetBaseline, planned_parameters
from napari_ptsam.baselines.unet import UNet, UNetBaseline
from napari_ptsam.errors import InputError, TrainingError
from napari_ptsam.metrics import dice
from napari_ptsam.tiling import Scaling
from napari_ptsam.training.augment import Augmentation

needs_sklearn = pytest.mark.skipif(
    find_spec("sklearn") is None, reason="the pixel classifier needs scikit-learn"
)

SMALL = UNetBaseline(
    widths=(8, 16), steps=40, learning_rate=0.01, size=64, device="cpu",
    augmentation=Augmentation.none(),
)  # fmt: skip

Annotated = tuple[list[NDArray[np.float32]], list[NDArray[np.bool_]]]


@pytest.fixture(scope="module")
def discs() -> Annotated:
    examples = bright_discs(4, radius=16)
    return [e.image for e in examples], [e.mask for e in examples]


# The U-Net.


def test_the_unet_finds_what_it_was_shown(discs: Annotated) -> None:
    images, masks = discs
    predict = SMALL.fit(images[:3], masks[:3], seed=0)
    probability = predict(images[3])
    assert probability.shape == masks[3].shape
    assert probability.dtype == np.float32
    assert dice(probability >= 0.5, masks[3]) > 0.8


def test_the_unet_depends_on_its_seed_alone(discs: Annotated) -> None:
    few = replace(SMALL, steps=2)
    torch.manual_seed(1)
    first = few.fit(*discs, seed=3)(discs[0][0])
    torch.manual_seed(2)
    assert np.array_equal(first, few.fit(*discs, seed=3)(discs[0][0]))
    assert not np.array_equal(first, few.fit(*discs, seed=4)(discs[0][0]))


def test_the_unet_segments_planes_of_any_size_in_tiles(discs: Annotated) -> None:
    few = replace(SMALL, steps=1, scaling=Scaling(1.0))
    predict = few.fit(*discs, seed=0)
    wide = np.tile(discs[0][0], (1, 3, 1))[:50]
    probability = predict(wide)
    assert probability.shape == (50, 192)
    assert ((probability >= 0) & (probability <= 1)).all()


def test_a_unet_that_cannot_be_is_refused(discs: Annotated) -> None:
    with pytest.raises(InputError, match=r"multiple of 2 .* not 63"):
        replace(SMALL, size=63)
    with pytest.raises(InputError, match=r"multiples of 8.*\(8, 12\)"):
        replace(SMALL, widths=(8, 12))
    with pytest.raises(InputError, match="4 images and 0 masks"):
        SMALL.fit(discs[0], [], seed=0)


def test_the_unet_gives_logits_at_the_inputs_size() -> None:
    assert UNet((8, 16, 24))(torch.zeros(2, 3, 32, 48)).shape == (2, 1, 32, 48)


def test_the_unet_tells_what_it_learned(discs: Annotated) -> None:
    predict = replace(SMALL, steps=1).fit(*discs, seed=0)
    assert predict.parameters == sum(p.numel() for p in UNet((8, 16)).parameters())
    assert predict.nbytes == 4 * predict.parameters
    assert SMALL.missing is None


# The pixel classifier.

both_draws = pytest.mark.parametrize("balanced", [False, True])
FEW = ForestBaseline(trees=10, jobs=1)


def squares(count: int, colour: bool = False) -> Annotated:
    """Bright squares in noise; with colours, bright in one channel alone."""
    images, masks = [], []
    for seed in range(count):
        rng = np.random.default_rng(seed)
        mask = np.zeros((64, 64), bool)
        top, left = rng.integers(5, 40, 2)
        mask[top : top + 18, left : left + 18] = True
        image = np.repeat((80 + 60.0 * mask + rng.normal(0, 20, mask.shape))[..., None], 3, 2)
        if colour:
            image = rng.normal(100, 20, (64, 64, 3))
            image[..., 1] += 70 * mask
        images.append(image.clip(0, 255).astype(np.float32))
        masks.append(mask)
    return images, masks


@needs_sklearn
@both_draws
@pytest.mark.parametrize("colour", [False, True])
def test_the_forest_separates_a_simple_picture(balanced: bool, colour: bool) -> None:
    images, masks = squares(4, colour)
    baseline: Baseline = replace(FEW, balanced=balanced)
    predict = baseline.fit(images[:3], masks[:3], seed=0)
    probability = predict(images[3])
    assert probability.dtype == np.float32
    assert dice(probability >= 0.5, masks[3]) > 0.9


@needs_sklearn
def test_the_forest_depends_on_its_seed_alone() -> None:
    images, masks = squares(2)
    tiny = replace(FEW, trees=3, pixels_per_image=300)
    first, same, other = (tiny.fit(images[:1], masks[:1], seed)(images[1]) for seed in (3, 3, 4))
    assert np.array_equal(first, same)
    assert not np.array_equal(first, other)


def test_balanced_pixels_are_half_object() -> None:
    (_,), (mask,) = squares(1)
    chosen = ForestBaseline(balanced=True)._choose(mask, np.random.default_rng(0))
    inside = min(int(mask.sum()), ForestBaseline.pixels_per_image // 2)
    assert mask.ravel()[chosen].sum() == inside
    assert len(chosen) == len(set(chosen)) == min(4000, mask.size)


@needs_sklearn
def test_a_forest_has_bytes_and_no_parameters() -> None:
    images, masks = squares(1)
    few, many = (replace(FEW, trees=n).fit(images, masks, 0) for n in (1, 5))
    assert few.parameters is None
    assert 0 < few.nbytes < many.nbytes


@needs_sklearn
def test_a_forest_that_cannot_be_is_refused() -> None:
    images, masks = squares(2)
    with pytest.raises(InputError, match="2 images and 1 masks"):
        FEW.fit(images, masks[:1], seed=0)
    with pytest.raises(InputError, match="background alone"):
        FEW.fit(images[:1], [np.zeros_like(masks[0])], seed=0)
    with pytest.raises(InputError, match="not 0 and 4000"):
        ForestBaseline(trees=0)


def test_without_scikit_learn_it_is_said_how_to_get_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(forest, "find_spec", lambda name: None)
    with pytest.raises(InputError, match=r"pip install 'napari-ptsam\[benchmark\]'"):
        FEW.fit(*squares(1), seed=0)


# nnU-Net.

STUB = """\
#!{python}
import json, os, pathlib, sys
import numpy as np
from PIL import Image

program = pathlib.Path(sys.argv[0]).name
paths = {{k: os.environ[k] for k in ("nnUNet_raw", "nnUNet_preprocessed", "nnUNet_results")}}
with open({calls!r}, "a") as calls:
    calls.write(json.dumps([program, sys.argv[1:], paths]) + chr(10))
if program == os.environ.get("STUB_FAILS"):
    sys.exit("out of patience")
if program == "nnUNetv2_predict":
    given, found = (pathlib.Path(sys.argv[sys.argv.index(o) + 1]) for o in ("-i", "-o"))
    found.mkdir()
    for path in given.iterdir():
        pixels = np.asarray(Image.open(path))[..., 0] / 255
        classes = np.stack([1 - pixels, pixels])[:, None]
        np.savez_compressed(found / path.name.replace("_0000.png", ".npz"), probabilities=classes)
"""


@pytest.fixture
def calls(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A stand-in for nnU-Net's commands, and the file that each call is written to."""
    record, programs = tmp_path / "calls.jsonl", tmp_path / "bin"
    programs.mkdir()
    for name in ("nnUNetv2_plan_and_preprocess", "nnUNetv2_train", "nnUNetv2_predict"):
        path = programs / name
        path.write_text(STUB.format(python=sys.executable, calls=str(record)))
        path.chmod(path.stat().st_mode | stat.S_IXUSR)
    monkeypatch.setenv("PATH", str(programs))
    return record


def test_nnunet_is_planned_trained_and_applied(
    calls: Path, discs: Annotated, tmp_path: Path
) -> None:
    folder = tmp_path / "nnunet"
    baseline: Baseline = NnUnetBaseline(folder, trainer="nnUNetTrainer_5epochs", device="cpu")
    predict = baseline.fit(*discs, seed=0)
    probability = predict(discs[0][0])
    np.testing.assert_allclose(probability, discs[0][0][..., 0] / 255, atol=0.005)
    said = [json.loads(line) for line in calls.read_text().splitlines()]
    assert [program for program, _, _ in said] == [
        "nnUNetv2_plan_and_preprocess", "nnUNetv2_train", "nnUNetv2_predict",
    ]  # fmt: skip
    assert said[1][1] == ["1", "2d", "all", "-tr", "nnUNetTrainer_5epochs", "-device", "cpu"]
    for _, _, paths in said:
        assert paths == {
            f"nnUNet_{part}": str(folder / part) for part in ("raw", "preprocessed", "results")
        }
    assert not list(folder.glob("tmp*"))


def test_nnunet_is_started_once_for_several_images(
    calls: Path, discs: Annotated, tmp_path: Path
) -> None:
    images = discs[0]
    found = NnUnetBaseline(tmp_path / "x").fit(*discs, seed=0).predict(images)
    for image, probability in zip(images, found, strict=True):
        np.testing.assert_allclose(probability, image[..., 0] / 255, atol=0.005)
    assert calls.read_text().count("nnUNetv2_predict") == 1


def test_nnunet_plans_for_the_memory_that_it_is_given(
    calls: Path, discs: Annotated, tmp_path: Path
) -> None:
    NnUnetBaseline(tmp_path / "small", planned_gigabytes=0.5).fit(*discs, seed=0)
    NnUnetBaseline(tmp_path / "own").fit(*discs, seed=0)
    said = [json.loads(line)[1] for line in calls.read_text().splitlines()]
    assert said[0][-2:] == ["-gpu_memory_target", "0.5"]
    assert "-gpu_memory_target" not in said[2]


def test_nnunet_is_given_colour_images_and_labels_by_its_own_rules(
    calls: Path, discs: Annotated, tmp_path: Path
) -> None:
    NnUnetBaseline(tmp_path / "x").fit(*discs, seed=0)
    home = tmp_path / "x" / "raw" / "Dataset001_specialist"
    description = json.loads((home / "dataset.json").read_text())
    assert description["numTraining"] == 4
    assert description["labels"] == {"background": 0, "object": 1}
    for number, (image, mask) in enumerate(zip(*discs, strict=True)):
        stored = np.asarray(Image.open(home / "imagesTr" / f"case{number:04d}_0000.png"))
        np.testing.assert_array_equal(stored, np.rint(image))
        labels = np.asarray(Image.open(home / "labelsTr" / f"case{number:04d}.png"))
        np.testing.assert_array_equal(labels, mask)


def test_what_nnunet_says_when_it_fails_is_told(
    calls: Path, discs: Annotated, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("STUB_FAILS", "nnUNetv2_train")
    with pytest.raises(TrainingError, match=r"nnUNetv2_train ended with the code 1.*patience"):
        NnUnetBaseline(tmp_path / "x").fit(*discs, seed=0)
    with pytest.raises(InputError, match="not empty"):
        NnUnetBaseline(tmp_path / "x").fit(*discs, seed=0)


def test_without_nnunet_it_is_said_how_to_get_it(
    discs: Annotated, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    assert "nnunet" in str(NnUnetBaseline(tmp_path / "x").missing)
    with pytest.raises(InputError, match=r"pip install 'napari-ptsam\[nnunet\]'"):
        NnUnetBaseline(tmp_path / "x").fit(*discs, seed=0)
    assert not (tmp_path / "x").exists()


class PlannedNet(torch.nn.Module):
    """Takes what nnU-Net's plans give to a network."""

    def __init__(
        self, input_channels: int, num_classes: int, deep_supervision: bool, conv_op: type, n: int
    ) -> None:
        super().__init__()
        assert deep_supervision
        self.layer = conv_op(input_channels, num_classes, n)


def test_nnunets_parameters_are_those_of_its_plans(tmp_path: Path) -> None:
    assert planned_parameters(tmp_path) is None
    architecture = {
        "network_class_name": f"{__name__}.PlannedNet",
        "arch_kwargs": {"conv_op": "torch.nn.modules.conv.Conv2d", "n": 3},
        "_kw_requires_import": ["conv_op"],
    }
    plans = {"configurations": {"2d": {"architecture": architecture}}}
    (tmp_path / "nnUNetPlans.json").write_text(json.dumps(plans))
    assert planned_parameters(tmp_path) == 2 * 3 * 9 + 2


def test_of_nnunets_own_network_the_papers_count_is_told(tmp_path: Path) -> None:
    pytest.importorskip(
        "dynamic_network_architectures", reason="nnU-Net's architectures are not installed"
    )
    stages = 9
    settings = {
        "n_stages": stages,
        "features_per_stage": [min(32 * 2**stage, 512) for stage in range(stages)],
        "conv_op": "torch.nn.modules.conv.Conv2d",
        "kernel_sizes": 3,
        "strides": [1] + [2] * (stages - 1),
        "n_conv_per_stage": 2,
        "n_conv_per_stage_decoder": 2,
        "conv_bias": True,
        "norm_op": "torch.nn.modules.instancenorm.InstanceNorm2d",
        "norm_op_kwargs": {"eps": 1e-5, "affine": True},
        "dropout_op": None,
        "nonlin": "torch.nn.LeakyReLU",
        "nonlin_kwargs": {"inplace": True},
    }
    architecture = {
        "network_class_name": "dynamic_network_architectures.architectures.unet.PlainConvUNet",
        "arch_kwargs": settings,
        "_kw_requires_import": ["conv_op", "norm_op", "dropout_op", "nonlin"],
    }
    plans = {"configurations": {"2d": {"architecture": architecture}}}
    (tmp_path / "nnUNetPlans.json").write_text(json.dumps(plans))
    assert planned_parameters(tmp_path) == 59_177_872
