"""The second step: train a specialist, and watch it learn."""

from __future__ import annotations

import threading
from functools import partial
from typing import TYPE_CHECKING, Any

from qtpy.QtCore import QTimer
from qtpy.QtGui import QShowEvent
from qtpy.QtWidgets import QPushButton, QVBoxLayout, QWidget

from napari_ptsam._widgets.controls import words
from napari_ptsam._widgets.history import History
from napari_ptsam._widgets.jobs import show
from napari_ptsam._widgets.later import in_turn, later
from napari_ptsam._widgets.layers import plane_index
from napari_ptsam._widgets.preview import PlaneInView, PreviewLayer
from napari_ptsam._widgets.runpanel import RunPanel
from napari_ptsam._widgets.shelf import put_aside
from napari_ptsam._widgets.state import TRAINING
from napari_ptsam._widgets.trainform import TrainForm, list_choices
from napari_ptsam._widgets.training import Engine, Expected, Progress, Request, run_training
from napari_ptsam._widgets.words import duration, planes, size
from napari_ptsam.errors import PtsamError

if TYPE_CHECKING:
    from pathlib import Path

    from napari.layers import Image

    from napari_ptsam._widgets.jobs import Job
    from napari_ptsam._widgets.state import PluginState
    from napari_ptsam.specialist import Specialist

SETTLED_MS = 400
"""How long nothing changes before an estimate is made."""

_DEVICES = {"cpu": "on this computer's processor", "cuda": "on the graphics card"}


