"""Fluorescence: nuclei, stained cells, sheets of cell borders, filaments and vessels."""

from __future__ import annotations

import colorsys
import math
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw

from napari_ptsam.synthetic.camera import draw_camera_style, expose
from napari_ptsam.synthetic.fields import Field, blur, fractal_noise, mosaic, smooth_noise
from napari_ptsam.synthetic.layers import (
    Layer,
    Shape,
    finish,
    is_empty,
    log_uniform,
    population,
)
from napari_ptsam.synthetic.scene import Family, Scene, Style


def _optics(rng: np.random.Generator) -> dict[str, float]:
    """Camera, colours and glow that all fluorescence types share."""
    style = draw_camera_style(rng)
    style.update(
        colour=float(rng.random() < 0.4),
        haze=float(rng.uniform(0, 0.5) if rng.random() < 0.5 else 0.0),
        haze_scale=log_uniform(rng, 6, 40),
        pedestal=float(rng.uniform(0.0, 0.12)),
        invert=float(rng.random() < 0.12),
        bleed=float(rng.uniform(0, 0.25)),
    )
    hues = rng.permutation([0.0, 0.33, 0.62, 0.5, 0.83, 0.12])
    style.update({f"hue{i}": float(hues[i] + rng.normal(0, 0.02)) for i in range(3)})
    return style


def _texture(rng: np.random.Generator, shape: Shape, style: Style) -> Field:
    """Multiplicative stain texture around 1, at least 0.1."""
    noise = fractal_noise(rng, shape, style["texture_scale"], 3, 0.7)
    return np.asarray(np.clip(1 + style["texture"] * noise, 0.1, 3), np.float32)


def _glow(rng: np.random.Generator, style: Style, channels: Sequence[Field]) -> NDArray[np.uint8]:
    """Mix the stains' light into one grey or coloured picture with out-of-focus haze."""
    shape = channels[0].shape
    if style["colour"] > 0.5:
        light = np.zeros((*shape, 3), np.float32)
        for i, channel in enumerate(channels):
            ink = np.asarray(colorsys.hsv_to_rgb(style[f"hue{i}"] % 1.0, 0.9, 1.0), np.float32)
            light += channel[..., None] * (ink + style["bleed"] * (1 - ink))
    else:
        light = np.asarray(np.sum(channels, axis=0), np.float32)
    if style["haze"] > 0:
        light = light + style["haze"] * blur(light, style["haze_scale"])
        fog = np.clip(smooth_noise(rng, (shape[0], shape[1]), 80), 0, 3)
        light += 0.08 * style["haze"] * (fog[..., None] if light.ndim == 3 else fog)
    light = style["pedestal"] + 0.75 * light
    return expose(np.asarray(light, np.float32), style, rng)


def _debris(rng: np.random.Generator, style: Style, shape: Shape) -> tuple[Layer, Field]:
    """Bright specks or dim lumps that are not what the type is about, and their light."""
    layer = Layer(shape)
    if style["debris_cover"] > 0 and rng.random() < 0.9:
        layer.scatter(rng, style, "debris")
    light = style["debris_light"] * layer.jitter(rng, 0.3) * layer.inside(style["debris_soft"])
    return layer, light


def _debris_style(rng: np.random.Generator, radius: float) -> dict[str, float]:
    """Debris clearly smaller or larger than objects of `radius` pixels."""
    size = radius * rng.choice([rng.uniform(0.15, 0.45), rng.uniform(1.7, 3.0)])
    size = float(np.clip(size, 1.2, 60))
    cover = log_uniform(rng, 0.004, 0.06) if rng.random() < 0.8 else 0.0
    return {
        **population(rng, "debris", size, max(cover, 2.5 * cover * min(size / 40, 1))),
        "debris_light": float(rng.uniform(0.3, 1.3)),
        "debris_soft": float(size * rng.uniform(0.2, 1.0)),
    }


def _nuclei_style(rng: np.random.Generator) -> dict[str, float]:
    radius = log_uniform(rng, 3, 32)
    return {
        **_optics(rng),
        **_debris_style(rng, radius),
        **population(rng, "object", radius, log_uniform(rng, 0.06, 0.75)),
        "object_rough": float(rng.uniform(0.0, 0.1)),
        "clump": float(rng.random() < 0.3),
        "soft": float(radius * rng.uniform(0.1, 0.9)),
        "vary": float(rng.uniform(0.05, 0.6)),
        "texture": float(rng.uniform(0.03, 0.4)),
        "texture_scale": float(max(radius * rng.uniform(0.2, 0.8), 1.5)),
        "light_level": float(rng.uniform(0.4, 1.0)),
        "nucleoli": float(rng.uniform(0.3, 0.8) if rng.random() < 0.3 and radius > 8 else 0),
        "ghosts": float(rng.uniform(0.1, 0.5) if rng.random() < 0.4 else 0.0),
    }


