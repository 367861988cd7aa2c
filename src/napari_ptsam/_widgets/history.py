"""The trainings of this window, to compare them and to go back to one."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from qtpy.QtCore import QSignalBlocker, Qt
from qtpy.QtWidgets import QAbstractItemView, QHeaderView, QTableWidget, QTableWidgetItem

from napari_ptsam._widgets.words import duration

if TYPE_CHECKING:
    from napari_ptsam._widgets.state import PluginState, SpecialistEntry

COLUMNS = ("Name", "Date", "Dice", "Steps", "Time", "Mode")
ROWS_SHOWN = 5


class History(QTableWidget):
    """One row for each trained specialist of this window, the newest first.

    A click on a row makes that specialist the one in use.
    """

    def __init__(self, state: PluginState) -> None:
        super().__init__(0, len(COLUMNS))
        self._state = state
        self.entries: list[SpecialistEntry] = []
        self.setHorizontalHeaderLabels(list(COLUMNS))
        self.setToolTip(
            "The specialists that you trained or loaded. Click one, or press Enter, to use it."
        )
        self.setSelectionBehavior(QAbstractItemView.SelectionBehavior.SelectRows)
        self.setSelectionMode(QAbstractItemView.SelectionMode.SingleSelection)
        self.setEditTriggers(QAbstractItemView.EditTrigger.NoEditTriggers)
        self.setTabKeyNavigation(False)
        self.setShowGrid(False)
        self.setWordWrap(False)
        self.verticalHeader().hide()
        header = self.horizontalHeader()
        header.setSectionResizeMode(QHeaderView.ResizeMode.ResizeToContents)
        header.setSectionResizeMode(0, QHeaderView.ResizeMode.Stretch)
        header.setMinimumSectionSize(24)
        header.setHighlightSections(False)
        self.cellClicked.connect(self._use)
        self.cellActivated.connect(self._use)
        state.specialists_changed.connect(self.refresh)
        state.current_changed.connect(self.refresh)
        self.refresh()

    def refresh(self) -> None:
        """Show the list as it is now."""
        self.entries = list(reversed(self._state.specialists))
        with QSignalBlocker(self):
            self.setRowCount(len(self.entries))
            for row, entry in enumerate(self.entries):
                for column, text in enumerate(_cells(entry)):
                    item = QTableWidgetItem(text)
                    item.setToolTip(_details(entry))
                    if column:
                        item.setTextAlignment(Qt.AlignmentFlag.AlignCenter)
                    self.setItem(row, column, item)
            self.clearSelection()
            if self._state.current in self.entries:
                self.selectRow(self.entries.index(self._state.current))
        self.setVisible(bool(self.entries))
        rows = min(len(self.entries), ROWS_SHOWN)
        height = sum(self.rowHeight(row) for row in range(rows))
        self.setFixedHeight(self.horizontalHeader().sizeHint().height() + height + 4)

    def _use(self, row: int, _: int) -> None:
        self._state.current = self.entries[row]


def _cells(entry: SpecialistEntry) -> tuple[str, ...]:
    record = entry.specialist.metadata.training
    dice = record.get("held_out_dice")
    return (
        entry.name,
        # The year is in the tooltip: the dock is narrow.
        str(record.get("date", ""))[5:],
        "-" if dice is None else f"{dice:.2f}",
        str(record.get("steps", "-")),
        duration(record["seconds"], short=True) if "seconds" in record else "-",
        _mode(entry),
    )


def _mode(entry: SpecialistEntry) -> str:
    method = entry.specialist.method
    if method.name != "ptsam":
        return method.name
    return "fast" if method.works_on_embeddings else "thorough"


def _details(entry: SpecialistEntry) -> str:
    record: dict[str, Any] = entry.specialist.metadata.training
    lines = [f"{entry.name}, for {entry.specialist.metadata.class_name}"]
    if "date" in record:
        lines.append(f"trained on {record.get('images', '?')} planes on {record['date']}")
    if record.get("stopped"):
        lines.append("stopped early")
    if record.get("started_from"):
        lines.append("trained again from an earlier one")
    return "\n".join(lines)
