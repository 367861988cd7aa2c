"""Open whatever the user gives as a sequence of planes."""

from __future__ import annotations

import itertools
import os
import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from numpy.typing import NDArray

from napari_ptsam.errors import InputError
from napari_ptsam.planes.base import Planes, explained
from napari_ptsam.planes.layout import NOTHING_TAUGHT, find_layout
from napari_ptsam.planes.microscopes import (
    MICROSCOPES,
    can_read_microscopes,
    open_microscope,
)
from napari_ptsam.planes.part import Part
from napari_ptsam.planes.pictures import PICTURES, open_picture, picture_shape
from napari_ptsam.planes.stored import Stored, open_npy, stored_array
from napari_ptsam.planes.tiff import open_tiff
from napari_ptsam.planes.zarrs import is_zarr, open_zarr, stored_zarr

_TIFFS = (".tif", ".tiff")
_FORMATS = (*PICTURES, *_TIFFS, ".npy")
_VALID = "PNG, JPEG, BMP, TIFF, OME-TIFF, NPY, Zarr and OME-Zarr"
_EXPORTED = (".oib", ".oif", ".oir", ".vsi", ".ims", ".lsm", ".dv")
"""Formats of microscopes that other programs save as OME-TIFF."""


def open_planes(
    source: object,
    *,
    axes: str | None = None,
    channel: int | str | None = None,
    taught: Mapping[str, Any] = NOTHING_TAUGHT,
    alone: bool = True,
) -> Planes:
    """Open images as a lazy sequence of 2D planes.

    Time points and depth are flattened to planes in the order in which they are stored.

    Parameters
    ----------
    source
        A folder of images (with sub-folders), an image or stack file, or an array
        (NumPy, Dask, Zarr) that is read plane by plane; of a multiscale image's arrays, the
        first. `Planes` are given back as they are.
    axes
        One letter per axis, such as ``"TCZYX"``: T time, Z depth, C channel, Y rows,
        X columns, S colour samples. By default what the file says; else YX, with colours
        where the last axis has 3 or 4, and one more axis as depth.
    channel
        The one channel to use, by number or by the name that the file gives it.
    taught
        The `channels` of a specialist's metadata: the axes and the channel of its training, which
        hold where nothing else is said and as far as they fit, see `find_layout`.
    alone
        Whether a file of an OME-TIFF of several gives the planes of all. False where they are
        opened one by one; those of a folder always give their own.

    Raises
    ------
    InputError
        If there is nothing to read, or it is unclear how to read it.
    """
    if isinstance(source, Planes):
        return source
    if not isinstance(source, str | os.PathLike):
        return _ArrayPlanes(_store(_full_resolution(source)), None, axes, channel, taught)
    path = Path(source).expanduser()
    if not path.exists():
        raise InputError(f"{path} does not exist. Give a folder of images, or a file ({_VALID}).")
    if is_folder(path):
        return _FolderPlanes(path, axes, channel, taught)
    return _ArrayPlanes(_open_file(path, alone=alone), path, axes, channel, taught)


def _full_resolution(source: Any) -> Any:
    """The first of the arrays of a multiscale image, as napari's layers hold them."""
    several = isinstance(source, Sequence) and len(source) > 1
    if not several or not all(hasattr(level, "shape") for level in source):
        return source
    shapes = [tuple(level.shape) for level in source]
    pairs = list(itertools.pairwise(shapes))
    alike = all(len(a) == len(b) and a != b for a, b in pairs)
    shrinking = all(x >= y for a, b in pairs for x, y in zip(a, b, strict=False))
    return source[0] if alike and shrinking else source


def _store(array: Any) -> Stored:
    if type(array).__module__.partition(".")[0] == "zarr":
        return stored_zarr("the Zarr array", array)
    return stored_array("the array", array)


def _open_file(path: Path, *, alone: bool = True) -> Stored:
    suffix = path.suffix.lower()
    with explained(path):
        if path.is_dir():
            return open_zarr(path)
        if suffix in _TIFFS:
            return open_tiff(path, alone=alone)
        if suffix in PICTURES:
            return open_picture(path)
        if suffix == ".npy":
            return open_npy(path)
        if suffix in MICROSCOPES:
            return open_microscope(path, _VALID)
    advice = (
        "Export it as OME-TIFF (in Fiji: Plugins > Bio-Formats > Bio-Formats Exporter), or read "
        "it with another package and pass the array."
        if suffix in _EXPORTED
        else "Save it in one of these."
    )
    raise InputError(f"{path} is of a kind that is not read. Valid are {_VALID}. {advice}")


def _stem(path: Path) -> str:
    """Name without suffix; ``a.ome.tif`` and ``a.tif`` are both ``a``."""
    stem = path.stem if path.suffix.lower() in (*_FORMATS, *MICROSCOPES, ".zarr") else path.name
    return re.sub(r"\.ome$", "", stem, flags=re.IGNORECASE) or stem


