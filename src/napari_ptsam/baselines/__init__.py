"""What users would pick instead of a specialist, all behind one protocol.

Nothing here uses a pre-trained model; each learns from the user's images alone.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from napari_ptsam.errors import InputError


class Predictor(Protocol):
    """What a baseline has learned."""

    @property
    def parameters(self) -> int | None:
        """How many numbers were trained; None where that means nothing or is not known."""

    @property
    def nbytes(self) -> int | None:
        """Bytes of what was learned, as it would be stored; None where that is not known."""

    def __call__(self, image: NDArray[np.float32]) -> NDArray[np.float32]:
        """An image, HxWx3 of 0..255, to the probability of the object, HxW of 0..1."""


class Baseline(Protocol):
    """Something that learns to segment from images and masks."""

    @property
    def name(self) -> str:
        """Short name for tables."""

    @property
    def missing(self) -> str | None:
        """What has to be installed before it runs here, in words; None if nothing."""

    def fit(
        self,
        images: Sequence[NDArray[np.float32]],
        masks: Sequence[NDArray[np.bool_]],
        seed: int,
    ) -> Predictor:
        """Learn.

        Parameters
        ----------
        images
            HxWx3 float32, 0..255, normalised as for a specialist.
        masks
            HxW, True on the object.
        seed
            Of all that is random, as far as it can be set.

        Raises
        ------
        InputError
            If something is `missing`, or images and masks do not fit together.
        """


def check_pairs(name: str, images: Sequence[object], masks: Sequence[object]) -> None:
    """Raise `InputError` unless there are images, and as many masks."""
    if not images or len(images) != len(masks):
        raise InputError(f"{name} got {len(images)} images and {len(masks)} masks; give as many.")


__all__ = ["Baseline", "Predictor", "check_pairs"]
