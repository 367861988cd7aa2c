"""Where training starts: prompts that the backbone's task encoder makes of the examples."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import torch

from napari_ptsam.backbones.embedded import TaskEncoder, TaskStatistics
from napari_ptsam.devices import computing
from napari_ptsam.examples import Example
from napari_ptsam.predict import embed_plane
from napari_ptsam.training.views import Job
from napari_ptsam.views import plain_view


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
        """How many examples `fill` looks at."""
        return len(self.examples)

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

    def _statistics(self, encoder: TaskEncoder, example: Example) -> Iterator[TaskStatistics]:
        """Those of each tile of an example."""
        backbone, size = self.job.backbone, self.job.backbone.input_size
        scale = self.job.scaling.scale_for(example.image.shape, size)
        plane = embed_plane(self.job.method, backbone, example.image, self.job.scaling)
        for i, offset in enumerate(plane.offsets):
            view = plain_view(example, size, scale, offset)
            marks = (torch.from_numpy(m)[None, None].float() for m in (view.mask, view.valid))
            mask, valid = (m.to(backbone.device) for m in marks)
            tile = tuple(level[i : i + 1] for level in plane.tiles)
            with torch.inference_mode(), computing(backbone.device):
                statistics = encoder.statistics(tile, mask, valid)
            yield statistics
