"""Transmitted light: phase contrast, relief shading, bright field, organoids, colonies."""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

from napari_ptsam.synthetic.camera import draw_camera_style, expose
from napari_ptsam.synthetic.fields import Field, blur, fractal_noise, smooth_noise
from napari_ptsam.synthetic.layers import (
    Layer,
    Shape,
    finish,
    is_empty,
    log_uniform,
    population,
)
from napari_ptsam.synthetic.scene import Family, Scene, Style


def _lamp(rng: np.random.Generator) -> dict[str, float]:
    """Camera, grey level and dirt of a transmitted-light set-up."""
    style = draw_camera_style(rng)
    style.update(
        photons=log_uniform(rng, 300, 10000),
        read=log_uniform(rng, 0.002, 0.02),
        light=0.6 * style["light"],
        gain=min(style["gain"], 1.1),
        span=max(style["span"], float(rng.uniform(0.1, 0.8))),
        level=float(rng.uniform(0.35, 0.65)),
        dirt=float(rng.uniform(0.0, 0.03)),
        dirt_scale=log_uniform(rng, 3, 60),
        tint=float(rng.uniform(-0.25, 0.25) if rng.random() < 0.3 else 0.0),
    )
    return style


def _photograph(rng: np.random.Generator, style: Style, grey: Field) -> NDArray[np.uint8]:
    """Add the set-up's dirt and tint to a clean grey picture and expose it."""
    shape = (grey.shape[0], grey.shape[1])
    grey = grey + style["dirt"] * fractal_noise(rng, shape, style["dirt_scale"])
    if style["tint"] != 0:
        ink = 1 + style["tint"] * np.asarray([1.0, 0.2, -1.0], np.float32)
        grey = np.clip(grey, 0, 1)[..., None] ** ink
    return expose(np.asarray(grey, np.float32), style, rng)


def _phase_style(rng: np.random.Generator) -> dict[str, float]:
    radius = log_uniform(rng, 7, 42)
    spindle = rng.random() < 0.35
    long = rng.uniform(2.2, 6.0) if spindle else rng.uniform(1.0, 1.9)
    apart = rng.uniform(0.5, 0.8) / (math.sqrt(long) if spindle else 1.0)
    bits = max(radius * rng.uniform(0.12, 0.35), 1.5)
    return {
        **_lamp(rng),
        **population(rng, "object", radius, log_uniform(rng, 0.12, 1.2), apart=apart, long=long),
        **population(rng, "round", radius * rng.uniform(0.45, 0.75), 0.04, apart=1.0, long=1.0),
        **population(rng, "debris", bits, rng.choice([0.0, rng.uniform(0.003, 0.03)])),
        "object_rough": float(rng.uniform(0.05, 0.25)),
        "halo": float(max(radius * rng.uniform(0.15, 0.5), 1.5)),
        "phase": float(rng.uniform(0.15, 0.5) * (1 if rng.random() < 0.85 else -1)),
        "flat": float(radius * rng.uniform(0.15, 0.7)),
        "grain": float(rng.uniform(0.15, 0.7)),
        "grain_scale": float(np.clip(radius * rng.uniform(0.08, 0.3), 1.5, 8)),
        "nucleus": float(rng.uniform(0.3, 0.9) if rng.random() < 0.35 else 0.0),
        "rounds": float(rng.random() < 0.5),
        "round_light": float(rng.uniform(0.25, 0.6)),
    }


def _phase(style: Style, rng: np.random.Generator, shape: Shape) -> Scene:
    cells, rounds, debris = Layer(shape), Layer(shape), Layer(shape)
    debris.scatter(rng, style, "debris")
    if not is_empty(rng):
        cells.scatter(rng, style, "object")
        if style["rounds"] > 0.5:
            rounds.scatter(rng, style, "round")
    grain = fractal_noise(rng, shape, style["grain_scale"], 2)
    thick = cells.inside(style["flat"]) * (0.7 + cells.jitter(rng, 0.15) * 0.3)
    thick = thick * (1 + 0.5 * style["grain"] * grain)
    if style["nucleus"] > 0:
        ring = np.exp(-(((cells.level - 0.62) / 0.06) ** 2))
        thick += style["nucleus"] * (ring - 0.4 * (cells.level > 0.62)) * cells.mask
    # Phase contrast shows thickness against its surroundings: hence the halo.
    grey = style["level"] - style["phase"] * (thick - blur(thick, style["halo"]))
    lens = rounds.inside(0.8 * style["round_radius"])
    rim = rounds.mask * np.exp(-((rounds.depth() / 1.5) ** 2))
    grey = grey + style["round_light"] * (
        1.3 * blur(rounds.mask.astype(np.float32), 2.0) * (1 - 0.5 * lens) - 0.9 * rim
    )
    specks = debris.inside(0.5 * style["debris_radius"]) * debris.jitter(rng, 0.3)
    grey = grey + 0.4 * blur(specks, 1.0) - 0.3 * blur(specks, 3.0)
    parts = [("debris", debris.ids), ("cell", cells.ids), ("core", rounds.ids)]
    return finish(_photograph(rng, style, np.asarray(grey, np.float32)), parts)


