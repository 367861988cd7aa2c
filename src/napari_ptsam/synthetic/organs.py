"""Organs and glands in a section through a body, as scanners show them."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from napari_ptsam.synthetic.camera import draw_camera_style, expose
from napari_ptsam.synthetic.fields import Mask, blur
from napari_ptsam.synthetic.layers import Layer, Shape, finish, is_empty, log_uniform, population
from napari_ptsam.synthetic.scene import Family, Scene, Style
from napari_ptsam.synthetic.textures import draw_texture, paint_texture


def _organ_style(rng: np.random.Generator) -> dict[str, float]:
    size = log_uniform(rng, 22, 80)
    style = {**draw_camera_style(rng), **draw_texture(rng, "ground"), **draw_texture(rng, "organ")}
    style.update(population(rng, "organ", size, rng.uniform(0.2, 0.6), apart=rng.uniform(0.8, 1.1)))
    style.update(population(rng, "vessel", log_uniform(rng, 3, 14), rng.choice([0.0, 0.05])))
    style["span"] = max(style["span"], float(rng.uniform(0.25, 0.7)))
    for name in ("ground", "organ"):
        # Textures of organs are faint beside their brightness.
        style[f"{name}_contrast"] = log_uniform(rng, 0.008, 0.09)
    return {
        **style,
        "organ_rough": float(rng.uniform(0.1, 0.4)),
        "level": float(rng.uniform(0.2, 0.7)),
        "organ_light": float(rng.choice([-1, 1]) * rng.uniform(0.06, 0.3)),
        "vary": float(rng.uniform(0.0, 0.06)),
        "capsule": float(rng.uniform(-0.3, 0.3)),
        "lumen": float(rng.uniform(0.3, 0.6) if rng.random() < 0.5 else 0.0),
        "lumen_light": float(rng.choice([-1, 1]) * rng.uniform(0.1, 0.35)),
        "vessel_light": float(rng.choice([-1, 1]) * rng.uniform(0.1, 0.35)),
        "speckle": float(rng.uniform(0.1, 0.45) if rng.random() < 0.4 else 0.0),
        "speckle_size": float(rng.uniform(0.6, 1.8)),
        "soft": float(rng.uniform(0.6, 3.5)),
        "body": float(rng.random() < 0.35),
        "warm": float(rng.uniform(0.1, 0.5) if rng.random() < 0.3 else 0.0),
    }


def _organs(style: Style, rng: np.random.Generator, shape: Shape) -> Scene:
    body, organs, lumens, vessels = (Layer(shape) for _ in range(4))
    room = np.ones(shape, bool)
    if style["body"] > 0.5:
        middle = (0.5 * shape[0], 0.5 * shape[1])
        body.add(rng, middle, 0.47 * max(shape), elongation=1.1, roughness=0.1)
        room = body.depth() > 0.04 * max(shape)
    if not is_empty(rng):
        organs.scatter(rng, style, "organ", within=room)
    for centre, radius in zip(organs.centres, organs.radii, strict=True):
        if style["lumen"] > 0 and rng.random() < 0.7:
            size = radius * style["lumen"] * rng.uniform(0.7, 1.2)
            lumens.add(rng, centre, size, roughness=0.25, within=organs.level > 0.1)
    vessels.scatter(rng, style, "vessel", within=room & ~lumens.mask)
    soft = style["soft"]
    grey = style["level"] + style["ground_contrast"] * paint_texture(rng, style, "ground", shape)
    inside = blur(organs.mask, 0.5 * soft)
    tone = style["level"] + style["organ_light"] + style["vary"] * (organs.jitter(rng, 1) - 1)
    tone = tone + style["organ_contrast"] * paint_texture(rng, style, "organ", shape)
    grey = grey * (1 - inside) + inside * tone
    grey = grey + style["capsule"] * np.exp(-((organs.depth() / soft) ** 2)) * organs.mask
    grey = grey + style["lumen_light"] * lumens.inside(soft)
    grey = grey + style["vessel_light"] * vessels.inside(soft) * vessels.jitter(rng, 0.2)
    if style["body"] > 0.5:
        grey = grey * body.inside(3)
    if style["speckle"] > 0:
        grain = blur(rng.standard_normal(shape, dtype=np.float32), style["speckle_size"])
        grey = grey * np.exp(style["speckle"] * grain / (grain.std() + 1e-6))
    picture = np.asarray(np.clip(grey, 0, 1), np.float32)
    if style["warm"] > 0:
        ink = 1 + style["warm"] * np.array([-0.8, 0.8, 1.0], np.float32)
        picture = np.asarray(picture[..., None] ** ink, np.float32)
    parts: list[tuple[str, NDArray[np.int32] | Mask]] = [
        ("stroma", body.mask),
        ("gland", organs.ids),
        ("lumen", lumens.ids),
        ("vessel", vessels.ids),
    ]
    return finish(expose(picture, style, rng), parts)


FAMILIES = (Family("organs", _organ_style, _organs),)
