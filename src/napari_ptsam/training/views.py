"""Training views: drawn anew at each step, or encoded once and kept."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from napari_ptsam.backbones.backbone import Backbone, Embedding
from napari_ptsam.devices import computing
from napari_ptsam.examples import Example
from napari_ptsam.methods.base import Method
from napari_ptsam.predict import view_tensors
from napari_ptsam.tiling import Scaling
from napari_ptsam.training.augment import random_view
from napari_ptsam.training.presets import TrainingPlan
from napari_ptsam.views import View, prefilter

ENCODED_AT_ONCE = 4


@dataclass(frozen=True)
class WarmStart:
    """Numbers that a run goes on from.

    Attributes
    ----------
    tensors
        The method's.
    seen
        `Example.image_digest` of the images that they were learned from: these are no test of
        what is learned from here on, and never held out.
    """

    tensors: dict[str, Tensor]
    seen: frozenset[str]


@dataclass(frozen=True)
class Job:
    """What a run trains, on which backbone, how, at what scale, and from where."""

    method: Method
    backbone: Backbone
    plan: TrainingPlan
    scaling: Scaling
    start: WarmStart | None = None


@dataclass(frozen=True)
class Batch:
    """What one step learns from.

    Attributes
    ----------
    embedding
        Of B views.
    mask, valid
        Bx1xSxS float, 1 where the object is and where pixels count.
    names
        Of the B objects, see `Example`.
    """

    embedding: Embedding
    mask: Tensor
    valid: Tensor
    names: Sequence[str]


class FreshViews:
    """A new augmented view for every use, encoded each time."""

    def __init__(self, job: Job, examples: Sequence[Example]) -> None:
        self.job = job
        size = job.backbone.input_size
        self.digests = [int(e.image_digest, 16) for e in examples]
        self.scales = [job.scaling.scale_for(e.image.shape, size) for e in examples]
        self.examples = [
            replace(e, image=prefilter(e.image, s))
            for e, s in zip(examples, self.scales, strict=True)
        ]

    @property
    def count(self) -> int:
        """How many views `fill` encodes."""
        return 0

    def fill(self) -> Iterator[int]:
        """Encode what can be encoded ahead; yields how many views were added."""
        yield from ()

    def batch(self, step: int) -> Batch:
        """Views of a step; they depend on the plan's seed and the step alone."""
        rng = self._rng(step)
        drawn = self._draw(rng)
        views = [self._view(i, rng) for i in drawn]
        images = view_tensors(self.job.backbone, views)
        return self._batch(self._encoded(images), [_marks(v) for v in views], drawn)

    def _encoded(self, images: Tensor) -> Embedding:
        """Of a step's inputs; found again where another method was shown the same views."""
        method, backbone = self.job.method, self.job.backbone
        if not method.works_on_embeddings:
            return method.encode(backbone, images)
        with torch.inference_mode():
            embedding = method.encode(backbone, images)
        # A copy made outside is no tensor of inference, and gradients may pass by it.
        return tuple(level.clone() for level in embedding)

    def _rng(self, step: int) -> np.random.Generator:
        return np.random.default_rng([self.job.plan.seed, 1, step])

    def _draw(self, rng: np.random.Generator) -> list[int]:
        """Examples of a batch: different ones as long as there are enough."""
        wanted, available = self.job.plan.batch_size, len(self.examples)
        return [int(i) for i in rng.choice(available, wanted, replace=wanted > available)]

    def _view(self, index: int, rng: np.random.Generator) -> View:
        return random_view(
            self.examples[index],
            self.job.backbone.input_size,
            self.scales[index],
            self.job.plan.augmentation,
            rng,
        )

    def _batch(
        self, embedding: Embedding, marks: Sequence[NDArray[np.bool_]], drawn: Sequence[int]
    ) -> Batch:
        """Batch from the embedding, the 2xSxS marks, and the example numbers of its views."""
        both = torch.from_numpy(np.stack(marks)).to(self.job.backbone.device).float()
        names = [self.examples[i].name for i in drawn]
        return Batch(embedding, both[:, :1], both[:, 1:], names)


@dataclass(frozen=True)
class _Kept:
    """An encoded view: its embedding in 16 bits, its marks with 8 pixels to a byte."""

    embedding: Embedding
    marks: NDArray[np.uint8]


class KeptViews(FreshViews):
    """A bank of views that are encoded once: all that decoder prompts need.

    Parameters
    ----------
    views_per_image
        Size of the bank for each example. Of it, only the views that `steps` steps draw are
        encoded and kept, so that many examples cost no more than the run has use for.
    """

    def __init__(
        self, job: Job, examples: Sequence[Example], views_per_image: int, steps: int
    ) -> None:
        super().__init__(job, examples)
        self.per_image = views_per_image
        self.numbers = sorted({n for step in range(steps) for n in self._drawn(step)})
        self.kept: dict[int, _Kept] = {}

    @property
    def count(self) -> int:
        """How many views `fill` encodes."""
        return len(self.numbers)

    def fill(self) -> Iterator[int]:
        """Encode the bank; yields how many views were added."""
        # A CPU gains nothing from several at once, and there an embedding shall not depend on
        # which other views were still to be encoded.
        at_once = 1 if self.job.backbone.device.type == "cpu" else ENCODED_AT_ONCE
        for start in range(0, self.count, at_once):
            numbers = self.numbers[start : start + at_once]
            self._keep(numbers, [self._numbered(n) for n in numbers])
            yield len(numbers)

    def batch(self, step: int) -> Batch:
        """Views of a step; they depend on the plan's seed and the step alone."""
        drawn = self._drawn(step)
        chosen = [self.kept[n] for n in drawn]
        device, size = self.job.backbone.device, self.job.backbone.input_size
        levels = zip(*(kept.embedding for kept in chosen), strict=True)
        embedding = tuple(torch.stack(level).to(device).float() for level in levels)
        unpacked = (np.unpackbits(kept.marks, axis=-1, count=size) for kept in chosen)
        examples = [n // self.per_image for n in drawn]
        return self._batch(embedding, [marks.astype(bool) for marks in unpacked], examples)

    def _drawn(self, step: int) -> list[int]:
        """Numbers in the bank of a step's views."""
        rng = self._rng(step)
        return [i * self.per_image + int(rng.integers(self.per_image)) for i in self._draw(rng)]

    def _numbered(self, number: int) -> View:
        index, which = divmod(number, self.per_image)
        # By content and not by position: an image keeps its views when others join it.
        rng = np.random.default_rng([self.job.plan.seed, 2, which, self.digests[index]])
        return self._view(index, rng)

    def _keep(self, numbers: Sequence[int], views: Sequence[View]) -> None:
        backbone = self.job.backbone
        with torch.inference_mode(), computing(backbone.device):
            encoded = self.job.method.encode(backbone, view_tensors(backbone, views))
            half = tuple(level.half().cpu() for level in encoded)
        for i, (number, view) in enumerate(zip(numbers, views, strict=True)):
            embedding = tuple(level[i] for level in half)
            self.kept[number] = _Kept(embedding, np.packbits(_marks(view), axis=-1))


def _marks(view: View) -> NDArray[np.bool_]:
    """Mask and valid pixels, 2xSxS."""
    return np.stack([view.mask, view.valid])