def _relief_style(rng: np.random.Generator) -> dict[str, float]:
    radius = log_uniform(rng, 8, 75)
    return {
        **_lamp(rng),
        **population(rng, "object", radius, rng.uniform(0.15, 0.9), apart=rng.uniform(0.7, 1.1)),
        **population(rng, "vesicle", max(radius * rng.uniform(0.06, 0.16), 1.5), 0.12, long=1.0),
        **population(rng, "debris", max(radius * 0.2, 2), rng.choice([0.0, 0.02])),
        "shear": float(rng.uniform(0, 2 * math.pi)),
        "relief": float(rng.uniform(0.1, 0.35)),
        "flat": float(radius * rng.uniform(0.2, 0.9)),
        "grain": float(rng.uniform(0.02, 0.2)),
        "grain_scale": float(np.clip(radius * 0.15, 2, 8)),
        "nucleus": float(rng.uniform(0.3, 0.55) if rng.random() < 0.6 else 0.0),
        "vesicles": float(rng.random() < 0.6),
        "absorb": float(rng.uniform(0.0, 0.12)),
    }


def _relief(style: Style, rng: np.random.Generator, shape: Shape) -> Scene:
    cells, nuclei, drops, debris = (Layer(shape) for _ in range(4))
    debris.scatter(rng, style, "debris")
    if not is_empty(rng):
        cells.scatter(rng, style, "object")
    if style["nucleus"] > 0:
        inner = cells.level > 0.15
        for (y, x), radius in zip(cells.centres, cells.radii, strict=True):
            off = rng.normal(0, 0.12 * radius, 2)
            centre = (y + off[0], x + off[1])
            nuclei.add(rng, centre, style["nucleus"] * radius, roughness=0.04, within=inner)
    if style["vesicles"] > 0.5 and len(cells):
        drops.scatter(rng, style, "vesicle", within=cells.mask & ~nuclei.mask)
    height = style["flat"] * np.sqrt(cells.inside(style["flat"]))
    height = height + 0.35 * nuclei.depth() ** 0.5 * style["flat"] ** 0.5
    height += 1.2 * drops.depth() + 0.8 * debris.depth()
    height += (
        style["grain"]
        * style["flat"]
        * (cells.mask & ~nuclei.mask)
        * (fractal_noise(rng, shape, style["grain_scale"], 2) * cells.inside(3))
    )
    dy, dx = np.gradient(blur(height, 0.8))
    slope = math.sin(style["shear"]) * dy + math.cos(style["shear"]) * dx
    grey = style["level"] + style["relief"] * np.tanh(slope) - style["absorb"] * cells.mask
    parts = [
        ("debris", debris.ids),
        ("cell", cells.ids),
        ("nucleus", nuclei.ids),
        ("vesicle", drops.ids),
    ]
    return finish(_photograph(rng, style, np.asarray(grey, np.float32)), parts)


def _bright_field_style(rng: np.random.Generator) -> dict[str, float]:
    radius = log_uniform(rng, 3.5, 36)
    rod = rng.random() < 0.25
    long = rng.uniform(2.0, 5.0) if rod else rng.uniform(1.0, 1.4)
    return {
        **_lamp(rng),
        **population(rng, "object", radius, log_uniform(rng, 0.06, 0.7), apart=0.85, long=long),
        **population(rng, "debris", radius * rng.choice([0.35, 2.2]), rng.choice([0.0, 0.03])),
        "object_rough": float(rng.uniform(0.0, 0.05)),
        "level": float(rng.uniform(0.5, 0.8)),
        "ring": float(rng.choice([-1, 1]) * rng.uniform(0.15, 0.5)),
        "ring_width": float(np.clip(radius * rng.uniform(0.08, 0.25), 1.0, 4.0)),
        "fill": float(rng.uniform(-0.25, 0.2)),
        "halo": float(rng.uniform(0.0, 0.25)),
        "grain": float(rng.uniform(0.0, 0.12)),
        "vacuole": float(rng.uniform(0.35, 0.6) if rng.random() < 0.5 and radius > 7 else 0.0),
        "buds": float(rng.uniform(0.2, 0.6) if rng.random() < 0.4 and not rod else 0.0),
    }


