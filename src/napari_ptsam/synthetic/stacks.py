"""Coherent stacks of planes: bodies in space, recorded with the blur and noise of a microscope."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from napari_ptsam.errors import InputError
from napari_ptsam.synthetic import stacks_electron, stacks_light
from napari_ptsam.synthetic.camera import gamma_curve, shot_and_read_noise
from napari_ptsam.synthetic.fields import Field
from napari_ptsam.synthetic.layers import log_uniform, number_objects
from napari_ptsam.synthetic.scene import Style
from napari_ptsam.synthetic.space import Shape3, Sort, Space

STACKS: dict[str, Sort] = {**stacks_light.SORTS, **stacks_electron.SORTS}
"""All sorts of stacks by name."""

LEAST_SIZE = (1, 32, 32)
"""Planes, height and width that a stack has at least."""


@dataclass(frozen=True)
class Stack:
    """A procedural stack of planes.

    Attributes
    ----------
    image
        ZxHxW uint8.
    kinds
        ZxHxW uint8, index into `KINDS`; 0 is background.
    instances
        ZxHxW uint16, unique id of each object, the same in all planes that cut it.
    spacing
        Distance of voxels along z, y and x, in pixels of a plane.
    """

    image: NDArray[np.uint8]
    kinds: NDArray[np.uint8]
    instances: NDArray[np.uint16]
    spacing: tuple[float, float, float]


def stack(name: str, seed: int = 0, size: Shape3 = (24, 192, 192)) -> Stack:
    """Make a stack; the same name, seed and size always give the same one.

    Parameters
    ----------
    name
        One of `STACKS`.
    seed
        Any integer that is not negative. Draws the type (size of objects, contrast, noise,
        distance of the planes) and where things lie.
    size
        Planes, height and width, at least 1, 32 and 32.

    Raises
    ------
    InputError
        If there is no such sort of stacks, or the size is too small.
    """
    if name not in STACKS:
        raise InputError(f"There is no procedural stack {name!r}; choose from {', '.join(STACKS)}.")
    if any(given < least for given, least in zip(size, LEAST_SIZE, strict=True)):
        raise InputError(
            f"A procedural stack of {size} is too small: planes, height and width must be at "
            f"least {LEAST_SIZE}."
        )
    sort = STACKS[name]
    draws, rng = (np.random.default_rng([seed, part]) for part in (1, 2))
    style = {**_recording(draws), **sort.style(draws)}
    space = Space(size, style["apart"])
    grey, parts = sort.render(style, rng, space)
    kinds, instances = number_objects(parts, size)
    return Stack(_recorded(style, rng, grey), kinds, instances, (style["apart"], 1.0, 1.0))


def _recording(rng: np.random.Generator) -> dict[str, float]:
    """How a stack is recorded, where its sort does not say otherwise."""
    return {
        "apart": log_uniform(rng, 1.0, 5.0),
        "blur": float(rng.uniform(0.4, 1.1)),
        "axial": 0.0,
        "photons": 10 ** rng.uniform(2.0, 3.3),
        "read": log_uniform(rng, 0.003, 0.02),
        "gamma": float(np.exp(rng.normal(0, 0.12))),
        "floor": float(rng.uniform(0.0, 0.08)),
        "span": float(rng.uniform(0.6, 0.9)),
        "flicker": 0.0,
        "fading": 0.0,
    }


def _recorded(style: Style, rng: np.random.Generator, grey: Field) -> NDArray[np.uint8]:
    """Blur within and across planes, light that changes from plane to plane, and noise."""
    across = style["axial"] / style["apart"]
    grey = ndimage.gaussian_filter(grey, (across, style["blur"], style["blur"]), truncate=3.0)
    gains = np.exp(style["flicker"] * rng.standard_normal(len(grey)))
    gains = gains * np.exp(-style["fading"] * np.linspace(0, 1, len(grey)))
    grey = np.asarray(grey * gains[:, None, None], np.float32)
    grey = shot_and_read_noise(rng, grey, style["photons"], style["read"])
    grey = style["floor"] + style["span"] * gamma_curve(grey, style["gamma"])
    return np.asarray(np.clip(255 * grey + 0.5, 0, 255), np.uint8)
