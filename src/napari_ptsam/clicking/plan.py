"""How a click specialist is trained, and what a run tells of itself."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Literal

from numpy.typing import NDArray

from napari_ptsam.clicking.answers import ClickAnswer
from napari_ptsam.clicking.losses import LossWeights
from napari_ptsam.clicking.plane import EmbeddedPlane
from napari_ptsam.clicking.prompt import ClickPrompt
from napari_ptsam.errors import InputError
from napari_ptsam.training.presets import TrainingPlan

Preview = Callable[[EmbeddedPlane, ClickPrompt], ClickAnswer]


@dataclass(frozen=True)
class ClickPlan(TrainingPlan):
    """Everything that decides a training, beside its data and backbone.

    Attributes
    ----------
    batch_size
        Objects asked for in a step, all in one view.
    views_per_image
        More than for prompts, which are too few numbers to learn single images by heart.
    boxes
        Share of the prompts that begin with a box instead of a click.
    automatic
        Share of the steps that ask for all objects at once, where the task has learned tokens.
    token_rate
        Learning rate of these tokens, as a multiple of the module's.
    readout_rate
        That of the readout.
    rounds
        How likely 0, 1, 2, ... corrective clicks follow before an answer counts.
    weights
        Of the loss.
    point_matching
        Whether the Point Matching Module helps in training.
    held_out_objects
        About so many held-out objects, of all images alike, are clicked in the middle and once
        anywhere to see how well it goes.
    """

    batch_size: int = 8
    views_per_image: int | None = 16
    boxes: float = 0.2
    automatic: float = 0.1
    token_rate: float = 100.0
    readout_rate: float = 10.0
    rounds: tuple[float, ...] = (0.5, 0.2, 0.15, 0.15)
    weights: LossWeights = field(default_factory=LossWeights)
    point_matching: bool = True
    held_out_objects: int = 48

    def __post_init__(self) -> None:
        super().__post_init__()
        if not 0 <= self.boxes <= 1:
            raise InputError(f"The share of boxes lies between 0 and 1, not {self.boxes}.")
        if not self.rounds or min(self.rounds) < 0 or abs(sum(self.rounds) - 1) > 1e-6:
            raise InputError(
                f"How likely each number of corrections is adds up to 1: {self.rounds}."
            )


@dataclass(frozen=True)
class ClickStep:
    """One step of a training from clicks.

    Attributes
    ----------
    phase
        ``embed``: images are being encoded; ``train``.
    step, steps
        Number of the step in its phase, from 1, and how many there will be at most.
    loss
        Of the step; NaN in the phase ``embed``.
    held_out_iou
        Mean IoU (0..1) of single clicks on held-out objects, when they were looked at.
    seconds
        Since the run started.
    ready
        Whether a preview is worth a look.
    embed
        `Clicker.embed` of the specialist in training, at its own scale and brightness.
    preview
        `Clicker.answer` with the numbers of this moment, to be called before the next step.
    """

    phase: Literal["embed", "train"]
    step: int
    steps: int
    loss: float
    held_out_iou: float | None
    seconds: float
    ready: bool = True
    embed: Callable[[NDArray[Any]], EmbeddedPlane] | None = field(
        default=None, compare=False, repr=False
    )
    preview: Preview | None = field(default=None, compare=False, repr=False)