def _nuclei(style: Style, rng: np.random.Generator, shape: Shape) -> Scene:
    nuclei = Layer(shape)
    if not is_empty(rng):
        region = None
        if style["clump"] > 0.5:
            region = smooth_noise(rng, shape, max(6 * style["object_radius"], 40)) > -0.2
        nuclei.scatter(rng, style, "object", centred=region)
    light = nuclei.jitter(rng, style["vary"]) * (0.35 + 0.65 * nuclei.inside(style["soft"]))
    light = style["light_level"] * light * nuclei.mask * _texture(rng, shape, style)
    if style["nucleoli"] > 0:
        holes = np.clip(smooth_noise(rng, shape, 0.45 * style["object_radius"]) - 1.1, 0, 1)
        light *= 1 - style["nucleoli"] * np.minimum(2 * holes, 1)
    debris, speck = _debris(rng, style, shape)
    if style["ghosts"] > 0:
        ghosts = Layer(shape)
        ghosts.scatter(rng, {**style, "object_cover": 0.5 * style["object_cover"]}, "object")
        light = light + style["ghosts"] * blur(
            ghosts.mask.astype(np.float32), 0.5 * style["object_radius"]
        )
    parts = [("debris", debris.ids), ("nucleus", nuclei.ids)]
    speck = speck * (1 - 0.7 * nuclei.mask)
    return finish(_glow(rng, style, [np.asarray(light, np.float32), speck]), parts)


def _cells_style(rng: np.random.Generator) -> dict[str, float]:
    radius = log_uniform(rng, 9, 60)
    return {
        **_optics(rng),
        **population(rng, "object", radius, rng.uniform(0.2, 1.1), apart=rng.uniform(0.6, 1.0)),
        **population(rng, "spot", max(radius * rng.uniform(0.04, 0.1), 1.3), 0.05),
        **_debris_style(rng, radius),
        "colour": float(rng.random() < 0.6),
        "soft": float(radius * rng.uniform(0.1, 0.6)),
        "vary": float(rng.uniform(0.1, 0.5)),
        "texture": float(rng.uniform(0.1, 0.5)),
        "texture_scale": float(radius * rng.uniform(0.1, 0.6)),
        "cytoplasm": float(rng.uniform(0.2, 0.7)),
        "nucleus": float(rng.choice([-0.8, rng.uniform(0.3, 1.0)])),
        "nucleus_size": float(rng.uniform(0.3, 0.6)),
        "spots": float(rng.uniform(0.6, 1.3) if rng.random() < 0.5 else 0.0),
        "rim": float(rng.uniform(0.2, 0.8) if rng.random() < 0.4 else 0.0),
    }


def _cells(style: Style, rng: np.random.Generator, shape: Shape) -> Scene:
    cells, nuclei, spots = Layer(shape), Layer(shape), Layer(shape)
    if not is_empty(rng):
        cells.scatter(rng, style, "object")
    within = cells.level > 0.12
    for (y, x), radius, angle in zip(cells.centres, cells.radii, cells.angles, strict=True):
        size = radius * style["nucleus_size"] * math.exp(rng.normal(0, 0.1))
        off = rng.normal(0, 0.15 * radius, 2)
        nuclei.add(
            rng, (y + off[0], x + off[1]), size, elongation=1.25, angle=angle,
            roughness=0.05, within=within,
        )  # fmt: skip
    if style["spots"] > 0 and len(cells):
        spots.scatter(rng, style, "spot", within=cells.mask & ~nuclei.mask)
    body = cells.mask * (0.3 + 0.7 * cells.inside(style["soft"])) * cells.jitter(rng, style["vary"])
    body = style["cytoplasm"] * body * _texture(rng, shape, style)
    depth = cells.depth()
    body += style["rim"] * cells.mask * np.exp(-((depth / 1.8) ** 2))
    core = nuclei.inside(0.4 * style["nucleus_size"] * style["object_radius"])
    core *= nuclei.jitter(rng, 0.2) * (1 + 0.15 * fractal_noise(rng, shape, 6))
    if style["nucleus"] < 0:
        body *= 1 + style["nucleus"] * np.minimum(core, 1)
        core *= 0
    debris, speck = _debris(rng, style, shape)
    speck = speck * ~cells.mask
    dots = style["spots"] * spots.inside(0.5 * style["spot_radius"]) * spots.jitter(rng, 0.3)
    picture = _glow(
        rng, style, [np.asarray(body + speck, np.float32), abs(style["nucleus"]) * core, dots]
    )
    parts = [
        ("debris", debris.ids),
        ("cell", cells.ids),
        ("nucleus", nuclei.ids),
        ("spot", spots.ids),
    ]
    return finish(picture, parts)


