"""Results of a study in one file, and its report from there: ``python -m benchmarks.study``.

A run of ``napari-ptsam benchmark`` leaves a file for each training, with the scores of each test
image. What its report is made of is far less, and is kept in the repository::

    napari-ptsam benchmark benchmarks/reduced.toml -o DIR
    python -m benchmarks.study reduced --keep DIR    # into benchmarks/results/reduced
    python -m benchmarks.study reduced               # docs/study/reduced again, from there
    python -m benchmarks.study reduced --restore DIR    # back into DIR, where a run goes on
"""

from __future__ import annotations

import argparse
import json
import shutil
import tempfile
from pathlib import Path
from typing import Any

from benchmarks.record import RESULTS
from napari_ptsam.benchmark.config import BenchmarkConfig, read_config
from napari_ptsam.benchmark.datasets import DataSet, all_stored_splits, data_folder, open_data
from napari_ptsam.benchmark.report import write_report
from napari_ptsam.benchmark.results import Results
from napari_ptsam.errors import PtsamError

HERE = Path(__file__).parent
PAGES = HERE.parent / "docs" / "study"
STUDIES = ("reduced", "rates")


def keep(config: BenchmarkConfig, output: Path, folder: Path) -> None:
    """Write what a study's report is made of into a folder.

    Parameters
    ----------
    output
        Of the study.
    folder
        Gets ``cells.json``, a line for each training, and ``masks`` of the images shown.
    """
    splits = all_stored_splits(config)
    results, around, lines = Results(config, output), [], []
    for _, result in results.all(splits):
        if result is None:
            continue
        plain = {k: v for k, v in result.items() if k not in ("images", "traceback")}
        if plain["circumstances"] not in around:
            around.append(plain["circumstances"])
        plain["circumstances"] = around.index(plain["circumstances"])
        lines.append(json.dumps(plain))
    folder.mkdir(parents=True, exist_ok=True)
    parts = (f'"circumstances": {json.dumps(around)}', '"cells": [\n' + ",\n".join(lines) + "\n]")
    (folder / "cells.json").write_text("{\n" + ",\n".join(parts) + "\n}\n", encoding="utf-8")
    shutil.rmtree(folder / "masks", ignore_errors=True)
    if (output / "masks").is_dir():
        shutil.copytree(output / "masks", folder / "masks")


def restore(config: BenchmarkConfig, folder: Path, output: Path) -> Results:
    """Write what `keep` kept into an output folder of the study, from where a run goes on.

    Parameters
    ----------
    folder
        Given to `keep`.
    output
        Of the study; results that it has for other trainings stay.
    """
    kept = json.loads((folder / "cells.json").read_text(encoding="utf-8"))
    results = Results(config, output)
    for cell in kept["cells"]:
        _write(results, cell | {"circumstances": kept["circumstances"][cell["circumstances"]]})
    if (folder / "masks").is_dir():
        shutil.copytree(folder / "masks", output / "masks", dirs_exist_ok=True)
    return results


def report(config: BenchmarkConfig, folder: Path, page: Path) -> str:
    """Write a study's report from what `keep` wrote.

    Parameters
    ----------
    folder
        Given to `keep`.
    page
        Gets ``report.md``, ``results.csv`` and ``plots``.

    Returns
    -------
    str
        The report.
    """
    splits = all_stored_splits(config)
    with tempfile.TemporaryDirectory() as scratch:
        results = restore(config, folder, Path(scratch))
        written = write_report(results, splits, _data_here(config))
        page.mkdir(parents=True, exist_ok=True)
        shutil.rmtree(page / "plots", ignore_errors=True)
        for name in (written.name, "results.csv"):
            shutil.copy(results.output / name, page / name)
        if (results.output / "plots").is_dir():
            shutil.copytree(results.output / "plots", page / "plots")
    return (page / written.name).read_text(encoding="utf-8")


def _write(results: Results, result: dict[str, Any]) -> None:
    """A result's file, where the study looks for it."""
    cell = result["cell"]
    known = next((c for c in results.config.cells() if vars(c) == cell), None)
    if known is not None:
        path = results.path(known)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps(result), encoding="utf-8")


def _data_here(config: BenchmarkConfig) -> dict[str, DataSet]:
    """Data sets of which pictures may be shown, where they are there."""
    opened = {}
    for data in config.data:
        try:
            if data.pictures:
                opened[data.name] = open_data(config, data, data_folder(config))
        except PtsamError as error:
            print(f"No pictures of {data.name}: {error}")
    return opened


def main() -> None:
    """Keep or restore results, or write the report."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("study", choices=STUDIES)
    what = parser.add_mutually_exclusive_group()
    what.add_argument("--keep", type=Path, metavar="DIR", help="keep results of an output folder")
    what.add_argument("--restore", type=Path, metavar="DIR", help="put kept results into one")
    args = parser.parse_args()
    config = read_config(HERE / f"{args.study}.toml")
    if args.restore is not None:
        restore(config, RESULTS / args.study, args.restore)
        return
    if args.keep is not None:
        keep(config, args.keep, RESULTS / args.study)
    report(config, RESULTS / args.study, PAGES / args.study)
    print(f"Wrote {PAGES / args.study / 'report.md'}.")


if __name__ == "__main__":
    main()
