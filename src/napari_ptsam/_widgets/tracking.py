"""Which planes of a Labels layer have any paint, without reading them over and over."""

from __future__ import annotations

import itertools
import math
import time
from collections.abc import Generator, Iterable
from typing import TYPE_CHECKING, Any

import numpy as np
from psygnal import Signal
from qtpy.QtCore import QTimer

from napari_ptsam._widgets.jobs import show
from napari_ptsam._widgets.layers import Slot, data_shape, full_data, leading_axes, slot

if TYPE_CHECKING:
    from napari.layers import Labels
    from napari.viewer import Viewer

    from napari_ptsam._widgets.jobs import Job, Jobs
    from napari_ptsam.errors import PtsamError

AT_ONCE = 2**25
"""Bytes that may be looked through in the GUI thread: some milliseconds."""

BATCH_SECONDS = 0.1


class PaintedPlanes:
    """Keeps up with the paint in a Labels layer.

    A stroke tells which planes it touched, and these are looked at again. All planes are looked
    through only when the layer is new or got other data, in another thread.

    Attributes
    ----------
    changed
        Emitted when planes were found to be painted or empty, with their numbers.
    edited
        Emitted after a stroke or an undo, with the planes that it may have touched; with none
        where the layer got other data.
    """

    changed = Signal(list)
    edited = Signal(list)

    def __init__(self, viewer: Viewer, jobs: Jobs) -> None:
        self._viewer = viewer
        self._jobs = jobs
        self._layer: Labels | None = None
        self._painted: set[int] = set()
        self._touched: set[int] = set()
        self._pending: set[int] = set()
        self._fresh: set[int] = set()
        self._scan: Job | None = None
        self._again = False
        self._point: tuple[float, ...] = ()

    @property
    def layer(self) -> Labels | None:
        """The layer that is watched."""
        return self._layer

    @property
    def painted(self) -> list[int]:
        """Planes with any paint, ascending."""
        self._look_at_pending()
        return sorted(self._painted)

    @property
    def searching(self) -> bool:
        """Whether planes are being looked through in the background."""
        return self._scan is not None

    def watch(self, layer: Labels | None) -> None:
        """Follow another layer, or none."""
        if self._layer is not None:
            for event, receiver in self._connections(self._layer):
                event.disconnect(receiver)
        self._layer = layer
        self._touched.clear()
        self._pending.clear()
        if layer is not None:
            self._point = tuple(self._viewer.dims.point)
            for event, receiver in self._connections(layer):
                event.connect(receiver)
        self._search_all()

    def look(self, indices: Iterable[int]) -> None:
        """Look at planes now; for few of them."""
        if self._layer is not None:
            array = full_data(self._layer)
            found = {i: _has_paint(array, slot(self._layer, i)) for i in indices}
            self._fresh.update(found)
            self._take(found)

    def _connections(self, layer: Labels) -> list[tuple[Any, Any]]:
        return [
            (layer.events.paint, self._on_paint),
            (layer.events.data, self._start_over),
            (layer.events.axis_labels, self._start_over),
            (layer.events.set_data, self._on_refresh),
        ]

    def _on_paint(self, event: Any) -> None:
        if self._layer is None:
            return
        indices = touched_planes(self._layer, [atom[0] for atom in event.value])
        self._touched.update(indices)
        rows, columns = data_shape(self._layer)[-2:]
        size = rows * columns * np.dtype(self._layer.data.dtype).itemsize
        if len(indices) * size <= AT_ONCE or len(indices) == 1:
            # napari tells of some edits just before it writes them.
            self._pending.update(indices)
            QTimer.singleShot(0, self._look_at_pending)
        else:
            self._scan_planes(indices)
        self.edited.emit(indices)

    def _look_at_pending(self) -> None:
        pending, self._pending = self._pending, set()
        if pending:
            self.look(pending)

    def _on_refresh(self) -> None:
        """Undo and changes by code show as a refresh that no slider caused."""
        point = tuple(self._viewer.dims.point)
        moved, self._point = point != self._point, point
        if not moved and self._touched:
            self._scan_planes(sorted(self._touched | self._painted))
            self.edited.emit(sorted(self._touched))

    def _start_over(self) -> None:
        self._search_all()
        self.edited.emit([])

    def _search_all(self) -> None:
        gone = list(self._painted)
        self._painted.clear()
        if self._scan is not None:
            self._scan.abandon()
            self._scan = None
        self.changed.emit(gone)
        if self._layer is not None:
            axes = leading_axes(self._layer)
            count = math.prod(data_shape(self._layer)[axis] for axis in axes)
            self._scan_planes(range(count))

    def _scan_planes(self, indices: Iterable[int]) -> None:
        if self._layer is None:
            return
        if self._scan is not None:
            self._again = True
            return
        array, layer = full_data(self._layer), self._layer
        slots = {index: slot(layer, index) for index in indices}
        self._fresh.clear()
        self._scan = self._jobs.aside(
            lambda: _search(array, slots),
            self._on_scanned,
            self._on_failed,
            on_yield=self._on_found,
        )

    def _on_found(self, found: dict[int, bool]) -> None:
        # What was looked at in the meantime is newer.
        self._take({i: has for i, has in found.items() if i not in self._fresh})

    def _on_scanned(self, found: dict[int, bool]) -> None:
        self._scan = None
        self._on_found(found)
        self._scan_again()

    def _on_failed(self, error: PtsamError) -> None:
        """What was found before counts; the rest is looked at when it is edited."""
        self._scan = None
        show(error)
        self.changed.emit([])
        self._scan_again()

    def _scan_again(self) -> None:
        """Look at what was edited while other planes were looked through."""
        if self._again:
            self._again = False
            self._scan_planes(sorted(self._touched | self._painted))

    def _take(self, found: dict[int, bool]) -> None:
        self._painted.update(i for i, has in found.items() if has)
        self._painted.difference_update(i for i, has in found.items() if not has)
        self.changed.emit(list(found))


def _has_paint(array: Any, place: Slot) -> bool:
    return bool(np.asarray(array[place]).any())


def _search(
    array: Any, slots: dict[int, Slot]
) -> Generator[dict[int, bool], None, dict[int, bool]]:
    """Look through planes; tells what was found every now and then."""
    found: dict[int, bool] = {}
    told = time.perf_counter()
    for index, place in slots.items():
        try:
            found[index] = _has_paint(array, place)
        except Exception:
            yield found
            raise
        if time.perf_counter() - told > BATCH_SECONDS:
            yield found
            found, told = {}, time.perf_counter()
    return found


def touched_planes(layer: Labels, keys: Iterable[tuple[Any, ...]]) -> list[int]:
    """Planes that edits lie in.

    Parameters
    ----------
    layer
        What was edited.
    keys
        For each edit its place in the data: one slice, number or array of numbers per axis.
    """
    shape, axes = data_shape(layer), leading_axes(layer)
    sizes = [shape[axis] for axis in axes]
    if not axes:
        return [0]
    found: set[int] = set()
    for key in keys:
        places = [key[axis] for axis in axes]
        if any(isinstance(place, slice) for place in places):
            ranges = [
                range(*place.indices(size)) if isinstance(place, slice) else [int(place)]
                for place, size in zip(places, sizes, strict=True)
            ]
            numbers = [np.ravel_multi_index(p, sizes) for p in itertools.product(*ranges)]
        else:
            places = [np.asarray(place) for place in places]
            numbers = list(np.unique(np.ravel_multi_index(places, sizes)))
        found.update(int(number) for number in numbers)
    return sorted(found)
