"""Stained tissue sections: haematoxylin and eosin, and brown immunostains."""

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

# Absorbances of the dyes in red, green and blue, as published for colour
# deconvolution (Ruifrok & Johnston, Anal. Quant. Cytol. Histol. 23:291, 2001).
_HAEMATOXYLIN = np.asarray([0.65, 0.70, 0.29], np.float32)
_EOSIN = np.asarray([0.07, 0.99, 0.11], np.float32)
_BROWN = np.asarray([0.27, 0.57, 0.78], np.float32)


def _stain(rng: np.random.Generator) -> dict[str, float]:
    """Camera and dye colours of one type of section."""
    style = draw_camera_style(rng)
    style.update(
        photons=log_uniform(rng, 500, 10000),
        read=0.004,
        span=1.0,
        floor=0.0,
        light=style["light"] * 0.3,
        gain=min(style["gain"], 1.03),
        haematoxylin=float(rng.uniform(0.6, 1.6)),
        eosin=float(rng.uniform(0.2, 0.7)),
        fibre_scale=log_uniform(rng, 4, 16),
        fibre_long=float(rng.uniform(2, 6)),
        fibre_turn=float(rng.uniform(0, math.pi)),
        fibre=float(rng.uniform(0.2, 0.7)),
        holes=float(rng.uniform(0.9, 3.0)),
        grey=float(rng.random() < 0.08),
    )
    style.update({f"jitter{i}": float(rng.normal(0, 0.08)) for i in range(9)})
    return style


def _dyes(style: Style) -> NDArray[np.float32]:
    """3x3, the absorbances of haematoxylin, eosin and brown of this type's staining."""
    jitter = np.asarray([style[f"jitter{i}"] for i in range(9)], np.float32).reshape(3, 3)
    dyes = np.stack([_HAEMATOXYLIN, _EOSIN, _BROWN]) + jitter
    return np.asarray(np.clip(dyes, 0.02, 1.2), np.float32)


def _reflected(position: Field, size: int) -> NDArray[np.intp]:
    """Indices into `size` pixels of positions that are mirrored at both ends."""
    return np.abs(position.astype(np.intp) % (2 * size - 2) - (size - 1))


def _fibres(rng: np.random.Generator, style: Style, shape: Shape) -> Field:
    """Wavy fibrous texture, zero mean, unit SD: stretched noise along a bending heading."""
    long = style["fibre_long"]
    noise = fractal_noise(rng, shape, style["fibre_scale"], 3, 0.7)
    y, x = np.mgrid[0 : shape[0], 0 : shape[1]].astype(np.float32)
    bend = 2.5 * style["fibre_scale"] * smooth_noise(rng, shape, 90)
    c, s = math.cos(style["fibre_turn"]), math.sin(style["fibre_turn"])
    u = _reflected((c * x + s * y + bend) / long, shape[1])
    v = _reflected(c * y - s * x + bend, shape[0])
    return np.asarray(noise[v, u], np.float32)


def _expose(
    rng: np.random.Generator, style: Style, dyes: tuple[Field, Field, Field]
) -> NDArray[np.uint8]:
    """Picture of the amounts of haematoxylin, eosin and brown (HxW each) by absorption."""
    amount = np.stack([np.maximum(dye, 0) for dye in dyes], -1)
    light = 0.97 * np.exp(-amount @ _dyes(style))
    if style["grey"] > 0.5:
        light = light.mean(-1)
    return expose(np.asarray(light, np.float32), style, rng)


def _chromatin(rng: np.random.Generator, style: Style, layer: Layer, shape: Shape) -> Field:
    """Haematoxylin of nuclei: clumped inside, darker at the membrane."""
    clumps = 1 + style["clumps"] * fractal_noise(rng, shape, style["clump_scale"], 2)
    rim = 1 + style["membrane"] * np.exp(-((layer.depth() / 1.3) ** 2))
    return np.asarray(layer.jitter(rng, style["vary"]) * clumps * rim * layer.mask, np.float32)


def _nucleus_style(rng: np.random.Generator, radius: float) -> dict[str, float]:
    return {
        "clumps": float(rng.uniform(0.1, 0.45)),
        "clump_scale": float(max(0.5 * radius, 1.5)),
        "membrane": float(rng.uniform(0.0, 0.6)),
        "vary": float(rng.uniform(0.1, 0.35)),
    }


def _tissue_style(rng: np.random.Generator) -> dict[str, float]:
    radius = log_uniform(rng, 3, 24)
    return {
        **_stain(rng),
        **_nucleus_style(rng, radius),
        **population(rng, "object", radius, log_uniform(rng, 0.08, 0.45), apart=0.8),
        **population(rng, "small", radius * rng.uniform(0.45, 0.65), 0.05, apart=1.0, long=1.0),
        **population(rng, "spindle", radius * 0.7, 0.04, apart=1.0, long=4.0),
        "object_rough": float(rng.uniform(0.03, 0.12)),
        "brown": float(rng.uniform(0.2, 0.7) if rng.random() < 0.4 else 0.0),
        "brown_amount": float(rng.uniform(0.7, 1.6)),
        "cytoplasm": float(rng.uniform(0.0, 0.4)),
        "smalls": float(rng.random() < 0.6),
    }


