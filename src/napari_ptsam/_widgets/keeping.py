"""Annotations on disk: what is written of them, and how it is found again.

They lie in the user's data folder, in one folder for each image, and in it one for each labels
layer of each time that it was annotated: ``annotations.json``, and a TIFF for each painted plane.
"""

from __future__ import annotations

import datetime
import hashlib
import json
import os
import shutil
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import platformdirs
import tifffile
from numpy.typing import NDArray

from napari_ptsam._widgets.masks import Box
from napari_ptsam.planes import Planes

FOLDER_VARIABLE = "NAPARI_PTSAM_ANNOTATIONS"
INDEX = "annotations.json"
VERSION = 1
KEPT = 5
"""Times that a labels layer was painted on, of which the annotations stay."""


def annotations_folder() -> Path:
    """Folder of kept annotations: in ``$NAPARI_PTSAM_ANNOTATIONS`` or the user's data folder."""
    chosen = os.environ.get(FOLDER_VARIABLE)
    base = Path(chosen).expanduser() if chosen else platformdirs.user_data_path("napari-ptsam")
    return base / "annotations"


@dataclass(frozen=True)
class Kept:
    """Annotations that were kept of one labels layer.

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
    labels
        Name of the labels layer; empty if it was not written.
    """

    folder: Path
    saved: datetime.datetime
    planes: tuple[int, ...]
    empty: tuple[int, ...]
    boxes: Mapping[int, list[Box]] = field(default_factory=dict)
    dtype: str = "uint16"
    channel_axis: int | None = None
    channel: int | str | None = None
    labels: str = ""

    @property
    def count(self) -> int:
        """How many planes are annotated."""
        return len({*self.planes, *self.empty})

    def whole(self) -> bool:
        """Whether all painted planes are there."""
        return all(_plane_file(self.folder, index).exists() for index in self.planes)

    def read(self, index: int) -> NDArray[Any]:
        """The labels of a painted plane, HxW."""
        return np.asarray(tifffile.imread(_plane_file(self.folder, index)))

    def read_all(self, size: tuple[int, ...]) -> dict[int, NDArray[Any]]:
        """The labels of those painted planes that can be read and are of a size, HxW each."""
        found = {}
        for index in self.planes:
            try:
                plane = self.read(index)
            except Exception:
                # Of a damaged file tifffile raises whatever it stumbles on; the others count.
                continue
            if plane.shape == size:
                found[index] = plane
        return found


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


def find_kept(folder: Path) -> list[Kept]:
    """The newest annotations of each labels layer of an image, the newest first.

    Parameters
    ----------
    folder
        Of the image. What cannot be read there is left out; annotations whose planes are not all
        there give way to older ones of the same layer that are whole.
    """
    found = sorted((kept for kept in _all_kept(folder) if kept.count), key=_age, reverse=True)
    newest: dict[str, Kept] = {}
    for kept in sorted(found, key=lambda kept: not kept.whole()):
        newest.setdefault(kept.labels, kept)
    return sorted(newest.values(), key=_age, reverse=True)


def _age(kept: Kept) -> tuple[datetime.datetime, str]:
    return kept.saved, kept.folder.name


def _all_kept(folder: Path) -> Iterator[Kept]:
    for path in folder.glob(f"*/{INDEX}"):
        kept = _read_index(path)
        if kept is not None:
            yield kept


def _read_index(path: Path) -> Kept | None:
    """What was kept in a folder, None if it is damaged."""
    try:
        return _kept(path.parent, json.loads(path.read_text("utf-8")))
    except (OSError, ValueError, KeyError, TypeError):
        return None


def _kept(folder: Path, text: Mapping[str, Any]) -> Kept:
    if text["version"] != VERSION or np.dtype(text["dtype"]).kind not in "iu":
        raise ValueError(folder)
    boxes: dict[int, list[Box]] = {}
    for index, top, bottom, left, right in text["boxes"]:
        boxes.setdefault(index, []).append((slice(top, bottom), slice(left, right)))
    return Kept(
        folder,
        datetime.datetime.fromisoformat(text["saved"]).astimezone(),
        tuple(text["planes"]),
        tuple(text["empty"]),
        boxes,
        text["dtype"],
        text["channel_axis"],
        text["channel"],
        text.get("labels", ""),
    )


@dataclass(frozen=True)
class Snapshot:
    """What there is to save. The labels are read as they are written, in another thread.

    Attributes
    ----------
    array
        The labels.
    slots
        Where in it the painted planes lie.
    changed
        Those of them that differ from what was written before.
    empty, boxes, channel_axis, channel, labels
        As `Kept` has them.
    image
        Name of the image layer.
    """

    array: Any
    slots: Mapping[int, tuple[int | slice, ...]]
    changed: frozenset[int]
    empty: tuple[int, ...]
    boxes: Mapping[int, list[Box]]
    image: str
    channel_axis: int | None
    channel: int | str | None
    labels: str

    @property
    def count(self) -> int:
        """How many planes are annotated."""
        return len({*self.slots, *self.empty})


def save(folder: Path, snapshot: Snapshot) -> int:
    """Write annotations; each file is either the old or the new one, whatever happens.

    Parameters
    ----------
    folder
        Of this labels layer, and this time that it is painted on.
    snapshot
        What to write. A plane that has no file gets one, changed or not: planes that are listed
        can be read.

    Returns
    -------
    int
        How many planes are annotated.
    """
    folder.mkdir(parents=True, exist_ok=True)
    for index, place in snapshot.slots.items():
        path = _plane_file(folder, index)
        if index in snapshot.changed or not path.exists():
            _write_plane(path, np.ascontiguousarray(snapshot.array[place]))
    record = {
        "version": VERSION,
        "image": snapshot.image,
        "labels": snapshot.labels,
        "saved": datetime.datetime.now(datetime.UTC).isoformat(timespec="milliseconds"),
        "dtype": str(np.dtype(snapshot.array.dtype)),
        "channel_axis": snapshot.channel_axis,
        "channel": snapshot.channel,
        "planes": sorted(snapshot.slots),
        "empty": list(snapshot.empty),
        "boxes": [
            [index, rows.start, rows.stop, columns.start, columns.stop]
            for index, boxes in snapshot.boxes.items()
            for rows, columns in boxes
        ],
    }
    _replace(folder / INDEX, lambda path: path.write_text(json.dumps(record), "utf-8"))
    _tidy(folder.parent)
    return snapshot.count


def _tidy(folder: Path) -> None:
    """Leave the newest annotations of each labels layer; damaged ones count as those of one."""
    seen: Counter[str | None] = Counter()
    for run in sorted(folder.iterdir(), reverse=True):
        kept = _read_index(run / INDEX)
        name = None if kept is None else kept.labels
        seen[name] += 1
        if seen[name] > KEPT:
            shutil.rmtree(run, ignore_errors=True)


def _write_plane(path: Path, plane: NDArray[Any]) -> None:
    _replace(
        path, lambda partial: tifffile.imwrite(partial, plane, compression="zlib", metadata=None)
    )


def _replace(path: Path, write: Callable[[Path], object]) -> None:
    partial = path.with_name(f".{path.name}.partial")
    write(partial)
    partial.replace(path)
