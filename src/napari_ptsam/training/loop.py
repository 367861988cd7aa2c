"""The training loop: examples in, steps out, the trained method at the end.

A run is a generator, so that a command line can draw a bar from it, a window
can stop it between two steps, and a test can look at each. What a step does
depends on the seed and the step's number alone; a run that was killed and goes
on from its checkpoint ends with the same numbers as one that was not.
"""

from __future__ import annotations

import itertools
import time
from collections.abc import Callable, Generator, Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from napari_ptsam.backbones.backbone import Backbone, resize_logits
from napari_ptsam.devices import computing
from napari_ptsam.errors import TrainingError
from napari_ptsam.examples import Example
from napari_ptsam.methods.base import Method
from napari_ptsam.tiling import Scaling
from napari_ptsam.training.checkpoint import Checkpoint, PhaseEnd, RunState
from napari_ptsam.training.heldout import HeldOut, split_examples
from napari_ptsam.training.losses import ptsam_loss
from napari_ptsam.training.presets import TrainingPlan
from napari_ptsam.training.start import TaskStart
from napari_ptsam.training.views import FreshViews, Job, KeptViews

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
        ``embed``: images are being encoded; ``train``: prompts are trained, held-out examples
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
        If there is nothing to learn from, the loss is not a number, or the checkpoint is
        damaged or another run's.
    OutOfMemoryError
        If the device's memory is full.
    """
    _check(examples)
    job = Job(method.to(backbone.device), backbone, plan, scaling)
    kept = Checkpoint(checkpoint, job, examples)
    run = _Run(job, kept)
    training, held = split_examples(examples, plan.held_out, plan.seed)
    fresh = method.tensors()
    if kept.trained is None:
        end = yield from run.phase("train", training, held, plan.steps)
    else:
        end = kept.trained
    result = TrainResult(end.dice, tuple(e.key for e in held), end.step, end.loss)
    if plan.refit and held:
        kept.trained = end
        method.load_tensors(fresh)
        try:
            final = yield from run.phase("refit", list(examples), [], end.step)
        except BaseException:
            # Half a refit is worse than what it was to improve on.
            method.load_tensors(end.tensors)
            raise
        result = replace(result, final_loss=final.loss)
    return result


def _check(examples: Sequence[Example]) -> None:
    if not examples:
        raise TrainingError("There is no annotated image to train on; paint at least one mask.")
    if not any((e.mask & e.valid).any() for e in examples):
        raise TrainingError(
            f"None of the {len(examples)} annotated images shows the object, so there is nothing "
            "to learn. Paint the object in at least one, or check which label is the object."
        )


class _Run:
    """What the phases of one run share."""

    def __init__(self, job: Job, checkpoint: Checkpoint) -> None:
        self.job = job
        self.checkpoint = checkpoint
        self.started = time.perf_counter()
        size = job.backbone.input_size
        self.loss_size = size if job.plan.full_resolution_loss else min(LOSS_SIZE, size)

    def phase(
        self, name: Phase, training: list[Example], held: list[Example], steps: int
    ) -> Generator[TrainStep, None, PhaseEnd]:
        """One training from the method's present numbers; leaves the best in the method."""
        job, plan = self.job, self.job.plan
        optimiser = torch.optim.AdamW(
            job.method.parameters(), lr=plan.learning_rate, weight_decay=plan.weight_decay
        )
        resumed = self.checkpoint.resume(name, job.method, optimiser)
        state = resumed or RunState()
        feed = _feed(job, training, steps)
        looks = HeldOut(job, held)
        try:
            start = TaskStart(job, [] if resumed else training)
            yield from self._prepare(start, feed, looks)
            yield from self._steps(name, feed, looks, optimiser, state, steps)
        finally:
            # Also when the user stops: what is kept is the best so far.
            if state.best is not None:
                job.method.load_tensors(state.best)
        loss = float(np.mean(state.losses))
        return PhaseEnd(state.best_dice, state.best_step or state.step, loss, job.method.tensors())

    def _prepare(
        self, start: TaskStart, feed: FreshViews, looks: HeldOut
    ) -> Generator[TrainStep, None, None]:
        """Everything that is encoded before the first step."""
        total, done = start.count + feed.count + looks.count, 0
        added: Iterator[int] = itertools.chain(start.fill(), feed.fill(), looks.fill())
        for count in added:
            done += count
            yield TrainStep("embed", done, total, float("nan"), None, self._seconds())

    def _steps(
        self,
        name: Phase,
        feed: FreshViews,
        looks: HeldOut,
        optimiser: torch.optim.Optimizer,
        state: RunState,
        steps: int,
    ) -> Generator[TrainStep, None, None]:
        plan, saved = self.job.plan, time.perf_counter()
        while state.step < steps and state.looks_since_best < plan.patience:
            rate = plan.learning_rate * (1 + np.cos(np.pi * state.step / steps)) / 2
            for group in optimiser.param_groups:
                group["lr"] = float(rate)
            loss = self._step(feed, optimiser, state.step)
            state.losses = [*state.losses[-19:], loss]
            state.step += 1
            score = None
            if looks.examples and (state.step % plan.evaluate_every == 0 or state.step == steps):
                score = looks.dice()
                state.note(score, self.job.method.tensors())
            if time.perf_counter() - saved > CHECKPOINT_SECONDS:
                self.checkpoint.save(name, self.job.method, optimiser, state)
                saved = time.perf_counter()
            yield TrainStep(name, state.step, steps, loss, score, self._seconds())

    def _step(self, feed: FreshViews, optimiser: torch.optim.Optimizer, step: int) -> float:
        method, backbone = self.job.method, self.job.backbone
        with computing(backbone.device):
            batch = feed.batch(step)
            logits = resize_logits(method.decode(backbone, batch.embedding), self.loss_size)
            valid = _at(batch.valid, self.loss_size)
            # Averaged over the valid pixels alone: what is ignored may hold anything.
            mask = _at(batch.mask * batch.valid, self.loss_size) / valid.clamp(min=0.5)
            loss = ptsam_loss(logits, mask, valid > 0.5)
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

    def _seconds(self) -> float:
        return time.perf_counter() - self.started


def _feed(job: Job, examples: Sequence[Example], steps: int) -> FreshViews:
    """Kept views where the method works on embeddings and the plan keeps some."""
    views = job.plan.views_per_image
    if views is not None and job.method.works_on_embeddings:
        return KeptViews(job, examples, views, steps)
    return FreshViews(job, examples)


def _at(masks: Tensor, size: int) -> Tensor:
    """Masks at the size at which they are compared: areas are averaged."""
    if masks.shape[-1] == size:
        return masks
    return torch.nn.functional.adaptive_avg_pool2d(masks, size)
