"""Threshold, size and objects of a result that is there: at once, without the network."""

from __future__ import annotations

from collections.abc import Generator
from pathlib import Path
from typing import TYPE_CHECKING

from qtpy.QtCore import QSignalBlocker, Qt
from qtpy.QtWidgets import (
    QCheckBox,
    QComboBox,
    QFileDialog,
    QFormLayout,
    QGroupBox,
    QHBoxLayout,
    QLabel,
    QPushButton,
    QVBoxLayout,
)
from superqt import QLabeledSlider

from napari_ptsam._widgets.jobs import show
from napari_ptsam._widgets.results import Look
from napari_ptsam._widgets.tables import features_of, measured
from napari_ptsam.errors import PtsamError

if TYPE_CHECKING:
    from napari_ptsam._widgets.layerresult import LayerResult
    from napari_ptsam._widgets.segmenting import Segmenter
    from napari_ptsam._widgets.state import PluginState
    from napari_ptsam.measure import ObjectTable

_LARGEST_MINIMUM = 2000


class AdjustBox(QGroupBox):
    """Changes how a result looks, and measures its objects.

    Parameters
    ----------
    state
        What the sections share.
    segmenter
        Whose results are adjusted.

    Attributes
    ----------
    target
        The result that is adjusted: the selected one, else the newest.
    table
        What was measured on it, as long as it is still true.
    """

    def __init__(self, state: PluginState, segmenter: Segmenter) -> None:
        super().__init__("Adjust the result")
        self._state = state
        self._segmenter = segmenter
        self._own_threshold = 0.5
        self._measured: tuple[LayerResult, Look, list[int]] | None = None
        self.target: LayerResult | None = None
        self.table: ObjectTable | None = None
        self._make_controls()
        self._lay_out()
        self.refresh()

    def _make_controls(self) -> None:
        self.threshold = _slider(1, 99, "Higher: less is object. Lower: more is object.")
        self.minimum_size = _slider(
            0, _LARGEST_MINIMUM, "Objects of fewer pixels than this are left out."
        )
        self.numbered = QCheckBox("Number the objects")
        self.numbered.setToolTip("Give each object a label of its own, instead of 1 for all.")
        self.separate = QCheckBox("Separate touching objects")
        self.separate.setToolTip("Cut objects apart where they are narrow between them.")
        self.through = QComboBox()
        self.through.addItem("Objects in each plane", False)
        self.through.addItem("Objects through planes (3D)", True)
        self.through.setToolTip(
            "Whether what overlaps in neighbouring planes is one object with one number."
        )
        self.table_button = QPushButton("Table of objects")
        self.table_button.setToolTip(
            "Measures size, position, shape and brightness of each object. The table becomes the "
            "features of the layer: the status bar shows those of the object under the mouse."
        )
        self.csv_button = QPushButton("Save table ...")
        self.csv_button.setToolTip("Writes the table to a CSV file, for spreadsheets.")
        self.note = QLabel()
        self.note.setWordWrap(True)
        for slider in (self.threshold, self.minimum_size):
            slider.valueChanged.connect(self._on_changed)
        self.numbered.toggled.connect(self._on_changed)
        self.separate.toggled.connect(self._on_changed)
        self.through.currentIndexChanged.connect(self._on_changed)
        self.table_button.clicked.connect(self.measure)
        self.csv_button.clicked.connect(self._ask_and_save)

    def _lay_out(self) -> None:
        form = QFormLayout()
        form.setContentsMargins(0, 0, 0, 0)
        form.addRow("Threshold %", self.threshold)
        form.addRow("Smallest (px)", self.minimum_size)
        buttons = QHBoxLayout()
        buttons.addWidget(self.table_button)
        buttons.addWidget(self.csv_button)
        layout = QVBoxLayout(self)
        layout.setContentsMargins(6, 6, 6, 6)
        layout.addLayout(form)
        for widget in (self.numbered, self.separate, self.through):
            layout.addWidget(widget)
        layout.addLayout(buttons)
        layout.addWidget(self.note)

    def look(self) -> Look:
        """What the controls say."""
        return Look(
            self._threshold(),
            self.minimum_size.value(),
            numbered=self.numbered.isChecked(),
            separate=self.numbered.isChecked() and self.separate.isChecked(),
            linked=bool(self.through.currentData()),
        )

    def _threshold(self) -> float:
        percent = self.threshold.value()
        # The specialist's own stands in for the percent next to it, to the last digit.
        return self._own_threshold if percent == _percent(self._own_threshold) else percent / 100

    def set_default_threshold(self, threshold: float) -> None:
        """Take the threshold of another specialist."""
        self._own_threshold = threshold
        with QSignalBlocker(self.threshold):
            self.threshold.setValue(_percent(threshold))

    def show_target(self, target: LayerResult | None) -> None:
        """Adjust this result from now on; the controls show its look."""
        self.target = target
        if target is None:
            return
        look = target.result.look
        self._own_threshold = target.entry.specialist.threshold
        controls = (
            self.threshold, self.minimum_size, self.numbered, self.separate, self.through,
        )  # fmt: skip
        blockers = [QSignalBlocker(control) for control in controls]
        self.threshold.setValue(_percent(look.threshold))
        self.minimum_size.setValue(look.minimum_size)
        self.numbered.setChecked(look.numbered)
        self.separate.setChecked(look.separate)
        self.through.setCurrentIndex(int(look.linked))
        del blockers

    def refresh(self) -> None:
        """Show what can be adjusted now, and what is known of it."""
        target = self._pick()
        if target is not self.target:
            self.show_target(target)
        self.setTitle("Adjust the result" if target is None else f"Adjust '{_short(target)}'")
        self.separate.setEnabled(self.numbered.isChecked())
        self.through.setVisible(target is not None and bool(target.result.geometry.volumes))
        if not self._still_true():
            self.table = None
        self.table_button.setEnabled(
            target is not None and bool(target.result.done()) and self._state.jobs.running is None
        )
        self.csv_button.setEnabled(self.table is not None)
        self.note.setText(self._text())
        self.note.setVisible(bool(self.note.text()))

    def _pick(self) -> LayerResult | None:
        results = self._segmenter.results
        active = self._state.viewer.layers.selection.active
        for target in reversed(results):
            if active is not None and active in (target.labels, target.probability):
                return target
        if self.target in results:
            return self.target
        return results[-1] if results else None

    def _text(self) -> str:
        target = self.target
        if target is None:
            return "Nothing is segmented yet. What is set here holds for the next result."
        parts = []
        if target.result.edited:
            planes = ", ".join(str(index) for index in sorted(target.result.edited)[:5])
            more = " ..." if len(target.result.edited) > 5 else ""
            parts.append(f"Corrected by hand and left as they are: planes {planes}{more}.")
        if self.table is not None:
            count = len(self.table)
            parts.append(
                f"{count} object{'' if count == 1 else 's'} measured. Save the table, or see it "
                "in napari's features table (Layers > Metadata)."
            )
        return " ".join(parts)

    def _on_changed(self) -> None:
        if self.target is not None and self.target in self._segmenter.results:
            self._segmenter.set_look(self.target, self.look())
        self.refresh()

    def _still_true(self) -> bool:
        if self._measured is None or self.target is None:
            return False
        target, look, done = self._measured
        now = self.target.result
        return target is self.target and look == now.look and done == now.done()

    def measure(self) -> None:
        """Measure the objects in the background, into the layer's features."""
        target = self.target
        if target is None:
            return
        if not target.result.look.numbered:
            self.numbered.setChecked(True)  # a table needs a number for each object
        try:
            self._state.jobs.run(
                "Measuring objects",
                lambda: self._drawn_and_measured(target),
                on_yield=lambda _: None,
                on_return=lambda table: self._on_measured(target, table),
                progress=lambda share: share,
                # A volume is one step, however long that takes.
                offer_stop=not target.result.look.through_planes,
            )
        except PtsamError as error:
            show(error)

    @staticmethod
    def _drawn_and_measured(
        target: LayerResult,
    ) -> Generator[tuple[int, int], None, tuple[Look, list[int], ObjectTable]]:
        result = target.result
        while stale := result.stale():
            result.draw_some(stale)
        if result.unfinished and result.look.through_planes:
            yield from result.link()
        elif result.unfinished:
            result.renumber()
        look, done = result.look, result.done()
        table = yield from measured(target)
        return look, done, table

    def _on_measured(self, target: LayerResult, found: tuple[Look, list[int], ObjectTable]) -> None:
        look, done, table = found
        self._measured, self.table = (target, look, done), table
        self.refresh()
        if self.table is None:
            return
        target.labels.features = features_of(table)

    def _ask_and_save(self) -> None:
        target = self.target
        if target is None:
            return
        name = f"{target.source.name} objects.csv".replace("/", "-")
        path, _ = QFileDialog.getSaveFileName(self, "Save the table", name, "Tables (*.csv)")
        if path:
            self.save_table(path)

    def save_table(self, path: str | Path) -> None:
        """Write the table to a CSV file."""
        if self.table is None:
            return
        table = self.table
        self._state.jobs.aside(
            lambda: table.write_csv(path),
            lambda written: self.note.setText(f"{self._text()} Saved as {written}."),
        )


def _slider(low: int, high: int, tip: str) -> QLabeledSlider:
    slider = QLabeledSlider(Qt.Orientation.Horizontal)
    slider.setRange(low, high)
    slider.setToolTip(tip)
    return slider


def _percent(threshold: float) -> int:
    return min(99, max(1, round(threshold * 100)))


def _short(target: LayerResult) -> str:
    name = target.labels.name
    return name if len(name) <= 24 else f"{name[:23]}…"
