"""Families of cultures without a label: dense layers of adherent cells, organoids in gel."""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

from napari_ptsam.synthetic.camera import draw_camera_style, expose
from napari_ptsam.synthetic.fields import Field, Mask, blur, fractal_noise, smooth_noise
from napari_ptsam.synthetic.layers import Layer, Shape, finish, is_empty, log_uniform, population
from napari_ptsam.synthetic.profiles import Ids, draw_profiles, profiles
from napari_ptsam.synthetic.scene import Family, Scene, Style

Parts = list[tuple[str, Ids | Mask]]


def _condenser(rng: np.random.Generator) -> dict[str, float]:
    """Camera and light of a microscope for cell culture."""
    style = draw_camera_style(rng)
    return {
        **style,
        "photons": log_uniform(rng, 200, 8000),
        "read": log_uniform(rng, 0.002, 0.02),
        "light": 0.7 * style["light"],
        "gain": float(rng.uniform(0.9, 1.1)),
        "span": max(style["span"], float(rng.uniform(0.2, 0.8))),
        "level": float(rng.uniform(0.4, 0.62)),
        "dirt": float(rng.uniform(0.0, 0.025)),
        "dirt_scale": log_uniform(rng, 3, 60),
    }


def _photograph(rng: np.random.Generator, style: Style, grey: Field) -> NDArray[np.uint8]:
    shape = (grey.shape[0], grey.shape[1])
    grey = grey + style["dirt"] * fractal_noise(rng, shape, style["dirt_scale"])
    return expose(np.asarray(grey, np.float32), style, rng)


def _culture_style(rng: np.random.Generator) -> dict[str, float]:
    size = log_uniform(rng, 18, 80)
    nucleus = size * rng.uniform(0.16, 0.26)
    return {
        **_condenser(rng),
        **draw_profiles(rng, size),
        **population(rng, "round", size * rng.uniform(0.2, 0.34), rng.choice([0.0, 0.01, 0.05])),
        **population(rng, "debris", max(size * 0.06, 1.6), rng.choice([0.0, 0.004, 0.015])),
        "round_long": float(rng.uniform(1.0, 1.25)),
        "large": float(rng.choice([0.0, rng.uniform(0.05, 0.2)])),
        "large_radius": float(0.8 * size),
        "irregular": float(rng.uniform(0.4, 0.9)),
        "stretch": float(rng.choice([rng.uniform(1.0, 1.5), rng.uniform(1.8, 4.0)])),
        "joined": float(rng.uniform(0.0, 0.25)),
        "confluent": float(rng.choice([1.0, rng.uniform(0.3, 0.95)])),
        "wound": float(rng.choice([0.0, rng.uniform(0.3, 1.2)])),
        "gap": float(rng.uniform(0.5, 0.05 * size + 1)),
        "phase": float(rng.uniform(0.06, 0.3)),
        "flat": float(size * rng.uniform(0.06, 0.25)),
        "halo": float(size * rng.uniform(0.08, 0.25)),
        "halo_light": float(rng.uniform(0.02, 0.25)),
        "seam": float(rng.choice([-1, 1]) * rng.uniform(0.02, 0.15)),
        "nucleus_radius": float(max(nucleus, 2.5)),
        "nucleus_light": float(rng.uniform(-0.12, 0.1)),
        "envelope": float(rng.uniform(0.04, 0.16)),
        "nucleoli": float(rng.uniform(0.05, 0.3)),
        "grain": log_uniform(rng, 0.015, 0.12),
        "grain_scale": float(np.clip(size * rng.uniform(0.04, 0.1), 1.5, 6)),
        "fibres": float(rng.uniform(0.0, 0.04)),
        "round_light": float(rng.uniform(0.2, 0.6)),
        "speck": float(rng.choice([-1, 1]) * rng.uniform(0.3, 0.5)),
    }