def _sheet_style(rng: np.random.Generator) -> dict[str, float]:
    spacing = log_uniform(rng, 12, 90)
    return {
        **_optics(rng),
        "spacing": spacing,
        "regularity": float(rng.uniform(0.35, 0.85)),
        "warp": float(rng.uniform(0.02, 0.2)),
        "width": float(np.clip(spacing * rng.uniform(0.03, 0.12), 1.0, 5.0)),
        "broken": float(rng.uniform(0.0, 0.6)),
        "inner": float(rng.choice([0.0, rng.uniform(0.05, 0.3)])),
        "marked": float(rng.uniform(0.1, 0.4) if rng.random() < 0.5 else 0.0),
        "nuclei": float(rng.uniform(0.3, 0.9) if rng.random() < 0.4 else 0.0),
        "gaps": float(rng.uniform(0.4, 1.5) if rng.random() < 0.4 else 9.0),
        "texture": float(rng.uniform(0.1, 0.5)),
        "texture_scale": float(rng.uniform(2, 12)),
    }


def _sheet(style: Style, rng: np.random.Generator, shape: Shape) -> Scene:
    spacing = style["spacing"]
    labels, edge = mosaic(rng, shape, spacing, regularity=style["regularity"], warp=style["warp"])
    count = int(labels.max()) + 1
    tissue = np.ones(shape, bool)
    if style["gaps"] < 9 or is_empty(rng):
        tissue = fractal_noise(rng, shape, 150, 3) > -style["gaps"]
    wall = tissue & (edge < style["width"])
    strength = 1 - style["broken"] * np.clip(fractal_noise(rng, shape, 1.2 * spacing, 2), -1, 1)
    texture = _texture(rng, shape, style)
    light = tissue * np.exp(-((edge / style["width"]) ** 2)) * np.clip(strength, 0.15, 1.5)
    bright = style["inner"] * np.exp(rng.normal(0, 0.4, count)).astype(np.float32)[labels]
    light = (0.7 * light + bright * tissue) * texture
    nuclei = tissue & (edge > 0.27 * spacing) if style["nuclei"] > 0 else np.zeros(shape, bool)
    marked = (rng.random(count) < style["marked"])[labels] & tissue & ~wall
    ids = np.where(tissue, labels + 1, 0)
    parts = [
        ("cell", ids),
        ("core", np.where(marked, ids, 0)),
        ("nucleus", np.where(nuclei, ids, 0)),
        ("boundary", wall),
    ]
    stain = 0.6 * style["nuclei"] * blur(nuclei.astype(np.float32), 1.0) * texture
    return finish(_glow(rng, style, [light, stain, 0.5 * marked * texture]), parts)


def _filament_style(rng: np.random.Generator) -> dict[str, float]:
    width = log_uniform(rng, 1.2, 16)
    soma = float(np.clip(width * rng.uniform(3, 6), 6, 40))
    return {
        **_optics(rng),
        **population(rng, "soma", soma, rng.uniform(0.02, 0.15), apart=1.2),
        **_debris_style(rng, 2 * width),
        "width": width,
        "number": float(np.clip(rng.uniform(60, 400) / width**1.4, 3, 90)),
        "bend": float(rng.choice([rng.uniform(0.01, 0.05), rng.uniform(0.05, 0.25)])),
        "length": log_uniform(rng, 60, 500),
        "branch": float(rng.uniform(0.2, 0.8) if rng.random() < 0.5 else 0.0),
        "align": float(rng.choice([0.0, rng.uniform(0.6, 1.0)])),
        "somas": float(rng.random() < 0.5),
        "vessel": float(rng.random() < 0.4),
        "texture": float(rng.uniform(0.05, 0.4)),
        "texture_scale": float(rng.uniform(2, 10)),
        "vary": float(rng.uniform(0.1, 0.5)),
        "hollow": float(rng.uniform(0.3, 0.8) if width > 6 and rng.random() < 0.3 else 0.0),
    }


