"""The main job through the command line: train, segment, score, on real files."""

from __future__ import annotations

import json
import shlex
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import tifffile
from conftest import needs_trained_weights, write_tiny_backbone

from napari_ptsam.cli import main
from napari_ptsam.promptfile import read_prompt_file
from napari_ptsam.sample_data import procedural_stack

Capture = pytest.CaptureFixture[str]


@pytest.fixture(scope="session")
def stack(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folder with `image.tif` and `labels.tif`: 12 planes of 64x64, all with their masks."""
    (image, _, _), (labels, _, _) = procedural_stack()
    folder = tmp_path_factory.mktemp("stack")
    tifffile.imwrite(folder / "image.tif", image[4:16, 60:124, 60:124], photometric="minisblack")
    tifffile.imwrite(
        folder / "labels.tif",
        labels[4:16, 60:124, 60:124].astype(np.uint16),
        photometric="minisblack",
    )
    return folder


def train_line(stack: Path, backbone: Path | str, output: Path, more: str = "") -> list[str]:
    return shlex.split(
        f"train --images {stack}/image.tif --masks {stack}/labels.tif --planes 0-5 "
        f"--backbone {backbone} --scale 1 --device cpu -o {output} {more}"
    )


@pytest.fixture(scope="module")
def specialist(stack: Path, tiny_backbone: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A prompt file that the command line trained on the tiny backbone."""
    output = tmp_path_factory.mktemp("trained") / "new/cells.ptsam.safetensors"
    more = "--preset quick --steps 4 --class-name 'two words'"
    assert main(train_line(stack, tiny_backbone, output, more)) == 0
    return output


def segment(specialist: Path, backbone: Path, capsys: Capture, *arguments: object) -> str:
    words = ["segment", specialist, *arguments, "--backbone", backbone, "--device", "cpu"]
    code = main([str(word) for word in words])
    captured = capsys.readouterr()
    assert code == 0, captured.err
    return captured.out


def test_train_records_what_it_was_and_the_command_that_makes_it_again(
    specialist: Path, tiny_backbone: Path
) -> None:
    prompt_file = read_prompt_file(specialist)
    assert prompt_file.trainable_parameters == 2048
    assert prompt_file.metadata.class_name == "two words"
    program, *line = shlex.split(prompt_file.metadata.training["command"])
    assert program == "napari-ptsam"
    again = specialist.with_name("again.ptsam.safetensors")
    line[line.index("-o") + 1] = str(again)
    assert main(line) == 0
    for name, tensor in read_prompt_file(again).tensors.items():
        np.testing.assert_array_equal(tensor, prompt_file.tensors[name])


def test_train_says_what_was_made_and_how_to_use_it(
    stack: Path, tiny_backbone: Path, tmp_path: Path, capsys: Capture
) -> None:
    picture = tmp_path / "augmented.png"
    output = tmp_path / "cells"
    more = f"--preset quick --steps 2 --augmentation-picture {picture}"
    assert main(train_line(stack, tiny_backbone, output, more)) == 0
    captured = capsys.readouterr()
    assert f"{output}.ptsam.safetensors: 2,048 trained numbers" in captured.out
    assert "napari-ptsam segment" in captured.out
    assert "training 2/2, loss " in captured.err
    assert picture.is_file()


def test_a_stack_gives_a_stack_of_the_planes_asked_for(
    stack: Path, specialist: Path, tiny_backbone: Path, tmp_path: Path, capsys: Capture
) -> None:
    out = tmp_path / "masks.tif"
    said = segment(
        specialist, tiny_backbone, capsys, stack / "image.tif", "-o", out, "--planes", "6-9"
    )
    assert str(out) in said
    assert "4 planes" in said
    masks = tifffile.imread(out)
    assert masks.shape == (4, 64, 64)
    assert set(np.unique(masks)) <= {0, 1}
    arguments = ["evaluate", out, "--masks", stack / "labels.tif", "--planes", "6-9", "--json"]
    assert main([str(a) for a in arguments]) == 0
    assert json.loads(capsys.readouterr().out)["n"] == 4


def test_a_folder_gives_a_folder_of_the_same_names(
    stack: Path, specialist: Path, tiny_backbone: Path, tmp_path: Path, capsys: Capture
) -> None:
    images = tmp_path / "images"
    images.mkdir()
    for name, plane in zip(("b", "a.1"), tifffile.imread(stack / "image.tif")[:2], strict=True):
        tifffile.imwrite(images / f"{name}.tif", plane)
    segment(specialist, tiny_backbone, capsys, images, "-o", tmp_path / "masks")
    assert sorted(p.name for p in (tmp_path / "masks").iterdir()) == ["a.1.tif", "b.tif"]


def test_several_inputs_give_a_folder_with_one_result_each(
    stack: Path, specialist: Path, tiny_backbone: Path, tmp_path: Path, capsys: Capture
) -> None:
    single = tmp_path / "single.tif"
    tifffile.imwrite(single, tifffile.imread(stack / "image.tif")[0])
    said = segment(
        specialist, tiny_backbone, capsys, single, stack / "image.tif", "-o", tmp_path / "out",
        "--planes", "0",
    )  # fmt: skip
    assert tifffile.imread(tmp_path / "out/single.tif").shape == (64, 64)
    assert (tmp_path / "out/image.tif").is_file()
    assert said.count("Wrote") == 2


def test_a_lower_threshold_marks_no_fewer_pixels(
    stack: Path, specialist: Path, tiny_backbone: Path, tmp_path: Path, capsys: Capture
) -> None:
    counts = []
    for threshold in ("0.01", "0.99"):
        out = tmp_path / f"{threshold}.tif"
        segment(
            specialist, tiny_backbone, capsys, stack / "image.tif", "-o", out,
            "--planes", "0", "--threshold", threshold, "--scale", "fit",
        )  # fmt: skip
        counts.append(int(tifffile.imread(out).sum()))
    assert counts[0] > counts[1]


def test_probability_is_written_beside_the_masks(
    stack: Path, specialist: Path, tiny_backbone: Path, tmp_path: Path, capsys: Capture
) -> None:
    segment(
        specialist, tiny_backbone, capsys, stack / "image.tif", "-o", tmp_path / "out.tif",
        "--planes", "0-1", "--probability",
    )  # fmt: skip
    mask = tifffile.imread(tmp_path / "out.tif")
    probability = tifffile.imread(tmp_path / "out_probability.tif")
    assert probability.dtype == np.float32
    np.testing.assert_array_equal(mask > 0, probability >= 0.5)


def test_another_backbone_is_refused_with_both_names(
    stack: Path, specialist: Path, tmp_path: Path, capsys: Capture
) -> None:
    other = write_tiny_backbone(tmp_path / "other.safetensors", seed=1)
    words = ["segment", specialist, stack / "image.tif", "-o", tmp_path / "out.tif"]
    assert main([*map(str, words), "--backbone", str(other)]) == 1
    said = capsys.readouterr().err
    assert "tiny" in said
    assert "other" in said


def interruptible(words: list[str]) -> subprocess.Popen[str]:
    """Start the command so that it hears SIGINT, also where the tests run in the background.

    A shell lets what it starts with ``&`` ignore SIGINT, and children inherit that.
    """
    return subprocess.Popen(
        [sys.executable, "-m", "napari_ptsam", *words],
        stderr=subprocess.PIPE,
        text=True,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),  # noqa: PLW1509
    )


