"""A training run on disk, so that it goes on after being killed."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from napari_ptsam.errors import TrainingError
from napari_ptsam.examples import Example, data_hash
from napari_ptsam.methods.base import Method
from napari_ptsam.training.views import Job


@dataclass
class RunState:
    """Where a phase stands, beside the trained numbers and the optimiser's."""

    step: int = 0
    losses: list[float] = field(default_factory=list)
    best_dice: float | None = None
    best_step: int | None = None
    looks_since_best: int = 0
    best: dict[str, Tensor] | None = None

    def note(self, score: float, tensors: dict[str, Tensor]) -> None:
        """A look at the held-out examples; later numbers win a tie."""
        if self.best_dice is None or score >= self.best_dice:
            self.best_dice, self.best_step, self.best = score, self.step, tensors
            self.looks_since_best = 0
        else:
            self.looks_since_best += 1


@dataclass(frozen=True)
class PhaseEnd:
    """What a finished phase came to.

    Attributes
    ----------
    dice
        Best mean Dice of the held-out examples, None where there were none.
    step
        Step behind the numbers.
    loss
        Mean loss of the last 20 steps.
    tensors
        The method's numbers.
    """

    dice: float | None
    step: int
    loss: float
    tensors: dict[str, Tensor]


class Checkpoint:
    """One safetensors file that belongs to one run.

    Parameters
    ----------
    path
        The file, or None to keep nothing.
    job, examples
        What identifies the run: a checkpoint of another one is refused.

    Attributes
    ----------
    trained
        How the phase ``train`` ended, once it has.

    Raises
    ------
    TrainingError
        If the file is damaged or belongs to another run.
    """

    def __init__(self, path: Path | None, job: Job, examples: Sequence[Example]) -> None:
        self.path = path
        self.trained: PhaseEnd | None = None
        self._record: dict[str, Any] = {}
        self._tensors: dict[str, Tensor] = {}
        if path is None:
            return
        self.run = _run_identity(job, examples)
        path.parent.mkdir(parents=True, exist_ok=True)
        if path.exists():
            self._read(path)

    def _read(self, path: Path) -> None:
        try:
            with safe_open(path, "pt") as file:
                metadata = file.metadata() or {}
                self._tensors = {k: file.get_tensor(k) for k in file.keys()}  # noqa: SIM118
            record = json.loads(metadata.get("ptsam_run", "{}"))
        except (SafetensorError, OSError, ValueError) as error:
            raise TrainingError(
                f"The checkpoint {path} cannot be read ({error}). Delete it to start anew."
            ) from error
        if record.get("run") != self.run:
            raise TrainingError(
                f"The checkpoint {path} belongs to another run: other images, masks, backbone, "
                "settings or seed. Delete it to start anew, or name another file."
            )
        self._record = record
        if record["trained"] is not None:
            self.trained = PhaseEnd(**record["trained"], tensors=_part(self._tensors, "trained."))

    def save(
        self, phase: str, method: Method, optimiser: torch.optim.Optimizer, state: RunState
    ) -> None:
        """Write the file; an interrupted write leaves the former one in place."""
        if self.path is None:
            return
        tensors = {f"now.{k}": v for k, v in method.tensors().items()}
        tensors |= {f"best.{k}": v for k, v in (state.best or {}).items()}
        for index, moments in optimiser.state_dict()["state"].items():
            tensors |= {f"optimiser.{index}.{k}": v.cpu() for k, v in moments.items()}
        trained = None
        if self.trained is not None:
            trained = {k: v for k, v in vars(self.trained).items() if k != "tensors"}
            tensors |= {f"trained.{k}": v for k, v in self.trained.tensors.items()}
        values = {k: v for k, v in vars(state).items() if k != "best"}
        record = {"run": self.run, "phase": phase, "state": values, "trained": trained}
        temporary = self.path.with_name(f"{self.path.name}.{os.getpid()}.part")
        save_file(tensors, temporary, {"ptsam_run": json.dumps(record)})
        temporary.replace(self.path)

    def resume(
        self, phase: str, method: Method, optimiser: torch.optim.Optimizer
    ) -> RunState | None:
        """State of this phase from the file, with method and optimiser set to it.

        None when there was no file, or it was written in another phase.
        """
        if self._record.get("phase") != phase:
            return None
        method.load_tensors(_part(self._tensors, "now."))
        _restore(optimiser, _part(self._tensors, "optimiser."))
        return RunState(**self._record["state"], best=_part(self._tensors, "best.") or None)


def _run_identity(job: Job, examples: Sequence[Example]) -> str:
    """Digest of everything that decides a run's numbers."""
    parts = {
        "plan": asdict(job.plan),
        "method": [job.method.name, job.method.settings_dict],
        "backbone": job.backbone.identity,
        "scaling": job.scaling.to_dict(),
        "examples": data_hash(examples),
        "start": None if job.start is None else _numbers_identity(job.start.tensors),
    }
    return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()


def _numbers_identity(tensors: dict[str, Tensor]) -> str:
    digest = hashlib.sha256()
    for name in sorted(tensors):
        digest.update(f"{name} {tuple(tensors[name].shape)}".encode())
        digest.update(tensors[name].contiguous().numpy().data)
    return digest.hexdigest()


def _part(tensors: dict[str, Tensor], prefix: str) -> dict[str, Tensor]:
    return {k.removeprefix(prefix): v for k, v in tensors.items() if k.startswith(prefix)}


def _restore(optimiser: torch.optim.Optimizer, tensors: dict[str, Tensor]) -> None:
    state: dict[int, dict[str, Tensor]] = {}
    for key, value in tensors.items():
        index, name = key.split(".", 1)
        state.setdefault(int(index), {})[name] = value
    whole = optimiser.state_dict()
    optimiser.load_state_dict({"state": state, "param_groups": whole["param_groups"]})
