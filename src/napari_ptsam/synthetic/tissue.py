"""Tissue seen by a camera from inside the body."""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

from napari_ptsam.synthetic.camera import draw_camera_style
from napari_ptsam.synthetic.endoscope import (
    aperture,
    draw_frame,
    draw_sensor,
    overlay,
    planes,
    recorded,
    with_vessels,
)
from napari_ptsam.synthetic.fields import Field, Mask, blur, fractal_noise, smooth_noise
from napari_ptsam.synthetic.layers import (
    Layer,
    Shape,
    finish,
    log_uniform,
    population,
)
from napari_ptsam.synthetic.scene import Family, Scene, Style


def _endoscope_style(rng: np.random.Generator) -> dict[str, float]:
    radius = log_uniform(rng, 18, 100)
    return {
        **draw_camera_style(rng),
        **population(rng, "polyp", radius, 0.05, apart=rng.uniform(0.9, 1.4)),
        **population(rng, "debris", log_uniform(rng, 4, 25), rng.choice([0.0, 0.02, 0.08])),
        **draw_sensor(rng),
        "more": float(rng.choice([0.0, rng.uniform(0.3, 3)])),
        "polyp_long": float(rng.uniform(1.0, 1.8)),
        "polyp_rough": float(rng.uniform(0.02, 0.16)),
        "polyp_spread": float(rng.uniform(0.2, 0.5)),
        "dome": log_uniform(rng, 0.12, 0.9),
        "steep": float(rng.uniform(0.4, 2.0)),
        "border": float(rng.uniform(0.8, 3.5)),
        "exposure": float(rng.uniform(1.1, 2.4)),
        "stalk": float(rng.uniform(0.2, 0.9) if rng.random() < 0.3 else 0.0),
        "other_colour": float(rng.choice([0.02, 0.06, 0.12]) * rng.uniform(0.5, 1.5)),
        "other_red": float(rng.normal()),
        "other_light": float(rng.normal(0.2, 0.5)),
        "bumpy": float(rng.choice([0.0, rng.uniform(0.1, 0.5)])),
        "bump_scale": log_uniform(rng, 4, 14),
        "edge": float(rng.uniform(0.0, 0.35)),
        "red": float(rng.uniform(0.62, 0.9)),
        "green": float(rng.uniform(0.3, 0.62)),
        "blue": float(rng.uniform(0.45, 0.95)),
        "vessels": float(rng.choice([0.0, rng.uniform(0.05, 0.35)])),
        "vessel_scale": log_uniform(rng, 16, 50),
        "patches": float(rng.uniform(0.02, 0.08)),
        "relief": float(rng.uniform(0.05, 0.35)),
        "relief_scale": log_uniform(rng, 40, 120),
        "fine": float(rng.uniform(0.0, 0.06)),
        "lumen": float(rng.uniform(0.08, 0.35) if rng.random() < 0.65 else 0.0),
        "folds": float(rng.uniform(0.2, 0.8) if rng.random() < 0.7 else 0.0),
        "fold_pitch": float(rng.uniform(0.35, 0.9)),
        "gloss": float(rng.uniform(0.0, 0.9)),
        "wet": float(rng.uniform(1.3, 2.6)),
        "fall_off": float(rng.uniform(0.5, 1.6)),
        "motion": float(rng.uniform(3, 9) if rng.random() < 0.15 else 0.0),
        **draw_frame(rng),
    }


