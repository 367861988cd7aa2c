"""Families of sections of cells and tissue in the electron microscope."""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

from napari_ptsam.synthetic.camera import draw_camera_style, expose
from napari_ptsam.synthetic.fields import Field, Mask, blur, fractal_noise, mosaic, smooth_noise
from napari_ptsam.synthetic.layers import (
    Layer,
    Shape,
    finish,
    is_empty,
    log_uniform,
    population,
)
from napari_ptsam.synthetic.scene import Family, Scene, Style
from napari_ptsam.synthetic.textures import oriented_noise


def _section(rng: np.random.Generator) -> dict[str, float]:
    """How a section is stained, cut and recorded."""
    style = draw_camera_style(rng)
    return {
        **style,
        "photons": 10 ** rng.uniform(1.7, 3.3),
        "light": 0.3 * style["light"],
        "span": max(style["span"], float(rng.uniform(0.35, 0.8))),
        "blur": min(style["blur"], 1.1),
        "invert": float(rng.random() < 0.12),
        "cytoplasm": float(rng.uniform(0.5, 0.8)),
        "stain": float(rng.uniform(0.2, 0.55)),
        "grain": log_uniform(rng, 0.015, 0.07),
        "grain_scale": log_uniform(rng, 1.5, 6),
        "vary": float(rng.uniform(0.0, 0.09)),
        "waves": float(rng.uniform(0.0, 0.06)),
        "knife": float(rng.choice([0.0, rng.uniform(0.01, 0.05)])),
        "slant": float(rng.uniform(0.0, 0.45)),
    }


def _finish_section(style: Style, rng: np.random.Generator, grey: Field) -> NDArray[np.uint8]:
    """Add slow staining changes and knife marks, and record."""
    shape = (grey.shape[0], grey.shape[1])
    grey = grey + style["waves"] * smooth_noise(rng, shape, 90)
    if style["knife"] > 0:
        grey = grey + style["knife"] * oriented_noise(rng, shape, 2.0, 1.2, 60)
    return expose(np.asarray(grey, np.float32), style, rng)


def _line(distance: Field, width: float) -> Field:
    """1 within `width` pixels around where the distance is 0, softly falling to 0."""
    return np.asarray(np.clip(0.5 * width + 0.5 - np.abs(distance), 0, 1), np.float32)


def _neuropil_style(rng: np.random.Generator) -> dict[str, float]:
    size = log_uniform(rng, 16, 90)
    organ = float(np.clip(size * rng.uniform(0.15, 0.32), 3, 22))
    large = size > 28
    return {
        **_section(rng),
        **population(rng, "mito", organ, rng.uniform(0.04, 0.14), apart=1.1),
        **population(rng, "vesicle", log_uniform(rng, 1.6, 4.5), 0.35, apart=0.75, long=1.0),
        "mito_long": float(rng.uniform(1.0, 3.0)),
        "size": size,
        "regular": float(rng.uniform(0.0, 0.6)),
        "warp": float(rng.uniform(0.1, 0.3)),
        "stretch": float(rng.choice([1.0, rng.uniform(1.3, 3.0)])),
        "membrane": float(np.clip(size * rng.uniform(0.05, 0.11), 1.9, 6)),
        "membrane_dark": float(rng.uniform(0.28, 0.6)),
        "fuzzy": float(rng.uniform(0.0, 0.4)),
        "mito_dark": float(rng.uniform(0.05, 0.3)),
        "cristae": float(rng.uniform(0.0, 0.2)),
        "cristae_scale": float(np.clip(organ * rng.uniform(0.15, 0.3), 1.5, 5)),
        "clusters": float(rng.uniform(0.1, 0.8) if large and rng.random() < 0.7 else 0.0),
        "vesicle_light": float(rng.choice([-1, 1]) * rng.uniform(0.05, 0.2)),
        "tubules": float(rng.uniform(0.05, 0.25) if large else 0.0),
        "myelin": float(rng.uniform(0.03, 0.12) if rng.random() < 0.25 else 0.0),
        "dark_cells": float(rng.choice([0.0, rng.uniform(0.05, 0.2)])),
    }


