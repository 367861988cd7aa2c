"""The fourth step: the specialists of this window; load, export, rename, compare."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from qtpy.QtCore import QSignalBlocker, Qt
from qtpy.QtGui import QShowEvent
from qtpy.QtWidgets import (
    QAbstractItemView,
    QFileDialog,
    QGridLayout,
    QHeaderView,
    QLabel,
    QMessageBox,
    QSizePolicy,
    QTableWidget,
    QTableWidgetItem,
    QTextBrowser,
    QVBoxLayout,
    QWidget,
)

from napari_ptsam._widgets.comparing import Comparison
from napari_ptsam._widgets.controls import button
from napari_ptsam._widgets.earlier import EarlierChoice
from napari_ptsam._widgets.jobs import show
from napari_ptsam._widgets.loading import BackboneFileWantedError, load_specialists
from napari_ptsam._widgets.records import date_of, details, dice_of
from napari_ptsam._widgets.shelf import KEPT
from napari_ptsam.errors import PtsamError

if TYPE_CHECKING:
    from napari_ptsam._widgets.state import PluginState, SpecialistEntry

COLUMNS = ("Name", "Dice", "Object", "Backbone", "Date", "Saved")
_TIPS = (
    "What you call it. Double-click to rename.",
    "Overlap with masks that were held out from training, from 0 to 1.",
    "What it finds.",
    "The model that it was learned on, and works with.",
    "Day of the training.",
    "Whether it is in a file, as it is.",
)
SUFFIX = ".ptsam.safetensors"
FILTER = f"Specialists (*{SUFFIX})"


class SpecialistsSection(QWidget):
    """One list of specialists, and what can be done with them.

    Parameters
    ----------
    state
        What the sections share.
    """

    def __init__(self, state: PluginState) -> None:
        super().__init__()
        self._state = state
        self._wanting: list[Path] = []
        self.comparison = Comparison(state)
        self.earlier = EarlierChoice(
            state.shelf, state.jobs, lambda: [entry.kept for entry in state.specialists]
        )
        self._make_controls()
        self._lay_out()
        self._connect()
        self.refresh()

    def _make_controls(self) -> None:
        self.table = QTableWidget(0, len(COLUMNS))
        self.table.setHorizontalHeaderLabels(COLUMNS)
        for column, tip in enumerate(_TIPS):
            self.table.horizontalHeaderItem(column).setToolTip(tip)
        self.table.verticalHeader().hide()
        self.table.setSelectionBehavior(QAbstractItemView.SelectionBehavior.SelectRows)
        self.table.setHorizontalScrollMode(QAbstractItemView.ScrollMode.ScrollPerPixel)
        self.table.setSizeAdjustPolicy(QAbstractItemView.SizeAdjustPolicy.AdjustToContents)
        self.table.setSizePolicy(QSizePolicy.Policy.Ignored, QSizePolicy.Policy.Maximum)
        self.table.setMaximumHeight(170)
        header = self.table.horizontalHeader()
        header.setSectionResizeMode(QHeaderView.ResizeMode.ResizeToContents)
        header.setStretchLastSection(True)
        self.load_button = button("Load ...", "Load specialists from prompt files.")
        self.export_button = button(
            "Export ...", "Save the specialist to a file of some kilobytes, to keep or to send."
        )
        self.compare_button = button(
            "Compare",
            "Segment the plane in view with each selected specialist and show them side by side. "
            "Select several rows with Ctrl or Shift.",
        )
        self.remove_button = button("Remove", "Take the selected specialists off this list.")
        self.locate_button = button(
            "Choose the backbone's file ...", "The checkpoint (.pth, .pt or .safetensors)."
        )
        self.note = QLabel()
        self.note.setWordWrap(True)
        self.details = QTextBrowser()
        self.details.setMinimumHeight(120)
        self.details.setToolTip("How the specialist was made.")

    def _lay_out(self) -> None:
        buttons = QGridLayout()
        buttons.addWidget(self.load_button, 0, 0)
        buttons.addWidget(self.export_button, 0, 1)
        buttons.addWidget(self.compare_button, 1, 0)
        buttons.addWidget(self.remove_button, 1, 1)
        layout = QVBoxLayout(self)
        layout.setContentsMargins(0, 0, 0, 0)
        layout.addWidget(self.table)
        layout.addLayout(buttons)
        for widget in (self.earlier, self.note, self.locate_button, self.details):
            layout.addWidget(widget)
        self.locate_button.hide()

    def _connect(self) -> None:
        state = self._state
        self.table.itemChanged.connect(self._on_renamed)
        self.table.itemSelectionChanged.connect(self._on_selected)
        self.load_button.clicked.connect(self._ask_and_load)
        self.export_button.clicked.connect(self._ask_and_export)
        self.compare_button.clicked.connect(self.compare)
        self.remove_button.clicked.connect(self._ask_and_remove)
        self.locate_button.clicked.connect(self._ask_and_locate)
        self.earlier.wanted.connect(lambda path: self.load([path]))
        state.specialists_changed.connect(self.refresh)
        state.current_changed.connect(self._on_current)
        state.jobs.started.connect(self._show_possible)
        state.jobs.finished.connect(self._show_possible)
        state.closing.connect(self._let_go)

    def showEvent(self, event: QShowEvent) -> None:  # noqa: N802 (Qt's name)
        """See what was trained at another time, now that somebody looks."""
        super().showEvent(event)
        self.earlier.look()

    def _let_go(self) -> None:
        self._state.specialists_changed.disconnect(self.refresh)
        self._state.current_changed.disconnect(self._on_current)

    def selected(self) -> list[SpecialistEntry]:
        """The specialists of the selected rows, in the order of the list."""
        rows = sorted({index.row() for index in self.table.selectionModel().selectedRows()})
        return [self._state.specialists[r] for r in rows if r < len(self._state.specialists)]

    def refresh(self, *_: object) -> None:
        """List the specialists anew; the one in use is selected."""
        chosen = self.selected()
        with QSignalBlocker(self.table):
            self.table.setRowCount(len(self._state.specialists))
            for row, entry in enumerate(self._state.specialists):
                self._fill(row, entry)
        if self._state.current not in chosen:
            self._on_current(self._state.current)
        self.earlier.refresh()
        self._show_details()
        self._show_possible()

    def _fill(self, row: int, entry: SpecialistEntry) -> None:
        dice, metadata = dice_of(entry), entry.specialist.metadata
        texts = (
            entry.name,
            "" if dice is None else f"{dice:.2f}",
            metadata.class_name,
            metadata.backbone_name,
            date_of(entry),
            "yes" if entry.saved else "for now" if self._state.shelf.has(entry.kept) else "no",
        )
        for column, text in enumerate(texts):
            item = QTableWidgetItem(text)
            flags = Qt.ItemFlag.ItemIsSelectable | Qt.ItemFlag.ItemIsEnabled
            item.setFlags(flags | Qt.ItemFlag.ItemIsEditable if column == 0 else flags)
            item.setToolTip(_saved_tip(entry) if column == 5 else text)
            font = item.font()
            font.setBold(entry is self._state.current)
            item.setFont(font)
            self.table.setItem(row, column, item)

    def _show_details(self) -> None:
        entry = self._state.current
        self.details.setHtml("" if entry is None else details(entry))
        self.details.setVisible(entry is not None)

    def _show_possible(self, *_: object) -> None:
        busy, some = self._state.jobs.running, bool(self.selected())
        self.load_button.setEnabled(busy is None)
        self.earlier.restore.setEnabled(busy is None)
        self.export_button.setEnabled(self._state.current is not None)
        self.remove_button.setEnabled(some and busy is None)
        self.compare_button.setEnabled(some and busy is None)
        self.table.setVisible(bool(self._state.specialists))
        if not self._state.specialists and busy is None and not self._wanting:
            self.say("No specialist yet: train one above, or load a file that somebody sent you.")
        elif self._state.specialists and self.note.text().startswith("No specialist yet"):
            self.say("")

    def say(self, text: str) -> None:
        """Show a line of text; none if it is empty."""
        self.note.setText(text)
        self.note.setVisible(bool(text))

    def _on_current(self, entry: SpecialistEntry | None) -> None:
        if entry in self._state.specialists:
            row = self._state.specialists.index(entry)
            if row < self.table.rowCount():
                with QSignalBlocker(self.table):
                    self.table.selectRow(row)
                    self._embolden()
        self._show_details()
        self._show_possible()

    def _on_selected(self) -> None:
        chosen = self.selected()
        if chosen and self._state.current not in chosen:
            self._state.current = chosen[-1]
        self._show_possible()

    def _embolden(self) -> None:
        for row, entry in enumerate(self._state.specialists):
            for column in range(len(COLUMNS)):
                item = self.table.item(row, column)
                font = item.font()
                font.setBold(entry is self._state.current)
                item.setFont(font)

    def _on_renamed(self, item: QTableWidgetItem) -> None:
        entry = self._state.specialists[item.row()]
        name = " ".join(item.text().split())
        if item.column() == 0 and name and name != entry.name:
            entry.name = name
        self._state.specialists_changed.emit()

    # What the buttons do

    def load(self, paths: Sequence[Path], backbone: Path | None = None) -> None:
        """Load prompt files in the background; the last one is used.

        Parameters
        ----------
        backbone
            File of their backbone, if it is none that is known by name.
        """
        self._wanting = []
        self.locate_button.hide()

        def failed(error: PtsamError) -> None:
            self.say(str(error))
            if isinstance(error, BackboneFileWantedError):
                rest = list(paths)
                self._wanting = rest[rest.index(error.path) :]
                self.locate_button.show()

        try:
            load_specialists(
                self._state, paths, backbone=backbone, on_news=self.say, on_error=failed
            )
        except PtsamError as error:
            show(error)

    def _ask_and_load(self) -> None:
        paths, _ = QFileDialog.getOpenFileNames(self, "Load specialists", "", FILTER)
        if paths:
            self.load([Path(path) for path in paths])

    def _ask_and_locate(self) -> None:
        path, _ = QFileDialog.getOpenFileName(
            self, "The backbone's file", "", "Checkpoints (*.pth *.pt *.safetensors)"
        )
        if path and self._wanting:
            self.load(self._wanting, Path(path))

    def export(self, path: Path) -> None:
        """Save the current specialist to a prompt file."""
        entry = self._state.current
        if entry is None:
            return

        def saved(written: Path) -> None:
            self._state.shelf.let_go(entry.kept, written)
            entry.path, entry.saved, entry.kept = written, True, None
            self._state.specialists_changed.emit()
            self.say(f"Saved as {written}. Send it to anyone who has this program.")

        def failed(error: PtsamError) -> None:
            self.say(str(error))
            show(error)

        self._state.jobs.aside(lambda: entry.specialist.save(path), saved, failed)

    def _ask_and_export(self) -> None:
        entry = self._state.current
        if entry is None:
            return
        proposed = str(entry.path or f"{entry.name.replace('/', '-')}{SUFFIX}")
        path, _ = QFileDialog.getSaveFileName(self, "Export the specialist", proposed, FILTER)
        if path:
            self.export(Path(path))

    def compare(self) -> None:
        """Show what each selected specialist makes of the plane in view."""
        try:
            self.comparison.run(self.selected(), self.say)
        except PtsamError as error:
            self.say(str(error))

    def remove(self, entries: Sequence[SpecialistEntry]) -> None:
        """Take specialists off the list; their files stay."""
        for entry in entries:
            self._state.remove_specialist(entry)

    def _ask_and_remove(self) -> None:
        chosen = self.selected()
        kept = self._state.shelf.has
        unsaved = [entry.name for entry in chosen if not entry.saved and not kept(entry.kept)]
        if unsaved:
            answer = QMessageBox.question(
                self,
                "Not saved",
                f"{', '.join(unsaved)}: not saved to a file, and lost when removed. Remove?",
            )
            if answer != QMessageBox.StandardButton.Yes:
                return
        self.remove(chosen)


def _saved_tip(entry: SpecialistEntry) -> str:
    """Where it is saved."""
    if entry.path is not None:
        return str(entry.path)
    if entry.kept is None:
        return "Nowhere: export it to keep it."
    return f"One of the last {KEPT} trainings, which are kept: export it to keep it for good."
