"""Where training starts: prompts that the backbone's task encoder makes of the examples.

They tell well which pixels are more like the object than others, and badly from where on a pixel
is one. So the logits are raised or lowered to what suits the examples best; and once more after
training, which moves that constant slowly.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
import torch

from napari_ptsam.backbones.embedded import TaskEncoder, TaskStatistics
from napari_ptsam.devices import computing
from napari_ptsam.examples import Example
from napari_ptsam.metrics import dice
from napari_ptsam.predict import PlaneEmbedding, decode_plane, embed_plane
from napari_ptsam.training.views import Job
from napari_ptsam.views import plain_view

RAISES = np.linspace(-2, 3, 21)
"""What may be added to the logits."""


class TaskStart:
    """The first decoder prompts, made of examples instead of drawn at random.

    Does nothing where the plan does not want it, the backbone has no task encoder, the method
    no decoder prompts, or there is no example.
    """

    def __init__(self, job: Job, examples: Sequence[Example]) -> None:
        self.job = job
        self.encoder = job.backbone.task_encoder
        wanted = job.plan.start_from_examples and job.method.starts_from_prompts
        self.examples = examples if wanted and self.encoder is not None else []

    @property
    def count(self) -> int:
        """How many times `fill` looks at an example."""
        return len(self.examples) + self.raised

    def fill(self) -> Iterator[int]:
        """Look at the examples and set the method; yields 1 for each."""
        if self.encoder is None or not self.examples:
            return
        total: TaskStatistics | None = None
        for example in self.examples:
            for statistics in self._statistics(self.encoder, example):
                total = statistics if total is None else total + statistics
            yield 1
        if total is not None:
            with torch.inference_mode():
                self.job.method.start_from(self.encoder(total)[0])
            yield from self.raise_logits()

    @property
    def raised(self) -> int:
        """How many examples `raise_logits` looks at."""
        return len(self.examples) if self.job.method.raises_logits else 0

    def raise_logits(self) -> Iterator[int]:
        """Add the constant to the logits that gives the best mean Dice; yields 1 for each look."""
        if not self.raised:
            return
        bars, scores = 1 / (1 + np.exp(RAISES)), []
        for example in self.examples:
            plane = self._embedded(example)
            probability = decode_plane(self.job.method, self.job.backbone, plane)
            scores.append([dice(probability >= t, example.mask, example.valid) for t in bars])
            yield 1
        self.job.method.raise_logits(float(RAISES[np.mean(scores, 0).argmax()]))

    def _embedded(self, example: Example) -> PlaneEmbedding:
        return embed_plane(self.job.method, self.job.backbone, example.image, self.job.scaling)

    def _statistics(self, encoder: TaskEncoder, example: Example) -> Iterator[TaskStatistics]:
        """Those of each tile of an example."""
        backbone, size = self.job.backbone, self.job.backbone.input_size
        scale = self.job.scaling.scale_for(example.image.shape, size)
        plane = self._embedded(example)
        for i, offset in enumerate(plane.offsets):
            view = plain_view(example, size, scale, offset)
            marks = (torch.from_numpy(m)[None, None].float() for m in (view.mask, view.valid))
            mask, valid = (m.to(backbone.device) for m in marks)
            tile = tuple(level[i : i + 1] for level in plane.tiles)
            with torch.inference_mode(), computing(backbone.device):
                statistics = encoder.statistics(tile, mask, valid)
            yield statistics
