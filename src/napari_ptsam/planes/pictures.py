"""PNG, JPEG and BMP files."""

from __future__ import annotations

import struct
from pathlib import Path
from typing import Any

import imagecodecs
import numpy as np
from numpy.typing import NDArray
from PIL import Image

from napari_ptsam.errors import InputError
from napari_ptsam.planes.stored import Stored

PICTURES = (".png", ".jpg", ".jpeg", ".bmp")
"""Suffixes of the files that hold exactly one picture."""

_PNG_HEADER = struct.Struct(">8s4x4sIIBB")
_PALETTE = 3


def open_picture(path: Path) -> Stored:
    """Open a PNG, JPEG or BMP file and decode it."""
    suffix = path.suffix.lower()
    labels = None
    if suffix == ".png":
        if _png_header(path)[2] == _PALETTE:
            labels = lambda: _palette_indices(path)  # noqa: E731
        data = imagecodecs.png_decode(path.read_bytes())
    elif suffix == ".bmp":
        data = imagecodecs.bmp_decode(path.read_bytes())
    else:
        data = _decode_jpeg(path)
    axes = "YXS"[: data.ndim]
    return Stored(str(path), data.shape, data.dtype, data.__getitem__, axes, labels=labels)


def picture_shape(path: Path) -> tuple[int, int]:
    """Height and width of a picture, from the header where that is simple."""
    if path.suffix.lower() == ".png":
        return _png_header(path)[:2]
    height, width = open_picture(path).shape[:2]
    return height, width


def _png_header(path: Path) -> tuple[int, int, int]:
    """Height, width and colour type."""
    with path.open("rb") as file:
        head = file.read(_PNG_HEADER.size)
    if len(head) < _PNG_HEADER.size or not head.startswith(b"\x89PNG"):
        raise InputError(f"{path} is not a PNG file, whatever its name says.")
    _, _, width, height, _, colour_type = _PNG_HEADER.unpack(head)
    return height, width, colour_type


def _palette_indices(path: Path) -> NDArray[Any]:
    with Image.open(path) as picture:
        return np.asarray(picture)


def _decode_jpeg(path: Path) -> NDArray[Any]:
    data = path.read_bytes()
    # libjpeg fills what is missing with grey, without an error.
    if b"\xff\xd9" not in data[-4096:]:
        raise InputError(f"{path} is cut off: it ends before its picture does. Copy it again.")
    pixels: NDArray[Any] = imagecodecs.jpeg_decode(data)
    if pixels.ndim == 3 and pixels.shape[2] == 4:
        raise InputError(f"{path} is in CMYK, a format for printing. Save it as RGB.")
    return pixels
