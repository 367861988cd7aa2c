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
    add_unseen,
    blank,
    data_shape,
    full_data,
    image_over,
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

    def due(self, look: Any) -> Any:
        """A preview if it is time for one."""
        return self.now(look) if self._clock() >= self._next else None

    def now(self, look: Any) -> Any:
        """A `PreviewedPlane`, if there is anything to look with and to look at.

        Parameters
        ----------
        look
            Gives the prediction of a plane; None where there is nothing to look with yet.
        """
        index = self._view.index
        if look is None or index is None or not 0 <= index < len(self._planes):
            return None
        started = self._clock()
        preview = self._seen(look, index)
        ended = self._clock()
        wait = (ended - started) * (1 / COST - 1)
        self._next = ended + max(wait, SHORTEST)
        return preview

    def _seen(self, look: Any, index: int) -> Any:
        """What a look at a plane gives."""
        return PreviewedPlane(index, np.asarray(look(self._plane(index)).mask))

    def _plane(self, index: int) -> NDArray[Any]:
        """Pixels of a plane; the last one is kept."""
        if self._read is None or self._read[0] != index:
            self._read = index, self._planes.read(index)
        return self._read[1]


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
        """Another training starts, on this image: lay an empty layer over it, still unseen.

        The brush stays on the layer that the user paints on.
        """
        if self.layer is None or image is not self._image or self._outgrown(image):
            self.remove()
            self._layer = self._made(image)
        self._image = image

    def unveil(self) -> None:
        """Let the layer be seen."""
        if self.layer is not None:
            self.layer.visible = True

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
        layer = image_over(
            image,
            NAME,
            blank(result_shape(image), np.uint8),
            metadata={RESULT_MARK: NAME},
            colormap=Colormap(COLOURS, name=NAME),
            contrast_limits=(0, 1),
            opacity=0.5,
        )
        add_unseen(self._viewer, layer)
        return layer