def _stretched_mosaic(
    rng: np.random.Generator, style: Style, shape: Shape
) -> tuple[NDArray[np.int32], Field]:
    """Cells of different size, in some types all stretched one way, as `mosaic` has them."""
    tall = (math.ceil(shape[0] / style["stretch"]) + 1, shape[1])
    tile, edge = mosaic(rng, tall, style["size"], regularity=style["regular"], warp=style["warp"])
    if style["stretch"] > 1:
        rows = np.minimum((np.arange(shape[0]) / style["stretch"]).astype(int), tall[0] - 1)
        tile, edge = tile[rows], blur(edge[rows], 0.5 * style["stretch"])
    tile, edge = tile[: shape[0]], np.asarray(edge[: shape[0]], np.float32)
    # Coarse sampling misses that the distance falls to 0 on every border.
    border = np.zeros(shape, np.float32)
    border[1:] = tile[1:] != tile[:-1]
    border[:, 1:] = np.maximum(border[:, 1:], tile[:, 1:] != tile[:, :-1])
    return tile, edge * (1 - np.minimum(2 * blur(border, 1.0), 1))


def _mitochondria(rng: np.random.Generator, style: Style, grey: Field, mitos: Layer) -> Field:
    """Draw the organelles of a layer over a picture: matrix, cristae and double membrane."""
    depth = mitos.depth()
    inner = mitos.inside(1.5)
    turn = rng.uniform(0, math.pi)
    folds = oriented_noise(rng, mitos.shape, style["cristae_scale"], turn, 5)
    body = -style["mito_dark"] * mitos.jitter(rng, 0.2) + style["cristae"] * np.tanh(folds)
    grey = np.asarray(grey + inner * body, np.float32)
    rim = _line(depth - 1, 1.4) * mitos.mask
    return np.asarray(grey - 0.7 * style["membrane_dark"] * rim, np.float32)


def _vesicles(style: Style, grey: Field, vesicles: Layer) -> Field:
    """Draw small rings with a light or a dark inside over a picture."""
    depth = vesicles.depth()
    rim = _line(depth - 0.5, 1.0) * vesicles.mask
    grey = grey + style["vesicle_light"] * vesicles.inside(1.5)
    return np.asarray(grey - 0.6 * style["membrane_dark"] * rim, np.float32)


def _neuropil(style: Style, rng: np.random.Generator, shape: Shape) -> Scene:
    tile, edge = _stretched_mosaic(rng, style, shape)
    width = style["membrane"]
    # Membranes cut at a slant are wider and fainter there.
    slant = np.exp(0.6 * style["slant"] * smooth_noise(rng, shape, 0.7 * style["size"]))
    half = 0.5 * width * np.clip(slant, 0.6, 2.2)
    membrane = edge < half
    count = int(tile.max()) + 1
    cell = np.where(membrane, 0, tile + 1).astype(np.int32)
    tone = style["vary"] * rng.normal(0, 1, count)
    tone = tone - style["dark_cells"] * (rng.random(count) < 0.15)
    grey = style["cytoplasm"] + tone[tile].astype(np.float32)
    grey = grey + style["grain"] * fractal_noise(rng, shape, style["grain_scale"] * 2, 3)
    room = edge > half + 1.5
    if style["tubules"] > 0:
        wall = np.abs(smooth_noise(rng, shape, 9)) < 0.07
        grey -= style["tubules"] * blur(wall & room, 0.7)
    mitos, vesicles = Layer(shape), Layer(shape)
    if not is_empty(rng):
        mitos.scatter(rng, style, "mito", within=room)
    if style["clusters"] > 0:
        near = smooth_noise(rng, shape, 30) > 1.2 - style["clusters"]
        free = room & ~mitos.mask
        vesicles.scatter(rng, style, "vesicle", within=free, centred=free & near)
    grey = _vesicles(style, _mitochondria(rng, style, grey, mitos), vesicles)
    dark = np.clip(half + 0.6 - edge, 0, 1.2) / 1.2 / np.clip(slant, 0.8, 2)
    dark *= 1 - style["fuzzy"] * (0.5 + 0.25 * smooth_noise(rng, shape, 12))
    sheath = rng.random(count) < style["myelin"]
    wrap = sheath[tile] & (edge < 0.12 * style["size"])
    grey = np.where(wrap, 0.2 + 0.1 * np.sin(2.2 * edge), grey)
    grey = grey - style["membrane_dark"] * np.clip(dark, 0, 1) * ~wrap
    parts: list[tuple[str, NDArray[np.int32] | Mask]] = [
        ("cell", cell),
        ("organelle", mitos.ids),
        ("vesicle", vesicles.ids),
        ("membrane", membrane | wrap),
    ]
    return finish(_finish_section(style, rng, np.asarray(grey, np.float32)), parts)


