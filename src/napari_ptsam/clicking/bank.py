"""Views of annotated planes that training clicks on, encoded once and kept."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray

from napari_ptsam.backbones import Embedding
from napari_ptsam.clicking.plan import ClickPlan
from napari_ptsam.devices import computing
from napari_ptsam.embeddings import Recalling
from napari_ptsam.examples import Example
from napari_ptsam.objects import split_objects
from napari_ptsam.predict import view_tensors
from napari_ptsam.tiling import Scaling
from napari_ptsam.training.augment import random_view
from napari_ptsam.views import Marked, prefilter

LEAST_AREA = 12
"""Objects of fewer model pixels in a view are not asked for: nothing of their shape is left."""


def instances_of(example: Example) -> NDArray[np.int32]:
    """HxW ids of an example's objects; connected regions where its labels have no ids."""
    if example.instances is not None:
        return example.instances
    return split_objects(example.mask)


@dataclass(frozen=True)
class KeptView:
    """An encoded view.

    Attributes
    ----------
    embedding
        Of the view, Dxhxw for each level; 16 bits on the CPU.
    ids
        SxS ids of objects.
    valid
        SxS bool.
    targets
        The ids that can be asked for.
    """

    embedding: Embedding
    ids: NDArray[np.int32]
    valid: NDArray[np.bool_]
    targets: NDArray[np.int32]


class ClickBank:
    """A few augmented views of each plane; of them, those that a run's steps draw.

    Parameters
    ----------
    examples
        Annotated planes.
    plan
        Its steps, seed, views for each image and augmentation.
    scaling
        Working scale.
    backbone
        Looks for kept embeddings before it encodes.
    """

    def __init__(
        self, examples: Sequence[Example], plan: ClickPlan, scaling: Scaling, backbone: Recalling
    ) -> None:
        self.plan, self.backbone = plan, backbone
        self.per_image = plan.views_per_image or 1
        self.scales = [scaling.scale_for(e.image.shape, backbone.input_size) for e in examples]
        self.planes = [
            Marked(prefilter(e.image, s), instances_of(e), e.valid)
            for e, s in zip(examples, self.scales, strict=True)
        ]
        self.digests = [int(e.image_digest, 16) for e in examples]
        self.numbers = sorted({self._drawn(step) for step in range(plan.steps)})
        self.kept: dict[int, KeptView] = {}

    def fill(self) -> Iterator[int]:
        """Encode the views; yields 1 for each."""
        for number in self.numbers:
            kept = self._encoded(number)
            if len(kept.targets):
                self.kept[number] = kept
            yield 1

    def view(self, step: int) -> KeptView:
        """What a step clicks on; depends on the plan's seed and the step alone."""
        known = sorted(self.kept)
        # A view without any object is replaced by the next that has some.
        return self.kept[known[int(np.searchsorted(known, self._drawn(step))) % len(known)]]

    def _drawn(self, step: int) -> int:
        rng = np.random.default_rng([self.plan.seed, 1, step])
        return int(rng.integers(len(self.planes) * self.per_image))

    def _encoded(self, number: int) -> KeptView:
        index, which = divmod(number, self.per_image)
        rng = np.random.default_rng([self.plan.seed, 2, which, self.digests[index]])
        size = self.backbone.input_size
        view = random_view(
            self.planes[index], size, self.scales[index], self.plan.augmentation, rng
        )
        with torch.inference_mode(), computing(self.backbone.device):
            levels = self.backbone.encode(view_tensors(self.backbone, [view]))
            embedding = tuple(level[0].half().cpu() for level in levels)
        areas = np.bincount((view.mask * view.valid).ravel())
        targets = np.flatnonzero(areas >= LEAST_AREA)
        return KeptView(embedding, view.mask, view.valid, targets[targets > 0].astype(np.int32))
