"""The first step: click on objects, accept their masks."""

from __future__ import annotations

from typing import TYPE_CHECKING

from napari.layers import Image, Labels
from qtpy.QtCore import QTimer
from qtpy.QtWidgets import QCheckBox, QFormLayout, QPushButton, QVBoxLayout, QWidget

from napari_ptsam._widgets.channels import ChannelChoice
from napari_ptsam._widgets.choices import LayerChoice
from napari_ptsam._widgets.clicks_canvas import LATE_MS
from napari_ptsam._widgets.clicks_models import ModelChoice
from napari_ptsam._widgets.clicks_words import help_text, status
from napari_ptsam._widgets.controls import button, row, words
from napari_ptsam._widgets.jobs import show
from napari_ptsam._widgets.later import later
from napari_ptsam._widgets.layers import is_given, plane_name, same_planes
from napari_ptsam._widgets.restoring import KeptAnnotations
from napari_ptsam._widgets.words import planes as in_planes
from napari_ptsam.errors import PtsamError

if TYPE_CHECKING:
    from napari_ptsam._widgets.clicks_session import Accepted
    from napari_ptsam._widgets.clicks_state import ClickState

SOON_MS = 40
"""Until what is said of an answer: its picture is drawn first."""

START, STOP = "Start clicking", "Stop clicking"