def _wall(
    style: Style, rng: np.random.Generator, shape: Shape
) -> tuple[Field, Field, NDArray[np.int32]]:
    """Relief of the wall, the light that reaches it (0..1), and the mask of the lumen."""
    side = float(max(shape))
    centre = rng.uniform(-0.1, 1.1, 2) * shape
    y = (np.arange(shape[0], dtype=np.float32)[:, None] - np.float32(centre[0])) / side
    x = (np.arange(shape[1], dtype=np.float32)[None, :] - np.float32(centre[1])) / side
    turn = rng.uniform(0, math.pi)
    u = math.cos(turn) * x + math.sin(turn) * y
    v = rng.uniform(1, 1.8) * (math.cos(turn) * y - math.sin(turn) * x)
    bend = 0.15 * smooth_noise(rng, shape, 0.35 * side) + 0.03 * smooth_noise(rng, shape, 40)
    away = np.hypot(u, v) * np.exp(bend) + 0.02
    height = 8 * style["relief"] * fractal_noise(rng, shape, style["relief_scale"], 3)
    light = np.clip(away / 0.7, 0, 1) ** (0.5 * style["fall_off"])
    if style["folds"] > 0:
        # A fold hides the light from the wall behind it, which lies nearer to the lumen.
        rank = np.log(away) / style["fold_pitch"] + 0.2 * smooth_noise(rng, shape, 60)
        front = np.mod(rank, 1)
        much = np.clip(0.6 + 0.6 * smooth_noise(rng, shape, 110), 0, 1.2) * style["folds"]
        shade = 1.2 * np.exp((front - 1) * 5) - 0.5 * np.exp(-front * 5)
        light = light * np.clip(1 - blur(much * shade, 1.3), 0.1, 1.4)
    reach = style["lumen"] * rng.uniform(0.6, 1.2)
    if reach > 0:
        light = light * np.clip((away - 0.7 * reach) / (0.5 * reach), 0.04, 1)
    return (
        np.asarray(height, np.float32),
        np.asarray(light, np.float32),
        (away < reach).astype(np.int32),
    )


def _polyps(style: Style, rng: np.random.Generator, shape: Shape) -> Layer:
    """One polyp, in some types several, in places where they are well seen."""
    layer = Layer(shape)
    if rng.random() < 0.03:
        return layer
    for _ in range(1 + min(int(rng.poisson(style["more"])), 5)):
        radius = style["polyp_radius"] * math.exp(rng.normal(0, style["polyp_spread"]))
        radius = min(radius, 0.36 * max(shape))
        centre = rng.uniform(0.05, 0.95, 2) * shape
        angle = rng.uniform(0, math.pi)
        layer.add(
            rng,
            (float(centre[0]), float(centre[1])),
            radius,
            elongation=1 + (style["polyp_long"] - 1) * rng.uniform(0.3, 1.5),
            angle=angle,
            roughness=style["polyp_rough"],
        )
    return layer


def _stalks(
    style: Style, rng: np.random.Generator, polyps: Layer
) -> tuple[NDArray[np.int32], Field]:
    """The stalks that polyps hang on: whose they are, and their height."""
    shape = polyps.shape
    ids, height = np.zeros(shape, np.int32), np.zeros(shape, np.float32)
    y = np.arange(shape[0], dtype=np.float32)[:, None]
    x = np.arange(shape[1], dtype=np.float32)[None, :]
    for i, (centre, radius) in enumerate(zip(polyps.centres, polyps.radii, strict=True)):
        if rng.random() > style["stalk"]:
            continue
        turn, width = rng.uniform(0, 2 * math.pi), radius * rng.uniform(0.25, 0.5)
        dy, dx = y - centre[0], x - centre[1]
        along = np.clip(math.sin(turn) * dy + math.cos(turn) * dx, 0, 1.9 * radius)
        away = np.hypot(dy - along * math.sin(turn), dx - along * math.cos(turn))
        rise = 1 - (away / width) ** 2
        ids[rise > 0] = i + 1
        height = np.maximum(height, np.sqrt(np.clip(rise, 0, 1)) * width)
    return ids, np.asarray(height, np.float32)


def _mucosa(style: Style, rng: np.random.Generator, shape: Shape) -> tuple[Field, Mask]:
    """Colour of the flat wall, 3xHxW, and the mask of its vessels."""
    base = style["red"] * planes([1.0, style["green"], style["green"] * style["blue"]])
    patch = style["patches"] * fractal_noise(rng, shape, 70, 3)
    fine = style["fine"] * fractal_noise(rng, shape, 4, 2)
    colour = base * (1 + fine) + patch * planes([0.3, 1.0, 0.9])
    return with_vessels(style, rng, colour, (0.09, 0.1), 1.0)


