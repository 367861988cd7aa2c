"""From a plane to square model inputs and back: working scale, tiles, blending."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from scipy import ndimage
from torch import Tensor

from napari_ptsam.errors import InputError, PromptFileError
from napari_ptsam.views import Annotated, scaled_size

OVERLAP = 0.25
"""Share of a tile that it has in common with the next one, at least."""

TOKEN = 16
"""Side of an encoder's token in model pixels. Tiles that are whole tokens apart see the same
tokens where they overlap, and agree better."""

MAX_SCALE = 2.0
"""Enlarging further shows the model no more than the camera saw."""

SAME_SIZE = 1.25
"""Images whose longest sides differ by no more than this ratio count as of one size."""

LARGE_OBJECT = 1 / 6
"""Objects wider than this share of the model's input are told by the whole view."""

Offset = tuple[int, int]
"""Row and column of a tile's top left corner in the scaled plane, model pixels."""


@dataclass(frozen=True)
class Scaling:
    """Model pixels per image pixel: a fixed factor, or None to fit the whole image in.

    With a fixed factor a plane that does not fit the model's input is cut into tiles.
    """

    factor: float | None = None

    def __post_init__(self) -> None:
        if self.factor is not None and not 0.01 <= self.factor <= 16:
            raise InputError(
                f"The working scale is a factor from 0.01 to 16 (model pixels per image pixel) "
                f"or 'fit', not {self.factor}."
            )

    def scale_for(self, shape: tuple[int, ...], size: int) -> float:
        """The factor for a plane of HxW pixels and a model input of `size`."""
        return size / max(shape[:2]) if self.factor is None else self.factor

    def to_dict(self) -> dict[str, Any]:
        """As a prompt file stores it."""
        if self.factor is None:
            return {"mode": "fit"}
        return {"mode": "fixed", "factor": self.factor}

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> Scaling:
        """From a prompt file.

        Raises
        ------
        PromptFileError
            If the mode is unknown, or the factor is missing or none.
        """
        if values.get("mode") == "fit":
            return cls(None)
        if values.get("mode") == "fixed":
            try:
                return cls(float(values["factor"]))
            except (KeyError, TypeError, ValueError, InputError) as error:
                raise PromptFileError(
                    f"The prompt file's working scale is {values}; a fixed one needs a factor "
                    "from 0.01 to 16. The file is damaged: train again, or get it anew."
                ) from error
        raise PromptFileError(
            f"The prompt file's working scale is {values}; this version knows the modes 'fit' "
            "and 'fixed'. A newer napari-ptsam may read it."
        )


def object_thickness(examples: Sequence[Annotated]) -> float | None:
    """Typical width of the annotated objects in image pixels, None without any object.

    Four times the mean depth of an object's pixels below its outline: the width of a stripe or
    of a network of membranes, two thirds of the diameter of a disc. The median over all object
    pixels, so that specks do not decide.
    """
    widths: list[NDArray[np.float32]] = []
    weights: list[NDArray[np.int64]] = []
    for example in examples:
        if not example.mask.any():
            continue
        labels, count = ndimage.label(np.pad(example.mask, 1))
        # Half a pixel less: the outline runs between pixels.
        depth = ndimage.distance_transform_edt(labels > 0) - 0.5
        mean = ndimage.mean(depth, labels, np.arange(1, count + 1))
        widths.append(4 * np.asarray(mean, np.float32))
        weights.append(np.bincount(labels.ravel())[1:])
    if not widths:
        return None
    width, weight = np.concatenate(widths), np.concatenate(weights)
    order = np.argsort(width)
    middle = np.searchsorted(np.cumsum(weight[order]), weight.sum() / 2)
    return float(width[order][middle])


def choose_scaling(examples: Sequence[Annotated], size: int, wanted_width: float) -> Scaling:
    """One scale for all images, or whole images fitted in.

    Objects have a size of their own, whatever the size of the image: so where images differ in
    size they share one scale, unless objects are so large that the whole view tells what they
    are. Objects that would become too small get a larger scale. Either way images that do not
    fit the input are cut into tiles.

    Parameters
    ----------
    examples
        Annotated images.
    size
        Side of the model's input.
    wanted_width
        Width in model pixels that objects should at least have.
    """
    width = object_thickness(examples)
    fits = [size / max(e.image.shape[:2]) for e in examples]
    fit = float(np.median(fits))
    if width is None:
        return Scaling(None)
    if width * fit >= wanted_width:
        alike = max(fits) <= SAME_SIZE * min(fits)
        if alike or width * fit > LARGE_OBJECT * size:
            return Scaling(None)
        return Scaling(round(min(fit, MAX_SCALE), 3))
    factor = min(wanted_width / max(width, 1.0), MAX_SCALE)
    # Fitting a small image in may enlarge it beyond what is worth tiles.
    return Scaling(round(factor, 3)) if factor > fit else Scaling(None)


