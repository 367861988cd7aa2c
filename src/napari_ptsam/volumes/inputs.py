"""What tells one input of a job from another, cheap also for the largest."""

from __future__ import annotations

import math
import os
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import xxhash

from napari_ptsam.planes import Planes, list_images
from napari_ptsam.planes.zarrs import is_zarr

if TYPE_CHECKING:
    import zarr

_SAMPLES = 5
"""Planes of which pixels are looked at."""

_CHUNKS = 10_000
"""Chunk files that are looked at: about a second on a disk, some seconds over a network."""


def input_identity(planes: Planes) -> dict[str, Any]:
    """Shape, a sample of the pixels, and the state of the files.

    The same data under another name are the same input.
    """
    digest = xxhash.xxh3_128()
    for index in np.unique(np.linspace(0, len(planes) - 1, _SAMPLES).round().astype(int)):
        height, width = planes.shape_of(int(index))
        rows, columns = (slice(n // 2 - min(n, 256) // 2, n // 2 + 128) for n in (height, width))
        window = planes.read_window(int(index), rows, columns)
        digest.update(f"{index} {window.shape} {window.dtype}".encode())
        digest.update(np.ascontiguousarray(window).data)
    part = planes.parts[0]
    return {
        "planes": len(planes),
        "axes": part.axes,
        "plane": list(planes.shape_of(0)),
        "scale": {axis: list(size) for axis, size in sorted(part.scale.items())},
        "names": xxhash.xxh3_64_hexdigest("\n".join(planes.keys).encode()),
        "sizes and times of files": _state_of(planes),
        "pixels": digest.hexdigest(),
    }


def _state_of(planes: Planes) -> list[int] | str | None:
    """Size and time of change of the files: an edited file is another input."""
    path = planes.parts[0].path
    if path is None:
        return None
    if path.is_file():
        return _size_and_time(path)
    digest = xxhash.xxh3_128()
    if is_zarr(path):
        folder, array = max(_arrays(path), key=lambda found: found[1].size)
        for name in (".zarray", "zarr.json"):
            if (folder / name).is_file():
                digest.update((folder / name).read_bytes())
        files = _chunks(folder, array)
    else:
        # A plane's key is its file's, or begins with it.
        keys = {k for key in planes.keys for k in (key, key.rpartition("/")[0])}
        files = (file for key, file in list_images(path) if key in keys)
    for file in files:
        digest.update(os.fsencode(file.relative_to(path).as_posix()))
        digest.update(str(_size_and_time(file)).encode())
    return digest.hexdigest()


def _size_and_time(path: Path) -> list[int] | None:
    try:
        status = path.stat()
    except FileNotFoundError:  # chunks of nothing but the fill value have no file
        return None
    return [status.st_size, status.st_mtime_ns]


def _arrays(folder: Path) -> Iterator[tuple[Path, zarr.Array[Any]]]:
    """All arrays below a Zarr folder, of which the largest is the image, but for its labels.

    These are left out because results may be kept there.
    """
    import zarr

    node = zarr.open(str(folder), mode="r")
    if isinstance(node, zarr.Array):
        yield folder, node
        return
    for child in sorted(folder.iterdir()):
        if child.name != "labels" and is_zarr(child):
            yield from _arrays(child)


def _chunks(folder: Path, array: zarr.Array[Any]) -> Iterator[Path]:
    """The files of an array's chunks; of very many a part, spread evenly."""
    sides = array.shards or array.chunks
    grid = [-(-size // side) for size, side in zip(array.shape, sides, strict=True)]
    total = math.prod(grid)
    count = min(total, _CHUNKS)
    for number in range(count):
        place = np.unravel_index(number * total // count, grid)
        yield folder / array.metadata.encode_chunk_key(tuple(int(n) for n in place))
