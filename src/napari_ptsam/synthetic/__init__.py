"""Endless procedural micrographs with masks, to train a small backbone on.

Nothing here was measured on any real picture. A type of scenes is a pure
function of its seed, and a scene of its type and its own seed. Stacks of planes are
cut from bodies in space, so that neighbouring planes belong together.
"""

from __future__ import annotations

from napari_ptsam.synthetic.catalogue import FAMILIES, SceneType, draw_type, render
from napari_ptsam.synthetic.scene import KINDS, Family, Scene, Style, kind
from napari_ptsam.synthetic.stacks import STACKS, Stack, stack

__all__ = [
    "FAMILIES",
    "KINDS",
    "STACKS",
    "Family",
    "Scene",
    "SceneType",
    "Stack",
    "Style",
    "draw_type",
    "kind",
    "render",
    "stack",
]
