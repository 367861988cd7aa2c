"""Square views of images: what a model sees, in training and in prediction alike.

A view is `size` x `size` model pixels, taken from the image at `scale` model pixels
per image pixel. The image is laid in at the top left; where it does not reach, the
view is padding (image 0, not valid).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Protocol, TypeVar

import numpy as np
import torch
from numpy.typing import NDArray
from scipy import ndimage
from torch.nn import functional

# Nearest and bilinear sampling look at no more than 2x2 pixels; from here on they skip some.
PREFILTER_FROM = 1.5
_TRUNCATE = 3.0


class Annotated(Protocol):
    """An image with its mask: all that a view needs of an example."""

    @property
    def image(self) -> NDArray[np.float32]:
        """HxWx3 float32, 0..255."""

    @property
    def mask(self) -> NDArray[Any]:
        """HxW, the object; or the ids of several, 0 on the background."""

    @property
    def valid(self) -> NDArray[np.bool_]:
        """HxW, False on pixels to ignore."""


@dataclass(frozen=True)
class Marked:
    """An image that a view can be taken of, where there is no example; see `Annotated`."""

    image: NDArray[np.float32]
    mask: NDArray[Any]
    valid: NDArray[np.bool_]

    @classmethod
    def blank(cls, image: NDArray[np.float32]) -> Marked:
        """An image of which nothing is annotated."""
        nothing = np.zeros(image.shape[:2], bool)
        return cls(image, nothing, nothing)


@dataclass(frozen=True)
class View:
    """One square training or prediction view.

    Attributes
    ----------
    image
        SxSx3 float32, 0..255; 0 in the padding.
    mask
        SxS bool, the object; ids where the image's mask has such.
    valid
        SxS bool, False in the padding and on pixels that the user excluded.
    content
        Rows and columns, from the top left, that the image fills; the rest is padding.
        Needed to blank the padding alone after the backbone's mean is subtracted, because
        `valid` is False on excluded pixels of the image too.
    """

    image: NDArray[np.float32]
    mask: NDArray[Any]
    valid: NDArray[np.bool_]
    content: tuple[int, int]


def prefilter(image: NDArray[np.float32], scale: float) -> NDArray[np.float32]:
    """Blur an HxWx3 image against aliasing before it is sampled at `scale` < 1.

    Views sample without filtering. Filter an image once, with the scale it will be seen at,
    and take all views from the result. Down to 1/1.5 the image is returned unchanged.

    Returns
    -------
    NDArray
        HxWx3 float32; Gaussian SD (1 / scale - 1) / 2 px, as in `skimage.transform.resize`.
    """
    factor = 1.0 / scale
    if factor <= PREFILTER_FROM:
        return image
    sigma = (factor - 1.0) / 2.0
    # The colours of a grey image are three times the same; from here on they are one in memory.
    grey = all(np.array_equal(image[..., 0], image[..., n]) for n in range(1, image.shape[2]))
    seen = image[..., :1] if grey else image
    smooth = ndimage.gaussian_filter(seen, (sigma, sigma, 0.0), mode="reflect", truncate=_TRUNCATE)
    return np.broadcast_to(np.asarray(smooth, np.float32), image.shape)


def _once(image: NDArray[np.float32]) -> NDArray[np.float32]:
    """HxWx3, or HxWx1 if the colours are one in memory, as `prefilter` gives grey images."""
    return image[..., :1] if image.strides[2] == 0 else image


def plain_view(
    example: Annotated, size: int, scale: float, offset: tuple[int, int] = (0, 0)
) -> View:
    """View of an image without augmentation.

    Parameters
    ----------
    example
        Image, mask and valid pixels; the image passed through `prefilter` for `scale`.
    size
        Side of the view, model pixels.
    scale
        Model pixels per image pixel.
    offset
        Row and column of the view's top left corner, in model pixels of the scaled image.

    Returns
    -------
    View
        Rows and columns beyond the image's end are padding.
    """
    rows, columns = plain_positions(example.image.shape, size, scale, offset)
    y, x = np.broadcast_arrays(rows[:, None], columns[None, :])
    return sample_view(example, y, x, size)


def plain_positions(
    shape: tuple[int, ...], size: int, scale: float, offset: tuple[int, int]
) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Rows and columns of the image (HxW, `shape`) that a plain view's pixels are taken from."""
    window = window_of(scaled_size(shape, scale), size, offset)
    rows = (offset[0] + np.arange(window[0], dtype=np.float32) + 0.5) / scale - 0.5
    columns = (offset[1] + np.arange(window[1], dtype=np.float32) + 0.5) / scale - 0.5
    return rows, columns


