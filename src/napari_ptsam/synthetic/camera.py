"""How a clean scene becomes the picture an instrument would have taken of it.

All functions take and return float32 images in 0..1, HxW or HxWxC, and draw
what is random from the generator they are given.
"""

from __future__ import annotations

import io

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw
from scipy import ndimage

from napari_ptsam.synthetic.fields import Field, blur, smooth_noise
from napari_ptsam.synthetic.scene import Style


def _like(plane: Field, image: Field) -> Field:
    """A HxW plane with a channel axis when the image has one."""
    return plane[..., None] if image.ndim == 3 else plane


def uneven_light(rng: np.random.Generator, image: Field, strength: float) -> Field:
    """Multiply by a smooth illumination profile: an off-centre vignette and slow waves."""
    if strength <= 0:
        return image
    height, width = image.shape[:2]
    y = np.linspace(-1, 1, height, dtype=np.float32)[:, None] - rng.uniform(-0.6, 0.6)
    x = np.linspace(-1, 1, width, dtype=np.float32)[None, :] - rng.uniform(-0.6, 0.6)
    waves = smooth_noise(rng, (height, width), 0.8 * max(height, width))
    profile = 1.0 - strength * (0.35 * (y**2 + x**2) - 0.15 * waves)
    return np.asarray(image * _like(np.clip(profile, 0.1, 1.6), image), dtype=np.float32)


def shot_and_read_noise(
    rng: np.random.Generator, image: Field, photons: float, read: float
) -> Field:
    """Photon noise at `photons` per full scale plus Gaussian noise of SD `read`.

    The Poisson count is approximated by a Gaussian of the same variance, which
    is what is left of it after digitisation, at a fraction of the cost.
    """
    variance = np.maximum(image, 0) / max(photons, 1.0) + np.float32(read) ** 2
    noise = rng.standard_normal(image.shape, dtype=np.float32)
    return np.asarray(image + np.sqrt(variance) * noise, dtype=np.float32)


def defocus(image: Field, radius: float) -> Field:
    """Blur by a disc, as a lens out of focus does; `radius` in pixels."""
    if radius < 0.5:
        return image
    reach = int(np.ceil(radius))
    y, x = np.mgrid[-reach : reach + 1, -reach : reach + 1]
    disc = np.clip(radius + 0.5 - np.hypot(y, x), 0, 1).astype(np.float32)
    disc /= disc.sum()
    weights = disc[..., None] if image.ndim == 3 else disc
    return np.asarray(ndimage.convolve(image, weights, mode="nearest"), dtype=np.float32)


def gamma_curve(image: Field, gamma: float, gain: float = 1.0) -> Field:
    """`(gain * image) ** gamma`, saturating at 1."""
    return np.asarray(np.clip(image * gain, 0, 1) ** gamma, dtype=np.float32)


def resample(image: Field, factor: float) -> Field:
    """Lose detail: down to `1 / factor` of the size and linearly up again."""
    if factor <= 1.05:
        return image
    height, width = image.shape[:2]
    small = (max(int(width / factor), 8), max(int(height / factor), 8))
    planes = image.reshape(height, width, -1)
    out = [
        np.asarray(
            Image.fromarray(planes[..., c])
            .resize(small, Image.Resampling.BOX)
            .resize((width, height), Image.Resampling.BILINEAR)
        )
        for c in range(planes.shape[2])
    ]
    return np.asarray(np.stack(out, -1).reshape(image.shape), dtype=np.float32)


def jpeg_like(image: NDArray[np.uint8], quality: int) -> NDArray[np.uint8]:
    """The HxWx3 picture after JPEG compression at `quality` (1..95)."""
    buffer = io.BytesIO()
    Image.fromarray(image).save(buffer, "JPEG", quality=quality)
    return np.asarray(Image.open(buffer).convert("RGB"), dtype=np.uint8)


