"""The training loop: examples in, steps out, the trained method at the end.

A run is a generator, so that a command line can draw a bar from it, a window
can stop it between two steps, and a test can look at each. What a step does
depends on the seed and the step's number alone; a run that was killed and goes
on from its checkpoint ends with the same numbers as one that was not.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Generator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from napari_ptsam.backbones.backbone import Backbone, Embedding, resize_logits
from napari_ptsam.devices import computing
from napari_ptsam.errors import TrainingError
from napari_ptsam.examples import Example
from napari_ptsam.methods.base import Method
from napari_ptsam.metrics import dice
from napari_ptsam.predict import PlaneEmbedding, decode_plane, embed_plane, view_tensors
from napari_ptsam.tiling import Scaling
from napari_ptsam.training.augment import random_view
from napari_ptsam.training.checkpoint import Checkpoint, RunState
from napari_ptsam.training.losses import ptsam_loss
from napari_ptsam.training.presets import TrainingPlan
from napari_ptsam.views import View, plain_view, prefilter

LOSS_SIZE = 256
"""Side in pixels at which masks are compared, unless the plan asks for the model's own."""

CHECKPOINT_SECONDS = 10.0

Phase = Literal["embed", "train", "refit"]


@dataclass(frozen=True)
class TrainStep:
    """One step of a run.

    Attributes
    ----------
    phase
        ``embed``: views are being encoded; ``train``: prompts are trained, held-out examples
        decide when to stop; ``refit``: trained once more on all examples.
    step, steps
        Number of the step in its phase, from 1, and how many there will be at most.
    loss
        Training loss of the step; NaN in the phase ``embed``.
    held_out_dice
        Mean Dice of the held-out examples (0..1) when they were looked at in this step.
    seconds
        Since the run started.
    preview
        Where a specialist is trained: its `predict` with the numbers of this moment, to be
        called before the next step.
    """

    phase: Phase
    step: int
    steps: int
    loss: float
    held_out_dice: float | None
    seconds: float
    preview: Callable[[NDArray[Any]], Any] | None = field(default=None, compare=False, repr=False)


@dataclass(frozen=True)
class TrainResult:
    """What a run found.

    Attributes
    ----------
    held_out_dice
        Best mean Dice (0..1) of the held-out examples, None where none were held out.
    held_out
        Keys of those examples.
    steps
        Steps behind the final numbers.
    final_loss
        Mean loss of the last 20 steps.
    """

    held_out_dice: float | None
    held_out: tuple[str, ...]
    steps: int
    final_loss: float


def split_examples(
    examples: Sequence[Example], share: float, seed: int
) -> tuple[list[Example], list[Example]]:
    """Training and held-out examples; at least three are needed before any is held out.

    Held-out examples are drawn from those that show the object, if enough do: an empty image
    says little about the Dice to expect.
    """
    count = round(len(examples) * share)
    if share > 0 and len(examples) >= 3:
        count = max(count, 1)
    if count == 0 or len(examples) < 3:
        return list(examples), []
    order = np.random.default_rng([seed, 0x401D]).permutation(len(examples))
    shown = sorted(order, key=lambda i: not examples[i].mask.any())
    held = set(shown[:count])
    return (
        [e for i, e in enumerate(examples) if i not in held],
        [e for i, e in enumerate(examples) if i in held],
    )


def train(
    method: Method,
    backbone: Backbone,
    examples: Sequence[Example],
    plan: TrainingPlan,
    scaling: Scaling,
    checkpoint: Path | None = None,
) -> Generator[TrainStep, None, TrainResult]:
    """Train a method in place.

    Parameters
    ----------
    method
        Fresh; holds the trained numbers at the end, and the best so far whenever the
        generator is closed early.
    checkpoint
        File that the run is saved to every few seconds, and goes on from when it is there.
        Removed by the caller when the run is over.

    Raises
    ------
    TrainingError
        If there is nothing to learn from, or the loss is not a number.
    OutOfMemoryError
        If the device's memory is full.
    """
    _check(examples)
    run = _Run(method, backbone, plan, scaling, Checkpoint(checkpoint, plan, examples))
    training, held = split_examples(examples, plan.held_out, plan.seed)
    if plan.start_from_examples:
        start_from_examples(method, backbone, training, scaling)
    start = method.tensors()
    best = yield from run.phase("train", training, held, plan.steps)
    result = TrainResult(best.dice, tuple(e.key for e in held), best.step, best.loss)
    if plan.refit and held:
        method.load_tensors(start)
        if plan.start_from_examples:
            start_from_examples(method, backbone, examples, scaling)
        final = yield from run.phase("refit", list(examples), [], best.step)
        result = replace(result, final_loss=final.loss)
    return result


