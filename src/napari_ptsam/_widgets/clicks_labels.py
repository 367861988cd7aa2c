"""Objects in a Labels layer: the next free number, and painting one on several planes."""

from __future__ import annotations

from collections.abc import Generator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray
from psygnal import Signal

from napari_ptsam._widgets.jobs import show
from napari_ptsam._widgets.layers import (
    RESULT_MARK,
    data_shape,
    full_data,
    plane_count,
    same_planes,
    slot,
)
from napari_ptsam._widgets.tracking import AT_ONCE
from napari_ptsam.clicking import Box
from napari_ptsam.errors import InputError

if TYPE_CHECKING:
    from napari.layers import Image, Labels

    from napari_ptsam._widgets.jobs import Job, Jobs
    from napari_ptsam.errors import PtsamError

PREVIEW = "click preview"
"""Name of the layer that shows what is being clicked, which nothing is painted on."""


@dataclass(frozen=True)
class Part:
    """The part of a plane with an object in it.

    Attributes
    ----------
    where
        Rows and columns.
    pixels
        The object there, bool.
    """

    where: tuple[slice, slice]
    pixels: NDArray[np.bool_]

    @classmethod
    def of(
        cls,
        mask: NDArray[np.bool_],
        region: tuple[slice, slice] = (slice(0, None), slice(0, None)),
    ) -> Part | None:
        """Of an HxW mask that is empty outside of a region; None if all of it is."""
        seen = mask[region]
        if not seen.any():
            return None
        box = Box.around(seen)
        inner = slice(int(box.top), int(box.bottom) + 1), slice(int(box.left), int(box.right) + 1)
        rows, columns = (
            slice(own.start + side.start, own.start + side.stop)
            for own, side in zip(region, inner, strict=True)
        )
        return cls((rows, columns), seen[inner])


class FreeLabel:
    """Keeps up with the highest label of a layer, without reading all of it over and over.

    Parameters
    ----------
    jobs
        Where large layers are looked through.

    Attributes
    ----------
    changed
        Emitted when the next free label is another, became known, or cannot be known.
    failed
        Whether the layer could not be read, so that the next free label is not known.
    """

    changed = Signal()

    def __init__(self, jobs: Jobs) -> None:
        self._jobs = jobs
        self._layer: Labels | None = None
        self._highest = 0
        self._search: Job | None = None
        self.failed = False

    @property
    def value(self) -> int | None:
        """The next free label, None while it is being looked for or is not known."""
        unknown = self._search is not None or self.failed or self._layer is None
        return None if unknown else self._highest + 1

    def watch(self, layer: Labels | None) -> None:
        """Follow another layer, or none."""
        if layer is self._layer:
            return
        if self._layer is not None:
            self._layer.events.paint.disconnect(self._on_paint)
            self._layer.events.data.disconnect(self._look)
        self._layer = layer
        if layer is not None:
            layer.events.paint.connect(self._on_paint)
            layer.events.data.connect(self._look)
        self._look()

    def retry(self) -> None:
        """Look again, where the layer could not be read before."""
        if self.failed:
            self._look()

    def _look(self) -> None:
        if self._search is not None:
            self._search.abandon()
            self._search = None
        self._highest, self.failed = 0, False
        layer = self._layer
        if layer is not None:
            array = full_data(layer)
            if isinstance(array, np.ndarray) and array.nbytes <= AT_ONCE:
                self._highest = int(array.max(initial=0))
            else:
                slots = [slot(layer, index) for index in range(plane_count(layer))]
                self._search = self._jobs.aside(
                    lambda: _highest(array, slots),
                    self._on_found,
                    self._on_failed,
                    on_yield=_pass,
                )
        self.changed.emit()

    def _on_found(self, highest: int) -> None:
        self._search = None
        self._highest = max(self._highest, highest)
        self.changed.emit()

    def _on_failed(self, error: PtsamError) -> None:
        self._search, self.failed = None, True
        show(error)
        self.changed.emit()

    def _on_paint(self, event: Any) -> None:
        # The last of an atom are the new values.
        highest = max((int(np.max(atom[-1])) for atom in event.value), default=0)
        if highest > self._highest:
            self._highest = highest
            self.changed.emit()


def _pass(value: object) -> None:
    """A search yields so that it can be stopped, and tells nothing."""


def _highest(array: Any, slots: list[Any]) -> Generator[None, None, int]:
    """The highest label of an array, plane by plane, so that it can be stopped."""
    highest = 0
    for place in slots:
        highest = max(highest, int(np.asarray(array[place]).max(initial=0)))
        yield
    return highest


def check_fit(labels: Labels, image: Image) -> None:
    """Make sure that a labels layer can take the objects of an image.

    Raises
    ------
    InputError
        If it is of another size, or cannot be painted on.
    """
    if not same_planes(labels, image):
        raise InputError(
            f"The labels layer '{labels.name}' does not have the size of the image "
            f"'{image.name}'. Choose another, or make a new one."
        )
    if labels.metadata.get(RESULT_MARK) == PREVIEW or not labels.editable:
        raise InputError(
            f"The labels layer '{labels.name}' cannot be painted on. Choose another, or make a "
            "new one."
        )


def paint(labels: Labels, parts: Mapping[int, Part], value: int) -> int:
    """Give an object its label, on one or several planes; napari's undo takes it back at once.

    Pixels of other objects stay theirs.

    Parameters
    ----------
    labels
        The layer.
    parts
        Of planes by their numbers.
    value
        The label.

    Returns
    -------
    int
        How many pixels were painted.

    Raises
    ------
    InputError
        If the layer cannot hold so high a label, or is of another shape by now.
    """
    array = full_data(labels)
    largest = int(np.iinfo(array.dtype).max)
    if not 0 < value <= largest:
        raise InputError(
            f"The labels layer '{labels.name}' holds labels from 1 to {largest}, and this would "
            f"be {value}. Choose another label, or make a new layer."
        )
    found = [_free_pixels(labels, index, part, value) for index, part in parts.items()]
    where = tuple(np.concatenate(axis) for axis in zip(*found, strict=True))
    if not where or not where[0].size:
        return 0
    labels.data_setitem(where, value)
    return int(where[0].size)


def _free_pixels(labels: Labels, index: int, part: Part, value: int) -> list[NDArray[np.intp]]:
    """Pixels of a part that are no other object's, one array of numbers per axis."""
    shape, (rows, columns) = data_shape(labels)[-2:], part.where
    if index >= plane_count(labels) or rows.stop > shape[0] or columns.stop > shape[1]:
        raise InputError(
            f"The labels layer '{labels.name}' is not of the size that it was. Choose another, "
            "or make a new one."
        )
    place = slot(labels, index)
    before = np.asarray(full_data(labels)[(*place[:-2], rows, columns)])
    inside = np.nonzero(part.pixels & ((before == 0) | (before == value)))
    offsets = iter((inside[0] + rows.start, inside[1] + columns.start))
    count = len(inside[0])
    return [next(offsets) if isinstance(p, slice) else np.full(count, p) for p in place]
