"""Random views of annotated images, for training.

All geometry (scale, crop, flips, rotation, elastic deformation) is composed into
one map of coordinates, so that the image is resampled once, bilinearly, and mask
and valid pixels once, by nearest neighbour. What a rotation brings in from
outside the image is the image's reflection, with the mask and the valid pixels
reflected alike: the view stays full of real texture, whereas blank corners would
be a cue that never occurs in prediction and would waste up to half of the view.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch.nn import functional

from napari_ptsam.errors import InputError
from napari_ptsam.views import Annotated, View, sample_view, scaled_size, window_of


@dataclass(frozen=True)
class Augmentation:
    """Ranges of the random changes. The default is none.

    Every change but the flips happens with `probability`, so that some views stay close to
    what the model sees in prediction. The PTSAM paper names the augmentations and gives no
    ranges; all numbers are our choice.

    Attributes
    ----------
    flips
        Mirror left-right and up-down, each in half of the views.
    rotation
        Largest angle, degrees, to either side.
    zoom
        Range of the factor on `scale`, drawn log-uniformly; above 1 it is a tighter crop.
    elastic
        Largest SD of the displacement of control points, as a share of their distance
        `elastic_spacing` (model pixels). Below some 0.2 the map does not fold.
    noise
        Largest SD of the additive Gaussian noise, grey levels of 0..255. The same noise
        goes on all channels, since coloured noise does not occur on grey images.
    gamma
        Range of the exponent on image / 255, drawn log-uniformly.
    brightness
        Largest shift, grey levels of 0..255, to either side.
    contrast
        Range of the factor around the view's mean, drawn log-uniformly.
    object_crops
        Share of crops that are laid around a random object pixel. Uniform crops of a large
        image rarely meet small, rare objects, and a view without object teaches only what
        is not one.
    """

    flips: bool = False
    rotation: float = 0.0
    zoom: tuple[float, float] = (1.0, 1.0)
    elastic: float = 0.0
    elastic_spacing: float = 64.0
    noise: float = 0.0
    gamma: tuple[float, float] = (1.0, 1.0)
    brightness: float = 0.0
    contrast: tuple[float, float] = (1.0, 1.0)
    probability: float = 0.5
    object_crops: float = 0.7

    def __post_init__(self) -> None:
        for name in ("zoom", "gamma", "contrast"):
            low, high = getattr(self, name)
            if not 0 < low <= high:
                raise InputError(
                    f"Augmentation {name} is a range of factors, 0 < low <= high, "
                    f"not {(low, high)}."
                )
        for name in ("probability", "object_crops"):
            if not 0 <= getattr(self, name) <= 1:
                raise InputError(
                    f"Augmentation {name} is a share, 0 to 1, not {getattr(self, name)}."
                )

    @classmethod
    def none(cls) -> Augmentation:
        """No change at all; random crops remain."""
        return cls()

    @classmethod
    def light(cls) -> Augmentation:
        """Flips, moderate zoom, and a little of each intensity change."""
        return cls(
            flips=True,
            rotation=20.0,
            zoom=(0.85, 1.2),
            noise=5.0,
            gamma=(0.8, 1.25),
            brightness=12.0,
            contrast=(0.85, 1.2),
        )

    @classmethod
    def paper(cls) -> Augmentation:
        """All eight augmentations that the PTSAM paper names, with our ranges.

        Rotation by any angle [choice: micrographs have no upright]; crop with zoom 0.75 to
        1.33 [choice]; elastic deformation up to 0.08 of 64 px [choice: some 5 px]; flips;
        Gaussian noise up to SD 12, gamma 0.67 to 1.5, brightness +-25, contrast 0.75 to 1.33
        [choices: the change is visible, and the object stays recognisable by eye].
        """
        return cls(
            flips=True,
            rotation=180.0,
            zoom=(0.75, 1.33),
            elastic=0.08,
            noise=12.0,
            gamma=(0.67, 1.5),
            brightness=25.0,
            contrast=(0.75, 1.33),
        )


def random_view(
    example: Annotated,
    size: int,
    scale: float,
    augmentation: Augmentation,
    rng: np.random.Generator,
) -> View:
    """Randomly cropped and augmented view; a pure function of its arguments and `rng`'s state.

    Parameters
    ----------
    example
        Image, mask and valid pixels; the image passed through `prefilter` for `scale`.
    size
        Side of the view, model pixels.
    scale
        Model pixels per image pixel, before the random zoom.
    augmentation
        Ranges of the changes.
    rng
        Source of all randomness.

    Returns
    -------
    View
        Padded only where the scaled image is smaller than `size`.
    """
    chance = augmentation.probability
    scale = scale * _factor(rng, augmentation.zoom, chance)
    full = scaled_size(example.image.shape, scale)
    window = window_of(full, size, (0, 0))
    offset = _crop_offset(example, full, window, scale, augmentation.object_crops, rng)
    y, x = _random_map(window, augmentation, rng)
    y = (y + (offset[0] + window[0] / 2)) / scale - 0.5
    x = (x + (offset[1] + window[1] / 2)) / scale - 0.5
    view = sample_view(example, y, x, size)
    rows, columns = window
    view.image[:rows, :columns] = _jitter(view.image[:rows, :columns], augmentation, rng)
    return view


def _crop_offset(
    example: Annotated,
    full: tuple[int, int],
    window: tuple[int, int],
    scale: float,
    object_crops: float,
    rng: np.random.Generator,
) -> tuple[int, int]:
    """Top left corner, model pixels, of a random crop, often around an object pixel."""
    room = np.subtract(full, window)
    if not room.any():
        return 0, 0
    offset = rng.integers(0, room + 1)
    if rng.random() < object_crops:
        pixels = np.flatnonzero((example.mask != 0) & example.valid)
        if len(pixels):
            pixel = divmod(int(pixels[rng.integers(len(pixels))]), example.mask.shape[1])
            # Anywhere in the middle half, lest the model learns that objects are in the centre.
            place = rng.uniform(0.25, 0.75, 2) * window
            offset = np.clip(np.rint(np.multiply(pixel, scale) - place), 0, room)
    return int(offset[0]), int(offset[1])


def _random_map(
    window: tuple[int, int], augmentation: Augmentation, rng: np.random.Generator
) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Row and column, relative to the window's centre, that each pixel is taken from."""
    y = np.arange(window[0], dtype=np.float32)[:, None] + np.float32(0.5 - window[0] / 2)
    x = np.arange(window[1], dtype=np.float32)[None, :] + np.float32(0.5 - window[1] / 2)
    chance = augmentation.probability
    if augmentation.elastic > 0 and rng.random() < chance:
        amplitude = augmentation.elastic * augmentation.elastic_spacing * rng.random()
        shift = _smooth_field(window, augmentation.elastic_spacing, rng) * np.float32(amplitude)
        y, x = y + shift[0], x + shift[1]
    angle = 0.0
    if augmentation.rotation > 0 and rng.random() < chance:
        angle = np.deg2rad(rng.uniform(-augmentation.rotation, augmentation.rotation))
    up, left = rng.choice([-1.0, 1.0], 2) if augmentation.flips else (1.0, 1.0)
    cos, sin = np.cos(angle), np.sin(angle)
    return (
        np.float32(up * cos) * y + np.float32(up * sin) * x,
        np.float32(-left * sin) * y + np.float32(left * cos) * x,
    )