def _settled(style: Style, rng: np.random.Generator, shape: Shape) -> tuple[Ids, Field]:
    """HxW number of the cell that each pixel belongs to, 0 between cells, and depth in it."""
    ids, edge, _ = profiles(style, rng, shape)
    there = rng.random(int(ids.max()) + 1) < style["confluent"]
    if style["wound"] > 0:
        # Cells lie or do not lie where their middle is, not cut through.
        free = smooth_noise(rng, shape, 4 * style["size"]) > 1.5 - style["wound"]
        share = np.bincount(ids.ravel(), free.ravel()) / np.maximum(np.bincount(ids.ravel()), 1)
        there &= share < 0.5
    if is_empty(rng):
        there[:] = False
    depth = edge - 0.5 * style["gap"]
    return np.where((depth > 0) & there[ids], ids, 0).astype(np.int32), np.maximum(depth, 0)


def _nuclei(style: Style, rng: np.random.Generator, cells: Ids) -> Layer:
    """One nucleus in most cells, near their middle."""
    nuclei = Layer((cells.shape[0], cells.shape[1]))
    areas = np.bincount(cells.ravel())
    rows, columns = np.indices(cells.shape, dtype=np.float32)
    y = np.bincount(cells.ravel(), rows.ravel()) / np.maximum(areas, 1)
    x = np.bincount(cells.ravel(), columns.ravel()) / np.maximum(areas, 1)
    radius, owners = style["nucleus_radius"], [0]
    for number in np.flatnonzero(areas[1:] > 6 * radius**2) + 1:
        centre = (float(y[number]), float(x[number]))
        if cells[int(centre[0]), int(centre[1])] == number:
            nuclei.add(
                rng,
                centre,
                radius * math.exp(rng.normal(0, 0.12)),
                elongation=rng.uniform(1.0, 1.2 + 0.2 * style["stretch"]),
                angle=rng.uniform(0, math.pi),
                roughness=0.05,
            )
            owners.append(int(number))
    outside = np.asarray(owners, np.int32)[nuclei.ids] != cells
    nuclei.ids[outside] = 0
    nuclei.level[outside] = 0
    return nuclei


def _culture(style: Style, rng: np.random.Generator, shape: Shape) -> Scene:
    cells, depth = _settled(style, rng, shape)
    nuclei, rounds, debris = _nuclei(style, rng, cells), Layer(shape), Layer(shape)
    rounds.scatter(rng, style, "round")
    debris.scatter(rng, style, "debris")
    body = cells > 0
    thick = 1 - np.exp(-depth / style["flat"])
    thick *= (1 + rng.normal(0, 0.2, int(cells.max()) + 1)).astype(np.float32)[cells] * body
    # What is thick looks dark and has light around it.
    grey = style["level"] - style["phase"] * (thick - 0.8 * blur(thick, style["halo"]))
    near = blur(body, 0.4 * style["halo"] + 0.6)
    grey = grey + style["halo_light"] * near * (1 - near) * 4 * ~body
    seam = np.exp(-((depth / 1.5) ** 2)) * body
    grey = grey + style["seam"] * blur(seam, 0.7)
    grain = fractal_noise(rng, shape, style["grain_scale"], 2)
    grey = grey + style["grain"] * grain * np.minimum(thick, 1) * ~nuclei.mask
    if style["fibres"] > 0:
        folds = np.abs(smooth_noise(rng, shape, 0.4 * style["size"]))
        grey = grey + style["fibres"] * np.exp(-6 * folds) * body
    grey = _draw_nuclei(style, rng, np.asarray(grey, np.float32), nuclei)
    grey = _draw_rounds(style, rng, grey, rounds)
    specks = debris.inside(0.6 * style["debris_radius"]) * debris.jitter(rng, 0.3)
    grey = grey + style["speck"] * (blur(specks, 0.8) - 0.7 * blur(specks, 3.0))
    parts: Parts = [
        ("cell", cells),
        ("nucleus", nuclei.ids),
        ("core", rounds.ids),
        ("debris", debris.ids),
    ]
    return finish(_photograph(rng, style, np.asarray(grey, np.float32)), parts)


