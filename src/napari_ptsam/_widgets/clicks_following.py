"""One object carried through a stack, from plane to plane; runs in the background."""

from __future__ import annotations

from collections.abc import Generator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from napari_ptsam._widgets.clicks_labels import Part
from napari_ptsam._widgets.layers import axes_of, data_shape, leading_axes

if TYPE_CHECKING:
    from napari.layers import Layer

    from napari_ptsam.clicking import ClickAnswer, Clicker
    from napari_ptsam.planes import Planes


@dataclass(frozen=True)
class Followed:
    """The object was found on a plane.

    Attributes
    ----------
    index
        The plane.
    part
        Where on it.
    answer
        To be shown.
    done, total
        How many planes of how many.
    """

    index: int
    part: Part
    answer: ClickAnswer
    done: int
    total: int


def ways_from(layer: Layer, index: int, axis: int, up: int, down: int) -> list[list[int]]:
    """Planes before and after one along an axis, in the order in which one comes to them.

    Parameters
    ----------
    axis
        A data axis of the layer, one of its leading ones.
    up, down
        How many at most in the direction of higher, and of lower numbers.
    """
    axes, shape = leading_axes(layer), data_shape(layer)
    sizes = [shape[a] for a in axes]
    place = [int(n) for n in np.unravel_index(index, sizes)] if axes else []
    if axis not in axes:
        return []
    number = axes.index(axis)
    ranges = (
        range(place[number] + 1, min(place[number] + up, sizes[number] - 1) + 1),
        range(place[number] - 1, max(place[number] - down, 0) - 1, -1),
    )
    return [
        [
            int(np.ravel_multi_index([*place[:number], n, *place[number + 1 :]], sizes))
            for n in numbers
        ]
        for numbers in ranges
    ]


def axes_to_follow(layer: Layer) -> list[tuple[int, str]]:
    """Axes along which there are neighbouring planes, with their letters; depth first."""
    letters, shape = axes_of(layer), data_shape(layer)
    found = [(axis, letters[axis]) for axis in leading_axes(layer) if shape[axis] > 1]
    return sorted(found, key=lambda one: (one[1] != "Z", -one[0]))


def follow_object(
    clicker: Clicker, planes: Planes, mask: NDArray[Any], ways: Sequence[Sequence[int]]
) -> Generator[Followed, None, list[int]]:
    """Find an object again from plane to plane, each way until its end or until it is lost.

    Parameters
    ----------
    clicker
        What finds it.
    planes
        Read one at a time.
    mask
        HxW, the object on the plane that the ways begin beside.
    ways
        Planes in the order in which to go through them.

    Returns
    -------
    list of int
        Planes on which it was lost.
    """
    lost = []
    total, done = sum(map(len, ways)), 0
    for number, way in enumerate(ways):
        last = np.asarray(mask, bool)
        for index in way:
            answer = clicker.follow(clicker.embed(planes.read(index)), last)
            part = None if answer is None else Part.of(answer.mask, answer.region)
            if answer is None or part is None:
                lost.append(index)
                break
            done += 1
            last = answer.mask
            yield Followed(index, part, answer, done, total)
        # What is left of a way on which it was lost is not waited for.
        total = done + sum(map(len, ways[number + 1 :]))
    return lost