Positions = TypeVar("Positions", float, NDArray[Any])


def view_position(position: Positions, scale: float, offset: int) -> Positions:
    """Row (or column) of a plain view at which one of the image is: undoes `plain_positions`."""
    return (position + 0.5) * scale - 0.5 - offset


def prefilter_reach(scale: float) -> int:
    """How many pixels around a pixel `prefilter` takes into account."""
    factor = 1.0 / scale
    # As scipy cuts off its Gaussian.
    return 0 if factor <= PREFILTER_FROM else int(_TRUNCATE * (factor - 1.0) / 2.0 + 0.5)


def scaled_size(shape: tuple[int, ...], scale: float) -> tuple[int, int]:
    """Height and width in model pixels, rounded as SAM does, at least 1."""
    height, width = (max(int(side * scale + 0.5), 1) for side in shape[:2])
    return height, width


def window_of(full: tuple[int, int], size: int, offset: tuple[int, int]) -> tuple[int, int]:
    """Rows and columns of a view that the scaled image fills."""
    rows, columns = (max(min(size, f - o), 0) for f, o in zip(full, offset, strict=True))
    return rows, columns


def sample_view(
    example: Annotated, y: NDArray[np.float32], x: NDArray[np.float32], size: int
) -> View:
    """View whose pixel (i, j) is taken from row y[i, j], column x[i, j] of the image."""
    rows, columns = y.shape
    view = View(
        image=np.zeros((size, size, 3), np.float32),
        mask=np.zeros((size, size), example.mask.dtype),
        valid=np.zeros((size, size), bool),
        content=(rows, columns),
    )
    if not y.size:
        return view
    y = _reflected(y, example.image.shape[0])
    x = _reflected(x, example.image.shape[1])
    near = np.rint(y).astype(np.int32), np.rint(x).astype(np.int32)
    view.mask[:rows, :columns] = example.mask[near]
    view.valid[:rows, :columns] = example.valid[near]
    view.image[:rows, :columns] = _bilinear(example.image, y, x)
    return view


def _reflected(position: NDArray[np.float32], length: int) -> NDArray[np.float32]:
    """Coordinates mirrored at the outer edges of the border pixels into 0..length - 1."""
    if position.min() < -0.5 or position.max() > length - 0.5:
        position = length - 0.5 - np.abs(np.mod(position + 0.5, 2 * length) - length)
    return np.clip(position, 0, length - 1)


def _bilinear(
    image: NDArray[np.float32], y: NDArray[np.float32], x: NDArray[np.float32]
) -> NDArray[np.float32]:
    """HxWx3 image sampled at coordinates inside it; HxWx1 if its colours are one in memory."""
    # Positions relative to the part that is read keep float32 exact on very large images.
    top, left = int(y.min()), int(x.min())
    part = _once(image)[top : int(y.max()) + 2, left : int(x.max()) + 2]
    height, width = part.shape[:2]
    grid = np.empty((1, *y.shape, 2), np.float32)
    grid[0, ..., 0] = (2 * (x - left) + 1) / width - 1
    grid[0, ..., 1] = (2 * (y - top) + 1) / height - 1
    planes = torch.from_numpy(part.transpose(2, 0, 1).copy())[None]
    sampled = functional.grid_sample(
        planes, torch.from_numpy(grid), padding_mode="border", align_corners=False
    )
    return sampled[0].permute(1, 2, 0).numpy()
