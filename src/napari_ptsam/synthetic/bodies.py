"""Objects in space: who owns each voxel, how deep inside the object it lies."""

from __future__ import annotations

import math
from collections.abc import Iterable

import numpy as np
from numpy.typing import NDArray

from napari_ptsam.synthetic.fields import Field, Mask
from napari_ptsam.synthetic.space import Point, Space


class Bodies:
    """Objects of one kind in space; where two meet, a voxel belongs to whose it is deeper in.

    Attributes
    ----------
    ids
        ZxHxW int32, 1-based object number, 0 where there is none.
    level
        ZxHxW, 1 at an object's middle falling to 0 at its surface.
    radii, centres
        Of each object, in pixels.
    """

    def __init__(self, space: Space) -> None:
        self.space = space
        self.ids: NDArray[np.int32] = np.zeros(space.shape, np.int32)
        self.level: Field = np.zeros(space.shape, np.float32)
        self.radii: list[float] = []
        self.centres: list[Point] = []

    def __len__(self) -> int:
        return len(self.radii)

    @property
    def mask(self) -> Mask:
        """ZxHxW, where any object is."""
        return self.ids > 0

    @property
    def depth(self) -> Field:
        """Distance from the surface in pixels (approximately)."""
        return self.level * self.lookup(self.radii)

    def lookup(self, values: Iterable[float]) -> Field:
        """ZxHxW, each object's own value, 0 where there is none."""
        return np.asarray([0.0, *values], np.float32)[self.ids]

    def jitter(self, rng: np.random.Generator, spread: float) -> Field:
        """ZxHxW, a random factor per object (log-normal with SD `spread`), 0 outside."""
        return self.lookup(np.exp(rng.normal(0, spread, len(self))))

    def add(
        self,
        rng: np.random.Generator,
        centre: Point,
        radius: float,
        *,
        long: float = 1.0,
        rough: Field | None = None,
        within: Mask | None = None,
    ) -> None:
        """Put one ellipsoid into space.

        Parameters
        ----------
        long
            Ratio of the long axis, which points anywhere, to the others; the volume stays.
        rough
            ZxHxW, what is added to the level, for surfaces that are not smooth.
        """
        turned, _ = np.linalg.qr(rng.standard_normal((3, 3)))
        turned[0] /= long ** (2 / 3)
        turned[1:] *= long ** (1 / 3)
        self.radii.append(radius)
        self.centres.append(centre)
        reach = radius * (long ** (2 / 3) * 1.1 + 0.35)
        self._stamp(centre, reach, (turned / radius).astype(np.float32), rough, within)

    def add_tube(
        self,
        rng: np.random.Generator,
        start: Point,
        radius: float,
        length: float,
        *,
        wander: float = 0.3,
        within: Mask | None = None,
    ) -> None:
        """Put a winding tube into space; it turns by about `wander` radians per radius."""
        place, way = np.asarray(start), rng.standard_normal(3)
        self.radii.append(radius)
        self.centres.append(start)
        to_unit = np.eye(3, dtype=np.float32) / np.float32(radius)
        for _ in range(max(int(2 * length / radius), 1)):
            way = way / np.linalg.norm(way) + 0.5 * wander * rng.standard_normal(3)
            place = place + 0.5 * radius * way / np.linalg.norm(way)
            self._stamp((place[0], place[1], place[2]), radius, to_unit, None, within)

    def _stamp(
        self, centre: Point, reach: float, to_unit: Field, rough: Field | None, within: Mask | None
    ) -> None:
        """Give the newest object the voxels around a centre in which it lies deepest."""
        pitches = (self.space.apart, 1.0, 1.0)
        spans = []
        for middle, pitch, size in zip(centre, pitches, self.space.shape, strict=True):
            low = min(max(math.ceil((middle - reach) / pitch), 0), size)
            spans.append(slice(low, min(max(int((middle + reach) / pitch) + 1, low), size)))
        window = tuple(spans)
        axes = [
            np.arange(s.start, s.stop, dtype=np.float32) * np.float32(p) - np.float32(c)
            for s, p, c in zip(spans, pitches, centre, strict=True)
        ]
        offset = np.stack(np.meshgrid(*axes, indexing="ij"))
        level = 1 - np.sqrt((np.tensordot(to_unit, offset, 1) ** 2).sum(0))
        if rough is not None:
            level = level + rough[window]
        won = level > self.level[window]
        if within is not None:
            won &= within[window]
        self.ids[window][won] = len(self)
        self.level[window][won] = level[won]
