"""One embedding in one file: a zarr array in a zip archive.

The levels of the embedding, float16, stand one after the other: reading one array takes a
third of the time of three. The attributes say their shapes and what it is. Any reader of zarr
opens it. The archive has a checksum of every part, which is compared whenever a part is read.
"""

from __future__ import annotations

import math
import uuid
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import zarr
from numpy.typing import NDArray
from zarr.codecs import BloscCodec
from zarr.storage import ZipStore

from napari_ptsam.errors import InputError

FORMAT = "napari-ptsam embedding 1"
SUFFIX, UNFINISHED = ".zarr.zip", ".part"


@dataclass(frozen=True)
class Kept:
    """An embedding as it is kept.

    Attributes
    ----------
    levels
        Dxhxw float16, see `napari_ptsam.backbones.Embedding`.
    seconds
        What the encoder took.
    """

    levels: Sequence[NDArray[np.float16]]
    seconds: float


def read_entry(path: Path, key: str) -> Kept:
    """Read a file whole.

    Raises
    ------
    OSError
        If the file cannot be opened.
    Exception
        Of zipfile, zarr or its codecs, if it is damaged.
    """
    with ZipStore(path, mode="r") as store:
        array = zarr.open_array(store, mode="r", zarr_format=3)
        facts: dict[str, Any] = array.attrs.asdict()
        if (facts.get("format"), facts.get("key")) != (FORMAT, key):
            raise InputError(f"{path} is not the embedding {key}, or of another version.")
        numbers = np.asarray(array[...], np.float16)
    shapes = [tuple(shape) for shape in facts["shapes"]]
    ends = np.cumsum([math.prod(shape) for shape in shapes])
    parts = np.split(numbers, ends[:-1])
    levels = [part.reshape(shape) for part, shape in zip(parts, shapes, strict=True)]
    return Kept(levels, float(facts["seconds"]))


def write_entry(path: Path, key: str, kept: Kept) -> int:
    """Write a file so that it is there whole or not at all; returns its size in bytes.

    Of two writers of one file the last wins, and both wrote the same.

    Raises
    ------
    OSError
        If it cannot be written.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    unfinished = path.with_name(f".{key}.{uuid.uuid4().hex}{UNFINISHED}")
    try:
        _write(unfinished, key, kept)
        size = unfinished.stat().st_size
        unfinished.replace(path)
    except BaseException:
        with suppress(OSError):
            unfinished.unlink()
        raise
    return size


def _write(path: Path, key: str, kept: Kept) -> None:
    # The lowest level: of noise, more work saves nothing more.
    codec = BloscCodec(cname="lz4", clevel=1, shuffle="bitshuffle", typesize=2)
    facts: dict[str, Any] = {
        "format": FORMAT,
        "key": key,
        "shapes": [list(level.shape) for level in kept.levels],
        "seconds": kept.seconds,
    }
    numbers = np.concatenate([level.ravel() for level in kept.levels])
    with ZipStore(path, mode="w") as store:
        zarr.create_array(
            store,
            data=numbers,
            chunks=numbers.shape,
            compressors=codec,
            zarr_format=3,
            attributes=facts,
        )
