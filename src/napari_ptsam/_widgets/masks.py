"""A Labels layer as the masks of a training: what lies outside drawn rectangles is ignored."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from napari_ptsam._widgets.layers import data_shape, full_data, leading_axes, planes_of, slot
from napari_ptsam.planes import Planes

if TYPE_CHECKING:
    from napari.layers import Labels, Shapes

IGNORED = -1
"""Label of pixels that training leaves out. No painted label is negative."""

Box = tuple[slice, slice]


class AnnotatedMasks(Planes):
    """The planes of a Labels layer, with `IGNORED` outside of the boxes of a plane.

    The array and the boxes are those at the time of making.
    """

    def __init__(self, layer: Labels, boxes: Mapping[int, Sequence[Box]]) -> None:
        base = planes_of(layer)
        super().__init__(base.name, base.kind, base.keys, base.parts, base.source)
        self._base = base
        self._boxes = dict(boxes)

    def _read(self, index: int, *, labels: bool) -> NDArray[Any]:
        read = self._base.read_labels if labels else self._base.read
        plane = read(index)
        boxes = self._boxes.get(index)
        if not labels or not boxes:
            return plane
        inside = np.zeros(plane.shape, np.bool_)
        for box in boxes:
            inside[box] = True
        return np.where(inside, plane.astype(np.int64), IGNORED)

    def _shape_of(self, index: int) -> tuple[int, int]:
        return self._base.shape_of(index)


def boxes_of(shapes: Shapes, layer: Labels) -> dict[int, list[Box]]:
    """The rectangles of a Shapes layer by the plane of a Labels layer that they lie on.

    Parameters
    ----------
    shapes
        Lies on the labels; what is drawn is taken by its bounding box.
    layer
        The labels.
    """
    shape, axes = data_shape(layer), leading_axes(layer)
    sizes = [shape[axis] for axis in axes]
    found: dict[int, list[Box]] = {}
    matrix, offset = _between(shapes, layer)
    for corners in shapes.data:
        # Rounded, so that a corner on a pixel's centre is not past it by an error of the last bit.
        points = np.round(corners @ matrix + offset, 6)
        numbers = [int(np.round(points[0, axis])) for axis in axes]
        if any(not 0 <= n < size for n, size in zip(numbers, sizes, strict=True)):
            continue
        index = int(np.ravel_multi_index(numbers, sizes)) if axes else 0
        # A pixel's centre has whole numbers, and it belongs to a box that covers the centre.
        low = np.clip(np.ceil(points[:, -2:].min(axis=0)), 0, shape[-2:]).astype(int)
        high = np.clip(np.floor(points[:, -2:].max(axis=0)) + 1, 0, shape[-2:]).astype(int)
        if (high > low).all():
            box = (slice(int(low[0]), int(high[0])), slice(int(low[1]), int(high[1])))
            found.setdefault(index, []).append(box)
    return found


def _between(shapes: Shapes, layer: Labels) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Matrix and offset from the data of a layer to that of another: napari asks point by point."""

    def moved(point: NDArray[np.float64]) -> NDArray[np.float64]:
        return np.asarray(layer.world_to_data(shapes.data_to_world(point)), np.float64)

    offset = moved(np.zeros(shapes.ndim))
    return np.array([moved(unit) - offset for unit in np.eye(shapes.ndim)]), offset


def rectangle(layer: Labels, index: int, box: Box) -> NDArray[np.float64]:
    """Corners of a box on a plane, 4xD in the data coordinates of the labels."""
    rows, columns = box
    place = [0 if isinstance(p, slice) else p for p in slot(layer, index)]
    corners = np.array([place] * 4, np.float64)
    corners[:, -2] = [rows.start, rows.start, rows.stop - 1, rows.stop - 1]
    corners[:, -1] = [columns.start, columns.stop - 1, columns.stop - 1, columns.start]
    return corners


def write_plane(layer: Labels, index: int, labels: NDArray[Any]) -> None:
    """Put labels, HxW, on a plane so that napari's undo takes them back in one step."""
    place = slot(layer, index)
    before = np.asarray(full_data(layer)[place])
    rows, columns = np.nonzero(before != labels)
    if not len(rows):
        return
    where = iter((rows, columns))
    indices = tuple(next(where) if isinstance(p, slice) else np.full(len(rows), p) for p in place)
    layer.data_setitem(indices, labels[rows, columns].astype(before.dtype))
