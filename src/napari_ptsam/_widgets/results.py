"""The labels that follow from kept probabilities, without asking the network again.

Nothing here knows napari: arrays in, arrays out, and safe to call from a worker thread.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Generator, Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import xxhash
from numpy.typing import NDArray

from napari_ptsam._widgets.kept import KeptProbabilities
from napari_ptsam.objects import Splitting, split_objects, without_small

Slot = tuple[int | slice, ...]


@dataclass(frozen=True)
class Look:
    """How probabilities become labels.

    Attributes
    ----------
    threshold
        Probability from which a pixel is object, 0..1.
    minimum_size
        Objects of fewer pixels (voxels if linked) are left out.
    numbered
        Whether each object has a number of its own, else all are 1.
    separate
        Whether touching objects are cut apart.
    linked
        Whether an object goes through planes, else each plane has objects of its own.
    """

    threshold: float
    minimum_size: int = 0
    numbered: bool = False
    separate: bool = False
    linked: bool = False

    @property
    def splitting(self) -> Splitting:
        """What counts as one object."""
        return Splitting(self.minimum_size, self.separate)

    @property
    def through_planes(self) -> bool:
        """Whether the labels of a plane depend on its neighbours."""
        return self.linked and (self.numbered or self.minimum_size > 1)


@dataclass(frozen=True)
class Geometry:
    """Where the planes of a result lie, and how large their pixels are.

    Attributes
    ----------
    slots
        Place of each plane in the array of labels.
    volumes
        Planes that lie upon each other, in order; one tuple for each time point or the like.
        Empty where there is no depth.
    spacing
        Size of a voxel along depth, rows and columns, in one unit.
    """

    slots: Sequence[Slot]
    volumes: Sequence[tuple[int, ...]] = ()
    spacing: tuple[float, float, float] = (1.0, 1.0, 1.0)


@dataclass
class _Drawn:
    """How a plane was drawn, how many objects it has, and what was added to their numbers."""

    look: Look
    count: int
    offset: int = 0


class Result:
    """Labels of a layer that follow a `Look`.

    Parameters
    ----------
    kept
        Probabilities of the planes that are done.
    data
        The array of labels, written in place.
    geometry
        Where its planes lie.
    look
        The first look. Set `look` to another, then draw what is `stale`.

    Attributes
    ----------
    edited
        Planes that the user changed by hand since; these are left as they are. See `edit`.
    """

    def __init__(self, kept: KeptProbabilities, data: Any, geometry: Geometry, look: Look) -> None:
        self.kept = kept
        self.data = data
        self.geometry = geometry
        self.look = look
        self.edited: set[int] = set()
        self._touched: set[int] = set()
        self._written: dict[int, bytes] = {}
        self._drawn: dict[int, _Drawn] = {}
        # A long job and short work beside it may both draw.
        self._lock = threading.RLock()
        self._linked: dict[tuple[int, ...], Look] = {}

    def done(self) -> list[int]:
        """Planes that are segmented, ascending."""
        return sorted(index for index in range(len(self.geometry.slots)) if index in self.kept)

    def put(self, index: int, probability: NDArray[np.float32]) -> None:
        """Keep the probability of a plane, and draw it."""
        self.kept.put(index, probability)
        self._linked.clear()
        self.draw(index)

    def forget(self, indices: Sequence[int]) -> None:
        """Take planes for not segmented yet; their labels stay until they are."""
        for index in indices:
            self.kept.forget(index)

    def edit(self, indices: Iterable[int]) -> bool:
        """Take planes for changed by hand; returns whether one of them was not before."""
        new = set(indices) - self.edited
        self.edited |= new
        self._touched |= new
        return bool(new)

    def look_again(self) -> bool:
        """Find out which planes are changed by hand still: undo and redo do not tell.

        Returns
        -------
        Whether others are now than before.
        """
        before = set(self.edited)
        for index in self._touched:
            with self._lock:
                (self.edited.discard if self._is_own(index) else self.edited.add)(index)
        if self.edited != before:
            # Objects through planes may go through what was given back.
            self._linked.clear()
        return self.edited != before

    def stale(self) -> list[int]:
        """Planes that are drawn in another look than the present one, ascending."""
        look = _in_plane(self.look)
        return [
            index
            for index in self.done()
            if index not in self.edited and _look_of(self._drawn.get(index)) != look
        ]

    def draw(self, index: int) -> None:
        """Write the labels of one plane; objects through planes come later, by `link`."""
        if index in self.edited:
            return
        look = _in_plane(self.look)
        mask = self.kept.mask(index, look.threshold)
        if look.numbered:
            plane = split_objects(mask, look.splitting, spacing=self.geometry.spacing[1:])
        else:
            plane = without_small(mask, look.minimum_size).astype(np.int32)
        with self._lock:
            self._write(index, plane)
            self._drawn[index] = _Drawn(look, int(plane.max(initial=0)))
            self._linked.clear()

    def draw_some(self, indices: Sequence[int], seconds: float = 0.1) -> list[int]:
        """Draw planes until the time is up or the look changes; returns which."""
        look, started = self.look, time.monotonic()
        drawn: list[int] = []
        for index in indices:
            if self.look != look or (drawn and time.monotonic() - started > seconds):
                break
            self.draw(index)
            drawn.append(index)
        return drawn

    @property
    def unfinished(self) -> bool:
        """Whether `link` or `renumber` is still to be called, once no plane is stale."""
        if self.look.through_planes:
            return any(self._linked.get(volume) != self.look for volume in self._volumes())
        if not self.look.numbered:
            return False
        return any(self._drawn[i].offset != offset for i, offset in self._offsets().items())

    def renumber(self) -> None:
        """Give the objects of all planes numbers of their own, ascending through the planes."""
        with self._lock:
            for index, offset in self._offsets().items():
                drawn = self._drawn[index]
                if drawn.offset != offset:
                    plane = np.asarray(self.data[self.geometry.slots[index]])
                    self._write(index, _shifted(plane, offset - drawn.offset))
                    drawn.offset = offset

    def link(self) -> Generator[tuple[int, int], None, None]:
        """Find objects through planes, volume by volume, unless the look changes meanwhile.

        Yields
        ------
        How many volumes of how many are done.
        """
        look, volumes = self.look, self._volumes()
        first = self._highest_edited() if look.numbered else 0
        for number, volume in enumerate(volumes, start=1):
            masks = np.stack([self._mask_or_nothing(index, look) for index in volume])
            if look.numbered:
                labels = split_objects(masks, look.splitting, spacing=self.geometry.spacing)
            else:
                labels = without_small(masks, look.minimum_size).astype(np.int32)
            with self._lock:
                if self.look != look:
                    return
                self._write_volume(volume, labels, first)
                self._linked[volume] = look
            first += int(labels.max(initial=0)) if look.numbered else 0
            yield number, len(volumes)

    def _write_volume(self, volume: tuple[int, ...], labels: NDArray[np.int32], by: int) -> None:
        for index, plane in zip(volume, labels, strict=True):
            if index in self.kept and index not in self.edited:
                self._write(index, _shifted(plane, by))
                self._drawn[index] = _Drawn(_in_plane(self.look), 0)

    def _write(self, index: int, plane: NDArray[np.int32]) -> None:
        self.data[self.geometry.slots[index]] = plane
        self._written[index] = _digest(plane)

    def _is_own(self, index: int) -> bool:
        """Whether a plane is as it was written here, or blank where nothing was."""
        plane, written = self.data[self.geometry.slots[index]], self._written.get(index)
        return not np.any(plane) if written is None else _digest(plane) == written

    def _volumes(self) -> list[tuple[int, ...]]:
        done = set(self.done())
        return [volume for volume in self.geometry.volumes if done & set(volume)]

    def _mask_or_nothing(self, index: int, look: Look) -> NDArray[np.bool_]:
        if index in self.kept and index not in self.edited:
            return self.kept.mask(index, look.threshold)
        return np.zeros(self.data[self.geometry.slots[index]].shape, bool)

    def _offsets(self) -> dict[int, int]:
        """What to add to the numbers of each plane that has objects of its own."""
        offsets, first = {}, self._highest_edited()
        for index, drawn in sorted(self._drawn.copy().items()):
            if index not in self.edited:
                offsets[index] = first
                first += drawn.count
        return offsets

    def _highest_edited(self) -> int:
        planes = (self.data[self.geometry.slots[index]] for index in self.edited)
        return max((int(np.asarray(plane).max(initial=0)) for plane in planes), default=0)


def _in_plane(look: Look) -> Look:
    """What can be drawn of a look plane by plane: all but the size of objects through planes."""
    return replace(look, minimum_size=0) if look.through_planes else look


def _shifted(labels: NDArray[np.int32], by: int) -> NDArray[np.int32]:
    return np.where(labels > 0, labels + np.int32(by), np.int32(0))


def _digest(labels: NDArray[Any]) -> bytes:
    """Tells planes apart without a copy of them."""
    return xxhash.xxh3_128_digest(np.ascontiguousarray(labels, np.int32).data)


def _look_of(drawn: _Drawn | None) -> Look | None:
    return None if drawn is None else drawn.look
