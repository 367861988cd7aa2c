"""Annotations keep themselves: a crash or a closed window loses at most the last minute.

What is kept lies in the user's data folder, in one folder for each image and in it one for each
time that it was annotated: ``annotations.json``, and a TIFF for each painted plane.
"""

from __future__ import annotations

import datetime
import hashlib
import json
import os
import shutil
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import platformdirs
import tifffile
from numpy.typing import NDArray
from psygnal import Signal
from qtpy.QtCore import QTimer

from napari_ptsam._widgets.layers import channel_axis, full_data, planes_of, slot
from napari_ptsam._widgets.masks import Box
from napari_ptsam.errors import PtsamError
from napari_ptsam.planes import Planes

if TYPE_CHECKING:
    from napari_ptsam._widgets.annotations import Annotations
    from napari_ptsam._widgets.jobs import Jobs

FOLDER_VARIABLE = "NAPARI_PTSAM_ANNOTATIONS"
INDEX = "annotations.json"
VERSION = 1
DELAY_MS = 20_000
"""From the first change to its saving."""
KEPT = 5
"""Times that an image was annotated, of which the annotations stay."""


def annotations_folder() -> Path:
    """Folder of kept annotations: in ``$NAPARI_PTSAM_ANNOTATIONS`` or the user's data folder."""
    chosen = os.environ.get(FOLDER_VARIABLE)
    base = Path(chosen).expanduser() if chosen else platformdirs.user_data_path("napari-ptsam")
    return base / "annotations"


@dataclass(frozen=True)
class Kept:
    """Annotations that were kept.

    Attributes
    ----------
    folder
        Where they lie.
    saved
        When, in local time.
    planes
        Painted planes.
    empty
        Planes declared to hold no object.
    boxes
        Rectangles that say what was annotated, by plane.
    dtype
        Of the labels.
    channel_axis, channel
        Which axis of the image held channels, and the one in use.
    """

    folder: Path
    saved: datetime.datetime
    planes: tuple[int, ...]
    empty: tuple[int, ...]
    boxes: Mapping[int, list[Box]] = field(default_factory=dict)
    dtype: str = "uint16"
    channel_axis: int | None = None
    channel: int | str | None = None

    @property
    def count(self) -> int:
        """How many planes are annotated."""
        return len({*self.planes, *self.empty})

    def read(self, index: int) -> NDArray[Any]:
        """The labels of a painted plane, HxW."""
        return np.asarray(tifffile.imread(_plane_file(self.folder, index)))


def _plane_file(folder: Path, index: int) -> Path:
    return folder / f"plane-{index:06d}.tif"


