"""How well predicted masks agree with true ones.

Scores are shares from 0 to 1, taken per image at the image's own resolution. Two
empty masks agree: 1. Pixels that are not `valid` do not count.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from napari_ptsam.errors import InputError

if TYPE_CHECKING:
    from napari_ptsam.planes import Planes

BOUNDARY_TOLERANCE = 0.0075
"""Share of the image's diagonal, as in the BSDS benchmark (Martin, Fowlkes, Malik 2004)."""


@dataclass(frozen=True)
class Overlap:
    """Pixel counts of one image: in both masks, in the predicted one, in the true one."""

    both: int
    predicted: int
    true: int

    @property
    def dice(self) -> float:
        """Dice coefficient, 2 |A and B| / (|A| + |B|)."""
        total = self.predicted + self.true
        return 2 * self.both / total if total else 1.0

    @property
    def iou(self) -> float:
        """Intersection over union, |A and B| / |A or B|."""
        union = self.predicted + self.true - self.both
        return self.both / union if union else 1.0


@dataclass(frozen=True)
class Scores:
    """Agreement on a number of images.

    Attributes
    ----------
    overlaps
        Pixel counts by the image's key, in order.
    """

    overlaps: dict[str, Overlap]

    def to_dict(self) -> dict[str, float | int]:
        """Summary over the images.

        Returns
        -------
        dict
            `dice_mean` and `iou_mean` over images; `dice_sd`, the standard deviation with
            n - 1 in the denominator (0 for one image); `dice_pooled`, the Dice of all
            pixels together; `n`, the number of images.

        Raises
        ------
        InputError
            If there are no images.
        """
        overlaps = list(self.overlaps.values())
        if not overlaps:
            raise InputError("There are no planes to score; give at least one.")
        dices = np.array([overlap.dice for overlap in overlaps])
        pooled = Overlap(
            sum(overlap.both for overlap in overlaps),
            sum(overlap.predicted for overlap in overlaps),
            sum(overlap.true for overlap in overlaps),
        )
        return {
            "dice_mean": float(dices.mean()),
            "dice_sd": float(dices.std(ddof=1)) if len(dices) > 1 else 0.0,
            "dice_pooled": pooled.dice,
            "iou_mean": float(np.mean([overlap.iou for overlap in overlaps])),
            "n": len(overlaps),
        }


def count_overlap(
    pred: NDArray[Any], truth: NDArray[Any], valid: NDArray[np.bool_] | None = None
) -> Overlap:
    """Count the pixels that both measures of overlap are made of.

    Parameters
    ----------
    pred, truth
        HxW masks; any value but 0 is the object.
    valid
        HxW bool, False where pixels do not count.

    Raises
    ------
    InputError
        If the shapes differ.
    """
    pred, truth = _masks(pred, truth, valid)
    return Overlap(
        int(np.count_nonzero(pred & truth)),
        int(np.count_nonzero(pred)),
        int(np.count_nonzero(truth)),
    )


def dice(pred: NDArray[Any], truth: NDArray[Any], valid: NDArray[np.bool_] | None = None) -> float:
    """Dice coefficient of two HxW masks, 1 if both are empty; see `count_overlap`."""
    return count_overlap(pred, truth, valid).dice


def iou(pred: NDArray[Any], truth: NDArray[Any], valid: NDArray[np.bool_] | None = None) -> float:
    """Intersection over union of two HxW masks, 1 if both are empty; see `count_overlap`."""
    return count_overlap(pred, truth, valid).iou


def boundary_f(
    pred: NDArray[Any],
    truth: NDArray[Any],
    valid: NDArray[np.bool_] | None = None,
    tolerance: float | None = None,
) -> float:
    """Boundary F-score: harmonic mean of the shares of outline found and of outline right.

    An outline is the object pixels that touch background; the image's edge is none. An
    outline pixel agrees if the other mask's outline is within the tolerance, as in the
    DAVIS benchmark (Perazzi et al. 2016); pixels are not matched one to one.

    Parameters
    ----------
    pred, truth
        HxW masks; any value but 0 is the object.
    valid
        HxW bool, False where outline pixels do not count.
    tolerance
        Largest distance, px; by default 0.75 % of the image's diagonal, rounded up.

    Returns
    -------
    float
        0..1. Without any outline (empty or full masks): 1 if the masks are equal, else 0.

    Raises
    ------
    InputError
        If the shapes differ, or the tolerance is negative.
    """
    if tolerance is None:
        tolerance = math.ceil(BOUNDARY_TOLERANCE * math.hypot(*truth.shape))
    if tolerance < 0:
        raise InputError(f"The tolerance is a distance in pixels, 0 or more, not {tolerance}.")
    pred, truth = _masks(pred, truth, None)
    ours, theirs = _outline(pred), _outline(truth)
    counted = np.ones(truth.shape, bool) if valid is None else valid
    if not (ours & counted).any() and not (theirs & counted).any():
        return float(np.array_equal(pred & counted, truth & counted))
    precision = _share_near(ours & counted, theirs, tolerance)
    recall = _share_near(theirs & counted, ours, tolerance)
    return 2 * precision * recall / (precision + recall) if precision + recall else 0.0


