"""What a prompt file tells of its training."""

from __future__ import annotations

import datetime
import importlib.metadata
import os
import platform
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

from napari_ptsam.examples import Example, data_hash
from napari_ptsam.training.presets import TrainingPlan
from napari_ptsam.training.steps import TrainResult

PACKAGES = ("napari-ptsam", "torch", "segment-anything", "numpy", "scipy", "scikit-image")


@dataclass(frozen=True)
class Circumstances:
    """What the run itself does not know.

    Attributes
    ----------
    seconds
        How long it took.
    command
        The command that reproduces it.
    started_from
        Which specialist it went on from: its file, data hash, date, number of images and steps;
        None for a fresh start.
    """

    seconds: float
    command: str = ""
    started_from: dict[str, Any] | None = None


def training_record(
    examples: Sequence[Example],
    plan: TrainingPlan,
    result: TrainResult,
    around: Circumstances,
) -> dict[str, Any]:
    """What the prompt file tells of its training, as plain values."""
    return {
        "data_hash": data_hash(examples),
        "images": len(examples),
        "plan": asdict(plan),
        "seed": plan.seed,
        "steps": result.steps,
        "held_out": list(result.held_out),
        "held_out_dice": result.held_out_dice,
        "final_loss": result.final_loss,
        "learned_from": list(result.learned_from),
        "stopped": result.stopped,
        "started_from": around.started_from,
        "seconds": round(around.seconds, 1),
        "packages": {p: _version(p) for p in PACKAGES},
        "python": platform.python_version(),
        "date": _today().isoformat(),
        "command": around.command,
    }


def _version(package: str) -> str:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return "unknown"


def _today() -> datetime.date:
    """Today, or the day that SOURCE_DATE_EPOCH names, so that a file can be made again."""
    epoch = os.environ.get("SOURCE_DATE_EPOCH")
    if epoch is not None:
        return datetime.datetime.fromtimestamp(int(epoch), datetime.UTC).date()
    return datetime.datetime.now(datetime.UTC).date()
