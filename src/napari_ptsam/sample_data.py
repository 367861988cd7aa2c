"""Sample data for napari's File menu: made on the spot, no download.

What napari needs are plain tuples, so neither napari nor Qt is imported.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from napari_ptsam.synthetic.fields import scatter, star_shape

LayerTuple = tuple[NDArray[Any], dict[str, Any], str]
"""Data, keyword arguments and type of a napari layer."""

PLANES, SIDE, ANNOTATED = 24, 192, 16


def procedural_stack() -> list[LayerTuple]:
    """A stack of blurred, noisy cells of which the first planes are annotated.

    Returns
    -------
    list of tuple
        An image layer, 24x192x192 uint8, and a labels layer of the same shape
        in which each cell has an id and only planes 0 to 15 have any paint:
        the rest is there to be segmented.
    """
    rng = np.random.default_rng(0)
    labels = _cells(rng)
    signal = ndimage.gaussian_filter((labels > 0).astype(np.float32), (0.5, 1.2, 1.2))
    noise = rng.normal(0.0, 12.0, labels.shape)
    image = np.clip(40 + 120 * signal + noise, 0, 255).astype(np.uint8)
    labels[ANNOTATED:] = 0
    return [
        (image, {"name": "procedural cells"}, "image"),
        (labels, {"name": "cells (planes 0-15 annotated)"}, "labels"),
    ]


def _cells(rng: np.random.Generator) -> NDArray[np.int32]:
    """Ids of roundish cells that reach through several planes each."""
    labels = np.zeros((PLANES, SIDE, SIDE), np.int32)
    centres = scatter(rng, (SIDE, SIDE), 20.0, margin=8.0)
    for number, centre in enumerate(centres, start=1):
        radius, middle = rng.uniform(8.0, 12.0), rng.uniform(0, PLANES)
        for z in range(PLANES):
            across = radius**2 - (1.5 * (z - middle)) ** 2
            if across > 4.0:
                # One seed for all planes of a cell: its outline keeps its shape.
                window, level = star_shape(
                    np.random.default_rng(number), (SIDE, SIDE), centre, float(np.sqrt(across))
                )
                labels[z][window][(level > 0) & (labels[z][window] == 0)] = number
    return labels
