"""Families of dense nervous tissue in the electron microscope.

Profiles of neurites fill the plane: small ones in bundles, long and concave ones squeezed
between large ones. Only the membranes between profiles are of the kind "membrane"; those of
organelles look alike and are told from them by where they lie.
"""

from __future__ import annotations

import math

import numpy as np

from napari_ptsam.synthetic.camera import draw_camera_style, expose
from napari_ptsam.synthetic.fields import (
    Field,
    Mask,
    blur,
    fractal_noise,
    scatter,
    smooth_noise,
)
from napari_ptsam.synthetic.layers import Layer, Shape, finish, is_empty, log_uniform
from napari_ptsam.synthetic.profiles import Ids, draw_profiles, profiles
from napari_ptsam.synthetic.scene import Family, Scene, Style
from napari_ptsam.synthetic.textures import oriented_noise


def _microscope(rng: np.random.Generator) -> dict[str, float]:
    """Stain, thickness and recording of a section."""
    style = draw_camera_style(rng)
    noisy = rng.random() < 0.6
    return {
        **style,
        "photons": 10 ** (rng.uniform(1.4, 2.3) if noisy else rng.uniform(2.3, 3.4)),
        "light": float(rng.choice([0.0, rng.uniform(0.1, 0.5)])),
        "span": max(style["span"], float(rng.uniform(0.45, 0.95))),
        "blur": float(rng.uniform(0.3, 1.0)),
        "defocus": 0.0,
        "gain": float(rng.uniform(0.9, 1.15)),
        "invert": float(rng.random() < 0.08),
        "cytoplasm": float(rng.uniform(0.5, 0.8)),
        "membrane_dark": log_uniform(rng, 0.22, 0.65),
        "grain": log_uniform(rng, 0.015, 0.07),
        "grain_scale": log_uniform(rng, 1.5, 4.5),
        "clumps": float(rng.uniform(0.0, 0.05)),
        "waves": float(rng.choice([0.0, rng.uniform(0.02, 0.1)])),
        "knife": float(rng.uniform(0.01, 0.04) if rng.random() < 0.2 else 0.0),
    }


def _tissue_style(rng: np.random.Generator) -> dict[str, float]:
    size = log_uniform(rng, 16, 46)
    organ = float(np.clip(size * log_uniform(rng, 0.3, 0.9), 4, 26))
    bubble = float(np.clip(size * rng.uniform(0.06, 0.13), 1.8, 4.5))
    return {
        **_microscope(rng),
        **draw_profiles(rng, size),
        "mito_radius": organ,
        "mito_cover": float(rng.uniform(0.05, 0.22)),
        "mito_long": float(rng.uniform(1.0, 2.5)),
        "mito_spread": float(rng.uniform(0.15, 0.4)),
        "membrane": float(np.clip(size * rng.uniform(0.09, 0.2), 2.2, 6.5)),
        "sharp": log_uniform(rng, 0.6, 1.8),
        "slant": float(rng.uniform(0.0, 1.0)),
        "slant_scale": float(size * rng.uniform(0.5, 2.0)),
        "gap_light": float(rng.uniform(0.0, 0.2) if rng.random() < 0.2 else 0.0),
        "density": float(rng.uniform(0.1, 0.4) if rng.random() < 0.7 else 0.0),
        "vary": float(rng.uniform(0.0, 0.06)),
        "dark_cells": float(rng.choice([0.0, rng.uniform(0.05, 0.2)])),
        "mito_dark": float(rng.uniform(0.05, 0.35)),
        "cristae": float(rng.uniform(0.0, 0.15)),
        "cristae_scale": float(np.clip(organ * rng.uniform(0.15, 0.3), 1.5, 5)),
        "clusters": float(rng.uniform(1.0, 9.0) if rng.random() < 0.7 else 0.0),
        "cluster_reach": float(bubble * rng.uniform(5, 12)),
        "vesicle_radius": bubble,
        "vesicle_spread": float(rng.uniform(0.05, 0.3)),
        "vesicle_light": float(rng.choice([-1, 1]) * rng.uniform(0.03, 0.15)),
        "tubules": float(rng.uniform(0.05, 0.25) if rng.random() < 0.6 else 0.0),
        "dots": float(rng.uniform(0.05, 0.25) if rng.random() < 0.5 else 0.0),
        "dots_scale": log_uniform(rng, 2.0, 4.5),
        "sheath": 0.0,
    }


