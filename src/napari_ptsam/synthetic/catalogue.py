"""All families of scenes, and endless types drawn from them."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from napari_ptsam.synthetic import (
    electron,
    fluorescence,
    generic,
    lumen,
    materials,
    neuropil,
    organs,
    particles,
    phase,
    stained,
    tissue,
    transmitted,
)
from napari_ptsam.synthetic.scene import Family, Scene, Style

FAMILIES: tuple[Family, ...] = (
    *fluorescence.FAMILIES,
    *transmitted.FAMILIES,
    *stained.FAMILIES,
    *electron.FAMILIES,
    *particles.FAMILIES,
    *tissue.FAMILIES,
    *organs.FAMILIES,
    *materials.FAMILIES,
    *generic.FAMILIES,
    *neuropil.FAMILIES,
    *phase.FAMILIES,
    *lumen.FAMILIES,
)
"""All families of scene types."""


@dataclass(frozen=True)
class SceneType:
    """One type of scenes: a family and the style that all its scenes share."""

    family: Family
    style: Style


def draw_type(seed: int) -> SceneType:
    """Draw a type of scenes; the same seed always gives the same type.

    Parameters
    ----------
    seed
        Any integer that is not negative.
    """
    rng = np.random.default_rng(seed)
    family = FAMILIES[int(rng.integers(len(FAMILIES)))]
    return SceneType(family, family.style(rng))


def render(scene_type: SceneType, seed: int, size: tuple[int, int] = (320, 320)) -> Scene:
    """Render one scene of a type; the same type, seed and size always give the same scene.

    Parameters
    ----------
    seed
        Any integer that is not negative.
    size
        Height and width of the scene in pixels, at least 64 each.
    """
    # A constant keeps the scene's draws independent of those of a type of equal seed.
    rng = np.random.default_rng((seed, 0x5CE7E))
    return scene_type.family.render(scene_type.style, rng, size)