class _ArrayPlanes(Planes):
    """The planes of one array, in a file or in memory."""

    def __init__(
        self,
        stored: Stored,
        path: Path | None,
        axes: str | None,
        channel: int | str | None,
        taught: Mapping[str, Any],
        key: str | None = None,
    ) -> None:
        self._stored = stored
        self._layout = layout = find_layout(
            stored.name,
            stored.shape,
            stored.axes,
            axes=axes,
            channel=channel,
            channel_names=stored.channel_names,
            taught=taught,
        )
        key = key or ("image" if path is None else _stem(path))
        part = Part(key, layout.count, layout.axes, layout.shape, stored.scale, path)
        several = bool(layout.axes)
        keys = [f"{number:04d}" for number in range(layout.count)] if several else [key]
        super().__init__(stored.name, "stack" if several else "image", keys, [part], path)

    def _read(self, index: int, *, labels: bool) -> NDArray[Any]:
        with explained(self._stored.name):
            if labels and self._stored.labels is not None:
                return self._stored.labels()
            return self._layout.arrange(self._stored.read(self._layout.index(index)))

    def _read_window(self, index: int, rows: slice, columns: slice) -> NDArray[Any]:
        with explained(self._stored.name):
            part = self._stored.read(self._layout.window(index, rows, columns))
            return self._layout.arrange(part)

    def _shape_of(self, index: int) -> tuple[int, int]:  # noqa: ARG002 (all planes are alike)
        return self._layout.plane_shape


class _FolderPlanes(Planes):
    """The files of a folder; one that holds a stack gives all its planes."""

    def __init__(
        self,
        folder: Path,
        axes: str | None,
        channel: int | str | None,
        taught: Mapping[str, Any],
    ) -> None:
        self._reading = (axes, channel, taught)
        self._opened: tuple[int, _ArrayPlanes] | None = None
        listed = list_images(folder)
        self._files, self._keys = [path for _, path in listed], [key for key, _ in listed]
        parts = [self._part(number) for number in range(len(self._files))]
        keys = [key for part in parts for key in part.plane_keys()]
        super().__init__(str(folder), "folder", keys, parts, folder)

    def _part(self, number: int) -> Part:
        if self._files[number].suffix.lower() in PICTURES:
            return Part(self._keys[number], path=self._files[number])
        return self._open(number).parts[0]

    def _open(self, number: int) -> _ArrayPlanes:
        """Open a file; the last one is kept, for the planes of a stack come in a row."""
        opened = self._opened
        if opened is not None and opened[0] == number:
            return opened[1]
        path = self._files[number]
        stored = _open_file(path, alone=False)
        planes = _ArrayPlanes(stored, path, *self._reading, self._keys[number])
        self._opened = (number, planes)
        return planes

    def _read(self, index: int, *, labels: bool) -> NDArray[Any]:
        part, within = self._locate(index)
        return self._open(part)._read(within, labels=labels)

    def _read_window(self, index: int, rows: slice, columns: slice) -> NDArray[Any]:
        part, within = self._locate(index)
        return self._open(part)._read_window(within, rows, columns)

    def _shape_of(self, index: int) -> tuple[int, int]:
        part, within = self._locate(index)
        path = self._files[part]
        if path.suffix.lower() in PICTURES:
            with explained(path):
                return picture_shape(path)
        return self._open(part)._shape_of(within)


def list_images(folder: Path) -> list[tuple[str, Path]]:
    """The images in a folder and its sub-folders, in natural order; none of them is opened.

    Returns
    -------
    Key (path without suffix, relative to the folder) and path of each.

    Raises
    ------
    InputError
        If there are none, or two have the same key.
    """
    files = sorted(_image_files(folder), key=lambda path: _natural(path.relative_to(folder).parts))
    if not files:
        raise _no_images(folder)
    seen: dict[str, Path] = {}
    for path in files:
        key = (path.relative_to(folder).parent / _stem(path)).as_posix()
        if key in seen:
            raise InputError(
                f"{seen[key]} and {path} have the same name but for the suffix, so masks "
                "and results could not be told apart. Rename one, or move it away."
            )
        seen[key] = path
    return list(seen.items())


def is_folder(path: Path) -> bool:
    """Whether a path is a folder of images, and not an image in a folder of its own (Zarr)."""
    return path.is_dir() and not is_zarr(path)


def _image_files(folder: Path) -> Iterator[Path]:
    """Find images in a folder and its sub-folders; hidden ones and other files are skipped."""

    def unreadable(error: OSError) -> None:
        raise InputError(f"{error.filename} cannot be listed: {error.strerror}.") from error

    formats = (*_FORMATS, *MICROSCOPES) if can_read_microscopes() else _FORMATS
    for parent, folders, files in os.walk(folder, onerror=unreadable):
        here = Path(parent)
        zarrs = [name for name in folders if is_zarr(here / name)]
        folders[:] = [name for name in folders if name not in zarrs and _is_visible(name)]
        yield from (here / name for name in zarrs if _is_visible(name))
        for name in files:
            if _is_visible(name) and Path(name).suffix.lower() in formats:
                yield here / name


def _is_visible(name: str) -> bool:
    return not name.startswith(".") and name != "__MACOSX"


def _natural(parts: Sequence[str]) -> list[list[tuple[int, str]]]:
    """Sort key by which ``img2`` comes before ``img10``."""

    def chunks(text: str) -> list[tuple[int, str]]:
        pieces = re.split(r"([0-9]+)", text.casefold())
        # Every second piece is a number.
        return [(int(piece) if n % 2 else -1, piece) for n, piece in enumerate(pieces)]

    return [chunks(part) for part in parts]


def _no_images(folder: Path) -> InputError:
    found = sorted(entry.name for entry in folder.iterdir())
    listed = f"It holds {', '.join(found[:5])}{' ...' if len(found) > 5 else ''}" if found else ""
    return InputError(
        f"There are no images in the folder {folder}. {listed or 'It is empty'}. Valid are "
        f"{_VALID}."
    )
