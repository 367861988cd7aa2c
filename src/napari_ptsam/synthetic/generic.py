"""Families without a named specimen: regions of texture, random objects, networks."""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

from napari_ptsam.synthetic.camera import draw_camera_style, expose
from napari_ptsam.synthetic.fields import (
    Field,
    Mask,
    blur,
    fractal_noise,
    mosaic,
    scatter,
    smooth_noise,
)
from napari_ptsam.synthetic.layers import (
    Layer,
    Shape,
    finish,
    is_empty,
    log_uniform,
    population,
)
from napari_ptsam.synthetic.scene import Family, Scene, Style, kind
from napari_ptsam.synthetic.solids import draw_form, solid
from napari_ptsam.synthetic.textures import draw_texture, paint_texture

_OBJECTS = ("particle", "cell", "debris", "spot")
_REGIONS = ("phase", "stroma", "gland")
_LINES = ("filament", "vessel", "pore", "membrane")


def _palette(rng: np.random.Generator, names: tuple[str, ...], grey: float) -> dict[str, float]:
    """Colours that differ from the first by a random but visible amount.

    All are grey with probability `grey`.
    """
    style = {"coloured": float(rng.random() >= grey)}
    channels = 3 if style["coloured"] > 0.5 else 1
    base = np.resize(rng.uniform(0.15, 0.8, channels), 3)
    spread = log_uniform(rng, 0.1, 0.6)
    for i, name in enumerate(names):
        step = rng.standard_normal(channels)
        step *= 0 if i == 0 else spread * rng.uniform(0.5, 1.5) / np.linalg.norm(step)
        ink = base + np.resize(step, 3)
        # Mirrored rather than clipped, lest two parts end up equally dark.
        ink = np.where((ink < 0.03) | (ink > 0.97), base - np.resize(step, 3), ink)
        ink = np.clip(ink, 0.03, 0.97)
        style.update({f"{name}_{c}": float(v) for c, v in zip("rgb", ink, strict=True)})
    return style


def _ink(style: Style, name: str) -> NDArray[np.float32]:
    """The colour of a part, Cx1x1, of one channel in grey types."""
    colour = np.asarray([style[f"{name}_{c}"] for c in "rgb"], np.float32)[:, None, None]
    return colour if style["coloured"] > 0.5 else colour[:1]


def _photograph(style: Style, rng: np.random.Generator, picture: Field) -> NDArray[np.uint8]:
    """Expose a 1xHxW or 3xHxW picture."""
    if picture.shape[0] == 1:
        return expose(picture[0], style, rng)
    return expose(np.ascontiguousarray(np.moveaxis(picture, 0, 2)), style, rng)


def _region_style(rng: np.random.Generator) -> dict[str, float]:
    parts = ("ground", *_REGIONS)
    style = {**draw_camera_style(rng), **_palette(rng, parts, 0.55)}
    for name in parts:
        style.update(draw_texture(rng, name))
        style[f"{name}_contrast"] = log_uniform(rng, 0.04, 0.22)
    if rng.random() < 0.35:
        # Regions that differ in nothing but their texture.
        for name in _REGIONS:
            style.update({f"{name}_{c}": style[f"ground_{c}"] for c in "rgb"})
            style[f"{name}_contrast"] = style["ground_contrast"]
    style["regions"] = float(rng.integers(1, 4))
    style["size"] = log_uniform(rng, 35, 200)
    style["tiles"] = float(rng.random() < 0.35)
    style["ragged"] = float(rng.uniform(0.0, 0.25))
    style["share"] = float(rng.uniform(-0.5, 0.8))
    style["soft"] = float(rng.choice([0.0, rng.uniform(0.5, 5.0)]))
    style["outline"] = float(rng.choice([0.0, rng.uniform(-0.25, 0.25)]))
    return style


