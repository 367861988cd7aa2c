"""Write masks and probabilities plane by plane, in the shape of what was read.

Masks are uint8 with 1 on the object: a label, as napari and evaluation take it.
Probabilities are float32, 0..1. A file has a temporary name until it is complete.
"""

from __future__ import annotations

import bisect
import itertools
import os
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from napari_ptsam.errors import InputError
from napari_ptsam.planes import Part, Planes
from napari_ptsam.planes.zarrs import is_zarr
from napari_ptsam.replacing import made_by, refuse_clashes, refuse_foreign
from napari_ptsam.sinks import Sink, TiffSink, ZarrSink

_STACKS = (".tif", ".tiff", ".zarr")
_OTHERS = (".png", ".jpg", ".jpeg", ".bmp", ".npy")


@contextmanager
def open_output(
    path: str | os.PathLike[str],
    planes: Planes,
    *,
    probability: bool = False,
    overwrite: bool = False,
    software: str | None = None,
) -> Iterator[MaskWriter]:
    """Open the output for a sequence of planes.

    Parameters
    ----------
    path
        For a folder of images a folder, which gets a ``.tif`` of the same name for each. For
        a stack or an image a ``.tif`` or ``.zarr``; without such a suffix, a folder that gets
        a ``.tif`` named like the source.
    planes
        What is segmented, in the order of writing.
    probability
        Write probabilities, beside the masks: to ``NAME_probability`` with the same suffix.
    overwrite
        Replace also what this program did not write. An input is never replaced.
    software
        What files name as their maker; by default this program.

    Yields
    ------
    A writer. If the block ends before all planes were written, the file that is not complete
    is removed; files of a folder that were complete by then stay.

    Raises
    ------
    InputError
        If the output cannot be written, or something would be lost.
    """
    if not len(planes):
        raise InputError(f"No plane of {planes.name} was chosen, so there is nothing to write.")
    target = _target(Path(path).expanduser(), planes)
    if probability:
        stem, suffix = split_name(target.name)
        target = target.with_name(f"{stem}_probability{suffix}")
    if planes.kind == "folder":
        files = [target / f"{part.key}.tif" for part in planes.parts]
    else:
        files = [target] * len(planes.parts)
    if len(set(files)) < len(files):
        raise InputError(
            f"The planes of {planes.name} are in an order that mixes its files. Give them in "
            "ascending order."
        )
    refuse_clashes(files, [planes.source, *(part.path for part in planes.parts)])
    if not overwrite:
        refuse_foreign({file: file for file in files})
    dtype = np.float32 if probability else np.uint8
    with _written(target, files, planes, dtype, software) as writer:
        yield writer


@contextmanager
def open_probability(path: Path, planes: Planes, software: str) -> Iterator[MaskWriter]:
    """Open exactly this ``.tif`` or ``.zarr`` for the probabilities of a file's planes."""
    with _written(path, [path] * len(planes.parts), planes, np.float32, software) as writer:
        yield writer


@contextmanager
def _written(
    target: Path,
    files: Sequence[Path],
    planes: Planes,
    dtype: type[np.uint8 | np.float32],
    software: str | None,
) -> Iterator[MaskWriter]:
    with in_words(target):
        files[0].parent.mkdir(parents=True, exist_ok=True)
        # Better now than after hours of computing.
        with tempfile.TemporaryFile(dir=files[0].parent):
            pass
    writer = MaskWriter(target, files, planes.parts, dtype, software or made_by())
    try:
        yield writer
        writer.refuse_incomplete()
    finally:
        writer.discard()


class MaskWriter:
    """Takes planes in order; see `open_output`.

    Attributes
    ----------
    path
        The file or folder that is written.
    """

    def __init__(
        self,
        path: Path,
        files: Sequence[Path],
        parts: Sequence[Part],
        dtype: type[np.uint8 | np.float32],
        software: str,
    ) -> None:
        self.path = path
        self._software = software
        self._dtype = dtype
        self._files = list(zip(files, parts, strict=True))
        self._ends = list(itertools.accumulate(part.count for part in parts))
        self._written = 0
        self._sink: Sink | None = None

    def write(self, index: int, plane: NDArray[Any]) -> None:
        """Write the next plane.

        Parameters
        ----------
        index
            Its number within the planes that the output was opened for, from 0 on.
        plane
            HxW: the mask (True or above 0 on the object), or the probability.

        Raises
        ------
        InputError
            If it is not the next plane's turn, or the disk does not take it.
        """
        if index != self._written or index >= self._ends[-1]:
            raise InputError(
                f"Plane {index} cannot be written to {self.path} now: planes are written in "
                f"order, and {self._written} of {self._ends[-1]} were."
            )
        number = bisect.bisect_right(self._ends, index)
        path, part = self._files[number]
        data = np.ascontiguousarray(plane if self._dtype is np.float32 else plane > 0, self._dtype)
        with in_words(path):
            if self._sink is None:
                path.parent.mkdir(parents=True, exist_ok=True)
                opener = ZarrSink if path.suffix.lower() == ".zarr" else TiffSink
                self._sink = opener(path, part, data, software=self._software)
            self._sink.write(data)
            if index + 1 == self._ends[number]:
                self._sink.finish()
                self._sink = None
        self._written += 1

    def refuse_incomplete(self) -> None:
        """Raise an `InputError` unless all planes were written."""
        if self._written < self._ends[-1]:
            raise InputError(
                f"Only {self._written} of {self._ends[-1]} planes were written to {self.path}, "
                "so it was not completed."
            )

    def discard(self) -> None:
        """Remove the file that is not complete, if there is one."""
        if self._sink is not None:
            self._sink.discard()
            self._sink = None


@contextmanager
def in_words(path: Path) -> Iterator[None]:
    """Turn an error of the file system into an `InputError`."""
    try:
        yield
    except OSError as error:
        raise InputError(
            f"{path} cannot be written: {error.strerror or error}. Check that the disk has "
            "space and that you may write there, or choose another output."
        ) from error


def _target(path: Path, planes: Planes) -> Path:
    """Decide which file or folder to write."""
    if path.name in ("", ".."):
        path = path.resolve()
    suffix = path.suffix.lower()
    if planes.kind == "folder":
        if suffix in (*_STACKS, *_OTHERS) or path.is_file():
            raise InputError(
                f"{path} is the name of a file, but the results for the folder {planes.name} "
                "need a folder. Give a folder as the output."
            )
        return path
    if suffix in _OTHERS or (suffix not in _STACKS and path.is_file()):
        raise InputError(
            f"Masks are not written to {path}. Give a name that ends in .tif or .zarr, or a folder."
        )
    if suffix in _STACKS:
        if path.is_dir() and not (suffix == ".zarr" and is_zarr(path)):
            raise InputError(f"{path} is a folder. Give another name for the output.")
        return path
    return path / f"{planes.parts[0].key}.tif"


def split_name(name: str) -> tuple[str, str]:
    """Separate name and suffix: ``a.ome.tif`` is ``a`` and ``.ome.tif``."""
    for suffix in (*(f".ome{suffix}" for suffix in _STACKS), *_STACKS):
        if name.lower().endswith(suffix):
            return name[: -len(suffix)], name[-len(suffix) :]
    return name, ""
