"""Annotations keep themselves: a crash or a closed window loses at most the last minute."""

from __future__ import annotations

import datetime
import threading
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any
from weakref import WeakKeyDictionary

from psygnal import Signal
from qtpy.QtCore import QTimer

from napari_ptsam._widgets.keeping import (
    Kept,
    Snapshot,
    annotations_folder,
    find_kept,
    fingerprint,
    save,
)
from napari_ptsam._widgets.layers import channel_axis, full_data, planes_of, slots
from napari_ptsam.errors import PtsamError
from napari_ptsam.planes import Planes

if TYPE_CHECKING:
    from collections.abc import Iterable

    from napari.layers import Image, Labels, Layer

    from napari_ptsam._widgets.annotations import Annotations
    from napari_ptsam._widgets.jobs import Jobs

DELAY_MS = 20_000
"""From the first change to its saving."""

HELD = "napari-ptsam-kept"
"""Key in the metadata of Labels layers: folders of kept annotations that lie on them."""


def mark_held(labels: Labels, folder: str) -> None:
    """Remember that the annotations in a folder of that name lie on a layer of the viewer."""
    held = labels.metadata.setdefault(HELD, [])
    if folder not in held:
        held.append(folder)


def held_by(layers: Iterable[Layer]) -> set[str]:
    """Names of the folders whose annotations lie on layers, so that they need no restoring."""
    return {folder for layer in layers for folder in layer.metadata.get(HELD, ())}


@dataclass
class _Run:
    """One labels layer on one image, as it is kept while napari runs."""

    array: Any
    folder: str
    planes: set[int] = field(default_factory=set)


class _Place:
    """Where the annotations of an image are kept."""

    def __init__(self, image: Image) -> None:
        self._planes = planes_of_any_channel(image)
        self._array, self._name = full_data(image), image.name
        self._folder: Path | None = None
        self._lock = threading.Lock()
        self._runs: WeakKeyDictionary[Labels, _Run] = WeakKeyDictionary()

    def fits(self, image: Image) -> bool:
        """Whether the image is what it was, with the name that it had."""
        return full_data(image) is self._array and image.name == self._name

    def folder(self) -> Path:
        """The folder of the image; looks at the image at first, so not for the GUI thread."""
        with self._lock:
            if self._folder is None:
                self._folder = annotations_folder() / fingerprint(self._name, self._planes)
            return self._folder

    def run_of(self, labels: Labels) -> _Run:
        """The run of a labels layer; other data on it begin a new one, and the first stay."""
        array, run = full_data(labels), self._runs.get(labels)
        if run is None or run.array is not array:
            started = datetime.datetime.now(datetime.UTC)
            run = self._runs[labels] = _Run(array, f"{started:%Y%m%dT%H%M%S.%f}")
        return run


