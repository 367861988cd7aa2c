"""Solid bodies seen from above: height of their upper and lower surface per pixel."""

from __future__ import annotations

import math

import numpy as np

from napari_ptsam.synthetic.fields import Field, star_shape
from napari_ptsam.synthetic.layers import Shape, log_uniform
from napari_ptsam.synthetic.scene import Style

Window = tuple[slice, slice]

FORMS = ("sphere", "rod", "cube", "octahedron", "truncated", "plate", "shard", "lump", "flower")
"""Names of the forms; a style holds an index into them."""

_AXES = np.concatenate([np.eye(3), -np.eye(3)])
_CORNERS = np.array([(x, y, z) for x in (-1, 1) for y in (-1, 1) for z in (-1, 1)]) / math.sqrt(3)
_HEX = np.array([(math.cos(a), math.sin(a), 0.0) for a in np.arange(6) * math.pi / 3])


def draw_form(rng: np.random.Generator, prefix: str, form: str | None = None) -> dict[str, float]:
    """Draw the look of one sort of bodies; the keys that `solid` reads."""
    names = FORMS if form is None else (form,)
    weights = np.array([4.0 if n in ("sphere", "lump") else 1.0 for n in names])
    name = str(rng.choice(names, p=weights / weights.sum()))
    return {
        f"{prefix}_form": float(FORMS.index(name)),
        f"{prefix}_ratio": log_uniform(rng, 1.5, 7) if name == "rod" else rng.uniform(1.0, 1.5),
        f"{prefix}_rough": float(rng.uniform(0.0, 0.3)),
        f"{prefix}_flat": float(rng.random() < 0.5),
        f"{prefix}_petals": float(rng.integers(4, 11)),
        f"{prefix}_thin": float(rng.uniform(0.1, 0.5)),
    }


def _rotation(rng: np.random.Generator, flat: bool) -> np.ndarray:
    """A random rotation matrix, about the line of sight only when `flat`."""
    angle = rng.uniform(0, 2 * math.pi)
    if flat:
        c, s = math.cos(angle), math.sin(angle)
        return np.array([(c, -s, 0), (s, c, 0), (0, 0, 1.0)])
    turned, _ = np.linalg.qr(rng.standard_normal((3, 3)))
    return np.asarray(turned)


def _planes(rng: np.random.Generator, form: str, thin: float) -> tuple[np.ndarray, np.ndarray]:
    """Normals and distances from the centre of the faces of a crystal of unit size."""
    if form == "cube":
        return _AXES, np.full(6, 0.8) * rng.uniform(0.85, 1.15, 3)[[0, 1, 2, 0, 1, 2]]
    if form == "octahedron":
        return _CORNERS, np.full(8, 0.65)
    if form == "truncated":
        return np.concatenate([_AXES, _CORNERS]), np.repeat([0.85, 0.85], [6, 8])
    if form == "plate":
        normals = np.concatenate([_HEX, _AXES[[2, 5]]])
        return normals, np.repeat([0.87, thin], [6, 2])
    normals = rng.standard_normal((12, 3))
    normals /= np.linalg.norm(normals, axis=1, keepdims=True)
    normals = np.concatenate([normals, _AXES])
    return normals, np.concatenate([rng.uniform(0.6, 1.0, 12), np.full(6, 1.0)])


def _grid(
    shape: Shape, centre: tuple[float, float], reach: tuple[float, float]
) -> tuple[Window, Field, Field]:
    """Window around a centre, clipped to the canvas, and y and x relative to the centre."""
    spans = []
    for middle, half, size in zip(centre, reach, shape, strict=True):
        low = min(max(int(middle - half), 0), size)
        spans.append((low, max(min(int(middle + half) + 2, size), low)))
    (y0, y1), (x0, x1) = spans
    y = np.arange(y0, y1, dtype=np.float32)[:, None] - np.float32(centre[0])
    x = np.arange(x0, x1, dtype=np.float32)[None, :] - np.float32(centre[1])
    return (slice(y0, y1), slice(x0, x1)), y, x


def solid(
    rng: np.random.Generator,
    style: Style,
    prefix: str,
    shape: Shape,
    centre: tuple[float, float],
    radius: float,
    angle: float | None = None,
) -> tuple[Window, Field, Field]:
    """One body as `draw_form` described it.

    Parameters
    ----------
    angle
        Direction of rods and other long bodies in radians; random if not given.

    Returns
    -------
    tuple
        Slices of the canvas and, in that window, the heights of the upper and
        the lower surface in pixels above the centre. Where the upper is not
        above the lower one there is no body.
    """
    form = FORMS[int(style[f"{prefix}_form"])]
    ratio = style[f"{prefix}_ratio"]
    angle = rng.uniform(0, math.pi) if angle is None else angle
    if form in ("lump", "flower"):
        return _lump(rng, style, prefix, shape, centre, radius, form)
    if form in ("sphere", "rod"):
        half = radius * (ratio if form == "rod" else math.sqrt(ratio))
        reach = max(half - radius, 0)
        tall, wide = reach * abs(math.sin(angle)), reach * abs(math.cos(angle))
        window, y, x = _grid(shape, centre, (radius + 1 + tall, radius + 1 + wide))
        along = math.cos(angle) * x + math.sin(angle) * y
        across = -math.sin(angle) * x + math.cos(angle) * y
        if form == "rod":
            along = along - np.clip(along, radius - half, half - radius)
        else:
            along, across = along / math.sqrt(ratio), across * math.sqrt(ratio)
        upper = np.sqrt(np.maximum(radius**2 - along**2 - across**2, 0))
        return window, np.asarray(upper, np.float32), np.asarray(-upper, np.float32)
    window, y, x = _grid(shape, centre, (1.5 * radius + 1,) * 2)
    normals, offsets = _planes(rng, form, style[f"{prefix}_thin"])
    normals = normals @ _rotation(rng, style[f"{prefix}_flat"] > 0.5).T
    # A face seen exactly edge-on has no height; lean it by a hair.
    normals[:, 2] = np.where(np.abs(normals[:, 2]) < 0.02, 0.02, normals[:, 2])
    upper = np.full(np.broadcast_shapes(y.shape, x.shape), np.inf, np.float32)
    lower = -upper
    for (nx, ny, nz), offset in zip(normals.astype(np.float32), offsets, strict=True):
        face = (np.float32(radius * offset) - nx * x - ny * y) / nz
        upper, lower = (
            (np.minimum(upper, face), lower) if nz > 0 else (upper, np.maximum(lower, face))
        )
    return window, upper, lower


def _lump(
    rng: np.random.Generator,
    style: Style,
    prefix: str,
    shape: Shape,
    centre: tuple[float, float],
    radius: float,
    form: str,
) -> tuple[Window, Field, Field]:
    """A rounded body with an irregular outline, or one with petals."""
    if form == "lump":
        window, level = star_shape(
            rng,
            shape,
            centre,
            radius,
            elongation=style[f"{prefix}_ratio"],
            angle=rng.uniform(0, math.pi),
            roughness=style[f"{prefix}_rough"],
        )
    else:
        window, y, x = _grid(shape, centre, (1.4 * radius + 1,) * 2)
        turn = np.arctan2(y, x) * style[f"{prefix}_petals"] + rng.uniform(0, 6)
        outline = 1 + style[f"{prefix}_rough"] * np.sin(turn)
        level = np.asarray(1 - np.hypot(y, x) / (radius * outline), np.float32)
    upper = radius * np.sqrt(np.clip(level * (2 - level), 0, 1))
    return window, np.asarray(upper, np.float32), np.asarray(-upper, np.float32)
