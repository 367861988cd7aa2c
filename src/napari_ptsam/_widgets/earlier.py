"""The offer to bring back specialists that were trained at another time and not exported."""

from __future__ import annotations

from collections.abc import Callable, Collection
from pathlib import Path
from typing import TYPE_CHECKING

from qtpy.QtCore import Qt, Signal
from qtpy.QtWidgets import QVBoxLayout, QWidget

from napari_ptsam._widgets.controls import button, combo, row, words
from napari_ptsam._widgets.shelf import KEPT

if TYPE_CHECKING:
    from napari_ptsam._widgets.jobs import Jobs
    from napari_ptsam._widgets.shelf import Earlier, Shelf


class EarlierChoice(QWidget):
    """Trainings that were put aside, to choose one from; not shown where there are none.

    Parameters
    ----------
    shelf
        Where they lie.
    jobs
        Looks there in the background.
    shown
        Tells the files of those that are in the window's list already; None where one has none.

    Attributes
    ----------
    wanted
        Emitted with the path of the one to bring back.
    """

    wanted = Signal(object)

    def __init__(
        self, shelf: Shelf, jobs: Jobs, shown: Callable[[], Collection[Path | None]]
    ) -> None:
        super().__init__()
        self._shelf = shelf
        self._jobs = jobs
        self._shown = shown
        self._found: list[Earlier] = []
        self.text = words("Trained earlier, not exported")
        self.choice = combo(
            f"The last {KEPT} trainings are kept for you, also after napari was closed. Export "
            "those that you want to keep for good."
        )
        self.restore = button("Bring back", "Put it on the list, and use it.")
        layout = QVBoxLayout(self)
        layout.setContentsMargins(0, 0, 0, 0)
        layout.addLayout(row(self.text, self.restore))
        layout.addWidget(self.choice)
        self.restore.clicked.connect(self._on_restore)
        self.hide()

    def look(self) -> None:
        """See what lies there now."""
        # Nothing is lost where it cannot be read, and nobody asked.
        self._jobs.aside(self._shelf.earlier, self._on_found, lambda _: None)

    def refresh(self) -> None:
        """Offer what is not in the window's list."""
        shown, chosen = self._shown(), self.choice.currentData()
        # What was exported meanwhile lies there no longer.
        offered = [o for o in self._found if o.path not in shown and self._shelf.has(o.path)]
        self.choice.clear()
        for number, one in enumerate(offered):
            self.choice.addItem(one.title, one.path)
            self.choice.setItemData(number, one.tip, Qt.ItemDataRole.ToolTipRole)
        self.choice.setCurrentIndex(max(0, self.choice.findData(chosen)))
        self.setVisible(bool(offered))

    def _on_found(self, found: list[Earlier]) -> None:
        self._found = found
        self.refresh()

    def _on_restore(self) -> None:
        self.wanted.emit(self.choice.currentData())
