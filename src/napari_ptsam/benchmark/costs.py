"""How long a study will take on this machine, told before it starts.

What has been run tells of what has not. For the rest the backbone is timed on this machine, with
random weights where its own are not here yet: weights do not change the time.
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch

from napari_ptsam.backbones import Backbone, BackboneSpec, find, load_backbone
from napari_ptsam.backbones.architecture import ARCHITECTURES, build_sam
from napari_ptsam.backbones.download import local_file
from napari_ptsam.baselines.forest import ForestBaseline
from napari_ptsam.baselines.unet import UNetBaseline
from napari_ptsam.benchmark.config import BenchmarkConfig, Cell, DataConfig, MethodConfig
from napari_ptsam.benchmark.datasets import DataSet, open_data
from napari_ptsam.benchmark.published import SOURCE, find_published
from napari_ptsam.benchmark.results import Result, Results, Status, on_processors
from napari_ptsam.benchmark.splits import TEST_SHARE, Splits
from napari_ptsam.benchmark.study import backbone_name
from napari_ptsam.benchmark.systems import make_baseline
from napari_ptsam.devices import choose_device
from napari_ptsam.estimates import Speeds, estimate_training
from napari_ptsam.examples import load_examples
from napari_ptsam.normalize import Normalization
from napari_ptsam.tiling import Scaling, tile_count
from napari_ptsam.training.presets import training_plan
from napari_ptsam.training.scale import working_scale

ASSUMED_IMAGES = 500
"""In a data set that is not here and whose publication is not known to tell."""

NO_WEIGHTS = "random weights"
"""In the place of a backbone's identity, where its weights are still to be downloaded."""

PROBED_SIDE = 512
"""Side in pixels of the picture that baselines are timed on."""


@dataclass(frozen=True)
class Extent:
    """How much there is to do for each training on one data set.

    Attributes
    ----------
    test_images
        How many.
    tiles
        In how many each image is cut, on average.
    assumed
        Whether this is a guess, for the data are not here.
    """

    test_images: int
    tiles: int = 1
    assumed: bool = False


@dataclass(frozen=True)
class Cost:
    """What the open cells of one method will take.

    Attributes
    ----------
    method
        Its name.
    cells
        How many are open.
    seconds
        For all of them; None where nobody can tell before the first is done.
    measured
        Whether this is from cells that are done.
    processors
        Whether these are, in part at least, seconds of processor cores: of results that do not
        tell how long they took.
    """

    method: str
    cells: int
    seconds: float | None
    measured: bool
    processors: bool = False


class Measured(NamedTuple):
    """What cells that are done took.

    Attributes
    ----------
    seconds
        Mean for a cell.
    processors
        Whether they are those that processor cores worked, and not those that passed.
    """

    seconds: float
    processors: bool


def extents(config: BenchmarkConfig, folder: Path, backbone: Backbone) -> dict[str, Extent]:
    """What there is to do by data set; nothing is downloaded for it."""
    return {entry.name: _extent(config, entry, folder, backbone) for entry in config.data}


def estimate(
    cells: Sequence[Cell],
    results: Results,
    splits: Mapping[str, Splits | None],
    backbone: Backbone,
    found: Mapping[str, Extent],
) -> list[Cost]:
    """What the open cells will take, method by method.

    Parameters
    ----------
    cells
        Those that are to be run.
    results
        Of the study, which may hold finished cells.
    splits
        By data set; None where they are not known.
    backbone
        On the device that will run them.
    found
        From `extents`.
    """
    model, costs = _Timing(results.config, backbone), []
    done = measured_seconds(results, splits)
    for method in results.config.methods:
        mine = [cell for cell in cells if cell.method == method.name]
        if not mine:
            continue
        known = [done.get((method.name, cell.size)) for cell in mine]
        seconds = [
            model.seconds(method, cell.size, found[cell.data]) if one is None else one.seconds
            for cell, one in zip(mine, known, strict=True)
        ]
        told = [s for s in seconds if s is not None]
        total = sum(told) if len(told) == len(mine) else None
        worked = any(one is not None and one.processors for one in known)
        costs.append(Cost(method.name, len(mine), total, None not in known, worked))
    return costs


def planned_backbone(config: BenchmarkConfig) -> Backbone:
    """The study's backbone, with random weights where its own are still to be downloaded."""
    device, named = choose_device(config.device), find(backbone_name(config))
    if isinstance(named, BackboneSpec) and not local_file(named).is_file():
        with torch.random.fork_rng(devices=[]):
            sam = build_sam(ARCHITECTURES[named.architecture])
        return Backbone(sam, named.name, NO_WEIGHTS, named.architecture).to(device)
    return load_backbone(backbone_name(config), device)


