"""The committed study: its report says what its results are."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

from benchmarks import study
from napari_ptsam.benchmark.config import read_config
from napari_ptsam.benchmark.costs import measured_seconds
from napari_ptsam.benchmark.datasets import all_stored_splits

PICTURES = re.compile(r"[^\n]*test images drawn at random[^\n]*\n\n!\[Results on[^\n]*\n\n")
"""What a report has only where the data is."""


@pytest.mark.parametrize("name", study.STUDIES)
def test_the_committed_report_is_that_of_the_committed_results(name: str, tmp_path: Path) -> None:
    pytest.importorskip("matplotlib")
    config, page = read_config(study.HERE / f"{name}.toml"), study.PAGES / name
    text = study.report(config, study.RESULTS / name, tmp_path)
    committed = (page / "report.md").read_text(encoding="utf-8")
    assert PICTURES.sub("", text) == PICTURES.sub("", committed)
    for plot in re.findall(r"\]\((plots/[^)]*)\)", committed):
        assert (page / plot).is_file()
    table = (page / "results.csv").read_text(encoding="utf-8")
    assert (tmp_path / "results.csv").read_text(encoding="utf-8") == table


@pytest.mark.parametrize("name", study.STUDIES)
def test_a_run_goes_on_from_restored_results(name: str, tmp_path: Path) -> None:
    config = read_config(study.HERE / f"{name}.toml")
    results = study.restore(config, study.RESULTS / name, tmp_path)
    splits = all_stored_splits(config)
    kept = json.loads((study.RESULTS / name / "cells.json").read_text(encoding="utf-8"))["cells"]
    known = {tuple(vars(cell).values()) for cell, result in results.all(splits) if result}
    assert known == {tuple(cell["cell"].values()) for cell in kept}
    # The estimate of what is left to do is made from them.
    timed = {(c["cell"]["method"], c["cell"]["size"]) for c in kept if c.get("train_seconds")}
    assert set(measured_seconds(results, splits)) == timed


@pytest.mark.parametrize("name", study.STUDIES)
def test_no_picture_is_shown_that_its_licence_forbids(name: str) -> None:
    data = read_config(study.HERE / f"{name}.toml").data
    forbidden = {d.name for d in data if not d.pictures}
    shown = {path.stem for path in (study.PAGES / name / "plots" / "pictures").glob("*.png")}
    kept = {path.name for path in (study.RESULTS / name / "masks").glob("*")}
    assert forbidden
    assert not forbidden & (shown | kept)
