"""What an endoscope makes of a picture: its light, its black frame, what is written over it."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw
from scipy import ndimage

from napari_ptsam.synthetic.camera import expose
from napari_ptsam.synthetic.fields import Field, Mask, blur, fractal_noise, smooth_noise
from napari_ptsam.synthetic.layers import Shape
from napari_ptsam.synthetic.scene import Style


def planes(values: Iterable[float]) -> Field:
    """Three numbers as a 3x1x1 array; pictures are 3xHxW until they are exposed."""
    return np.asarray(list(values), np.float32)[:, None, None]


def draw_sensor(rng: np.random.Generator) -> dict[str, float]:
    """Draw the sensor's noise and compression; keys of `draw_camera_style` with other ranges."""
    return {
        "floor": 0.0,
        "gain": 1.0,
        "span": 1.0,
        "photons": 10 ** rng.uniform(2.5, 4),
        "read": 0.004,
        "jpeg": float(rng.uniform(45, 92)),
        "text": 0.0,
    }


def draw_frame(rng: np.random.Generator) -> dict[str, float]:
    """Draw the frame, what is written over it, and the light; keys of `overlay`, `recorded`."""
    return {
        "frame": float(rng.choice([0, 1, 2], p=[0.35, 0.45, 0.2])),
        "frame_cut": float(rng.uniform(0.05, 0.28)),
        "caption": float(rng.random() < 0.4),
        "box": float(rng.uniform(0.15, 0.35) if rng.random() < 0.3 else 0.0),
        "narrow_band": float(rng.uniform(0.4, 0.85) if rng.random() < 0.1 else 0.0),
    }


def with_vessels(
    style: Style,
    rng: np.random.Generator,
    colour: Field,
    widths: tuple[float, float],
    shown: Field | float,
) -> tuple[Field, Mask]:
    """A coloured wall, 3xHxW, with a net of vessels, and the mask of those.

    Parameters
    ----------
    widths
        Of thick and of thin vessels, relative to their distance.
    shown
        How well vessels are seen, 0 to 1, HxW or the same everywhere.
    """
    shape = (colour.shape[1], colour.shape[2])
    if style["vessels"] <= 0:
        return colour, np.zeros(shape, bool)
    thick = np.abs(fractal_noise(rng, shape, 2.2 * style["vessel_scale"], 3)) / widths[0]
    thin = np.abs(fractal_noise(rng, shape, style["vessel_scale"], 3)) / widths[1]
    where = np.clip(smooth_noise(rng, shape, 90) + 0.7, 0, 1) * shown
    lines = np.maximum(np.clip(1 - thick, 0, 1), 0.6 * np.clip(1 - thin, 0, 1))
    lines = blur(lines, 0.7) * where
    return colour * (1 - lines * (style["vessels"] * planes([0.35, 1.0, 0.9]))), lines > 0.25


def recorded(
    style: Style, rng: np.random.Generator, picture: Field, shape: Shape
) -> NDArray[np.uint8]:
    """The picture, 3xHxW, as the instrument's camera and its black frame show it."""
    if style["narrow_band"] > 0:
        # Blue and green light only, shown as colours that keep some of the white.
        narrow = picture[[1, 0, 0]] * planes([0.75, 0.65, 0.6])
        picture = style["narrow_band"] * narrow + (1 - style["narrow_band"]) * picture
    if style["motion"] > 0:
        axis = int(rng.integers(1, 3))
        picture = ndimage.uniform_filter1d(picture, int(style["motion"]), axis=axis)
    # Bright places saturate gradually.
    picture = 1 - np.exp(-style["exposure"] * np.maximum(picture, 0))
    framed = picture * aperture(style, shape)
    return expose(np.ascontiguousarray(np.moveaxis(framed, 0, 2)), style, rng)


def aperture(style: Style, shape: Shape) -> Field:
    """1 where the picture is not masked by the black frame of the instrument."""
    y = np.abs(np.linspace(-1, 1, shape[0], dtype=np.float32))[:, None]
    x = np.abs(np.linspace(-1, 1, shape[1], dtype=np.float32))[None, :]
    if style["frame"] < 0.5:
        return np.ones(shape, np.float32)
    away = np.maximum(np.maximum(y, x), (x + y) / (2 - 2 * style["frame_cut"]))
    if style["frame"] > 1.5:
        away = np.hypot(y, x) / (1.35 - style["frame_cut"])
    return np.asarray(np.clip((0.985 - away) * 120, 0, 1), np.float32)


def overlay(
    style: Style, rng: np.random.Generator, image: NDArray[np.uint8]
) -> tuple[NDArray[np.uint8], Mask]:
    """Write the patient's data and paste a box over a corner; returns what the box hides."""
    height, width = image.shape[:2]
    hidden = np.zeros((height, width), bool)
    if style["caption"] < 0.5 and style["box"] <= 0:
        return image, hidden
    picture = Image.fromarray(image)
    draw = ImageDraw.Draw(picture)
    if style["caption"] > 0.5:
        date = f"{rng.integers(1, 29):02}/{rng.integers(1, 13):02}/20{rng.integers(10, 25)}"
        for i, text in enumerate((date, f"{rng.integers(24)}:{rng.integers(10, 60)}", "A5")):
            draw.text((4, int(0.3 * height) + 14 * i), text, fill=(225, 225, 225))
    if style["box"] > 0:
        top, right = int(height * (1 - style["box"])), int(width * style["box"])
        inks = ((0, 0, 0), (10, 60, 25), (30, 30, 60))
        draw.rectangle((0, top, right, height), fill=inks[int(rng.integers(len(inks)))])
        hidden[top:, : right + 1] = True
    return np.asarray(picture, np.uint8), hidden
