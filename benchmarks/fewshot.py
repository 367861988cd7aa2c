"""Test Dice after learning from 16 images: ``python -m benchmarks.fewshot``.

Specialists and what users would take instead, on four data sets of real images and on procedural
ones of types that the backbone was not trained on, for several draws of the training images.
Every cell of the table is written to ``benchmarks/results/fewshot.json`` as soon as it is known,
and a cell that is there is not run again (``--fresh`` forgets them).
"""

from __future__ import annotations

import argparse
import json
import os
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from benchmarks import data, unseen
from benchmarks.record import RESULTS, circumstances, write_json
from benchmarks.settings import refuse_mixture
from napari_ptsam.backbones import Backbone, load_backbone
from napari_ptsam.backbones.embedded import build_embedded, shape_of_state
from napari_ptsam.baselines import Baseline
from napari_ptsam.baselines.forest import ForestBaseline
from napari_ptsam.baselines.nnunet import NnUnetBaseline
from napari_ptsam.baselines.unet import UNetBaseline
from napari_ptsam.benchmark.pool import Annotated
from napari_ptsam.demo_picture import Comparison, save_comparison
from napari_ptsam.examples import load_examples
from napari_ptsam.labels import read_labels
from napari_ptsam.metrics import Scores, count_overlap
from napari_ptsam.normalize import Normalization
from napari_ptsam.planes import open_planes
from napari_ptsam.specialist import Specialist

BASELINES: dict[str, Callable[[], Baseline]] = {
    "pixel-classifier": ForestBaseline,
    "pixel-classifier-balanced": lambda: ForestBaseline(balanced=True),
    "unet": UNetBaseline,
}

Predictor = Callable[[Sequence[NDArray[Any]]], Iterator[NDArray[np.bool_]]]
"""Images as they are stored to their masks HxW."""

SHORT_NNUNET = Path(__file__).parent / "nnunet_short"
NNUNET_GIGABYTES = 0.25
"""What nnU-Net plans patches for: of some 224 x 224 pixels, two to a batch."""

PANEL_ROWS = 5
"""Test images in a picture, evenly from the worst to the best."""

METHODS = {
    "ptsam-decoder": "PTSAM, decoder prompts (2,048 numbers)",
    "ptsam-encoder": "PTSAM, decoder and encoder prompts",
    "pixel-classifier": "Pixel classifier (random forest)",
    "pixel-classifier-balanced": "Pixel classifier, balanced pixels",
    "unet": "U-Net from nothing, same augmentation",
    "nnunet": "nnU-Net, 500 steps",
    "random-backbone": "PTSAM, decoder prompts, backbone of random weights",
    "random-decoder": "The whole mask decoder trained, on a backbone of random weights",
}

NAMES = (*data.NAMES, *unseen.SETS)


def learn(method: str, data_set: data.DataSet, seed: int, backbone: str, preset: str) -> Predictor:
    """Train one method on one data set."""
    if method in BASELINES:
        return _learn_baseline(BASELINES[method](), data_set, seed)
    if method == "nnunet":
        return _learn_nnunet(data_set, seed)
    frozen = random_backbone(backbone) if "random" in method else load_backbone(backbone)
    specialist = Specialist.train(
        data_set.train_images,
        data_set.train_masks,
        planes=data_set.train_planes,
        backbone=frozen,
        encoder_prompts=method == "ptsam-encoder",
        method="decoder" if method == "random-decoder" else "ptsam",
        preset=preset,
        seed=seed,
        class_name=data_set.target,
    )
    return lambda images: (specialist.predict(image).mask for image in images)


def random_backbone(name: str) -> Backbone:
    """The embedded backbone's architecture, with the weights that training starts from."""
    shape = shape_of_state(load_backbone(name).sam.state_dict())
    return Backbone(build_embedded(shape, seed=0), "embedded-random", "random", "embedded")


def _learn_baseline(baseline: Baseline, data_set: data.DataSet, seed: int) -> Predictor:
    images, masks, normalization = _pairs(data_set)
    probability = baseline.fit(images, masks, seed)
    return lambda tests: (probability(normalization.apply(image)) >= 0.5 for image in tests)


def _learn_nnunet(data_set: data.DataSet, seed: int) -> Predictor:
    """nnU-Net, which is started once for all test images."""
    os.environ["nnUNet_extTrainer"] = str(SHORT_NNUNET)  # noqa: SIM112 (nnU-Net spells it so)
    images, masks, normalization = _pairs(data_set)
    scratch = tempfile.TemporaryDirectory(prefix="nnunet-")
    made = NnUnetBaseline(Path(scratch.name), "ShortTrainer", "cpu", NNUNET_GIGABYTES)
    fitted = made.fit(images, masks, seed)

    def predict(tests: Sequence[NDArray[Any]]) -> Iterator[NDArray[np.bool_]]:
        with scratch:
            found = fitted.predict([normalization.apply(image) for image in tests])
        return (probability >= 0.5 for probability in found)

    return predict


def _pairs(
    data_set: data.DataSet,
) -> tuple[list[NDArray[np.float32]], list[NDArray[np.bool_]], Normalization]:
    examples, normalization = load_examples(
        open_planes(data_set.train_images),
        open_planes(data_set.train_masks),
        planes=data_set.train_planes,
        normalization=Normalization(),
    )
    return [e.image for e in examples], [e.mask for e in examples], normalization


def read_test_images(data_set: data.DataSet) -> Iterator[Annotated]:
    """Read the test images, one at a time."""
    images, masks = open_planes(data_set.test_images), open_planes(data_set.test_masks)
    places = {key: i for i, key in enumerate(masks.keys)}
    for i in data_set.test_planes or range(len(images)):
        key = images.keys[i]
        yield Annotated(key, images.read(i), read_labels(masks, places[key]) > 0)