def start_from_examples(
    method: Method, backbone: Backbone, examples: Sequence[Example], scaling: Scaling
) -> None:
    """Let the backbone's task encoder, if it has one, make the first decoder prompts."""
    encoder = backbone.task_encoder
    if encoder is None or not method.starts_from_prompts:
        return
    size, statistics = backbone.input_size, []
    for example in examples:
        scale = scaling.scale_for(example.image.shape, size)
        plane = embed_plane(method, backbone, example.image, scaling)
        for i, offset in enumerate(plane.offsets):
            view = plain_view(example, size, scale, offset)
            mask, valid = _targets([view], backbone.device)
            with torch.inference_mode():
                tile = tuple(level[i : i + 1] for level in plane.tiles)
                statistics.append(encoder.statistics(tile, mask.float(), valid.float()))
    with torch.inference_mode():
        method.start_from(encoder(torch.cat(statistics)[None])[0])


def _check(examples: Sequence[Example]) -> None:
    if not examples:
        raise TrainingError("There is no annotated image to train on; paint at least one mask.")
    if not any((e.mask & e.valid).any() for e in examples):
        raise TrainingError(
            f"None of the {len(examples)} annotated images shows the object, so there is nothing "
            "to learn. Paint the object in at least one, or check which label is the object."
        )


@dataclass
class _Best:
    """The state that counts at the end of a phase."""

    dice: float | None
    step: int
    loss: float


class _Run:
    """What the phases of one run share."""

    def __init__(
        self,
        method: Method,
        backbone: Backbone,
        plan: TrainingPlan,
        scaling: Scaling,
        checkpoint: Checkpoint,
    ) -> None:
        self.method = method.to(backbone.device)
        self.backbone = backbone
        self.plan = plan
        self.scaling = scaling
        self.checkpoint = checkpoint
        self.started = time.perf_counter()
        self.loss_size = (
            backbone.input_size
            if plan.full_resolution_loss
            else min(LOSS_SIZE, backbone.input_size)
        )

    def phase(
        self, name: Phase, training: list[Example], held: list[Example], steps: int
    ) -> Generator[TrainStep, None, _Best]:
        """One training from the method's present numbers; leaves the best in the method."""
        feed: _FreshViews | _KeptViews
        if self.method.works_on_embeddings and self.plan.views_per_image is not None:
            feed = _KeptViews(self, training, self.plan.views_per_image)
            yield from self._fill(feed)
        else:
            feed = _FreshViews(self, training)
        looks = [self._embed(e) for e in held] if self.method.works_on_embeddings else []
        optimiser = torch.optim.AdamW(
            self.method.parameters(),
            lr=self.plan.learning_rate,
            weight_decay=self.plan.weight_decay,
        )
        state = self.checkpoint.resume(name, self.method, optimiser) or RunState()
        saved = time.perf_counter()
        try:
            for step in range(state.step, steps):
                rate = self.plan.learning_rate * (1 + np.cos(np.pi * step / steps)) / 2
                loss = self._step(feed, optimiser, float(rate), step)
                state.losses = [*state.losses[-19:], loss]
                state.step = step + 1
                score = self._look(held, looks, step + 1, steps)
                if score is not None:
                    state.note(score, self.method.tensors())
                if time.perf_counter() - saved > CHECKPOINT_SECONDS:
                    self.checkpoint.save(name, self.method, optimiser, state)
                    saved = time.perf_counter()
                yield TrainStep(name, step + 1, steps, loss, score, self._seconds())
                if state.looks_since_best >= self.plan.patience:
                    break
        finally:
            # Also when the user stops: what is kept is the best so far.
            if state.best is not None:
                self.method.load_tensors(state.best)
        final = float(np.mean(state.losses)) if state.losses else float("nan")
        return _Best(state.best_dice, state.best_step or state.step, final)

    def _fill(self, feed: _KeptViews) -> Generator[TrainStep, None, None]:
        for done in feed.fill():
            yield TrainStep("embed", done, feed.count, float("nan"), None, self._seconds())

    def _step(
        self,
        feed: _FreshViews | _KeptViews,
        optimiser: torch.optim.Optimizer,
        rate: float,
        step: int,
    ) -> float:
        for group in optimiser.param_groups:
            group["lr"] = rate
        with computing(self.backbone.device):
            embedding, views = feed.batch(np.random.default_rng([self.plan.seed, 1, step]))
            logits = resize_logits(self.method.decode(self.backbone, embedding), self.loss_size)
            mask, valid = _targets(views, self.backbone.device)
            loss = ptsam_loss(logits, _at(mask, self.loss_size), _at(valid, self.loss_size) > 0.5)
            optimiser.zero_grad(set_to_none=True)
            loss.backward()
            optimiser.step()
        value = float(loss.detach())
        if not np.isfinite(value):
            raise TrainingError(
                f"The loss became {value} at step {step + 1}. Train again with a lower learning "
                "rate; if it happens again, please report it with the prompt file's record."
            )
        return value

    def _look(
        self, held: list[Example], looks: list[PlaneEmbedding], step: int, steps: int
    ) -> float | None:
        """Mean Dice of the held-out examples when it is time for it."""
        if not held or (step % self.plan.evaluate_every and step != steps):
            return None
        planes = looks or [self._embed(e) for e in held]
        scores = []
        for example, plane in zip(held, planes, strict=True):
            probability = decode_plane(self.method, self.backbone, plane)
            scores.append(dice(probability >= 0.5, example.mask, example.valid))
        return float(np.mean(scores))

    def _embed(self, example: Example) -> PlaneEmbedding:
        return embed_plane(self.method, self.backbone, example.image, self.scaling)

    def _seconds(self) -> float:
        return time.perf_counter() - self.started