def _lit(
    style: Style, rng: np.random.Generator, colour: Field, height: Field, light: Field
) -> Field:
    """Light a coloured relief from the camera: diffuse, with wet highlights."""
    dy, dx = np.gradient(height)
    lean_y, lean_x = rng.normal(0, 0.3, 2).tolist()
    facing = 1 / np.sqrt(1 + dx * dx + dy * dy)
    lambert = np.clip((1 + lean_y * dy + lean_x * dx) * facing, 0.05, 1.6)
    shape = (height.shape[0], height.shape[1])
    ry, rx = np.gradient(height + 0.9 * smooth_noise(rng, shape, 7))
    off = (rx - 0.5 * lean_x) ** 2 + (ry - 0.5 * lean_y) ** 2
    wet = smooth_noise(rng, shape, 30) > style["wet"] - light
    glint = 1.6 * style["gloss"] * blur((off < 0.008) & wet, 0.7) * np.clip(2 * light, 0, 1)
    return np.asarray(colour * (light * lambert) + glint, np.float32)


def _swelling(style: Style, polyps: Layer) -> Field:
    """Height of the polyps above the wall in pixels: domes that rise steadily from it."""
    level = np.clip(polyps.level, 0, 1)
    steep = style["steep"]
    dome = (1 - (1 - level) ** (1 + steep)) * polyps.lookup(polyps.radii)
    return blur(style["dome"] * dome, 1.0 + 0.03 * style["polyp_radius"])


def _endoscope(style: Style, rng: np.random.Generator, shape: Shape) -> Scene:
    height, light, lumen = _wall(style, rng, shape)
    colour, vessels = _mucosa(style, rng, shape)
    polyps, debris = _polyps(style, rng, shape), Layer(shape)
    debris.scatter(rng, style, "debris", centred=smooth_noise(rng, shape, 70) > 0.5)
    stalk, rise = _stalks(style, rng, polyps)
    ids = np.where(polyps.mask, polyps.ids, stalk)
    soft = blur(ids > 0, style["border"])
    bumps = style["bumpy"] * soft * smooth_noise(rng, shape, style["bump_scale"])
    relief = height + np.maximum(_swelling(style, polyps), style["dome"] * rise)
    relief = relief + 0.25 * style["bump_scale"] * bumps
    shift = [style["other_light"], style["other_light"] - style["other_red"]]
    tint = 3 * style["other_colour"] * planes([*shift, shift[1]])
    colour = colour * (1 + 0.2 * bumps + soft * tint)
    # What stands out is nearer to the lamp, and keeps light from around it.
    light = light + soft * (0.2 * style["dome"] + 0.6 * np.clip(0.45 - light, 0, 1))
    around = blur(np.roll(soft, 4, 0), 0.1 * style["polyp_radius"] + 2) * (1 - soft)
    light = np.clip(light * (1 - style["edge"] * around), 0.01, 1.2)
    cover = 0.8 * debris.inside(3) * (ids == 0)
    ink = planes([0.62, 0.5, 0.16]) * (1 + 0.3 * smooth_noise(rng, shape, 6))
    colour = colour * (1 - cover) + cover * ink
    relief = relief + 1.5 * cover
    image = recorded(style, rng, _lit(style, rng, colour, relief, light), shape)
    parts: list[tuple[str, NDArray[np.int32] | Mask]] = [
        ("vessel", vessels & (light > 0.2) & (style["vessels"] > 0.15)),
        ("lumen", lumen),
        ("debris", debris.ids),
        ("polyp", ids),
    ]
    image, hidden = overlay(style, rng, image)
    visible = (aperture(style, shape) > 0.5) & ~hidden
    return finish(image, [(name, part * visible) for name, part in parts])


FAMILIES = (Family("endoscopy", _endoscope_style, _endoscope),)
