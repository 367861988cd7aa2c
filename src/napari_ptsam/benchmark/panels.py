"""Pictures of results after figure 6 of the paper: what methods miss or wrongly find."""

from __future__ import annotations

from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from napari_ptsam.benchmark.datasets import DataSet
from napari_ptsam.benchmark.tables import Figures
from napari_ptsam.demo_picture import Comparison
from napari_ptsam.normalize import Normalization

MOST_METHODS = 8
"""Columns of a picture, beside the image and the truth."""

_WIDTH = 1.7
"""Of a panel, inches."""


def draw_panels(figures: Figures, data: DataSet, folder: Path) -> Path | None:
    """Draw test images of a data set with the masks that methods gave them.

    False negatives are orange, false positives red.

    Parameters
    ----------
    folder
        For the PNG file, which is named after the data set.

    Returns
    -------
    Path or None
        The file; None where no masks were kept.
    """
    kept = _kept(figures, data.config.name)
    keys = sorted({key for masks in kept.values() for key in masks})
    if not keys:
        return None
    columns = list(kept)[:MOST_METHODS]
    titles = {m.name: m.shown for m in figures.config.methods}
    rows = [_row(data, key, [kept[name].get(key) for name in columns]) for key in keys]
    heights = [max(p.shape[0] / p.shape[1] for p in row if p is not None) for row in rows]
    kind: Any = import_module("matplotlib.figure").Figure
    size = (_WIDTH * (len(columns) + 2), _WIDTH * sum(heights) + 0.4)
    figure = kind(figsize=size, layout="constrained")
    axes = figure.subplots(len(rows), len(columns) + 2, squeeze=False, height_ratios=heights)
    for row, panels in zip(axes, rows, strict=True):
        for axis, panel in zip(row, panels, strict=True):
            axis.set_axis_off()
            if panel is not None:
                axis.imshow(panel)
    for axis, title in zip(axes[0], ["image", "truth", *map(titles.get, columns)], strict=True):
        axis.set_title(title, fontsize=7)
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"{data.config.name}.png"
    figure.savefig(path, dpi=110)
    return path


def _kept(figures: Figures, name: str) -> dict[str, dict[str, Path]]:
    """Files of the masks that were kept, by method and image."""
    found: dict[str, dict[str, Path]] = {}
    main = {m.name for m in figures.main_methods()}
    for cell, result in figures.done(data=name):
        files = {p["key"]: figures.output / p["file"] for p in result.get("pictures", [])}
        there = {key: path for key, path in files.items() if path.is_file()}
        if there and cell.method in main:
            found[cell.method] = there
    return found


def _row(data: DataSet, key: str, masks: list[Path | None]) -> list[NDArray[np.uint8] | None]:
    """Panels of one test image: image, truth, and each method's mask."""
    test = data.test.read(key)
    image = Normalization().apply(test.image)
    plain = Comparison(image, test.truth, test.truth, "").panels()
    row: list[NDArray[np.uint8] | None] = [plain[0], plain[1]]
    for path in masks:
        if path is None:
            row.append(None)
            continue
        with Image.open(path) as stored:
            predicted = np.asarray(stored, bool)
        row.append(Comparison(image, test.truth, predicted, "").panels()[2])
    return row