def burn_in_text_and_scale_bar(
    rng: np.random.Generator, image: NDArray[np.uint8]
) -> NDArray[np.uint8]:
    """Write a scale bar and a caption into a corner of a HxWx3 picture."""
    height, width = image.shape[:2]
    picture = Image.fromarray(image)
    draw = ImageDraw.Draw(picture)
    ink = (255, 255, 255) if rng.random() < 0.7 else (10, 10, 10)
    length = int(width * rng.uniform(0.12, 0.3))
    thick = max(int(height * rng.uniform(0.006, 0.015)), 2)
    x = int(rng.choice([0.05 * width, 0.93 * width - length]))
    y = int(rng.choice([0.08 * height, 0.92 * height]))
    draw.rectangle((x, y, x + length, y + thick), fill=ink)
    if rng.random() < 0.7:
        caption = f"{rng.choice([1, 2, 5, 10, 20, 50, 100, 200, 500])} {rng.choice(['um', 'nm'])}"
        draw.text((x, y - 13), caption, fill=ink)
    return np.asarray(picture, dtype=np.uint8)


def to_uint8_rgb(image: Field) -> NDArray[np.uint8]:
    """HxW or HxWx3 in 0..1 as HxWx3 uint8; values outside are clipped."""
    levels = np.clip(image * 255.0 + 0.5, 0, 255).astype(np.uint8)
    return levels if levels.ndim == 3 else np.repeat(levels[..., None], 3, axis=2)


def draw_camera_style(rng: np.random.Generator) -> dict[str, float]:
    """Draw how one type of scene is photographed; the keys are read by `expose`."""
    dim = rng.random() < 0.2
    return {
        "blur": float(rng.choice([0.0, rng.uniform(0.4, 1.0), rng.uniform(1.0, 2.2)])),
        "defocus": float(rng.uniform(1.0, 3.0) if rng.random() < 0.06 else 0.0),
        "photons": float(10 ** rng.uniform(1.6, 3.8)),
        "read": float(10 ** rng.uniform(-2.7, -1.4)),
        "light": float(rng.choice([0.0, rng.uniform(0.1, 0.9)])),
        "gamma": float(np.exp(rng.normal(0, 0.2))),
        "gain": float(rng.uniform(1.1, 1.8) if rng.random() < 0.2 else rng.uniform(0.8, 1.05)),
        "floor": float(rng.uniform(0.0, 0.12)),
        "span": float(10 ** rng.uniform(-1.5, -0.4) if dim else rng.uniform(0.6, 1.0)),
        "jpeg": float(rng.uniform(35, 92) if rng.random() < 0.3 and not dim else 0.0),
        "lowres": float(rng.uniform(1.2, 2.5) if rng.random() < 0.2 else 1.0),
        "invert": 0.0,
        "text": float(rng.uniform(0.3, 1.0) if rng.random() < 0.08 else 0.0),
    }


def expose(image: Field, style: Style, rng: np.random.Generator) -> NDArray[np.uint8]:
    """Photograph a clean HxW or HxWx3 scene (0..1) with a type's camera.

    The order is the physical one: light, optics, sampling, noise, then the
    camera's curve and digitisation. `span` below 1 leaves only some of the 256
    grey levels, as dim 8-bit recordings do.

    Parameters
    ----------
    style
        Keys of `draw_camera_style`; keys that are missing switch their effect off.
    """
    image = uneven_light(rng, np.asarray(image, np.float32), style.get("light", 0.0))
    image = blur(image, style.get("blur", 0.0) * float(np.exp(rng.normal(0, 0.15))))
    image = defocus(image, style.get("defocus", 0.0))
    image = resample(image, style.get("lowres", 1.0))
    if style.get("photons", 0.0) > 0:
        image = shot_and_read_noise(rng, image, style["photons"], style.get("read", 0.0))
    gain = style.get("gain", 1.0) * float(np.exp(rng.normal(0, 0.08)))
    image = gamma_curve(image, style.get("gamma", 1.0), gain)
    if style.get("invert", 0.0) > 0.5:
        image = 1.0 - image
    floor, span = style.get("floor", 0.0), style.get("span", 1.0)
    picture = to_uint8_rgb(floor + min(span, 1.0 - floor) * image)
    if style.get("text", 0.0) > rng.random():
        picture = burn_in_text_and_scale_bar(rng, picture)
    if style.get("jpeg", 0.0) > 1:
        picture = jpeg_like(picture, int(style["jpeg"]))
    return picture
