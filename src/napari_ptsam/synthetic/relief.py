"""The inside of a tube with folds: its distances from a camera in it, lit by a lamp beside that."""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from napari_ptsam.synthetic.fields import Field, fractal_noise, smooth_noise
from napari_ptsam.synthetic.layers import Shape
from napari_ptsam.synthetic.scene import Style

STEP = 2
"""The relief is computed on a grid this much coarser than the picture."""

_STEEP = 0.07
"""Relative change of the distance from one point of that grid to the next that is a step."""


def tube(style: Style, rng: np.random.Generator, shape: Shape) -> tuple[Field, NDArray[np.float64]]:
    """Distance of the wall along the view, and where in the picture the tube vanishes.

    Folds are walls across the tube, open in the middle: each hides what lies behind it.
    """
    side = float(max(shape))
    centre = np.array(shape) * rng.uniform(-0.15, 1.15, 2)
    y = (np.arange(shape[0], dtype=np.float32)[:, None] - np.float32(centre[0])) / side
    x = (np.arange(shape[1], dtype=np.float32)[None, :] - np.float32(centre[1])) / side
    squash = rng.uniform(0.75, 1.3)
    bend = style["uneven"] * smooth_noise(rng, shape, 0.3 * side)
    away = np.hypot(y * squash, x / squash) * np.exp(bend) + 0.1
    angle = np.arctan2(y, x)
    scale = style["view"]
    depth = scale / away
    for i in range(int(rng.poisson(style["folds"]))):
        place = scale * (1.2 + 0.55 * i) * math.exp(rng.normal(0, 0.15))
        lobes, turn = int(rng.integers(1, 4)), rng.uniform(0, 2 * math.pi)
        much = 0.5 + 0.5 * np.cos(lobes * angle + turn)
        high = style["fold_high"] * rng.uniform(0.4, 1.3) * np.clip(1.6 * much - 0.3, 0, 1)
        # How far the ray is inside of the fold, as a share of the tube's radius.
        into = away * place / scale - (1 - high)
        brim = style["fold_round"] * (1 / np.clip(into / 0.05, 0.05, 1) - 1)
        front = place + scale * (0.3 * np.clip(into, 0, 1) + brim)
        depth = np.where((into > 0) & (high > 0.01), np.minimum(depth, front), depth)
    ripple = style["relief"] * fractal_noise(rng, shape, style["relief_scale"] / STEP, 2)
    return np.asarray(depth * (1 + ripple) / scale, np.float32), centre


def distance_at(depth: Field, place: tuple[float, float]) -> float:
    """The distance of the wall at a place in the picture."""
    row, column = (min(int(p) // STEP, s - 1) for p, s in zip(place, depth.shape, strict=True))
    return float(depth[row, column])


def shading(style: Style, depth: Field) -> tuple[Field, Field]:
    """Light that comes back from a relief, and the cosine between its normal and the view."""
    side = float(max(depth.shape))
    y = (np.arange(depth.shape[0], dtype=np.float32)[:, None] - 0.5 * depth.shape[0]) / side
    x = (np.arange(depth.shape[1], dtype=np.float32)[None, :] - 0.5 * depth.shape[1]) / side
    dy, dx = np.gradient(depth)
    dy, dx = dy * side, dx * side
    # The normal of z(x, y) seen in perspective, up to its length.
    nz = depth + x * dx + y * dy
    slope = dx * dx + dy * dy
    facing = depth / np.sqrt((slope + nz * nz) * (1 + x * x + y * y))
    # A step from a fold to the wall far behind is no surface.
    facing = np.where(slope > (_STEEP * side * depth) ** 2, 0.5, facing)
    # Light that comes back from the wall all around.
    shade = style["ambient"] + (1 - style["ambient"]) * facing
    light = shade / (depth * (1 + x * x + y * y)) ** (2 * style["fall_off"])
    return np.asarray(light, np.float32), np.asarray(facing, np.float32)


def enlarged(field: Field, shape: Shape) -> Field:
    """A field of the coarse grid at the size of the picture."""
    size = (field.shape[1] * STEP, field.shape[0] * STEP)
    picture = Image.fromarray(field).resize(size, Image.Resampling.BILINEAR)
    return np.asarray(picture)[: shape[0], : shape[1]]
