"""The training loop: examples in, steps out, the trained method at the end.

A run is a generator, so that a command line can draw a bar from it, a window
can stop it between two steps, and a test can look at each. What a step does
depends on the seed and the step's number alone; a run that was killed and goes
on from its checkpoint ends with the same numbers as one that was not.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Generator, Iterator, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from napari_ptsam.backbones.backbone import Backbone, resize_logits
from napari_ptsam.devices import computing
from napari_ptsam.embeddings import recalling
from napari_ptsam.errors import TrainingError
from napari_ptsam.examples import Example
from napari_ptsam.methods.base import Method
from napari_ptsam.tiling import Scaling
from napari_ptsam.training.checkpoint import Checkpoint, PhaseEnd, RunState
from napari_ptsam.training.heldout import HeldOut, split_examples
from napari_ptsam.training.losses import ptsam_loss
from napari_ptsam.training.presets import TrainingPlan
from napari_ptsam.training.start import TaskStart
from napari_ptsam.training.steps import Phase, RunContext, TrainResult, TrainStep
from napari_ptsam.training.views import FreshViews, Job, KeptViews, WarmStart

LOSS_SIZE = 256
"""Side in pixels at which masks are compared, unless the plan asks for the model's own."""

CHECKPOINT_SECONDS = 10.0

STARTED_RATE = 0.3
"""Learning rate after a start made of examples, as a share of the plan's, which is for random
numbers: AdamW's first steps would undo what it has."""


