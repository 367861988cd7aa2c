"""The working scale at which a task is told best, found by trying some on the examples.

How large objects should be seen depends on what tells them: nuclei by their texture want more
pixels than membranes do. A start made of examples costs next to nothing (see `start`), so one is
made of most examples and tried on the others, at one scale after another.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Generator, Sequence
from dataclasses import replace

import numpy as np
import torch

from napari_ptsam.backbones.backbone import Backbone
from napari_ptsam.backbones.embedded import TaskEncoder, TaskStatistics
from napari_ptsam.embeddings import Embeddings, recalling
from napari_ptsam.errors import InputError
from napari_ptsam.examples import Example
from napari_ptsam.methods import build_method
from napari_ptsam.methods.base import Method
from napari_ptsam.metrics import dice
from napari_ptsam.predict import decode_plane
from napari_ptsam.tiling import (
    LARGE_OBJECT,
    Scaling,
    choose_scaling,
    object_thickness,
    tile_offsets,
)
from napari_ptsam.training.start import RAISES, plane_statistics
from napari_ptsam.training.steps import TrainStep
from napari_ptsam.views import scaled_size

STEP = 1.5
"""From one scale to the next larger one. Every later prediction takes `STEP` squared as long."""

WORTH = 0.01
"""Dice that a larger scale must gain for that."""

LARGEST = 3.0
"""Scale beyond which none is tried."""

FOLDS = 4
TRIED = 8
"""Examples that are looked at, at most."""

ScaleSearch = Generator[tuple[int, int], None, Scaling]
"""Yields how many examples were looked at, and of how many, at each scale; returns the best."""


def working_scale(scale: float | str, examples: Sequence[Example], backbone: Backbone) -> Scaling:
    """The working scale behind a number, ``fit`` or ``auto``.

    Raises
    ------
    InputError
        If it is none of these.
    """
    if scale == "auto":
        return choose_scaling(examples, backbone.input_size, backbone.wanted_object_width)
    if scale == "fit":
        return Scaling(None)
    try:
        return Scaling(float(scale))
    except ValueError as error:
        raise InputError(
            f"The working scale is 'auto', 'fit' or a number, not '{scale}'."
        ) from error


def search_scaling(
    backbone: Backbone,
    examples: Sequence[Example],
    first: Scaling,
    embeddings: Embeddings | None = None,
    should_stop: Callable[[], bool] = lambda: False,
) -> ScaleSearch:
    """Go from `first` to larger scales, as long as each is worth its time.

    Compared is the mean Dice, at the images' own pixels, of examples after a start from the others
    with the best constant. It is `first` that is returned where nothing can be compared: without a
    task encoder, with fewer than `FOLDS` examples of the object, with images that are enlarged as
    it is, or where objects are so large that the whole view tells what they are. The starts are of
    decoder prompts, so that all methods see the same examples at the same scale.
    """
    encoder = backbone.task_encoder
    shown = [e for e in examples if (e.mask & e.valid).any()]
    fits = [first.scale_for(e.image.shape, backbone.input_size) for e in shown]
    factor = float(np.median(fits)) if fits else LARGEST
    if encoder is None or len(shown) < FOLDS or factor * STEP > LARGEST:
        return first
    width = object_thickness(shown)
    if width is not None and width * factor > LARGE_OBJECT * backbone.input_size:
        return first
    chosen = np.linspace(0, len(shown) - 1, min(TRIED, len(shown))).round().astype(int)
    crops = [_crop(shown[i], first, backbone.input_size) for i in chosen]
    method = build_method("ptsam", {}, backbone).to(backbone.device)
    kept = Embeddings(limit=0) if embeddings is None else embeddings
    seen_by = recalling(method, backbone, kept)
    trial, best, best_dice = first, first, -1.0
    while factor <= LARGEST:
        score = yield from _cross_validated(method, seen_by, encoder, crops, trial, should_stop)
        if score is None or score < best_dice + WORTH:
            break
        best, best_dice = trial, score
        factor *= STEP
        trial = Scaling(round(factor, 3))
    return best


def search_steps(search: ScaleSearch) -> Generator[TrainStep, None, Scaling]:
    """A search for the scale as steps of a run."""
    started = time.perf_counter()
    while True:
        try:
            done, total = next(search)
        except StopIteration as end:
            scaling: Scaling = end.value
            return scaling
        seconds = time.perf_counter() - started
        yield TrainStep("embed", done, total, float("nan"), None, seconds, ready=False)


def _crop(example: Example, scaling: Scaling, size: int) -> Example:
    """As much of an example as the model sees at once; of all such, that with the median object.

    The same pixels at every scale, and few of them.
    """
    scale = scaling.scale_for(example.image.shape, size)
    side = int(size / scale + 1e-3)  # down, so that it is one tile and not four
    offsets = tile_offsets(scaled_size(example.image.shape, scale), size)
    corners = [(int(y / scale), int(x / scale)) for y, x in offsets]
    windows = [(slice(y, y + side), slice(x, x + side)) for y, x in corners]
    counts = [int((example.mask[w] & example.valid[w]).sum()) for w in windows]
    order = [i for i in np.argsort(counts, kind="stable") if counts[i]] or [0]
    window = windows[order[len(order) // 2]]
    image, mask, valid = example.image[window], example.mask[window], example.valid[window]
    return replace(example, image=image, mask=mask, valid=valid, instances=None)


def _cross_validated(
    method: Method,
    backbone: Backbone,
    encoder: TaskEncoder,
    examples: Sequence[Example],
    scaling: Scaling,
    should_stop: Callable[[], bool],
) -> Generator[tuple[int, int], None, float | None]:
    """Mean Dice of examples after a start from those of other folds; None if stopped."""
    folds: list[TaskStatistics | None] = [None] * FOLDS
    planes = []
    for number, example in enumerate(examples):
        plane, found = plane_statistics(method, backbone, encoder, example, scaling)
        planes.append(plane.compact())
        before = folds[number % FOLDS]
        folds[number % FOLDS] = found if before is None else before + found
        yield number + 1, len(examples)
        if should_stop():
            return None
    scores = []
    for fold in range(FOLDS):
        first, *rest = (f for i, f in enumerate(folds) if i != fold and f is not None)
        with torch.inference_mode():
            method.start_from(encoder(sum(rest, first))[0])
        for plane, example in list(zip(planes, examples, strict=True))[fold::FOLDS]:
            probability = decode_plane(method, backbone, plane)
            raised = (probability >= 1 / (1 + np.exp(by)) for by in RAISES)
            scores.append([dice(mask, example.mask, example.valid) for mask in raised])
    return float(np.mean(scores, 0).max())
