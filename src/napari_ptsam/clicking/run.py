"""One training from clicks: encode, learn, look at what was held out, keep the best."""

from __future__ import annotations

import time
from collections.abc import Callable, Generator, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from napari_ptsam.clicking.bank import ClickBank, instances_of
from napari_ptsam.clicking.clicker import Clicker
from napari_ptsam.clicking.lesson import Lesson
from napari_ptsam.clicking.plan import ClickPlan, ClickStep
from napari_ptsam.clicking.plane import EmbeddedPlane
from napari_ptsam.clicking.prompt import ClickPrompt, well_inside
from napari_ptsam.clicking.simulate import click_in
from napari_ptsam.devices import computing
from napari_ptsam.errors import TrainingError
from napari_ptsam.examples import Example
from napari_ptsam.methods.plm import Plm
from napari_ptsam.metrics import iou
from napari_ptsam.training.heldout import split_examples
from napari_ptsam.training.record import Circumstances, training_record
from napari_ptsam.training.start import TaskStart
from napari_ptsam.training.steps import TrainResult
from napari_ptsam.training.views import Job


@dataclass(frozen=True)
class _Looked:
    """A held-out plane, encoded, and the objects that are clicked there."""

    plane: EmbeddedPlane
    ids: NDArray[np.int32]
    chosen: NDArray[np.int32]


class ClickRun:
    """One training.

    Parameters
    ----------
    clicker
        A new specialist; its method is trained in place.
    method
        The clicker's.
    plan
        Steps, rates, losses.
    examples
        Annotated planes.
    should_stop
        Asked between steps.
    """

    def __init__(
        self,
        clicker: Clicker,
        method: Plm,
        plan: ClickPlan,
        examples: Sequence[Example],
        should_stop: Callable[[], bool],
    ) -> None:
        self.clicker, self.method, self.plan, self.examples = clicker, method, plan, examples
        self.lesson = Lesson(method, clicker.backbone, plan)
        self.should_stop, self.stopped = should_stop, False
        self.training, self.held = split_examples(examples, plan.held_out, plan.seed)
        self.served = clicker.embeddings.serve(clicker.backbone)
        self.bank = ClickBank(self.training, plan, clicker.scaling, self.served)
        self.looked: list[_Looked] = []
        self.best: tuple[float, int, dict[str, Tensor]] | None = None
        self.losses: list[float] = []
        self.started = time.perf_counter()

    def steps(self) -> Generator[ClickStep, None, None]:
        """All of it; the method holds the best numbers whenever it ends."""
        self.clicker.embeddings.new_run()
        try:
            yield from self._prepare()
            if not self.stopped and not self.bank.kept:
                raise TrainingError(
                    "No object is large enough to be clicked at this working scale. Choose a "
                    "larger scale, or check that the labels mark objects."
                )
            yield from self._train()
        finally:
            self.method.eval()
            if self.best is not None:
                self.method.load_tensors(self.best[2])
        if not self.losses:
            raise TrainingError(
                "The training was stopped before its first step, so there is nothing to keep."
            )

    def record(self, command: str) -> dict[str, Any]:
        """What the prompt file tells of the training."""
        result = TrainResult(
            held_out_dice=None,
            held_out=tuple(e.key for e in self.held),
            steps=len(self.losses) if self.best is None else self.best[1],
            final_loss=float(np.mean(self.losses[-20:])),
            stopped=self.stopped,
            learned_from=tuple(sorted(e.image_digest for e in self.training)),
        )
        around = Circumstances(seconds=time.perf_counter() - self.started, command=command)
        used = self.lesson.pmm is not None
        return training_record(self.examples, self.plan, result, around) | {
            "held_out_iou": None if self.best is None else self.best[0],
            "point_matching_module": "only in training, not in this file" if used else "not used",
        }

    def _prepare(self) -> Iterator[ClickStep]:
        """Encode everything before the first step."""
        job = Job(self.method, self.served, self.plan, self.clicker.scaling)
        learned = self.method.tokens is not None or self.method.readout is not None
        start = TaskStart(job, self.training if learned else [])
        total, done = start.count + len(self.bank.numbers) + len(self.held), 0
        for part in (start.fill(), self.bank.fill(), self._fill_held_out()):
            for count in part:
                done += count
                yield ClickStep(
                    "embed", done, total, float("nan"), None, self._seconds(), ready=False
                )
                if self._stop():
                    return

    def _fill_held_out(self) -> Iterator[int]:
        rng = np.random.default_rng([self.plan.seed, 3])
        each = max(self.plan.held_out_objects // max(len(self.held), 1), 1)
        for example in self.held:
            size = self.clicker.backbone.input_size
            plane = EmbeddedPlane.of(example.image, self.clicker.scaling, size)
            for number in range(len(plane.views)):
                plane.embedding(number, self.served)
            ids = instances_of(example)
            present = np.setdiff1d(ids[example.valid], [0])
            chosen = rng.permutation(present)[:each]
            self.looked.append(_Looked(plane, ids, chosen))
            yield 1

    def _train(self) -> Iterator[ClickStep]:
        plan, waited = self.plan, 0
        optimiser = torch.optim.AdamW(
            self.lesson.parameter_groups(), lr=plan.learning_rate, weight_decay=plan.weight_decay
        )
        if not self.stopped:
            self._look()  # what it starts from may be the best
        while len(self.losses) < plan.steps and waited < plan.patience and not self._stop():
            self._step(optimiser)
            done, score = len(self.losses), None
            if done % plan.evaluate_every == 0 or done == plan.steps:
                score = self._look()
                waited = 0 if self.best is None or self.best[1] == done else waited + 1
            yield ClickStep(
                "train",
                done,
                plan.steps,
                self.losses[-1],
                score,
                self._seconds(),
                embed=self.clicker.embed,
                preview=self.clicker.answer,
            )
        if self.stopped and len(self.losses) % plan.evaluate_every:
            self._look()

    def _step(self, optimiser: torch.optim.Optimizer) -> None:
        step, plan = len(self.losses), self.plan
        rate = plan.learning_rate * (1 + np.cos(np.pi * step / plan.steps)) / 2
        for group in optimiser.param_groups:
            group["lr"] = float(rate) * group["share"]
        rng = np.random.default_rng([plan.seed, 4, step])
        with computing(self.clicker.backbone.device):
            loss = self.lesson.loss(self.bank.view(step), rng)
            optimiser.zero_grad(set_to_none=True)
            loss.backward()
            optimiser.step()
        value = float(loss.detach())
        if not np.isfinite(value):
            raise TrainingError(
                f"The loss became {value} at step {step + 1}. Train again with a lower learning "
                "rate."
            )
        self.losses.append(value)

    def _look(self) -> float | None:
        """Mean IoU of single clicks on held-out objects; keeps the numbers if it is the best.

        Each object is clicked in the middle and once anywhere, at the same place in every look.
        """
        scores, rng = [], np.random.default_rng([self.plan.seed, 6])
        for looked in self.looked:
            for number in looked.chosen:
                truth = looked.ids == number
                for click in (well_inside(truth), click_in(truth, rng)):
                    answer = self.clicker.answer(looked.plane, ClickPrompt((click,)))
                    scores.append(iou(answer.mask, truth))
        if not scores:
            return None
        score = float(np.mean(scores))
        if self.best is None or score > self.best[0]:
            self.best = score, len(self.losses), self.method.tensors()
        return score

    def _stop(self) -> bool:
        self.stopped = self.stopped or self.should_stop()
        return self.stopped

    def _seconds(self) -> float:
        return time.perf_counter() - self.started