def _draw_nuclei(style: Style, rng: np.random.Generator, grey: Field, nuclei: Layer) -> Field:
    """Faint ovals with an envelope and dark nucleoli."""
    depth = nuclei.depth()
    rim = np.exp(-(((depth - 0.8) / 1.2) ** 2)) * nuclei.mask
    spots = smooth_noise(rng, nuclei.shape, 0.5 * style["nucleus_radius"])
    spots = np.clip(spots - 1.1, 0, 1) * nuclei.inside(3)
    grey = grey + style["nucleus_light"] * nuclei.inside(2) - style["envelope"] * rim
    return np.asarray(grey - style["nucleoli"] * spots, np.float32)


def _draw_rounds(style: Style, rng: np.random.Generator, grey: Field, rounds: Layer) -> Field:
    """Cells that round up to divide: bright, with a ring and a strong halo."""
    if not len(rounds):
        return grey
    lens = rounds.inside(0.8 * style["round_radius"])
    rim = rounds.mask * np.exp(-((rounds.depth() / 1.6) ** 2))
    glow = blur(rounds.mask, 0.25 * style["round_radius"] + 1)
    grain = 0.15 * fractal_noise(rng, rounds.shape, 4, 2) * lens
    light = 1.4 * glow * (1 - 0.4 * lens) + grain - 1.0 * rim
    return np.asarray(grey + style["round_light"] * light, np.float32)


def _gel_style(rng: np.random.Generator) -> dict[str, float]:
    radius = log_uniform(rng, 12, 95)
    return {
        **_condenser(rng),
        **population(rng, "object", radius, log_uniform(rng, 0.08, 0.5), apart=0.95),
        **population(rng, "ghost", radius * rng.uniform(0.6, 1.4), rng.choice([0.0, 0.1, 0.3])),
        **population(rng, "debris", max(0.09 * radius, 2), rng.choice([0.0, 0.01, 0.04])),
        "object_spread": float(rng.uniform(0.2, 0.55)),
        "object_rough": float(rng.choice([0.02, rng.uniform(0.05, 0.2)])),
        "object_long": float(rng.uniform(1.0, 1.35)),
        "level": float(rng.uniform(0.5, 0.75)),
        "buds": float(rng.uniform(0.3, 1.0) if rng.random() < 0.4 else 0.0),
        "rim": float(rng.uniform(0.1, 0.45)),
        "rim_width": float(np.clip(radius * log_uniform(rng, 0.04, 0.18), 1.2, 9)),
        "fringe": float(rng.uniform(0.03, 0.22)),
        "dense": float(rng.uniform(-0.03, 0.35)),
        "folded": log_uniform(rng, 0.02, 0.16),
        "fold_scale": float(np.clip(radius * log_uniform(rng, 0.08, 0.3), 3, 16)),
        "lumen": float(rng.uniform(0.45, 0.85) if rng.random() < 0.6 else 0.0),
        "cystic": float(rng.uniform(0.3, 1.0)),
        "lumen_clear": float(rng.uniform(0.3, 0.95)),
        "dead_core": float(rng.uniform(0.1, 0.35) if rng.random() < 0.3 else 0.0),
        "depth_blur": float(rng.choice([0.0, rng.uniform(1.5, 5.0)])),
        "gel": log_uniform(rng, 0.008, 0.09),
        "gel_scale": log_uniform(rng, 4, 40),
        "wrinkles": float(rng.uniform(0.03, 0.12) if rng.random() < 0.4 else 0.0),
        "warm": float(rng.uniform(0.05, 0.3) if rng.random() < 0.2 else 0.0),
    }


