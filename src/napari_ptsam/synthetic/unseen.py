"""Families kept for validation: no backbone is ever trained on them.

They are neither in the catalogue nor in the pools of pre-training, and draw their objects by
code that no other family uses: shells of diatoms, cracks in concrete, spiny pollen.
"""

from __future__ import annotations

import math

import numpy as np
from PIL import Image, ImageDraw

from napari_ptsam.synthetic.camera import draw_camera_style, expose
from napari_ptsam.synthetic.fields import Field, Mask, blur, fractal_noise, mosaic, smooth_noise
from napari_ptsam.synthetic.layers import Layer, Shape, finish, log_uniform, population
from napari_ptsam.synthetic.scene import Family, Scene, Style

Window = tuple[slice, slice]
Path = tuple[list[tuple[float, float]], float]
"""Points (x, y) of a line, and its width in pixels."""


def _camera(rng: np.random.Generator) -> dict[str, float]:
    """A camera that is neither very dim nor badly out of focus."""
    return {
        **draw_camera_style(rng),
        "span": float(rng.uniform(0.6, 0.95)),
        "photons": log_uniform(rng, 150, 5000),
        "read": 0.005,
        "defocus": 0.0,
        "text": 0.0,
    }


def _around(shape: Shape, centre: tuple[float, float], reach: float) -> tuple[Window, Field, Field]:
    """Window of the canvas around a centre, and y and x in there relative to the centre."""
    spans = [
        slice(max(int(c - reach), 0), max(min(int(c + reach) + 2, s), 0))
        for c, s in zip(centre, shape, strict=True)
    ]
    y, x = (
        np.arange(s.start, s.stop, dtype=np.float32) - np.float32(c)
        for s, c in zip(spans, centre, strict=True)
    )
    return (spans[0], spans[1]), y[:, None], x[None, :]


def _places(
    rng: np.random.Generator, shape: Shape, count: int, gap: float
) -> list[tuple[float, float]]:
    """At most `count` random places that keep `gap` pixels from each other."""
    places: list[tuple[float, float]] = []
    for y, x in (rng.uniform(0, 1, (6 * count, 2)) * shape).tolist():
        if len(places) < count and all(math.hypot(y - a, x - b) > gap for a, b in places):
            places.append((y, x))
    return places


def _diatom_style(rng: np.random.Generator) -> dict[str, float]:
    half = log_uniform(rng, 26, 60)
    return {
        **_camera(rng),
        **population(rng, "debris", log_uniform(rng, 3, 9), 0.03),
        **population(rng, "bubble", log_uniform(rng, 8, 20), 0.04, apart=1.0, long=1.0),
        "half": half,
        "slim": float(rng.uniform(0.16, 0.4)),
        "pointed": float(rng.uniform(0.6, 1.6)),
        "bent": float(rng.choice([0.0, rng.uniform(0.1, 0.35)])),
        "crowd": float(rng.uniform(3, 12)),
        "pitch": float(max(half * rng.uniform(0.07, 0.13), 3.0)),
        "striae": float(rng.uniform(0.12, 0.3)),
        "raphe": float(rng.uniform(0.05, 0.25)),
        "rim": float(rng.choice([-1, 1]) * rng.uniform(0.2, 0.4)),
        "body": float(rng.uniform(-0.12, 0.08)),
        "level": float(rng.uniform(0.45, 0.7)),
        "warm": float(rng.uniform(-0.2, 0.3)),
    }


def _diatoms(style: Style, rng: np.random.Generator, shape: Shape) -> Scene:
    """Long shells of glass with ribs across and a seam along, among dirt and bubbles."""
    debris, bubbles = Layer(shape), Layer(shape)
    debris.scatter(rng, style, "debris")
    bubbles.scatter(rng, style, "bubble")
    grey = style["level"] + 0.02 * fractal_noise(rng, shape, 40)
    rim = np.exp(-(((bubbles.depth() - 1) / 1.3) ** 2)) * bubbles.mask
    grey = grey - 0.35 * debris.inside(2) - style["rim"] * rim
    ids = np.zeros(shape, np.int32)
    count = int(rng.poisson(style["crowd"])) + 1
    for number, centre in enumerate(_places(rng, shape, count, style["half"]), 1):
        half = style["half"] * math.exp(rng.normal(0, 0.2))
        wide, turn = half * style["slim"], rng.uniform(0, 2 * math.pi)
        window, y, x = _around(shape, centre, 1.1 * half)
        along = math.cos(turn) * x + math.sin(turn) * y
        across = math.cos(turn) * y - math.sin(turn) * x
        across = across - style["bent"] * along * along / half + 0.5 * style["bent"] * half
        outline = wide * np.clip(1 - (along / half) ** 2, 0, 1) ** style["pointed"]
        inside = np.abs(across) < outline
        away = (outline - np.abs(across)) * inside
        ribs = np.cos(2 * math.pi * (along + 0.15 * np.abs(across)) / style["pitch"])
        shell = style["body"] + style["striae"] * ribs * np.clip(np.abs(across) / 2.5 - 0.6, 0, 1)
        shell = shell - style["raphe"] * np.exp(-((across / 1.3) ** 2))
        shell = shell + style["rim"] * np.exp(-((away / 1.6) ** 2))
        grey[window] = np.where(inside, style["level"] + shell, grey[window])
        ids[window][inside] = number
    ink = 1 + style["warm"] * np.array([-0.7, 0.1, 1.0])
    picture = np.clip(grey, 0, 1)[..., None] ** ink
    parts = [("debris", debris.ids), ("vesicle", bubbles.ids), ("particle", ids)]
    return finish(expose(np.asarray(picture, np.float32), style, rng), parts)


