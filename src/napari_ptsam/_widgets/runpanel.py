"""What is shown of a training while it runs."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import TYPE_CHECKING

from qtpy.QtCore import QTimer
from qtpy.QtWidgets import QHBoxLayout, QLabel, QProgressBar, QPushButton, QVBoxLayout, QWidget

from napari_ptsam._widgets.words import duration, size

if TYPE_CHECKING:
    from napari.viewer import Viewer

    from napari_ptsam._widgets.curve import Curve
    from napari_ptsam._widgets.training import Points, Progress

Downloaded = Callable[[], tuple[int, int | None] | None]

PHASES = {
    "load": "Getting the model ready",
    "embed": "Looking at your planes",
    "train": "Learning",
    "refit": "Learning from all planes",
}


class RunPanel(QWidget):
    """Progress bar, time left, pause and stop, and the curve.

    Parameters
    ----------
    viewer
        napari's.
    score
        What held-out planes are scored by.

    Attributes
    ----------
    curve
        Made by `prepare`; None before, when points wait for it.
    """

    def __init__(self, viewer: Viewer, score: str = "Dice") -> None:
        super().__init__()
        self._viewer = viewer
        self._score = score
        self.curve: Curve | None = None
        self._downloaded: Downloaded = lambda: None
        self._clock = _Clock()
        self._waiting: list[tuple[Points, Points]] = []
        self.bar = QProgressBar()
        self.bar.setTextVisible(False)
        self.bar.setMaximumHeight(14)
        self.status = QLabel()
        self.status.setWordWrap(True)
        self.pause = QPushButton()
        self.pause.setToolTip("Hold the training, for instance to use the computer otherwise.")
        self.stop = QPushButton("Stop")
        self.stop.setToolTip("End the training now and keep the best specialist so far.")
        self._buttons = QWidget()
        row = QHBoxLayout(self._buttons)
        row.setContentsMargins(0, 0, 0, 0)
        row.addWidget(self.pause)
        row.addWidget(self.stop)
        self._layout = QVBoxLayout(self)
        self._layout.setContentsMargins(0, 0, 0, 0)
        for widget in (self.bar, self.status, self._buttons):
            self._layout.addWidget(widget)
        self._poll = QTimer(self)
        self._poll.setInterval(500)
        self._poll.timeout.connect(self._show_download)
        self.setVisible(False)

    def prepare(self) -> Curve:
        """Make the curve; call it once plotting is imported, which takes a moment."""
        if self.curve is None:
            from napari_ptsam._widgets.curve import Curve

            self.curve = Curve(self._viewer, self._score)
            self._layout.addWidget(self.curve)
            waiting, self._waiting = self._waiting, []
            for losses, dice in waiting:
                self.curve.add(losses, dice)
        return self.curve

    def begin(self, downloaded: Downloaded) -> None:
        """A training begins; `downloaded` tells of a download, if there is one."""
        self._waiting.clear()
        if self.curve is not None:
            self.curve.clear_points()
        self._downloaded = downloaded
        self._clock = _Clock()
        self.bar.setRange(0, 0)
        self.status.setText(f"{PHASES['load']} ...")
        self.say_paused(False)
        self.pause.setEnabled(True)
        self.stop.setEnabled(True)
        for widget in (self.bar, self.status, self._buttons):
            widget.setVisible(True)
        self.setVisible(True)
        self._poll.start()

    def show_progress(self, progress: Progress) -> None:
        """Show how far it is."""
        if progress.note:
            self.status.setText(progress.note)
        if not progress.steps:
            return
        self._poll.stop()
        self.bar.setRange(0, progress.steps)
        self.bar.setValue(progress.step)
        if progress.losses or progress.dice:
            self._add(progress.losses, progress.dice)
        if self.stop.isEnabled():
            left = self._clock.left(progress.phase, progress.step, progress.steps)
            text = f"{PHASES[progress.phase]}: {progress.step} of {progress.steps}"
            self.status.setText(text if left is None else f"{text}, {duration(left)} left")

    def _add(self, losses: Points, dice: Points) -> None:
        if self.curve is None:
            self._waiting.append((losses, dice))
        else:
            self.curve.add(losses, dice)

    def say_paused(self, paused: bool) -> None:
        """Show whether it is held."""
        self.pause.setText("Go on" if paused else "Pause")
        self._clock.hold(paused)

    def say_stopping(self) -> None:
        """Show that it will end."""
        self.status.setText("Stopping ...")
        self.pause.setEnabled(False)
        self.stop.setEnabled(False)

    def end(self) -> None:
        """It is over: the curve stays."""
        self._poll.stop()
        for widget in (self.bar, self.status, self._buttons):
            widget.setVisible(False)
        self.setVisible(self.curve is not None and bool(self.curve.losses[0]))

    def release(self) -> None:
        """Listen to the viewer no longer."""
        if self.curve is not None:
            self.curve.release()

    def _show_download(self) -> None:
        found = self._downloaded()
        if found is None:
            return
        done, total = found
        text = f"Downloading the model: {size(done)}"
        self.status.setText(text if total is None else f"{text} of {size(total)}")
        if total:
            self.bar.setRange(0, 1000)
            self.bar.setValue(round(1000 * done / total))


class _Clock:
    """How long the steps of a phase take."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._now = clock
        self._phase = ""
        self._started: tuple[float, int] = (0.0, 0)
        self._held_at: float | None = None

    def hold(self, paused: bool) -> None:
        """Time that is paused does not count."""
        if paused:
            self._held_at = self._now()
        elif self._held_at is not None:
            since, step = self._started
            self._started = since + self._now() - self._held_at, step
            self._held_at = None

    def left(self, phase: str, step: int, steps: int) -> float | None:
        """Seconds to the end of the phase; None while that is unclear."""
        if phase != self._phase:
            self._phase, self._started = phase, (self._now(), step)
            return None
        since, first = self._started
        passed = self._now() - since
        if step <= first or passed < 1:
            return None
        return passed / (step - first) * (steps - step)
