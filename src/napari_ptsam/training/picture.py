"""A picture of augmented training samples, to see what a run learns from."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from napari_ptsam.backbones import Backbone
from napari_ptsam.errors import InputError
from napari_ptsam.examples import Example
from napari_ptsam.tiling import Scaling
from napari_ptsam.training.augment import random_view
from napari_ptsam.training.presets import TrainingPlan
from napari_ptsam.views import View, prefilter

SHEET_SIDE = 4


def contact_sheet(views: Sequence[View], path: str | Path) -> None:
    """Write a picture of the first 16 views, 4 by 4, with the mask's outline drawn in.

    The outline is yellow on the pixels of the object that touch its border; what does not
    count in training (padding, ignored regions) is tinted blue.

    Raises
    ------
    InputError
        If there is no view, or the file's suffix is no picture format.
    """
    from PIL import Image

    if not views:
        raise InputError("There are no views to draw; pass up to 16 of them.")
    side = views[0].mask.shape[0]
    sheet = np.zeros((SHEET_SIDE * (side + 2), SHEET_SIDE * (side + 2), 3), np.uint8)
    for index, view in enumerate(views[: SHEET_SIDE**2]):
        y, x = (side + 2) * (index // SHEET_SIDE), (side + 2) * (index % SHEET_SIDE)
        sheet[y : y + side, x : x + side] = _drawn(view)
    try:
        Image.fromarray(sheet).save(Path(path))
    except ValueError as error:
        raise InputError(
            f"Cannot tell a picture format from the name '{Path(path).name}'; use .png or .jpg."
        ) from error


def _drawn(view: View) -> NDArray[Any]:
    """SxSx3 uint8 picture of one view."""
    picture = np.clip(view.image, 0, 255)
    picture[~view.valid] = 0.6 * picture[~view.valid] + np.array([0, 0, 100])
    picture[view.mask & ~ndimage.binary_erosion(view.mask, border_value=1)] = (255, 220, 0)
    return picture.astype(np.uint8)


def draw_augmentations(
    path: Path,
    examples: Sequence[Example],
    backbone: Backbone,
    scaling: Scaling,
    plan: TrainingPlan,
) -> None:
    """Write a picture of 16 views that a run with this plan could learn from."""
    rng = np.random.default_rng([plan.seed, 3])
    views = []
    for number in range(16):
        example = examples[number % len(examples)]
        scale = scaling.scale_for(example.image.shape, backbone.input_size)
        smooth = replace(example, image=prefilter(example.image, scale))
        views.append(random_view(smooth, backbone.input_size, scale, plan.augmentation, rng))
    contact_sheet(views, path)