class TrainSection(QWidget):
    """Train a specialist, and watch it learn."""

    def __init__(self, state: PluginState) -> None:
        super().__init__()
        self._state = state
        self.engine = Engine()
        self._plane = PlaneInView()
        self._preview = PreviewLayer(state.viewer)
        self._image: Image | None = None
        self._job: Job | None = None
        self._stop = threading.Event()
        self._choices_asked = False
        self._estimating = False
        self._settled = QTimer(self)
        self._settled.setSingleShot(True)
        self._settled.setInterval(SETTLED_MS)
        self._make_controls()
        self._connect()
        self.refresh()

    def _make_controls(self) -> None:
        self.form = TrainForm()
        self.estimate = words()
        self.train = QPushButton("Train specialist")
        self.train.setToolTip("Learn the object from the annotated planes.")
        self.train.setMinimumHeight(34)
        font = self.train.font()
        font.setBold(True)
        self.train.setFont(font)
        self.again = QPushButton("Train again from here")
        self.again.setToolTip(
            "Go on from the specialist in use, with all masks that are painted now. Planes that "
            "were looked at before are not looked at again, so that this is quick."
        )
        self.why = words()
        self.run = RunPanel(self._state.viewer)
        self.result = words()
        self.history = History(self._state)
        layout = QVBoxLayout(self)
        layout.setContentsMargins(0, 0, 0, 0)
        for widget in (self.form, self.estimate, self.train, self.again, self.why, self.run):
            layout.addWidget(widget)
        layout.addWidget(self.result)
        layout.addWidget(self.history)

    def _connect(self) -> None:
        state = self._state
        self.train.clicked.connect(self._on_train)
        self.again.clicked.connect(self._on_again)
        self.run.stop.clicked.connect(self.stop)
        self.run.pause.clicked.connect(self._on_pause)
        self.form.changed.connect(self._on_form)
        self._settled.timeout.connect(self._on_settled)
        state.annotations.changed.connect(self._on_annotations)
        state.jobs.started.connect(self.refresh)
        state.jobs.finished.connect(self.refresh)
        state.current_changed.connect(self.refresh)
        state.load_finished.connect(self._make_curve)
        state.closing.connect(self._release)
        for event in self._viewer_events():
            event.connect(self._follow)

    def _viewer_events(self) -> list[Any]:
        events = self._state.viewer.dims.events
        return [events.current_step, events.order, events.ndisplay]

    # What is shown

    def refresh(self) -> None:
        """Enable what can be done now, and say of the rest why not."""
        running, current = self._state.jobs.running, self._state.current
        missing = self._state.annotations.missing()
        possible = running is None and missing is None
        self.train.setEnabled(possible)
        self.again.setEnabled(possible)
        self.again.setVisible(current is not None)
        self.form.setEnabled(self._job is None)
        reason = missing or ""
        if running is not None:
            reason = "" if self._job is not None else f"Wait until '{running}' is done."
        self.why.setText(reason)
        self.why.setVisible(bool(reason))
        self.estimate.setVisible(bool(self.estimate.text()) and self._job is None)
        self.result.setVisible(bool(self.result.text()) and self._job is None)

    def refresh_estimate(self) -> None:
        """Tell what a training would cost; measured aside, when nothing else runs."""
        if self._estimating or self._state.jobs.running is not None:
            return
        if self._state.annotations.missing() is not None:
            self.estimate.setText("")
            self.refresh()
            return
        request = self._request()
        self._estimating = True
        if not self.estimate.text():
            self.estimate.setText("Measuring how fast this computer is ...")
            self.refresh()
        self._state.jobs.aside(
            lambda: self.engine.expected(request),
            lambda expected: self._on_expected(expected, request),
            self._on_no_estimate,
        )

    def _on_expected(self, expected: Expected, request: Request) -> None:
        self._estimating = False
        self.estimate.setText(expected_text(expected))
        self.refresh()
        if self._state.annotations.missing() is None and self._differs(request):
            self._settled.start()

    def _on_no_estimate(self, error: PtsamError) -> None:
        self._estimating = False
        self.estimate.setText(f"No estimate: {error}")
        self.refresh()

    def _differs(self, request: Request) -> bool:
        """Whether something was changed since."""
        now = self._request()
        same = ("backbone", "device", "encoder_prompts", "preset", "method", "method_settings")
        return now.examples["planes"] != request.examples["planes"] or any(
            getattr(now, name) != getattr(request, name) for name in same
        )

    def showEvent(self, event: QShowEvent) -> None:  # noqa: N802 (Qt's name)
        """Fill in what takes a moment, now that it is looked at."""
        super().showEvent(event)
        if not self._choices_asked:
            self._choices_asked = True
            self._state.jobs.aside(list_choices, self.form.set_choices)
        self._settled.start()

    def _on_settled(self) -> None:
        if self.isVisible() and self._state.jobs.running is None:
            self._make_curve()
            self.refresh_estimate()

    def _make_curve(self) -> None:
        """Now, or once plotting is imported."""
        if self._state.loaded:
            later(self, self.run.prepare)
        else:
            self._state.load()

    def _on_form(self) -> None:
        if self.estimate.text():
            self.estimate.setText("Estimating ...")  # what was said is no longer so
        self._settled.start()

    def _on_annotations(self) -> None:
        self.refresh()
        self._settled.start()

    # What the user does

    def _request(self, start: Specialist | None = None) -> Request:
        return self.form.request(self._state.annotations.examples_input(), start)

    def _on_train(self) -> None:
        self.start()

    def _on_again(self) -> None:
        current = self._state.current
        self.start(None if current is None else current.specialist)

    def start(self, start_from: Specialist | None = None) -> None:
        """Train, anew or from a specialist; why it cannot be is told in napari's notifications."""
        stop, shelf = threading.Event(), self._state.shelf
        # Nothing is computed before the layer is there: napari takes a moment to add one, which
        # would be a long one beside a training.
        self._state.jobs.wait_for(self._preview)
        try:
            request = self._request(start_from)
            self._job = self._state.jobs.run(
                TRAINING,
                lambda: put_aside(run_training(request, self.engine, self._plane, stop), shelf),
                on_yield=self._on_progress,
                on_return=self._on_trained,
                on_error=lambda _: self._ended(""),
                on_stopped=lambda: self._ended(""),
                progress=lambda p: (p.step, p.steps),
                finish=stop.set,
            )
        except PtsamError as error:
            self._state.jobs.go_on(self._preview)
            show(error)
            return
        self._stop = stop
        self.run.begin(lambda: self.engine.downloaded)
        self._image = self._state.annotations.image
        self._follow()
        self.refresh()
        in_turn(
            self,
            self._begin_preview,
            self._preview.unveil,
            self._make_curve,
            partial(self._state.jobs.go_on, self._preview),
        )

    def _begin_preview(self) -> None:
        if self._image is not None:
            self._preview.begin(self._image)

    def stop(self) -> None:
        """End the training; what was best so far is kept."""
        if self._job is None:
            return
        self._stop.set()
        self.run.say_stopping()
        self._job.resume()

    def _on_pause(self) -> None:
        if self._job is None:
            return
        if self._job.paused:
            self._job.resume()
        else:
            self._job.pause()
        self.run.say_paused(self._job.paused)

    def _follow(self) -> None:
        """Tell the training which plane is looked at."""
        image = self._image
        there = image is not None and image in self._state.viewer.layers
        self._plane.index = plane_index(self._state.viewer, image) if there else None

    def _on_progress(self, progress: Progress) -> None:
        self.run.show_progress(progress)
        if progress.preview is not None:
            self._preview.show(progress.preview)

    def _on_trained(self, trained: tuple[Specialist | None, Path | None]) -> None:
        specialist, kept = trained
        if specialist is None:
            self._ended("Stopped before anything was learned.")
            return
        self._ended(f"{result_text(specialist.metadata.training)} Go on to step 3.")
        self._state.add_trained(specialist, kept)

    def _ended(self, text: str) -> None:
        self._job = None
        self._image = None
        self._plane.index = None
        self._preview.end()
        self.run.end()
        self.result.setText(text)
        self.refresh()
        self._settled.start()

    def _release(self) -> None:
        # Qt may have deleted the controls already: nothing here touches them. A training that runs
        # ends with its best so far, and that is put aside; nobody looks at a preview of it.
        self._plane.index = None
        for event in self._viewer_events():
            event.disconnect(self._follow)
        self.run.release()
        self.engine.clear()


def expected_text(expected: Expected) -> str:
    """What a training would cost, in words."""
    if expected.estimate is None:
        how_much = f" ({size(expected.download)})" if expected.download else ""
        return f"The model is downloaded first{how_much}; it is kept for later."
    where = _DEVICES.get(expected.device, "on this computer")
    text = f"Takes up to {duration(expected.estimate.seconds)}"
    if expected.estimate.memory is not None:
        text += f" and {size(expected.estimate.memory)} of memory"
    learned = "" if expected.learned is None else f" Learns {expected.learned:,} numbers."
    return f"{text} {where}.{learned}"


def result_text(record: dict[str, Any]) -> str:
    """What to expect of a specialist, from the record of its training."""
    stopped = "Stopped; the best so far is kept. " if record.get("stopped") else ""
    dice, held = record.get("held_out_dice"), len(record.get("held_out") or ())
    if dice is not None:
        return (
            f"{stopped}<b>Dice {dice:.2f}</b> on {planes(held)} of your own that "
            f"{'was' if held == 1 else 'were'} kept out: expect about that on similar planes."
        )
    if record.get("started_from"):
        return (
            f"{stopped}Trained again. All planes were known from before, so that no Dice can be "
            "told: annotate a plane that is new to it."
        )
    return (
        f"{stopped}Trained. To be told what Dice to expect, annotate at least three planes: one "
        "is then kept out to test on."
    )