def measured_seconds(
    results: Results, splits: Mapping[str, Splits | None]
) -> dict[tuple[str, int], Measured]:
    """What the cells took that are done with the study's present settings, by method and size.

    Other weights of the backbone count: they do not change the time.

    Parameters
    ----------
    splits
        By data set; None where they are not known.
    """
    passed: dict[tuple[str, int], list[float]] = {}
    older: dict[tuple[str, int], list[Measured]] = {}
    for cell, result in results.all(splits):
        if result is None or result["status"] != Status.DONE or result["train_seconds"] is None:
            continue
        key = (cell.method, cell.size)
        if result.get("wall_seconds") is None:
            older.setdefault(key, []).append(_told_seconds(result))
        else:
            passed.setdefault(key, []).append(result["wall_seconds"])
    found = {
        key: Measured(float(np.mean([m.seconds for m in told])), any(m.processors for m in told))
        for key, told in older.items()
    }
    return found | {key: Measured(float(np.mean(told)), False) for key, told in passed.items()}


def _told_seconds(result: Result) -> Measured:
    """Of a result that does not tell how long the cell took: those of its training and test."""
    tested: float = result["seconds_per_image"] * result["scores"]["n"]
    return Measured(float(result["train_seconds"]) + tested, on_processors(result))


def _extent(config: BenchmarkConfig, entry: DataConfig, folder: Path, backbone: Backbone) -> Extent:
    if entry.published and not (folder / entry.published / SOURCE).is_file():
        count = find_published(entry.published).count or ASSUMED_IMAGES
        return Extent(round(TEST_SHARE * count), assumed=True)
    data = open_data(config, entry, folder)
    return Extent(len(data.splits.test), _tiles(config, data, backbone))


def _tiles(config: BenchmarkConfig, data: DataSet, backbone: Backbone) -> int:
    """In how many tiles an image of the smallest training is cut, on average."""
    if config.training.scale == "fit":
        return 1
    numbers = data.train.numbers(data.splits.training(0, config.sizes[0]))
    examples, _ = load_examples(
        data.train.images, data.train.masks, planes=numbers, label=data.train.label,
        normalization=Normalization(),
    )  # fmt: skip
    scaling, size = working_scale(config.training.scale, examples, backbone), backbone.input_size
    counts = [tile_count(example.image.shape, scaling, size) for example in examples]
    return round(float(np.mean(counts)))


class _Timing:
    """Seconds of a cell, from short trials on this machine."""

    def __init__(self, config: BenchmarkConfig, backbone: Backbone) -> None:
        self.config = config
        self.backbone = backbone
        self.speeds = Speeds()
        self._probed: dict[str, tuple[float, float] | None] = {}

    def seconds(self, method: MethodConfig, size: int, extent: Extent) -> float | None:
        """Of one cell; None where it cannot be told."""
        if not method.baseline:
            return self._of_method(method, size, extent)
        if method.name not in self._probed:
            self._probed[method.name] = self._probe(method)
        probed = self._probed[method.name]
        if probed is None:
            return None
        training, predicting = probed
        per_image = method.baseline == "forest"
        return training * (size if per_image else 1) + predicting * extent.test_images

    def _of_method(self, method: MethodConfig, size: int, extent: Extent) -> float:
        shared = self.config.training
        speed = self.speeds.of(self.backbone, method.method, method.settings)
        tunes = speed.kept == 0
        plan = training_plan(
            shared.preset, encoder_prompts=tunes, steps=method.steps or shared.steps
        )
        batch = method.batch_size or shared.batch_size
        plan = plan if batch is None else replace(plan, batch_size=batch)
        search = shared.scale == "auto" and self.backbone.task_encoder is not None
        training = estimate_training(speed, plan, size, tiles=extent.tiles, search=search).seconds
        return training + extent.test_images * extent.tiles * (speed.encode + speed.decode)

    def _probe(self, method: MethodConfig) -> tuple[float, float] | None:
        """Seconds of a training (of a forest: for each image), and of a prediction."""
        device = self.backbone.device.type
        baseline = make_baseline(method, Path(), device, Scaling(None))
        if baseline.missing is not None or not isinstance(baseline, ForestBaseline | UNetBaseline):
            return None
        factor = 1.0
        if isinstance(baseline, UNetBaseline):
            factor, baseline = baseline.steps / 2, replace(baseline, steps=2)
        rng = np.random.default_rng(0)
        image = rng.uniform(0, 255, (PROBED_SIDE, PROBED_SIDE, 3)).astype(np.float32)
        mask = image[..., 0] > 127
        # What is imported and set up at the first call is no part of a training.
        baseline.fit([image[:128, :128]], [mask[:128, :128]], 0)
        started = time.perf_counter()
        predict = baseline.fit([image], [mask], 0)
        trained = time.perf_counter()
        predict(image)
        return factor * (trained - started), time.perf_counter() - trained
