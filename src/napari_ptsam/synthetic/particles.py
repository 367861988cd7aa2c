"""Families of particles in the transmission and the scanning electron microscope."""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw

from napari_ptsam.synthetic.camera import draw_camera_style, expose
from napari_ptsam.synthetic.fields import Field, blur, fractal_noise, mosaic, scatter, smooth_noise
from napari_ptsam.synthetic.layers import Shape, finish, is_empty, log_uniform
from napari_ptsam.synthetic.scene import Family, Scene, Style, kind
from napari_ptsam.synthetic.solids import draw_form, solid

_PARTICLE, _DEBRIS, _FILAMENT = kind("particle"), kind("debris"), kind("filament")


def _microscope(rng: np.random.Generator) -> dict[str, float]:
    """A camera as electron microscopes have it: grainy, grey, often with a caption."""
    style = draw_camera_style(rng)
    style["photons"] = 10 ** rng.uniform(1.3, 3.3)
    style["light"] = style["light"] * 0.4
    style["span"] = max(style["span"], rng.uniform(0.2, 0.6))
    style["strip"] = float(rng.uniform(0.05, 0.12) if rng.random() < 0.25 else 0.0)
    style["strip_light"] = float(rng.choice([0.0, 0.05, 0.9]))
    if rng.random() < 0.25:
        style["text"] = 1.0
    return style


def _with_strip(rng: np.random.Generator, style: Style, scene: Scene) -> Scene:
    """Cover the bottom of a scene with the strip of text that microscopes add."""
    if style["strip"] <= 0:
        return scene
    height, width = scene.kinds.shape
    top = int(height * (1 - style["strip"]))
    picture = Image.fromarray(scene.image)
    draw = ImageDraw.Draw(picture)
    paper = int(255 * style["strip_light"])
    ink = 255 - paper
    draw.rectangle((0, top, width, height), fill=(paper,) * 3)
    magnification = f"x{rng.integers(5, 300)},000   {rng.integers(1, 30)}.0 kV"
    draw.text((6, top + 2), magnification, fill=(ink,) * 3)
    x = int(width * rng.uniform(0.6, 0.75))
    draw.line((x, height - 4, x + width * 0.2, height - 4), fill=(ink,) * 3, width=2)
    kinds, instances = scene.kinds.copy(), scene.instances.copy()
    kinds[top:], instances[top:] = 0, 0
    return Scene(np.asarray(picture, np.uint8), kinds, instances)


def _places(
    rng: np.random.Generator, style: Style, shape: Shape, most: int = 220
) -> list[tuple[float, float, float]]:
    """Centres and radii of a scene's bodies: spread out, or in heaps."""
    radius = style["radius"]
    area = (shape[0] + radius) * (shape[1] + radius)
    wanted = style["cover"] * area / (math.pi * radius**2) * math.exp(rng.normal(0, 0.35))
    count = int(min(max(wanted, 1), most))
    spots: list[tuple[float, float]] = []
    if style["heaps"] > 0:
        reach = radius * math.sqrt(style["heaps"]) * 0.9
        middles = rng.uniform((0, 0), shape, (max(int(count / style["heaps"]), 1), 2))
        offsets = np.clip(rng.normal(0, reach, (count, 2)), -2.5 * reach, 2.5 * reach)
        spots = [tuple(p) for p in (middles[rng.integers(len(middles), size=count)] + offsets)]
    else:
        spacing = 2 * radius * style["apart"]
        spots = scatter(rng, shape, spacing, tries=3 * count, limit=count, margin=0.5 * radius)
    sizes = radius * np.exp(np.clip(rng.normal(0, style["spread"], len(spots)), -1.5, 0.9))
    return [(float(y), float(x), float(r)) for (y, x), r in zip(spots, sizes, strict=True)]


