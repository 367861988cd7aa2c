"""Layers of objects: who owns each pixel, how deep inside the object it lies."""

from __future__ import annotations

import math
from collections.abc import Hashable, Iterable, Sequence

import numpy as np
from numpy.typing import NDArray

from napari_ptsam.synthetic.fields import Field, Mask, scatter, star_shape
from napari_ptsam.synthetic.scene import Scene, Style, kind

Shape = tuple[int, int]

_SMALL = 9.0
"""Radius in pixels below which objects may share their shape."""


class Layer:
    """Objects of one kind of thing on a canvas.

    Where two objects meet, the pixel belongs to the one it lies deeper in, so
    that touching objects share a border as cells do.

    Attributes
    ----------
    ids
        HxW int32, 1-based object number, 0 where there is none.
    level
        HxW, 1 at an object's centre falling to 0 at its outline.
    """

    def __init__(self, shape: Shape) -> None:
        self.shape = shape
        self.ids: NDArray[np.int32] = np.zeros(shape, np.int32)
        self.level: Field = np.zeros(shape, np.float32)
        self.centres: list[tuple[float, float]] = []
        self.radii: list[float] = []
        self.angles: list[float] = []
        self._stamps: dict[Hashable, Field] = {}

    def __len__(self) -> int:
        return len(self.radii)

    @property
    def mask(self) -> Mask:
        """HxW, where any object is."""
        return self.ids > 0

    def add(
        self,
        rng: np.random.Generator,
        centre: tuple[float, float],
        radius: float,
        *,
        elongation: float = 1.0,
        angle: float = 0.0,
        roughness: float = 0.1,
        within: Mask | None = None,
        stamp: Hashable = None,
    ) -> None:
        """Put one star-shaped object on the canvas, `within` a mask if given.

        Small objects of the same `stamp` have the same shape, which is computed
        only once.
        """
        shape, small = self.shape, stamp is not None and radius < _SMALL
        level = self._stamps.get(stamp) if small else None
        if level is None:
            reach = int(2.2 * radius * math.sqrt(elongation)) + 3
            window, level = star_shape(
                rng,
                (2 * reach + 1, 2 * reach + 1) if small else shape,
                (reach, reach) if small else centre,
                radius,
                elongation=elongation,
                angle=angle,
                roughness=roughness,
                harmonics=3 if small else 6,
            )
            if small:
                self._stamps[stamp] = level
        if small:
            window, level = _placed(level, centre, shape)
        self.centres.append(centre)
        self.radii.append(radius)
        self.angles.append(angle)
        won = level > self.level[window]
        if within is not None:
            won &= within[window]
        self.ids[window][won] = len(self.radii)
        self.level[window][won] = level[won]

    def scatter(
        self,
        rng: np.random.Generator,
        style: Style,
        prefix: str,
        *,
        within: Mask | None = None,
        centred: Mask | None = None,
    ) -> None:
        """Fill with objects as the style's keys `<prefix>_...` say (see `population`).

        Parameters
        ----------
        within
            Where objects may show; they are cut at its border.
        centred
            Where their centres may lie; they reach over its border.
        """
        radius = style[f"{prefix}_radius"]
        area = (self.shape[0] + 2 * radius) * (self.shape[1] + 2 * radius)
        wanted = style[f"{prefix}_cover"] * area / (math.pi * radius**2)
        count = int(rng.poisson(wanted * math.exp(rng.normal(0, 0.35))))
        spacing = 2 * radius * style[f"{prefix}_apart"]
        limit = max(min(count, 180), 1 if style[f"{prefix}_cover"] > 0.02 else 0)
        heading = rng.uniform(0, math.pi)
        centres = scatter(
            rng, self.shape, spacing, tries=3 * limit + 10, limit=limit, margin=0.5 * radius
        )
        for centre in centres:
            if centred is not None and not _inside(centred, centre):
                continue
            self.add(
                rng,
                centre,
                radius * math.exp(rng.normal(0, style[f"{prefix}_spread"])),
                elongation=1 + (style[f"{prefix}_long"] - 1) * math.exp(rng.normal(0, 0.25)),
                angle=heading + rng.normal(0, 0.15 + 3 * (1 - style[f"{prefix}_align"])),
                roughness=style[f"{prefix}_rough"],
                within=within,
                stamp=int(rng.integers(24)),
            )

    def inside(self, softness: float) -> Field:
        """0 outside to 1 at `softness` pixels from the outline (approximately)."""
        return np.asarray(np.clip(self.depth() / max(softness, 0.3), 0, 1), np.float32)

    def depth(self) -> Field:
        """Distance from the outline in pixels (approximately)."""
        return self.level * self.lookup(self.radii)

    def lookup(self, values: Sequence[float] | NDArray[np.floating]) -> Field:
        """HxW, each object's own value, 0 where there is none."""
        table = np.concatenate([[0.0], np.asarray(values, np.float64)]).astype(np.float32)
        return np.asarray(table[self.ids], np.float32)

    def jitter(self, rng: np.random.Generator, spread: float) -> Field:
        """HxW, a random factor per object (log-normal with SD `spread`), 0 outside."""
        return self.lookup(np.exp(rng.normal(0, spread, len(self))))


