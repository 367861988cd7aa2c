"""Where training starts: prompts that the backbone's task encoder makes of the examples."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import torch
from torch import Tensor

from napari_ptsam.backbones.embedded import TaskEncoder
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
        statistics: list[Tensor] = []
        for example in self.examples:
            statistics += self._statistics(self.encoder, example)
            yield 1
        with torch.inference_mode():
            self.job.method.start_from(self.encoder(torch.cat(statistics)[None])[0])

    def _statistics(self, encoder: TaskEncoder, example: Example) -> list[Tensor]:
        """1x3x(F+1) for each tile of an example."""
        backbone, size = self.job.backbone, self.job.backbone.input_size
        scale = self.job.scaling.scale_for(example.image.shape, size)
        plane = embed_plane(self.job.method, backbone, example.image, self.job.scaling)
        found = []
        for i, offset in enumerate(plane.offsets):
            view = plain_view(example, size, scale, offset)
            marks = (torch.from_numpy(m)[None, None].float() for m in (view.mask, view.valid))
            mask, valid = (m.to(backbone.device) for m in marks)
            tile = tuple(level[i : i + 1] for level in plane.tiles)
            with torch.inference_mode(), computing(backbone.device):
                found.append(encoder.statistics(tile, mask, valid))
        return found
