"""A button at the foot of the dock that stops work without a panel of its own."""

from __future__ import annotations

from typing import TYPE_CHECKING

from qtpy.QtCore import QTimer
from qtpy.QtWidgets import QHBoxLayout, QWidget

from napari_ptsam._widgets.activity import DELAY_MS
from napari_ptsam._widgets.controls import button, words

if TYPE_CHECKING:
    from napari_ptsam._widgets.jobs import Job, Jobs


class StopBar(QWidget):
    """Says what runs, and stops it; shown while something runs that offers it.

    Parameters
    ----------
    jobs
        What runs in the background.
    """

    def __init__(self, jobs: Jobs) -> None:
        super().__init__()
        self._jobs = jobs
        self._job: Job | None = None
        self.title = words()
        self.stop = button("Stop", "End this now. What is done already stays.")
        layout = QHBoxLayout(self)
        layout.setContentsMargins(8, 4, 8, 4)
        layout.addWidget(self.title, stretch=1)
        layout.addWidget(self.stop)
        # Short work needs no button, which would but flicker.
        self._delay = QTimer(self)
        self._delay.setSingleShot(True)
        self._delay.setInterval(DELAY_MS)
        self._delay.timeout.connect(self.show)
        self.stop.clicked.connect(self._on_stop)
        jobs.started.connect(self._on_started)
        jobs.finished.connect(self._on_finished)
        self.hide()

    def _on_started(self, title: str) -> None:
        job = self._jobs.job
        if job is not None and job.offers_stop:
            self._job = job
            self.title.setText(f"{title} ...")
            self.stop.setEnabled(True)
            self._delay.start()

    def _on_finished(self) -> None:
        self._job = None
        self._delay.stop()
        self.hide()

    def _on_stop(self) -> None:
        if self._job is not None:
            self._job.stop()
            self.title.setText("Stopping ...")
            self.stop.setEnabled(False)