def _inside(mask: Mask, point: tuple[float, float]) -> bool:
    """Whether the pixel of the mask that is nearest to a point is set."""
    y, x = (min(max(int(p), 0), s - 1) for p, s in zip(point, mask.shape, strict=True))
    return bool(mask[y, x])


def _placed(
    stamp: Field, centre: tuple[float, float], shape: Shape
) -> tuple[tuple[slice, slice], Field]:
    """Window of the canvas that a stamp around `centre` covers, and its part in there."""
    windows, cuts = [], []
    for middle, extent, size in zip(centre, stamp.shape, shape, strict=True):
        start = round(middle) - extent // 2
        low, high = max(start, 0), max(min(start + extent, size), 0)
        low = min(low, high)
        windows.append(slice(low, high))
        cuts.append(slice(low - start, high - start))
    return (windows[0], windows[1]), stamp[cuts[0], cuts[1]]


def population(
    rng: np.random.Generator,
    prefix: str,
    radius: float,
    cover: float,
    *,
    apart: float | None = None,
    long: float | None = None,
) -> dict[str, float]:
    """Draw how the objects of one type look and lie; the keys `Layer.scatter` reads.

    Parameters
    ----------
    radius
        Typical radius in pixels.
    cover
        Share of the canvas that they would cover if they did not overlap.
    apart
        Least distance of centres in diameters; below 1 objects may touch.
    long
        Typical elongation.
    """
    if long is None:
        long = 1 + abs(rng.normal(0, 0.35)) + (rng.uniform(0.5, 2.5) if rng.random() < 0.15 else 0)
    return {
        f"{prefix}_radius": float(radius),
        f"{prefix}_cover": float(cover),
        f"{prefix}_apart": float(rng.uniform(0.55, 1.1) if apart is None else apart),
        f"{prefix}_long": float(long),
        f"{prefix}_spread": float(rng.uniform(0.05, 0.3)),
        f"{prefix}_rough": float(rng.choice([rng.uniform(0.0, 0.05), rng.uniform(0.05, 0.15)])),
        f"{prefix}_align": float(rng.choice([0.0, rng.uniform(0.5, 1.0)])),
    }


def log_uniform(rng: np.random.Generator, low: float, high: float) -> float:
    """A number whose logarithm is uniform between those of `low` and `high`."""
    return float(np.exp(rng.uniform(np.log(low), np.log(high))))


def is_empty(rng: np.random.Generator) -> bool:
    """Whether this scene is to be one of the few without objects."""
    return bool(rng.random() < 0.02)


def number_objects(
    parts: Iterable[tuple[str, NDArray[np.int32] | Mask]], shape: tuple[int, ...]
) -> tuple[NDArray[np.uint8], NDArray[np.uint16]]:
    """Kinds and instances of stacked parts; later parts lie over earlier ones.

    Parameters
    ----------
    parts
        Name of the kind and object numbers, or a mask of what is one object, HxW or ZxHxW.
    """
    kinds = np.zeros(shape, np.uint8)
    instances = np.zeros(shape, np.uint16)
    used = 0
    for name, part in parts:
        ids = part.astype(np.int32)
        where = ids > 0
        kinds[where] = kind(name)
        instances[where] = (ids + used)[where]
        used += int(ids.max(initial=0))
    return kinds, instances


def finish(
    picture: NDArray[np.uint8], parts: Iterable[tuple[str, NDArray[np.int32] | Mask]]
) -> Scene:
    """The scene of a picture and the parts it shows, see `number_objects`."""
    kinds, instances = number_objects(parts, (picture.shape[0], picture.shape[1]))
    return Scene(image=picture, kinds=kinds, instances=instances)
