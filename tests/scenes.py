"""Small annotated images on which the engine's tests train and predict."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from napari_ptsam.examples import Example


def example(
    image: NDArray[np.float32],
    mask: NDArray[np.bool_],
    key: str = "0",
    valid: NDArray[np.bool_] | None = None,
) -> Example:
    """Example of an HxW grey image."""
    pixels = np.repeat(image.astype(np.float32)[..., None], 3, 2)
    everywhere = np.ones(mask.shape, bool)
    return Example(key, pixels, mask, everywhere if valid is None else valid, None)


def disc(shape: tuple[int, int], centre: tuple[float, float], radius: float) -> NDArray[np.bool_]:
    rows, columns = np.ogrid[: shape[0], : shape[1]]
    return np.asarray((rows - centre[0]) ** 2 + (columns - centre[1]) ** 2 <= radius**2)


def bright_discs(count: int, radius: float = 7.0) -> list[Example]:
    """Images of 64x64 with three bright discs on dark, noisy ground: an easy task."""
    found = []
    for number in range(count):
        rng = np.random.default_rng([7, number])
        mask = np.zeros((64, 64), bool)
        for centre in rng.uniform(10, 54, (3, 2)):
            mask |= disc(mask.shape, (centre[0], centre[1]), radius * rng.uniform(0.7, 1.3))
        image = np.clip(40 + 170 * mask + rng.normal(0, 10, mask.shape), 0, 255)
        found.append(example(image, mask, key=f"{number:02d}"))
    return found


def noise(shape: tuple[int, int], seed: int = 0) -> NDArray[np.float32]:
    """HxWx3 grey image of noise, 0..255."""
    grey = np.random.default_rng(seed).uniform(0, 255, (*shape, 1)).astype(np.float32)
    return np.repeat(grey, 3, 2)