class _Views:
    """Augmented views of the training examples."""

    def __init__(self, run: _Run, examples: list[Example]) -> None:
        self.run = run
        size = run.backbone.input_size
        self.scales = [run.scaling.scale_for(e.image.shape, size) for e in examples]
        self.examples = [
            replace(e, image=prefilter(e.image, s))
            for e, s in zip(examples, self.scales, strict=True)
        ]

    def view(self, index: int, rng: np.random.Generator) -> View:
        return random_view(
            self.examples[index],
            self.run.backbone.input_size,
            self.scales[index],
            self.run.plan.augmentation,
            rng,
        )

    def draw(self, rng: np.random.Generator) -> list[int]:
        """Examples of a batch: different ones as long as there are enough."""
        wanted, available = self.run.plan.batch_size, len(self.examples)
        return [int(i) for i in rng.choice(available, wanted, replace=wanted > available)]


class _FreshViews(_Views):
    """A new view for every use, encoded each time."""

    def batch(self, rng: np.random.Generator) -> tuple[Embedding, list[View]]:
        views = [self.view(i, rng) for i in self.draw(rng)]
        images = view_tensors(self.run.backbone, views)
        return self.run.method.encode(self.run.backbone, images), views


class _KeptViews(_Views):
    """A bank of views that are encoded once: all that decoder prompts need."""

    def __init__(self, run: _Run, examples: list[Example], views_per_image: int) -> None:
        super().__init__(run, examples)
        self.per_image = views_per_image
        self.count = len(examples) * views_per_image
        self.kept: list[tuple[Embedding, View]] = []

    def fill(self) -> Generator[int, None, None]:
        """Encode the bank; yields how many views are done."""
        backbone, batch = self.run.backbone, 4
        for start in range(0, self.count, batch):
            numbers = range(start, min(start + batch, self.count))
            views = [self._numbered(n) for n in numbers]
            with torch.inference_mode(), computing(backbone.device):
                encoded = self.run.method.encode(backbone, view_tensors(backbone, views))
                half = tuple(level.half().cpu() for level in encoded)
            for i, view in enumerate(views):
                # The image has done its work; masks are small.
                light = replace(view, image=np.empty((0, 0, 3), np.float32))
                self.kept.append((tuple(level[i] for level in half), light))
            yield numbers[-1] + 1

    def _numbered(self, number: int) -> View:
        seed = [self.run.plan.seed, 2, number]
        return self.view(number // self.per_image, np.random.default_rng(seed))

    def batch(self, rng: np.random.Generator) -> tuple[Embedding, list[View]]:
        chosen = [
            self.kept[i * self.per_image + int(rng.integers(self.per_image))]
            for i in self.draw(rng)
        ]
        levels = zip(*(embedding for embedding, _ in chosen), strict=True)
        device = self.run.backbone.device
        embedding = tuple(torch.stack(level).to(device).float() for level in levels)
        return embedding, [view for _, view in chosen]


def _targets(views: Sequence[View], device: torch.device) -> tuple[Tensor, Tensor]:
    """Masks and valid pixels, Bx1xSxS float."""
    mask = torch.stack([torch.from_numpy(v.mask) for v in views])[:, None]
    valid = torch.stack([torch.from_numpy(v.valid) for v in views])[:, None]
    return mask.float().to(device), valid.float().to(device)


def _at(masks: Tensor, size: int) -> Tensor:
    """Masks at the size at which they are compared: areas are averaged."""
    if masks.shape[-1] == size:
        return masks
    return torch.nn.functional.adaptive_avg_pool2d(masks, size)
