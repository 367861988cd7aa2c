"""An array as it lies in a file or in memory, readable in pieces."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from napari_ptsam.errors import InputError
from napari_ptsam.planes.layout import Index
from napari_ptsam.planes.part import Scale


@dataclass(frozen=True)
class Stored:
    """An array that is read in pieces.

    Attributes
    ----------
    name
        What to call it in messages.
    shape, dtype
        Of the whole array.
    read
        Gives what lies at an index of one integer or slice per axis.
    axes
        One letter per axis, None where the file does not say.
    channel_names, scale
        What the file says about channels and pixel sizes.
    labels
        Reads the HxW labels of a palette picture, whose `read` gives its colours.
    """

    name: str
    shape: tuple[int, ...]
    dtype: np.dtype[Any]
    read: Callable[[Index], NDArray[Any]]
    axes: str | None = None
    channel_names: tuple[str, ...] = ()
    scale: Scale = field(default_factory=dict)
    labels: Callable[[], NDArray[Any]] | None = None

    def __post_init__(self) -> None:
        if self.dtype.kind not in "buif":
            kind = "complex numbers" if self.dtype.kind == "c" else f"the type {self.dtype}"
            advice = "its magnitude (numpy.abs)" if self.dtype.kind == "c" else "it as numbers"
            raise InputError(
                f"{self.name} holds {kind}, which are not grey values. Valid are integers, "
                f"floating-point numbers and booleans; save {advice}."
            )


def stored_array(name: str, array: Any) -> Stored:
    """Wrap an array-like (NumPy, Dask, Zarr); planes are computed when they are read."""
    missing = [key for key in ("shape", "dtype", "__getitem__") if not hasattr(array, key)]
    if missing:
        raise InputError(
            f"{type(array).__name__} is not an image source. Valid are a path to a folder or "
            "file, and arrays (NumPy, Dask, Zarr); stack a list of images with numpy.stack."
        )

    def read(index: Index) -> NDArray[Any]:
        return np.asarray(array[index])

    shape = tuple(int(size) for size in array.shape)
    return Stored(name, shape, np.dtype(array.dtype), read)


def open_npy(path: Path) -> Stored:
    """Open a NumPy file; each plane is copied from a short-lived memory map."""

    def read(index: Index) -> NDArray[Any]:
        # A map that stays open would let the whole stack add up in resident memory.
        return np.array(np.load(path, mmap_mode="r", allow_pickle=False)[index])

    array = np.load(path, mmap_mode="r", allow_pickle=False)
    return Stored(str(path), array.shape, array.dtype, read)
