"""How long, how fast and on what views a specialist is trained."""

from __future__ import annotations

from dataclasses import dataclass, field, replace

from napari_ptsam.errors import InputError
from napari_ptsam.methods.ptsam import DECODER_RATE, ENCODER_RATE
from napari_ptsam.training.augment import Augmentation


@dataclass(frozen=True)
class TrainingPlan:
    """Everything that decides a training run, beside its data, backbone and method.

    Attributes
    ----------
    steps
        Optimiser steps at most.
    learning_rate
        At the start; it falls to 0 along a cosine.
    views_per_image
        Augmented views encoded once and kept, where the method works on embeddings;
        None encodes a fresh view for every use.
    held_out
        Share of the examples kept out of training to stop early and to tell the user what
        Dice to expect; 0 for none.
    evaluate_every
        Steps between looks at the held-out examples.
    patience
        Looks without a better Dice before training stops.
    refit
        After the held-out run, train once more on all examples for as many steps as were
        best there.
    full_resolution_loss
        Compare masks at the model's input size; else at no more than 256 pixels.
    start_from_examples
        Begin with the prompts that the backbone's task encoder makes from the examples,
        where it has one.
    search_scale
        Look for a working scale that tells the examples better, where none is given.
    rotations
        In how many positions the trained specialist looks at each image, unless told otherwise.
    """

    preset: str
    steps: int
    learning_rate: float
    batch_size: int = 2
    weight_decay: float = 0.01
    views_per_image: int | None = 8
    augmentation: Augmentation = field(default_factory=Augmentation.paper)
    held_out: float = 0.2
    evaluate_every: int = 25
    patience: int = 8
    refit: bool = False
    full_resolution_loss: bool = False
    start_from_examples: bool = True
    search_scale: bool = False
    rotations: int = 1
    seed: int = 0

    def __post_init__(self) -> None:
        if self.steps < 1 or self.batch_size < 1:
            raise InputError(
                f"Training needs at least one step and one image in a batch, not {self.steps} "
                f"and {self.batch_size}."
            )
        if not 0 <= self.held_out < 1:
            raise InputError(
                f"The held-out share lies between 0 and 1, not {self.held_out}; 0.2 is usual."
            )


def training_plan(
    preset: str, *, encoder_prompts: bool, seed: int = 0, steps: int | None = None
) -> TrainingPlan:
    """The plan behind a preset's name, for PTSAM.

    ``paper`` is section 4.1.3 of the PTSAM paper: 1,000 epochs of 20 steps at batch 2, AdamW
    with cosine annealing from 0.05 (0.01 with encoder prompts), fresh augmentation at every
    step, the last weights kept. The other two are ours.

    Raises
    ------
    InputError
        If there is no such preset.
    """
    rate = ENCODER_RATE if encoder_prompts else DECODER_RATE
    plans = {
        "quick": TrainingPlan(
            "quick", steps=150, learning_rate=rate, views_per_image=4, evaluate_every=15
        ),
        "standard": TrainingPlan(
            "standard",
            steps=500,
            learning_rate=rate,
            refit=True,
            search_scale=True,
            rotations=4,
        ),
        "paper": TrainingPlan(
            "paper",
            steps=20_000,
            learning_rate=rate,
            views_per_image=None,
            held_out=0.0,
            full_resolution_loss=True,
            start_from_examples=False,
        ),
    }
    if preset not in plans:
        raise InputError(f"There is no preset '{preset}'; choose one of {', '.join(plans)}.")
    plan = replace(plans[preset], seed=seed)
    return replace(plan, steps=steps) if steps is not None else plan


CONTINUED_RATE = 0.2
"""Learning rate of a run that goes on from learned numbers, as a share of a fresh one's.

At the full rate AdamW's first steps are as large as the numbers themselves, and would undo them.
"""


def continued(plan: TrainingPlan) -> TrainingPlan:
    """The plan for going on from learned numbers instead of starting anew."""
    return replace(
        plan, learning_rate=plan.learning_rate * CONTINUED_RATE, start_from_examples=False
    )
