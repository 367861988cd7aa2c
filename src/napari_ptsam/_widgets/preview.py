"""A live preview: what the specialist of this moment says of the plane in view."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from napari.utils.colormaps import Colormap
from numpy.typing import NDArray

from napari_ptsam._widgets.layers import (
    RESULT_MARK,
    blank,
    data_shape,
    full_data,
    image_like,
    result_shape,
    slot,
)

if TYPE_CHECKING:
    from napari.layers import Image
    from napari.viewer import Viewer

    from napari_ptsam.planes import Planes

COST = 0.15
"""Share of the time that previews may take."""

SHORTEST = 0.25
"""Seconds between two previews, at least."""

NAME = "preview"
COLOURS = ((0, 1, 1, 0), (0, 1, 1, 1))
"""Of background and object, RGBA: nothing, and cyan, unlike the colours of painted labels."""

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

    An Image layer: napari takes several times as long to add a Labels layer.

    Parameters
    ----------
    viewer
        napari's.
    """

    def __init__(self, viewer: Viewer) -> None:
        self._viewer = viewer
        self._layer: Image | None = None
        self._image: Image | None = None
        self._index: int | None = None

    @property
    def layer(self) -> Image | None:
        """The layer, None before the first training and where the user removed it."""
        if self._layer is not None and self._layer not in self._viewer.layers:
            self._layer = None
        return self._layer

    def begin(self, image: Image) -> None:
        """Another training starts, on this image: lay an empty layer over it."""
        if self.layer is None or image is not self._image or self._outgrown(image):
            self.remove()
            self._layer = self._made(image)
        self._image = image

    def show(self, preview: PreviewedPlane) -> None:
        """Show a mask on its plane; other planes are left blank, as theirs would be old.

        Nothing happens if the user removed the layer.
        """
        layer = self.layer
        if layer is None or data_shape(layer)[-2:] != preview.mask.shape:
            return
        data = full_data(layer)
        if self._index is not None and self._index != preview.index:
            data[slot(layer, self._index)] = 0
        data[slot(layer, preview.index)] = preview.mask
        self._index = preview.index
        layer.refresh(extent=False, thumbnail=False)

    def end(self) -> None:
        """The training is over: a layer on which nothing was shown is of no use."""
        if self._index is None:
            self.remove()

    def remove(self) -> None:
        """Take the layer off the viewer."""
        if self.layer is not None:
            self._viewer.layers.remove(self.layer)
        self._layer = None
        self._index = None

    def _outgrown(self, image: Image) -> bool:
        """Whether the image changed its shape since the layer was made."""
        return self._layer is not None and data_shape(self._layer) != result_shape(image)

    def _made(self, image: Image) -> Image:
        selection = self._viewer.layers.selection
        selected, active = set(selection), selection.active
        layer = image_like(self._viewer, image, NAME, blank(result_shape(image), np.uint8))
        layer.metadata[RESULT_MARK] = NAME
        layer.colormap = Colormap(COLOURS, name=NAME)
        layer.contrast_limits = (0, 1)
        layer.opacity = 0.5
        # The brush stays on the layer that the user paints on.
        self._viewer.layers.selection = selected
        self._viewer.layers.selection.active = active
        return layer