def _bright_field(style: Style, rng: np.random.Generator, shape: Shape) -> Scene:
    cells, inner, debris = Layer(shape), Layer(shape), Layer(shape)
    debris.scatter(rng, style, "debris")
    if not is_empty(rng):
        cells.scatter(rng, style, "object")
    mothers = list(zip(cells.centres, cells.radii, strict=True))
    for (y, x), radius in mothers:
        if rng.random() < style["buds"]:
            turn, size = rng.uniform(0, 2 * math.pi), radius * rng.uniform(0.45, 0.75)
            reach = radius + 0.8 * size
            centre = (y + reach * math.sin(turn), x + reach * math.cos(turn))
            cells.add(rng, centre, size, roughness=style["object_rough"])
        if style["vacuole"] > 0:
            off = rng.normal(0, 0.15 * radius, 2)
            centre = (y + off[0], x + off[1])
            inner.add(rng, centre, radius * style["vacuole"], within=cells.level > 0.1)
    width = style["ring_width"]
    ring = cells.mask * np.exp(-(((cells.depth() - 0.6 * width) / width) ** 2))
    around = blur(cells.mask.astype(np.float32), 1.5 * width) * ~cells.mask
    grain = 1 + 0 * cells.level + fractal_noise(rng, shape, 4) * style["grain"]
    grey = style["level"] - style["ring"] * ring + style["fill"] * cells.inside(2 * width) * grain
    grey = grey + np.sign(style["ring"]) * style["halo"] * around
    grey = grey + 0.5 * style["ring"] * inner.inside(width) * cells.mask
    grey = (
        grey
        - 0.35
        * debris.inside(0.6 * style["debris_radius"])
        * (0.7 + 0.4 * fractal_noise(rng, shape, 5))
        * ~cells.mask
    )
    parts = [("debris", debris.ids), ("cell", cells.ids), ("vesicle", inner.ids)]
    return finish(_photograph(rng, style, np.asarray(grey, np.float32)), parts)


def _organoid_style(rng: np.random.Generator) -> dict[str, float]:
    radius = log_uniform(rng, 10, 80)
    cover = rng.uniform(0.1, 0.5)
    return {
        **_lamp(rng),
        **population(rng, "object", radius, cover, apart=rng.uniform(0.8, 1.1)),
        **population(rng, "debris", np.clip(radius * rng.uniform(0.08, 0.3), 2, 14), 0.03),
        **population(rng, "ghost", radius * rng.uniform(0.6, 1.2), 0.15, apart=0.8),
        "object_spread": float(rng.uniform(0.15, 0.5)),
        "object_long": float(rng.uniform(1.0, 1.5)),
        "wall": float(np.clip(radius * rng.uniform(0.08, 0.3), 1.5, 14)),
        "rim": float(rng.uniform(0.1, 0.45)),
        "body": float(rng.choice([-1, 1], p=[0.75, 0.25]) * rng.uniform(0.03, 0.35)),
        "lumen": float(rng.uniform(0.4, 0.8) if rng.random() < 0.6 else 0.0),
        "cystic": float(rng.uniform(0.5, 1.0)),
        "dark_core": float(rng.uniform(0.1, 0.4) if rng.random() < 0.35 else 0.0),
        "halo": float(rng.uniform(0.0, 0.25)),
        "grain": float(rng.uniform(0.03, 0.25)),
        "grain_scale": float(rng.uniform(3, 12)),
        "gel": float(rng.uniform(0.0, 0.12)),
        "ghosts": float(rng.uniform(0.03, 0.15) if rng.random() < 0.6 else 0.0),
        "level": float(rng.uniform(0.4, 0.8)),
    }


def _organoids(style: Style, rng: np.random.Generator, shape: Shape) -> Scene:
    bodies, lumens, debris, ghosts = (Layer(shape) for _ in range(4))
    debris.scatter(rng, style, "debris")
    ghosts.scatter(rng, style, "ghost")
    if not is_empty(rng):
        bodies.scatter(rng, style, "object")
    cystic = rng.random(len(bodies)) < style["cystic"]
    if style["lumen"] > 0:
        for i, (centre, radius) in enumerate(zip(bodies.centres, bodies.radii, strict=True)):
            if cystic[i]:
                size = radius * style["lumen"] * math.exp(rng.normal(0, 0.12))
                lumens.add(rng, centre, size, roughness=0.08, within=bodies.level > 0.1)
    depth, wall = bodies.depth(), style["wall"]
    grain = fractal_noise(rng, shape, style["grain_scale"], 3)
    rim = bodies.mask * np.exp(-((depth / wall) ** 2))
    dense = bodies.inside(2 * wall) * (1 - 0.8 * lumens.inside(wall))
    grey = style["level"] * np.ones(shape, np.float32) - style["rim"] * rim
    grey = grey + style["body"] * dense * bodies.jitter(rng, 0.3) * (1 + 2 * style["grain"] * grain)
    grey = grey - 0.6 * style["rim"] * lumens.mask * np.exp(-((lumens.depth() / 1.5) ** 2))
    grey = grey - style["dark_core"] * np.clip(bodies.level - 0.45, 0, 1) * 2 * ~lumens.mask
    grey = grey + style["grain"] * 0.25 * grain * bodies.mask * ~lumens.mask
    grey = grey + style["halo"] * blur(bodies.mask.astype(np.float32), wall) * ~bodies.mask
    grey = grey - style["ghosts"] * blur(ghosts.inside(4), 4.0) * ~bodies.mask
    specks = debris.inside(0.7 * style["debris_radius"]) * debris.jitter(rng, 0.3)
    grey = grey - 0.35 * specks * ~bodies.mask + 0.1 * blur(specks, 4.0)
    grey = grey + style["gel"] * smooth_noise(rng, shape, 120)
    debris_ids = np.where(bodies.mask, 0, debris.ids)
    parts = [("debris", debris_ids), ("organoid", bodies.ids), ("lumen", lumens.ids)]
    return finish(_photograph(rng, style, np.asarray(grey, np.float32)), parts)