class Autosave:
    """Saves annotations as they grow, and finds those of another time.

    Parameters
    ----------
    annotations
        What is saved.
    jobs
        Where the saving runs.
    elsewhere
        Whether another dock saves the same by now.

    Attributes
    ----------
    found
        Emitted with a list of the `Kept` annotations of the image that was chosen.
    saved
        Emitted after saving, with the number of planes.
    failed
        Emitted if it was not possible, with the reason; painting goes on.
    """

    found = Signal(list)
    saved = Signal(int)
    failed = Signal(str)

    def __init__(
        self,
        annotations: Annotations,
        jobs: Jobs,
        elsewhere: Callable[[], bool] = lambda: False,
    ) -> None:
        self._annotations = annotations
        self._jobs = jobs
        self._elsewhere = elsewhere
        self._image: Image | None = None
        self._places: WeakKeyDictionary[Image, _Place] = WeakKeyDictionary()
        self._recognising = False
        self._written: set[int] = set()
        self._queue: deque[Callable[[], int]] = deque()
        self._in_turn = threading.Lock()
        self._busy = self._due = self._closed = False
        self.timer = QTimer()
        self.timer.setSingleShot(True)
        self.timer.setInterval(DELAY_MS)
        self.timer.timeout.connect(self.save)
        annotations.changing.connect(self._on_changing)
        annotations.changed.connect(self._on_changed)
        annotations.edited.connect(self._on_edited)

    @property
    def recognised(self) -> bool:
        """Whether it is known where the annotations of the image are kept."""
        return self._image is not None and not self._recognising

    def save(self) -> None:
        """Save what changed, in another thread, as soon as it is known where."""
        if self._due and (self._recognising or self._busy):
            self._wait()
        elif self._due:
            self._put()
            self._work()
            if self._annotations.searching:
                # There may be more paint than was found so far.
                self._wait()

    def close(self) -> None:
        """Save a last time, without waiting for it; Qt's part of the timer may be gone already."""
        self._closed = True
        if self._due:
            self._put()
        self._work()

    def _wait(self) -> None:
        self._due = True
        if not self._closed:
            self.timer.start()

    def _put(self) -> None:
        """Queue what there is to save now."""
        self._due = False
        labels, image = self._annotations.labels, self._annotations.image
        place = None if image is None else self._places.get(image)
        if labels is None or image is None or place is None:
            return
        run = place.run_of(labels)
        snapshot = self._snapshot(labels, image, run)
        run.planes = set(snapshot.slots)
        self._written = set(snapshot.slots)
        mark_held(labels, run.folder)
        self._queue.append(lambda: save(place.folder() / run.folder, snapshot))

    def _snapshot(self, labels: Labels, image: Image, run: _Run) -> Snapshot:
        annotations = self._annotations
        # What is kept is not given up before all planes have been looked at again.
        painted = {*annotations.painted(), *(run.planes if annotations.searching else ())}
        return Snapshot(
            run.array,
            slots(labels, sorted(painted)),
            frozenset(painted - self._written),
            tuple(annotations.declared_empty()),
            annotations.boxes(),
            image.name,
            channel_axis(image),
            annotations.channel,
            labels.name,
        )

    def _work(self) -> None:
        """Have what is in the queue written; when all closes, also behind what still writes."""
        if self._queue and (self._closed or not self._busy):
            self._busy = True
            self._jobs.aside(self._write, self._on_written, self._on_failed)

    def _write(self) -> list[int]:
        counts = []
        with self._in_turn:
            while self._queue:
                counts.append(self._queue.popleft()())
        return counts

    def _on_written(self, counts: list[int]) -> None:
        self._busy = False
        if counts:
            self.saved.emit(counts[-1])
        self._work()

    def _on_failed(self, error: PtsamError) -> None:
        self._busy = False
        # Nobody knows which files are the new ones. The disk may have space again later.
        self._written.clear()
        self._wait()
        self.failed.emit(str(error))
        self._work()

    def _on_edited(self, indices: list[int]) -> None:
        self._written.difference_update(indices or set(self._written))
        if not self._due and not self._elsewhere():
            self._wait()

    def _on_changing(self) -> None:
        """Another layer is chosen: what this one has is saved, whoever paints on it meanwhile."""
        if self._due:
            self._put()
            self._work()
        self._written.clear()

    def _on_changed(self) -> None:
        image = self._annotations.image
        if image is self._image:
            return
        self._image = image
        if image is not None:
            self._recognise(image)

    def _recognise(self, image: Image) -> None:
        place = self._places.get(image)
        if place is None or not place.fits(image):
            place = self._places[image] = _Place(image)
        self._recognising = True
        self._jobs.aside(
            lambda: find_kept(place.folder()),
            lambda kept: self._on_recognised(image, kept),
            lambda error: self._on_unrecognised(image, error),
        )

    def _on_recognised(self, image: Image, kept: list[Kept]) -> None:
        if image is self._image:
            self._recognising = False
            self.found.emit(kept)

    def _on_unrecognised(self, image: Image, error: PtsamError) -> None:
        if image is self._image:
            self._recognising = False
        self.failed.emit(str(error))


def planes_of_any_channel(image: Image) -> Planes:
    """The planes of an image, of its first channel where one would have to be chosen."""
    try:
        return planes_of(image)
    except PtsamError:
        return planes_of(image, 0)
