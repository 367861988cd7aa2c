"""What is known about consecutive planes of one file: axes, pixel sizes, and where each lies."""

from __future__ import annotations

import itertools
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np

Scale = Mapping[str, tuple[float, str]]
"""Size of a pixel along an axis and its unit, such as ``{"X": (0.1, "µm")}``."""


def usable_scale(stated: Mapping[str, tuple[Any, str]]) -> Scale:
    """Keep the sizes that are finite numbers above 0: any other is as good as not stated."""
    scale = {}
    for axis, (value, unit) in stated.items():
        try:
            size = float(value)
        except (TypeError, ValueError, OverflowError):
            continue
        if math.isfinite(size) and size > 0:
            scale[axis] = (size, unit)
    return scale


@dataclass(frozen=True)
class Part:
    """Consecutive planes that came from one file and go to one file.

    Attributes
    ----------
    key
        Name of the file without suffix, relative to its folder.
    count
        Number of planes.
    axes, shape
        Names and sizes of the axes that are flattened to planes, outermost first;
        both empty for a single plane.
    scale
        Pixel sizes that the file states.
    path
        The file, None for an array in memory.
    whole, numbers
        What the planes were chosen from, and their numbers there; None and empty for
        all of a file.
    """

    key: str
    count: int = 1
    axes: str = ""
    shape: tuple[int, ...] = ()
    scale: Scale = field(default_factory=dict)
    path: Path | None = None
    whole: Part | None = None
    numbers: tuple[int, ...] = ()

    def plane_keys(self) -> list[str]:
        """Name of each plane: the file's, with a running number if it holds several."""
        if not self.axes:
            return [self.key]
        return [f"{self.key}/{number:04d}" for number in range(self.count)]

    @property
    def origin(self) -> Part:
        """What the planes were chosen from, with all its axes: itself if all were."""
        return self if self.whole is None else self.whole

    def places(self) -> dict[str, list[int]]:
        """Where each plane lies in what it was chosen from, along each axis there."""
        origin = self.origin
        grid = np.indices(origin.shape).reshape(len(origin.axes), origin.count)
        if self.whole is not None:
            grid = grid[:, list(self.numbers)]
        return dict(zip(origin.axes, grid.tolist(), strict=True))

    def runs(self) -> list[list[int]]:
        """Numbers of the planes that lie right upon each other, a list for each such run.

        Within a run they are in order of depth. Without an axis Z, the innermost one that is
        not time counts as depth; planes that differ along any other axis are of several runs.
        """
        places = self.places()
        depth = "Z" if "Z" in places else "".join([a for a in places if a != "T"][-1:])
        levels = places.pop(depth, [0] * self.count)
        where = list(zip(*places.values(), levels, strict=True))
        runs: list[list[int]] = []
        for number in sorted(range(self.count), key=where.__getitem__):
            *others, level = where[number]
            if runs and where[runs[-1][-1]] == (*others, level - 1):
                runs[-1].append(number)
            else:
                runs.append([number])
        return runs

    def choose(self, numbers: Sequence[int]) -> Part:
        """Some of the planes, which remember where they lay.

        Axes stay where the choice is a grid, such as all planes of two time points; any other
        is one axis of planes. An axis of every nth plane has n times the pixel size, and one of
        planes at uneven distances has none.
        """
        if self.whole is not None:
            return self.whole.choose([self.numbers[number] for number in numbers])
        if list(numbers) == list(range(self.count)):
            return self
        chosen = replace(self, count=len(numbers), whole=self, numbers=tuple(numbers))
        kept = {axis: sorted(set(line)) for axis, line in chosen.places().items()}
        kept = {axis: line for axis, line in kept.items() if len(line) > 1}
        ascending = list(numbers) == sorted(set(numbers))
        if kept and ascending and math.prod(map(len, kept.values())) == len(numbers):
            steps = {axis: _step(line) for axis, line in kept.items()}
            axes, shape = "".join(kept), tuple(map(len, kept.values()))
        else:
            axes, shape = self.axes if len(self.axes) == 1 else "Z", (len(numbers),)
            steps = {axes: 1 if len(numbers) == 1 else 0}
        scale = {
            axis: (size * steps.get(axis, 1), unit)
            for axis, (size, unit) in self.scale.items()
            if steps.get(axis, 1)
        }
        return replace(chosen, axes=axes, shape=shape, scale=scale)


def _step(line: Sequence[int]) -> int:
    """Distance of neighbours, 0 if it varies."""
    steps = {after - before for before, after in itertools.pairwise(line)}
    return steps.pop() if len(steps) == 1 else 0
