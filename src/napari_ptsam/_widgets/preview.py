"""A live preview: what the specialist of this moment says of the plane in view."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from napari.utils.colormaps import DirectLabelColormap
from numpy.typing import NDArray

from napari_ptsam._widgets.layers import (
    RESULT_MARK,
    blank,
    data_shape,
    full_data,
    labels_like,
    result_shape,
    slot,
)

if TYPE_CHECKING:
    from napari.layers import Image, Labels
    from napari.viewer import Viewer

    from napari_ptsam.planes import Planes

COST = 0.15
"""Share of the time that previews may take."""

SHORTEST = 0.25
"""Seconds between two previews, at least."""

NAME = "preview"
COLOUR = "cyan"

Look = Callable[[NDArray[Any]], Any]


@dataclass(frozen=True)
class PreviewedPlane:
    """Number of a plane, and its mask, HxW."""

    index: int
    mask: NDArray[np.bool_]


@dataclass
class PlaneInView:
    """Which plane the user looks at; set by the window, read by the training."""

    index: int | None = None


class Previews:
    """Decides between two steps whether to look at the plane in view, and does.

    Used in the training's thread.

    Parameters
    ----------
    planes
        The planes of the image that is learned from.
    view
        Which of them is looked at.
    clock
        Seconds that only ever grow.
    """

    def __init__(
        self, planes: Planes, view: PlaneInView, clock: Callable[[], float] = time.perf_counter
    ) -> None:
        self._planes = planes
        self._view = view
        self._clock = clock
        self._next = -np.inf
        self._read: tuple[int, NDArray[Any]] | None = None

    def due(self, look: Look | None) -> PreviewedPlane | None:
        """A preview if it is time for one."""
        return self.now(look) if self._clock() >= self._next else None

    def now(self, look: Look | None) -> PreviewedPlane | None:
        """A preview, if there is anything to look with and to look at."""
        index = self._view.index
        if look is None or index is None or not 0 <= index < len(self._planes):
            return None
        started = self._clock()
        if self._read is None or self._read[0] != index:
            self._read = index, self._planes.read(index)
        mask = np.asarray(look(self._read[1]).mask)
        ended = self._clock()
        wait = (ended - started) * (1 / COST - 1)
        self._next = ended + max(wait, SHORTEST)
        return PreviewedPlane(index, mask)


class PreviewLayer:
    """The layer that shows previews. Used in the GUI thread.

    Parameters
    ----------
    viewer
        napari's.
    """

    def __init__(self, viewer: Viewer) -> None:
        self._viewer = viewer
        self._layer: Labels | None = None
        self._image: Image | None = None
        self._index: int | None = None
        self._refused = False

    @property
    def layer(self) -> Labels | None:
        """The layer, None before the first preview and where the user removed it."""
        if self._layer is not None and self._layer not in self._viewer.layers:
            self._layer = None
            self._refused = True
        return self._layer

    def begin(self, image: Image | None) -> None:
        """Another training starts, on this image."""
        same = image is self._image and self.layer is not None
        if not same:
            self.remove()
        self._image = image
        self._refused = False

    def show(self, preview: PreviewedPlane) -> None:
        """Show a mask on its plane; other planes are left blank, as theirs would be old.

        Nothing happens if the image is gone or has changed its shape, or the user removed the
        preview.
        """
        layer = self.layer
        if layer is None:
            layer = self._made(preview)
        if layer is None or data_shape(layer)[-2:] != preview.mask.shape:
            return
        data = full_data(layer)
        if self._index is not None and self._index != preview.index:
            data[slot(layer, self._index)] = 0
        data[slot(layer, preview.index)] = preview.mask
        self._index = preview.index
        layer.refresh(extent=False, thumbnail=False)

    def remove(self) -> None:
        """Take the layer off the viewer."""
        if self.layer is not None:
            self._viewer.layers.remove(self.layer)
        self._layer = None
        self._index = None

    def _made(self, preview: PreviewedPlane) -> Labels | None:
        image = self._image
        if self._refused or image is None or image not in self._viewer.layers:
            return None
        if data_shape(image)[-2:] != preview.mask.shape:
            return None
        selection = set(self._viewer.layers.selection)
        active = self._viewer.layers.selection.active
        # In 8 bits: napari looks up a colour for every value that the type can hold.
        data = blank(result_shape(image), np.uint8)
        self._layer = layer = labels_like(self._viewer, image, NAME, data)
        layer.metadata[RESULT_MARK] = NAME
        # Unlike the colours of painted labels.
        layer.colormap = DirectLabelColormap(color_dict={None: "transparent", 1: COLOUR})
        layer.opacity = 0.5
        layer.editable = False
        # The brush stays on the layer that the user paints on.
        self._viewer.layers.selection = selection
        self._viewer.layers.selection.active = active
        self._index = None
        return layer