def _regions(style: Style, rng: np.random.Generator, shape: Shape) -> Scene:
    count = int(style["regions"])
    owner = np.zeros(shape, np.int32)
    if style["tiles"] > 0.5:
        tile, _ = mosaic(rng, shape, style["size"], regularity=0.3, warp=0.2)
        owner = rng.integers(0, count + 1, int(tile.max()) + 1)[tile].astype(np.int32)
    else:
        for i in range(count):
            field = smooth_noise(rng, shape, style["size"])
            field = field + style["ragged"] * fractal_noise(rng, shape, 12, 3)
            owner[field > style["share"] + 0.3 * i] = i + 1
    if is_empty(rng):
        owner[:] = 0
    picture: Field = np.zeros((3 if style["coloured"] > 0.5 else 1, *shape), np.float32)
    parts: list[tuple[str, Mask]] = []
    for i, name in enumerate(("ground", *_REGIONS)[: count + 1]):
        mask = owner == i
        if not mask.any():
            continue
        weight = blur(mask, style["soft"]) if style["soft"] > 0 else mask.astype(np.float32)
        grain = style[f"{name}_contrast"] * paint_texture(rng, style, name, shape)
        picture += weight * (_ink(style, name) + grain)
        if i > 0:
            parts.append((name, mask))
    if style["outline"] != 0:
        step = np.zeros(shape, np.float32)
        step[:, 1:] += owner[:, 1:] != owner[:, :-1]
        step[1:] += owner[1:] != owner[:-1]
        picture += 2 * style["outline"] * blur(step, 1.0)
    return finish(_photograph(style, rng, picture), parts)


def _object_style(rng: np.random.Generator) -> dict[str, float]:
    style = {**draw_camera_style(rng), **_palette(rng, ("ground", *_OBJECTS), 0.4)}
    style.update(draw_texture(rng, "ground"))
    style["sorts"] = float(rng.integers(2, len(_OBJECTS) + 1))
    radius = log_uniform(rng, 4, 55)
    for name in _OBJECTS:
        style.update({**draw_texture(rng, name), **draw_form(rng, name)})
        style[f"{name}_radius"] = float(np.clip(radius * log_uniform(rng, 0.45, 2.2), 3, 80))
        style[f"{name}_cover"] = log_uniform(rng, 0.05, 0.35)
        style[f"{name}_spread"] = float(rng.uniform(0.02, 0.35))
        style[f"{name}_relief"] = float(rng.choice([0.0, rng.uniform(-0.5, 0.5)]))
        style[f"{name}_rim"] = float(rng.choice([0.0, rng.uniform(-0.5, 0.5)]))
        style[f"{name}_vary"] = float(rng.choice([0.0, rng.uniform(0.02, 0.12)]))
    style["shadow"] = float(rng.choice([0.0, rng.uniform(0.05, 0.3)]))
    style["clear"] = float(rng.choice([1.0, rng.uniform(0.4, 1.0)]))
    if rng.random() < 0.25:
        # Sorts that differ in size and shape only.
        for name in _OBJECTS[1:]:
            style.update({f"{name}_{c}": style[f"{_OBJECTS[0]}_{c}"] for c in "rgb"})
            for key in ("texture", "scale", "contrast", "relief", "rim"):
                style[f"{name}_{key}"] = style[f"{_OBJECTS[0]}_{key}"]
    return style


def _scatter_sort(
    style: Style, rng: np.random.Generator, name: str, kinds: NDArray[np.uint8], canvas: Field
) -> list[tuple[tuple[slice, slice], Mask]]:
    """Paint the objects of one sort on a CxHxW canvas; returns their windows and masks."""
    shape = (kinds.shape[0], kinds.shape[1])
    radius = style[f"{name}_radius"]
    wanted = style[f"{name}_cover"] * shape[0] * shape[1] / (math.pi * radius**2)
    count = min(int(rng.poisson(max(wanted, 0.7))), 70)
    grain = style[f"{name}_contrast"] * paint_texture(rng, style, name, shape)
    ink = _ink(style, name)
    stamps = []
    for centre in scatter(rng, shape, 1.3 * radius, tries=3 * count, limit=count):
        size = radius * math.exp(rng.normal(0, style[f"{name}_spread"]))
        window, up, low = solid(rng, style, name, shape, centre, size)
        inside = up > low
        depth = np.clip((up - low) / (2 * size), 0, 1)
        tone = 1 + style[f"{name}_relief"] * (depth - 0.6)
        tone = tone + style[f"{name}_rim"] * np.exp(-depth * size / 2)
        colour = ink + style[f"{name}_vary"] * rng.standard_normal(ink.shape, dtype=np.float32)
        cover = style["clear"] * inside
        view = canvas[:, *window]
        view += cover * (colour * tone + grain[window] - view)
        stamps.append((window, inside))
        kinds[window][inside] = kind(name)
    return stamps