class ClickSection(QWidget):
    """Click on objects, accept their masks.

    Parameters
    ----------
    state
        What the sections of the dock share.
    """

    def __init__(self, state: ClickState) -> None:
        super().__init__()
        self._state = state
        self._session = state.session
        self._last = ""
        self._late = QTimer(self)
        self._late.setSingleShot(True)
        self._late.timeout.connect(self._show_status)
        self.kept = KeptAnnotations(state, state.new_labels, self._say)
        self._make_controls()
        self._lay_out()
        self._connect()
        self._choose_first()
        self.refresh()

    def _make_controls(self) -> None:
        state = self._state
        self.image = LayerChoice(state.viewer, Image, "open an image first")
        self.image.setToolTip("The image to click on.")
        self.channels = ChannelChoice(state.annotations)
        self.labels = LayerChoice(state.viewer, Labels, "none yet")
        self.labels.setToolTip(
            "The layer that accepted objects are painted on; made when you accept the first."
        )
        self.new_labels = button("New", "Make an empty layer for the objects.")
        self.models = ModelChoice(state)
        self.toggle = QPushButton(START)
        self.toggle.setCheckable(True)
        self.toggle.setMinimumHeight(34)
        self.toggle.setToolTip(
            "While this is on, clicks in the image mark an object. Off, or as soon as you select "
            "another layer, the mouse does what it always does in napari."
        )
        font = self.toggle.font()
        font.setBold(True)
        self.toggle.setFont(font)
        self.status = words()
        self.accept = button("Accept", "Paint the object into the labels layer (Enter or A).")
        self.undo = button("Undo", "Take back the last click or box (Ctrl+Z).")
        self.discard = button("Discard", "Forget the object; nothing is painted (Escape).")
        self.own_label = QCheckBox("A new label for each object")
        self.own_label.setChecked(True)
        self.own_label.setToolTip(
            "Each object gets the next free number. Otherwise all get the label that is chosen "
            "in the labels layer, such as the number of a class."
        )
        self.preview = QCheckBox("Preview below the cursor")
        self.preview.setToolTip(
            "Show what a click would give, wherever the cursor is, before you click."
        )
        self.help = words(help_text())
        self.counter = words()
        self.saving = words()
        self.saving.hide()

    def _lay_out(self) -> None:
        form = QFormLayout()
        form.setContentsMargins(0, 0, 0, 0)
        form.addRow("Image", self.image)
        form.addRow(self.channels)
        form.addRow("Labels", row(self.labels, self.new_labels))
        form.addRow("Model", self.models.model)
        layout = QVBoxLayout(self)
        layout.setContentsMargins(0, 0, 0, 0)
        layout.addLayout(form)
        layout.addWidget(self.kept.offer)
        layout.addWidget(self.models)
        layout.addWidget(self.toggle)
        layout.addWidget(self.status)
        buttons = row(self.accept, self.undo, self.discard)
        layout.addLayout(buttons)
        for widget in (self.help, self.own_label, self.preview, self.counter, self.saving):
            layout.addWidget(widget)

    def _connect(self) -> None:
        state, session = self._state, self._session
        self.image.chosen.connect(self._on_image)
        self.labels.chosen.connect(self._on_labels)
        self.new_labels.clicked.connect(self._on_new_labels)
        self.toggle.clicked.connect(self._on_toggle)
        self.accept.clicked.connect(session.accept)
        self.undo.clicked.connect(state.canvas.undo)
        self.discard.clicked.connect(session.discard)
        self.own_label.toggled.connect(self._on_own_label)
        self.preview.toggled.connect(self._on_preview)
        session.changed.connect(self.refresh_status)
        session.source.moved.connect(self.refresh_status)
        session.source.ready.changed.connect(self.refresh_status)
        session.free.changed.connect(self._count_later)
        session.accepted.connect(self._on_accepted)
        state.chosen_changed.connect(self.refresh_status)
        state.annotations.changed.connect(self.refresh)
        state.closing.connect(self._release)
        state.viewer.layers.events.inserted.connect(self._choose_first)

    # What is shown

    def refresh(self) -> None:
        """Show how things stand."""
        annotations = self._state.annotations
        self.image.layer = annotations.image
        self.labels.layer = annotations.labels
        self.channels.refresh()
        self.new_labels.setEnabled(annotations.image is not None)
        self._count()
        self.refresh_status()

    def refresh_status(self) -> None:
        """Say what to do next, and enable what can be done."""
        session = self._session
        self.toggle.setEnabled(self._state.annotations.image is not None)
        self.toggle.setChecked(session.on)
        self.toggle.setText(STOP if session.on else START)
        said = bool(session.said)
        self.accept.setEnabled(said)
        self.discard.setEnabled(said)
        self.undo.setEnabled(said or (session.on and self._state.annotations.labels is not None))
        if said and (session.asking or session.answer is not None):
            # After the picture: the mask is waited for.
            if not self._late.isActive():
                self._late.start(LATE_MS if session.asking else SOON_MS)
        else:
            self._show_status()

    def _show_status(self) -> None:
        self._late.stop()
        text = status(self._state)
        if self._last and text == "Click on an object.":
            text = self._last
        if text != self.status.text():
            self.status.setText(text)

    def _count_later(self) -> None:
        # napari tells of paint just before it is there to be counted.
        later(self, self._count)

    def _count(self) -> None:
        annotations, value = self._state.annotations, self._session.free.value
        parts = []
        if annotations.labels is not None:
            parts.append(f"{in_planes(len(annotations.annotated()))} annotated")
        if self._session.on and self._session.own_label and value is not None:
            parts.append(f"next label {value}")
        self.counter.setText(", ".join(parts))
        self.counter.setVisible(bool(parts))

    def _say(self, text: str) -> None:
        self.saving.setText(text)
        self.saving.show()

    # What the user does

    def _choose_first(self) -> None:
        """Take what there is for a user who has chosen nothing yet."""
        annotations, layers = self._state.annotations, self._state.viewer.layers
        if annotations.image is None:
            self._on_image(next((x for x in layers if is_given(x, Image)), None))
        elif annotations.labels is None:
            self._take_fitting_labels(annotations.image)

    def _on_image(self, layer: Image | None) -> None:
        annotations = self._state.annotations
        annotations.image = layer
        if layer is not None and (
            annotations.labels is None or not same_planes(annotations.labels, layer)
        ):
            self._take_fitting_labels(layer)

    def _take_fitting_labels(self, image: Image) -> None:
        self._state.annotations.labels = next(
            (
                layer
                for layer in self._state.viewer.layers
                if is_given(layer, Labels) and same_planes(layer, image)
            ),
            None,
        )

    def _on_labels(self, layer: Labels | None) -> None:
        self._state.annotations.labels = layer

    def _on_new_labels(self) -> None:
        try:
            self._state.new_labels()
        except PtsamError as error:
            show(error)

    def _on_toggle(self, checked: bool) -> None:
        self._last = ""
        if checked:
            self._state.canvas.start()
        else:
            self._state.canvas.stop()
        self.refresh_status()

    def _on_own_label(self, checked: bool) -> None:
        self._session.own_label = checked
        self._count()

    def _on_preview(self, checked: bool) -> None:
        self._state.canvas.previewing = checked
        if not checked:
            self._session.look_away()

    def _on_accepted(self, accepted: Accepted) -> None:
        image = self._state.annotations.image
        if image is not None:
            where = plane_name(image, accepted.index).lower()
            self._last = f"Label {accepted.label} is painted on {where}. Click on the next object."
        self._count_later()
        self.refresh_status()

    def _release(self) -> None:
        self.kept.release()
        self.image.release()
        self.labels.release()
        self._state.viewer.layers.events.inserted.disconnect(self._choose_first)
        self._state.annotations.changed.disconnect(self.refresh)
