"""Random fields and shapes that all procedural scenes are made of.

Every function takes its random generator as an argument, so that a scene is a
pure function of its seed. Fields are float32; lengths are in pixels.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

Field = NDArray[np.float32]
Mask = NDArray[np.bool_]


def smooth_noise(rng: np.random.Generator, shape: tuple[int, int], scale: float) -> Field:
    """Gaussian noise with features of about `scale` pixels, zero mean, unit SD.

    Drawn on a coarse grid and interpolated, so that the cost does not grow
    with `scale`.
    """
    step = max(scale / 2.0, 1.0)
    coarse = tuple(int(np.ceil(s / step)) + 4 for s in shape)
    grid = rng.standard_normal(coarse, dtype=np.float32)
    if step > 1.0:
        zoom = [(s + 2 * step) / (c - 1) for s, c in zip(shape, coarse, strict=True)]
        grid = ndimage.zoom(grid, [max(z, 1.0) for z in zoom], order=3, mode="nearest")
    else:
        grid = ndimage.gaussian_filter(grid, scale / 2.0)
    y, x = (int(rng.integers(0, g - s + 1)) for g, s in zip(grid.shape, shape, strict=True))
    field = grid[y : y + shape[0], x : x + shape[1]]
    return np.asarray((field - field.mean()) / (field.std() + 1e-6), dtype=np.float32)


def fractal_noise(
    rng: np.random.Generator,
    shape: tuple[int, int],
    scale: float,
    octaves: int = 4,
    persistence: float = 0.5,
) -> Field:
    """Sum of `smooth_noise` at halving scales, zero mean, unit SD."""
    total = np.zeros(shape, np.float32)
    weight = 1.0
    for octave in range(octaves):
        size = scale / 2**octave
        if size < 0.7:
            break
        total += weight * smooth_noise(rng, shape, size)
        weight *= persistence
    return np.asarray((total - total.mean()) / (total.std() + 1e-6), dtype=np.float32)


def star_shape(
    rng: np.random.Generator,
    shape: tuple[int, int],
    centre: tuple[float, float],
    radius: float,
    *,
    elongation: float = 1.0,
    angle: float = 0.0,
    roughness: float = 0.1,
    harmonics: int = 6,
) -> tuple[tuple[slice, slice], Field]:
    """Window and signed distance-like level of one star-convex blob.

    The level is 1 at the centre, 0 on the outline and negative outside, so
    `level > 0` is the object's mask and `level` itself shades it.

    Parameters
    ----------
    elongation
        Ratio of the long to the short axis; the area stays that of `radius`.
    roughness
        Relative amplitude of the outline's random harmonics.

    Returns
    -------
    tuple
        Slices of the canvas (clipped to it, possibly empty) and the level in
        that window.
    """
    long, short = radius * np.sqrt(elongation), radius / np.sqrt(elongation)
    reach = int(np.ceil(long * (1 + 3 * roughness))) + 2
    cy, cx = centre
    y0, y1 = max(int(cy) - reach, 0), min(int(cy) + reach + 1, shape[0])
    x0, x1 = max(int(cx) - reach, 0), min(int(cx) + reach + 1, shape[1])
    window = (slice(y0, max(y1, y0)), slice(x0, max(x1, x0)))
    yy = np.arange(y0, max(y1, y0), dtype=np.float32)[:, None] - cy
    xx = np.arange(x0, max(x1, x0), dtype=np.float32)[None, :] - cx
    u = (np.cos(angle) * xx + np.sin(angle) * yy) / long
    v = (-np.sin(angle) * xx + np.cos(angle) * yy) / short
    theta = np.arctan2(v, u)
    outline = np.ones_like(theta)
    for k in range(2, 2 + harmonics):
        amplitude = roughness * rng.standard_normal() / k**0.7
        outline += amplitude * np.cos(k * theta + rng.uniform(0, 2 * np.pi))
    return window, np.asarray(1.0 - np.hypot(u, v) / np.maximum(outline, 0.3), dtype=np.float32)


def scatter(
    rng: np.random.Generator,
    shape: tuple[int, int],
    spacing: float,
    *,
    tries: int = 400,
    limit: int = 400,
    margin: float = 0.0,
) -> list[tuple[float, float]]:
    """Random centres (y, x) that keep at least `spacing` pixels from each other."""
    points: list[tuple[float, float]] = []
    kept = np.empty((0, 2))
    candidates = rng.uniform(
        [-margin, -margin], [shape[0] + margin, shape[1] + margin], size=(tries, 2)
    )
    for y, x in candidates:
        if len(points) >= limit:
            break
        if not len(kept) or ((kept - (y, x)) ** 2).sum(1).min() >= spacing**2:
            points.append((float(y), float(x)))
            kept = np.asarray(points)
    return points


def blur(image: NDArray[Any], sigma: float) -> Field:
    """Gaussian blur in y and x of an HxW or HxWxC image."""
    if sigma <= 0.05:
        return np.asarray(image, dtype=np.float32)
    sigmas = (sigma, sigma) + (0.0,) * (image.ndim - 2)
    return np.asarray(ndimage.gaussian_filter(image.astype(np.float32), sigmas), np.float32)


def unit_range(field: NDArray[Any]) -> Field:
    """The field stretched to 0..1."""
    low, high = float(field.min()), float(field.max())
    return np.asarray((field - low) / max(high - low, 1e-6), dtype=np.float32)
