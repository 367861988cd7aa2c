"""Polished and etched sections of solids: grains, second phases, inclusions, pores."""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

from napari_ptsam.synthetic.camera import draw_camera_style, expose
from napari_ptsam.synthetic.fields import Field, Mask, fractal_noise, mosaic
from napari_ptsam.synthetic.layers import Layer, Shape, finish, is_empty, log_uniform, population
from napari_ptsam.synthetic.scene import Family, Scene, Style
from napari_ptsam.synthetic.textures import draw_texture, paint_texture


def _material_style(rng: np.random.Generator) -> dict[str, float]:
    radius = log_uniform(rng, 4, 60)
    style = {**draw_camera_style(rng), **draw_texture(rng, "ground"), **draw_texture(rng, "phase")}
    style.update(population(rng, "pore", radius, log_uniform(rng, 0.08, 0.7), apart=0.75))
    bits = float(np.clip(radius * log_uniform(rng, 0.3, 1.5), 3, 50))
    style.update(population(rng, "bit", bits, rng.choice([0.0, rng.uniform(0.03, 0.25)])))
    style["level"] = float(rng.uniform(0.4, 0.75))
    style["tiled"] = float(rng.random() < 0.55)
    style["size"] = log_uniform(rng, 16, 110)
    style["line"] = log_uniform(rng, 1.0, 4.0)
    style["line_light"] = float(rng.choice([-0.35, -0.2, -0.1, 0.2]) * rng.uniform(0.7, 1.3))
    style["vary"] = float(rng.choice([0.0, rng.uniform(0.02, 0.2)]))
    style["second"] = float(rng.choice([0.0, rng.uniform(0.1, 0.5)]))
    style["second_light"] = float(rng.choice([-1, 1]) * rng.uniform(0.05, 0.3))
    style["etched"] = float(rng.choice([0.0, rng.uniform(0.02, 0.1)]))
    style["pore_light"] = float(rng.uniform(-0.6, -0.15))
    style["pore_rim"] = float(rng.choice([0.0, rng.uniform(-0.2, 0.3)]))
    style["pore_floor"] = float(rng.uniform(0.0, 0.15))
    style["bit_light"] = float(rng.uniform(0.1, 0.4))
    style["scratch"] = float(rng.choice([0.0, rng.uniform(1, 10)]))
    style["tint"] = float(rng.uniform(-0.15, 0.15) if rng.random() < 0.3 else 0.0)
    return style


def _grains(
    style: Style, rng: np.random.Generator, shape: Shape
) -> tuple[Field, list[tuple[str, NDArray[np.int32] | Mask]]]:
    """Grains of a polished and etched section: brightness and parts."""
    tile, edge = mosaic(rng, shape, style["size"], regularity=rng.uniform(0.2, 0.7), warp=0.06)
    count = int(tile.max()) + 1
    second = rng.random(count) < style["second"]
    light = style["vary"] * rng.normal(0, 1, count) + style["second_light"] * second
    hatch = paint_texture(rng, style, "phase", shape)
    lines = edge < 0.5 * style["line"]
    grey = light[tile] + style["etched"] * hatch * (1 + second[tile])
    groove = np.clip((0.5 * style["line"] + 0.7 - edge) / 1.4, 0, 1)
    grey = grey * (1 - groove) + style["line_light"] * groove
    islands = np.where(second[tile], tile + 1, 0).astype(np.int32)
    return np.asarray(grey, np.float32), [("phase", islands), ("boundary", lines)]


def _materials(style: Style, rng: np.random.Generator, shape: Shape) -> Scene:
    grey = style["level"] + 0.5 * style["ground_contrast"] * paint_texture(
        rng, style, "ground", shape
    )
    parts: list[tuple[str, NDArray[np.int32] | Mask]] = []
    if style["tiled"] > 0.5:
        tiled, parts = _grains(style, rng, shape)
        grey = grey + tiled
    bits, pores = Layer(shape), Layer(shape)
    bits.scatter(rng, style, "bit")
    if not is_empty(rng):
        pores.scatter(rng, style, "pore")
    grey = grey + style["bit_light"] * bits.inside(1.5) * bits.jitter(rng, 0.2)
    depth = pores.depth()
    hole = pores.inside(2.5) * (1 - 0.3 * pores.inside(style["pore_radius"]))
    grey = grey + style["pore_light"] * hole * pores.jitter(rng, 0.2)
    grey += style["pore_rim"] * pores.mask * np.exp(-depth / 1.5)
    grey += style["pore_floor"] * pores.mask * fractal_noise(rng, shape, 6)
    y, x = np.ogrid[: shape[0], : shape[1]]
    for _ in range(int(rng.poisson(style["scratch"]))):
        angle, off = rng.uniform(0, math.pi), rng.uniform(-0.5, 1) * max(shape)
        away = np.abs(math.cos(angle) * y + math.sin(angle) * x - off)
        grey = grey + rng.uniform(-0.12, 0.12) * np.clip(1.2 - away, 0, 1)
    if style["tint"] != 0:
        grey = np.clip(grey, 0, 1)[..., None] ** (1 + style["tint"] * np.array([1.0, 0.2, -1.0]))
    picture = expose(np.asarray(grey, np.float32), style, rng)
    return finish(picture, [*parts, ("particle", bits.ids), ("pore", pores.ids)])


FAMILIES = (Family("materials", _material_style, _materials),)