def score_planes(
    predicted: Planes,
    truth: Planes,
    planes: Sequence[int] | None = None,
    label: int | None = None,
    ignore_label: int | None = None,
) -> Scores:
    """Score predicted against true masks, reading one plane of each at a time.

    Two folders are paired by file name, all else by position. A side that holds exactly
    as many planes as were chosen, and not as many as the other side, is taken to be those.

    Parameters
    ----------
    predicted
        Masks; any value above 0 is the object.
    truth
        Masks or label images.
    planes
        Which planes of the truth; None for all that it has.
    label
        Value of the object in the truth; None for any value above 0.
    ignore_label
        Value in the truth of pixels that do not count.

    Raises
    ------
    InputError
        If the planes do not pair, differ in size, or are no masks.
    """
    from napari_ptsam.labels import read_labels

    numbered = label is not None or ignore_label is not None
    overlaps = {}
    for ours, theirs in _pairs(predicted, truth, planes):
        mask = read_labels(predicted, ours) > 0
        labels = read_labels(truth, theirs, numbered=numbered)
        if mask.shape != labels.shape:
            raise InputError(
                f"{predicted.describe(ours)} has {mask.shape[0]} x {mask.shape[1]} pixels but "
                f"{truth.describe(theirs)} has {labels.shape[0]} x {labels.shape[1]}. Compare "
                "masks at the size of the image they belong to."
            )
        found = labels > 0 if label is None else labels == label
        valid = None if ignore_label is None else labels != ignore_label
        overlaps[truth.keys[theirs]] = count_overlap(mask, found, valid)
    return Scores(overlaps)


def _pairs(
    predicted: Planes, truth: Planes, planes: Sequence[int] | None
) -> Iterator[tuple[int, int]]:
    """Numbers of the planes that belong together, predicted and true."""
    chosen = list(range(len(truth))) if planes is None else sorted(set(planes))
    if predicted.kind == "folder" and truth.kind == "folder":
        yield from _pairs_by_name(predicted, truth, chosen)
    elif len(predicted) == len(truth):
        yield from ((index, index) for index in chosen)
    elif planes is not None and len(predicted) == len(chosen):
        yield from enumerate(chosen)
    elif planes is not None and len(truth) == len(chosen):
        yield from ((index, number) for number, index in enumerate(chosen))
    else:
        raise InputError(
            f"{predicted.name} has {len(predicted)} planes but {truth.name} has {len(truth)}, so "
            "it is unclear which belong together. Choose with --planes the planes that the "
            "shorter one holds, for instance --planes 20-29."
        )


def _pairs_by_name(
    predicted: Planes, truth: Planes, chosen: Sequence[int]
) -> Iterator[tuple[int, int]]:
    from napari_ptsam.examples import find_image

    for index in chosen:
        truth.check(index)
    numbers = {key: number for number, key in enumerate(predicted.keys)}
    found = {index: find_image(truth.keys[index], numbers) for index in chosen}
    missing = [truth.keys[index] for index, number in found.items() if number is None]
    if missing:
        named = ", ".join(missing[:5]) + (", ..." if len(missing) > 5 else "")
        raise InputError(
            f"{len(missing)} of the {len(chosen)} masks in {truth.name} have no prediction of the "
            f"same file name in {predicted.name}: {named}. Segment those images too, or choose "
            "the planes to score with --planes."
        )
    yield from ((number, index) for index, number in found.items() if number is not None)


def _masks(
    pred: NDArray[Any], truth: NDArray[Any], valid: NDArray[np.bool_] | None
) -> tuple[NDArray[np.bool_], NDArray[np.bool_]]:
    """Both masks as bool, False at pixels that do not count."""
    shapes = {pred.shape, truth.shape, truth.shape if valid is None else valid.shape}
    if len(shapes) > 1 or truth.ndim != 2:
        raise InputError(
            f"Masks of the shapes {pred.shape} and {truth.shape}"
            + ("" if valid is None else f" with valid pixels of the shape {valid.shape}")
            + " cannot be compared; all must be HxW alike."
        )
    pred, truth = pred.astype(bool, copy=False), truth.astype(bool, copy=False)
    return (pred, truth) if valid is None else (pred & valid, truth & valid)


def _outline(mask: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """Object pixels with background above, below, left or right of them."""
    return np.asarray(mask & ~ndimage.binary_erosion(mask, border_value=1))


def _share_near(outline: NDArray[np.bool_], other: NDArray[np.bool_], tolerance: float) -> float:
    """Share of an outline's pixels that are near the other outline; 1 if it has none."""
    if not outline.any():
        return 1.0
    if not other.any():
        return 0.0
    distance = ndimage.distance_transform_edt(~other)
    return float(np.mean(distance[outline] <= tolerance))
