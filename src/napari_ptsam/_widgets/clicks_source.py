"""What is clicked on: the planes of an image, made ready as the user comes to them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from psygnal import Signal

from napari_ptsam._widgets.clicks_planes import ReadyPlanes
from napari_ptsam._widgets.layers import full_data, plane_index, planes_of
from napari_ptsam.errors import PtsamError

if TYPE_CHECKING:
    from napari.layers import Image

    from napari_ptsam._widgets.clicks_state import ClickState
    from napari_ptsam.clicking import EmbeddedPlane
    from napari_ptsam.planes import Planes


class ClickSource:
    """Follows image, model and plane in view. Used in the GUI thread.

    Parameters
    ----------
    state
        What the sections of the dock share.

    Attributes
    ----------
    changed
        Emitted when the image got other pixels, or another model is in use.
    moved
        Emitted when another plane is in view, or none.
    ready
        The planes that can be clicked.
    problem
        Why the image cannot be clicked on; empty if it can.
    """

    changed = Signal()
    moved = Signal()

    def __init__(self, state: ClickState) -> None:
        self._state = state
        self._on = False
        self._image: Image | None = None
        self._key: tuple[Any, ...] = ()
        self._planes: Planes | None = None
        self._seen: int | None = None
        self.problem = ""
        self.ready = ReadyPlanes(state.jobs)
        state.annotations.changed.connect(self.follow)
        state.chosen_changed.connect(self.follow)
        for event in self._viewer_events():
            event.connect(self.follow)

    def _viewer_events(self) -> list[Any]:
        events = self._state.viewer.dims.events
        return [events.current_step, events.order, events.ndisplay]

    @property
    def key(self) -> tuple[Any, ...]:
        """All that an answer depends on but plane and clicks; the same again is nothing new."""
        return self._key

    @property
    def planes(self) -> Planes | None:
        """The planes of the image, None if it cannot be clicked on."""
        return self._planes

    @property
    def index(self) -> int | None:
        """The plane of the image that is in view, None if no single one is."""
        image = self._state.annotations.image
        return None if image is None else plane_index(self._state.viewer, image)

    @property
    def embedded(self) -> EmbeddedPlane | None:
        """The plane in view, if it is ready."""
        index = self.index
        return None if index is None else self.ready.get(index)

    def shape_of(self, index: int | None) -> tuple[int, int] | None:
        """Height and width of a plane, None if there is no such plane."""
        planes = self._planes
        if planes is None or index is None or not 0 <= index < len(planes):
            return None
        return planes.shape_of(index)

    def switch(self, on: bool) -> None:
        """Make planes ready from now on, or no more."""
        self._on = on
        self.follow()

    def follow(self) -> None:
        """Look at what is there now."""
        self._watch(self._state.annotations.image if self._on else None)
        key = self._find() if self._on else ()
        if key != self._key:
            self._key = key
            self._use()
        index = self.index
        ahead = -1 if index is not None and self._seen is not None and index < self._seen else 1
        if self._on and index is not None:
            self.ready.want([index, index + ahead])
        if index != self._seen:
            self._seen = index
            self.moved.emit()

    def close(self) -> None:
        """Listen no longer."""
        self._watch(None)
        self.ready.use(None, None)
        for event in self._viewer_events():
            event.disconnect(self.follow)

    def _watch(self, image: Image | None) -> None:
        """Notice where a layer is given other data or axes."""
        if image is self._image:
            return
        for layer, connect in ((self._image, False), (image, True)):
            for event in () if layer is None else (layer.events.data, layer.events.axis_labels):
                (event.connect if connect else event.disconnect)(self.follow)
        self._image = image

    def _find(self) -> tuple[Any, ...]:
        image, clicker = self._state.annotations.image, self._state.clicker
        if image is None:
            return ()
        data, labels = full_data(image), tuple(map(str, image.axis_labels))
        return (clicker, _Same(data), tuple(data.shape), labels, self._state.annotations.channel)

    def _use(self) -> None:
        image, channel = self._state.annotations.image, self._state.annotations.channel
        self._planes, self.problem = None, ""
        if self._key and image is not None:
            try:
                self._planes = planes_of(image, channel)
            except PtsamError as error:
                self.problem = str(error)
        self.ready.use(self._state.clicker, self._planes)
        self.changed.emit()


@dataclass(frozen=True, eq=False)
class _Same:
    """An array that equals only itself: NumPy would compare pixel by pixel."""

    array: Any

    def __eq__(self, other: object) -> bool:
        return isinstance(other, _Same) and other.array is self.array

    def __hash__(self) -> int:
        return id(self.array)
