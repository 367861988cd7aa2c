"""A button that copies the command line of what was done."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING

from qtpy.QtCore import Qt
from qtpy.QtWidgets import QApplication, QLabel, QPushButton, QVBoxLayout, QWidget

from napari_ptsam._widgets.commandline import Command, command_of_folder, command_of_result
from napari_ptsam._widgets.folders import FolderRun
from napari_ptsam._widgets.layerresult import LayerResult

if TYPE_CHECKING:
    from napari_ptsam._widgets.state import PluginState


class CommandBox(QWidget):
    """Copies the command line of a result, or says why there is none.

    Parameters
    ----------
    state
        What the sections share.
    made
        Gives the run or the result whose command is wanted.
    """

    def __init__(
        self, state: PluginState, made: Callable[[], FolderRun | LayerResult | None]
    ) -> None:
        super().__init__()
        self._state = state
        self._made = made
        self.button = QPushButton("Copy command line")
        self.button.setToolTip(
            "Copies the command that gives the same masks in a terminal, without napari."
        )
        self.button.clicked.connect(self.copy)
        self.note = QLabel()
        self.note.setWordWrap(True)
        self.note.setTextInteractionFlags(Qt.TextInteractionFlag.TextSelectableByMouse)
        self.note.hide()
        layout = QVBoxLayout(self)
        layout.setContentsMargins(0, 0, 0, 0)
        layout.addWidget(self.button)
        layout.addWidget(self.note)

    def copy(self) -> None:
        """Put the command on the clipboard, or say why not."""
        made = self._made()
        if made is None:
            return
        device = made.entry.specialist.backbone.device.type
        make: Callable[[], Command]
        if isinstance(made, FolderRun):
            make = partial(command_of_folder, made, device)
        else:
            result = made.result
            make = partial(command_of_result, made, result.look, result.done(), device)

        def copied(command: Command) -> None:
            QApplication.clipboard().setText(command.line)
            self._say(f"Copied: {command.line}\n{command.remark}".strip())

        # Aside, for it reads the file to be sure that it is what the layer shows.
        self._state.jobs.aside(make, copied, lambda error: self._say(str(error)))

    def _say(self, text: str) -> None:
        self.note.setText(text)
        self.note.setVisible(bool(text))
