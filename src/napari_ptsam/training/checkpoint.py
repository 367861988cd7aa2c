"""A training run on disk, so that it goes on after being killed."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from napari_ptsam.errors import TrainingError
from napari_ptsam.examples import Example, data_hash
from napari_ptsam.methods.base import Method
from napari_ptsam.training.presets import TrainingPlan


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


class Checkpoint:
    """One safetensors file that belongs to one run.

    Parameters
    ----------
    path
        The file, or None to keep nothing.
    plan, examples
        What identifies the run: a checkpoint of another plan or other examples is refused.
    """

    def __init__(self, path: Path | None, plan: TrainingPlan, examples: Sequence[Example]) -> None:
        self.path = path
        self.run = ""
        if path is not None:
            text = json.dumps(asdict(plan), sort_keys=True) + data_hash(examples)
            self.run = hashlib.sha256(text.encode()).hexdigest()

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
        values = {k: v for k, v in vars(state).items() if k != "best"}
        record = {"run": self.run, "phase": phase, "state": json.dumps(values)}
        temporary = self.path.with_name(f"{self.path.name}.{os.getpid()}.part")
        save_file(tensors, temporary, record)
        temporary.replace(self.path)

    def resume(
        self, phase: str, method: Method, optimiser: torch.optim.Optimizer
    ) -> RunState | None:
        """State of this phase from the file, with method and optimiser set to it.

        None when there is no file, or when it was written in another phase. (A phase that was
        over is run again: it gives the same numbers.)

        Raises
        ------
        TrainingError
            If the file is damaged or belongs to another run.
        """
        if self.path is None or not self.path.exists():
            return None
        try:
            with safe_open(self.path, "pt") as file:
                record = file.metadata() or {}
                tensors = {k: file.get_tensor(k) for k in file.keys()}  # noqa: SIM118
        except (SafetensorError, OSError) as error:
            raise TrainingError(
                f"The checkpoint {self.path} cannot be read ({error}). Delete it to start anew."
            ) from error
        if record.get("run") != self.run:
            raise TrainingError(
                f"The checkpoint {self.path} belongs to another run: other images, masks, preset "
                "or seed. Delete it to start anew, or name another file."
            )
        if record["phase"] != phase:
            return None
        method.load_tensors(_part(tensors, "now."))
        _restore(optimiser, _part(tensors, "optimiser."))
        return RunState(**json.loads(record["state"]), best=_part(tensors, "best.") or None)


def _part(tensors: dict[str, Tensor], prefix: str) -> dict[str, Tensor]:
    return {k.removeprefix(prefix): v for k, v in tensors.items() if k.startswith(prefix)}


def _restore(optimiser: torch.optim.Optimizer, tensors: dict[str, Tensor]) -> None:
    state: dict[int, dict[str, Tensor]] = {}
    for key, value in tensors.items():
        index, name = key.split(".", 1)
        state.setdefault(int(index), {})[name] = value
    whole = optimiser.state_dict()
    optimiser.load_state_dict({"state": state, "param_groups": whole["param_groups"]})