def tile_offsets(scaled: tuple[int, int], size: int) -> list[Offset]:
    """Corners of tiles that cover the scaled plane, as evenly spread as whole tokens allow."""
    rows, columns = (_starts(length, size) for length in scaled)
    return [(row, column) for row in rows for column in columns]


def tile_count(shape: tuple[int, ...], scaling: Scaling, size: int) -> int:
    """How many tiles a plane of HxW pixels is cut into for a model input of `size`."""
    return len(tile_offsets(scaled_size(shape, scaling.scale_for(shape, size)), size))


def _starts(length: int, size: int) -> list[int]:
    if length <= size:
        return [0]
    last = length - size
    farthest = int(size * (1 - OVERLAP)) // TOKEN
    count = -(-last // (farthest * TOKEN))
    step = -(-last // (count * TOKEN)) * TOKEN
    # The last one has to end where the plane does.
    return [*range(0, count * step, step), last]


def blend(
    tiles: Iterable[tuple[Tensor, Offset]], scaled: tuple[int, int], shape: tuple[int, int]
) -> NDArray[np.float32]:
    """Tiles of logits to one map of probabilities at the plane's own resolution.

    Parameters
    ----------
    tiles
        SxS logits at the model's input size, each with its corner in the scaled plane. They
        are taken one at a time, so that a plane of any size needs memory for itself alone.
    scaled
        Height and width of the scaled plane.
    shape
        Height and width of the plane.

    Returns
    -------
    NDArray
        HxW float32, 0..1. Where tiles overlap, each weighs by its distance to its border.
    """
    merged = merge_tiles(tiles, (0, 0), scaled)[None, None]
    if scaled != tuple(shape):
        merged = F.interpolate(merged, tuple(shape), mode="bilinear", align_corners=False)
    return np.asarray(merged[0, 0].sigmoid().numpy(), np.float32)


def merge_tiles(
    tiles: Iterable[tuple[Tensor, Offset]], corner: Offset, size: tuple[int, int]
) -> Tensor:
    """Weighted mean of tiles of logits on a window of the scaled plane.

    Parameters
    ----------
    tiles
        SxS logits, each with its corner in the scaled plane. Tiles may reach beyond the window.
    corner, size
        Of the window, in the scaled plane.

    Returns
    -------
    Tensor
        HxW logits of the window. A pixel's value depends on the tiles over it alone, as long as
        these come in the same order: windows of one plane fit together without a seam.
    """
    total, weights = torch.zeros(size), torch.zeros(size)
    for tile, offset in tiles:
        weight = _tile_weight(tile.shape[-1])
        here, there = [], []
        for start, first, length, extent in zip(offset, corner, tile.shape, size, strict=True):
            low, high = max(start, first), min(start + length, first + extent)
            here.append(slice(low - start, max(high, low) - start))
            there.append(slice(low - first, max(high, low) - first))
        total[there[0], there[1]] += (tile.float().cpu() * weight)[here[0], here[1]]
        weights[there[0], there[1]] += weight[here[0], here[1]]
    return total / weights


def interpolated(values: Tensor, axis: int, places: Tensor) -> Tensor:
    """Values of an HxW map between its pixels along one axis; along both it is bilinear.

    Parameters
    ----------
    places
        Where along the axis, 0 being the centre of the first pixel and none beyond the last.
    """
    low = places.floor().long()
    share = (places - low).float()
    share = share[:, None] if axis == 0 else share[None, :]
    high = (low + 1).clamp(max=values.shape[axis] - 1)
    return values.index_select(axis, low).lerp_(values.index_select(axis, high), share)


def _tile_weight(size: int) -> Tensor:
    ramp = torch.minimum(torch.arange(size) + 1, size - torch.arange(size)).float()
    return torch.outer(ramp, ramp)
