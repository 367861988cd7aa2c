"""A family of polyps in the bowel: bumps of the wall, seen by an endoscope, that have its colour.

The wall is a tube with folds, computed as distances from the camera and lit by the lamp beside
it. A polyp is part of that relief. It is told from a fold by its shape and shading, and by a hue
and a texture that are only a little different from the wall's.
"""

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
from napari_ptsam.synthetic.layers import Layer, Shape, finish, log_uniform, population
from napari_ptsam.synthetic.relief import STEP, distance_at, enlarged, shading, tube
from napari_ptsam.synthetic.scene import Family, Scene, Style


def _style(rng: np.random.Generator) -> dict[str, float]:
    return {**_instrument(rng), **_wall_style(rng), **_polyp_style(rng)}


def _instrument(rng: np.random.Generator) -> dict[str, float]:
    return {
        **draw_camera_style(rng),
        "blur": float(rng.uniform(0.2, 1.1)),
        "defocus": 0.0,
        "light": 0.0,
        **draw_sensor(rng),
        "exposure": float(rng.uniform(1.2, 2.8)),
        "fall_off": float(rng.uniform(0.35, 1.0)),
        "ambient": float(rng.uniform(0.05, 0.5)),
        "motion": float(rng.uniform(3, 9) if rng.random() < 0.12 else 0.0),
        **draw_frame(rng),
        "gloss": float(rng.uniform(0.4, 1.2)),
        "wet": float(rng.uniform(0.3, 2.2)),
        "glint_scale": log_uniform(rng, 3, 9),
    }


def _wall_style(rng: np.random.Generator) -> dict[str, float]:
    return {
        **population(rng, "bubble", log_uniform(rng, 2.5, 9), 0.3, apart=1.0, long=1.0),
        **population(rng, "debris", log_uniform(rng, 3, 22), rng.choice([0.0, 0.03, 0.1])),
        "bubbles": float(rng.uniform(0.4, 1.2) if rng.random() < 0.25 else 0.0),
        "red": float(rng.uniform(0.6, 0.92)),
        "green": float(rng.uniform(0.28, 0.56)),
        "blue": float(rng.uniform(0.45, 0.95)),
        "patches": float(rng.uniform(0.01, 0.07)),
        "fine": float(rng.uniform(0.0, 0.06)),
        "vessels": float(rng.choice([0.0, rng.uniform(0.05, 0.4)])),
        "vessel_scale": log_uniform(rng, 16, 60),
        "view": log_uniform(rng, 0.35, 2.5),
        "uneven": float(rng.uniform(0.05, 0.3)),
        "folds": float(rng.choice([0.0, rng.uniform(1, 7)], p=[0.2, 0.8])),
        "fold_high": float(rng.uniform(0.1, 0.5)),
        "fold_round": float(rng.uniform(0.02, 0.12)),
        "relief": float(rng.uniform(0.0, 0.03)),
        "relief_scale": log_uniform(rng, 12, 60),
        "pool": float(rng.uniform(0.5, 0.9) if rng.random() < 0.2 else 0.0),
    }


def _polyp_style(rng: np.random.Generator) -> dict[str, float]:
    return {
        "polyp_area": log_uniform(rng, 0.03, 0.4),
        "polyp_spread": float(rng.uniform(0.2, 0.6)),
        "polyp_rough": float(rng.uniform(0.02, 0.12)),
        "polyp_long": float(rng.uniform(1.0, 1.9)),
        "lobes": float(rng.choice([0.0, rng.uniform(0.5, 5.0)])),
        "more": float(rng.choice([0.0, rng.uniform(0.1, 1.0)])),
        "dome": log_uniform(rng, 0.12, 0.9),
        "plateau": float(rng.uniform(0.0, 0.8)),
        "stalk": float(rng.uniform(0.3, 1.0) if rng.random() < 0.3 else 0.0),
        "other": log_uniform(rng, 0.02, 0.2),
        "other_light": float(rng.normal(0.3, 0.7)),
        "other_red": float(rng.normal(0.2, 1)),
        "pits": float(rng.choice([0.0, rng.uniform(0.05, 0.3)])),
        "pit_scale": log_uniform(rng, 2.5, 9),
        "bald": float(rng.uniform(0.2, 1.0)),
        "shadow": float(rng.uniform(0.0, 0.4)),
    }