def _ultrastructure_style(rng: np.random.Generator) -> dict[str, float]:
    radius = log_uniform(rng, 14, 60)
    style = _neuropil_style(rng)
    style.update(population(rng, "mito", radius, rng.uniform(0.15, 0.5), apart=0.95))
    style.update(population(rng, "vesicle", log_uniform(rng, 3, 10), rng.choice([0.0, 0.06])))
    style.update(population(rng, "core", log_uniform(rng, 3, 14), rng.choice([0.0, 0.04])))
    return {
        **style,
        "mito_long": float(rng.uniform(1.2, 3.5)),
        "vesicle_long": 1.05,
        "cristae": float(rng.uniform(0.05, 0.25)),
        "cristae_scale": float(np.clip(radius * rng.uniform(0.08, 0.16), 2, 7)),
        "rim": float(rng.uniform(1.2, 3.0)),
        "reticulum": float(rng.uniform(0.0, 0.3)),
        "reticulum_scale": log_uniform(rng, 6, 24),
        "ribosomes": float(rng.uniform(0.0, 0.25)),
        "core_dark": float(rng.uniform(0.15, 0.5)),
    }


def _ultrastructure(style: Style, rng: np.random.Generator, shape: Shape) -> Scene:
    grey = style["cytoplasm"] + style["grain"] * fractal_noise(
        rng, shape, style["grain_scale"] * 2, 3
    )
    mitos, vesicles, cores = (Layer(shape) for _ in range(3))
    if not is_empty(rng):
        mitos.scatter(rng, style, "mito")
    vesicles.scatter(rng, style, "vesicle", within=~mitos.mask)
    cores.scatter(rng, style, "core", within=~mitos.mask & ~vesicles.mask)
    sheets = oriented_noise(rng, shape, style["reticulum_scale"], rng.uniform(0, 3), 4)
    wall = (np.abs(sheets) < 0.12) & (smooth_noise(rng, shape, 60) > -0.3) & ~mitos.mask
    grey = grey - style["reticulum"] * blur(wall, 0.8)
    dots = np.clip(smooth_noise(rng, shape, 2.5) - 1.2, 0, 1)
    grey = grey - style["ribosomes"] * dots * ~mitos.mask
    depth = mitos.depth()
    folds = oriented_noise(rng, shape, style["cristae_scale"], rng.uniform(0, 3), 4)
    cristae = np.abs(folds + 0.3 * smooth_noise(rng, shape, 20)) < 0.3
    body = -style["mito_dark"] * mitos.jitter(rng, 0.15)
    grey = grey + mitos.inside(2) * body
    grey -= 1.2 * style["cristae"] * blur(cristae & (depth > style["rim"] + 1), 0.8)
    for place in (1.0, 1.0 + 1.6 * style["rim"]):
        rim = _line(depth - place, 0.7 * style["rim"]) * mitos.mask
        grey = grey - 0.6 * style["membrane_dark"] * rim
    grey = _vesicles(style, np.asarray(grey, np.float32), vesicles)
    grey = grey - style["core_dark"] * cores.inside(1.5) * cores.jitter(rng, 0.2)
    parts = [
        ("core", cores.ids),
        ("organelle", mitos.ids),
        ("vesicle", vesicles.ids),
    ]
    return finish(_finish_section(style, rng, np.asarray(grey, np.float32)), parts)


def _cell_style(rng: np.random.Generator) -> dict[str, float]:
    size = log_uniform(rng, 60, 260)
    return {
        **_section(rng),
        **population(rng, "mito", size * rng.uniform(0.03, 0.08), rng.uniform(0.05, 0.2)),
        **population(rng, "vesicle", max(size * rng.uniform(0.012, 0.04), 1.6), 0.08, long=1.05),
        "mito_long": float(rng.uniform(1.0, 2.5)),
        "size": size,
        "regular": float(rng.uniform(0.3, 0.8)),
        "warp": float(rng.uniform(0.05, 0.2)),
        "gap": float(rng.uniform(1.5, 0.12 * size)),
        "matrix": float(rng.uniform(0.0, 0.25) * rng.choice([-1, 1])),
        "nucleus": float(rng.uniform(0.2, 0.38)),
        "nucleus_dark": float(rng.uniform(-0.12, 0.2)),
        "chromatin": float(rng.uniform(0.05, 0.3)),
        "chromatin_scale": float(size * rng.uniform(0.05, 0.15)),
        "envelope": float(rng.uniform(1.0, 2.5)),
        "nucleolus": float(rng.uniform(0.1, 0.35)),
        "membrane_dark": float(rng.uniform(0.15, 0.5)),
        "mito_dark": float(rng.uniform(0.08, 0.35)),
        "cristae": float(rng.uniform(0.0, 0.15)),
        "cristae_scale": 2.0,
        "vesicle_light": float(rng.choice([-0.35, 0.25]) * rng.uniform(0.5, 1.2)),
    }