def test_an_interrupted_training_ends_at_once_and_writes_no_prompt_file(
    stack: Path, tiny_backbone: Path, tmp_path: Path
) -> None:
    output = tmp_path / "cells.ptsam.safetensors"
    line = train_line(stack, tiny_backbone, output, "--preset paper")
    process = interruptible(line)
    assert process.stderr is not None
    for text in process.stderr:
        if text.startswith("training"):
            break
    process.send_signal(signal.SIGINT)
    rest = process.stderr.read()
    process.stderr.close()
    assert process.wait(timeout=60) == 130
    assert "napari-ptsam: interrupted; no prompt file was written" in rest
    assert "Traceback" not in rest
    assert not output.exists()


def test_an_interrupted_segmentation_leaves_no_half_file(
    specialist: Path, tiny_backbone: Path, tmp_path: Path
) -> None:
    images = tmp_path / "long.tif"
    tifffile.imwrite(images, np.zeros((5000, 64, 64), np.uint8), photometric="minisblack")
    words = ["segment", specialist, images, "-o", tmp_path / "out.tif", "--device", "cpu"]
    process = interruptible([*map(str, words), "--backbone", str(tiny_backbone)])
    assert process.stderr is not None
    # The second line comes seconds later: libraries that the first plane needs may, while they
    # are imported, take an interrupt for a missing module.
    assert all("segmenting" in process.stderr.readline() for _ in range(2))
    process.send_signal(signal.SIGINT)
    rest = process.stderr.read()
    process.stderr.close()
    assert process.wait(timeout=60) == 130, rest
    assert "interrupted" in rest
    assert [p.name for p in tmp_path.iterdir()] == ["long.tif"]


@needs_trained_weights
def test_the_shipped_backbone_learns_cells_from_six_planes(
    stack: Path, tmp_path: Path, capsys: Capture
) -> None:
    prompt, out = tmp_path / "cells.ptsam.safetensors", tmp_path / "out.tif"
    # The scale that users get: at scale 1, three quarters of the input would be padding.
    assert main(train_line(stack, "embedded", prompt, "--preset quick --scale auto")) == 0
    words = ["segment", prompt, stack / "image.tif", "-o", out, "--planes", "8-11"]
    assert main([str(word) for word in words]) == 0
    words = ["evaluate", out, "--masks", stack / "labels.tif", "--planes", "8-11", "--json"]
    capsys.readouterr()
    assert main([str(word) for word in words]) == 0
    assert json.loads(capsys.readouterr().out)["dice_mean"] > 0.8