def _population(rng: np.random.Generator, low: float, high: float) -> dict[str, float]:
    """How many, how large and how crowded the bodies of one type are."""
    return {
        "radius": log_uniform(rng, low, high),
        "cover": log_uniform(rng, 0.06, 0.7),
        "apart": float(rng.uniform(0.6, 1.15)),
        "spread": float(rng.choice([rng.uniform(0.02, 0.1), rng.uniform(0.1, 0.55)])),
        "heaps": float(rng.integers(4, 30) if rng.random() < 0.3 else 0),
        "align": float(rng.random() < 0.2),
    }


def _tem_style(rng: np.random.Generator) -> dict[str, float]:
    size = _population(rng, 3, 80)
    wide = size["radius"] > 7
    return {
        **_microscope(rng),
        **size,
        **draw_form(rng, "body"),
        **draw_form(rng, "bit", "lump"),
        "bits": float(rng.choice([0.0, rng.uniform(2, 25)])),
        "bit_radius": float(np.clip(size["radius"] * rng.choice([0.25, 0.35, 1.8]), 1.2, 30)),
        "opacity": log_uniform(rng, 0.35, 2.5),
        "solidness": float(rng.uniform(0.2, 1.2)),
        "diffraction": float(rng.choice([0.0, rng.uniform(0.1, 0.5)])),
        "shell": float(rng.uniform(0.45, 0.8) if wide and rng.random() < 0.25 else 0.0),
        "hollow": float(rng.uniform(0.6, 0.88) if wide and rng.random() < 0.15 else 0.0),
        "fringe": float(rng.uniform(0.0, 0.12)),
        "film": float(rng.uniform(0.6, 0.9)),
        "grain": log_uniform(rng, 0.005, 0.09),
        "grain_scale": log_uniform(rng, 1.5, 7),
        "cloud": float(rng.uniform(0.0, 0.06)),
        "lace": float(rng.uniform(60, 160) if rng.random() < 0.15 else 0.0),
        "invert": float(rng.random() < 0.2),
        "speckle": float(rng.uniform(0, 0.3)),
    }


def _lace(rng: np.random.Generator, style: Style, shape: Shape) -> tuple[Field, NDArray[np.bool_]]:
    """The net of carbon that some grids carry, as opacity and as mask."""
    if style["lace"] <= 0:
        return np.zeros(shape, np.float32), np.zeros(shape, bool)
    _, edge = mosaic(rng, shape, style["lace"], regularity=0.2, warp=0.25)
    width = 0.05 * style["lace"]
    mask = edge < width
    return np.asarray(0.5 * np.clip((width - edge) / 3, 0, 1), np.float32), mask


def _tem(style: Style, rng: np.random.Generator, shape: Shape) -> Scene:
    lace, net = _lace(rng, style, shape)
    opaque = 0.7 * lace
    parts: dict[str, NDArray[np.int32]] = {
        name: np.zeros(shape, np.int32) for name in ("debris", "particle", "core")
    }
    for i in range(int(rng.poisson(style["bits"]))):
        centre = tuple(rng.uniform((0, 0), shape))
        window, up, low = solid(rng, style, "bit", shape, centre, style["bit_radius"])
        opaque[window] += 0.25 * (up - low) / (2 * style["bit_radius"])
        parts["debris"][window][up > low] = i + 1
    heading = rng.uniform(0, math.pi)
    places = [] if is_empty(rng) else _places(rng, style, shape)
    for i, (y, x, radius) in enumerate(places):
        angle = heading + rng.normal(0, 0.1) if style["align"] else None
        window, up, low = solid(rng, style, "body", shape, (y, x), radius, angle)
        inside = up > low
        thick = np.clip((up - low) / (2 * radius), 0, 1) ** style["solidness"]
        dark = style["opacity"] * math.exp(style["diffraction"] * rng.normal())
        parts["particle"][window][inside] = i + 1
        if style["hollow"] > 0:
            thick = thick * np.where(thick > 1 - style["hollow"] ** 2, 0.45, 1)
        opaque[window] += dark * thick * (0.35 if style["shell"] > 0 else 1)
        if style["shell"] > 0:
            _core(rng, style, (y, x), radius, opaque, parts["core"], i + 1)
    parts["debris"][parts["particle"] > 0] = 0
    body = np.minimum(parts["particle"], 1).astype(np.float32)
    halo = style["fringe"] * (blur(body, 2.5) - blur(body, 1.0))
    speckle = 1 + style["speckle"] * fractal_noise(rng, shape, max(0.3 * style["radius"], 2), 2)
    film = style["film"] + style["grain"] * fractal_noise(rng, shape, style["grain_scale"], 2)
    film = film + style["cloud"] * smooth_noise(rng, shape, 60) + halo
    grey = film * np.exp(-opaque * np.clip(speckle, 0.2, 2))
    scene = finish(
        expose(np.asarray(grey, np.float32), style, rng), [("filament", net), *parts.items()]
    )
    return _with_strip(rng, style, scene)


