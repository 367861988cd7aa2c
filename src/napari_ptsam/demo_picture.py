"""Pictures of results: image, truth and prediction side by side."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw

OBJECT = (64, 176, 166)
MISSED = (255, 150, 0)
FALSE = (220, 20, 30)
"""Colours of the object, of what the prediction lacks, and of what it wrongly has."""

_GAP, _LINE = 6, 16
_TINT = 0.6


@dataclass(frozen=True)
class Comparison:
    """One row of a picture.

    Attributes
    ----------
    image
        HxWx3, 0..255.
    truth, predicted
        HxW.
    caption
        Shown above the row.
    """

    image: NDArray[np.float32]
    truth: NDArray[np.bool_]
    predicted: NDArray[np.bool_]
    caption: str

    def panels(self) -> list[NDArray[np.uint8]]:
        """The image, the truth, and the prediction with its errors, each HxWx3."""
        missed, false = self.truth & ~self.predicted, self.predicted & ~self.truth
        right = self.truth & self.predicted
        prediction = [(right, OBJECT), (missed, MISSED), (false, FALSE)]
        tinted = (_tint(self.image, layers) for layers in ([], [(self.truth, OBJECT)], prediction))
        return [panel.clip(0, 255).astype(np.uint8) for panel in tinted]


def save_comparison(rows: Sequence[Comparison], path: Path, panel_width: int = 360) -> None:
    """Write rows of image | truth | prediction as one PNG.

    Parameters
    ----------
    rows
        At least one.
    path
        Of the PNG.
    panel_width
        Of each of the three panels, in pixels; heights follow.
    """
    drawn = [
        [_resize(panel, panel_width) for panel in row.panels()]
        for row in rows
    ]  # fmt: skip
    height = _LINE + sum(_LINE + _GAP + panels[0].height for panels in drawn)
    canvas = Image.new("RGB", (3 * panel_width + 4 * _GAP, height + _GAP), "white")
    pen = ImageDraw.Draw(canvas)
    columns = [_GAP + i * (panel_width + _GAP) for i in range(3)]
    for x, text in zip(columns, ("image", "truth", "prediction:"), strict=True):
        pen.text((x, 2), text, fill="black")
    pen.text((columns[2] + 75, 2), "missed", fill=MISSED)
    pen.text((columns[2] + 125, 2), "false", fill=FALSE)
    y = _LINE
    for row, panels in zip(rows, drawn, strict=True):
        pen.text((_GAP, y + 2), row.caption, fill="black")
        for x, panel in zip(columns, panels, strict=True):
            canvas.paste(panel, (x, y + _LINE))
        y += _LINE + _GAP + panels[0].height
    canvas.save(path, optimize=True)


def _tint(
    image: NDArray[np.float32], layers: Sequence[tuple[NDArray[np.bool_], tuple[int, int, int]]]
) -> NDArray[np.float32]:
    tinted = np.array(image, np.float32)
    for mask, colour in layers:
        tinted[mask] = (1 - _TINT) * tinted[mask] + _TINT * np.array(colour, np.float32)
    return tinted


def _resize(panel: NDArray[np.uint8], width: int) -> Image.Image:
    """To a width, or for tall pictures to a height of 1.5 times that."""
    picture = Image.fromarray(panel)
    factor = min(width / picture.width, 1.5 * width / picture.height)
    size = (max(1, round(factor * picture.width)), max(1, round(factor * picture.height)))
    # Enlarged pixels stay sharp, so that an outline can be judged.
    way = Image.Resampling.NEAREST if factor > 1 else Image.Resampling.BOX
    return picture.resize(size, way)
