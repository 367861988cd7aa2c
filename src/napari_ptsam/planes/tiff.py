"""TIFF, OME-TIFF and ImageJ files, read page by page."""

from __future__ import annotations

import math
import threading
import weakref
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import numpy as np
import tifffile
from numpy.typing import NDArray

from napari_ptsam.errors import InputError
from napari_ptsam.planes.layout import Index
from napari_ptsam.planes.part import Scale, usable_scale
from napari_ptsam.planes.stored import Stored


def open_tiff(path: Path, *, alone: bool = True) -> Stored:
    """Open the image of a TIFF file.

    Parameters
    ----------
    path
        The file. It stays open until the result is no longer in use.
    alone
        Whether an OME-TIFF of several files may take planes from its sister files.
    """
    file = tifffile.TiffFile(path, _multifile=alone)
    try:
        series = _main_series(path, file)
        names, scale = _metadata(file)
        pages = _Pages(path, file, series)
    except BaseException:
        file.close()
        raise
    axes = _named_axes(series)
    # Q stands for "unknown"; a single one that counts pages is as good as depth.
    unclear = "Q" in axes[1:] or len(set(axes)) < len(axes)
    known = not unclear and {"Y", "X"} <= set(axes)
    return Stored(
        str(path), series.shape, series.dtype, pages, axes if known else None, names, scale
    )


_LARGE_PAGE = 16_000_000
"""Bytes; smaller ones are decoded as a whole."""


class _Pages:
    """Reads pieces of a series, decoding only the pages they lie on."""

    def __init__(
        self, path: Path, file: tifffile.TiffFile, series: tifffile.TiffPageSeries
    ) -> None:
        self._series = series
        self._handle = file.filehandle
        self._lock = threading.Lock()
        self._dtype = series.dtype.newbyteorder(file.byteorder)
        # A page holds the innermost axes; the outer ones count pages.
        outer = next(
            (n for n in range(series.ndim) if math.prod(series.shape[n:]) == series.keyframe.size),
            0,
        )
        self._inner = series.shape[outer:]
        self._numbers = np.arange(math.prod(series.shape[:outer])).reshape(series.shape[:outer])
        # ImageJ writes stacks beyond 4 GB as one page with all the rest behind it.
        self._offset = series.dataoffset if series.is_truncated else None
        if self._offset is None and self._numbers.size != len(series):
            raise InputError(
                f"{path} says it has the shape {series.shape} but holds {len(series)} pages. "
                "Open it in Fiji and save it again as TIFF."
            )
        weakref.finalize(self, file.close)

    def __call__(self, index: Index) -> NDArray[Any]:
        outer = self._numbers.ndim
        numbers = np.asarray(self._numbers[index[:outer]])
        with self._lock:
            pages = [self._part(int(number), index[outer:]) for number in numbers.flat]
        return np.stack(pages).reshape(numbers.shape + pages[0].shape)

    def _part(self, number: int, index: Index) -> NDArray[Any]:
        """Of a large page only the tiles or strips that are asked for are decoded."""
        page = None if self._offset is not None else self._series[number]
        whole = all(part == slice(None) for part in index)
        if whole or page is None or page.nbytes < _LARGE_PAGE or page.shape != self._inner:
            return self._page(number)[index]
        if page.parent.filehandle.closed:
            return self._page(number)[index]
        if page.is_memmappable:
            # A map that stays open would let all that was read add up in resident memory.
            path, offset = page.parent.filehandle.path, page.dataoffsets[0]
            mapped = np.memmap(path, self._dtype, mode="r", offset=offset, shape=page.shape)
            return np.array(mapped[index])
        import zarr

        tiles = zarr.open_array(page.aszarr(), mode="r")
        return np.asarray(tiles[index])

    def _page(self, number: int) -> NDArray[Any]:
        if self._offset is not None:
            count = math.prod(self._inner)
            start = self._offset + number * count * self._dtype.itemsize
            data = self._handle.read_array(self._dtype, count, start)
        else:
            page = self._series[number]
            if page is None:
                raise InputError(f"{self._handle.name} lacks its plane {number}.")
            data = _decode(page)
        return np.asarray(data).reshape(self._inner)


def _decode(page: tifffile.TiffPage | tifffile.TiffFrame) -> NDArray[Any]:
    handle = page.parent.filehandle
    if not handle.closed:
        return page.asarray()
    # A sister file of an OME-TIFF of several files; they are not all kept open.
    handle.open()
    try:
        return page.asarray()
    finally:
        handle.close()


def _main_series(path: Path, file: tifffile.TiffFile) -> tifffile.TiffPageSeries:
    """Take the first image; refuse a file with others that are not mere thumbnails."""
    if not file.series:
        raise InputError(f"{path} holds no image.")
    first = file.series[0]
    rivals = [other for other in file.series if 2 * other.keyframe.size >= first.keyframe.size]
    if len(rivals) > 1:
        shapes = ", ".join(str(series.shape) for series in rivals[:5])
        raise InputError(
            f"{path} holds {len(rivals)} images of different kind or size ({shapes}). Save each "
            "as a file of its own and give the folder."
        )
    return first


def _named_axes(series: tifffile.TiffPageSeries) -> str:
    """The axes as tifffile names them, but samples that are no picture's are channels."""
    page, axes = series.keyframe, series.axes
    channels = page.samplesperpixel == 2 or (
        page.samplesperpixel == 4 and page.photometric not in _COLOURS
    )
    alpha = page.extrasamples and page.extrasamples[-1] != tifffile.EXTRASAMPLE.UNSPECIFIED
    # As samples of a picture, the last of two or four would be dropped as its alpha.
    if channels and not alpha and "C" not in axes:
        return axes.replace("S", "C")
    return axes


_COLOURS = (tifffile.PHOTOMETRIC.RGB, tifffile.PHOTOMETRIC.YCBCR)


def _metadata(file: tifffile.TiffFile) -> tuple[tuple[str, ...], Scale]:
    """Read channel names and pixel sizes, as far as the file states them."""
    if file.ome_metadata:
        return _ome_metadata(file.ome_metadata)
    if file.imagej_metadata:
        return (), usable_scale(dict(_imagej_scale(file.imagej_metadata, file.pages.first)))
    return (), {}


def _ome_metadata(text: str) -> tuple[tuple[str, ...], Scale]:
    try:
        root = ElementTree.fromstring(text)
    except ElementTree.ParseError:
        return (), {}
    pixels = root.find(".//{*}Pixels")
    if pixels is None:
        return (), {}
    names = tuple(channel.get("Name", "") for channel in pixels.iterfind("{*}Channel"))
    words = {axis: f"PhysicalSize{axis}" for axis in "XYZ"} | {"T": "TimeIncrement"}
    stated = {
        axis: (pixels.get(word), pixels.get(f"{word}Unit", "s" if axis == "T" else "µm"))
        for axis, word in words.items()
    }
    return names, usable_scale(stated)


def _imagej_scale(
    metadata: dict[str, Any], page: tifffile.TiffPage | tifffile.TiffFrame
) -> Iterator[tuple[str, tuple[Any, str]]]:
    unit = str(metadata.get("unit", ""))
    unit = "µm" if unit in ("micron", "microns", "um", "\\u00B5m", "µm") else unit
    if unit in ("", "pixel", "pixels"):
        return
    for axis, tag in (("X", "XResolution"), ("Y", "YResolution")):
        value = page.tags.get(tag) if isinstance(page, tifffile.TiffPage) else None
        if value is not None and 0 not in value.value:
            pixels, units = value.value
            yield axis, (units / pixels, unit)
    yield "Z", (metadata.get("spacing"), unit)
