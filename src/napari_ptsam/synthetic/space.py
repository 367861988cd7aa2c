"""Random fields and bodies in space, of which stacks of planes are cut.

Arrays are ZxHxW. Lengths are in pixels of a plane; planes are `apart` pixels from each other.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from scipy import ndimage

from napari_ptsam.synthetic.fields import Field, Mask, blur
from napari_ptsam.synthetic.scene import Style

Shape3 = tuple[int, int, int]
Point = tuple[float, float, float]
"""z, y and x in pixels."""

Part = tuple[str, NDArray[np.int32] | Mask]
"""Name of a kind, and ZxHxW object numbers or a mask of what is one object."""

_STEP = 2
"""Cells of a tessellation are computed on a grid this much coarser than the planes."""


@dataclass(frozen=True)
class Space:
    """The grid of a stack.

    Attributes
    ----------
    shape
        Planes, height and width.
    apart
        Distance of neighbouring planes in pixels, 1 for isotropic voxels.
    """

    shape: Shape3
    apart: float

    @property
    def extent(self) -> Point:
        """Size in pixels along z, y and x."""
        return (self.shape[0] * self.apart, float(self.shape[1]), float(self.shape[2]))

    def noise(self, rng: np.random.Generator, scale: float) -> Field:
        """Gaussian noise with features of about `scale` pixels, zero mean, unit SD.

        Drawn on a coarse grid where the scale allows it.
        """
        pitch = max(scale / 3, 1.0)
        rise = max(pitch / self.apart, 1.0)
        nodes = (
            math.ceil(self.shape[0] / rise) + 4,
            math.ceil(self.shape[1] / pitch) + 4,
            math.ceil(self.shape[2] / pitch) + 4,
        )
        sigmas = (0.45 * scale / rise / self.apart, 0.45 * scale / pitch, 0.45 * scale / pitch)
        field = rng.standard_normal(nodes, dtype=np.float32)
        field = ndimage.gaussian_filter(field, sigmas, truncate=3.0)
        heights = (np.arange(self.shape[0]) + rng.uniform()) / rise + 1
        below = heights.astype(np.intp)
        part = (heights - below).astype(np.float32)
        out = np.empty(self.shape, np.float32)
        box = (1.0, 1.0, 1 + self.shape[2] / pitch, 1 + self.shape[1] / pitch)
        for plane, (low, share) in enumerate(zip(below, part, strict=True)):
            mixed = (1 - share) * field[low] + share * field[low + 1]
            size = (self.shape[2], self.shape[1])
            picture = Image.fromarray(mixed).resize(size, Image.Resampling.BICUBIC, box)
            out[plane] = np.asarray(picture)
        return np.asarray((out - out.mean()) / (out.std() + 1e-6), np.float32)

    def scattered(self, rng: np.random.Generator, gap: float, count: int) -> list[Point]:
        """At most `count` random places that keep `gap` pixels from each other.

        Some lie a little outside of the borders.
        """
        low = [-0.25 * gap] * 3
        high = [e + 0.25 * gap for e in self.extent]
        places: list[Point] = []
        for z, y, x in rng.uniform(low, high, (4 * count, 3)).tolist():
            if all((z - a) ** 2 + (y - b) ** 2 + (x - c) ** 2 > gap**2 for a, b, c in places):
                places.append((z, y, x))
            if len(places) >= count:
                break
        return places

    def crowd(self, rng: np.random.Generator, radius: float, cover: float) -> list[Point]:
        """Places for about as many balls of a radius as fill the share `cover` of space."""
        room = math.prod(e + 0.8 * radius for e in self.extent)
        count = int(np.clip(rng.poisson(cover * room / (4.19 * radius**3)), 3, 250))
        return self.scattered(rng, 1.7 * radius, count)

    def cells(
        self,
        rng: np.random.Generator,
        size: float,
        *,
        joined: float = 0.0,
        stretch: float = 1.0,
        warp: float = 0.15,
    ) -> NDArray[np.int32]:
        """Fill space with warped Voronoi cells; their numbers, from 1.

        Parameters
        ----------
        size
            Typical extent in pixels.
        joined
            Share of neighbours that are one cell, which makes long, concave and branched ones.
        stretch
            How much longer than wide cells are, along one random direction.
        warp
            SD of the bending of borders relative to `size`.
        """
        coarse = Space(
            (self.shape[0], -(-self.shape[1] // _STEP), -(-self.shape[2] // _STEP)),
            self.apart / _STEP,
        )
        places = coarse._unbent(rng, size / _STEP, stretch, warp)
        low = places.min((1, 2, 3)) - 1
        places = places - low[:, None, None, None]
        nodes = tuple(int(n) + 3 for n in places.max((1, 2, 3)))
        owner = np.arange(1, math.prod(nodes) + 1, dtype=np.int32).reshape(nodes)
        for axis in range(3):
            ahead, behind = [slice(None)] * 3, [slice(None)] * 3
            ahead[axis], behind[axis] = slice(1, None), slice(None, -1)
            joins = rng.random(owner[tuple(ahead)].shape) < 0.5 * joined
            owner[tuple(ahead)] = np.where(joins, owner[tuple(behind)], owner[tuple(ahead)])
        points = np.indices(nodes, dtype=np.float32)
        points += rng.uniform(-0.45, 0.45, points.shape).astype(np.float32)
        ids = owner.ravel()[_nearest(places, points.reshape(3, -1), nodes)]
        _, numbers = np.unique(ids, return_inverse=True)
        fine = (numbers.reshape(ids.shape) + 1).repeat(_STEP, 1).repeat(_STEP, 2)
        return np.asarray(fine[:, : self.shape[1], : self.shape[2]], np.int32)

    def _unbent(self, rng: np.random.Generator, size: float, stretch: float, warp: float) -> Field:
        """3xZxHxW, place of each voxel in units of the cells of an unbent tissue."""
        turned, _ = np.linalg.qr(rng.standard_normal((3, 3)))
        turned[0] /= stretch ** (2 / 3)
        turned[1:] *= stretch ** (1 / 3)
        grid = np.indices(self.shape, dtype=np.float32)
        grid[0] *= np.float32(self.apart)
        places = np.tensordot((turned / size).astype(np.float32), grid, 1)
        for axis in range(3):
            places[axis] += np.float32(warp) * self.noise(rng, 0.9 * size)
        return np.asarray(places, np.float32)


@dataclass(frozen=True)
class Sort:
    """One sort of stacks: how a type of it is drawn, and how its grey levels and parts are."""

    style: Callable[[np.random.Generator], dict[str, float]]
    render: Callable[[Style, np.random.Generator, Space], tuple[Field, list[Part]]]


def _nearest(places: Field, points: Field, nodes: tuple[int, ...]) -> NDArray[np.intp]:
    """Index of the lattice point that is nearest to each place, among the 27 around it."""
    steps = np.array([nodes[1] * nodes[2], nodes[2], 1])
    middle = sum(
        (np.rint(p).astype(np.intp) * s for p, s in zip(places, steps, strict=True)),
        start=np.zeros(places.shape[1:], np.intp),
    )
    nearest = np.full(middle.shape, np.inf, np.float32)
    index = middle.copy()
    for shift in itertools.product((-1, 0, 1), repeat=3):
        at = middle + int(np.dot(shift, steps))
        away = sum((places[i] - points[i][at]) ** 2 for i in range(3))
        won = away < nearest
        np.copyto(nearest, away, where=won)
        np.copyto(index, at, where=won)
    return index


def edges(ids: NDArray[np.int32]) -> Field:
    """Distance in its plane of each voxel from the nearest border, in pixels."""
    out = np.empty(ids.shape, np.float32)
    for plane, cut in enumerate(ids):
        same = np.ones(cut.shape, bool)
        same[1:] &= cut[1:] == cut[:-1]
        same[:, 1:] &= cut[:, 1:] == cut[:, :-1]
        # Without a border there would be nothing to measure from.
        away = ndimage.distance_transform_edt(same) if not same.all() else 1e3 * same
        out[plane] = blur(away, 1.0)
    return np.asarray(np.maximum(out - 0.6, 0), np.float32)
