"""Where training starts: prompts that the backbone's task encoder makes of the examples.

They tell well which pixels are more like the object than others, and badly from where on a pixel
is one. So the logits are raised or lowered to what suits the examples best; and once more after
training, which moves that constant slowly.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
import torch

from napari_ptsam.backbones.backbone import Backbone
from napari_ptsam.backbones.embedded import TaskEncoder, TaskStatistics
from napari_ptsam.devices import computing
from napari_ptsam.examples import Example
from napari_ptsam.methods.base import Method
from napari_ptsam.metrics import dice
from napari_ptsam.predict import PlaneEmbedding, embed_plane, prepare_plane, tile_logits
from napari_ptsam.tiling import Scaling
from napari_ptsam.training.views import Job
from napari_ptsam.views import plain_view

RAISES = np.linspace(-2, 3, 21)
"""What may be added to the logits."""

RAISED_TILES = 4
"""Of each example that are looked at for it: from the one with least of the object to the one with
most. Enough for one number."""


class TaskStart:
    """The first decoder prompts, made of examples instead of drawn at random.

    Does nothing where the plan does not want it, the run goes on from learned numbers, the
    backbone has no task encoder, the method no decoder prompts, or there is no example.
    """

    def __init__(self, job: Job, examples: Sequence[Example]) -> None:
        self.job = job
        self.encoder = job.backbone.task_encoder
        wanted = (
            job.plan.start_from_examples and job.start is None and job.method.starts_from_prompts
        )
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
            job = self.job
            found = plane_statistics(job.method, job.backbone, self.encoder, example, job.scaling)
            total = found[1] if total is None else total + found[1]
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
        scores = []
        for example in self.examples:
            scores.append(self._dice_by_raise(example))
            yield 1
        found = np.mean(scores, 0)
        # Where several are as good as each other, the one in their middle is safest.
        best = np.flatnonzero(found >= found.max() - 1e-9)
        self.job.method.raise_logits(float(RAISES[best[len(best) // 2]]))

    def _dice_by_raise(self, example: Example) -> list[float]:
        """Dice of some tiles of an example after each of `RAISES`."""
        method, backbone = self.job.method, self.job.backbone
        prepared = prepare_plane(example.image, self.job.scaling, backbone.input_size)
        marks = {}
        for offset in prepared.offsets:
            view = plain_view(example, backbone.input_size, prepared.scale, offset)
            marks[offset] = view.mask, view.valid  # without the image, which takes the space
        order = sorted(marks, key=lambda o: int(marks[o][0].sum()))
        ranks = np.linspace(0, len(order) - 1, RAISED_TILES).round().astype(int)
        chosen = {order[i] for i in ranks}
        offsets = [o for o in prepared.offsets if o in chosen]  # as they were encoded before
        with torch.inference_mode(), computing(backbone.device):
            tiles = prepared.embedded(method, backbone, offsets)
            logits = [t.cpu().numpy() for t, _ in tile_logits(method, backbone, tiles, offsets)]
        found = np.concatenate(logits)
        mask, valid = (np.concatenate([marks[o][i] for o in offsets]) for i in (0, 1))
        return [dice(found + by >= 0, mask, valid) for by in RAISES]


def plane_statistics(
    method: Method, backbone: Backbone, encoder: TaskEncoder, example: Example, scaling: Scaling
) -> tuple[PlaneEmbedding, TaskStatistics]:
    """An example's embedding, and what the task encoder wants to know of all its tiles."""
    size = backbone.input_size
    scale = scaling.scale_for(example.image.shape, size)
    plane = embed_plane(method, backbone, example.image, scaling)

    def of_tile(number: int) -> TaskStatistics:
        view = plain_view(example, size, scale, plane.offsets[number])
        marks = (torch.from_numpy(m)[None, None].float() for m in (view.mask, view.valid))
        mask, valid = (m.to(backbone.device) for m in marks)
        tile = tuple(level[number : number + 1] for level in plane.tiles)
        with torch.inference_mode(), computing(backbone.device):
            return encoder.statistics(tile, mask, valid)

    total = of_tile(0)
    for number in range(1, len(plane.offsets)):
        total = total + of_tile(number)
    return plane, total
