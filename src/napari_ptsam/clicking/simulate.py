"""Clicks as a user would make them: first ones, and those that correct an answer."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from napari_ptsam.clicking.prompt import Box, Click, well_inside

BOX_JITTER = 0.08
"""SD of a box's corners, as a share of its sides; as in the embedded backbone's pre-training."""


def click_in(mask: NDArray[np.bool_], rng: np.random.Generator, *, positive: bool = True) -> Click:
    """A click on a random pixel of an HxW mask that is not empty."""
    pixels = np.flatnonzero(mask)
    y, x = divmod(int(pixels[rng.integers(len(pixels))]), mask.shape[1])
    return Click(y, x, positive)


def box_around(mask: NDArray[np.bool_], rng: np.random.Generator) -> Box:
    """A box as a hasty user draws it around an HxW mask that is not empty."""
    box = Box.around(mask)
    height, width = box.bottom - box.top, box.right - box.left
    shift = rng.normal(0, BOX_JITTER, 4) * (height, width, height, width)
    rows = np.clip([box.top + shift[0], box.bottom + shift[2]], 0, mask.shape[0] - 1)
    columns = np.clip([box.left + shift[1], box.right + shift[3]], 0, mask.shape[1] - 1)
    return Box(float(min(rows)), float(min(columns)), float(max(rows)), float(max(columns)))


def correction(
    answer: NDArray[np.bool_],
    truth: NDArray[np.bool_],
    rng: np.random.Generator | None = None,
    valid: NDArray[np.bool_] | None = None,
) -> Click | None:
    """A click on what an answer lacks or has too much; None if it is right.

    Parameters
    ----------
    answer, truth
        HxW.
    rng
        Draws any wrong pixel, as SAM was trained. Without it the click is in the middle of the
        largest wrong region, as SAM was tested (Kirillov et al. 2023, sections A and D).
    valid
        HxW, False where nobody knows what is right.
    """
    wrong = answer != truth
    if valid is not None:
        wrong &= valid
    if not wrong.any():
        return None
    if rng is not None:
        click = click_in(wrong, rng)
    else:
        regions, _ = ndimage.label(wrong)
        click = well_inside(regions == int(np.argmax(np.bincount(regions.ravel())[1:])) + 1)
    return Click(click.y, click.x, bool(truth[int(click.y), int(click.x)]))
