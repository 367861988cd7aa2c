"""A study with its data and its backbone: what is there, what can run here, what is left to run."""

from __future__ import annotations

import fnmatch
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from napari_ptsam.backbones import Backbone, load_backbone
from napari_ptsam.benchmark.config import BenchmarkConfig, Cell, MethodConfig
from napari_ptsam.benchmark.datasets import DataSet, keep_splits, open_data
from napari_ptsam.benchmark.published import Report
from napari_ptsam.benchmark.results import Results, Status
from napari_ptsam.benchmark.splits import Splits
from napari_ptsam.benchmark.systems import make_baseline
from napari_ptsam.devices import choose_device
from napari_ptsam.errors import DownloadError, InputError, PtsamError
from napari_ptsam.methods import build_method
from napari_ptsam.tiling import Scaling


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
        return open_cells(self.results, choice, splits, self.backbone.identity)

    def failed(self, choice: Choice) -> list[Cell]:
        """Of the cells that a choice takes those whose result is a failure."""
        found = ((c, self.results.read(c, self.splits(c.data))) for c in self.config.cells())
        return [
            cell
            for cell, result in found
            if choice.takes(cell) and result is not None and result["status"] == Status.FAILED
        ]


def open_cells(
    results: Results, choice: Choice, splits: Mapping[str, Splits | None], backbone: str | None
) -> list[Cell]:
    """The cells of a study that have no result that stands.

    Parameters
    ----------
    splits
        By data set; None where they are not known, so that they are not compared.
    backbone
        Identity of the backbone: the weights of a name may change with a version, and those of
        a file at any time. None where it is not known, so that it is not compared.
    """

    def stands(cell: Cell) -> bool:
        known = results.read(cell, splits[cell.data])
        if known is None or (backbone is not None and known.get("backbone", backbone) != backbone):
            return False
        failed: bool = known["status"] == Status.FAILED
        return known["status"] == Status.DONE or (failed and not choice.retry)

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
            data[entry.name] = opened = open_data(config, entry, folder, report)
        except DownloadError as error:
            data[entry.name] = str(error)
        else:
            keep_splits(config, opened)
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
