"""Scores: their values, how planes pair, and how little is held."""

from __future__ import annotations

import math
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import tifffile
from numpy.typing import NDArray

from napari_ptsam.errors import InputError
from napari_ptsam.metrics import Overlap, Scores, boundary_f, dice, iou, score_planes
from napari_ptsam.planes import open_planes

EMPTY = np.zeros((8, 8), bool)
FULL = np.ones((8, 8), bool)


def square(top: int, left: int, side: int, size: int = 64) -> NDArray[np.bool_]:
    mask = np.zeros((size, size), bool)
    mask[top : top + side, left : left + side] = True
    return mask


def test_dice_and_iou_of_two_shifted_squares() -> None:
    one, other = square(10, 10, 10), square(10, 15, 10)
    assert dice(one, other) == pytest.approx(2 * 50 / 200)
    assert iou(one, other) == pytest.approx(50 / 150)


@pytest.mark.parametrize("measure", [dice, iou, boundary_f])
def test_both_empty_agree_and_one_empty_does_not(measure) -> None:
    assert measure(EMPTY, EMPTY) == 1
    assert measure(FULL, FULL) == 1
    assert measure(EMPTY, FULL) == 0
    assert measure(FULL, EMPTY) == 0


@pytest.mark.parametrize("measure", [dice, iou, boundary_f])
def test_invalid_pixels_do_not_count(measure) -> None:
    truth, pred = square(10, 10, 10), square(10, 10, 10) | square(40, 40, 10)
    valid = ~square(38, 38, 14)
    assert measure(pred, truth) < 1
    assert measure(pred, truth, valid) == 1
    assert measure(pred, truth, np.zeros_like(valid)) == 1


@pytest.mark.parametrize("measure", [dice, iou, boundary_f])
def test_any_nonzero_value_is_the_object(measure) -> None:
    mask = square(5, 5, 20)
    assert measure(mask.astype(np.uint8) * 255, mask.astype(np.int32) * 7) == 1


@pytest.mark.parametrize("measure", [dice, iou, boundary_f])
def test_different_shapes_are_refused_in_words(measure) -> None:
    with pytest.raises(InputError, match=r"\(8, 8\).*\(64, 64\)"):
        measure(EMPTY, square(1, 1, 1))


def test_boundary_f_forgives_shifts_within_its_tolerance_only() -> None:
    truth = square(20, 20, 20)
    assert boundary_f(square(20, 22, 20), truth, tolerance=2) == 1
    assert boundary_f(square(20, 24, 20), truth, tolerance=2) < 0.8
    assert boundary_f(square(20, 21, 20), truth) == 1  # 0.75 % of 90.5 px, rounded up
    with pytest.raises(InputError, match="-1"):
        boundary_f(truth, truth, tolerance=-1)


def test_boundary_f_is_the_harmonic_mean_of_precision_and_recall() -> None:
    truth, pred = square(4, 4, 20), square(4, 4, 20) | square(40, 40, 20)
    # All of the true outline is found, half of the predicted one is right.
    assert boundary_f(pred, truth, tolerance=1) == pytest.approx(2 / 3)


def test_the_image_edge_is_no_outline() -> None:
    half = np.zeros((64, 64), bool)
    half[:, :32] = True
    assert boundary_f(half, half[:, ::-1], tolerance=2) == 1


def test_summary_has_mean_and_sample_sd_and_pooled_dice() -> None:
    scores = Scores({"a": Overlap(5, 10, 10), "b": Overlap(100, 100, 100), "c": Overlap(0, 0, 0)})
    summary = scores.to_dict()
    assert summary["n"] == 3
    assert summary["dice_mean"] == pytest.approx((0.5 + 1 + 1) / 3)
    assert summary["dice_sd"] == pytest.approx(math.sqrt(1 / 12))
    assert summary["dice_pooled"] == pytest.approx(2 * 105 / 220)
    assert summary["iou_mean"] == pytest.approx((1 / 3 + 1 + 1) / 3)


def test_one_plane_has_no_spread_and_none_has_no_score() -> None:
    assert Scores({"a": Overlap(5, 10, 10)}).to_dict()["dice_sd"] == 0
    with pytest.raises(InputError, match="no planes"):
        Scores({}).to_dict()


def folder(path: Path, masks: dict[str, NDArray[np.generic]]) -> Path:
    for name, mask in masks.items():
        (path / name).parent.mkdir(parents=True, exist_ok=True)
        tifffile.imwrite(path / name, mask.astype(np.uint16), compression=None)
    return path


