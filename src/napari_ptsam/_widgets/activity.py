"""napari's own progress bar, in its activity dialog, moved with care."""

from __future__ import annotations

import time

from napari.utils.progress import progress
from qtpy.QtCore import QObject, QTimer
from qtpy.QtGui import QMovie
from qtpy.QtWidgets import QApplication, QLabel, QMainWindow

DELAY_MS = 300
"""Until the bar shows up: it takes a moment to make, and short runs need none."""

EVERY = 0.5
"""Seconds between two moves: with each napari draws all that waits to be drawn."""


class ActivityBar(QObject):
    """A bar in napari's activity dialog while something runs.

    Parameters
    ----------
    title
        What runs.
    """

    def __init__(self, title: str) -> None:
        super().__init__()
        self._title = title
        self._bar: progress | None = None
        self._share = (0, 0)
        self._moved = 0.0
        self._delay = QTimer(self)
        self._delay.setSingleShot(True)
        self._delay.timeout.connect(self._show)
        self._delay.start(DELAY_MS)

    def advance(self, done: int, total: int) -> None:
        """Say what is done, and of how much."""
        self._share = done, total
        if self._bar is not None and time.monotonic() - self._moved >= EVERY:
            self._move()

    def close(self) -> None:
        """Take it away."""
        self._delay.stop()
        if self._bar is not None:
            self._bar.close()
            self._bar = None

    def _show(self) -> None:
        self._bar = progress(total=0, desc=self._title)
        hold_wheels()
        if self._share[1]:
            self._move()

    def _move(self) -> None:
        bar, (done, total) = self._bar, self._share
        if bar is None:
            return
        self._moved = time.monotonic()
        if bar.total != total:
            bar.total = total
        bar.update(done - bar.n)


def hold_wheels() -> None:
    """Hold the turning wheels in the status bars still.

    With each of their pictures all of napari's window is put together anew: a tenth of a
    processor core where there is no graphics card, which is where trainings need it most.
    """
    for window in QApplication.topLevelWidgets():
        if isinstance(window, QMainWindow):
            for label in window.statusBar().findChildren(QLabel):
                movie = label.movie()
                if movie is not None and movie.state() == QMovie.MovieState.Running:
                    movie.setPaused(True)