def _polyps(style: Style, rng: np.random.Generator, shape: Shape, depth: Field) -> Layer:
    """Polyps of one or several lobes; some scenes have none, few more than one."""
    layer = Layer(shape)
    if rng.random() < 0.06:
        return layer
    for _ in range(1 + min(int(rng.poisson(style["more"])), 3)):
        area = style["polyp_area"] * math.exp(rng.normal(0, style["polyp_spread"]))
        radius = math.sqrt(min(max(area, 0.02), 0.5) * shape[0] * shape[1] / math.pi)
        lobes = int(rng.poisson(style["lobes"]))
        places = (rng.uniform(0.1, 0.9, (4, 2)) * shape).tolist()
        # In the dark at the tube's end nobody would mark one.
        y, x = min(places[: 1 + int(rng.integers(4))], key=lambda p: distance_at(depth, p))
        own = [len(layer) + 1]
        layer.add(
            rng,
            (y, x),
            radius * (0.8 if lobes else 1.0),
            elongation=1 + (style["polyp_long"] - 1) * rng.uniform(0.2, 1.2),
            angle=rng.uniform(0, math.pi),
            roughness=style["polyp_rough"],
        )
        for _ in range(lobes):
            turn, size = rng.uniform(0, 2 * math.pi), radius * rng.uniform(0.35, 0.65)
            reach = radius * rng.uniform(0.3, 0.75)
            centre = (y + reach * math.sin(turn), x + reach * math.cos(turn))
            layer.add(rng, centre, size, roughness=style["polyp_rough"])
            own.append(len(layer))
        layer.ids[np.isin(layer.ids, own)] = own[0]
    return layer


def _attached(polyps: Layer, ids: NDArray[np.int32], depth: Field) -> Field:
    """The relief where polyps stand on the wall at their middle, and hide other walls."""
    feet = np.asarray([1, *(distance_at(depth, c) for c in polyps.centres)], np.float32)
    foot = feet[ids[::STEP, ::STEP]]
    return np.where(ids[::STEP, ::STEP] > 0, np.clip(depth, 0.65 * foot, 1.1 * foot), depth)


def _stalks(style: Style, rng: np.random.Generator, polyps: Layer) -> tuple[Mask, Field]:
    """A band from a polyp to the wall, and its height as a share of its width."""
    height = np.zeros(polyps.shape, np.float32)
    if not len(polyps) or rng.random() >= style["stalk"]:
        return np.zeros(polyps.shape, bool), height
    (cy, cx), radius = polyps.centres[0], polyps.radii[0]
    turn, width = rng.uniform(0, 2 * math.pi), radius * rng.uniform(0.22, 0.45)
    y = np.arange(polyps.shape[0], dtype=np.float32)[:, None] - np.float32(cy)
    x = np.arange(polyps.shape[1], dtype=np.float32)[None, :] - np.float32(cx)
    along = np.clip(math.sin(turn) * y + math.cos(turn) * x, 0, radius * rng.uniform(1.4, 2.2))
    away = np.hypot(y - along * math.sin(turn), x - along * math.cos(turn))
    # It widens to its foot.
    rise = 1 - (away / (width * (1 + 0.25 * along / radius))) ** 2
    return rise > 0, np.sqrt(np.clip(rise, 0, 1))


def _swelling(style: Style, polyps: Layer, rise: Field, vanishing: NDArray[np.float64]) -> Field:
    """How far the polyps stand out of the wall, as a share of their radius.

    A polyp's far side is a sharp outline, its near side flows into the wall.
    """
    level = np.clip(polyps.level, 0, 1)
    # The flatter a plateau, the steeper its flanks.
    level = np.minimum(level / (1 - 0.75 * style["plateau"]), 1)
    round_side = np.sqrt(np.clip(level * (2 - level), 0, 1))
    flowing = level * level * (3 - 2 * level)
    far = np.ones(polyps.shape, np.float32)
    if len(polyps):
        (cy, cx), radius = polyps.centres[0], polyps.radii[0]
        dy, dx = vanishing[0] - cy, vanishing[1] - cx
        length = math.hypot(dy, dx) + 1e-6
        y = np.arange(polyps.shape[0], dtype=np.float32)[:, None] - np.float32(cy)
        x = np.arange(polyps.shape[1], dtype=np.float32)[None, :] - np.float32(cx)
        far = np.clip(0.5 + 0.7 * (y * dy + x * dx) / (length * radius), 0, 1)
    dome = far * round_side + (1 - far) * flowing
    return np.asarray(style["dome"] * np.maximum(dome, 0.45 * rise), np.float32)


def _mucosa(
    style: Style, rng: np.random.Generator, shape: Shape, polyp: Field
) -> tuple[Field, Mask]:
    """Colour of the wall and the polyps, 3xHxW, and the mask of the vessels."""
    base = style["red"] * planes([1.0, style["green"], style["green"] * style["blue"]])
    grain = 1 + style["fine"] * fractal_noise(rng, shape, 4, 2)
    if style["pits"] > 0:
        pits = np.abs(smooth_noise(rng, shape, style["pit_scale"]))
        grain = grain + style["pits"] * polyp * (np.minimum(pits, 0.8) - 0.5)
    light, red = style["other"] * style["other_light"], style["other"] * style["other_red"]
    tint = planes([light, light - red, light - 0.7 * red])
    colour = base * grain * (1 + polyp * tint)
    patch = style["patches"] * fractal_noise(rng, shape, 70, 3)
    colour = colour + patch * planes([0.3, 1.0, 0.9])
    return with_vessels(style, rng, colour, (0.07, 0.08), 1 - style["bald"] * polyp)