def _tissue(style: Style, rng: np.random.Generator, shape: Shape) -> Scene:
    nuclei, small, spindle = Layer(shape), Layer(shape), Layer(shape)
    hole = fractal_noise(rng, shape, 70, 3) > style["holes"]
    if not is_empty(rng):
        nuclei.scatter(rng, style, "object", centred=~hole)
        if style["smalls"] > 0.5:
            small.scatter(rng, style, "small", within=~nuclei.mask, centred=~hole)
            free = ~nuclei.mask & ~small.mask
            spindle.scatter(rng, style, "spindle", within=free, centred=~hole)
    positive = rng.random(len(nuclei)) < style["brown"]
    brown = nuclei.lookup(positive.astype(np.float64)) > 0.5
    chromatin = _chromatin(rng, style, nuclei, shape)
    blue = np.where(brown, 0.3, 1.0) * chromatin
    blue += 1.4 * small.inside(1.5) * small.mask + 1.1 * spindle.inside(1.5) * spindle.mask
    pink = 1 + style["fibre"] * _fibres(rng, style, shape)
    near = blur(nuclei.mask.astype(np.float32), style["object_radius"])
    pink = (pink + style["cytoplasm"] * 3 * near) * ~hole
    picture = _expose(
        rng,
        style,
        (
            style["haematoxylin"] * blur(blue, 0.6) + 0.08 * ~hole,
            style["eosin"] * pink * (1 - 0.5 * (blue > 0)),
            style["brown_amount"] * brown * chromatin,
        ),
    )
    ids = nuclei.ids
    parts = [
        ("stroma", ~hole),
        ("filament", spindle.ids),
        ("spot", small.ids),
        ("nucleus", np.where(brown, 0, ids)),
        ("core", np.where(brown, ids, 0)),
    ]
    return finish(picture, parts)


def _gland_style(rng: np.random.Generator) -> dict[str, float]:
    radius = log_uniform(rng, 22, 85)
    nucleus = float(np.clip(radius * rng.uniform(0.08, 0.16), 2.5, 9))
    return {
        **_stain(rng),
        **_nucleus_style(rng, nucleus),
        **population(rng, "object", radius, rng.uniform(0.3, 0.8), apart=rng.uniform(0.85, 1.05)),
        **population(rng, "stray", nucleus * 0.8, rng.uniform(0.02, 0.12), apart=1.1, long=2.0),
        "object_rough": float(rng.uniform(0.04, 0.15)),
        "object_long": float(rng.uniform(1.0, 1.8)),
        "nucleus": nucleus,
        "lumen": float(rng.uniform(0.25, 0.6)),
        "rows": float(rng.choice([1, 1, 2])),
        "pack": float(rng.uniform(1.6, 2.6)),
        "cytoplasm": float(rng.uniform(-0.5, 0.6)),
        "mucus": float(rng.uniform(0.0, 0.3)),
    }


def _line_gland(
    rng: np.random.Generator, style: Style, glands: Layer, index: int, nuclei: Layer
) -> None:
    """Put nuclei along the wall of the gland of this index, pointing to its middle."""
    (cy, cx), radius, angle = glands.centres[index], glands.radii[index], glands.angles[index]
    size = style["nucleus"]
    long = math.sqrt(style["object_long"])
    for row in range(int(style["rows"])):
        reach = radius - size * (1.7 + 2.0 * row)
        if reach < size:
            return
        count = min(int(2 * math.pi * reach / (style["pack"] * size)), 60)
        for turn in np.linspace(0, 2 * math.pi, count, endpoint=False):
            t = turn + rng.normal(0, 0.3 / count)
            r = reach + rng.normal(0, 0.25 * size)
            u, v = r * long * math.cos(t), r / long * math.sin(t)
            x = cx + math.cos(angle) * u - math.sin(angle) * v
            y = cy + math.sin(angle) * u + math.cos(angle) * v
            nuclei.add(
                rng,
                (y, x),
                size * math.exp(rng.normal(0, 0.12)),
                elongation=1.5,
                angle=t + angle,
                roughness=0.05,
                stamp=(int((t + angle) / math.pi * 14) % 14, int(rng.integers(3))),
            )


def _glands(style: Style, rng: np.random.Generator, shape: Shape) -> Scene:
    glands, nuclei, stray = Layer(shape), Layer(shape), Layer(shape)
    if not is_empty(rng):
        glands.scatter(rng, style, "object")
    for i in range(len(glands)):
        _line_gland(rng, style, glands, i, nuclei)
    wobble = 0.08 * smooth_noise(rng, shape, 20)
    lumen = glands.mask & (glands.level + wobble > 1 - style["lumen"])
    stray.scatter(rng, style, "stray", within=~glands.mask)
    hole = ~glands.mask & (fractal_noise(rng, shape, 70, 3) > style["holes"])
    chromatin = _chromatin(rng, style, nuclei, shape) * ~lumen
    chromatin = chromatin + _chromatin(rng, style, stray, shape) * ~hole
    pink = 1 + style["fibre"] * _fibres(rng, style, shape) * ~glands.mask
    pink = pink + style["cytoplasm"] * glands.mask * (1 + 0.2 * fractal_noise(rng, shape, 8))
    pink = np.where(lumen, style["mucus"], np.where(hole, 0, pink))
    picture = _expose(
        rng,
        style,
        (
            style["haematoxylin"] * blur(chromatin, 0.6) + 0.15 * (glands.mask & ~lumen),
            style["eosin"] * blur(pink, 0.7),
            np.zeros(shape, np.float32),
        ),
    )
    parts = [
        ("stroma", ~hole & ~glands.mask),
        ("nucleus", np.where(hole, 0, stray.ids)),
        ("gland", glands.ids),
        ("core", np.where(glands.mask, nuclei.ids, 0)),
        ("lumen", np.where(lumen, glands.ids, 0)),
    ]
    return finish(picture, parts)


FAMILIES = (
    Family("stained-nuclei", _tissue_style, _tissue),
    Family("stained-glands", _gland_style, _glands),
)