def _path(
    rng: np.random.Generator, start: NDArray[np.float64], angle: float, style: Style
) -> NDArray[np.float64]:
    """Points (x, y) of one smoothly bending line that starts at (x, y)."""
    steps = max(int(style["length"] * math.exp(rng.normal(0, 0.4)) / 4), 4)
    turn = np.cumsum(rng.normal(0, style["bend"], steps)) * 0.3
    heading = angle + np.cumsum(rng.normal(0, style["bend"], steps)) + turn
    walk = np.cumsum(4 * np.stack([np.cos(heading), np.sin(heading)], 1), axis=0)
    return np.asarray(start + np.vstack([[0.0, 0.0], walk]), np.float64)


def _lines(
    rng: np.random.Generator, style: Style, shape: Shape, starts: Sequence[tuple[float, float]]
) -> tuple[NDArray[np.int32], Field]:
    """Line objects on a canvas and how deep inside the line each pixel is (0..1)."""
    ids = Image.new("I", (shape[1], shape[0]))
    inner = Image.new("F", (shape[1], shape[0]))
    draw, shade = ImageDraw.Draw(ids), ImageDraw.Draw(inner)
    common = rng.uniform(0, math.pi)
    number = int(rng.poisson(style["number"])) + 1
    for i in range(min(number, 90)):
        start = rng.uniform([0, 0], [shape[1], shape[0]])
        if starts:
            y, x = starts[i % len(starts)]
            start = np.asarray([x, y])
        spread = 0.15 + 3 * (1 - style["align"])
        angle = common + rng.normal(0, spread)
        queue = [(_path(rng, start, angle, style), style["width"] * math.exp(rng.normal(0, 0.2)))]
        if style["branch"] > rng.random():
            stem, width = queue[0]
            joint = stem[int(rng.integers(1, len(stem)))]
            turn = angle + rng.choice([-0.8, 0.8])
            queue.append((_path(rng, joint, turn, style), 0.65 * width))
        for points, width in queue:
            line = [tuple(p) for p in points.tolist()]
            draw.line(line, fill=i + 1, width=max(round(width), 1), joint="curve")
            for share, value in ((1.0, 0.5), (0.66, 0.8), (0.33, 1.0)):
                if share == 1.0 or width * share >= 1.5:
                    thick = max(round(width * share), 1)
                    shade.line(line, fill=value, width=thick, joint="curve")
    return np.array(ids, np.int32), np.array(inner, np.float32)


def _filaments(style: Style, rng: np.random.Generator, shape: Shape) -> Scene:
    somas = Layer(shape)
    if style["somas"] > 0.5:
        somas.scatter(rng, style, "soma")
    lines, inner = np.zeros(shape, np.int32), np.zeros(shape, np.float32)
    if not is_empty(rng):
        lines, inner = _lines(rng, style, shape, somas.centres)
    if style["width"] < 3:
        inner = np.minimum(inner * 2, 1)
    glow = np.exp(rng.normal(0, style["vary"], int(lines.max()) + 1)).astype(np.float32)
    light = inner * (1 - style["hollow"] * (inner > 0.9)) * glow[lines]
    light = 0.8 * light * _texture(rng, shape, style) * (1 - 0.9 * somas.mask)
    body = somas.inside(0.5 * style["soma_radius"]) * somas.jitter(rng, 0.2)
    debris, speck = _debris(rng, style, shape)
    lineage = "vessel" if style["vessel"] > 0.5 else "filament"
    debris_ids = np.where((lines > 0) | somas.mask, 0, debris.ids)
    parts = [(lineage, lines), ("cell", somas.ids), ("debris", debris_ids)]
    return finish(_glow(rng, style, [light, body, speck * (debris_ids > 0)]), parts)


FAMILIES = (
    Family("fluorescent-nuclei", _nuclei_style, _nuclei),
    Family("fluorescent-cells", _cells_style, _cells),
    Family("fluorescent-sheet", _sheet_style, _sheet),
    Family("fluorescent-filaments", _filament_style, _filaments),
)
