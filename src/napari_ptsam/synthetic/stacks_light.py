"""Sorts of stacks in the light microscope: nuclei, stained tissue, organoids."""

from __future__ import annotations

import math

import numpy as np
from scipy import ndimage

from napari_ptsam.synthetic.bodies import Bodies
from napari_ptsam.synthetic.fields import Field
from napari_ptsam.synthetic.layers import log_uniform
from napari_ptsam.synthetic.scene import Style
from napari_ptsam.synthetic.space import Part, Sort, Space, edges


def _nuclei_style(rng: np.random.Generator) -> dict[str, float]:
    return {
        "radius": log_uniform(rng, 7, 18),
        "cover": float(rng.uniform(0.08, 0.4)),
        "long": float(rng.uniform(1.0, 1.8)),
        "rough": float(rng.uniform(0.0, 0.1)),
        "signal": float(rng.uniform(0.35, 0.7)),
        "texture": float(rng.uniform(0.05, 0.3)),
        "haze": float(rng.uniform(0.02, 0.12)),
        "axial": float(rng.uniform(1.0, 3.5)),
        "fading": float(rng.uniform(0.0, 0.6)),
    }


def _nuclei(style: Style, rng: np.random.Generator, space: Space) -> tuple[Field, list[Part]]:
    """Fluorescent nuclei, blurred along the view, fainter the deeper they lie."""
    bodies = Bodies(space)
    rough = style["rough"] * space.noise(rng, 0.8 * style["radius"])
    for place in space.crowd(rng, style["radius"], style["cover"]):
        size = style["radius"] * math.exp(rng.normal(0, 0.15))
        bodies.add(rng, place, size, long=style["long"], rough=rough)
    clumps = 1 + style["texture"] * space.noise(rng, 0.4 * style["radius"])
    grey = style["signal"] * bodies.jitter(rng, 0.25) * clumps
    grey = grey + style["haze"] * (1 + 0.3 * space.noise(rng, 60))
    return np.asarray(grey, np.float32), [("nucleus", bodies.ids)]


def _cells_style(rng: np.random.Generator) -> dict[str, float]:
    size = log_uniform(rng, 20, 48)
    return {
        "size": size,
        "warp": float(rng.uniform(0.05, 0.2)),
        "line": float(rng.uniform(1.5, 0.09 * size + 1)),
        "signal": float(rng.uniform(0.35, 0.75)),
        "inside": float(rng.uniform(0.02, 0.15)),
        "nucleus": float(rng.uniform(0.18, 0.3)),
        "nucleus_light": float(rng.uniform(0.08, 0.35)),
        "axial": float(rng.uniform(0.5, 2.0)),
        "fading": float(rng.uniform(0.0, 0.4)),
    }


def _cells(style: Style, rng: np.random.Generator, space: Space) -> tuple[Field, list[Part]]:
    """Tissue of cells whose membranes are stained, each with a nucleus."""
    ids = space.cells(rng, style["size"], warp=style["warp"])
    edge = edges(ids)
    nuclei = Bodies(space)
    deep = edge > 2
    sizes = np.bincount(ids.ravel())
    middles = ndimage.center_of_mass(np.ones_like(ids), ids, np.arange(1, len(sizes)))
    least = 0.15 * style["size"] ** 3 / space.apart
    for number, (z, y, x) in enumerate(middles, 1):
        if sizes[number] > least:
            size = style["nucleus"] * style["size"] * math.exp(rng.normal(0, 0.1))
            place = (float(z) * space.apart, float(y), float(x))
            nuclei.add(rng, place, size, long=1.2, within=deep)
    lines = np.clip(1 - edge / style["line"], 0, 1)
    patchy = np.clip(1 + 0.25 * space.noise(rng, 25), 0.4, 2)
    grey = style["signal"] * lines * patchy + style["inside"]
    grey = grey + style["nucleus_light"] * np.clip(nuclei.depth / 2, 0, 1) * ~(lines > 0)
    membrane = edge < 0.6 * style["line"]
    cell = np.where(membrane, 0, ids).astype(np.int32)
    return np.asarray(np.maximum(grey, 0.01), np.float32), [
        ("cell", cell),
        ("nucleus", nuclei.ids),
        ("membrane", membrane),
    ]


def _organoid_style(rng: np.random.Generator) -> dict[str, float]:
    radius = log_uniform(rng, 14, 40)
    return {
        "radius": radius,
        "apart": log_uniform(rng, 2.0, 8.0),
        "cover": float(rng.uniform(0.1, 0.35)),
        "rough": float(rng.uniform(0.02, 0.1)),
        "lumen": float(rng.uniform(0.5, 0.85) if rng.random() < 0.7 else 0.0),
        "level": float(rng.uniform(0.6, 0.75)),
        "rim": float(rng.uniform(0.12, 0.4)),
        "rim_width": float(np.clip(radius * rng.uniform(0.06, 0.15), 1.5, 5)),
        "dense": float(rng.uniform(0.02, 0.25)),
        "folds": float(rng.uniform(0.02, 0.12)),
        "gel": float(rng.uniform(0.01, 0.04)),
        "beyond": float(rng.uniform(0.2, 0.6)),
        "flicker": float(rng.uniform(0.0, 0.02)),
    }


def _organoids(style: Style, rng: np.random.Generator, space: Space) -> tuple[Field, list[Part]]:
    """Hollow and solid spheres in a gel, in bright field: other planes shine through, blurred."""
    bodies, lumens = Bodies(space), Bodies(space)
    rough = style["rough"] * space.noise(rng, 0.6 * style["radius"])
    for place in space.crowd(rng, style["radius"], style["cover"]):
        size = style["radius"] * math.exp(rng.normal(0, 0.3))
        bodies.add(rng, place, size, long=1.1, rough=rough)
        if style["lumen"] > 0 and rng.random() < 0.75:
            inner = bodies.ids == len(bodies)
            lumens.add(rng, place, size * style["lumen"], within=inner & (bodies.level > 0.08))
    width = style["rim_width"]
    filled = np.clip(bodies.depth / width, 0, 1) * (1 - 0.9 * np.clip(lumens.depth / width, 0, 1))
    drawn = filled * (style["folds"] * space.noise(rng, 0.3 * style["radius"]) - style["dense"])
    drawn = drawn - style["rim"] * np.exp(-((bodies.depth / width) ** 2)) * bodies.mask
    drawn = drawn - 0.5 * style["rim"] * np.exp(-((lumens.depth / width) ** 2)) * lumens.mask
    planes = 0.7 * style["radius"] / space.apart
    haze = ndimage.gaussian_filter(drawn, (planes, 4, 4), truncate=2.0)
    gel = style["gel"] * space.noise(rng, 12)
    grey = style["level"] + gel + drawn + style["beyond"] * haze
    return np.asarray(grey, np.float32), [("organoid", bodies.ids), ("lumen", lumens.ids)]


SORTS = {
    "nuclei": Sort(_nuclei_style, _nuclei),
    "cells": Sort(_cells_style, _cells),
    "organoids": Sort(_organoid_style, _organoids),
}
"""Stacks recorded with light."""
