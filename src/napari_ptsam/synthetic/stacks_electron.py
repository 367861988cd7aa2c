"""Sorts of stacks of sections in the electron microscope: neuropil, mitochondria."""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from napari_ptsam.synthetic.bodies import Bodies
from napari_ptsam.synthetic.fields import Field
from napari_ptsam.synthetic.layers import log_uniform
from napari_ptsam.synthetic.scene import Style
from napari_ptsam.synthetic.space import Part, Point, Sort, Space, edges


def _neuropil_style(rng: np.random.Generator) -> dict[str, float]:
    size = log_uniform(rng, 20, 44)
    return {
        "size": size,
        "apart": log_uniform(rng, 2.0, 8.0),
        "warp": float(rng.uniform(0.15, 0.35)),
        "joined": float(rng.uniform(0.2, 0.6)),
        "stretch": log_uniform(rng, 1.2, 4.0),
        "membrane": float(np.clip(size * rng.uniform(0.08, 0.16), 2.2, 5.0)),
        "dark": float(rng.uniform(0.25, 0.55)),
        "slant": float(rng.uniform(0.2, 0.7)),
        "level": float(rng.uniform(0.6, 0.8)),
        "vary": float(rng.uniform(0.0, 0.04)),
        "large": float(rng.uniform(0.7, 1.6) * size),
        "larges": float(rng.uniform(0.0, 5.0)),
        "grain": float(rng.uniform(0.02, 0.06)),
        "mito": float(np.clip(size * rng.uniform(0.2, 0.35), 4, 12)),
        "mitos": float(rng.uniform(0.01, 0.05)),
        "mito_dark": float(rng.uniform(0.08, 0.3)),
        "flicker": float(rng.uniform(0.0, 0.06)),
        "photons": 10 ** rng.uniform(1.9, 3.0),
    }


def _neuropil(style: Style, rng: np.random.Generator, space: Space) -> tuple[Field, list[Part]]:
    """Sections through packed neurites, as the electron microscope shows them."""
    ids = space.cells(
        rng, style["size"], joined=style["joined"], stretch=style["stretch"], warp=style["warp"]
    )
    large = Bodies(space)
    for place in space.scattered(rng, style["size"], int(rng.poisson(style["larges"]))):
        size = style["large"] * math.exp(rng.normal(0, 0.3))
        for _ in range(2):  # One end of the tube, and the other.
            large.add_tube(rng, place, size, 1.2 * max(space.extent), wander=0.1)
    ids = np.where(large.mask, large.ids + int(ids.max()), ids).astype(np.int32)
    edge = edges(ids)
    half = 0.5 * style["membrane"]
    mitos = Bodies(space)
    room = edge > half + 1
    count = int(rng.poisson(style["mitos"] * math.prod(space.extent) / (40 * style["mito"] ** 3)))
    for place in space.scattered(rng, 3 * style["mito"], min(count, 60)):
        own = _at(ids, space, place)
        mitos.add_tube(rng, place, style["mito"], 6 * style["mito"], within=room & (ids == own))
    tone = style["vary"] * rng.standard_normal(int(ids.max()) + 1).astype(np.float32)
    grey = style["level"] + tone[ids] + style["grain"] * space.noise(rng, 4)
    grey = grey + _mitochondrion(style, rng, space, mitos)
    line = np.clip(half + 0.6 - edge, 0, 1.2) / 1.2
    # Where the border moves from one section to the next it was cut at a slant.
    moves = np.zeros(space.shape, np.float32)
    moves[:-1] = ids[:-1] != ids[1:]
    smear = ndimage.gaussian_filter(moves, (0, 1.2, 1.2))
    grey = grey - style["dark"] * np.maximum(line, style["slant"] * smear)
    membrane = edge < half
    return np.asarray(grey, np.float32), [
        ("cell", np.where(membrane, 0, ids).astype(np.int32)),
        ("organelle", np.where(membrane, 0, mitos.ids).astype(np.int32)),
        ("membrane", membrane),
    ]


