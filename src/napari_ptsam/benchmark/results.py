"""One JSON file for each training: what came of it, or why nothing did."""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Iterator, Mapping
from dataclasses import asdict
from enum import StrEnum
from pathlib import Path
from typing import Any

from napari_ptsam.benchmark.config import BenchmarkConfig, Cell
from napari_ptsam.benchmark.record import circumstances, write_json
from napari_ptsam.benchmark.splits import Splits

FORMAT = 1


class Status(StrEnum):
    """How a training ended."""

    DONE = "DONE"
    FAILED = "FAILED"
    """An error; the reason is its text."""
    CANCELLED = "CANCELLED"
    """Stopped by the user; it goes on in the next run."""
    SKIPPED = "SKIPPED"
    """Cannot be run here: something is not installed, or there are not enough images."""


Result = dict[str, Any]
"""Content of a result's file."""


class Results:
    """The results of a study in its output folder.

    Parameters
    ----------
    config
        The study.
    output
        Its folder; results are in ``cells``.
    """

    def __init__(self, config: BenchmarkConfig, output: Path) -> None:
        self.config = config
        self.output = output
        self._around: dict[str, Any] | None = None

    def path(self, cell: Cell) -> Path:
        """Where the result of a cell is."""
        return self.output / "cells" / f"{cell.name}.json"

    def scratch(self, cell: Cell) -> Path:
        """Folder for what a cell keeps while it runs."""
        return self.output / "work" / cell.name

    def open_scratch(self, cell: Cell, splits: Splits, backbone: str) -> Path:
        """The folder of `scratch`, with what this very training kept there and nothing else.

        A checkpoint of other settings or another backbone cannot be gone on from, and would
        let the training fail for good.

        Parameters
        ----------
        splits
            Of its data set.
        backbone
            Identity of the backbone.
        """
        folder = self.scratch(cell)
        made_for = {"digest": digest(self.config, cell, splits), "backbone": backbone}
        mark = folder / "made_for.json"
        if folder.exists() and _read_json(mark) != made_for:
            shutil.rmtree(folder)
        write_json(mark, made_for)
        return folder

    def read(self, cell: Cell, splits: Splits | None) -> Result | None:
        """The result of a cell, None if there is none for the study as it is now.

        Parameters
        ----------
        splits
            Of its data set; None where they are not known, and so not compared.
        """
        found = _read_json(self.path(cell))
        if found is None or found.get("format") != FORMAT:
            return None
        known = splits is None or found["digest"] == digest(self.config, cell, splits)
        return found if known else None

    def write(self, cell: Cell, splits: Splits | None, status: Status, **content: Any) -> Result:
        """Write the result of a cell, at once."""
        if self._around is None:
            self._around = circumstances()
        result = {
            "format": FORMAT,
            "cell": asdict(cell),
            "status": status.value,
            "digest": None if splits is None else digest(self.config, cell, splits),
            **content,
            "circumstances": self._around,
        }
        # Without indentation: scores of each image would fill thousands of lines.
        write_json(self.path(cell), result, indent=None)
        return result

    def all(self, splits: Mapping[str, Splits | None]) -> Iterator[tuple[Cell, Result | None]]:
        """Each cell of the study with its result.

        Parameters
        ----------
        splits
            By the data set's name.
        """
        for cell in self.config.cells():
            yield cell, self.read(cell, splits[cell.data])


def on_processors(result: Result) -> bool:
    """Whether a result's seconds are those that processor cores worked; see `shared.clock`."""
    return str(result.get("device", "")).startswith("cpu")


def digest(config: BenchmarkConfig, cell: Cell, splits: Splits) -> str:
    """Of all that decides a cell's result: a study may change, and its results stay with it."""
    data = next(d for d in config.data if d.name == cell.data)
    method = next(m for m in config.methods if m.name == cell.method)
    deciding = {
        "training": asdict(config.training),
        "backbone": config.backbone,
        "data": [data.published, data.folder, data.images, data.masks, data.label, data.target],
        "method": [
            method.method, method.baseline, dict(method.settings), method.learning_rate,
            method.steps, method.batch_size,
        ],
        "train": splits.training(cell.split, cell.size),
        "test": splits.test,
        "seed": cell.training_seed,
    }  # fmt: skip
    return hashlib.sha256(json.dumps(deciding, sort_keys=True).encode()).hexdigest()[:16]


def _read_json(path: Path) -> Result | None:
    """Content of a file, None if it is not there or damaged."""
    try:
        found: Result = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    return found