def _smooth_field(
    window: tuple[int, int], spacing: float, rng: np.random.Generator
) -> NDArray[np.float32]:
    """2xHxW normal deviates on a grid of `spacing` px, bicubic in between."""
    rows, columns = (int(np.ceil(side / spacing)) + 3 for side in window)
    grid = torch.from_numpy(rng.standard_normal((1, 2, rows, columns), dtype=np.float32))
    height, width = (int(np.ceil(n * spacing)) for n in (rows, columns))
    # Only as much as is needed, one spacing in from the border where bicubic has all neighbours.
    field = functional.interpolate(grid, (height, width), mode="bicubic", align_corners=False)
    start = int(spacing)
    piece = field[0, :, start : start + window[0], start : start + window[1]]
    return np.asarray(piece.numpy(), dtype=np.float32)


def _jitter(
    image: NDArray[np.float32], augmentation: Augmentation, rng: np.random.Generator
) -> NDArray[np.float32]:
    """Noise, gamma, brightness and contrast on an HxWx3 image of 0..255."""
    chance = augmentation.probability
    if augmentation.noise > 0 and rng.random() < chance:
        noise = rng.standard_normal((*image.shape[:2], 1), dtype=np.float32)
        image = image + np.float32(rng.uniform(0, augmentation.noise)) * noise
    gamma = _factor(rng, augmentation.gamma, chance)
    if gamma != 1:
        image = 255 * (np.clip(image, 0, 255) / np.float32(255)) ** np.float32(gamma)
    shift = 0.0
    if augmentation.brightness > 0 and rng.random() < chance:
        shift = rng.uniform(-augmentation.brightness, augmentation.brightness)
    contrast = _factor(rng, augmentation.contrast, chance)
    if shift or contrast != 1:
        mean = float(image.mean())
        image = (image - np.float32(mean)) * np.float32(contrast) + np.float32(mean + shift)
    return np.clip(image, 0, 255)


def _factor(rng: np.random.Generator, bounds: tuple[float, float], chance: float) -> float:
    """Log-uniform factor within the bounds, or 1 with probability 1 - `chance`."""
    if bounds == (1.0, 1.0) or rng.random() >= chance:
        return 1.0
    return float(np.exp(rng.uniform(np.log(bounds[0]), np.log(bounds[1]))))