def _objects(style: Style, rng: np.random.Generator, shape: Shape) -> Scene:
    ground = style["ground_contrast"] * paint_texture(rng, style, "ground", shape)
    canvas = np.asarray(_ink(style, "ground") + ground, np.float32)
    kinds, instances = np.zeros(shape, np.uint8), np.zeros(shape, np.uint16)
    number = 0
    for name in () if is_empty(rng) else _OBJECTS[: int(style["sorts"])]:
        if rng.random() < 0.12:
            continue
        before = canvas.copy()
        for window, inside in _scatter_sort(style, rng, name, kinds, canvas):
            number += 1
            instances[window][inside] = number
        if style["shadow"] > 0:
            body = np.roll((kinds == kind(name)).astype(np.float32), (3, 3), (0, 1))
            shade = style["shadow"] * blur(body, 2.5) * (kinds == 0)
            canvas = np.where(kinds == 0, before * (1 - shade), canvas)
    return Scene(_photograph(style, rng, canvas), kinds, instances)


def _network_style(rng: np.random.Generator) -> dict[str, float]:
    style = {**draw_camera_style(rng), **_palette(rng, ("ground", "line", "dot"), 0.6)}
    style.update({**draw_texture(rng, "ground"), **draw_texture(rng, "line")})
    style.update(population(rng, "dot", log_uniform(rng, 2.5, 14), rng.choice([0.0, 0.06])))
    style["pattern"] = float(rng.integers(4))
    style["size"] = log_uniform(rng, 14, 90)
    style["width"] = log_uniform(rng, 1.2, 9)
    style["sort"] = float(rng.integers(len(_LINES)))
    style["fill"] = float(rng.uniform(-0.6, 0.9))
    style["broken"] = float(rng.choice([0.0, rng.uniform(0.3, 1.2)]))
    style["soft"] = float(rng.uniform(0.5, 2.5))
    style["depth"] = float(rng.choice([0.0, rng.uniform(-0.35, 0.35)]))
    return style


def _network_level(style: Style, rng: np.random.Generator, shape: Shape) -> Field:
    """Pixels inside the network's outline (positive) or outside it (negative)."""
    size, half = style["size"], 0.5 * style["width"]
    pattern = int(style["pattern"])
    if pattern == 0:  # Cracks, or walls of a foam.
        _, edge = mosaic(rng, shape, size, regularity=0.2, warp=0.12)
        level = half - edge
    elif pattern == 1:  # Loose curves: the zero line of noise.
        field = fractal_noise(rng, shape, 1.6 * size, 3)
        dy, dx = np.gradient(field)
        level = half - np.abs(field) / (np.hypot(dy, dx) + 0.3 / size)
    elif pattern == 2:  # Labyrinth.
        field = smooth_noise(rng, shape, 0.5 * size) - smooth_noise(rng, shape, 3 * size) * 0.2
        level = (field - blur(field, size) - 0.2) * 0.3 * size
    else:  # Islands and channels of two phases.
        level = (fractal_noise(rng, shape, size, 3) - style["fill"]) * 0.3 * size
    if style["broken"] > 0:
        gap = smooth_noise(rng, shape, 1.2 * size) + 1.3 - style["broken"]
        level = np.minimum(level, gap * 0.5 * size)
    return np.asarray(level, np.float32)


def _networks(style: Style, rng: np.random.Generator, shape: Shape) -> Scene:
    level = _network_level(style, rng, shape)
    mask = level > 0
    if is_empty(rng):
        mask[:] = False
    dots = Layer(shape)
    dots.scatter(rng, style, "dot")
    weight = blur(mask, 0.6 * style["soft"])
    ground = style["ground_contrast"] * paint_texture(rng, style, "ground", shape)
    line = 0.6 * style["line_contrast"] * paint_texture(rng, style, "line", shape)
    line = line + style["depth"] * np.clip(level / (0.5 * style["width"]), 0, 1)
    over = dots.inside(style["soft"])
    picture = (1 - weight) * (_ink(style, "ground") + ground)
    picture = picture + weight * (_ink(style, "line") + line)
    picture = picture * (1 - over) + over * (_ink(style, "dot") + 0.4 * ground)
    parts: list[tuple[str, NDArray[np.int32] | Mask]] = [
        (_LINES[int(style["sort"])], mask),
        ("spot", dots.ids),
    ]
    return finish(_photograph(style, rng, np.asarray(picture, np.float32)), parts)


FAMILIES = (
    Family("texture-regions", _region_style, _regions),
    Family("random-objects", _object_style, _objects),
    Family("networks", _network_style, _networks),
)