def _crack_style(rng: np.random.Generator) -> dict[str, float]:
    return {
        **_camera(rng),
        **population(rng, "pore", log_uniform(rng, 2, 7), rng.uniform(0.005, 0.04)),
        "stones": log_uniform(rng, 14, 60),
        "stone_vary": float(rng.uniform(0.0, 0.08)),
        "rough": float(rng.uniform(0.03, 0.1)),
        "rough_scale": log_uniform(rng, 3, 14),
        "stains": float(rng.uniform(0.0, 0.1)),
        "level": float(rng.uniform(0.45, 0.7)),
        "dark": float(rng.uniform(0.25, 0.5)),
        "width": log_uniform(rng, 1.6, 5.0),
        "cracks": float(rng.uniform(0.5, 2.5)),
        "jagged": float(rng.uniform(0.15, 0.5)),
        "forks": float(rng.uniform(0.0, 0.03)),
        "lines": float(rng.choice([0.0, rng.uniform(0.5, 3)])),
        "grooves": float(rng.uniform(0.1, 0.25)),
    }


def _crack_paths(style: Style, rng: np.random.Generator, shape: Shape) -> list[Path]:
    """The ways of cracks that run over the canvas and fork."""
    step = 4.0
    paths: list[Path] = []
    open_ends = []
    for _ in range(1 + int(rng.poisson(style["cracks"]))):
        side, where = rng.uniform(0, 2 * math.pi), 0.75 * max(shape)
        x, y = 0.5 * shape[1] + where * math.cos(side), 0.5 * shape[0] + where * math.sin(side)
        heading = side + math.pi + rng.normal(0, 0.35)
        open_ends.append((x, y, heading, style["width"] * math.exp(rng.normal(0, 0.25))))
    while open_ends and len(paths) < 24:
        x, y, heading, width = open_ends.pop()
        path, aim = [(x, y)], heading
        for _ in range(int(rng.uniform(40, 130))):
            heading += style["jagged"] * rng.normal() - 0.15 * (heading - aim)
            x, y = x + step * math.cos(heading), y + step * math.sin(heading)
            path.append((x, y))
            if rng.random() < style["forks"] and width > 1.2:
                fork = heading + rng.choice([-1, 1]) * rng.uniform(0.4, 1.1)
                open_ends.append((x, y, fork, 0.7 * width))
        paths.append((path, width))
    return paths


def _drawn(paths: list[Path], shape: Shape) -> Field:
    """HxW, how much of each pixel lies on paths."""
    fine = 4
    canvas = Image.new("L", (shape[1] * fine, shape[0] * fine))
    draw = ImageDraw.Draw(canvas)
    for path, width in paths:
        pixels = max(round(width * fine), 1)
        draw.line([(fine * x, fine * y) for x, y in path], fill=255, width=pixels, joint="curve")
    return np.asarray(canvas.reduce(fine), np.float32) * np.float32(1 / 255)


def _cracks(style: Style, rng: np.random.Generator, shape: Shape) -> Scene:
    """Cracks in a wall of concrete, with pores, stains and the grooves of a tool."""
    tile, edge = mosaic(rng, shape, style["stones"], regularity=0.1, warp=0.2)
    tones = style["stone_vary"] * rng.standard_normal(int(tile.max()) + 1, dtype=np.float32)
    grey = style["level"] + blur(tones[tile], 1.2) + 0.2 * style["stone_vary"] * (edge < 2)
    grey = grey + style["rough"] * fractal_noise(rng, shape, style["rough_scale"], 3)
    grey = grey - style["stains"] * np.clip(smooth_noise(rng, shape, 80), 0, 2)
    pores = Layer(shape)
    pores.scatter(rng, style, "pore")
    grey = grey - style["dark"] * pores.inside(2) * pores.jitter(rng, 0.3)
    y, x = np.ogrid[: shape[0], : shape[1]]
    for _ in range(int(rng.poisson(style["lines"]))):
        turn, off = rng.uniform(0, math.pi), rng.uniform(-0.3, 1) * max(shape)
        away = np.abs(math.cos(turn) * y + math.sin(turn) * x - off)
        grey = grey - style["grooves"] * np.clip(1.6 - away, 0, 1)
    paths = _crack_paths(style, rng, shape)
    # A crack closes and opens along its way.
    opening = np.clip(0.75 + 0.45 * smooth_noise(rng, shape, 30), 0, 1.2)
    cover = _drawn(paths, shape) * np.clip(3 * opening, 0, 1)
    shade = cover * (0.6 + 0.4 * opening) + 0.25 * blur(cover, 2.0)
    grey = np.asarray(grey - style["dark"] * shade, np.float32)
    parts = [("pore", pores.ids), ("filament", (cover > 0.5).astype(np.int32))]
    return finish(expose(grey, style, rng), parts)