def train(
    method: Method,
    backbone: Backbone,
    examples: Sequence[Example],
    plan: TrainingPlan,
    scaling: Scaling,
    checkpoint: Path | None = None,
    context: RunContext | None = None,
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
    context
        Where to start from, what to reuse and when to stop.

    Raises
    ------
    TrainingError
        If there is nothing to learn from, the loss is not a number, the checkpoint is damaged
        or another run's, or the run was stopped before its first step.
    OutOfMemoryError
        If the device's memory is full.
    """
    _check(examples)
    context = context or RunContext()
    start = context.start
    context.embeddings.new_run()
    backbone = recalling(method, backbone, context.embeddings)
    job = Job(method.to(backbone.device), backbone, plan, scaling, start)
    run = _Run(job, Checkpoint(checkpoint, job, examples), context.should_stop)
    seen = frozenset[str]() if start is None else start.seen
    training, held = split_examples(examples, plan.held_out, plan.seed, seen)
    if start is not None:
        method.load_tensors(start.tensors)
    fresh = method.tensors()
    end = run.checkpoint.trained
    if end is None:
        end = yield from run.phase("train", training, held, plan.steps)
        if np.isnan(end.loss):
            raise TrainingError(
                "The training was stopped before its first step, so there is nothing to keep."
            )
        yield from run.settle(training)
        end = replace(end, tensors=method.tensors())
    loss, learned = end.loss, seen.union(e.image_digest for e in training)
    continuation = WarmStart(end.tensors, learned)
    # A start made of examples is better made of all; numbers gone on from are what they are.
    if plan.refit and held and (end.step > 0 or start is None) and not run.stopped:
        again = yield from _refit(run, list(examples), end, fresh)
        if again is not None:
            loss = again.loss if again.step else loss
            learned = learned.union(e.image_digest for e in examples)
            yield from run.settle(examples)
    return TrainResult(
        held_out_dice=end.dice,
        held_out=tuple(e.key for e in held),
        steps=end.step,
        final_loss=loss,
        stopped=run.stopped,
        continuation=continuation,
        learned_from=tuple(sorted(learned)),
    )


def _refit(
    run: _Run, examples: list[Example], best: PhaseEnd, fresh: dict[str, Tensor]
) -> Generator[TrainStep, None, PhaseEnd | None]:
    """Train once more on all examples; None when stopped, with the best in the method again."""
    method = run.job.method
    run.checkpoint.trained = best
    method.load_tensors(fresh)
    end = None
    try:
        end = yield from run.phase("refit", examples, [], best.step)
    finally:
        if end is None or run.stopped:
            # Half a refit is worse than what it was to improve on.
            method.load_tensors(best.tensors)
    return None if run.stopped else end


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

    def __init__(self, job: Job, checkpoint: Checkpoint, should_stop: Callable[[], bool]) -> None:
        self.job = job
        self.stopped = False
        self._should_stop = should_stop
        self.checkpoint = checkpoint
        self.started = time.perf_counter()
        size = job.backbone.input_size
        self.loss_size = size if job.plan.full_resolution_loss else min(LOSS_SIZE, size)

    def phase(
        self, name: Phase, training: list[Example], held: list[Example], steps: int
    ) -> Generator[TrainStep, None, PhaseEnd]:
        """One training from the method's present numbers; leaves the best in the method."""
        job, plan = self.job, self.job.plan
        start = TaskStart(job, training)
        rate = plan.learning_rate * (STARTED_RATE if start.count else 1.0)
        optimiser = torch.optim.AdamW(
            job.method.parameters(), lr=rate, weight_decay=plan.weight_decay
        )
        resumed = self.checkpoint.resume(name, job.method, optimiser)
        state = resumed or RunState()
        feed = _feed(job, training, steps)
        looks = HeldOut(job, held)
        try:
            known = resumed is not None or job.start is not None
            if resumed is not None:
                start = TaskStart(job, [])
            yield from self._prepare(start, feed, looks, known)
            if (known or start.count) and not resumed and looks.examples and not self.stopped:
                # What it goes on or starts from may be the best already.
                state.note(looks.dice(), job.method.tensors())
            yield from self._steps(name, feed, looks, optimiser, rate, state, steps)
        finally:
            # Also when the user stops: what is kept is the best so far.
            if state.best is not None:
                job.method.load_tensors(state.best)
        loss = float(np.mean(state.losses)) if state.losses else float("nan")
        step = state.step if state.best_step is None else state.best_step
        return PhaseEnd(state.best_dice, step, loss, job.method.tensors())

    def settle(self, examples: Sequence[Example]) -> Generator[TrainStep, None, None]:
        """What follows the last step of a run that started from examples, if nobody stopped it."""
        start = TaskStart(self.job, [] if self.stopped else examples)
        for done, _ in enumerate(start.raise_logits(), start=1):
            yield TrainStep("embed", done, start.raised, float("nan"), None, self._seconds(), True)
            if self._stop():
                return

    def _prepare(
        self, start: TaskStart, feed: FreshViews, looks: HeldOut, known: bool
    ) -> Generator[TrainStep, None, None]:
        """Everything that is encoded before the first step.

        `known` tells whether the method's numbers have seen examples before.
        """
        total, done = start.count + feed.count + looks.count, 0
        # One after the other: the start is made once the last example was looked at.
        known = known or start.count > 0
        for part, ready in ((start, False), (feed, known), (looks, known)):
            added: Iterator[int] = part.fill()
            for count in added:
                done += count
                yield TrainStep("embed", done, total, float("nan"), None, self._seconds(), ready)
                if self._stop():
                    return

    def _steps(
        self,
        name: Phase,
        feed: FreshViews,
        looks: HeldOut,
        optimiser: torch.optim.Optimizer,
        first_rate: float,
        state: RunState,
        steps: int,
    ) -> Generator[TrainStep, None, None]:
        plan, saved = self.job.plan, time.perf_counter()
        while state.step < steps and state.looks_since_best < plan.patience and not self._stop():
            rate = first_rate * (1 + np.cos(np.pi * state.step / steps)) / 2
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
        if self.stopped and state.step % plan.evaluate_every and state.losses and looks.examples:
            # The numbers of this moment were not looked at yet, and may be the best.
            state.note(looks.dice(), self.job.method.tensors())

    def _step(self, feed: FreshViews, optimiser: torch.optim.Optimizer, step: int) -> float:
        method, backbone = self.job.method, self.job.backbone
        with computing(backbone.device):
            batch = feed.batch(step)
            logits = method.decode_named(backbone, batch.embedding, batch.names)
            logits = resize_logits(logits, self.loss_size)
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

    def _stop(self) -> bool:
        self.stopped = self.stopped or self._should_stop()
        return self.stopped

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