def _nerve_style(rng: np.random.Generator) -> dict[str, float]:
    """Axons in a nerve or a tract: many of them round, wrapped in dark myelin."""
    style = _tissue_style(rng)
    radius, size = log_uniform(rng, 12, 65), log_uniform(rng, 14, 30)
    return {
        **style,
        "size": size,
        "membrane": float(np.clip(size * rng.uniform(0.08, 0.16), 1.8, 4)),
        "slant": 0.5 * style["slant"],
        "large": float(rng.uniform(0.4, 0.9)),
        "large_radius": radius,
        "stretch": log_uniform(rng, 1.0, 1.7),
        "bend": float(rng.uniform(0.1, 0.5)),
        "warp": float(rng.uniform(0.1, 0.25)),
        "mito_radius": float(np.clip(radius * rng.uniform(0.12, 0.3), 3, 14)),
        "sheath": float(rng.uniform(0.5, 1.0)),
        "sheath_width": float(np.clip(radius * log_uniform(rng, 0.1, 0.4), 3, 18)),
        "sheath_dark": float(rng.uniform(0.3, 0.65)),
        "lamellae": float(rng.uniform(0.0, 0.15)),
        "dots": float(rng.uniform(0.05, 0.3)),
    }


def _tissue(style: Style, rng: np.random.Generator, shape: Shape) -> Scene:
    ids, edge, large = profiles(style, rng, shape)
    wrapped = large & (rng.random(len(large)) < style["sheath"])
    # Membranes that the section cuts at a slant are wide and faint.
    tilt = style["slant"] * np.clip(smooth_noise(rng, shape, style["slant_scale"]) - 0.4, 0, 1.8)
    half = 0.5 * style["membrane"] * (1 + 0.9 * tilt)
    sheath = _sheath(style, edge, wrapped[ids])
    room = (edge > half + 1.2) & (sheath == 0)
    tone = style["vary"] * rng.normal(0, 1, len(large))
    tone = tone - style["dark_cells"] * (rng.random(len(large)) < 0.15)
    grey = style["cytoplasm"] + tone.astype(np.float32)[ids]
    grey = grey + _cytoplasm(style, rng, shape, room)
    mitos, vesicles = Layer(shape), Layer(shape)
    if not is_empty(rng):
        _mitochondria(style, rng, mitos, np.where(room, ids, 0))
        _clusters(style, rng, vesicles, np.where(room & ~mitos.mask, ids, 0))
    grey = _organelles(style, rng, np.asarray(grey, np.float32), mitos, vesicles)
    dark = _membranes(style, rng, edge, half, tilt)
    grey = np.where(sheath > 0, _myelin(style, rng, edge), grey - dark)
    membrane = (edge < half) | (sheath > 0)
    parts: list[tuple[str, Ids | Mask]] = [
        ("cell", np.where(membrane, 0, ids).astype(np.int32)),
        ("organelle", np.where(membrane, 0, mitos.ids).astype(np.int32)),
        ("vesicle", np.where(membrane, 0, vesicles.ids).astype(np.int32)),
        ("membrane", membrane),
    ]
    grey = grey + style["waves"] * smooth_noise(rng, shape, 110)
    if style["knife"] > 0:
        grey = grey + style["knife"] * oriented_noise(rng, shape, 2.0, rng.uniform(0, 3), 60)
    return finish(expose(np.asarray(grey, np.float32), style, rng), parts)


def _mitochondria(style: Style, rng: np.random.Generator, mitos: Layer, free: Ids) -> None:
    """Put mitochondria into profiles; `free` numbers those, 0 where there is no room."""
    radius = style["mito_radius"]
    limit = int(rng.poisson(style["mito_cover"] * free.size / (math.pi * radius**2)))
    for y, x in scatter(rng, mitos.shape, 2.5 * radius, tries=2 * limit, limit=min(limit, 60)):
        own = free[int(y), int(x)]
        if own > 0:
            mitos.add(
                rng,
                (y, x),
                radius * math.exp(rng.normal(0, style["mito_spread"])),
                elongation=1 + (style["mito_long"] - 1) * math.exp(rng.normal(0, 0.3)),
                angle=rng.uniform(0, math.pi),
                roughness=0.12,
                within=free == own,
            )