def _spheres(style: Style, rng: np.random.Generator, shape: Shape) -> tuple[Layer, Layer]:
    """Organoids with their buds, and the lumens inside of them."""
    bodies, lumens = Layer(shape), Layer(shape)
    if not is_empty(rng):
        bodies.scatter(rng, style, "object")
    owners = list(zip(bodies.centres, bodies.radii, strict=True))
    for number, ((y, x), radius) in enumerate(owners, 1):
        inner = (bodies.ids == number) & (bodies.level > 0.06)
        if style["lumen"] > 0 and rng.random() < style["cystic"]:
            size = radius * style["lumen"] * math.exp(rng.normal(0, 0.12))
            off = rng.normal(0, 0.06 * radius, 2)
            lumens.add(rng, (y + off[0], x + off[1]), size, roughness=0.1, within=inner)
        for _ in range(int(rng.poisson(3 * style["buds"]))):
            turn, size = rng.uniform(0, 2 * math.pi), radius * rng.uniform(0.25, 0.55)
            centre = (y + radius * math.sin(turn), x + radius * math.cos(turn))
            bodies.add(rng, centre, size, elongation=1.3, angle=turn, roughness=0.06)
            # A bud is part of its organoid.
            bodies.ids[bodies.ids == len(bodies)] = number
    return bodies, lumens


def _organoids(style: Style, rng: np.random.Generator, shape: Shape) -> Scene:
    bodies, lumens = _spheres(style, rng, shape)
    ghosts, debris = Layer(shape), Layer(shape)
    ghosts.scatter(rng, style, "ghost")
    debris.scatter(rng, style, "debris")
    width, inside = style["rim_width"], bodies.mask
    depth = bodies.level * bodies.lookup(bodies.radii)
    folds = fractal_noise(rng, shape, style["fold_scale"], 3)
    open_space = style["lumen_clear"] * lumens.inside(2 * width)
    filled = bodies.inside(2 * width) * (1 - open_space)
    drawn = -style["dense"] * filled * bodies.jitter(rng, 0.3)
    drawn = drawn + style["folded"] * folds * filled
    drawn = drawn - style["rim"] * np.exp(-((depth / width) ** 2)) * inside
    drawn = drawn - 0.5 * style["rim"] * np.exp(-((lumens.depth() / width) ** 2)) * lumens.mask
    drawn = drawn - 2 * style["dead_core"] * np.clip(bodies.level - 0.45, 0, 1) * ~lumens.mask
    # Light is refracted to a bright line outside of the dark rim.
    outside = blur(inside, width + 0.5) * ~inside
    drawn = np.asarray(drawn + style["fringe"] * outside, np.float32)
    if style["depth_blur"] > 0:
        # Some lie out of focus.
        away = (rng.random(len(bodies)) < 0.4).astype(np.float32)
        share = blur(bodies.lookup(away), 2 * style["depth_blur"])
        drawn = drawn * (1 - share) + share * blur(drawn, style["depth_blur"])
    grey = style["level"] + drawn + _gel(style, rng, shape)
    grey = grey - 0.12 * blur(ghosts.inside(3) * ghosts.jitter(rng, 0.4), 7.0)
    specks = debris.inside(0.7 * style["debris_radius"]) * debris.jitter(rng, 0.3) * ~inside
    grey = grey - 0.35 * specks + 0.1 * blur(specks, 3.0)
    if style["warm"] > 0:
        ink = 1 + style["warm"] * np.array([-0.6, 0.2, 1.0])
        grey = np.clip(grey, 0, 1)[..., None] ** ink
    picture = expose(np.asarray(grey, np.float32), style, rng)
    parts: Parts = [
        ("debris", np.where(inside, 0, debris.ids).astype(np.int32)),
        ("organoid", bodies.ids),
        ("lumen", lumens.ids),
    ]
    return finish(picture, parts)


def _gel(style: Style, rng: np.random.Generator, shape: Shape) -> Field:
    """Texture of the gel: clouds, grain, wrinkles of its surface."""
    gel = style["gel"] * fractal_noise(rng, shape, style["gel_scale"], 4, 0.7)
    gel = gel + 0.05 * smooth_noise(rng, shape, 130)
    if style["wrinkles"] > 0:
        folds = np.abs(smooth_noise(rng, shape, 60))
        gel = gel - style["wrinkles"] * np.exp(-12 * folds)
    return np.asarray(gel, np.float32)


FAMILIES = (
    Family("dense-culture", _culture_style, _culture),
    Family("organoids-in-gel", _gel_style, _organoids),
)
"""Cultures seen by phase contrast and in bright field."""
