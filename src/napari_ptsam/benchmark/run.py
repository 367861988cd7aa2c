"""Running a study: what is missing of it, one training after the other."""

from __future__ import annotations

import shutil
import time
import traceback
from collections.abc import Generator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from napari_ptsam.benchmark.config import BenchmarkConfig, Cell, DataConfig
from napari_ptsam.benchmark.datasets import DataSet
from napari_ptsam.benchmark.memory import PeakMemory
from napari_ptsam.benchmark.results import Result, Results, Status
from napari_ptsam.benchmark.shared import SharedEmbeddings, clock
from napari_ptsam.benchmark.study import Choice, Study
from napari_ptsam.benchmark.systems import Learned, Task, learn
from napari_ptsam.errors import PtsamError
from napari_ptsam.metrics import Overlap, Scores, boundary_f, count_overlap

PICTURES = 2
"""Test images of each data set that are shown, of the smallest size's first training."""


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


def run_benchmark(study: Study, choice: Choice) -> Generator[CellStep | CellEnd, None, None]:
    """Run what is missing; each result is written as soon as it is known.

    Yields
    ------
    CellStep, CellEnd
        During and after each cell. Closing the iterator cancels the cell that is running.
    """
    started = time.monotonic()
    cells, shared = study.open(choice), SharedEmbeddings(study.backbone)
    for number, cell in enumerate(cells, start=1):
        if choice.hours is not None and time.monotonic() - started > 3600 * choice.hours:
            return
        data, reason = study.data[cell.data], study.reason(cell)
        if isinstance(data, str) or reason is not None:
            splits = study.splits(cell.data)
            result = study.results.write(cell, splits, Status.SKIPPED, reason=reason)
        else:
            result = yield from _run(_Place(study, data, cell, number, len(cells), shared))
        yield CellEnd(cell, number, len(cells), result)


@dataclass(frozen=True)
class _Place:
    """A cell that is run, with all around it."""

    study: Study
    data: DataSet
    cell: Cell
    number: int
    total: int
    shared: SharedEmbeddings

    def step(self, phase: str, step: int, steps: int) -> CellStep:
        return CellStep(self.cell, self.number, self.total, phase, step, steps)

    def seconds(self) -> float:
        """Of a clock that goes on as if nothing had been encoded for other cells."""
        return clock(self.study.backbone.device) + self.shared.seconds_saved


def _run(at: _Place) -> Generator[CellStep, None, Result]:
    """One cell to its result, whatever that is."""
    results, cell, splits = at.study.results, at.cell, at.data.splits
    backbone = at.study.backbone.identity
    scratch = results.open_scratch(cell, splits, backbone)
    try:
        content = yield from _measure(at)
        result = results.write(cell, splits, Status.DONE, **content)
    except (KeyboardInterrupt, GeneratorExit):
        # The training's checkpoint stays, so that the next run goes on from it.
        results.write(cell, splits, Status.CANCELLED, reason="stopped by the user")
        raise
    except Exception as error:
        reason = str(error) if isinstance(error, PtsamError) else repr(error)
        details = "" if isinstance(error, PtsamError) else traceback.format_exc()
        result = results.write(
            cell, splits, Status.FAILED, reason=reason, traceback=details, backbone=backbone
        )
    shutil.rmtree(scratch)
    return result


def _measure(at: _Place) -> Generator[CellStep, None, dict[str, Any]]:
    """Train and test: the content of a result."""
    study, cell = at.study, at.cell
    task = Task(
        at.data.train, at.data.splits.training(cell.split, cell.size), at.data.config.target,
        cell.training_seed, study.config.training, study.backbone, study.results.scratch(cell),
        at.shared,
    )  # fmt: skip
    memory, started = PeakMemory(study.backbone.device), at.seconds()
    began = time.perf_counter()
    run = learn(_named(study.config.methods, cell.method), task)
    while True:
        try:
            step = next(run)
        except StopIteration as end:
            learned: Learned = end.value
            break
        yield at.step(step.phase, step.step, step.steps)
    seconds = at.seconds() - started
    tested = yield from _test(at, learned)
    passed = time.perf_counter() - began
    # A training that went on from a checkpoint took longer than this run knows of.
    whole = not learned.facts["resumed"]
    return {
        **tested,
        "train_seconds": round(seconds, 2) if whole else None,
        "wall_seconds": round(passed, 2) if whole else None,
        "peak_memory_bytes": memory.read(at.shared.nbytes),
        "parameters": learned.parameters,
        "file_bytes": learned.nbytes,
        "backbone": study.backbone.identity,
        "device": str(study.backbone.device),
        **learned.facts,
    }


def _test(at: _Place, learned: Learned) -> Generator[CellStep, None, dict[str, Any]]:
    """Scores of the test images, seconds for each, and masks that the report will show."""
    study, data, cell = at.study, at.data, at.cell
    shown = _shown(study.config, cell, data)
    overlaps: dict[str, Overlap] = {}
    images: dict[str, dict[str, float]] = {}
    pictures: list[dict[str, str]] = []
    spent = 0.0
    for i, key in enumerate(data.splits.test, start=1):
        test = data.test.read(key)
        started = at.seconds()
        mask = learned.segment(test.image)
        spent += at.seconds() - started
        overlaps[key] = overlap = count_overlap(mask, test.truth)
        edges = boundary_f(mask, test.truth)
        images[key] = {"dice": overlap.dice, "iou": overlap.iou, "boundary_f": edges}
        if key in shown:
            pictures.append({"key": key, "file": _keep(study.results, cell, len(pictures), mask)})
        yield at.step("test", i, len(data.splits.test))
    edges_mean = float(np.mean([image["boundary_f"] for image in images.values()]))
    return {
        "scores": Scores(overlaps).to_dict() | {"boundary_f_mean": edges_mean},
        "seconds_per_image": round(spent / len(images), 4),
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
