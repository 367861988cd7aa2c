"""Pre-train the embedded backbone: recipe and pool in, checkpoint out.

    python -m pretraining.train pretraining/recipe.toml --pool POOL --run RUN

A run is a folder with a checkpoint and `log.jsonl`; starting it again goes on
from the last checkpoint. The recipe is a list of phases, so that crops can
grow and the learning rate can fall at the end.
"""

from __future__ import annotations

import argparse
import json
import os
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from napari_ptsam.errors import TrainingError
from pretraining import episodes
from pretraining.model import Pretrainer
from pretraining.pool import read_type
from pretraining.recipe import Phase, Recipe

CHECKPOINT = "checkpoint.pt"
RECIPE = "recipe.json"

WARM_UP = 200
"""Steps over which the learning rate rises, at the very start."""

WHOLE = {"body": 0.7, "lumen": 0.7}
"""Share of the episodes that show whole scenes, where it is not the usual 0.1."""

SAVE_EVERY = 100
LOG_EVERY = 25


@dataclass(frozen=True)
class Batch:
    """What one step learns from; `rng` goes on to draw the step's tasks."""

    step: int
    phase: Phase
    rate: float
    crops: episodes.Crops
    rng: np.random.Generator


def batches(recipe: Recipe, pool: Path, steps: range) -> Iterator[Batch]:
    """The batches of some steps; a step's content depends on its number alone."""
    for step in steps:
        phase, rate = recipe.phase_at(step)
        rng = np.random.default_rng([recipe.seed, step])
        parts = []
        for _ in range(phase.types):
            group = phase.groups[int(rng.integers(len(phase.groups)))]
            scenes = read_type(pool, group, int(rng.integers(phase.pool_types)))
            whole = WHOLE.get(group, 0.1)
            parts.append(episodes.draw_crops(scenes, phase.scenes, phase.crop, rng, whole))
        yield Batch(step, phase, rate, episodes.join(parts), rng)


def train(recipe: Recipe, pool: Path, run: Path, device: str, until: int | None = None) -> None:
    """Go on from the run's last checkpoint to the recipe's end.

    Parameters
    ----------
    pool
        Folder from `pretraining.pool`.
    run
        Folder of the run; made if it is not there.
    until
        Stop before this step.
    """
    go_on(Pretrainer(recipe.shape, recipe.seed).to(device), recipe, pool, run, until)


def go_on(
    model: nn.Module,
    recipe: Recipe,
    pool: Path,
    run: Path,
    until: int | None = None,
    warm_up: int = WARM_UP,
) -> None:
    """Train a model from the run's last checkpoint to the recipe's end; see `train`.

    Parameters
    ----------
    model
        Gives losses of crops, phase and random numbers: scalars by name. What has no gradient is
        only logged.
    warm_up
        Steps over which the learning rate rises.

    Raises
    ------
    TrainingError
        If the run has begun with another recipe. Phases may be added, and such changed as have
        not begun yet.
    """
    run.mkdir(parents=True, exist_ok=True)
    optimiser = torch.optim.AdamW(
        model.parameters(), lr=1e-3, betas=(0.9, 0.98), weight_decay=recipe.weight_decay, fused=True
    )
    first = restore(run, recipe, model, optimiser)
    end = recipe.steps if until is None else min(until, recipe.steps)
    if first >= end:
        return
    (run / RECIPE).write_text(json.dumps(asdict(recipe), indent=1))
    log = Log(run / "log.jsonl")
    for batch in batches(recipe, pool, range(first, end)):
        log.add(batch.step, _learn(model, optimiser, batch, warm_up))
        if (batch.step + 1) % SAVE_EVERY == 0 or batch.step + 1 == end:
            save(run / CHECKPOINT, model, optimiser, batch.step + 1)


def _learn(
    model: nn.Module, optimiser: torch.optim.Optimizer, batch: Batch, warm_up: int = WARM_UP
) -> dict[str, Tensor]:
    """One step; returns its losses by name."""
    device = next(model.parameters()).device
    for group in optimiser.param_groups:
        group["lr"] = batch.rate * min(1.0, (batch.step + 1) / warm_up)
    with torch.autocast(device.type, torch.bfloat16):
        losses: dict[str, Tensor] = model(batch.crops.to(device), batch.phase, batch.rng)
    learned = [loss for loss in losses.values() if loss.requires_grad]
    if learned:
        optimiser.zero_grad(set_to_none=True)
        torch.stack(learned).sum().backward()
        norm = nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        if torch.isfinite(norm):
            optimiser.step()
    return losses


class Log:
    """Mean losses of every 25 steps, one JSON object a line."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.started = time.time()
        self.values: dict[str, list[float]] = {}

    def add(self, step: int, losses: dict[str, Tensor]) -> None:
        """Note a step's losses; write their means when it is time."""
        for name, value in losses.items():
            self.values.setdefault(name, []).append(float(value.detach()))
        if (step + 1) % LOG_EVERY:
            return
        means = {k: round(sum(v) / len(v), 4) for k, v in self.values.items()}
        line = {"step": step + 1, "seconds": round(time.time() - self.started, 1), **means}
        with self.path.open("a") as log:
            log.write(json.dumps(line) + "\n")
        print(line, flush=True)
        self.values = {}


def save(path: Path, model: nn.Module, optimiser: torch.optim.Optimizer, step: int) -> None:
    """Write a checkpoint; an interrupted write leaves the former one in place."""
    temporary = path.with_suffix(f".{os.getpid()}.part")
    state = {"model": model.state_dict(), "optimiser": optimiser.state_dict(), "step": step}
    torch.save(state, temporary)
    temporary.replace(path)


def restore(run: Path, recipe: Recipe, model: nn.Module, optimiser: torch.optim.Optimizer) -> int:
    """Take over a run's checkpoint, if there is one; returns the step to go on from."""
    path = run / CHECKPOINT
    if not path.exists():
        return 0
    state = torch.load(path, map_location="cpu", weights_only=True)
    step = int(state["step"])
    _refuse_another(recipe, run, step)
    model.load_state_dict(state["model"])
    optimiser.load_state_dict(state["optimiser"])
    return step


def _refuse_another(recipe: Recipe, run: Path, step: int) -> None:
    """Raise if a run's steps so far are not those of a recipe, whose digest the weights get."""
    known = Recipe.parse(json.loads((run / RECIPE).read_text())).begun(step)
    changed = recipe.begun(step).differences(known)
    if changed:
        raise TrainingError(
            f"{run} has gone {step} steps by another recipe ({'; '.join(changed)}). Name another "
            "folder with --run to begin anew, or take these values back to go on; phases may be "
            "added at the end."
        )


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("recipe", type=Path)
    parser.add_argument("--pool", type=Path, required=True)
    parser.add_argument("--run", type=Path, required=True)
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--until", type=int, help="stop before this step; run again to go on")
    given = parser.parse_args()
    recipe = Recipe.read(given.recipe)
    train(recipe, given.pool, given.run, given.device, given.until)


if __name__ == "__main__":
    main()