def run_cell(
    method: str, data_set: data.DataSet, seed: int, options: argparse.Namespace
) -> tuple[dict[str, Any], list[Comparison]]:
    """Train and test one method on one data set: its figures, and rows for a picture."""
    started = time.perf_counter()
    predict = learn(method, data_set, seed, options.backbone, options.preset)
    trained = time.perf_counter()
    overlaps, rows = {}, []
    tests = list(read_test_images(data_set))
    for test, mask in zip(tests, predict([t.image for t in tests]), strict=True):
        overlap = count_overlap(mask, test.truth)
        overlaps[test.key] = overlap
        caption = f"{data_set.name}, {test.key[:24]}: Dice {100 * overlap.dice:.1f} %, {method}"
        rows.append((overlap.dice, Comparison(_shown(test.image), test.truth, mask, caption)))
    tested = time.perf_counter()
    rows.sort(key=lambda row: row[0])
    chosen = np.linspace(0, len(rows) - 1, min(PANEL_ROWS, len(rows))).round().astype(int)
    figures = Scores(overlaps).to_dict() | {
        "train_seconds": round(trained - started, 1),
        "test_seconds": round(tested - trained, 1),
    }
    return figures, [rows[i][1] for i in chosen]


def _shown(image: NDArray[Any]) -> NDArray[np.float32]:
    return Normalization().apply(image)


def table(cells: dict[str, dict[str, Any]], names: Sequence[str]) -> str:
    """Markdown: test Dice in percent, mean over draws of the training images, and its SD over them.

    A dash where no draw has been run; no SD for a single one.
    """
    lines = ["| test Dice, % | " + " | ".join(names) + " |", "|---" * (len(names) + 1) + "|"]
    for method, title in METHODS.items():
        values = []
        for name in names:
            prefix = f"{method}/{name}/seed"
            found = [100 * c["dice_mean"] for key, c in cells.items() if key.startswith(prefix)]
            spread = f" ± {np.std(found, ddof=1):.1f}" if len(found) > 1 else ""
            values.append(f"{np.mean(found):.1f}{spread}" if found else "-")
        lines.append(f"| {title} | " + " | ".join(values) + " |")
    return "\n".join(lines)


def run(options: argparse.Namespace) -> None:
    """Run the cells that are asked for and not yet known; print the table.

    Raises
    ------
    InputError
        If the table has cells of other settings that are not run again.
    """
    setting = {name: getattr(options, name) for name in ("images", "preset", "backbone")}
    asked = {
        f"{method}/{name}/seed{seed}": (seed, method, name)
        for seed, method, name in product(options.seeds, options.methods, options.only)
    }
    known = {cell: figures.get("setting") for cell, figures in read_cells(options.output).items()}
    refuse_mixture(known, setting, options.output, asked if options.fresh else ())
    for cell, (seed, method, name) in asked.items():
        if cell in read_cells(options.output) and not options.fresh:
            continue
        if missing := NnUnetBaseline(Path()).missing if method == "nnunet" else None:
            print(f"{cell} is left out. {missing}")
            continue
        print(f"{cell} ...", flush=True)
        figures, rows = run_cell(method, load(name, seed, options), seed, options)
        figures |= {"setting": setting, "circumstances": circumstances()}
        # Read again: another process may fill other cells of the same table.
        write_json(options.output, {"cells": read_cells(options.output) | {cell: figures}})
        print(f"  Dice {100 * figures['dice_mean']:.1f}, {figures['train_seconds']} s training")
        options.panels.mkdir(parents=True, exist_ok=True)
        save_comparison(rows, options.panels / f"{name}-{method}-{seed}.png")
    print(table(read_cells(options.output), NAMES))


def read_cells(path: Path) -> dict[str, dict[str, Any]]:
    """The cells that are known so far, by ``method/data set/seedN``."""
    cells: dict[str, dict[str, Any]] = {}
    if path.exists():
        cells = json.loads(path.read_text(encoding="utf-8"))["cells"]
    return cells


def load(name: str, seed: int, options: argparse.Namespace) -> data.DataSet:
    """The data set of a name with one draw of training images."""
    if name in unseen.SETS:
        return unseen.load(name, options.made, options.images, seed)
    return data.load(name, data.data_folder(options.data), options.images, seed)


def main() -> None:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--only", nargs="+", choices=NAMES, default=NAMES)
    parser.add_argument("--methods", nargs="+", choices=METHODS, default=list(METHODS))
    parser.add_argument("--images", type=int, default=16, help="training images (%(default)s)")
    parser.add_argument(
        "--seeds", nargs="+", type=int, default=[0, 1, 2], help="draws of the training images"
    )
    parser.add_argument("--preset", default="standard")
    parser.add_argument("--backbone", default="embedded", help="name or file (%(default)s)")
    parser.add_argument("--data", type=Path, help="folder of the data sets")
    parser.add_argument(
        "--made",
        type=Path,
        default=Path("output") / "unseen",
        help="folder of the procedural data sets, drawn if they are not there (%(default)s)",
    )
    parser.add_argument("--fresh", action="store_true", help="run known cells again")
    parser.add_argument("--output", type=Path, default=RESULTS / "fewshot.json")
    parser.add_argument(
        "--panels",
        type=Path,
        default=Path("output") / "fewshot",
        help="folder for pictures of results (%(default)s); not for committing, as they show "
        "images that are not ours",
    )
    run(parser.parse_args())


if __name__ == "__main__":
    main()
