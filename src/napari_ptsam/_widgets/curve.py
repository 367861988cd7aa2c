"""The course of a training: loss, and how well the planes are found that were kept out."""

from __future__ import annotations

from bisect import bisect
from typing import TYPE_CHECKING

import pyqtgraph
from napari.utils.theme import get_theme
from qtpy.QtCore import QSize

if TYPE_CHECKING:
    from collections.abc import Iterable

    from napari.viewer import Viewer

    from napari_ptsam._widgets.training import Points

HEIGHT = 150

# napari's own blue is too pale on light ground, and too dark on dark ground.
DICE_ON_DARK, DICE_ON_LIGHT = "#6aa8ff", "#0b5cc0"


class Curve(pyqtgraph.PlotWidget):
    """A plot over the steps, in the colours of the viewer's theme.

    Parameters
    ----------
    viewer
        napari's.
    score
        What held-out planes are scored by.

    Attributes
    ----------
    losses, dice
        Loss and score that are shown: numbers of steps and values, as two lists each.
    """

    def __init__(self, viewer: Viewer, score: str = "Dice") -> None:
        super().__init__()
        self._viewer = viewer
        self._score = score
        self.losses: tuple[list[int], list[float]] = ([], [])
        self.dice: tuple[list[int], list[float]] = ([], [])
        self.setMinimumHeight(HEIGHT)
        self.setMaximumHeight(HEIGHT)
        self.setToolTip(
            "The loss says how far the masks of the annotated planes are missed: it should fall. "
            f"The {score} says how well planes that were kept out of training are found, 1 being "
            "perfect: it should rise."
        )
        self.setMenuEnabled(False)
        self.setMouseEnabled(False, False)
        self.hideButtons()
        item = self.getPlotItem()
        self._loss_line = item.plot()
        self._dice_line = item.plot(symbol="o", symbolSize=5)
        item.getAxis("bottom").enableAutoSIPrefix(False)
        self.apply_theme()
        viewer.events.theme.connect(self.apply_theme)

    def sizeHint(self) -> QSize:  # noqa: N802 (Qt's name)
        """Narrow, as the dock is."""
        return QSize(280, HEIGHT)

    def add(self, losses: Points, dice: Points) -> None:
        """Add points."""
        for (steps, values), new in ((self.losses, losses), (self.dice, dice)):
            # napari handles events while it draws its own bar, so a later part may come first.
            place = bisect(steps, new[0][0]) if new else 0
            steps[place:place] = [step for step, _ in new]
            values[place:place] = [value for _, value in new]
        self._draw()

    def clear_points(self) -> None:
        """Begin anew."""
        for kept in (*self.losses, *self.dice):
            kept.clear()
        self._draw()

    def apply_theme(self) -> None:
        """Take the colours of the viewer's theme."""
        theme = get_theme(self._viewer.theme)
        text, back = theme.text.as_hex(), theme.background.as_hex()
        self.setBackground(back)
        for name in ("bottom", "left"):
            axis = self.getPlotItem().getAxis(name)
            axis.setPen(theme.secondary.as_hex())
            axis.setTextPen(text)
        dark = sum(theme.background.as_rgb_tuple()[:3]) < 3 * 128
        loss, dice = theme.icon.as_hex(), DICE_ON_DARK if dark else DICE_ON_LIGHT
        self._loss_line.setPen(pyqtgraph.mkPen(loss, width=1.5))
        self._dice_line.setPen(pyqtgraph.mkPen(dice, width=2))
        self._dice_line.setSymbolBrush(dice)
        self._dice_line.setSymbolPen(dice)
        # In place of a legend, which would cover some of the curves.
        self.getPlotItem().setTitle(
            f'<span style="color: {loss}">loss</span> and '
            f'<span style="color: {dice}">{self._score} of kept-out planes</span>, by step',
            color=text,
            size="9pt",
        )

    def release(self) -> None:
        """Listen to the viewer no longer."""
        self._viewer.events.theme.disconnect(self.apply_theme)

    def _draw(self) -> None:
        self._loss_line.setData(*self.losses)
        self._dice_line.setData(*self.dice)
        highest = max((1.0, *_some(self.losses[1])))
        self.getPlotItem().setYRange(0, highest, padding=0.05)


def _some(values: Iterable[float]) -> list[float]:
    return [value for value in values if value == value]