def _glints(style: Style, rng: np.random.Generator, facing: Field, light: Field) -> Field:
    """Reflections of the lamp: small, saturated, in groups where the wall faces the camera."""
    shape = (facing.shape[0], facing.shape[1])
    ripple = smooth_noise(rng, shape, style["glint_scale"])
    group = smooth_noise(rng, shape, 35)
    score = ripple + 0.9 * group + 3 * (facing - 1) + np.minimum(light, 1) - style["wet"]
    return style["gloss"] * blur(np.clip(4 * (score - 1.2), 0, 1), 0.6)


def _polyp_scene(style: Style, rng: np.random.Generator, shape: Shape) -> Scene:
    coarse = (-(-shape[0] // STEP), -(-shape[1] // STEP))
    depth, vanishing = tube(style, rng, coarse)
    polyps = _polyps(style, rng, shape, depth)
    stalk, rise = _stalks(style, rng, polyps)
    ids = np.where(polyps.mask, polyps.ids, stalk.astype(np.int32))
    swelling = _swelling(style, polyps, rise, STEP * vanishing)[::STEP, ::STEP]
    open_lumen = enlarged(depth, shape) > 2.5 * np.median(depth)
    radius = max(polyps.radii, default=0) / max(shape)
    depth = _attached(polyps, ids, depth)
    depth = depth * (1 - np.minimum(2.5 * radius * blur(swelling, 0.7), 0.6))
    light, facing = (enlarged(blur(f, 0.6), shape) for f in shading(style, depth))
    # The camera sets its exposure by what it sees.
    light = light / np.percentile(light[::4, ::4], 65)
    soft = blur(ids > 0, 1.5)
    behind = np.clip(blur(soft, 0.25 * radius * max(shape) + 2) - 0.3, 0, 1) * (1 - soft)
    light = np.clip(light * (1 - style["shadow"] * behind), 0.005, 3)
    colour, vessels = _mucosa(style, rng, shape, soft)
    picture = colour * light
    picture, debris, bubbles = _clutter(style, rng, picture, light, ids > 0)
    picture = picture + _glints(style, rng, facing, light)
    image = recorded(style, rng, np.asarray(picture, np.float32), shape)
    image, hidden = overlay(style, rng, image)
    visible = (aperture(style, shape) > 0.5) & ~hidden
    parts = [
        ("vessel", (vessels & (light > 0.15)).astype(np.int32)),
        ("lumen", (open_lumen & (light < 0.3)).astype(np.int32)),
        ("polyp", ids),
        ("debris", debris),
        ("vesicle", bubbles),
    ]
    return finish(image, [(name, part * visible) for name, part in parts])


def _clutter(
    style: Style, rng: np.random.Generator, picture: Field, light: Field, covered: Mask
) -> tuple[Field, NDArray[np.int32], NDArray[np.int32]]:
    """Draw residues, a pool of liquid and bubbles beside the polyps; ids of residues, bubbles."""
    shape = (light.shape[0], light.shape[1])
    debris, bubbles = Layer(shape), Layer(shape)
    debris.scatter(
        rng, style, "debris", within=~covered, centred=smooth_noise(rng, shape, 70) > 0.5
    )
    ink = planes([0.62, 0.5, 0.16]) * (1 + 0.3 * smooth_noise(rng, shape, 6))
    cover = 0.8 * debris.inside(3)
    picture = picture * (1 - cover) + cover * ink * np.minimum(light, 1.2)
    if style["pool"] > 0:
        wet = np.clip(3 * (smooth_noise(rng, shape, 110) - 0.7), 0, style["pool"]) * ~covered
        picture = picture * (1 - wet * planes([0.1, 0.3, 0.75]))
    if style["bubbles"] > 0:
        near = smooth_noise(rng, shape, 50) > 1.3 - style["bubbles"]
        bubbles.scatter(rng, style, "bubble", centred=near & ~covered, within=~covered)
        depth = bubbles.depth()
        rim = np.exp(-(((depth - 1) / 1.0) ** 2)) * bubbles.mask
        spot = np.roll(bubbles.level, (2, 2), (0, 1)) > 0.8
        picture = picture * (1 - 0.15 * bubbles.mask) + 0.35 * rim * light + 0.7 * blur(spot, 0.5)
    return np.asarray(picture, np.float32), debris.ids, bubbles.ids


FAMILIES = (Family("polyps-in-lumen", _style, _polyp_scene),)
"""The bowel seen by an endoscope."""
