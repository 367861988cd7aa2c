"""Running a study: what is missing of it, one training after the other."""

from __future__ import annotations

import fnmatch
import shutil
import time
import traceback
from collections.abc import Generator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from napari_ptsam.backbones import Backbone, load_backbone
from napari_ptsam.benchmark.config import BenchmarkConfig, Cell, DataConfig, MethodConfig
from napari_ptsam.benchmark.datasets import DataSet, open_data
from napari_ptsam.benchmark.memory import PeakMemory
from napari_ptsam.benchmark.published import Report
from napari_ptsam.benchmark.results import Result, Results, Status
from napari_ptsam.benchmark.splits import Splits
from napari_ptsam.benchmark.systems import Learned, Task, learn, make_baseline
from napari_ptsam.devices import choose_device
from napari_ptsam.errors import DownloadError, InputError, PtsamError
from napari_ptsam.methods import build_method
from napari_ptsam.metrics import Overlap, Scores, boundary_f, count_overlap
from napari_ptsam.tiling import Scaling

PICTURES = 2
"""Test images of each data set that are shown, of the smallest size's first training."""


@dataclass(frozen=True)
class Choice:
    """What of a study to run now.

    Attributes
    ----------
    only
        Patterns of cell names, such as ``dsb2018/*/n16*``; empty for all.
    hours
        No further training is started after so many.
    retry
        Run those again that failed.
    """

    only: Sequence[str] = ()
    hours: float | None = None
    retry: bool = False

    def takes(self, cell: Cell) -> bool:
        """Whether the patterns name this cell."""
        return not self.only or any(fnmatch.fnmatch(cell.name, p) for p in self.only)


@dataclass(frozen=True)
class CellStep:
    """How far a training or its test has come.

    Attributes
    ----------
    cell
        Which.
    number, total
        Its place among those that are to be run.
    phase
        ``embed``, ``train``, ``refit`` or ``test``.
    step, steps
        Of the phase.
    """

    cell: Cell
    number: int
    total: int
    phase: str
    step: int
    steps: int


@dataclass(frozen=True)
class CellEnd:
    """A cell has its result.

    Attributes
    ----------
    cell, number, total
        As in `CellStep`.
    result
        What its file holds.
    """

    cell: Cell
    number: int
    total: int
    result: Result


@dataclass(frozen=True)
class Study:
    """A study with all that its trainings share.

    Attributes
    ----------
    config
        The study.
    results
        In its output folder.
    backbone
        Frozen, on its device.
    data
        Data sets by name, or the reason why one cannot be had.
    unable
        Reasons why methods cannot run here, by their names.
    """

    config: BenchmarkConfig
    results: Results
    backbone: Backbone
    data: dict[str, DataSet | str]
    unable: dict[str, str]

    def splits(self, name: str) -> Splits | None:
        """Of a data set, None if it cannot be had."""
        data = self.data[name]
        return None if isinstance(data, str) else data.splits

    def reason(self, cell: Cell) -> str | None:
        """Why a cell cannot be run here; None if it can."""
        data = self.data[cell.data]
        if isinstance(data, str):
            return data
        there = len(data.splits.training(cell.split, cell.size))
        if there < cell.size:
            return f"there are {there} training images only"
        return self.unable.get(cell.method)

    def open(self, choice: Choice) -> list[Cell]:
        """The cells that a run would try."""
        splits = {name: self.splits(name) for name in self.data}
        return open_cells(self.results, choice, splits)


def open_cells(results: Results, choice: Choice, splits: Mapping[str, Splits | None]) -> list[Cell]:
    """The cells of a study that have no result that stands.

    Parameters
    ----------
    splits
        By data set; None where they are not known, so that any result stands.
    """

    def stands(cell: Cell) -> bool:
        known = results.read(cell, splits[cell.data])
        status = None if known is None else known["status"]
        return status == Status.DONE or (status == Status.FAILED and not choice.retry)

    return [c for c in results.config.cells() if choice.takes(c) and not stands(c)]


def prepare(
    config: BenchmarkConfig, output: Path, folder: Path, report: Report | None = None
) -> Study:
    """Open the data, load the backbone, and see which methods can run here.

    Parameters
    ----------
    output
        Of the results.
    folder
        Of the data sets.
    report
        Called during downloads.

    Raises
    ------
    InputError
        If the study names a method, a setting or data that there are not.
    BackboneError
        If the backbone cannot be had.
    """
    backbone = load_backbone(backbone_name(config), choose_device(config.device))
    data: dict[str, DataSet | str] = {}
    for entry in config.data:
        try:
            data[entry.name] = open_data(config, entry, folder, report)
        except DownloadError as error:
            data[entry.name] = str(error)
    reasons = {m.name: why_unable(m, backbone, output) for m in config.methods}
    unable = {name: reason for name, reason in reasons.items() if reason is not None}
    return Study(config, Results(config, output), backbone, data, unable)


def backbone_name(config: BenchmarkConfig) -> str | Path:
    """The study's backbone: a name, or a checkpoint beside the study's file."""
    beside = config.beside(config.backbone)
    return beside if beside.is_file() else config.backbone