def _at(ids: NDArray[np.int32], space: Space, place: Point) -> int:
    """The number at the voxel that is nearest to a place."""
    voxel = (place[0] / space.apart, place[1], place[2])
    nearest = tuple(min(max(int(v), 0), s - 1) for v, s in zip(voxel, space.shape, strict=True))
    return int(ids[nearest])


def _mitochondrion(style: Style, rng: np.random.Generator, space: Space, mitos: Bodies) -> Field:
    """What mitochondria add to the picture: a matrix with cristae in a dark membrane."""
    depth = mitos.depth
    folds = np.tanh(2 * space.noise(rng, max(0.5 * style["mito"], 2.5)))
    body = np.clip(depth / 2, 0, 1) * (0.4 * folds - 1) * style["mito_dark"]
    rim = np.clip(1.8 - np.abs(depth - 1), 0, 1) * mitos.mask
    return np.asarray(body * mitos.jitter(rng, 0.15) - 0.6 * style["dark"] * rim, np.float32)


def _mitochondria_style(rng: np.random.Generator) -> dict[str, float]:
    return {
        "mito": log_uniform(rng, 6, 14),
        "apart": log_uniform(rng, 1.0, 3.0),
        "cover": float(rng.uniform(0.05, 0.2)),
        "wander": float(rng.uniform(0.1, 0.5)),
        "length": float(rng.uniform(3, 14)),
        "dark": float(rng.uniform(0.25, 0.5)),
        "mito_dark": float(rng.uniform(0.1, 0.3)),
        "level": float(rng.uniform(0.6, 0.8)),
        "grain": float(rng.uniform(0.02, 0.06)),
        "reticulum": float(rng.uniform(0.05, 0.25)),
        "vesicle": log_uniform(rng, 2.5, 6),
        "vesicles": float(rng.choice([0.0, rng.uniform(0.002, 0.01)])),
        "flicker": float(rng.uniform(0.0, 0.04)),
    }


def _mitochondria(style: Style, rng: np.random.Generator, space: Space) -> tuple[Field, list[Part]]:
    """Winding mitochondria in the cytoplasm of one cell, as the electron microscope shows them."""
    mitos, vesicles = Bodies(space), Bodies(space)
    radius = style["mito"]
    tube = 3.14 * radius**3 * style["length"]
    count = int(rng.poisson(style["cover"] * math.prod(space.extent) / tube)) + 2
    for place in space.scattered(rng, 2 * radius, min(count, 60)):
        size = radius * math.exp(rng.normal(0, 0.15))
        length = style["length"] * radius * rng.uniform(0.5, 1.3)
        mitos.add_tube(rng, place, size, length, wander=style["wander"])
    for place in space.crowd(rng, style["vesicle"], style["vesicles"]):
        vesicles.add(rng, place, style["vesicle"], within=~mitos.mask)
    walls = np.abs(space.noise(rng, 14)) < 0.12
    walls &= (space.noise(rng, 50) > 0) & ~mitos.mask
    grey = style["level"] + style["grain"] * space.noise(rng, 5)
    grey = grey - style["reticulum"] * ndimage.gaussian_filter(
        walls.astype(np.float32), (0, 0.7, 0.7)
    )
    grey = grey + _mitochondrion(style, rng, space, mitos)
    ring = np.clip(1.6 - np.abs(vesicles.depth - 0.8), 0, 1) * vesicles.mask
    grey = grey - 0.5 * style["dark"] * ring
    return np.asarray(grey, np.float32), [
        ("vesicle", vesicles.ids),
        ("organelle", mitos.ids),
    ]


SORTS = {
    "neuropil": Sort(_neuropil_style, _neuropil),
    "mitochondria": Sort(_mitochondria_style, _mitochondria),
}
"""Stacks recorded with electrons."""
