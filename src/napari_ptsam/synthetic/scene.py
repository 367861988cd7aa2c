"""What a procedural scene is: an image, what each pixel is, and which object it is."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

KINDS = (
    "background",
    "nucleus",
    "cell",
    "boundary",
    "organelle",
    "vesicle",
    "membrane",
    "filament",
    "particle",
    "core",
    "organoid",
    "lumen",
    "polyp",
    "gland",
    "stroma",
    "colony",
    "pore",
    "spot",
    "debris",
    "phase",
    "vessel",
)
"""What a pixel can be. `Scene.kinds` holds indices into this tuple."""

Style = Mapping[str, float]
"""The continuous parameters that all scenes of one type share."""


def kind(name: str) -> int:
    """Index of a kind in `KINDS`."""
    return KINDS.index(name)


@dataclass(frozen=True)
class Scene:
    """One procedural micrograph.

    Attributes
    ----------
    image
        HxWx3 uint8. Grey images repeat one channel.
    kinds
        HxW uint8, index into `KINDS`; 0 is background.
    instances
        HxW uint16, unique id of each object in the scene, 0 where there is none.
        An object of several kinds (a cell and its nucleus) has one id per part.
    """

    image: NDArray[np.uint8]
    kinds: NDArray[np.uint8]
    instances: NDArray[np.uint16]


@dataclass(frozen=True)
class Family:
    """A continuous family of scene types.

    `style` draws one type (its object sizes, contrast, optics, clutter);
    `render` draws any number of different scenes of that type.
    """

    name: str
    style: Callable[[np.random.Generator], dict[str, float]]
    render: Callable[[Style, np.random.Generator, tuple[int, int]], Scene]
