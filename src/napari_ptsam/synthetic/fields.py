"""Random fields and shapes that all procedural scenes are made of.

Every function takes its random generator as an argument, so that a scene is a
pure function of its seed. Fields are float32; lengths are in pixels.
"""

from __future__ import annotations

import math
from functools import lru_cache
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from scipy import fft, ndimage
from scipy.spatial import cKDTree

Field = NDArray[np.float32]
Mask = NDArray[np.bool_]

_PER_RADIAN = np.float32(360 / (2 * np.pi))
_TURN = np.linspace(0, 2 * np.pi, 362)[None, :]


@lru_cache(maxsize=64)
def _band_power(shape: tuple[int, int], scale: float) -> Field:
    """Power spectrum of noise with features of `scale` pixels, of unit total power."""
    y = fft.fftfreq(shape[0]).astype(np.float32)[:, None]
    x = fft.rfftfreq(shape[1]).astype(np.float32)[None, :]
    power = np.exp(-((np.pi * scale) ** 2) * (y**2 + x**2))
    power[0, 0] = 0.0
    return np.asarray(power / (power.sum() + 1e-20), dtype=np.float32)


def _spectral(rng: np.random.Generator, shape: tuple[int, int], power: Field) -> Field:
    """Gaussian noise of a given power spectrum on a torus that `shape` is cut from."""
    size = power.shape
    white = rng.standard_normal((2, *size), dtype=np.float32)
    spectrum = (white[0] + 1j * white[1]) * np.sqrt(power)
    field = fft.irfft2(spectrum, (size[0], 2 * (size[1] - 1)))[: shape[0], : shape[1]]
    return np.asarray((field - field.mean()) / (field.std() + 1e-12), dtype=np.float32)


