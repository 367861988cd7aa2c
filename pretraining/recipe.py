"""The recipe of a pre-training run: everything that decides the weights, beside the code."""

from __future__ import annotations

import hashlib
import json
import tomllib
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np

from napari_ptsam.backbones.embedded import EmbeddedShape


@dataclass(frozen=True)
class Phase:
    """A stretch of steps with one crop size.

    Attributes
    ----------
    steps
        How many.
    crop
        Side of the crops in pixels, a multiple of 16.
    types, scenes
        Scene types in a step, and crops of each.
    first_rate, last_rate
        Learning rate, linear in between.
    groups
        Parts of the pool that types are drawn from.
    pool_types
        Types in each of these groups.
    dense_weight, pixel_weight
        Weights of the loss that tells the kind of every pixel, and of that of the linear pixel
        classifiers.
    click_share
        Share of the steps in which objects are asked for by clicks and boxes.
    more_clicks
        At most so many further clicks, on the object or beside it, follow the first click or
        the box.
    """

    steps: int
    crop: int
    types: int
    scenes: int
    first_rate: float
    last_rate: float
    groups: tuple[str, ...]
    pool_types: int = 500
    dense_weight: float = 0.3
    pixel_weight: float = 0.5
    click_share: float = 0.5
    more_clicks: int = 0


@dataclass(frozen=True)
class Recipe:
    """Phases one after the other, and what they have in common.

    Attributes
    ----------
    seed
        Of the initial weights and of every draw.
    weight_decay
        Of AdamW.
    shape
        Sizes of the network.
    """

    seed: int
    weight_decay: float
    phases: tuple[Phase, ...]
    shape: EmbeddedShape = field(default_factory=EmbeddedShape)

    @staticmethod
    def read(path: Path) -> Recipe:
        """From a TOML file."""
        return Recipe.parse(tomllib.loads(path.read_text()))

    @staticmethod
    def parse(plain: dict[str, Any]) -> Recipe:
        """From plain values, as `dataclasses.asdict`, TOML and JSON give them."""
        values = _as_tuples(plain)
        phases = tuple(Phase(**p) for p in values.pop("phases"))
        shape = EmbeddedShape(**values.pop("shape", {}))
        return Recipe(phases=phases, shape=shape, **values)

    @property
    def steps(self) -> int:
        """All steps of all phases."""
        return sum(p.steps for p in self.phases)

    @property
    def digest(self) -> str:
        """SHA-256 over all values, 64 hexadecimal digits."""
        return hashlib.sha256(json.dumps(asdict(self), sort_keys=True).encode()).hexdigest()

    def begun(self, step: int) -> Recipe:
        """The recipe of the steps before one: without the phases that begin there or later."""
        starts = np.cumsum([0, *(phase.steps for phase in self.phases)])
        kept = (p for p, start in zip(self.phases, starts, strict=False) if start < step)
        return replace(self, phases=tuple(kept))

    def differences(self, other: Recipe) -> list[str]:
        """Values that another recipe has otherwise, such as ``seed: 1 there, 2 here``."""
        here, there = dict(_values(asdict(self))), dict(_values(asdict(other)))
        return [
            f"{name}: {there.get(name, 'nothing')} there, {here.get(name, 'nothing')} here"
            for name in dict.fromkeys((*here, *there))
            if here.get(name) != there.get(name)
        ]

    def phase_at(self, step: int) -> tuple[Phase, float]:
        """Phase of a step and its learning rate."""
        for phase in self.phases:
            if step < phase.steps:
                share = step / phase.steps
                return phase, phase.first_rate + share * (phase.last_rate - phase.first_rate)
            step -= phase.steps
        raise IndexError(step)


def _as_tuples(value: Any) -> Any:
    """Lists as tuples, so that a recipe is equal however it was made."""
    if isinstance(value, dict):
        return {k: _as_tuples(v) for k, v in value.items()}
    return tuple(_as_tuples(v) for v in value) if isinstance(value, list) else value


def _values(value: Any, name: str = "") -> Iterator[tuple[str, Any]]:
    """The plain values of a recipe by their names, such as ``phases[0].crop``."""
    if isinstance(value, dict):
        for key, inner in value.items():
            yield from _values(inner, f"{name}.{key}" if name else key)
    elif isinstance(value, tuple) and any(isinstance(inner, dict) for inner in value):
        for number, inner in enumerate(value):
            yield from _values(inner, f"{name}[{number}]")
    else:
        yield name, value
