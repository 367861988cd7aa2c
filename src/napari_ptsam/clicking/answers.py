"""From what the model says in a view to the mask of one object on the plane."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from scipy import ndimage
from torch import Tensor

from napari_ptsam.clicking.plane import Seen
from napari_ptsam.clicking.prompt import ClickPrompt
from napari_ptsam.tiling import interpolated
from napari_ptsam.views import view_position

NEAR = 2
"""A part of a mask no more pixels away from a click, on each axis, is what was clicked."""


@dataclass(frozen=True)
class ClickAnswer:
    """The mask of one object.

    Attributes
    ----------
    mask
        HxW bool, at the plane's own resolution.
    probability
        HxW float32, 0..1.
    score
        The IoU that the model expects of the mask, 0..1.
    seconds
        What the answer took.
    region
        Rows and columns of the plane that were looked at; the mask is empty beyond.
    """

    mask: NDArray[np.bool_]
    probability: NDArray[np.float32]
    score: float
    seconds: float
    region: tuple[slice, slice]


def pointed_at(
    mask: NDArray[np.bool_], prompt: ClickPrompt, region: tuple[slice, slice]
) -> NDArray[np.bool_]:
    """Those connected parts of a mask that a click is on or next to; without clicks, the box.

    One object is asked for. What lies apart from it belongs to others of its kind.

    Parameters
    ----------
    mask
        The mask in a region of the plane.
    region
        Rows and columns of it.
    """
    # Only where there is something: planes may be large, and objects are small.
    rows, columns = np.flatnonzero(mask.any(1)), np.flatnonzero(mask.any(0))
    if not len(rows):
        return mask
    part = slice(rows[0], rows[-1] + 1), slice(columns[0], columns[-1] + 1)
    parts, _ = ndimage.label(mask[part], np.ones((3, 3)))
    top, left = region[0].start + part[0].start, region[1].start + part[1].start
    areas = [(c.y - NEAR, c.x - NEAR, c.y + NEAR, c.x + NEAR) for c in prompt.positive]
    if prompt.box is not None and not areas:
        areas.append((prompt.box.top, prompt.box.left, prompt.box.bottom, prompt.box.right))
    wanted = np.zeros(parts.max() + 1, bool)
    for first_row, first_column, last_row, last_column in areas:
        touched = parts[
            max(round(first_row - top), 0) : max(round(last_row - top) + 1, 0),
            max(round(first_column - left), 0) : max(round(last_column - left) + 1, 0),
        ]
        wanted[touched] = True
    wanted[0] = False
    only = np.zeros_like(mask)
    only[part] = wanted[parts]
    return only


def is_cut(mask: Tensor, seen: Seen) -> bool:
    """Whether a mask in a view reaches a border beyond which the plane goes on."""
    ends = [offset + side for offset, side in zip(seen.offset, mask.shape, strict=True)]
    return bool(
        (seen.offset[0] > 0 and mask[0].any())
        or (seen.offset[1] > 0 and mask[:, 0].any())
        or (ends[0] < seen.prepared.scaled[0] and mask[-1].any())
        or (ends[1] < seen.prepared.scaled[1] and mask[:, -1].any())
    )


def on_plane(
    logits: Tensor, seen: Seen, shape: tuple[int, int]
) -> tuple[NDArray[np.float32], tuple[slice, slice]]:
    """Probability on the plane, HxW, of a view's logits; and where it may be more than 0."""
    region = []
    sampled = logits.cpu()
    for axis, (length, offset) in enumerate(zip(shape, seen.offset, strict=True)):
        side = logits.shape[axis]
        places = view_position(np.arange(length), seen.scale, offset)
        inside = np.flatnonzero((places >= -0.5) & (places < max(side, 1) + 0.5))
        region.append(slice(int(inside[0]), int(inside[-1]) + 1))
        sampled = interpolated(sampled, axis, torch.from_numpy(places[inside].clip(0, side - 1)))
    probability = np.zeros(shape, np.float32)
    where = (region[0], region[1])
    probability[where] = sampled.sigmoid().numpy()
    return probability, where