def _torus(shape: tuple[int, int], scale: float) -> tuple[int, int]:
    """Even, fast FFT lengths that leave a margin so that opposite borders differ."""
    margin = min(int(scale), 32)
    return (
        2 * fft.next_fast_len((shape[0] + margin + 1) // 2, real=True),
        2 * fft.next_fast_len((shape[1] + margin + 1) // 2, real=True),
    )


def smooth_noise(rng: np.random.Generator, shape: tuple[int, int], scale: float) -> Field:
    """Gaussian noise with features of about `scale` pixels, zero mean, unit SD."""
    return fractal_noise(rng, shape, scale, octaves=1)


def fractal_noise(
    rng: np.random.Generator,
    shape: tuple[int, int],
    scale: float,
    octaves: int = 4,
    persistence: float = 0.5,
) -> Field:
    """Noise with features at `octaves` halving scales, zero mean, unit SD.

    Drawn as a spectrum, on a reduced grid when the finest scale allows it, so
    that the cost does not grow with `scale`.
    """
    finest = scale / 2 ** (octaves - 1)
    factor = int(np.clip(finest / 3, 1, min(shape) / 16))
    grid = (math.ceil(shape[0] / factor), math.ceil(shape[1] / factor))
    size = _torus(grid, scale / factor)
    power = np.zeros((size[0], size[1] // 2 + 1), np.float32)
    for octave in range(octaves):
        band = scale / factor / 2**octave
        if octave > 0 and band < 0.7:
            break
        # Rounded so that the spectra of one type of scenes are computed only once.
        power += np.float32(persistence ** (2 * octave)) * _band_power(size, round(band, 2))
    field = _spectral(rng, grid, power)
    if factor > 1:
        picture = Image.fromarray(field)
        width, height = factor * grid[1], factor * grid[0]
        field = np.asarray(picture.resize((width, height), Image.Resampling.BICUBIC))
    return np.asarray(field[: shape[0], : shape[1]], dtype=np.float32)


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
    order = np.arange(2, 2 + harmonics)
    wave = roughness * rng.standard_normal(harmonics) / order
    phase = rng.uniform(0, 2 * np.pi, harmonics)
    around = np.maximum(1.0 + wave @ np.cos(order[:, None] * _TURN + phase[:, None]), 0.3)
    outline = around.astype(np.float32)[((np.arctan2(v, u) + np.pi) * _PER_RADIAN).astype(np.intp)]
    return window, np.asarray(1.0 - np.hypot(u, v) / outline, dtype=np.float32)


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
    cells: dict[tuple[int, int], list[tuple[float, float]]] = {}
    size = max(spacing, 1e-3)
    candidates = rng.uniform(
        [-margin, -margin], [shape[0] + margin, shape[1] + margin], size=(tries, 2)
    )
    for y, x in candidates.tolist():
        if len(points) >= limit:
            break
        row, column = int(y // size), int(x // size)
        near = (
            point
            for j in (row - 1, row, row + 1)
            for i in (column - 1, column, column + 1)
            for point in cells.get((j, i), ())
        )
        if all((y - b) ** 2 + (x - a) ** 2 >= spacing**2 for b, a in near):
            points.append((y, x))
            cells.setdefault((row, column), []).append((y, x))
    return points


def mosaic(
    rng: np.random.Generator,
    shape: tuple[int, int],
    spacing: float,
    *,
    regularity: float = 0.8,
    warp: float = 0.15,
) -> tuple[NDArray[np.int32], Field]:
    """Tile the canvas with polygons of about `spacing` pixels across.

    Parameters
    ----------
    regularity
        1 for a honeycomb, 0 for polygons of very different sizes and shapes.
    warp
        SD of the bending of the borders relative to `spacing`.

    Returns
    -------
    tuple
        HxW index of each pixel's polygon, from 0, and HxW distance to the
        nearest border in pixels.
    """
    rows, columns = (int(s / spacing) + 4 for s in shape)
    lattice = np.moveaxis(np.indices((rows, columns)), 0, -1).astype(np.float64) - 1.5
    lattice[::2, :, 1] += 0.5
    seeds = spacing * (lattice + rng.normal(0, 0.5 * (1 - regularity), lattice.shape))
    seeds = seeds.reshape(-1, 2) + rng.uniform(0, 0.5 * spacing, 2)
    step = 1 if spacing < 8 else 2
    y, x = np.mgrid[0 : shape[0] : step, 0 : shape[1] : step].astype(np.float32)
    if warp > 0:
        y += warp * spacing * smooth_noise(rng, shape, 0.7 * spacing)[::step, ::step]
        x += warp * spacing * smooth_noise(rng, shape, 0.7 * spacing)[::step, ::step]
    distance, index = cKDTree(seeds).query(np.stack([y.ravel(), x.ravel()], 1), k=2)
    apart = np.linalg.norm(seeds[index[:, 0]] - seeds[index[:, 1]], axis=1)
    edge = (distance[:, 1] ** 2 - distance[:, 0] ** 2) / (2 * apart + 1e-6)
    labels = index[:, 0].reshape(y.shape).astype(np.int32)
    border = edge.reshape(y.shape).astype(np.float32)
    if step > 1:
        labels = labels.repeat(step, 0).repeat(step, 1)[: shape[0], : shape[1]]
        border = border.repeat(step, 0).repeat(step, 1)[: shape[0], : shape[1]]
        border = blur(border, 0.7)
    return labels, border


def blur(image: NDArray[Any], sigma: float) -> Field:
    """Gaussian blur in y and x of an HxW or HxWxC image.

    Wide blurs are computed on a reduced grid, which they leave no trace of.
    """
    image = np.asarray(image, dtype=np.float32)
    if sigma <= 0.05:
        return image
    factor = min(int(sigma / 2), min(image.shape[:2]) // 4)
    if factor < 2:
        sigmas = (sigma, sigma) + (0.0,) * (image.ndim - 2)
        return np.asarray(ndimage.gaussian_filter(image, sigmas, truncate=3.0), np.float32)
    size = (image.shape[1], image.shape[0])
    planes = image.reshape(*image.shape[:2], -1)
    out = np.empty_like(planes)
    for c in range(planes.shape[2]):
        small = np.asarray(Image.fromarray(planes[..., c]).reduce(factor))
        small = ndimage.gaussian_filter(small, sigma / factor, truncate=3.0, mode="nearest")
        out[..., c] = Image.fromarray(small).resize(size, Image.Resampling.BICUBIC)
    return out.reshape(image.shape)
