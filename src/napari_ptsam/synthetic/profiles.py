"""A plane tiled with profiles, as sections of dense tissue show them: small, long, large."""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from scipy import ndimage

from napari_ptsam.synthetic.fields import Field, Mask, blur, smooth_noise
from napari_ptsam.synthetic.layers import Shape, log_uniform
from napari_ptsam.synthetic.scene import Style

Ids = NDArray[np.int32]

_STEP = 2
"""Profiles are computed on a grid this much coarser than the picture."""


def draw_profiles(rng: np.random.Generator, size: float) -> dict[str, float]:
    """Draw how profiles look of which the small ones are of about `size` pixels.

    The keys are read by `profiles`.
    """
    return {
        "size": size,
        "large": float(rng.uniform(0.05, 0.55)),
        "large_radius": float(np.clip(size * log_uniform(rng, 1.2, 3.5), 18, 110)),
        "irregular": float(rng.uniform(0.5, 1.0)),
        "joined": float(rng.uniform(0.1, 0.5)),
        "stretch": log_uniform(rng, 1.0, 2.6),
        "warp": float(rng.uniform(0.15, 0.4)),
        "bend": float(rng.uniform(0.3, 1.4)),
    }


def profiles(style: Style, rng: np.random.Generator, shape: Shape) -> tuple[Ids, Field, Mask]:
    """Tile the canvas with profiles.

    Returns
    -------
    tuple
        HxW number of the profile each pixel is in, from 1; HxW pixels from the nearest
        border between two of them; and of each number whether it is a large profile.
    """
    coarse = (-(-shape[0] // _STEP), -(-shape[1] // _STEP))
    u, v = _coordinates(style, rng, coarse)
    v, u = v - math.floor(float(v.min())) + 1, u - math.floor(float(u.min())) + 1
    nodes = math.ceil(float(v.max())) + 2, math.ceil(float(u.max())) + 2
    dv, du, owner = _lattice(style, rng, nodes)
    discs = _discs(style, rng, nodes)
    points_v, points_u = np.indices(nodes, dtype=np.float32) + np.stack([dv, du])
    for cv, cu, radius in discs:
        # Points inside of a large profile own nothing.
        swallowed = (points_v - cv) ** 2 + (points_u - cu) ** 2 < (radius + 0.3) ** 2
        points_v[swallowed] = 1e4
    ids = owner.ravel()[_nearest(v, u, points_v, points_u)]
    small = nodes[0] * nodes[1] + 1
    for number, (cv, cu, radius) in enumerate(discs):
        ids[(v - cv) ** 2 + (u - cu) ** 2 < radius**2] = small + number
    numbers = np.zeros(small + len(discs), np.int32)
    numbers[ids.ravel()] = 1
    found = np.flatnonzero(numbers)
    numbers[found] = np.arange(1, len(found) + 1)
    edge = _distance(ids)
    ids = numbers[ids].repeat(_STEP, 0).repeat(_STEP, 1)[: shape[0], : shape[1]]
    return ids, edge[: shape[0], : shape[1]], np.concatenate([[False], found >= small])


def _coordinates(style: Style, rng: np.random.Generator, shape: Shape) -> tuple[Field, Field]:
    """Where in an unbent tissue each pixel lies, in units of the small profiles' size.

    Wide bends make bundles that turn and swell; narrow ones make outlines concave.
    """
    size, turn = style["size"] / _STEP, rng.uniform(0, math.pi)
    y = np.arange(shape[0], dtype=np.float32)[:, None] / np.float32(size)
    x = np.arange(shape[1], dtype=np.float32)[None, :] / np.float32(size)
    root = math.sqrt(style["stretch"])
    u = (math.cos(turn) * x + math.sin(turn) * y) / root
    v = (-math.sin(turn) * x + math.cos(turn) * y) * root
    for amount, scale in ((style["bend"], 4.5 * size), (style["warp"], 1.1 * size)):
        u = u + amount * smooth_noise(rng, shape, scale)
        v = v + amount * smooth_noise(rng, shape, scale)
    return np.asarray(u, np.float32), np.asarray(v, np.float32)


def _lattice(
    style: Style, rng: np.random.Generator, shape: tuple[int, int]
) -> tuple[Field, Field, Ids]:
    """Offsets of jittered lattice points from their nodes, and the profile each belongs to."""
    jitter = 0.5 * style["irregular"]
    dv = rng.uniform(-jitter, jitter, shape).astype(np.float32)
    du = rng.uniform(-jitter, jitter, shape).astype(np.float32)
    owner = np.arange(1, shape[0] * shape[1] + 1, dtype=np.int32).reshape(shape)
    joins = rng.random((2, *shape)) < 0.5 * style["joined"]
    # Chains of points that share one profile: long, concave, branched.
    owner[:, 1:] = np.where(joins[0, :, 1:], owner[:, :-1], owner[:, 1:])
    owner[1:] = np.where(joins[1, 1:], owner[:-1], owner[1:])
    return dv, du, owner


def _nearest(v: Field, u: Field, points_v: Field, points_u: Field) -> NDArray[np.intp]:
    """Index of the lattice point that is nearest to each pixel, among the nine around it."""
    wide = points_v.shape[1]
    middle = np.asarray(np.rint(v) * wide + np.rint(u), np.intp)
    nearest, index = np.full(v.shape, np.inf, np.float32), middle.copy()
    flat_v, flat_u = points_v.ravel(), points_u.ravel()
    for step in (i * wide + j for i in (-1, 0, 1) for j in (-1, 0, 1)):
        at = middle + step
        away = (v - flat_v[at]) ** 2 + (u - flat_u[at]) ** 2
        won = away < nearest
        np.copyto(nearest, away, where=won)
        np.copyto(index, at, where=won)
    return np.asarray(index, np.intp)


def _discs(
    style: Style, rng: np.random.Generator, nodes: tuple[int, int]
) -> list[tuple[float, float, float]]:
    """Centres and radii of large profiles in the unbent tissue that keep clear of each other."""
    radius = style["large_radius"] / style["size"]
    wanted = style["large"] * nodes[0] * nodes[1] / (math.pi * radius**2)
    discs: list[tuple[float, float, float]] = []
    for _ in range(min(int(3 * wanted) + 2, 60)):
        v, u = rng.uniform(0, nodes[0]), rng.uniform(0, nodes[1])
        size = radius * math.exp(rng.normal(0, 0.35))
        if all(math.hypot(v - a, u - b) > size + r + 0.15 for a, b, r in discs):
            discs.append((v, u, size))
        if len(discs) > wanted:
            break
    return discs


def _distance(ids: Ids) -> Field:
    """Pixels from the nearest border between two profiles, enlarged by `_STEP`."""
    same = np.ones(ids.shape, bool)
    same[1:] &= ids[1:] == ids[:-1]
    same[:, 1:] &= ids[:, 1:] == ids[:, :-1]
    if same.all():
        return np.full((ids.shape[0] * _STEP, ids.shape[1] * _STEP), 1e3, np.float32)
    away = blur(ndimage.distance_transform_edt(same), 0.6)
    size = (ids.shape[1] * _STEP, ids.shape[0] * _STEP)
    picture = Image.fromarray(_STEP * away).resize(size, Image.Resampling.BICUBIC)
    # Blurring has lifted the zeros on the borders.
    return np.maximum(np.asarray(picture) - 0.8, 0)
