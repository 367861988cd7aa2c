"""Examples kept out of training: when to stop, and what Dice to expect."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace

import numpy as np

from napari_ptsam.examples import Example
from napari_ptsam.metrics import dice
from napari_ptsam.predict import PlaneEmbedding, decode_plane, embed_plane
from napari_ptsam.training.views import Job


def split_examples(
    examples: Sequence[Example],
    share: float,
    seed: int,
    seen: frozenset[str] = frozenset(),
) -> tuple[list[Example], list[Example]]:
    """Training and held-out examples; at least three are needed before any is held out.

    Held-out examples all show the object: on an empty image the Dice is 1 or 0, and best where
    nothing is found anywhere. One that shows it always stays in training.

    Parameters
    ----------
    share
        How much to hold out, 0..1.
    seed
        Decides which.
    seen
        `Example.image_digest` of images that training starts with knowledge of.
    """
    if any(e.name for e in examples):
        return _split_images(examples, share, seed, seen)
    if share == 0 or len(examples) < 3:
        return list(examples), []
    order = np.random.default_rng([seed, 0x401D]).permutation(len(examples))
    showing = [i for i in order if (examples[i].mask & examples[i].valid).any()]
    count = min(max(round(len(examples) * share), 1), len(showing) - 1)
    unseen = [i for i in showing if examples[i].image_digest not in seen] if seen else showing
    held = set(unseen[: max(count, 0)])
    return (
        [e for i, e in enumerate(examples) if i not in held],
        [e for i, e in enumerate(examples) if i in held],
    )


def _split_images(
    examples: Sequence[Example], share: float, seed: int, seen: frozenset[str]
) -> tuple[list[Example], list[Example]]:
    """As above where an image comes with several objects: it is held out with all of them."""
    firsts = list({e.image_digest: e for e in examples}.values())
    showing = {e.image_digest for e in examples if (e.mask & e.valid).any()}
    whole = [replace(e, name="", mask=e.valid & (e.image_digest in showing)) for e in firsts]
    _, held = split_examples(whole, share, seed, seen)
    images = {e.image_digest for e in held}
    return (
        [e for e in examples if e.image_digest not in images],
        [e for e in examples if e.image_digest in images and (e.mask & e.valid).any()],
    )


class HeldOut:
    """Held-out examples, embedded once where the method allows it."""

    def __init__(self, job: Job, examples: Sequence[Example]) -> None:
        self.job = job
        self.examples = examples
        self.kept: list[PlaneEmbedding] = []

    @property
    def count(self) -> int:
        """How many planes `fill` embeds."""
        return len(self.examples) if self.job.method.works_on_embeddings else 0

    def fill(self) -> Iterator[int]:
        """Embed what can be embedded ahead; yields 1 for each plane."""
        for example in self.examples[: self.count]:
            self.kept.append(self._embed(example).compact())
            yield 1

    def dice(self) -> float:
        """Mean Dice (0..1) with the method's present numbers."""
        planes = self.kept or (self._embed(e) for e in self.examples)
        scores = []
        for example, plane in zip(self.examples, planes, strict=True):
            method = self.job.method.of(example.name)
            probability = decode_plane(method, self.job.backbone, plane)
            scores.append(dice(probability >= 0.5, example.mask, example.valid))
        return float(np.mean(scores))

    def _embed(self, example: Example) -> PlaneEmbedding:
        job = self.job
        return embed_plane(job.method, job.backbone, example.image, job.scaling)
