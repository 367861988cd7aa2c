"""The third step: train a click specialist from the objects in the labels layer."""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING, Any

from qtpy.QtGui import QShowEvent
from qtpy.QtWidgets import QFormLayout, QLineEdit, QPushButton, QSpinBox, QVBoxLayout, QWidget

from napari_ptsam._widgets.clicks_training import ClickRequest, train_clicker
from napari_ptsam._widgets.controls import combo, words
from napari_ptsam._widgets.jobs import show
from napari_ptsam._widgets.later import later
from napari_ptsam._widgets.runpanel import RunPanel
from napari_ptsam._widgets.shelf import put_aside
from napari_ptsam._widgets.words import planes as in_planes
from napari_ptsam.errors import PtsamError

if TYPE_CHECKING:
    from pathlib import Path

    from napari_ptsam._widgets.clicks_state import ClickState
    from napari_ptsam._widgets.jobs import Job
    from napari_ptsam._widgets.training import Progress
    from napari_ptsam.clicking import Clicker

TRAINING_CLICKS = "Training a click specialist"

LENGTHS = (("Quick (20 steps)", 20), ("Usual (60 steps)", 60), ("Long (300 steps)", 300))


class ClickTrainSection(QWidget):
    """Train a click specialist, and watch what a click would give.

    Parameters
    ----------
    state
        What the sections of the dock share.
    """

    def __init__(self, state: ClickState) -> None:
        super().__init__()
        self._state = state
        self._job: Job | None = None
        self._stop = threading.Event()
        self._make_controls()
        self._lay_out()
        self._connect()
        self.refresh()

    def _make_controls(self) -> None:
        self.intro = words(
            "Learns from the objects in the labels layer what <i>you</i> mean by one: the whole "
            "cell and not its nucleus, say. A few planes with all their objects will do."
        )
        self.class_name = QLineEdit("object")
        self.class_name.setMaxLength(60)
        self.class_name.setToolTip("What one of them is, such as cell. Names the specialist.")
        self.length = combo("How long to train. It ends sooner where nothing gets better.")
        for title, steps in LENGTHS:
            self.length.addItem(title, steps)
        self.length.setCurrentIndex(1)
        self.seed = QSpinBox()
        self.seed.setRange(0, 2**31 - 1)
        self.seed.setToolTip("Decides all that is random. The same seed gives the same specialist.")
        self.train = QPushButton("Train click specialist")
        self.train.setToolTip(
            "Learn from the objects that are painted. Each needs a label of its own; objects that "
            "share one label are told apart where they do not touch."
        )
        self.train.setMinimumHeight(34)
        font = self.train.font()
        font.setBold(True)
        self.train.setFont(font)
        self.why = words()
        self.run = RunPanel(self._state.viewer, score="IoU")
        self.hint = words("Move the mouse over the image to see what a click there gives by now.")
        self.result = words()

    def _lay_out(self) -> None:
        form = QFormLayout()
        form.setContentsMargins(0, 0, 0, 0)
        form.addRow("Object", self.class_name)
        form.addRow("Length", self.length)
        form.addRow("Seed", self.seed)
        self.form = QWidget()
        self.form.setLayout(form)
        layout = QVBoxLayout(self)
        layout.setContentsMargins(0, 0, 0, 0)
        for widget in (self.intro, self.form, self.train, self.why, self.hint, self.run):
            layout.addWidget(widget)
        layout.addWidget(self.result)

    def _connect(self) -> None:
        state = self._state
        self.train.clicked.connect(self.start)
        self.run.stop.clicked.connect(self.stop)
        self.run.pause.clicked.connect(self._on_pause)
        state.annotations.changed.connect(self.refresh)
        state.jobs.started.connect(self.refresh)
        state.jobs.finished.connect(self.refresh)
        state.chosen_changed.connect(self.refresh)
        state.load_finished.connect(self._make_curve)
        state.closing.connect(self._release)

    def refresh(self) -> None:
        """Enable what can be done now, and say of the rest why not."""
        annotations, running = self._state.annotations, self._state.jobs.running
        reason = annotations.missing() or ""
        self.train.setEnabled(running is None and not reason)
        self.form.setEnabled(self._job is None)
        if running is not None:
            reason = "" if self._job is not None else f"Wait until '{running}' is done."
        elif not reason:
            count = len(annotations.annotated())
            reason = f"Learns from the objects on {in_planes(count)} of the labels layer."
        self.why.setText(reason)
        self.why.setVisible(bool(reason))
        self.hint.setVisible(self._job is not None)
        self.result.setVisible(bool(self.result.text()) and self._job is None)

    def showEvent(self, event: QShowEvent) -> None:  # noqa: N802 (Qt's name)
        """Prepare what takes a moment, now that it is looked at."""
        super().showEvent(event)
        self._make_curve()

    def _make_curve(self) -> None:
        """Now, or once plotting is imported."""
        if self._state.loaded:
            later(self, self.run.prepare)
        elif self.isVisible():
            self._state.load()

    # What the user does

    def start(self) -> None:
        """Train; why it cannot be is told in napari's notifications."""
        state, stop = self._state, threading.Event()
        try:
            request = self._request()
            self._job = state.jobs.run(
                TRAINING_CLICKS,
                lambda: put_aside(
                    train_clicker(request, state.engine, state.canvas.pointer, stop), state.shelf
                ),
                on_yield=self._on_progress,
                on_return=self._on_trained,
                on_error=lambda _: self._ended(""),
                on_stopped=lambda: self._ended(""),
                progress=lambda p: (p.step, p.steps),
                finish=stop.set,
            )
        except PtsamError as error:
            show(error)
            return
        self._stop = stop
        self.run.begin(lambda: state.engine.downloaded)
        self._make_curve()
        self.refresh()
        # Apart, as napari takes a moment to add a layer.
        later(self, state.canvas.follow_cursor)

    def stop(self) -> None:
        """End the training; what was best so far is kept."""
        if self._job is not None:
            self._stop.set()
            self.run.say_stopping()
            self._job.resume()

    def _request(self) -> ClickRequest:
        entry = self._state.chosen
        backbone: Any = "embedded"
        if entry is not None:
            backbone = entry.backbone or (entry.clicker and entry.clicker.backbone) or backbone
        return ClickRequest(
            examples=self._state.annotations.examples_input(),
            backbone=backbone,
            steps=self.length.currentData(),
            seed=self.seed.value(),
            class_name=self.class_name.text().strip() or "object",
        )

    def _on_pause(self) -> None:
        if self._job is not None:
            (self._job.resume if self._job.paused else self._job.pause)()
            self.run.say_paused(self._job.paused)

    def _on_progress(self, progress: Progress) -> None:
        self.run.show_progress(progress)
        if progress.preview is not None:
            self._state.canvas.show_preview(progress.preview)

    def _on_trained(self, trained: tuple[Clicker | None, Path | None]) -> None:
        clicker, kept = trained
        if clicker is None:
            self._ended("Stopped before anything was learned.")
            return
        self._ended(result_text(clicker.metadata.training))
        self._state.add_trained_clicker(clicker, kept)

    def _ended(self, text: str) -> None:
        self._job = None
        self._state.canvas.leave_cursor()
        self.run.end()
        self.result.setText(text)
        self.refresh()

    def _release(self) -> None:
        # Qt may have deleted the controls already: nothing here touches them. A training that runs
        # ends with its best so far, and that is put aside.
        self._state.annotations.changed.disconnect(self.refresh)
        self.run.release()


def result_text(record: dict[str, Any]) -> str:
    """What to expect of a click specialist, from the record of its training."""
    stopped = "Stopped; the best so far is kept. " if record.get("stopped") else ""
    iou, held = record.get("held_out_iou"), len(record.get("held_out") or ())
    use = "It answers your clicks from now on (step 1); export it there to keep it."
    if iou is None:
        return (
            f"{stopped}Trained. {use} To be told what overlap to expect, annotate at least three "
            "planes: one is then kept out to test on."
        )
    return (
        f"{stopped}<b>IoU {iou:.2f}</b> of single clicks on {in_planes(held)} of your own that "
        f"{'was' if held == 1 else 'were'} kept out (1 is perfect). {use}"
    )
