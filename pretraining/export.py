"""A pre-training run's checkpoint to the weights file that ships inside the package.

    python -m pretraining.export RUN

Only the network itself is kept, as float16: the table of prompts, the dense
heads and the optimiser's state are dropped.
"""

from __future__ import annotations

import argparse
import json
import os
from collections.abc import Mapping
from pathlib import Path

import torch
from safetensors.torch import save_file
from torch import Tensor

import napari_ptsam.backbones
from napari_ptsam.errors import BackboneError
from pretraining.recipe import Recipe
from pretraining.train import CHECKPOINT, RECIPE

SHIPPED = Path(napari_ptsam.backbones.__file__).parent / "weights" / "embedded-v6.safetensors"

PREFIX = "sam."
"""Of the network's tensors in a checkpoint."""


def to_float16(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Tensors as they are stored.

    Raises
    ------
    BackboneError
        If a value is no finite float16 number, so that the file would not hold the network.
    """
    weights = {name: tensor.detach().cpu().half().contiguous() for name, tensor in state.items()}
    broken = [name for name, tensor in weights.items() if not torch.isfinite(tensor).all()]
    if broken:
        raise BackboneError(
            f"{len(broken)} tensors hold values that are not finite in float16, {broken[0]} among "
            "them. Go on from an earlier checkpoint with a lower learning rate."
        )
    return weights


def export(run: Path, target: Path = SHIPPED, clicks: Path | None = None) -> Path:
    """Write the weights of a run's last checkpoint; returns the file.

    The file's metadata tell the recipe's digest and the step, of both runs.

    Parameters
    ----------
    clicks
        Run of `pretraining.clicks` on these weights, whose click decoder goes with them.

    Raises
    ------
    BackboneError
        If there is no checkpoint, or its values are not finite.
    """
    weights, recipe, step = _checkpoint(run, PREFIX)
    metadata = {"format": "pt", "recipe": recipe, "step": step}
    if clicks is not None:
        decoder, metadata["click_recipe"], metadata["click_step"] = _checkpoint(clicks, "decoder.")
        weights |= {f"click_decoder.{name}": tensor for name, tensor in decoder.items()}
    target.parent.mkdir(parents=True, exist_ok=True)
    temporary = target.with_suffix(f".{os.getpid()}.part")
    save_file(to_float16(weights), temporary, metadata)
    temporary.replace(target)
    return target


def _checkpoint(run: Path, prefix: str) -> tuple[dict[str, Tensor], str, str]:
    """Tensors with the prefix, without it; the recipe's digest; the step."""
    path = run / CHECKPOINT
    if not path.exists():
        raise BackboneError(
            f"The folder {run} holds no {CHECKPOINT}. Give the folder that was --run of "
            "`python -m pretraining.train` or `pretraining.clicks`."
        )
    state = torch.load(path, map_location="cpu", weights_only=True)
    recipe = Recipe.parse(json.loads((run / RECIPE).read_text()))
    found = {k.removeprefix(prefix): v for k, v in state["model"].items() if k.startswith(prefix)}
    return found, recipe.digest, str(state["step"])


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("run", type=Path)
    parser.add_argument("--clicks", type=Path, help="run of pretraining.clicks")
    parser.add_argument("-o", "--output", type=Path, default=SHIPPED)
    given = parser.parse_args()
    target = export(given.run, given.output, given.clicks)
    print(f"{target}: {target.stat().st_size / 1e6:.1f} MB")


if __name__ == "__main__":
    main()
