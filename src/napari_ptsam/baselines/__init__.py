"""What users would pick instead of a specialist, all behind one protocol.

Nothing here uses a pre-trained model; each learns from the user's images alone.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

Predictor = Callable[[NDArray[np.float32]], NDArray[np.float32]]
"""An image, HxWx3 of 0..255, to the probability of the object, HxW of 0..1."""


class Baseline(Protocol):
    """Something that learns to segment from images and masks."""

    @property
    def name(self) -> str:
        """Short name for tables."""

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
        """


__all__ = ["Baseline", "Predictor"]
