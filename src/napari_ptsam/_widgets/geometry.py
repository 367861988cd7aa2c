"""How the planes of a layer lie in space: depth, pixel sizes, positions."""

from __future__ import annotations

import itertools
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from napari_ptsam._widgets.layers import axes_of, data_shape, leading_axes, plane_count

if TYPE_CHECKING:
    from napari.layers import Layer

Triple = tuple[float, float, float]


@dataclass(frozen=True)
class Placement:
    """Voxel size and first voxel's position along depth, rows and columns, in one unit.

    Where the depth is in no unit of length like the rows, its numbers are taken as they are.
    """

    spacing: Triple
    origin: Triple
    unit: str


def placement_of(layer: Layer) -> Placement:
    """Read the placement of a layer from its scale, translation and units."""
    letters, unit = axes_of(layer), layer.units[-1]
    spacing, origin = [1.0, 1.0, 1.0], [0.0, 0.0, 0.0]
    for number, letter in enumerate("ZYX"):
        axis = letters.find(letter)
        if axis < 0:
            continue
        own = layer.units[axis]
        factor = float((1 * own).to(unit).magnitude) if own.is_compatible_with(unit) else 1.0
        spacing[number] = abs(float(layer.scale[axis])) * factor
        origin[number] = float(layer.translate[axis]) * factor
    short = f"{unit:~}"
    name = "pixel" if short in ("", "pixel", "px") else short
    return Placement((spacing[0], spacing[1], spacing[2]), (origin[0], origin[1], origin[2]), name)


def volumes_of(layer: Layer) -> list[tuple[int, ...]]:
    """Planes of a layer that lie upon each other, for each time point; none without depth."""
    axes = leading_axes(layer)
    letters = axes_of(layer)
    depth = [number for number, axis in enumerate(axes) if letters[axis] == "Z"]
    if not depth:
        return []
    shape = data_shape(layer)
    numbers = np.arange(plane_count(layer)).reshape([shape[axis] for axis in axes])
    rows = np.moveaxis(numbers, depth[0], -1).reshape(-1, numbers.shape[depth[0]])
    return [tuple(map(int, row)) for row in rows]


def positions_of(layer: Layer) -> list[dict[str, int]]:
    """For each plane of a layer its number along each leading axis, by the axis' letter."""
    axes = leading_axes(layer)
    letters = [axes_of(layer)[axis].lower() for axis in axes]
    ranges = [range(data_shape(layer)[axis]) for axis in axes]
    return [dict(zip(letters, place, strict=True)) for place in itertools.product(*ranges)]