def stack(*masks: NDArray[np.bool_]) -> NDArray[np.uint8]:
    return np.stack(masks).astype(np.uint8)


def test_folders_pair_by_name_whatever_else_is_predicted(tmp_path) -> None:
    one, other = square(5, 5, 10), square(30, 30, 10)
    predicted = folder(tmp_path / "p", {"a.tif": one, "extra.tif": one, "z.tif": other})
    truth = folder(tmp_path / "t", {"a.tif": one * 7, "z_mask.tif": other * 3})
    scores = score_planes(open_planes(predicted), open_planes(truth))
    assert [overlap.dice for overlap in scores.overlaps.values()] == [1, 1]
    assert list(scores.overlaps) == ["a", "z_mask"]


def test_mask_without_prediction_is_named(tmp_path) -> None:
    predicted = folder(tmp_path / "p", {"a.tif": EMPTY})
    truth = folder(tmp_path / "t", {"a.tif": EMPTY, "lost.tif": EMPTY})
    with pytest.raises(InputError, match=r"1 of the 2 masks.*lost"):
        score_planes(open_planes(predicted), open_planes(truth))
    assert score_planes(open_planes(predicted), open_planes(truth), planes=[0]).to_dict()["n"] == 1


def test_stacks_pair_by_position_and_chosen_planes() -> None:
    truth = stack(*(square(i, i, 10) for i in range(6)))
    whole = score_planes(open_planes(truth), open_planes(truth))
    assert whole.to_dict()["n"] == 6
    some = score_planes(open_planes(truth), open_planes(truth), planes=[4, 5])
    assert list(some.overlaps) == ["0004", "0005"]


@pytest.mark.parametrize("short_side", ["predicted", "truth"])
def test_a_stack_of_just_the_chosen_planes_pairs_with_the_whole(short_side) -> None:
    whole = stack(*(square(3 * i, 3 * i, 10) for i in range(6)))
    sides = {"predicted": open_planes(whole), "truth": open_planes(whole)}
    sides[short_side] = open_planes(whole[[2, 4]])
    summary = score_planes(**sides, planes=[2, 4]).to_dict()
    assert (summary["n"], summary["dice_mean"]) == (2, 1)


def test_stacks_of_other_lengths_are_refused_in_words() -> None:
    masks = stack(*[square(1, 1, 5)] * 4)
    with pytest.raises(InputError, match=r"2 planes.*4.*--planes"):
        score_planes(open_planes(masks[:2]), open_planes(masks))
    with pytest.raises(InputError, match="no plane 9"):
        score_planes(open_planes(masks), open_planes(masks), planes=[9])


def test_label_chooses_the_object_of_the_truth_and_ignored_pixels_do_not_count() -> None:
    truth = square(5, 5, 10) * 1 + square(30, 30, 10) * 2 + square(50, 50, 10) * 9
    pred = square(30, 30, 10) | square(50, 50, 10)
    sides = open_planes(pred.astype(np.uint8)), open_planes(truth.astype(np.uint8))
    assert score_planes(*sides).to_dict()["dice_mean"] == pytest.approx(2 * 200 / 500)
    assert score_planes(*sides, label=2).to_dict()["dice_mean"] == pytest.approx(2 * 100 / 300)
    assert score_planes(*sides, label=2, ignore_label=9).to_dict()["dice_mean"] == 1


def test_planes_of_other_sizes_and_probabilities_are_refused_in_words() -> None:
    masks = stack(square(1, 1, 5), square(1, 1, 5))
    with pytest.raises(InputError, match=r"32 x 64.*64 x 64"):
        score_planes(open_planes(masks[:, :32]), open_planes(masks))
    with pytest.raises(InputError, match="probabilities"):
        score_planes(open_planes(masks * np.float32(0.7)), open_planes(masks))


def test_one_plane_is_read_at_a_time(monkeypatch) -> None:
    truth = open_planes(stack(*[square(1, 1, 5)] * 5))
    pred = open_planes(stack(*[square(1, 1, 5)] * 5))
    order = []
    for name, planes in (("pred", pred), ("truth", truth)):
        read = planes.read_labels
        monkeypatch.setattr(
            planes, "read_labels", lambda i, n=name, r=read: order.append((n, i)) or r(i)
        )
    score_planes(pred, truth)
    assert order == [(name, i) for i in range(5) for name in ("pred", "truth")]


def test_scoring_needs_no_torch() -> None:
    code = "import sys, napari_ptsam.metrics, napari_ptsam.labels, napari_ptsam.examples\n"
    code += "assert 'torch' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True, env=dict(os.environ))