def _pollen_style(rng: np.random.Generator) -> dict[str, float]:
    radius = log_uniform(rng, 14, 36)
    return {
        **_camera(rng),
        **population(rng, "debris", log_uniform(rng, 2, 8), 0.04),
        "radius": radius,
        "crowd": float(rng.uniform(2, 9)),
        "smooth": float(rng.uniform(1, 8)),
        "spines": float(rng.integers(11, 23)),
        "spine": float(rng.uniform(0.16, 0.32)),
        "sharp": float(rng.uniform(1.5, 4)),
        "warts": float(rng.uniform(0.1, 0.35)),
        "ground": float(rng.uniform(0.6, 0.9)),
        "red": float(rng.uniform(0.55, 0.9)),
        "green": float(rng.uniform(0.35, 0.7)),
        "blue": float(rng.uniform(0.1, 0.5)),
        "shade": float(rng.uniform(0.3, 0.8)),
        "wall": float(rng.uniform(0.1, 0.4)),
    }


def _pollen(style: Style, rng: np.random.Generator, shape: Shape) -> Scene:
    """Spiny pollen among smooth grains of the same size and colour."""
    debris = Layer(shape)
    debris.scatter(rng, style, "debris")
    ground = style["ground"] + 0.03 * fractal_noise(rng, shape, 50) - 0.3 * debris.inside(2)
    picture = np.asarray(np.repeat(ground[..., None], 3, 2), np.float32)
    ink = np.array([style["red"], style["green"], style["blue"]])
    ids, others = np.zeros(shape, np.int32), np.zeros(shape, np.int32)
    spiny, smooth = (1 + int(rng.poisson(style[k])) for k in ("crowd", "smooth"))
    places = _places(rng, shape, spiny + smooth, 1.9 * style["radius"])
    for number, centre in enumerate(places, 1):
        radius = style["radius"] * math.exp(rng.normal(0, 0.12))
        has_spines = bool(rng.random() < spiny / (spiny + smooth))
        window, inside, grain = _grain(style, rng, shape, centre, radius, has_spines)
        view = picture[window]
        view[inside] = (grain[..., None] * ink * rng.uniform(0.9, 1.1))[inside]
        (ids if has_spines else others)[window][inside] = number
        (others if has_spines else ids)[window][inside] = 0
    parts = [("debris", debris.ids), ("cell", others), ("particle", ids)]
    return finish(expose(np.asarray(picture, np.float32), style, rng), parts)


def _grain(
    style: Style,
    rng: np.random.Generator,
    shape: Shape,
    centre: tuple[float, float],
    radius: float,
    spiny: bool,
) -> tuple[Window, Mask, Field]:
    """Window, mask and brightness of one grain, with spines around it and over it or without."""
    window, y, x = _around(shape, centre, 1.5 * radius)
    turn = np.arctan2(y, x) + rng.uniform(0, 6)
    count = int(style["spines"])
    crown = np.abs(np.cos(0.5 * count * turn)) ** style["sharp"]
    outline = radius * (1 + style["spine"] * crown) if spiny else radius * (1 + 0 * turn)
    away = np.hypot(y, x)
    body = np.sqrt(np.clip(1 - (away / (1.05 * radius)) ** 2, 0, 1))
    grain = 1 - style["shade"] * (1 - body) - style["wall"] * np.exp(-((away - radius) ** 2) / 5)
    if spiny:
        pitch = 2 * math.pi * radius / count
        turned = rng.uniform(0, math.pi)
        u, v = (
            math.cos(turned) * x + math.sin(turned) * y,
            math.cos(turned) * y - math.sin(turned) * x,
        )
        dots = np.cos(2 * math.pi * u / pitch) * np.cos(2 * math.pi * v / pitch)
        grain = grain + style["warts"] * np.clip(dots, 0, 1) * (away < 0.9 * radius)
    else:
        grain = grain + 0.05 * rng.standard_normal(grain.shape)
    return window, away < outline, np.asarray(np.clip(grain, 0.02, 1.3), np.float32)


FAMILIES = (
    Family("diatoms", _diatom_style, _diatoms),
    Family("cracks", _crack_style, _cracks),
    Family("pollen", _pollen_style, _pollen),
)
"""Families for validation only."""

TARGETS = {"diatoms": "particle", "cracks": "filament", "pollen": "particle"}
"""The kind that is asked for in scenes of each family."""
