"""Masks to numbered objects: connected pixels, and touching ones cut apart."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from napari_ptsam.errors import InputError

NECK = 0.8
"""Two parts are one object where the way between them is wider than this share of the narrower."""

_LEAST_DEPTH = 0.75
"""Pixels by which a neck must at least be narrower: less is the roughness of a drawn outline."""


@dataclass(frozen=True)
class Splitting:
    """What counts as one object.

    Attributes
    ----------
    minimum_size
        Objects of fewer pixels (voxels in 3D) are left out.
    separate
        Whether to cut objects that touch where they are narrow between them.

    Raises
    ------
    InputError
        If the minimum size is negative.
    """

    minimum_size: int = 0
    separate: bool = False

    def __post_init__(self) -> None:
        if self.minimum_size < 0:
            raise InputError(
                f"The minimum size is {self.minimum_size}; give a number of pixels from 0 on."
            )


def without_small(mask: NDArray[np.bool_], minimum_size: int) -> NDArray[np.bool_]:
    """The mask without objects of fewer than `minimum_size` pixels, HxW or ZxHxW.

    Raises
    ------
    InputError
        If the minimum size is negative.
    """
    Splitting(minimum_size)
    mask = np.asarray(mask, bool)
    if minimum_size <= 1:
        return mask
    return _numbered(_connected(mask), minimum_size) > 0


def split_objects(
    mask: NDArray[np.bool_],
    splitting: Splitting | None = None,
    *,
    spacing: Sequence[float] | None = None,
) -> NDArray[np.int32]:
    """Number the objects of a mask.

    Pixels belong together if they share a side or a corner in the plane, or lie upon each
    other in neighbouring planes.

    Parameters
    ----------
    mask
        HxW, or ZxHxW to link objects through planes.
    splitting
        What counts as one object.
    spacing
        Size of a pixel along each axis, in any unit; equal if None. Where objects are cut
        depends on it.

    Returns
    -------
    NDArray
        Same shape, int32: 0 outside, 1 to n for the objects in the order of their first pixels.

    Raises
    ------
    InputError
        If the mask has other than two or three axes, or the spacing does not fit it.
    """
    mask = np.asarray(mask, bool)
    if mask.ndim not in (2, 3):
        raise InputError(
            f"A mask of shape {mask.shape} cannot be split into objects: give a plane (HxW) or "
            "a stack (ZxHxW)."
        )
    splitting = splitting or Splitting()
    sizes = checked_spacing(spacing, mask.ndim)
    labels = _connected(mask)
    if splitting.separate:
        labels = _separated(mask, sizes, splitting.minimum_size)
    return _numbered(labels, splitting.minimum_size)


def checked_spacing(spacing: Sequence[float] | None, axes: int) -> tuple[float, ...]:
    """The size of a pixel along each of `axes` axes, 1 if None.

    Raises
    ------
    InputError
        If it is not one number above 0 for each axis.
    """
    sizes = tuple(float(s) for s in spacing) if spacing is not None else (1.0,) * axes
    if len(sizes) != axes or not all(np.isfinite(sizes)) or min(sizes) <= 0:
        raise InputError(
            f"The pixel size {sizes} does not fit an image of {axes} axes: give one number above "
            "0 for each axis."
        )
    return sizes


def _connected(mask: NDArray[np.bool_]) -> NDArray[np.int32]:
    plane = np.ones((3, 3), bool)
    if mask.ndim == 3:
        # A corner of a voxel that is five times as tall as wide is no contact.
        above = np.zeros((3, 3), bool)
        above[1, 1] = True
        plane = np.stack([above, plane, above])
    labels, _ = ndimage.label(mask, plane, output=np.int32)
    return np.asarray(labels, np.int32)


def _numbered(labels: NDArray[np.int32], minimum_size: int) -> NDArray[np.int32]:
    """Leave out small objects and number the rest 1 to n, by their first pixels."""
    counts = np.bincount(labels.ravel())
    keep = counts >= max(minimum_size, 1)
    keep[0] = False
    first = np.full(len(counts), labels.size)
    present, where = np.unique(labels, return_index=True)
    first[present] = where
    kept = np.flatnonzero(keep)
    new = np.zeros(len(counts), np.int32)
    new[kept[np.argsort(first[kept])]] = np.arange(1, len(kept) + 1)
    return np.asarray(new[labels], np.int32)


def _separated(
    mask: NDArray[np.bool_], spacing: tuple[float, ...], minimum_size: int
) -> NDArray[np.int32]:
    """Cut objects where they are narrow.

    The watershed of the distance to the outline, its basins merged again unless the pass
    between two is markedly lower than the lower of their peaks. That is filling up all maxima
    of less than a certain height, with a height in proportion to the size of the object, so
    that small and large objects in one image are cut by the same rule.
    """
    from skimage.morphology import local_maxima
    from skimage.segmentation import watershed

    pixel = min(spacing)
    depth = ndimage.distance_transform_edt(mask, sampling=[s / pixel for s in spacing])
    depth = np.asarray(depth, np.float32)
    markers, count = ndimage.label(local_maxima(depth, connectivity=1) & mask)
    if not count:
        return np.zeros(mask.shape, np.int32)
    basins = np.asarray(watershed(-depth, markers, mask=mask), np.int32)
    peaks = np.asarray(ndimage.maximum(depth, basins, np.arange(count + 1)), np.float64)
    sizes = np.bincount(basins.ravel(), minlength=count + 1)
    return _merged(basins, _passes(basins, depth), peaks, sizes, minimum_size)


def _passes(basins: NDArray[np.int32], depth: NDArray[np.float32]) -> list[tuple[float, int, int]]:
    """The highest way between each two basins that touch, highest first."""
    codes, heights = [], []
    width = int(basins.max()) + 1
    for axis in range(basins.ndim):
        here = tuple(slice(None, -1) if a == axis else slice(None) for a in range(basins.ndim))
        there = tuple(slice(1, None) if a == axis else slice(None) for a in range(basins.ndim))
        one, other = basins[here], basins[there]
        border = (one != other) & (one > 0) & (other > 0)
        low, high = np.minimum(one, other)[border], np.maximum(one, other)[border]
        codes.append(low.astype(np.int64) * width + high)
        heights.append(np.minimum(depth[here], depth[there])[border])
    pairs, where = np.unique(np.concatenate(codes), return_inverse=True)
    highest = np.zeros(len(pairs), np.float32)
    np.maximum.at(highest, where, np.concatenate(heights))
    order = np.argsort(-highest, kind="stable")
    return [(float(highest[i]), int(pairs[i] // width), int(pairs[i] % width)) for i in order]


def _merged(
    basins: NDArray[np.int32],
    passes: list[tuple[float, int, int]],
    peaks: NDArray[np.float64],
    sizes: NDArray[np.int64],
    minimum_size: int,
) -> NDArray[np.int32]:
    """Join basins over the passes that are high enough, and too small ones to a neighbour."""
    root = list(range(len(peaks)))

    def find(basin: int) -> int:
        while root[basin] != basin:
            root[basin] = root[root[basin]]
            basin = root[basin]
        return basin

    for height, a, b in passes:
        one, other = find(a), find(b)
        if one == other:
            continue
        lower, higher = sorted((one, other), key=lambda basin: peaks[basin])
        neck = peaks[lower] - height < max(_LEAST_DEPTH, (1 - NECK) * peaks[lower])
        if neck or min(sizes[lower], sizes[higher]) < minimum_size:
            root[lower] = higher
            sizes[higher] += sizes[lower]
    return np.asarray([find(basin) for basin in range(len(root))], np.int32)[basins]
