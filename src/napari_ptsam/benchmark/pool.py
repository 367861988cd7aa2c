"""Annotated images under their names: what splits are drawn from and trainings read."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from napari_ptsam.errors import InputError
from napari_ptsam.examples import find_image
from napari_ptsam.labels import read_labels
from napari_ptsam.planes import Planes, open_planes


@dataclass(frozen=True)
class Annotated:
    """An image as it is stored, and its mask HxW."""

    key: str
    image: NDArray[Any]
    truth: NDArray[np.bool_]


@dataclass(frozen=True)
class Pool:
    """Images that have masks.

    Attributes
    ----------
    images, masks
        Folders, paired by file name, or stacks, paired by position.
    label
        Value of the object in the masks; None for any above 0.
    """

    images: Planes
    masks: Planes
    label: int | None = None

    @classmethod
    def open(cls, images: Path, masks: Path, label: int | None = None) -> Pool:
        """Open two folders or stacks; nothing is read yet.

        Raises
        ------
        InputError
            If they cannot be opened, or no image has a mask.
        """
        pool = cls(open_planes(images), open_planes(masks), label)
        if not pool.keys:
            raise InputError(
                f"No image in {images} has a mask in {masks}. A mask has the name of its image, "
                "or stands at the same place in a stack of as many planes."
            )
        return pool

    @property
    def keys(self) -> list[str]:
        """Names of all annotated images in plain order, however a folder is listed."""
        return sorted(self._mask_of)

    @cached_property
    def _mask_of(self) -> dict[str, int]:
        """Number of the mask by the image's key."""
        if self.images.kind != "folder" or self.masks.kind != "folder":
            same = len(self.images) == len(self.masks)
            return {key: i for i, key in enumerate(self.images.keys)} if same else {}
        numbers = {key: i for i, key in enumerate(self.images.keys)}
        found = ((find_image(key, numbers), i) for i, key in enumerate(self.masks.keys))
        return {self.images.keys[image]: mask for image, mask in found if image is not None}

    @cached_property
    def _number_of(self) -> dict[str, int]:
        return {key: i for i, key in enumerate(self.images.keys)}

    def numbers(self, keys: Sequence[str]) -> list[int]:
        """Plane numbers of images by name, in plain order.

        Raises
        ------
        InputError
            If one is not there or has no mask.
        """
        missing = [key for key in keys if key not in self._mask_of]
        if missing:
            raise InputError(
                f"{len(missing)} of the images that the split names are not in "
                f"{self.images.name} with a mask: {', '.join(missing[:5])}. Fetch the data set "
                "again, or draw new splits by removing the split file."
            )
        return sorted(self._number_of[key] for key in keys)

    def read(self, key: str) -> Annotated:
        """Read one image and its mask.

        Raises
        ------
        InputError
            If they cannot be read, or differ in size.
        """
        (number,) = self.numbers([key])
        image = self.images.read(number)
        labels = read_labels(self.masks, self._mask_of[key], numbered=self.label is not None)
        if image.shape[:2] != labels.shape:
            raise InputError(
                f"{self.images.describe(number)} has {image.shape[:2]} pixels (rows, columns), "
                f"but its mask {labels.shape}."
            )
        return Annotated(key, image, labels > 0 if self.label is None else labels == self.label)