def _core(
    rng: np.random.Generator,
    style: Style,
    centre: tuple[float, float],
    radius: float,
    opaque: Field,
    cores: NDArray[np.int32],
    number: int,
) -> None:
    """Put the dense core of a core-shell particle into the pictures of opacity and cores."""
    shape = (opaque.shape[0], opaque.shape[1])
    off = rng.normal(0, 0.05 * radius, 2)
    inner = style["shell"] * radius
    centre = (centre[0] + off[0], centre[1] + off[1])
    window, up, low = solid(rng, {**style, "body_rough": 0.1}, "body", shape, centre, inner)
    opaque[window] += style["opacity"] * np.clip((up - low) / (2 * inner), 0, 1)
    cores[window][up > low] = number


def _sem_style(rng: np.random.Generator) -> dict[str, float]:
    size = _population(rng, 5, 90)
    packed = rng.random() < 0.5
    return {
        **_microscope(rng),
        **size,
        **draw_form(rng, "body"),
        **draw_form(rng, "bit"),
        "cover": log_uniform(rng, 0.9, 3.0) if packed else size["cover"],
        "apart": float(rng.uniform(0.35, 0.6) if packed else size["apart"]),
        "layers": float(rng.uniform(0.5, 2.0) if packed else rng.uniform(0.0, 0.4)),
        "deep": float(rng.uniform(0.1, 0.4) if packed else 0.0),
        "bits": float(rng.choice([0.0, rng.uniform(3, 40)])),
        "bit_radius": float(np.clip(size["radius"] * rng.uniform(0.12, 0.35), 1.5, 20)),
        "albedo": float(rng.uniform(0.25, 0.55)),
        "ground": float(rng.uniform(0.05, 0.6)),
        "ground_grain": log_uniform(rng, 0.01, 0.12),
        "ground_scale": log_uniform(rng, 3, 40),
        "edge": float(rng.uniform(0.1, 0.7)),
        "tilt": float(rng.uniform(0.0, 0.3)),
        "side": float(rng.uniform(0, 2 * math.pi)),
        "shadow": float(rng.uniform(0.3, 1.1)),
        "rough": log_uniform(rng, 0.005, 0.12),
        "rough_scale": log_uniform(rng, 0.08, 0.6),
        "vary": float(rng.uniform(0.0, 0.2)),
        "squash": float(rng.uniform(0.5, 1.0)),
    }


