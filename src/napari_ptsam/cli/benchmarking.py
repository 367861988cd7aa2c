"""The command `benchmark`: run a study, tell how long it takes, write its report."""

from __future__ import annotations

import argparse
import sys
from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING

from napari_ptsam.benchmark.config import BenchmarkConfig, read_config
from napari_ptsam.benchmark.costs import (
    NO_WEIGHTS,
    Cost,
    Extent,
    estimate,
    extents,
    planned_backbone,
)
from napari_ptsam.benchmark.datasets import DataSet, all_stored_splits, data_folder, open_data
from napari_ptsam.benchmark.report import write_report
from napari_ptsam.benchmark.results import Result, Results, Status, on_processors
from napari_ptsam.benchmark.run import CellEnd, CellStep, run_benchmark
from napari_ptsam.benchmark.study import Choice, Study, open_cells, prepare
from napari_ptsam.errors import PtsamError, TrainingError
from napari_ptsam.progress import Progress

if TYPE_CHECKING:
    from napari_ptsam.backbones import Backbone


def run(args: argparse.Namespace) -> None:
    """Run what is missing of a study and write its report, or only tell what there is to do.

    Raises
    ------
    TrainingError
        If trainings of those chosen have failed, in this run or an earlier one.
    """
    config = read_config(args.config)
    output = args.output or Path("output") / "benchmark" / config.path.stem
    folder = data_folder(config, args.data)
    choice = Choice(tuple(args.only), args.hours, args.retry)
    if args.dry_run:
        _plan(config, output, folder, choice)
    elif args.report_only:
        _report(Results(config, output), _data_here(config, folder))
    else:
        _run(config, output, folder, choice)


def _plan(config: BenchmarkConfig, output: Path, folder: Path, choice: Choice) -> None:
    """Print what a run would do and how long that takes."""
    results, backbone = Results(config, output), planned_backbone(config)
    identity = None if backbone.identity == NO_WEIGHTS else backbone.identity
    splits = all_stored_splits(config)
    cells = open_cells(results, choice, splits, identity)
    found = extents(config, folder, backbone)
    _say_costs(estimate(cells, results, splits, backbone, found), found, backbone)


def _run(config: BenchmarkConfig, output: Path, folder: Path, choice: Choice) -> None:
    with Progress(sys.stderr) as progress:

        def show(name: str, done: int, total: int | None) -> None:
            whole = None if total is None else round(total / 1e6)
            progress.update(f"downloading {name}, MB", round(done / 1e6), whole)

        study = prepare(config, output, folder, show)
    opened = {name: data for name, data in study.data.items() if isinstance(data, DataSet)}
    cells = [cell for cell in study.open(choice) if study.reason(cell) is None]
    results, backbone, splits = study.results, study.backbone, all_stored_splits(config)
    found = extents(config, folder, backbone)
    _say_costs(estimate(cells, results, splits, backbone, found), found, backbone)
    try:
        _run_cells(study, choice)
    finally:
        # Also of what there is when the user stops.
        _report(results, opened)
    failed = study.failed(choice)
    if failed:
        raise TrainingError(
            f"{len(failed)} of the study's trainings FAILED, {failed[0].name} among them. "
            f"{output / 'report.md'} tells why; --retry runs them again."
        )


def _run_cells(study: Study, choice: Choice) -> None:
    work = run_benchmark(study, choice)
    with Progress(sys.stderr) as progress, closing(work):
        for event in work:
            place = f"{event.number}/{event.total} {event.cell.name}"
            if isinstance(event, CellStep):
                progress.update(f"{place} {event.phase}", event.step, event.steps)
            if isinstance(event, CellEnd):
                print(f"{place}: {_ended(event.result)}", flush=True)


def _ended(result: Result) -> str:
    if result["status"] != Status.DONE:
        return f"{result['status']}: {result['reason']}"
    dice, seconds = 100 * result["scores"]["dice_mean"], result["train_seconds"]
    unit = "processor seconds" if on_processors(result) else "s"
    spent = "" if seconds is None else f", {seconds:.1f} {unit} of training"
    return f"Dice {dice:.1f}{spent}"


def _say_costs(costs: list[Cost], found: dict[str, Extent], backbone: Backbone) -> None:
    """Cells and hours by method, and in all."""
    if not costs:
        print("Nothing is left to run.")
        return
    for cost in costs:
        hours = "not known before one is done" if cost.seconds is None else _hours(cost.seconds)
        notes = ["as measured"] * cost.measured + ["processor hours"] * cost.processors
        basis = f" ({', '.join(notes)})" if notes else ""
        print(f"{cost.method:28}{cost.cells:6} cells   {hours}{basis}")
    known = sum(cost.seconds for cost in costs if cost.seconds is not None)
    more = " and what is not known" if any(cost.seconds is None for cost in costs) else ""
    if any(cost.processors for cost in costs):
        more += "; processor hours are of all cores together, so it may be less"
    unit = "GPU hours" if backbone.device.type == "cuda" else "hours"
    print(
        f"{'all':28}{sum(cost.cells for cost in costs):6} cells   about {known / 3600:.1f} {unit} "
        f"on this machine's {backbone.device}{more}"
    )
    guessed = [name for name, extent in found.items() if extent.assumed]
    if guessed:
        print(f"Not here yet, so their numbers of test images are assumed: {', '.join(guessed)}.")


def _hours(seconds: float) -> str:
    return f"{seconds / 3600:8.2f} h"


def _data_here(config: BenchmarkConfig, folder: Path) -> dict[str, DataSet]:
    """Data sets that can be opened without a download, for pictures in the report."""
    from napari_ptsam.benchmark.published import SOURCE

    opened = {}
    for data in config.data:
        if data.published and not (folder / data.published / SOURCE).is_file():
            continue
        try:
            opened[data.name] = open_data(config, data, folder)
        except PtsamError as error:
            print(f"No pictures of {data.name}: {error}", file=sys.stderr)
    return opened


def _report(results: Results, opened: dict[str, DataSet]) -> None:
    written = write_report(results, all_stored_splits(results.config), opened)
    print(f"Wrote {written}.")
