"""Files that take one plane after the other, and get their name when complete."""

from __future__ import annotations

import shutil
from contextlib import suppress
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import tifffile
from numpy.typing import NDArray

from napari_ptsam.errors import InputError
from napari_ptsam.planes import Part
from napari_ptsam.planes.zarrs import UNITS

_CLASSIC_TIFF = 3_900_000_000
_CHUNK = 1024


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
    """

    def __init__(self, path: Path, part: Part, first: NDArray[Any]) -> None:
        self._path = path
        self._partial = _partial(path)
        self._shape = first.shape
        self._description: bytes | None = _ome_xml(part, first)
        big = part.count * first.nbytes > _CLASSIC_TIFF
        self._writer = tifffile.TiffWriter(self._partial, bigtiff=big, ome=False)

    def write(self, plane: NDArray[Any]) -> None:
        """Add a plane, HxW."""
        _check_shape(self._path, plane.shape, self._shape)
        self._writer.write(
            plane,
            photometric="minisblack",
            compression="zlib",
            description=self._description,
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
    """An OME-Zarr 0.4 image of one resolution.

    Parameters
    ----------
    path
        The folder to become, with everything in it replaced.
    part
        The planes to come: their axes and pixel sizes.
    first
        The first plane, for its shape and type; not written yet.
    """

    def __init__(self, path: Path, part: Part, first: NDArray[Any]) -> None:
        import zarr

        self._path = path
        self._partial = _partial(path)
        self._plane_shape = first.shape
        axes, self._leading = _output_axes(part)
        shutil.rmtree(self._partial, ignore_errors=True)
        group = zarr.open_group(str(self._partial), mode="w", zarr_format=2)
        group.attrs["multiscales"] = [_multiscale(path.stem, axes + "YX", part)]
        self._array = group.create_array(
            "0",
            shape=(*self._leading, *first.shape),
            chunks=(*(1 for _ in self._leading), *(min(_CHUNK, size) for size in first.shape)),
            dtype=first.dtype,
            chunk_key_encoding={"name": "v2", "separator": "/"},
        )
        self._written = 0

    def write(self, plane: NDArray[Any]) -> None:
        """Add a plane, HxW."""
        _check_shape(self._path, plane.shape, self._plane_shape)
        # Of no leading axes, unravelling 0 gives the empty position.
        position = np.unravel_index(self._written, self._leading)
        place: tuple[int | slice, ...] = (*map(int, position), slice(None), slice(None))
        self._array[place] = plane
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


def _output_axes(part: Part) -> tuple[str, tuple[int, ...]]:
    """Keep time and depth as they were; other axes are flattened to depth."""
    if set(part.axes) <= {"T", "Z"}:
        return part.axes, part.shape
    return "Z", (part.count,)


def _known_scale(part: Part) -> dict[str, tuple[float, str]]:
    units = UNITS.values()
    return {axis: size for axis, size in part.scale.items() if axis in "XYZ" and size[1] in units}


def _ome_xml(part: Part, first: NDArray[Any]) -> bytes:
    axes, leading = _output_axes(part)
    scale: dict[str, Any] = {}
    for axis, (size, unit) in _known_scale(part).items():
        if axis in axes + "YX":
            scale[f"PhysicalSize{axis}"] = size
            scale[f"PhysicalSize{axis}Unit"] = unit
    document = tifffile.OmeXml(Creator="napari-ptsam")
    document.addimage(
        first.dtype,
        (*leading, *first.shape),
        (part.count, 1, 1, *first.shape, 1),
        axes=axes + "YX",
        Name=part.key,
        **scale,
    )
    return document.tostring(declaration=True).encode()


def _multiscale(name: str, axes: str, part: Part) -> dict[str, Any]:
    """Metadata of an image, OME-Zarr 0.4."""
    scale = _known_scale(part)
    words = {short: word for word, short in UNITS.items()}
    described: list[dict[str, str]] = []
    for axis in axes:
        entry = {"name": axis.lower(), "type": "time" if axis == "T" else "space"}
        if axis in scale:
            entry["unit"] = words[scale[axis][1]]
        described.append(entry)
    sizes = [scale[axis][0] if axis in scale else 1.0 for axis in axes]
    return {
        "version": "0.4",
        "name": name,
        "axes": described,
        "datasets": [
            {"path": "0", "coordinateTransformations": [{"type": "scale", "scale": sizes}]}
        ],
    }
