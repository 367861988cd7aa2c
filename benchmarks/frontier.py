"""Sizes of the embedded backbone against each other: ``python -m benchmarks.frontier POOL``.

Each is pre-trained from nothing by the same short schedule on scenes of `pretraining.pool`, and
tells what it costs (megabytes, seconds of the encoder) and what its features are worth: the Dice of
specialists of 16 images after a single step, which is hardly more than their closed-form start. On
other images of the ``train`` folders, of the real data sets and of procedural types that no
backbone was trained on; nothing is measured on the ``test`` folders. Some four minutes a size on
one core. A size that is in ``benchmarks/results/frontier.json`` is not run again (``--fresh``
forgets those that are asked for).

The schedule is a fortieth of what the shipped weights had, so small differences mean nothing.
"""

from __future__ import annotations

import argparse
import json
import shutil
import time
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from benchmarks import data, unseen
from benchmarks.fewshot import read_test_images
from benchmarks.record import RESULTS, circumstances, write_json
from benchmarks.settings import refuse_mixture
from benchmarks.speed import encoder_seconds
from napari_ptsam.backbones import Backbone, load_backbone
from napari_ptsam.backbones.embedded import EmbeddedShape
from napari_ptsam.metrics import count_overlap
from napari_ptsam.planes import open_planes
from napari_ptsam.specialist import Specialist
from pretraining.export import export
from pretraining.recipe import Phase, Recipe
from pretraining.train import train

SHIPPED = EmbeddedShape()
SHAPES = {
    "as shipped": SHIPPED,
    "narrow: width 128": replace(SHIPPED, width=128, heads=4),
    "wide: width 256": replace(SHIPPED, width=256, heads=8),
    "shallow: 3 blocks": replace(SHIPPED, depth=3, global_blocks=(1, 2)),
    "deep: 10 blocks": replace(SHIPPED, depth=10, global_blocks=(1, 3, 5, 7, 9)),
    "windows alone": replace(SHIPPED, global_blocks=()),
    "windows of 4": replace(SHIPPED, window=4),
    "stem of half the channels": replace(SHIPPED, stem=(16, 32, 64)),
    "stem of 1.5 times the channels": replace(SHIPPED, stem=(48, 96, 192)),
}

COLUMNS = (*data.NAMES, *unseen.SETS)
"""Data sets of the table."""

TEST_IMAGES = 24
"""Of each data set, evenly from those that were not learned from."""


def recipe_of(shape: EmbeddedShape, steps: int) -> Recipe:
    """The schedule that all sizes have: that of the shipped weights' first phase, shorter."""
    phase = Phase(
        steps=steps,
        crop=128,
        types=4,
        scenes=3,
        first_rate=7e-4,
        last_rate=1e-5,
        groups=("light", "light", "matter", "matter", "body", "dense"),
        pool_types=400,
        click_share=0.0,
    )
    return Recipe(seed=2, weight_decay=0.02, phases=(phase,), shape=shape)


def feature_dice(backbone: Backbone, data_set: data.DataSet) -> float:
    """Mean Dice of a specialist of one step on images that it did not learn from."""
    specialist = Specialist.train(
        data_set.train_images,
        data_set.train_masks,
        planes=data_set.train_planes,
        backbone=backbone,
        preset="quick",
        steps=1,
        class_name=data_set.target,
    )
    others = np.setdiff1d(np.arange(len(open_planes(data_set.train_images))), data_set.train_planes)
    if data_set.test_planes is not None:  # of the stack, whose planes of the test stay unseen
        others = np.setdiff1d(others, data_set.test_planes)
    chosen = others[np.linspace(0, len(others) - 1, min(TEST_IMAGES, len(others))).astype(int)]
    held_out = replace(
        data_set,
        test_images=data_set.train_images,
        test_masks=data_set.train_masks,
        test_planes=tuple(int(i) for i in chosen),
    )
    found = [
        count_overlap(specialist.predict(test.image).mask, test.truth).dice
        for test in read_test_images(held_out)
    ]
    return float(np.mean(found))


def measure(name: str, options: argparse.Namespace) -> dict[str, Any]:
    """Pre-train one size, and say what it costs and what it is worth."""
    run = options.runs / f"{name.replace(' ', '-').replace(':', '')}-{options.steps}"
    if options.fresh:
        shutil.rmtree(run, ignore_errors=True)
    started = time.perf_counter()
    train(recipe_of(SHAPES[name], options.steps), options.pool, run, "cpu")
    seconds = time.perf_counter() - started
    weights = export(run, run / "weights.safetensors")
    backbone = load_backbone(weights)
    figures: dict[str, Any] = {
        "shape": asdict(SHAPES[name]),
        "megabytes": round(weights.stat().st_size / 1e6, 2),
        "encoder_seconds_at_512": round(encoder_seconds(backbone), 4),
        "pretraining_seconds": round(seconds, 1),
        "steps": options.steps,
        "dice": {},
    }
    for data_name in COLUMNS:
        if data_name in unseen.SETS:
            drawn = unseen.load(data_name, options.made)
        else:
            drawn = data.load(data_name, data.data_folder(options.data))
        figures["dice"][data_name] = round(feature_dice(backbone, drawn), 4)
    return figures


def table(sizes: dict[str, dict[str, Any]]) -> str:
    """Markdown: cost and Dice in percent of each size."""
    lines = [
        f"| size | MB | encoder, 512x512 | {' | '.join(COLUMNS)} | mean |",
        "|---" * (4 + len(COLUMNS)) + "|",
    ]
    for name, found in sizes.items():
        dice = [100 * found["dice"][n] for n in COLUMNS]
        cells = [f"{found['megabytes']:.1f}", f"{found['encoder_seconds_at_512']:.2f} s"]
        cells += [f"{value:.1f}" for value in (*dice, np.mean(dice))]
        lines.append(f"| {name} | {' | '.join(cells)} |")
    return "\n".join(lines)


def run(options: argparse.Namespace) -> None:
    """Run the sizes that are asked for and not yet known; print the table.

    Raises
    ------
    InputError
        If the table has sizes of another schedule that are not run again.
    """
    known: dict[str, Any] = {"sizes": {}}
    if options.output.exists():
        known = json.loads(options.output.read_text(encoding="utf-8"))
    steps = {name: {"steps": figures["steps"]} for name, figures in known["sizes"].items()}
    renewed = options.only if options.fresh else ()
    refuse_mixture(steps, {"steps": options.steps}, options.output, renewed)
    for name in options.only:
        if name not in known["sizes"] or options.fresh:
            known["sizes"][name] = measure(name, options) | {"circumstances": circumstances()}
            write_json(options.output, known)
            print(f"{name}: {known['sizes'][name]['dice']}", flush=True)
    print(table(known["sizes"]))


def main() -> None:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("pool", type=Path, help="folder of python -m pretraining.pool")
    parser.add_argument("--only", nargs="+", choices=SHAPES, default=list(SHAPES))
    parser.add_argument("--steps", type=int, default=100)
    parser.add_argument("--data", type=Path, help="folder of the data sets")
    parser.add_argument("--made", type=Path, default=Path("output") / "unseen")
    parser.add_argument("--runs", type=Path, default=Path("output") / "frontier")
    parser.add_argument("--fresh", action="store_true", help="run known sizes again")
    parser.add_argument("--output", type=Path, default=RESULTS / "frontier.json")
    torch.set_num_threads(1)
    run(parser.parse_args())


if __name__ == "__main__":
    main()
