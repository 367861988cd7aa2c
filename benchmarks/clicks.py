"""What single clicks give, and what annotating by clicks costs: ``python -m benchmarks.clicks``.

Plain SAM, the Prompt Learning Module (PLM), and PLM with the Point Matching Module in training
(PMM), on the instances of two data sets of real images. Learned from images of the ``train``
folders alone, measured on those of the ``test`` folders. Every cell is written to
``benchmarks/results/clicks.json`` as soon as it is known, and a cell that is there is not run
again (``--fresh`` forgets them). ``--tune`` compares learning rates on images held out of the
``train`` folders instead. ``--quick`` goes through everything in a minute, for a trial.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Collection, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks import data
from benchmarks.click_actions import Target, actions
from benchmarks.record import RESULTS, circumstances, write_json
from benchmarks.settings import refuse_mixture
from napari_ptsam.backbones import Backbone, load_backbone
from napari_ptsam.clicking import Clicker, ClickPrompt, click_plan, train_clicks
from napari_ptsam.clicking.prompt import well_inside
from napari_ptsam.clicking.simulate import click_in
from napari_ptsam.clicking.training import STEPS
from napari_ptsam.embeddings import Embeddings
from napari_ptsam.labels import read_labels
from napari_ptsam.metrics import boundary_f, iou
from napari_ptsam.normalize import Normalization
from napari_ptsam.planes import open_planes
from napari_ptsam.tiling import Scaling

NAMES = ("dsb2018", "emps")
METHODS = {"plain": "plain SAM", "plm": "PLM", "plm-pmm": "PLM, trained with PMM"}

TOLERANCE = 2.0
"""Pixels by which outlines may differ in the boundary F-score: objects are some 20 to 60 wide."""

SPREAD_CLICKS = 20
RATES = (3e-5, 1e-4, 3e-4, 1e-3)


class Bench:
    """What all cells of a run share: the backbone, and embeddings in memory."""

    def __init__(self, options: argparse.Namespace) -> None:
        self.options = options
        self.backbone: Backbone = load_backbone(options.backbone)
        self.embeddings = Embeddings(limit=3 * 2**30)
        self.scalings: dict[str, Scaling] = {}

    def data_set(self, name: str, images: int, seed: int) -> data.DataSet:
        """Training images of a cell, and the test."""
        return data.load(name, data.data_folder(self.options.data), images, seed)

    def trained(
        self, name: str, method: str, images: int, seed: int, rate: float | None = None
    ) -> Clicker:
        """A click specialist of one cell."""
        drawn = self.data_set(name, images, seed)
        plan = click_plan(
            steps=self.options.steps,
            seed=seed,
            point_matching=method == "plm-pmm",
            learning_rate=rate or self.options.learning_rate,
            batch_size=self.options.objects_a_step,
            evaluate_every=max(self.options.steps // 3, 1),
        )
        run = train_clicks(
            drawn.train_images,
            drawn.train_masks,
            planes=drawn.train_planes,
            plan=plan,
            backbone=self.backbone,
            embeddings=self.embeddings,
            class_name=drawn.target,
        )
        while True:
            try:
                next(run)
            except StopIteration as end:
                clicker: Clicker = end.value
                clicker.embeddings = self.embeddings
                return clicker

    def plain(self, scaling: Scaling) -> Clicker:
        """SAM itself, at the scale that the specialists of a data set chose."""
        clicker = Clicker.plain(self.backbone, normalization=Normalization(), scaling=scaling)
        clicker.embeddings = self.embeddings
        return clicker

    def targets(self, clicker: Clicker, name: str, most: int, planes: int | None) -> list[Target]:
        """Test planes, and at most so many objects of each, the same for all methods."""
        drawn = self.data_set(name, 16, 0)
        images, masks = open_planes(drawn.test_images), open_planes(drawn.test_masks)
        places = {key: i for i, key in enumerate(masks.keys)}
        found = []
        for i in range(len(images))[:planes]:
            ids = read_labels(masks, places[images.keys[i]], numbered=True)
            rng = np.random.default_rng([17, i])
            present = np.setdiff1d(ids, [0])
            chosen = np.sort(rng.permutation(present)[:most])
            found.append(Target(clicker.embed(images.read(i)), ids, chosen))
        return found


def accuracy(clicker: Clicker, targets: Sequence[Target]) -> dict[str, Any]:
    """Mean over objects of what one click gives, in the middle and at random."""
    rng = np.random.default_rng(23)
    rows = []
    for target in targets:
        for truth in target.masks():
            middle = clicker.answer(target.plane, ClickPrompt((well_inside(truth),)))
            anywhere = clicker.answer(target.plane, ClickPrompt((click_in(truth, rng),)))
            rows.append(
                (
                    iou(middle.mask, truth),
                    boundary_f(middle.mask, truth, tolerance=TOLERANCE),
                    iou(anywhere.mask, truth),
                    boundary_f(anywhere.mask, truth, tolerance=TOLERANCE),
                )
            )
    means = np.mean(rows, axis=0)
    names = ("iou_centre", "boundary_f_centre", "iou_random", "boundary_f_random")
    figures: dict[str, Any] = {name: float(m) for name, m in zip(names, means, strict=True)}
    return figures | {"objects": len(rows)}


def spread(clicker: Clicker, targets: Sequence[Target], most: int) -> dict[str, Any]:
    """Mean over objects of the SD of the IoU over random clicks on each."""
    deviations, means = [], []
    for number, target in enumerate(targets):
        rng = np.random.default_rng([29, number])
        for truth in list(target.masks())[: max(most // len(targets), 1)]:
            scores = [
                iou(clicker.answer(target.plane, ClickPrompt((click_in(truth, rng),))).mask, truth)
                for _ in range(SPREAD_CLICKS)
            ]
            deviations.append(np.std(scores, ddof=1))
            means.append(np.mean(scores))
        if len(deviations) >= most:
            break
    return {
        "spread_sd": float(np.mean(deviations)),
        "spread_mean": float(np.mean(means)),
        "spread_objects": len(deviations),
    }


def run_cell(bench: Bench, name: str, method: str, images: int, seed: int) -> dict[str, Any]:
    """Train and test one method."""
    options, started = bench.options, time.perf_counter()
    if method == "plain":
        clicker = bench.plain(scaling_of(bench, name))
        figures: dict[str, Any] = {}
    else:
        clicker = bench.trained(name, method, images, seed)
        record = clicker.metadata.training
        figures = {key: record[key] for key in ("held_out_iou", "steps")}
        figures["train_seconds"] = round(time.perf_counter() - started, 1)
    figures["working_scale"] = clicker.metadata.working_scale
    targets = bench.targets(clicker, name, options.objects, options.planes)
    figures |= accuracy(clicker, targets)
    if seed == 0:
        figures |= spread(clicker, targets, options.spread_objects)
        if images == min(options.images) and name == "dsb2018":
            figures["annotating"] = actions(clicker, targets[:16])
    return figures


def scaling_of(bench: Bench, name: str) -> Scaling:
    """The working scale that a specialist chooses from 16 training images."""
    from napari_ptsam.examples import load_examples
    from napari_ptsam.training.scale import working_scale

    drawn = bench.data_set(name, 16, 0)
    examples, _ = load_examples(
        open_planes(drawn.train_images),
        open_planes(drawn.train_masks),
        planes=drawn.train_planes,
        normalization=Normalization(),
    )
    return working_scale("auto", examples, bench.backbone)


def run(options: argparse.Namespace) -> None:
    """Run the cells that are asked for and not yet known; print the tables.

    Raises
    ------
    InputError
        If there are cells of other settings that are not run again.
    """
    stored: dict[str, Any] = {"cells": {}, "tuning": {}}
    if options.output.exists():
        stored = json.loads(options.output.read_text(encoding="utf-8"))
    part = "tuning" if options.tune else "cells"
    asked: Collection[str] = rates_of(options) if options.tune else cells_of(options)
    known = {cell: figures.get("setting") for cell, figures in stored[part].items()}
    refuse_mixture(known, setting(options), options.output, asked if options.fresh else ())
    bench = Bench(options)
    if options.tune:
        tune(bench, stored)
        return
    for cell, (name, method, images, seed) in cells_of(options).items():
        if cell in stored["cells"] and not options.fresh:
            continue
        figures = run_cell(bench, name, method, images, seed)
        about = {"setting": setting(options), "circumstances": circumstances()}
        stored["cells"][cell] = figures | about
        write_json(options.output, stored)
        print(f"{cell}: IoU {100 * figures['iou_centre']:.1f}", flush=True)
    print(table(stored["cells"]))


def cells_of(options: argparse.Namespace) -> dict[str, tuple[str, str, int, int]]:
    """Data set, method, number of images and seed of each cell, one seed after the other."""
    cells = {}
    if "plain" in options.methods:
        cells = {f"{name}/plain": (name, "plain", min(options.images), 0) for name in options.only}
    for seed in options.seeds:
        for name in options.only:
            for images in options.images:
                for method in options.methods:
                    if method != "plain":
                        cell = f"{name}/{method}/n{images}/seed{seed}"
                        cells[cell] = (name, method, images, seed)
    return cells


def tune(bench: Bench, stored: dict[str, Any]) -> None:
    """Held-out IoU within the ``train`` folders, by learning rate."""
    for key, (name, rate) in rates_of(bench.options).items():
        if key in stored["tuning"] and not bench.options.fresh:
            continue
        record = bench.trained(name, "plm", 64, 0, rate).metadata.training
        figures = {k: record[k] for k in ("held_out_iou", "steps")}
        stored["tuning"][key] = figures | {"setting": setting(bench.options)}
        write_json(bench.options.output, stored)
        print(f"{key}: held-out IoU {100 * record['held_out_iou']:.1f}", flush=True)


def rates_of(options: argparse.Namespace) -> dict[str, tuple[str, float]]:
    """Data set and learning rate of each comparison within the ``train`` folders."""
    return {f"{name}/rate{rate:g}": (name, rate) for name in options.only for rate in RATES}


def setting(options: argparse.Namespace) -> dict[str, Any]:
    """Of the options those that figures depend on."""
    names = (
        "steps", "learning_rate", "objects_a_step", "objects", "planes", "spread_objects",
        "backbone",
    )  # fmt: skip
    return {name: getattr(options, name) for name in names}


def table(cells: dict[str, dict[str, Any]]) -> str:
    """Markdown: percent, mean over seeds, with the SD where there are several."""
    columns = ("iou_centre", "boundary_f_centre", "iou_random", "spread_sd")
    heads = ("IoU, click in the middle", "boundary F", "IoU, click anywhere", "SD over 20 clicks")
    lines = [f"| | {' | '.join(heads)} |", "|---" * (len(heads) + 1) + "|"]
    for name in NAMES:
        for method, title in METHODS.items():
            for images in (None,) if method == "plain" else (16, 64):
                prefix = f"{name}/{method}" + ("" if images is None else f"/n{images}/")
                found = [v for k, v in sorted(cells.items()) if k.startswith(prefix)]
                if method == "plain":
                    found = [cells[prefix]] if prefix in cells else []
                if not found:
                    continue
                label = f"{name}, {title}" + ("" if images is None else f", {images} images")
                values = [_percent([c[key] for c in found if key in c]) for key in columns]
                lines.append(f"| {label} | {' | '.join(values)} |")
    return "\n".join(lines)


def _percent(values: Sequence[float]) -> str:
    if not values:
        return "-"
    mean = f"{100 * np.mean(values):.1f}"
    return mean if len(values) == 1 else f"{mean} ± {100 * np.std(values, ddof=1):.1f}"


def main() -> None:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    add = parser.add_argument
    add("--only", nargs="+", choices=NAMES, default=NAMES)
    add("--methods", nargs="+", choices=METHODS, default=list(METHODS))
    add("--images", nargs="+", type=int, default=[16, 64], help="training images")
    add("--seeds", nargs="+", type=int, default=[0, 1, 2])
    add("--steps", type=int, default=STEPS, help="of training (%(default)s)")
    add("--learning-rate", type=float, default=None, help="instead of the usual one")
    add("--objects-a-step", type=int, default=6)
    add("--objects", type=int, default=4, help="test objects of each image (%(default)s)")
    add("--planes", type=int, help="only so many test images")
    add("--spread-objects", type=int, default=18)
    add("--backbone", default="embedded", help="name or file (%(default)s)")
    add("--data", type=Path, help="folder of the data sets")
    add("--tune", action="store_true", help="compare learning rates within the train folders")
    add("--fresh", action="store_true", help="run known cells again")
    add("--quick", action="store_true", help="a trial: few of everything")
    add("--output", type=Path, default=RESULTS / "clicks.json")
    options = parser.parse_args()
    if options.quick:
        options.steps, options.objects, options.planes, options.spread_objects = 4, 2, 3, 2
        options.images, options.seeds = [16], [0]
        options.output = Path("output") / "clicks-quick.json"
    run(options)


if __name__ == "__main__":
    main()
