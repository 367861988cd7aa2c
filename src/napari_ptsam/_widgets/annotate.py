"""The first step: choose the image, paint the object on some planes."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Generator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from napari.layers import Image, Labels
from numpy.typing import NDArray
from qtpy.QtCore import QSignalBlocker, Qt
from qtpy.QtWidgets import (
    QCheckBox,
    QFileDialog,
    QFormLayout,
    QListWidget,
    QListWidgetItem,
    QSizePolicy,
    QSpinBox,
    QVBoxLayout,
    QWidget,
)

from napari_ptsam._widgets.channels import ChannelChoice
from napari_ptsam._widgets.choices import LayerChoice
from napari_ptsam._widgets.commands import open_clicks
from napari_ptsam._widgets.controls import button, row, words
from napari_ptsam._widgets.importing import ImportedPlane, import_masks
from napari_ptsam._widgets.jobs import show
from napari_ptsam._widgets.layers import (
    axes_of,
    data_shape,
    full_data,
    go_to_plane,
    is_given,
    plane_count,
    plane_name,
    plane_names,
    planes_of,
    same_planes,
    slot,
)
from napari_ptsam._widgets.masks import write_plane
from napari_ptsam._widgets.restoring import KeptAnnotations
from napari_ptsam.errors import PtsamError

if TYPE_CHECKING:
    from napari_ptsam._widgets.state import PluginState

WANTED = 16
"""Planes that the method was published with; more paint pays less."""


class AnnotateSection(QWidget):
    """Choose the image, paint the object on some planes."""

    def __init__(self, state: PluginState) -> None:
        super().__init__()
        self._state = state
        self._annotations = state.annotations
        self._listed: tuple[Any, ...] = ()
        self._rows: list[int] = []
        self.kept = KeptAnnotations(state, state.annotations.new_labels, self._say)
        self._make_controls()
        self._lay_out()
        self._connect()
        self._choose_first()
        self.refresh()

    def _make_controls(self) -> None:
        viewer = self._state.viewer
        self.image = LayerChoice(viewer, Image, "open an image first")
        self.image.setToolTip("The image to learn from.")
        self.channels = ChannelChoice(self._annotations)
        self.labels = LayerChoice(viewer, Labels, "none yet")
        self.labels.setToolTip("The layer that you paint the object on.")
        self.new_labels = button("New", "Make a layer to paint on, and take the brush.")
        self.click = button(
            "Click instead of painting",
            "One click on an object instead of painting it: opens the dock for that, on these "
            "layers. What you accept there counts as painted.",
        )
        self.hint = words("")
        self.counter = words("")
        self.planes = QListWidget()
        self.planes.setToolTip("The annotated planes. Click one, or press Enter, to go there.")
        self.planes.setMaximumHeight(110)
        self.planes.setSizeAdjustPolicy(QListWidget.SizeAdjustPolicy.AdjustToContents)
        self.planes.setSizePolicy(QSizePolicy.Policy.Ignored, QSizePolicy.Policy.Maximum)
        self.suggest = button("Next plane", "Go far from the planes annotated so far (Shift+N).")
        self.empty = QCheckBox("This plane has no object")
        self.empty.setToolTip(
            "Tick it where there truly is nothing to find: that, too, is learned from (Shift+E)."
        )
        self.part = button(
            "Only a part ...",
            "Draw a rectangle around the part of the plane that you annotated. "
            "What is outside of it is not learned from.",
        )
        self.load_masks = button("Import masks ...", "Take over masks from an image file.")
        self.load_folder = button("Folder ...", "Take over masks from a folder of image files.")
        self.predict = button(
            "Start from prediction",
            "Let the current specialist fill this plane, then correct it with the brush. "
            "Undo (Ctrl+Z) takes it back (Shift+G).",
        )
        self.one_label = QCheckBox("Learn only the label")
        self.one_label.setToolTip(
            "If you painted several classes with different labels: train one specialist for each. "
            "Else everything painted is the object."
        )
        self.label = QSpinBox()
        self.label.setRange(1, 65535)
        self.label.setToolTip("Number of the label that is the object.")
        self.label.setEnabled(False)
        self.why = words("")
        self.status = words("")
        self.status.hide()

    def _lay_out(self) -> None:
        form = QFormLayout()
        form.setContentsMargins(0, 0, 0, 0)
        form.addRow("Image", self.image)
        form.addRow(self.channels)
        form.addRow("Labels", row(self.labels, self.new_labels))
        layout = QVBoxLayout(self)
        layout.setContentsMargins(0, 0, 0, 0)
        layout.addLayout(form)
        layout.addWidget(self.kept.offer)
        layout.addWidget(self.hint)
        layout.addWidget(self.click)
        layout.addWidget(self.counter)
        layout.addWidget(self.planes)
        layout.addWidget(self.empty)
        layout.addLayout(row(self.suggest, self.part))
        layout.addWidget(self.predict)
        layout.addLayout(row(self.load_masks, self.load_folder))
        layout.addLayout(row(self.one_label, self.label))
        layout.addWidget(self.why)
        layout.addWidget(self.status)

    def _connect(self) -> None:
        self.image.chosen.connect(self._on_image)
        self.labels.chosen.connect(self._on_labels)
        self.new_labels.clicked.connect(self._on_new_labels)
        self.click.clicked.connect(self._on_click)
        self.planes.itemClicked.connect(self._go)
        self.planes.itemActivated.connect(self._go)
        self.suggest.clicked.connect(self._on_suggest)
        self.empty.clicked.connect(self._on_empty)
        self.part.clicked.connect(self._on_part)
        self.load_masks.clicked.connect(self._on_load_file)
        self.load_folder.clicked.connect(self._on_load_folder)
        self.predict.clicked.connect(self._on_predict)
        self.one_label.toggled.connect(self._on_label)
        self.label.valueChanged.connect(self._on_label)
        self._state.jobs.started.connect(self.refresh_buttons)
        self._state.jobs.finished.connect(self.refresh_buttons)
        self._state.current_changed.connect(self.refresh_buttons)
        self._state.closing.connect(self._release)
        self._annotations.changed.connect(self.refresh)
        for event in self._viewer_events():
            event.connect(self.refresh_plane)
        self._state.viewer.layers.events.inserted.connect(self._choose_first)

    def _viewer_events(self) -> list[Any]:
        events = self._state.viewer.dims.events
        return [events.current_step, events.order, events.ndisplay]

    # What is shown

    def refresh(self) -> None:
        """Show what is annotated."""
        annotations = self._annotations
        self.image.layer = annotations.image
        self.labels.layer = annotations.labels
        self.channels.refresh()
        self._refresh_list()
        count = len(annotations.annotated())
        total = 0 if annotations.image is None else plane_count(annotations.image)
        wanted = min(WANTED, max(total, 1))
        self.counter.setText(
            f"<b>{count} of {wanted}</b> planes annotated"
            if count <= wanted
            else f"<b>{count}</b> planes annotated"
        )
        self.counter.setVisible(annotations.image is not None)
        self.hint.setText(self._advice(count, wanted))
        self.refresh_buttons()

    def _advice(self, count: int, wanted: int) -> str:
        if self._annotations.image is None:
            return "Open an image (File > Open), or try one of File > Open Sample > PTSAM."
        if self._annotations.labels is None:
            return "Press <b>New</b> to make a layer to paint on."
        if not count:
            return (
                "Paint the whole object on this plane with the brush. What you leave unpainted "
                "counts as background."
            )
        if count < wanted:
            return "You can train now. More planes that differ from each other make it better."
        return "This is plenty: go on to step 2."

    def _refresh_list(self) -> None:
        annotations = self._annotations
        layer = annotations.labels or annotations.image
        entries = [] if layer is None else annotations.annotated()
        empty, boxes = annotations.declared_empty(), annotations.boxes()
        naming = () if layer is None else (axes_of(layer), data_shape(layer))
        listed = (naming, entries, empty, sorted(boxes))
        # Most strokes are on planes that are listed already.
        if listed != self._listed:
            self._listed, self._rows = listed, entries
            names = {} if layer is None else plane_names(layer, entries)
            self._fill_list(names, set(empty), set(boxes))
        self.refresh_plane()

    def _fill_list(self, names: dict[int, str], empty: set[int], boxes: set[int]) -> None:
        with QSignalBlocker(self.planes):
            self.planes.clear()
            for index, name in names.items():
                text = name + (": no object" if index in empty else "")
                text += " (a part)" if index in boxes else ""
                item = QListWidgetItem(text)
                item.setData(Qt.ItemDataRole.UserRole, index)
                self.planes.addItem(item)
        self.planes.setVisible(bool(names))

    def refresh_plane(self) -> None:
        """Show what is said of the plane in view."""
        index = self._annotations.plane_in_view()
        self.empty.setChecked(index is not None and index in self._annotations.declared_empty())
        painted = index is not None and index in self._annotations.painted()
        self.empty.setEnabled(
            self._annotations.labels is not None and index is not None and not painted
        )
        with QSignalBlocker(self.planes):
            self.planes.clearSelection()
            if index is not None:
                place = bisect_left(self._rows, index)
                if self._rows[place : place + 1] == [index]:
                    self.planes.setCurrentRow(place)

    def refresh_buttons(self) -> None:
        """Enable what can be done now, and say of the rest why not."""
        annotations, running = self._annotations, self._state.jobs.running
        has_labels = annotations.labels is not None
        self.new_labels.setEnabled(annotations.image is not None)
        self.click.setVisible(annotations.image is not None)
        self.suggest.setEnabled(
            annotations.image is not None and plane_count(annotations.image) > 1
        )
        self.part.setEnabled(has_labels)
        for importing in (self.load_masks, self.load_folder):
            importing.setEnabled(annotations.image is not None and running is None)
        self.predict.setEnabled(self._state.current is not None and has_labels and running is None)
        self.predict.setVisible(self._state.current is not None)
        reasons = []
        if running is not None:
            reasons.append(f"Importing and predicting wait until '{running}' is done.")
        self.why.setText(" ".join(reasons))
        self.why.setVisible(bool(reasons))

    def _say(self, text: str) -> None:
        self.status.setText(text)
        self.status.show()

    # What the user does

    def _choose_first(self) -> None:
        """Take what there is for a user who has chosen nothing yet."""
        layers = self._state.viewer.layers
        image = self._annotations.image
        if image is None:
            image = next((x for x in layers if is_given(x, Image)), None)
            self._on_image(image)
        elif self._annotations.labels is None:
            self._take_fitting_labels(image)

    def _on_image(self, layer: Image | None) -> None:
        self._annotations.image = layer
        labels = self._annotations.labels
        if layer is not None and (labels is None or not same_planes(labels, layer)):
            self._take_fitting_labels(layer)

    def _take_fitting_labels(self, image: Image) -> None:
        self._annotations.labels = next(
            (
                layer
                for layer in self._state.viewer.layers
                if is_given(layer, Labels) and same_planes(layer, image)
            ),
            None,
        )

    def _on_labels(self, layer: Labels | None) -> None:
        self._annotations.labels = layer

    def _on_new_labels(self) -> None:
        self._explained(self._annotations.new_labels)

    def _on_click(self) -> None:
        open_clicks(self._state.viewer, self._annotations)

    def _on_part(self) -> None:
        self._explained(self._annotations.new_areas)
        self._say("Draw a rectangle. Then choose the labels layer to go on painting.")

    def _go(self, item: QListWidgetItem) -> None:
        layer = self._annotations.labels or self._annotations.image
        if layer is not None:
            go_to_plane(self._state.viewer, layer, item.data(Qt.ItemDataRole.UserRole))

    def _on_suggest(self) -> None:
        index, image = self._annotations.suggestion(), self._annotations.image
        if index is not None and image is not None:
            go_to_plane(self._state.viewer, image, index)

    def _on_empty(self, checked: bool) -> None:
        index = self._annotations.plane_in_view()
        if index is not None:
            self._annotations.declare_empty(index, checked)

    def _on_label(self) -> None:
        self.label.setEnabled(self.one_label.isChecked())
        self._annotations.label = self.label.value() if self.one_label.isChecked() else None

    def _on_load_file(self) -> None:
        path, _ = QFileDialog.getOpenFileName(self, "Import masks", "", _MASK_FILES)
        if path:
            self.import_masks(Path(path))

    def _on_load_folder(self) -> None:
        path = QFileDialog.getExistingDirectory(self, "Import masks from a folder")
        if path:
            self.import_masks(Path(path))

    def import_masks(self, path: Path) -> None:
        """Take over masks from a file or folder; each plane can be undone."""
        image = self._annotations.image
        labels = self._annotations.labels
        if image is None:
            return
        if labels is None:
            labels = self._annotations.new_labels()
        rows, columns = data_shape(image)[-2:]
        count, size = plane_count(image), (rows, columns)
        in_view, largest = self._annotations.plane_in_view(), np.iinfo(labels.data.dtype).max
        target = labels

        def take(plane: ImportedPlane) -> None:
            write_plane(target, plane.index, plane.labels)

        self._run(
            "Importing masks",
            lambda: import_masks(
                path, count=count, size=size, in_view=in_view, largest=int(largest)
            ),
            on_yield=take,
            on_return=lambda found: self._say(f"{found} masks were imported."),
            progress=lambda plane: (plane.done, plane.total),
            offer_stop=True,
        )

    def _on_predict(self) -> None:
        entry, image = self._state.current, self._annotations.image
        labels, index = self._annotations.labels, self._annotations.plane_in_view()
        if entry is None or image is None or labels is None:
            return
        if index is None:
            self._say("Go to one plane of the image first (2D view).")
            return
        planes, specialist = planes_of(image, self._annotations.channel), entry.specialist
        value = self._annotations.label or 1

        def predict() -> Generator[None, None, NDArray[np.bool_]]:
            return specialist.predict(planes.read(index)).mask
            yield

        def take(mask: NDArray[np.bool_]) -> None:
            if labels in self._state.viewer.layers:
                before = np.asarray(full_data(labels)[slot(labels, index)])
                write_plane(labels, index, _started(before, mask, self._annotations.label, value))
            name = plane_name(labels, index)
            self._say(
                f"{name}: correct the prediction with the brush."
                if mask.any()
                else f"{name}: the specialist finds no object here."
            )

        self._run("Predicting this plane", predict, on_yield=_nothing, on_return=take)

    def _run(self, title: str, generator: Any, **callbacks: Any) -> None:
        self._explained(lambda: self._state.jobs.run(title, generator, **callbacks))

    def _explained(self, action: Any) -> None:
        try:
            action()
        except PtsamError as error:
            show(error)

    def _release(self) -> None:
        self.kept.release()
        self.image.release()
        self.labels.release()
        for event in self._viewer_events():
            event.disconnect(self.refresh_plane)
        self._state.viewer.layers.events.inserted.disconnect(self._choose_first)
        self._annotations.changed.disconnect(self.refresh)


_MASK_FILES = "Images (*.tif *.tiff *.png *.npy *.zarr *.bmp);;All files (*)"


def _nothing(value: object) -> None:
    pass


def _started(
    before: NDArray[Any], mask: NDArray[np.bool_], label: int | None, value: int
) -> NDArray[Any]:
    """Labels of a plane after a prediction; of several classes the others stay."""
    if label is None:
        return np.where(mask, value, 0)
    after = np.where(before == label, 0, before)
    return np.where(mask & (after == 0), value, after)
