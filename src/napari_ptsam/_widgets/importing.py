"""Masks that exist as files, taken over as annotations."""

from __future__ import annotations

from collections.abc import Generator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from napari_ptsam.errors import InputError
from napari_ptsam.labels import read_labels
from napari_ptsam.planes import open_planes


@dataclass(frozen=True)
class ImportedPlane:
    """A mask that was read.

    Attributes
    ----------
    index
        Plane that it belongs to.
    labels
        HxW, 0 where there is none.
    done, total
        How many masks of how many were read.
    """

    index: int
    labels: NDArray[np.int64]
    done: int
    total: int


def import_masks(
    path: Path, *, count: int, size: tuple[int, int], in_view: int | None, largest: int
) -> Generator[ImportedPlane, None, int]:
    """Read label images for the planes of an image.

    Parameters
    ----------
    path
        A stack with one mask for each plane, a folder of as many, or a single mask, which is
        for the plane in view.
    count, size
        Number, height and width of the image's planes.
    in_view
        The plane in view, None if no single one is.
    largest
        The largest label that can be stored; beyond it labels are numbered anew.

    Yields
    ------
    ImportedPlane
        Planes with any paint.

    Returns
    -------
    int
        How many had paint.

    Raises
    ------
    InputError
        If the masks do not belong to the image.
    """
    masks = open_planes(path)
    if len(masks) == count:
        numbers = range(count)
    elif len(masks) == 1 and in_view is not None:
        numbers = range(in_view, in_view + 1)
    else:
        raise InputError(
            f"{path} has {len(masks)} masks, but the image has {count} planes. Choose a stack or "
            "folder with one mask for each plane, empty where there is none; or a single mask, "
            "which is put on the plane in view."
        )
    found = 0
    for done, index in enumerate(numbers, start=1):
        labels = read_labels(masks, done - 1)
        if labels.shape != size:
            raise InputError(
                f"The mask {masks.describe(done - 1)} has {labels.shape[0]} x {labels.shape[1]} "
                f"pixels, but the image has {size[0]} x {size[1]}. Save it at the image's size."
            )
        if labels.max() > largest:
            labels = np.unique(labels, return_inverse=True)[1].reshape(size)
        if labels.any():
            found += 1
            yield ImportedPlane(index, labels, done, len(masks))
    return found
