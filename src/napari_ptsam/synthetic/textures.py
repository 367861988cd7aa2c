"""Textures of unit contrast whose look is fixed by a style."""

from __future__ import annotations

import math

import numpy as np
from scipy import fft

from napari_ptsam.synthetic.fields import Field, blur, fractal_noise, mosaic, smooth_noise
from napari_ptsam.synthetic.layers import Shape, log_uniform
from napari_ptsam.synthetic.scene import Style

TEXTURES = ("fractal", "oriented", "stripes", "scales", "dots", "ridges", "fine")
"""Names of the textures; a style holds an index into them."""


def draw_texture(rng: np.random.Generator, prefix: str) -> dict[str, float]:
    """Draw the look of one texture; the keys that `paint_texture` reads."""
    return {
        f"{prefix}_texture": float(rng.integers(len(TEXTURES))),
        f"{prefix}_scale": log_uniform(rng, 2.5, 22),
        f"{prefix}_angle": float(rng.uniform(0, math.pi)),
        f"{prefix}_stretch": float(rng.uniform(2.5, 8)),
        f"{prefix}_contrast": log_uniform(rng, 0.015, 0.2),
    }


def oriented_noise(
    rng: np.random.Generator, shape: Shape, scale: float, angle: float, stretch: float
) -> Field:
    """Noise of `scale` pixels across and `stretch` times that along `angle`; unit SD."""
    y = fft.fftfreq(shape[0]).astype(np.float32)[:, None]
    x = fft.rfftfreq(shape[1]).astype(np.float32)[None, :]
    along = math.cos(angle) * x + math.sin(angle) * y
    across = -math.sin(angle) * x + math.cos(angle) * y
    power = np.exp(-0.5 * (np.pi * scale) ** 2 * ((stretch * along) ** 2 + across**2))
    spectrum = fft.rfft2(rng.standard_normal(shape, dtype=np.float32)) * power
    return unit_sd(fft.irfft2(spectrum, shape))


def unit_sd(field: Field) -> Field:
    """The field with zero mean and unit standard deviation."""
    return np.asarray((field - field.mean()) / (field.std() + 1e-6), np.float32)


def paint_texture(rng: np.random.Generator, style: Style, prefix: str, shape: Shape) -> Field:
    """HxW texture of zero mean and unit SD as `draw_texture` described it."""
    name = TEXTURES[int(style[f"{prefix}_texture"])]
    scale, angle = style[f"{prefix}_scale"], style[f"{prefix}_angle"]
    if name == "oriented":
        return oriented_noise(rng, shape, scale, angle, style[f"{prefix}_stretch"])
    if name == "stripes":
        y, x = np.ogrid[: shape[0], : shape[1]]
        phase = (math.cos(angle) * x + math.sin(angle) * y) * (2 * math.pi / (1.6 * scale + 2))
        return unit_sd(np.sin(phase + smooth_noise(rng, shape, 5 * scale)).astype(np.float32))
    if name == "scales":
        _, edge = mosaic(rng, shape, max(1.5 * scale, 8), regularity=0.5)
        return unit_sd(np.minimum(edge, 0.25 * scale + 1))
    if name == "dots":
        field = smooth_noise(rng, shape, scale)
        return unit_sd(np.clip(field - 0.8, 0, 1))
    if name == "ridges":
        return unit_sd(np.minimum(np.abs(smooth_noise(rng, shape, 1.5 * scale)), 0.6))
    if name == "fine":
        return unit_sd(blur(rng.standard_normal(shape, dtype=np.float32), 0.08 * scale))
    return fractal_noise(rng, shape, 1.5 * scale)
