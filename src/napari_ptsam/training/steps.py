"""What goes into a training run beside its task, and what comes out of it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Literal

from numpy.typing import NDArray

from napari_ptsam.embeddings import Embeddings
from napari_ptsam.training.views import WarmStart

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
    ready
        Whether the method's numbers are worth a look: not before the examples were looked at.
    preview
        Where a specialist is trained and ready: its `predict` with the numbers of this moment,
        to be called before the next step.
    """

    phase: Phase
    step: int
    steps: int
    loss: float
    held_out_dice: float | None
    seconds: float
    ready: bool = True
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
    stopped
        Whether the run was ended early on request.
    continuation
        Where another run goes on from: the numbers that held-out examples have no part in.
    learned_from
        `Example.image_digest` of the examples behind the final numbers.
    """

    held_out_dice: float | None
    held_out: tuple[str, ...]
    steps: int
    final_loss: float
    stopped: bool = False
    continuation: WarmStart | None = field(default=None, compare=False, repr=False)
    learned_from: tuple[str, ...] = field(default=(), compare=False)


@dataclass(frozen=True)
class RunContext:
    """What a run is given beside its task.

    Attributes
    ----------
    start
        Numbers to go on from, instead of fresh ones.
    embeddings
        Where to find what was encoded before, and to leave what is encoded now.
    should_stop
        Asked between steps; True ends the run with the best so far.
    """

    start: WarmStart | None = None
    embeddings: Embeddings = field(default_factory=lambda: Embeddings(limit=0))
    should_stop: Callable[[], bool] = field(default=lambda: False)
