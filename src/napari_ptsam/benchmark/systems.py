"""A row of the table as something that learns: a method on the frozen backbone, or a baseline."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Callable, Generator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from napari_ptsam.backbones import Backbone
from napari_ptsam.baselines import Baseline
from napari_ptsam.baselines.forest import ForestBaseline
from napari_ptsam.baselines.nnunet import NnUnetBaseline
from napari_ptsam.baselines.unet import UNetBaseline
from napari_ptsam.benchmark.config import MethodConfig, TrainingConfig
from napari_ptsam.benchmark.pool import Pool
from napari_ptsam.embeddings import Embeddings
from napari_ptsam.errors import InputError
from napari_ptsam.examples import load_examples
from napari_ptsam.normalize import Normalization
from napari_ptsam.specialist import Specialist
from napari_ptsam.tiling import Scaling
from napari_ptsam.training.scale import working_scale
from napari_ptsam.training.steps import TrainStep

CURVE_POINTS = 50
"""Means of the loss that are kept of a training."""

SegmentImage = Callable[[NDArray[Any]], NDArray[np.bool_]]
"""An image as it is stored to its mask HxW."""


@dataclass(frozen=True)
class Task:
    """What is to be learned, on what.

    Attributes
    ----------
    pool, keys
        Training images.
    target
        What their masks mark.
    seed
        Of the training.
    training
        What all methods share.
    backbone
        Frozen, on its device.
    scratch
        Folder of this training alone, for checkpoints and the like.
    embeddings
        What the frozen encoder gave to cells before.
    """

    pool: Pool
    keys: Sequence[str]
    target: str
    seed: int
    training: TrainingConfig
    backbone: Backbone
    scratch: Path
    embeddings: Embeddings


@dataclass(frozen=True)
class Learned:
    """What came of a training.

    Attributes
    ----------
    segment
        Applies it.
    parameters
        Trained numbers, None where that means nothing.
    nbytes
        Of the file to pass on.
    facts
        More for the record: the loss's curve, held-out Dice, what the encoder was.
    """

    segment: SegmentImage
    parameters: int | None
    nbytes: int | None
    facts: dict[str, Any]


def learn(method: MethodConfig, task: Task) -> Generator[TrainStep, None, Learned]:
    """Train a row's system, step by step where it tells of its steps."""
    if method.baseline:
        return _learn_baseline(method, task)
    return _learn_specialist(method, task)


def make_baseline(method: MethodConfig, folder: Path, device: str, scaling: Scaling) -> Baseline:
    """The baseline of a row.

    Parameters
    ----------
    folder
        For nnU-Net's files.
    scaling
        Working scale, for the U-Net.

    Raises
    ------
    InputError
        If it has no such settings.
    """
    settings: dict[str, Any] = {
        name: tuple(value) if isinstance(value, list) else value
        for name, value in method.settings.items()
    }
    try:
        if method.baseline == "nnunet":
            return NnUnetBaseline(folder, **({"device": device} | settings))
        if method.baseline == "unet":
            settings = {"device": device, **settings}
            return UNetBaseline(scaling=scaling, **settings)
        return ForestBaseline(**settings)
    except TypeError as error:
        raise InputError(
            f"The baseline '{method.name}' cannot be set to {dict(method.settings)} ({error})."
        ) from error


def _learn_specialist(method: MethodConfig, task: Task) -> Generator[TrainStep, None, Learned]:
    shared, checkpoint = task.training, task.scratch / "training.checkpoint"
    resumed = checkpoint.exists()
    run = Specialist.train_steps(
        task.pool.images,
        task.pool.masks,
        planes=task.pool.numbers(task.keys),
        label=task.pool.label,
        backbone=task.backbone,
        method=method.method,
        method_settings=method.settings,
        learning_rate=method.learning_rate,
        preset=shared.preset,
        steps=method.steps or shared.steps,
        batch_size=method.batch_size or shared.batch_size,
        scale=shared.scale,  # type: ignore[arg-type]  # checked by the training
        seed=task.seed,
        class_name=task.target,
        checkpoint=checkpoint,
        embeddings=task.embeddings,
    )
    losses: dict[str, list[float]] = {}
    while True:
        try:
            step = next(run)
        except StopIteration as end:
            specialist: Specialist = end.value
            break
        if step.phase != "embed":
            losses.setdefault(step.phase, []).append(step.loss)
        yield step
    specialist.embeddings = task.embeddings  # for the test images
    record = specialist.metadata.training
    with tempfile.TemporaryDirectory(dir=task.scratch) as folder:
        nbytes = specialist.save(Path(folder) / "learned").stat().st_size
    facts = {
        "tunes_encoder": not specialist.method.works_on_embeddings,
        "learning_rate": record["plan"]["learning_rate"],
        "steps": record["steps"],
        "held_out_dice": record["held_out_dice"],
        "final_loss": record["final_loss"],
        "curve": curve(losses.get("refit") or losses.get("train", [])),
        "resumed": resumed,
    }
    return Learned(
        lambda image: specialist.predict(image).mask,
        specialist.trainable_parameters,
        nbytes,
        facts,
    )


def _learn_baseline(method: MethodConfig, task: Task) -> Generator[TrainStep, None, Learned]:
    examples, normalization = load_examples(
        task.pool.images,
        task.pool.masks,
        planes=task.pool.numbers(task.keys),
        label=task.pool.label,
        normalization=Normalization(),
    )
    scaling = working_scale(task.training.scale, examples, task.backbone)
    device = task.backbone.device.type  # nnU-Net knows no numbers of devices
    home = task.scratch / "baseline"
    # What an earlier try left: nnU-Net wants a folder of its own.
    shutil.rmtree(home, ignore_errors=True)
    baseline = make_baseline(method, home, device, scaling)
    predict = baseline.fit([e.image for e in examples], [e.mask for e in examples], task.seed)

    def segment(image: NDArray[Any]) -> NDArray[np.bool_]:
        return predict(normalization.apply(image)) >= 0.5

    yield from ()  # tells of no steps
    return Learned(segment, predict.parameters, predict.nbytes, {"resumed": False})


def curve(losses: Sequence[float]) -> list[list[float]]:
    """Step and mean loss around it, for at most `CURVE_POINTS` equal stretches."""
    parts = np.array_split(np.asarray(losses), min(CURVE_POINTS, len(losses)) or 1)
    ends = np.cumsum([len(part) for part in parts])
    return [
        [int(end), round(float(part.mean()), 5)]
        for end, part in zip(ends, parts, strict=True)
        if len(part)
    ]