def fingerprint(name: str, planes: Planes) -> str:
    """Recognise an image by its name, its size and some of its pixels.

    Reads three planes: not for the GUI thread.
    """
    digest = hashlib.sha256(f"{name}\n{len(planes)}\n".encode())
    for index in sorted({0, len(planes) // 2, len(planes) - 1}):
        plane = planes.read(index)
        step = [max(1, size // 64) for size in plane.shape[:2]]
        digest.update(f"{plane.shape} {plane.dtype}\n".encode())
        digest.update(np.ascontiguousarray(plane[:: step[0], :: step[1]]).tobytes())
    return digest.hexdigest()[:24]


def find_kept(folder: Path) -> Kept | None:
    """The newest annotations in the folder of an image, None if there are none."""
    for run in sorted(folder.glob(f"*/{INDEX}"), reverse=True):
        try:
            found = _read_index(run)
        except (OSError, ValueError, KeyError, TypeError):
            continue  # Damaged: an older one is better than none.
        if found.count:
            return found
    return None


def _read_index(path: Path) -> Kept:
    text = json.loads(path.read_text("utf-8"))
    if text["version"] != VERSION:
        raise ValueError(text["version"])
    boxes: dict[int, list[Box]] = {}
    for index, top, bottom, left, right in text["boxes"]:
        boxes.setdefault(index, []).append((slice(top, bottom), slice(left, right)))
    return Kept(
        path.parent,
        datetime.datetime.fromisoformat(text["saved"]).astimezone(),
        tuple(text["planes"]),
        tuple(text["empty"]),
        boxes,
        text["dtype"],
        text["channel_axis"],
        text["channel"],
    )


@dataclass(frozen=True)
class Snapshot:
    """What there is to save. The labels are read as they are written, in another thread."""

    array: Any
    slots: Mapping[int, tuple[int | slice, ...]]
    planes: tuple[int, ...]
    empty: tuple[int, ...]
    boxes: Mapping[int, list[Box]]
    image: str
    channel_axis: int | None
    channel: int | str | None


def save(folder: Path, snapshot: Snapshot) -> Path:
    """Write annotations; each file is either the old or the new one, whatever happens.

    Parameters
    ----------
    folder
        Of this time that the image is annotated.
    snapshot
        `slots` are the planes that are written, `planes` all that are painted.
    """
    folder.mkdir(parents=True, exist_ok=True)
    for index, place in snapshot.slots.items():
        plane = np.ascontiguousarray(snapshot.array[place])

        def write(path: Path, plane: NDArray[Any] = plane) -> None:
            tifffile.imwrite(path, plane, compression="zlib", metadata=None)

        _replace(_plane_file(folder, index), write)
    record = {
        "version": VERSION,
        "image": snapshot.image,
        "saved": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        "dtype": str(np.dtype(snapshot.array.dtype)),
        "channel_axis": snapshot.channel_axis,
        "channel": snapshot.channel,
        "planes": list(snapshot.planes),
        "empty": list(snapshot.empty),
        "boxes": [
            [index, rows.start, rows.stop, columns.start, columns.stop]
            for index, boxes in snapshot.boxes.items()
            for rows, columns in boxes
        ],
    }
    _replace(folder / INDEX, lambda path: path.write_text(json.dumps(record), "utf-8"))
    for old in sorted(folder.parent.iterdir())[:-KEPT]:
        shutil.rmtree(old, ignore_errors=True)
    return folder


def _replace(path: Path, write: Callable[[Path], object]) -> None:
    partial = path.with_name(f".{path.name}.partial")
    write(partial)
    partial.replace(path)


class Autosave:
    """Saves annotations as they grow, and finds those of another time.

    Attributes
    ----------
    found
        Emitted with the `Kept` annotations of the image that was chosen, if there are any.
    saved
        Emitted after saving, with the number of planes.
    failed
        Emitted if it was not possible, with the reason; painting goes on.
    """

    found = Signal(object)
    saved = Signal(int)
    failed = Signal(str)

    def __init__(self, annotations: Annotations, jobs: Jobs) -> None:
        self._annotations = annotations
        self._jobs = jobs
        self._image: Any = None
        self._place: Path | None = None
        self._folder: Path | None = None
        self._written: set[int] = set()
        self._array: Any = None
        self._busy = False
        self._due = False
        self._closed = False
        self.timer = QTimer()
        self.timer.setSingleShot(True)
        self.timer.setInterval(DELAY_MS)
        self.timer.timeout.connect(self.save)
        annotations.changed.connect(self._on_changed)
        annotations.edited.connect(self._on_edited)

    def save(self) -> None:
        """Save what changed, in another thread."""
        self._due = False
        snapshot = self._snapshot()
        if snapshot is None:
            return
        if self._busy or self._place is None:
            self._wait()
            return
        self._busy = True
        if self._folder is None:
            started = datetime.datetime.now(datetime.UTC)
            self._folder = self._place / f"{started:%Y%m%dT%H%M%S.%f}"
        folder = self._folder
        self._written.update(snapshot.slots)
        self._jobs.aside(
            lambda: save(folder, snapshot), lambda _: self._on_saved(snapshot), self._on_failed
        )

    def close(self) -> None:
        """Save a last time, without waiting for it; Qt's part of the timer may be gone already."""
        self._closed = True
        if self._due:
            self.save()

    def _wait(self) -> None:
        self._due = True
        if not self._closed:
            self.timer.start()

    def _snapshot(self) -> Snapshot | None:
        labels, image = self._annotations.labels, self._annotations.image
        if labels is None or image is None:
            return None
        array = full_data(labels)
        if array is not self._array:
            # Other labels, such as those of another class: the first ones stay.
            self._array, self._written, self._folder = array, set(), None
        painted = self._annotations.painted()
        wanted = [index for index in painted if index not in self._written]
        return Snapshot(
            array,
            {index: slot(labels, index) for index in wanted},
            tuple(painted),
            tuple(self._annotations.declared_empty()),
            self._annotations.boxes(),
            image.name,
            channel_axis(image),
            self._annotations.channel,
        )

    def _on_edited(self, indices: list[int]) -> None:
        self._written.difference_update(indices or set(self._written))
        if not self._due:
            self._wait()

    def _on_changed(self) -> None:
        image = self._annotations.image
        if image is self._image:
            return
        self._image = image
        self._place = self._folder = None
        if image is not None:
            planes, name = planes_of_any_channel(image), image.name
            self._jobs.aside(
                lambda: annotations_folder() / fingerprint(name, planes),
                lambda folder: self._on_recognised(image, folder),
                self._on_failed,
            )

    def _on_recognised(self, image: Any, folder: Path) -> None:
        if image is not self._image:
            return
        self._place = folder
        kept = find_kept(folder)
        if kept is not None:
            self.found.emit(kept)

    def _on_saved(self, snapshot: Snapshot) -> None:
        self._busy = False
        self.saved.emit(len({*snapshot.planes, *snapshot.empty}))

    def _on_failed(self, error: PtsamError) -> None:
        self._busy = False
        self._written.clear()
        self.failed.emit(str(error))


def planes_of_any_channel(image: Any) -> Planes:
    """The planes of an image, of its first channel where one would have to be chosen."""
    try:
        return planes_of(image)
    except PtsamError:
        return planes_of(image, 0)