def _colony_style(rng: np.random.Generator) -> dict[str, float]:
    radius = log_uniform(rng, 4, 30)
    return {
        **_lamp(rng),
        **population(rng, "object", radius, rng.uniform(0.05, 0.4), apart=0.85, long=1.05),
        **population(rng, "other", radius * rng.choice([0.4, 0.5, 1.8]), 0.05, apart=0.9, long=1.1),
        "object_rough": float(rng.choice([0.02, rng.uniform(0.05, 0.2)])),
        "dish": float(rng.random() < 0.4),
        "contrast": float(rng.choice([-1, 1]) * rng.uniform(0.15, 0.45)),
        "dome": float(radius * rng.uniform(0.2, 1.0)),
        "glint": float(rng.uniform(0.2, 0.5) if rng.random() < 0.5 else 0.0),
        "other_contrast": float(rng.choice([-1, 1]) * rng.uniform(0.1, 0.4)),
        "agar": float(rng.uniform(0.0, 0.06)),
        "outside": float(rng.uniform(0.02, 0.3)),
        "red": float(rng.uniform(0.7, 1.2)),
        "blue": float(rng.uniform(0.6, 1.2)),
        "colour": float(rng.random() < 0.6),
    }


def _colonies(style: Style, rng: np.random.Generator, shape: Shape) -> Scene:
    dish = Layer(shape)
    plate = np.ones(shape, bool)
    if style["dish"] > 0.5:
        middle = (shape[0] * rng.uniform(0.3, 0.7), shape[1] * rng.uniform(0.3, 0.7))
        dish.add(rng, middle, 0.55 * max(shape), roughness=0.0)
        plate = dish.depth() > 0.03 * max(shape)
    colonies, others = Layer(shape), Layer(shape)
    if not is_empty(rng):
        colonies.scatter(rng, style, "object", within=plate)
        others.scatter(rng, style, "other", within=plate & ~colonies.mask)
    grey = style["level"] + style["agar"] * fractal_noise(rng, shape, 60)
    dome = np.sqrt(colonies.inside(style["dome"])) * colonies.jitter(rng, 0.15)
    grey = grey + style["contrast"] * dome * (1 + 0.08 * fractal_noise(rng, shape, 5))
    grey = grey + style["other_contrast"] * others.inside(3) * others.mask
    dy, dx = np.gradient(blur(dome, 1.0))
    grey = grey + style["glint"] * np.tanh(3 * (dy + 0.5 * dx)) * colonies.mask
    if style["dish"] > 0.5:
        rim = np.exp(-(((dish.depth() - 0.02 * max(shape)) / 3) ** 2)) * dish.mask
        grey = np.where(dish.mask, grey + 0.3 * rim, style["outside"])
    grey = np.asarray(grey, np.float32)
    if style["colour"] > 0.5:
        tone = np.asarray([style["red"], 1.0, style["blue"]], np.float32)
        grey = np.clip(grey, 0, 1)[..., None] * tone
        picture = expose(grey, style, rng)
    else:
        picture = _photograph(rng, style, grey)
    parts: list[tuple[str, NDArray[np.int32] | NDArray[np.bool_]]] = [
        ("colony", colonies.ids),
        ("debris", others.ids),
    ]
    if style["dish"] > 0.5:
        parts.insert(0, ("phase", dish.mask & plate))
    return finish(picture, parts)


FAMILIES = (
    Family("phase-contrast", _phase_style, _phase),
    Family("relief", _relief_style, _relief),
    Family("bright-field", _bright_field_style, _bright_field),
    Family("organoids", _organoid_style, _organoids),
    Family("colonies", _colony_style, _colonies),
)
