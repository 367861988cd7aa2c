"""Files that take one plane after the other, and get their name when complete."""

from __future__ import annotations

import math
import shutil
from contextlib import suppress
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import tifffile
from numpy.typing import NDArray

from napari_ptsam.errors import InputError
from napari_ptsam.omezarr import OmeZarr, known_scale, output_axes
from napari_ptsam.planes import Part
from napari_ptsam.replacing import MARK

_CLASSIC_TIFF = 3_900_000_000


class Sink(Protocol):
    """A file on its way."""

    def write(self, plane: NDArray[Any]) -> None:
        """Add a plane, HxW."""

    def finish(self) -> None:
        """Give the complete file its name."""

    def discard(self) -> None:
        """Remove what was written."""


class TiffSink:
    """An OME-TIFF, compressed without loss; BigTIFF where it may get too large.

    Parameters
    ----------
    path
        The file.
    part
        The planes to come: their axes and pixel sizes.
    first
        The first plane, for its shape and type; not written yet.
    software
        What to name as the file's maker.
    """

    def __init__(
        self, path: Path, part: Part, first: NDArray[Any], *, software: str | None = None
    ) -> None:
        self._path = path
        self._software = software
        self._partial = _partial(path)
        self._shape = first.shape
        self._description: bytes | None = ome_description(part, first.shape, first.dtype)
        big = is_large(part, first.shape, first.dtype)
        self._writer = tifffile.TiffWriter(self._partial, bigtiff=big, ome=False)

    def write(self, plane: NDArray[Any]) -> None:
        """Add a plane, HxW."""
        _check_shape(self._path, plane.shape, self._shape)
        self._writer.write(
            plane,
            photometric="minisblack",
            compression="zlib",
            description=self._description,
            software=self._software if self._description else False,
            metadata=None,
            contiguous=False,
        )
        self._description = None

    def finish(self) -> None:
        """Give the complete file its name."""
        self._writer.close()
        self._partial.replace(self._path)

    def discard(self) -> None:
        """Remove what was written."""
        with suppress(OSError):
            self._writer.close()
        with suppress(OSError):
            self._partial.unlink(missing_ok=True)


class ZarrSink:
    """An OME-Zarr image with its pyramid.

    Parameters
    ----------
    path
        The folder to become, with everything in it replaced.
    part
        The planes to come: their axes and pixel sizes.
    first
        The first plane, for its shape and type; not written yet.
    software
        What to name as the image's maker.
    """

    def __init__(
        self, path: Path, part: Part, first: NDArray[Any], *, software: str | None = None
    ) -> None:
        self._path = path
        self._partial = _partial(path)
        self._plane_shape = first.shape
        labels = first.dtype.kind != "f"
        mark = {MARK: {"software": software}} if software else None
        self._image = OmeZarr.create(
            self._partial, part, first.shape, first.dtype, labels=labels, attributes=mark
        )
        self._written = 0

    def write(self, plane: NDArray[Any]) -> None:
        """Add a plane, HxW."""
        _check_shape(self._path, plane.shape, self._plane_shape)
        self._image.write(self._written, plane)
        self._written += 1

    def finish(self) -> None:
        """Give the complete file its name."""
        if self._path.exists():
            shutil.rmtree(self._path)
        self._partial.replace(self._path)

    def discard(self) -> None:
        """Remove what was written."""
        shutil.rmtree(self._partial, ignore_errors=True)


def _partial(path: Path) -> Path:
    # Hidden, and without an image's suffix, so that nobody takes it for a result.
    return path.with_name(f".{path.name}.partial")


def _check_shape(path: Path, shape: tuple[int, ...], expected: tuple[int, ...]) -> None:
    if shape != expected or len(shape) != 2:
        raise InputError(
            f"A plane of shape {shape} does not fit into {path}, whose planes are {expected}."
        )


def is_large(part: Part, shape: tuple[int, ...], dtype: np.dtype[Any]) -> bool:
    """Whether planes may get too large for a classic TIFF file."""
    return part.count * math.prod(shape) * dtype.itemsize > _CLASSIC_TIFF


def ome_description(part: Part, shape: tuple[int, ...], dtype: np.dtype[Any]) -> bytes:
    """The OME-XML of planes of this shape and type."""
    axes, leading = output_axes(part)
    scale: dict[str, Any] = {}
    for axis, (size, unit) in known_scale(part).items():
        if axis in axes + "YX":
            name = "TimeIncrement" if axis == "T" else f"PhysicalSize{axis}"
            scale[name] = size
            scale[f"{name}Unit"] = unit
    document = tifffile.OmeXml(Creator="napari-ptsam")
    document.addimage(
        dtype,
        (*leading, *shape),
        (part.count, 1, 1, shape[0], shape[1], 1),
        axes=axes + "YX",
        Name=part.key,
        **scale,
    )
    return document.tostring(declaration=True).encode()
