"""OME-Zarr images with a pyramid, written plane by plane or block by block, in any order.

Versions 0.5 (Zarr format 3) and 0.4 (Zarr format 2) of https://ngff.openmicroscopy.org.
A block and its smaller copies are whole chunks of their arrays, so that blocks can be written
at the same time, and again.
"""

from __future__ import annotations

import itertools
import os
import shutil
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from numpy.typing import DTypeLike, NDArray

from napari_ptsam.errors import InputError
from napari_ptsam.planes import Part
from napari_ptsam.planes.layout import Index
from napari_ptsam.planes.zarrs import UNITS

if TYPE_CHECKING:
    import zarr

VERSIONS = ("0.5", "0.4")

CHUNK = 1024
"""Side of a chunk in the plane, at most."""

SMALLEST = 256
"""Sides from which on no smaller copy is worth storing."""

_LEAST_CHUNK = 64


class OmeZarr:
    """An image on disk, of time points or planes in depth or both.

    Make one with `create`, or `open` one that `create` made.

    Attributes
    ----------
    path
        Its folder.
    axes, shape
        Names and sizes of all axes, in the order that the format demands: T, Z, Y, X.
    """

    def __init__(self, path: Path, part: Part, group: zarr.Group, *, labels: bool) -> None:
        self.path = path
        self._levels: list[zarr.Array[Any]] = []
        for number in range(len(list(group.array_keys()))):
            array = group[str(number)]
            if not hasattr(array, "shape"):
                raise InputError(f"{path} is damaged: {number} is no array. Segment again.")
            self._levels.append(array)  # type: ignore[arg-type]
        self._labels = labels
        self._axes, self._sizes = output_axes(part)
        self.axes = _ordered(self._axes) + "YX"
        self.shape = tuple(int(size) for size in self._levels[0].shape)

    @classmethod
    def create(
        cls,
        path: Path,
        part: Part,
        plane_shape: tuple[int, ...],
        dtype: DTypeLike,
        *,
        version: str = VERSIONS[0],
        block: int | None = None,
        labels: bool = True,
        attributes: Mapping[str, Any] | None = None,
    ) -> OmeZarr:
        """Make the folder; what was there is replaced.

        Parameters
        ----------
        part
            The planes to come: their axes and pixel sizes.
        plane_shape
            Height and width.
        version
            Of the format, one of `VERSIONS`.
        block
            Side of the squares that planes are written in, a power of two; None for whole planes.
        labels
            Whether smaller copies show every second pixel, and not means of four.
        attributes
            More to store beside the format's own.

        Raises
        ------
        InputError
            If there is no such version.
        """
        import zarr

        if version not in VERSIONS:
            raise InputError(
                f"OME-Zarr {version!r} is not written. Valid are {' and '.join(VERSIONS)}."
            )
        shutil.rmtree(path, ignore_errors=True)
        form: Literal[2, 3] = 3 if version == "0.5" else 2
        group = zarr.open_group(str(path), mode="w", zarr_format=form)
        flat, sizes = output_axes(part)
        axes = _ordered(flat)
        leading = tuple(sizes[flat.index(axis)] for axis in axes)
        shapes = list(_pyramid((plane_shape[0], plane_shape[1]), block))
        for level, shape in enumerate(shapes):
            side = CHUNK if block is None else min(CHUNK, max(block >> level, 1))
            group.create_array(
                str(level),
                shape=(*leading, *shape),
                chunks=(*(1 for _ in leading), *(min(side, size) for size in shape)),
                dtype=np.dtype(dtype),
                fill_value=0,
                chunk_key_encoding={"name": "default" if form == 3 else "v2", "separator": "/"},
                dimension_names=[a.lower() for a in axes + "YX"] if form == 3 else None,
            )
        described = _multiscale(axes + "YX", part, len(shapes), labels=labels)
        if version == "0.4":
            group.attrs.update({"multiscales": [{"version": "0.4", **described}]})
        else:
            group.attrs.update({"ome": {"version": version, "multiscales": [described]}})
        if attributes:
            group.attrs.update(dict(attributes))
        return cls(path, part, group, labels=labels)

    @classmethod
    def open(cls, path: Path, part: Part, *, labels: bool = True) -> OmeZarr:
        """Open what `create` made for the same planes, to write to it or read from it."""
        import zarr

        return cls(path, part, zarr.open_group(str(path), mode="r+"), labels=labels)

    def write(
        self,
        plane: int,
        data: NDArray[Any],
        corner: tuple[int, int] = (0, 0),
        *,
        durable: bool = False,
    ) -> None:
        """Write a plane, or a block of it, in all sizes.

        Parameters
        ----------
        plane
            Its number, as the source counts.
        data
            HxW.
        corner
            Row and column of the block's first pixel: multiples of the block's side.
        durable
            Wait until the disk has it, so that it outlasts a power cut.
        """
        where = self._position(plane)
        row, column = corner
        for level, array in enumerate(self._levels):
            if level:
                data = data[::2, ::2] if self._labels else _halved(data)
                row, column = row // 2, column // 2
            height, width = data.shape
            place: Index = (*where, slice(row, row + height), slice(column, column + width))
            array[place] = data
            if durable:
                sync_chunks(self.path / str(level), array, place)

    def read(
        self, plane: int, rows: slice = slice(None), columns: slice = slice(None)
    ) -> NDArray[Any]:
        """Read a plane at full resolution, or a part of it."""
        place: Index = (*self._position(plane), rows, columns)
        return np.asarray(self._levels[0][place])

    def _position(self, plane: int) -> tuple[int, ...]:
        # Of no leading axes, unravelling 0 gives the empty position.
        place = dict(zip(self._axes, np.unravel_index(plane, self._sizes), strict=True))
        return tuple(int(place[axis]) for axis in self.axes[:-2])