def why_unable(method: MethodConfig, backbone: Backbone, folder: Path) -> str | None:
    """What is missing to run a method here; None if nothing.

    Raises
    ------
    InputError
        If there is no such method, or it has no such settings.
    """
    if method.baseline:
        return make_baseline(method, folder, backbone.device.type, Scaling(None)).missing
    try:
        made = build_method(method.method, dict(method.settings), backbone)
    except PtsamError as error:
        raise InputError(f"The row '{method.name}': {error}") from error
    try:
        made.prepare()
    except PtsamError as error:
        return str(error)
    return None


def run_benchmark(study: Study, choice: Choice) -> Generator[CellStep | CellEnd, None, None]:
    """Run what is missing; each result is written as soon as it is known.

    Yields
    ------
    CellStep, CellEnd
        During and after each cell. Closing the iterator cancels the cell that is running.
    """
    started = time.monotonic()
    cells = study.open(choice)
    for number, cell in enumerate(cells, start=1):
        if choice.hours is not None and time.monotonic() - started > 3600 * choice.hours:
            return
        data, reason = study.data[cell.data], study.reason(cell)
        if isinstance(data, str) or reason is not None:
            splits = study.splits(cell.data)
            result = study.results.write(cell, splits, Status.SKIPPED, reason=reason)
        else:
            result = yield from _run(study, data, cell, number, len(cells))
        yield CellEnd(cell, number, len(cells), result)


def _run(
    study: Study, data: DataSet, cell: Cell, number: int, total: int
) -> Generator[CellStep, None, Result]:
    """One cell to its result, whatever that is."""
    results, scratch = study.results, study.results.scratch(cell)
    scratch.mkdir(parents=True, exist_ok=True)
    try:
        content = yield from _measure(study, data, cell, number, total)
        result = results.write(cell, data.splits, Status.DONE, **content)
    except (KeyboardInterrupt, GeneratorExit):
        # The training's checkpoint stays, so that the next run goes on from it.
        results.write(cell, data.splits, Status.CANCELLED, reason="stopped by the user")
        raise
    except Exception as error:
        reason = str(error) if isinstance(error, PtsamError) else repr(error)
        details = "" if isinstance(error, PtsamError) else traceback.format_exc()
        result = results.write(cell, data.splits, Status.FAILED, reason=reason, traceback=details)
    shutil.rmtree(scratch)
    return result


def _measure(
    study: Study, data: DataSet, cell: Cell, number: int, total: int
) -> Generator[CellStep, None, dict[str, Any]]:
    """Train and test: the content of a result."""
    config, method = study.config, _named(study.config.methods, cell.method)
    task = Task(
        data.train, data.splits.training(cell.split, cell.size), data.config.target,
        cell.training_seed, config.training, study.backbone, study.results.scratch(cell),
    )  # fmt: skip
    memory, started = PeakMemory(study.backbone.device), time.perf_counter()
    run = learn(method, task)
    while True:
        try:
            step = next(run)
        except StopIteration as end:
            learned: Learned = end.value
            break
        yield CellStep(cell, number, total, step.phase, step.step, step.steps)
    seconds = time.perf_counter() - started
    shown = _shown(config, cell, data)
    overlaps: dict[str, Overlap] = {}
    images: dict[str, dict[str, float]] = {}
    spent = 0.0
    pictures: list[dict[str, str]] = []
    for i, key in enumerate(data.splits.test, start=1):
        test = data.test.read(key)
        started = time.perf_counter()
        mask = learned.segment(test.image)
        spent += time.perf_counter() - started
        overlaps[key] = overlap = count_overlap(mask, test.truth)
        edges = boundary_f(mask, test.truth)
        images[key] = {"dice": overlap.dice, "iou": overlap.iou, "boundary_f": edges}
        if key in shown:
            pictures.append({"key": key, "file": _keep(study.results, cell, len(pictures), mask)})
        yield CellStep(cell, number, total, "test", i, len(data.splits.test))
    edges_mean = float(np.mean([image["boundary_f"] for image in images.values()]))
    return {
        "scores": Scores(overlaps).to_dict() | {"boundary_f_mean": edges_mean},
        # A training that went on from a checkpoint took longer than this run knows of.
        "train_seconds": None if learned.facts["resumed"] else round(seconds, 2),
        "seconds_per_image": round(spent / len(images), 4),
        "peak_memory_bytes": memory.read(),
        "parameters": learned.parameters,
        "file_bytes": learned.nbytes,
        "backbone": study.backbone.identity,
        "device": str(study.backbone.device),
        **learned.facts,
        "pictures": pictures,
        "images": images,
    }


def _named(entries: Sequence[Any], name: str) -> Any:
    return next(entry for entry in entries if entry.name == name)


def _shown(config: BenchmarkConfig, cell: Cell, data: DataSet) -> set[str]:
    """Test images whose masks are kept for the report, the same for all methods."""
    entry: DataConfig = data.config
    first = (config.sizes[0], 0, config.seeds[0])
    if not entry.pictures or (cell.size, cell.split, cell.seed) != first:
        return set()
    rng = np.random.default_rng([config.split_seed, 0xF16])
    keys = data.splits.test
    return {keys[i] for i in rng.permutation(len(keys))[:PICTURES]}


def _keep(results: Results, cell: Cell, number: int, mask: Any) -> str:
    """Write a predicted mask; returns its path in the output folder."""
    path = Path("masks") / cell.data / cell.method / f"{number}.png"
    (results.output / path).parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(mask).convert("1").save(results.output / path)
    return path.as_posix()