def _sem(style: Style, rng: np.random.Generator, shape: Shape) -> Scene:
    radius = style["radius"]
    relief = fractal_noise(rng, shape, style["ground_scale"], 3)
    height = np.asarray(style["ground_grain"] * style["ground_scale"] * relief, np.float32)
    ids, bits = np.zeros(shape, np.int32), np.zeros(shape, np.int32)
    albedo = np.full(shape, style["ground"], np.float32)
    places = [] if is_empty(rng) else _places(rng, style, shape)
    levels = rng.uniform(0, 2 * radius * style["layers"], len(places))
    floor = np.quantile(levels, style["deep"]) if style["deep"] > 0 and places else -1.0
    heading = rng.uniform(0, math.pi)
    for i, ((y, x, size), z) in enumerate(zip(places, levels, strict=True)):
        angle = heading + rng.normal(0, 0.1) if style["align"] else None
        window, up, low = solid(rng, style, "body", shape, (y, x), size, angle)
        top = style["squash"] * up + z + 0.5 * size
        won = (up > low) & (top > height[window])
        height[window][won] = top[won]
        ids[window][won] = i + 1 if z >= floor else 0
        tone = style["albedo"] * math.exp(style["vary"] * rng.normal())
        albedo[window][won] = tone * (1 if z >= floor else 0.6)
    for i in range(int(rng.poisson(style["bits"]))):
        centre = tuple(rng.uniform((0, 0), shape))
        window, up, low = solid(rng, style, "bit", shape, centre, style["bit_radius"])
        level = height[window]
        won = up > low
        bits[window][won] = i + 1
        height[window][won] = (level + np.maximum(up, 0))[won]
        albedo[window][won] = 1.2 * style["albedo"]
    rough = style["rough"] * radius * style["rough_scale"]
    height += rough * fractal_noise(rng, shape, max(style["rough_scale"] * radius, 2), 3)
    grey = _scanned(style, height, albedo, radius)
    grey = grey + style["ground_grain"] * 0.3 * relief * (ids == 0)
    scene = finish(
        expose(np.asarray(grey, np.float32), style, rng), [("particle", ids), ("debris", bits)]
    )
    return _with_strip(rng, style, scene)


def _scanned(style: Style, height: Field, albedo: Field, radius: float) -> Field:
    """Brightness of a relief as secondary electrons show it.

    Slopes and edges emit more than flat tops, hollows keep what they emit, and
    the detector sees one side better than the other.
    """
    dy, dx = np.gradient(blur(height, 0.6))
    facing = 1 / np.sqrt(1 + dx**2 + dy**2)
    side = (math.cos(style["side"]) * dx + math.sin(style["side"]) * dy) * facing
    hollow = 0.6 * (blur(height, 0.5 * radius) - height) + 0.4 * (blur(height, 3) - height)
    light = np.exp(-style["shadow"] * np.clip(hollow / (0.5 * radius), -0.15, 2))
    emitted = albedo * (0.8 + style["tilt"] * side) + style["edge"] * (1 - facing) ** 1.5
    return np.asarray(emitted * light, np.float32)


def _fibre_style(rng: np.random.Generator) -> dict[str, float]:
    return {
        **_sem_style(rng),
        **draw_form(rng, "body", "rod"),
        **draw_form(rng, "bit", "lump"),
        "radius": log_uniform(rng, 2.0, 14),
        "body_ratio": log_uniform(rng, 8, 24),
        "cover": log_uniform(rng, 0.6, 3.0),
        "apart": 0.2,
        "heaps": 0.0,
        "spread": float(rng.uniform(0.05, 0.35)),
        "deep": float(rng.uniform(0.0, 0.4)),
        "bits": float(rng.uniform(3, 25)),
        "bit_radius": log_uniform(rng, 4, 14),
        "layers": float(rng.uniform(0.5, 2.5)),
    }


def _fibres(style: Style, rng: np.random.Generator, shape: Shape) -> Scene:
    # A fibre covers its length, not a disc: fewer of them are needed.
    few = {**style, "cover": style["cover"] / math.sqrt(style["body_ratio"])}
    scene = _sem(few, rng, shape)
    kinds = scene.kinds.copy()
    kinds[scene.kinds == _PARTICLE] = _FILAMENT
    kinds[scene.kinds == _DEBRIS] = _PARTICLE
    return Scene(scene.image, kinds, scene.instances)


FAMILIES = (
    Family("transmission-particles", _tem_style, _tem),
    Family("scanned-particles", _sem_style, _sem),
    Family("scanned-fibres", _fibre_style, _fibres),
)
