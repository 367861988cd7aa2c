"""The layers that show what is being clicked: the points, and the mask that they give."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from napari.utils.colormaps import DirectLabelColormap
from numpy.typing import NDArray

from napari_ptsam._widgets.clicks_labels import PREVIEW, Part
from napari_ptsam._widgets.layers import (
    RESULT_MARK,
    blank,
    data_shape,
    full_data,
    labels_like,
    result_shape,
    slot,
)
from napari_ptsam._widgets.preview import COLOURS
from napari_ptsam.clicking import Box, Click

if TYPE_CHECKING:
    from collections.abc import Sequence

    from napari.layers import Image, Labels, Points
    from napari.viewer import Viewer

    from napari_ptsam.clicking import ClickAnswer

POINTS = "clicks"
POSITIVE, NEGATIVE, EDGE = "#2dd36f", "#ff4d4f", "#ffd43b"
DOTS = 15
"""Of which each side of a box is drawn."""

SMALLEST, LARGEST = 4, 14
"""Of points on the screen, in its pixels."""

_PLACED_BY = ("scale", "translate", "rotate", "shear", "affine", "units", "axis_labels")


class ClickLayers:
    """Two layers over an image. Used in the GUI thread.

    While the layer of points is the active one, the mouse and some keys are for clicking: so
    napari's other tools are never in the way, nor is this in theirs.

    Parameters
    ----------
    viewer
        napari's.
    """

    def __init__(self, viewer: Viewer) -> None:
        self._viewer = viewer
        self._image: Image | None = None
        self._preview: Labels | None = None
        self._points: Points | None = None
        self._shown: tuple[int, tuple[slice, slice]] | None = None

    @property
    def preview(self) -> Labels | None:
        """The layer of the mask, None if there is none."""
        return self._preview if self._preview in self._viewer.layers else None

    @property
    def points(self) -> Points | None:
        """The layer of the points, None if there is none."""
        return self._points if self._points in self._viewer.layers else None

    @property
    def active(self) -> bool:
        """Whether the layer of points is the one that the user works on."""
        return self.points is not None and self._viewer.layers.selection.active is self.points

    def lie_on(self, image: Image) -> bool:
        """Whether they are there and lie on an image as it is."""
        preview, shape = self.preview, result_shape(image)
        return image is self._image and preview is not None and data_shape(preview) == shape

    def lay_preview(self, image: Image) -> None:
        """Lay the mask's layer over an image, unless it is there."""
        if image not in self._viewer.layers:
            return
        if not self.lie_on(image):
            self.remove()
            self._image = image
            self._preview = self._made_preview(image)
        if self._preview is not None:
            self._preview.visible = True

    def lay_points(self) -> None:
        """Lay the layer of points over that of the mask, unless it is there."""
        if self.points is None and self.preview is not None:
            self._points = self._made_points(self.preview)
        if self.points is not None:
            self.points.visible = True

    def come_back(self) -> None:
        """Lie over all other layers again, the points being the one that is worked on."""
        layers = self._viewer.layers
        own = [layer for layer in (self.preview, self.points) if layer is not None]
        if own != list(layers)[-len(own) :]:
            for layer in own:
                layers.move(layers.index(layer), len(layers))
        if self.points is not None and layers.selection.active is not self.points:
            layers.selection.active = self.points

    def hide(self) -> None:
        """Nothing is being clicked."""
        for layer in (self.preview, self.points):
            if layer is not None:
                layer.visible = False

    def remove(self) -> None:
        """Take both off the viewer."""
        for layer in (self.points, self.preview):
            if layer is not None:
                self._viewer.layers.remove(layer)
        self._image = self._preview = self._points = self._shown = None

    # What they show

    def show_said(self, index: int, said: Sequence[Click | Box]) -> None:
        """Show clicks and boxes on their plane."""
        layer = self.points
        if layer is None or self._preview is None:
            return
        place = [0 if isinstance(p, slice) else p for p in slot(self._preview, index)[:-2]]
        size = max(data_shape(self._preview)[-2:]) / 45
        rows = [row for one in said for row in _marks(one, size)]
        data = np.array([[*place, y, x] for y, x, _, _ in rows], float).reshape(-1, layer.ndim)
        with layer.events.blocker_all():
            layer.data = data
        if rows:
            layer.face_color = np.array([_RGBA[colour] for _, _, colour, _ in rows])
            layer.size = [size for _, _, _, size in rows]
        layer.selected_data = set()
        layer.refresh(extent=False, thumbnail=False)

    def show_answer(self, index: int, answer: ClickAnswer | None) -> None:
        """Show the mask of an answer in place of what was shown; with None nothing."""
        layer = self.preview
        if layer is None or (answer is not None and answer.mask.shape != data_shape(layer)[-2:]):
            return
        part = None if answer is None else Part.of(answer.mask, answer.region)
        if self._shown is not None and (part is None or self._shown[0] != index):
            self._put(layer, *self._shown, None)
            self._shown = None
        if part is None:
            return
        pixels, where = part.pixels, part.where
        if self._shown is not None:
            # Old and new together: one part of the picture is drawn anew.
            both = _around(where, self._shown[1])
            whole = np.zeros([side.stop - side.start for side in both], bool)
            inner = tuple(
                slice(side.start - outer.start, side.stop - outer.start)
                for side, outer in zip(where, both, strict=True)
            )
            whole[inner] = pixels
            self._put(layer, index, both, whole)
        else:
            self._put(layer, index, where, pixels)
        self._shown = index, where

    def _put(
        self,
        layer: Labels,
        index: int,
        where: tuple[slice, slice],
        pixels: NDArray[np.bool_] | None,
    ) -> None:
        """Change a part of a plane, of which napari draws no more than that."""
        place = slot(layer, index)
        before = np.asarray(full_data(layer)[(*place[:-2], *where)]) != 0
        after = np.zeros_like(before) if pixels is None else pixels
        for value in (0, 1):
            found = np.nonzero((before != after) & (after == value))
            if found[0].size:
                offsets = iter((found[0] + where[0].start, found[1] + where[1].start))
                count = found[0].size
                layer.data_setitem(
                    tuple(
                        next(offsets) if isinstance(p, slice) else np.full(count, p) for p in place
                    ),
                    value,
                    refresh=False,
                )
        layer._partial_labels_refresh()
        # Nobody undoes previews, and each would be kept for that.
        layer._reset_history()

    def _made_preview(self, image: Image) -> Labels:
        layer = labels_like(self._viewer, image, PREVIEW, blank(result_shape(image), np.uint8))
        layer.metadata[RESULT_MARK] = PREVIEW
        layer.colormap = DirectLabelColormap(color_dict={None: COLOURS[0], 1: COLOURS[1]})
        layer.opacity = 0.5
        layer.mode = "pan_zoom"
        return layer

    def _made_points(self, below: Any) -> Points:
        return self._viewer.add_points(
            ndim=below.ndim,
            name=POINTS,
            metadata={RESULT_MARK: POINTS},
            border_color="black",
            border_width=0.08,
            canvas_size_limits=(SMALLEST, LARGEST),
            **{name: getattr(below, name) for name in _PLACED_BY},
        )


Mark = tuple[float, float, str, float]
_RGBA = {
    colour: (*(int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5)), 1.0)
    for colour in (POSITIVE, NEGATIVE, EDGE)
}


def _marks(said: Click | Box, size: float) -> list[Mark]:
    """Row, column, colour and size of the points that show a click, or a box as a dotted line."""
    if isinstance(said, Click):
        return [(said.y, said.x, POSITIVE if said.positive else NEGATIVE, size)]
    steps = np.linspace(0, 1, DOTS)
    rows = said.top + steps * (said.bottom - said.top)
    columns = said.left + steps * (said.right - said.left)
    sides = [
        *((said.top, x) for x in columns),
        *((said.bottom, x) for x in columns),
        *((y, said.left) for y in rows[1:-1]),
        *((y, said.right) for y in rows[1:-1]),
    ]
    return [(float(y), float(x), EDGE, size / 100) for y, x in sides]


def _around(one: tuple[slice, slice], two: tuple[slice, slice]) -> tuple[slice, slice]:
    """The smallest part with both in it."""
    rows, columns = (
        slice(min(a.start, b.start), max(a.stop, b.stop)) for a, b in zip(one, two, strict=True)
    )
    return rows, columns