def _clusters(style: Style, rng: np.random.Generator, vesicles: Layer, free: Ids) -> None:
    """Put clusters of vesicles into profiles; `free` as in `_mitochondria`."""
    radius, reach = style["vesicle_radius"], style["cluster_reach"]
    box = (int(2 * reach), int(2 * reach))
    for _ in range(int(rng.poisson(style["clusters"]))):
        y, x = (int(rng.integers(s)) for s in free.shape)
        if free[y, x] == 0:
            continue
        within = free == free[y, x]
        for row, column in scatter(rng, box, 2.3 * radius, tries=90, limit=45):
            away = math.hypot(row - reach, column - reach) / reach
            if away < rng.uniform(0.5, 1.1):
                size = radius * math.exp(rng.normal(0, style["vesicle_spread"]))
                centre = (y + row - reach, x + column - reach)
                stamp = int(rng.integers(12))
                vesicles.add(rng, centre, size, roughness=0.05, within=within, stamp=stamp)


def _cytoplasm(style: Style, rng: np.random.Generator, shape: Shape, room: Mask) -> Field:
    """What is inside of profiles: grain, dots of cut microtubules, walls of reticulum."""
    grain = style["grain"] * fractal_noise(rng, shape, 2 * style["grain_scale"], 3)
    grain = grain + style["clumps"] * smooth_noise(rng, shape, 14)
    if style["dots"] > 0:
        dots = np.clip(smooth_noise(rng, shape, style["dots_scale"]) - 1.4, 0, 1)
        grain = grain - style["dots"] * dots * room
    if style["tubules"] > 0:
        field = smooth_noise(rng, shape, 0.5 * style["size"] + 4)
        wall = (np.abs(field) < 0.08) & (smooth_noise(rng, shape, 30) > 0.2) & room
        grain = grain - style["tubules"] * blur(wall, 0.7)
    return np.asarray(grain, np.float32)


def _ring(depth: Field, width: float) -> Field:
    """1 at the outline of objects, softly falling to 0 at `width` pixels inside of it."""
    return np.asarray(np.clip(width + 0.5 - np.abs(depth - 0.7), 0, 1), np.float32)


def _organelles(
    style: Style, rng: np.random.Generator, grey: Field, mitos: Layer, vesicles: Layer
) -> Field:
    """Draw mitochondria with their cristae, and vesicles, over a picture."""
    folds = oriented_noise(rng, mitos.shape, style["cristae_scale"], rng.uniform(0, math.pi), 4)
    body = style["cristae"] * np.tanh(1.5 * folds) - style["mito_dark"] * mitos.jitter(rng, 0.25)
    grey = grey + mitos.inside(2) * body
    grey = grey - 0.6 * style["membrane_dark"] * _ring(mitos.depth(), 0.8) * mitos.mask
    grey = grey + style["vesicle_light"] * vesicles.inside(1.5)
    rim = 0.5 * style["membrane_dark"] * _ring(vesicles.depth(), 0.5)
    return np.asarray(grey - rim * vesicles.mask, np.float32)


def _membranes(
    style: Style, rng: np.random.Generator, edge: Field, half: Field, tilt: Field
) -> Field:
    """How much darker the membranes are, HxW, and the dense material at some of them."""
    shape = (edge.shape[0], edge.shape[1])
    soft = style["sharp"] * (1 + tilt)
    dark = np.clip(0.5 + (half - edge) / (2 * soft), 0, 1) / (1 + 1.1 * tilt)
    dark = dark * (1 + 0.15 * smooth_noise(rng, shape, 15))
    # A light cleft between the two membranes of neighbours.
    dark = dark * style["membrane_dark"] - style["gap_light"] * (edge < 0.3 * half) * (tilt < 0.2)
    if style["density"] > 0:
        spots = np.clip(smooth_noise(rng, shape, 1.3 * style["size"]) - 1.5, 0, 1)
        dark = dark + style["density"] * spots * np.exp(-edge / (0.25 * style["size"] + 1))
    return np.asarray(dark, np.float32)


def _sheath(style: Style, edge: Field, wrapped: Mask) -> Mask:
    """Where myelin is: within a certain distance of the outline of wrapped axons."""
    if style["sheath"] <= 0:
        return np.zeros(edge.shape, bool)
    return np.asarray(wrapped & (edge < style["sheath_width"]), bool)


def _myelin(style: Style, rng: np.random.Generator, edge: Field) -> Field:
    """Grey level of myelin: dark, of many layers."""
    if style["sheath"] <= 0:
        return np.zeros_like(edge)
    level = style["cytoplasm"] - style["sheath_dark"] + style["lamellae"] * np.sin(2.3 * edge)
    shape = (edge.shape[0], edge.shape[1])
    return np.asarray(level + 0.03 * smooth_noise(rng, shape, 6), np.float32)


FAMILIES = (
    Family("dense-neuropil", _tissue_style, _tissue),
    Family("nerve", _nerve_style, _tissue),
)
"""Dense sections of nervous tissue."""