def sync_chunks(folder: Path, array: zarr.Array[Any], place: Index) -> None:
    """Wait until the disk has the chunks of an array in a folder that lie at a place."""
    spans = [
        range(p, p + 1) if isinstance(p, int) else range(*p.indices(length))
        for p, length in zip(place, array.shape, strict=True)
    ]
    chunks = [
        range(span.start // side, (span.stop - 1) // side + 1)
        for span, side in zip(spans, array.chunks, strict=True)
    ]
    for position in itertools.product(*chunks):
        key = array.metadata.encode_chunk_key(position)
        # Chunks of nothing but zeros have no file.
        with suppress(FileNotFoundError), (folder / key).open("rb") as file:
            os.fsync(file.fileno())


def output_axes(part: Part) -> tuple[str, tuple[int, ...]]:
    """Names and sizes of the axes beside YX: time and depth stay, others become depth."""
    if set(part.axes) <= {"T", "Z"}:
        return part.axes, part.shape
    return "Z", (part.count,)


def known_scale(part: Part) -> dict[str, tuple[float, str]]:
    """Pixel sizes in units that files have words for."""
    units = UNITS.values()
    return {axis: size for axis, size in part.scale.items() if axis in "TXYZ" and size[1] in units}


def _ordered(axes: str) -> str:
    return "".join(axis for axis in "TZ" if axis in axes)


def _pyramid(shape: tuple[int, int], block: int | None) -> list[tuple[int, int]]:
    """Shapes of the levels, each half the one before."""
    shapes = [shape]
    # A block's smaller copies must stay chunks of their own, and not become crumbs.
    most = 64 if block is None else max(block // _LEAST_CHUNK, 1).bit_length()
    while max(shapes[-1]) > SMALLEST and len(shapes) < most:
        height, width = shapes[-1]
        shapes.append(((height + 1) // 2, (width + 1) // 2))
    return shapes


def _halved(data: NDArray[Any]) -> NDArray[Any]:
    """Means of two by two pixels; the last row and column count twice if there is an odd one."""
    height, width = data.shape
    even = np.pad(data, ((0, height % 2), (0, width % 2)), mode="edge")
    quarters = even.reshape(even.shape[0] // 2, 2, even.shape[1] // 2, 2)
    return np.asarray(quarters.mean((1, 3)), data.dtype)


def _multiscale(axes: str, part: Part, levels: int, *, labels: bool) -> dict[str, Any]:
    scale = known_scale(part)
    words = {short: word for word, short in UNITS.items()}
    described: list[dict[str, str]] = []
    for axis in axes:
        entry = {"name": axis.lower(), "type": "time" if axis == "T" else "space"}
        if axis in scale:
            entry["unit"] = words[scale[axis][1]]
        described.append(entry)
    sizes = [scale[axis][0] if axis in scale else 1.0 for axis in axes]
    datasets = []
    for level in range(levels):
        steps = [2**level if axis in "YX" else 1 for axis in axes]
        moves: list[dict[str, Any]] = [
            {"type": "scale", "scale": [s * n for s, n in zip(sizes, steps, strict=True)]}
        ]
        if level and not labels:
            # Means of pixels lie between them.
            shift = [s * (n - 1) / 2 for s, n in zip(sizes, steps, strict=True)]
            moves.append({"type": "translation", "translation": shift})
        datasets.append({"path": str(level), "coordinateTransformations": moves})
    return {"name": part.key, "axes": described, "datasets": datasets}
