"""The second step: carry an accepted object to the planes before and after."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from qtpy.QtCore import QSignalBlocker
from qtpy.QtWidgets import (
    QCheckBox,
    QFormLayout,
    QProgressBar,
    QSpinBox,
    QVBoxLayout,
    QWidget,
)

from napari_ptsam._widgets.clicks_following import (
    Followed,
    axes_to_follow,
    follow_object,
    ways_from,
)
from napari_ptsam._widgets.clicks_labels import check_fit, paint
from napari_ptsam._widgets.controls import button, combo, row, show_row, words
from napari_ptsam._widgets.layers import full_data, plane_name, planes_of, slot
from napari_ptsam._widgets.words import planes as in_planes
from napari_ptsam.errors import InputError, PtsamError

if TYPE_CHECKING:
    from napari.layers import Image, Labels

    from napari_ptsam._widgets.clicks_session import Accepted
    from napari_ptsam._widgets.clicks_state import ClickState
    from napari_ptsam._widgets.jobs import Job

FOLLOWING = "Carrying an object to other planes"
AT_MOST = 10
"""Planes each way, where it is not to go on until the object is lost."""

_NAMES = {"Z": "depth (Z)", "T": "time (T)"}


class NeighboursSection(QWidget):
    """Carry an accepted object to neighbouring planes.

    Parameters
    ----------
    state
        What the sections of the dock share.
    """

    def __init__(self, state: ClickState) -> None:
        super().__init__()
        self._state = state
        self._job: Job | None = None
        self._found: dict[int, Followed] = {}
        self._make_controls()
        self._lay_out()
        self._connect()
        self.refresh()

    def _make_controls(self) -> None:
        self.intro = words(
            "Accept an object on one plane; here it is found again on the planes before and "
            "after, each time from its mask on the plane before."
        )
        self.label = QSpinBox()
        self.label.setRange(1, 2**31 - 1)
        self.label.setToolTip("Number of the object, on the plane in view.")
        self.along = combo("Which slider to go along.")
        self.to_the_end = QCheckBox("Until it is lost")
        self.to_the_end.setChecked(True)
        self.to_the_end.setToolTip(
            "Go on until the object is not found again, or the stack ends. It counts as lost "
            "where hardly anything of it lies where it lay on the plane before."
        )
        self.up = _count("Planes with higher numbers, at most.")
        self.down = _count("Planes with lower numbers, at most.")
        self.start = button(
            "Propagate to neighbouring planes",
            "Find the object on neighbouring planes and give it the same label there. Undo in "
            "the labels layer takes all of it back.",
        )
        self.stop = button("Stop", "End now; what was found so far is painted.")
        self.bar = QProgressBar()
        self.bar.setTextVisible(False)
        self.bar.setMaximumHeight(14)
        self.why, self.status = words(), words()

    def _lay_out(self) -> None:
        self._form = QFormLayout()
        self._form.setContentsMargins(0, 0, 0, 0)
        self._form.addRow("Object", self.label)
        self._form.addRow("Along", self.along)
        self._form.addRow("", self.to_the_end)
        self._form.addRow("Up", self.up)
        self._form.addRow("Down", self.down)
        layout = QVBoxLayout(self)
        layout.setContentsMargins(0, 0, 0, 0)
        layout.addWidget(self.intro)
        layout.addLayout(self._form)
        layout.addLayout(row(self.start, self.stop))
        for widget in (self.why, self.bar, self.status):
            layout.addWidget(widget)

    def _connect(self) -> None:
        state = self._state
        self.start.clicked.connect(self.run)
        self.stop.clicked.connect(self.end)
        self.to_the_end.toggled.connect(self.refresh)
        state.session.accepted.connect(self._on_accepted)
        state.annotations.changed.connect(self.refresh)
        state.chosen_changed.connect(self.refresh)
        state.jobs.started.connect(self.refresh)
        state.jobs.finished.connect(self.refresh)
        state.closing.connect(self._release)

    def refresh(self) -> None:
        """Enable what can be done now, and say of the rest why not."""
        image = self._state.annotations.image
        axes = [] if image is None else axes_to_follow(image)
        shown = [self.along.itemData(i) for i in range(self.along.count())]
        if shown != [axis for axis, _ in axes]:
            with QSignalBlocker(self.along):
                self.along.clear()
                for axis, letter in axes:
                    self.along.addItem(_NAMES.get(letter, f"slider {axis} ({letter})"), axis)
        show_row(self._form, self.along, len(axes) > 1)
        for box in (self.up, self.down):
            show_row(self._form, box, not self.to_the_end.isChecked())
        running = self._job is not None
        reason = self._why_not()
        self.start.setEnabled(not running and not reason)
        self.stop.setVisible(running)
        self.bar.setVisible(running)
        self.why.setText(reason)
        self.why.setVisible(bool(reason) and not running)
        self.status.setVisible(bool(self.status.text()))

    def _why_not(self) -> str:
        annotations = self._state.annotations
        if annotations.image is None or not axes_to_follow(annotations.image):
            return "Only images with several planes have neighbouring planes."
        return "" if annotations.labels else "Click on an object and accept it first."

    def _on_accepted(self, accepted: Accepted) -> None:
        self.label.setValue(accepted.label)
        if self._job is None:
            self.status.setText("")
        self.refresh()

    # What the user does

    def run(self) -> None:
        """Begin on the plane in view; why it cannot be is told in words."""
        try:
            self._begin()
        except PtsamError as error:
            self._say(str(error))

    def end(self) -> None:
        """Stop; what was found is painted."""
        if self._job is not None:
            self._job.stop()

    def _begin(self) -> None:
        state, image = self._state, self._state.annotations.image
        clicker, labels, index = state.clicker, state.annotations.labels, state.session.source.index
        if image is None or labels is None:
            raise InputError(self._why_not())
        check_fit(labels, image)
        if clicker is None:
            raise InputError("The model is not loaded yet. Press Start clicking in step 1.")
        if index is None:
            raise InputError("Show one plane of the image first, in 2D.")
        value = self.label.value()
        mask = np.asarray(full_data(labels)[slot(labels, index)]) == value
        if not mask.any():
            raise InputError(
                f"There is no object {value} on {plane_name(image, index).lower()}. Go to a plane "
                "on which it was accepted."
            )
        far = sum(image.data.shape) if self.to_the_end.isChecked() else None
        ways = ways_from(
            image, index, self.along.currentData(), far or self.up.value(), far or self.down.value()
        )
        planes = planes_of(image, state.annotations.channel)
        self._found = {}
        self._job = state.jobs.run(
            FOLLOWING,
            lambda: follow_object(clicker, planes, mask, ways),
            on_yield=self._on_found,
            on_return=lambda lost: self._over(labels, image, value, lost),
            on_error=lambda error: self._over(labels, image, value, [], str(error)),
            on_stopped=lambda: self._over(labels, image, value, [], "Stopped."),
            progress=lambda found: (found.done, found.total),
        )
        self.bar.setRange(0, 0)
        self._say("Looking at the next plane ...")

    def _on_found(self, found: Followed) -> None:
        self._found[found.index] = found
        self.bar.setRange(0, found.total)
        self.bar.setValue(found.done)
        self._say(f"Found on {in_planes(found.done)} so far.")
        session = self._state.session
        if not session.said and session.source.index == found.index:
            self._state.canvas.layers.show_answer(found.index, found.answer)

    def _over(
        self, labels: Labels, image: Image, value: int, lost: list[int], why: str = ""
    ) -> None:
        self._job = None
        found, self._found = self._found, {}
        if not self._state.session.said:
            self._state.canvas.layers.show_answer(0, None)
        try:
            if labels not in self._state.viewer.layers:
                raise InputError(f"The labels layer '{labels.name}' was removed meanwhile.")
            paint(labels, {index: one.part for index, one in found.items()}, value)
        except PtsamError as error:
            self._say(f"{error} Nothing was painted.")
            return
        text = f"Object {value} was found on {in_planes(len(found))} more."
        if lost:
            names = ", ".join(plane_name(image, index).lower() for index in sorted(lost))
            text += f" Lost at {names}."
        self._say(f"{why} {text}".strip())

    def _say(self, text: str) -> None:
        self.status.setText(text)
        self.refresh()

    def _release(self) -> None:
        self._state.annotations.changed.disconnect(self.refresh)


def _count(tip: str) -> QSpinBox:
    box = QSpinBox()
    box.setRange(0, 9999)
    box.setValue(AT_MOST)
    box.setToolTip(tip)
    return box