def _cells(style: Style, rng: np.random.Generator, shape: Shape) -> Scene:
    tile, edge = mosaic(rng, shape, style["size"], regularity=style["regular"], warp=style["warp"])
    count = int(tile.max()) + 1
    present = rng.random(count) < rng.uniform(0.7, 1.05)
    inside = edge - 0.5 * style["gap"]
    body = (inside > 0) & present[tile]
    cell = np.where(body, tile + 1, 0).astype(np.int32)
    grey = style["cytoplasm"] + style["grain"] * fractal_noise(
        rng, shape, style["grain_scale"] * 3, 4
    )
    grey = grey + (style["vary"] * rng.normal(0, 1, count))[tile]
    around = style["cytoplasm"] + style["matrix"] + 0.08 * fractal_noise(rng, shape, 8, 3)
    grey = np.where(body, grey, around)
    nuclei, mitos, vesicles = (Layer(shape) for _ in range(3))
    for number in np.unique(cell)[1:]:
        ys, xs = np.nonzero(cell[::4, ::4] == number)
        if len(ys) * 16 < 0.25 * style["size"] ** 2 or rng.random() < 0.15:
            continue
        radius = min(style["nucleus"] * style["size"], 0.45 * math.sqrt(16 * len(ys)))
        nuclei.add(
            rng,
            (4 * float(ys.mean()), 4 * float(xs.mean())),
            radius,
            elongation=rng.uniform(1, 1.6),
            angle=rng.uniform(0, math.pi),
            roughness=0.2,
            within=body & (inside > 3),
        )
    free = body & ~nuclei.mask & (inside > 2)
    if not is_empty(rng):
        mitos.scatter(rng, style, "mito", within=free)
    vesicles.scatter(rng, style, "vesicle", within=free & ~mitos.mask)
    grey = grey - style["membrane_dark"] * _line(inside - 0.7, 1.5) * body
    grey = _mitochondria(rng, style, np.asarray(grey, np.float32), mitos)
    grey = _vesicles(style, grey, vesicles)
    parts = [
        ("cell", cell),
        ("organelle", mitos.ids),
        ("vesicle", vesicles.ids),
        ("nucleus", nuclei.ids),
    ]
    grey = _chromatin(rng, style, grey, nuclei)
    return finish(_finish_section(style, rng, grey), parts)


def _chromatin(rng: np.random.Generator, style: Style, grey: Field, nuclei: Layer) -> Field:
    """Draw the nuclei of a layer: envelope, clumps that gather at its inside, nucleolus."""
    depth = nuclei.depth()
    clump = fractal_noise(rng, nuclei.shape, style["chromatin_scale"], 4)
    rim = np.exp(-depth / (0.5 * style["chromatin_scale"] + 1))
    dense = np.clip(clump + 1.5 * rim - 0.4, 0, 1)
    core = np.clip((nuclei.level - 0.62 + 0.05 * clump) * 12, 0, 1)
    level = style["cytoplasm"] - style["nucleus_dark"] - style["chromatin"] * dense
    level = level - style["nucleolus"] * core + 0.4 * style["grain"] * clump
    inner = nuclei.inside(1.0)
    grey = grey * (1 - inner) + inner * level
    line = _line(depth - 0.8, style["envelope"]) * nuclei.mask
    return np.asarray(grey - 0.7 * style["membrane_dark"] * line, np.float32)


FAMILIES = (
    Family("neuropil", _neuropil_style, _neuropil),
    Family("ultrastructure", _ultrastructure_style, _ultrastructure),
    Family("sectioned-cells", _cell_style, _cells),
)
