"""Which model answers clicks: plain SAM, or a click specialist; load and export these."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from qtpy.QtCore import QSignalBlocker, Qt, QTimer
from qtpy.QtGui import QShowEvent
from qtpy.QtWidgets import QFileDialog, QVBoxLayout, QWidget

from napari_ptsam._widgets.clicks_state import ClickerEntry
from napari_ptsam._widgets.controls import button, combo, row, words
from napari_ptsam._widgets.earlier import EarlierChoice
from napari_ptsam._widgets.jobs import show
from napari_ptsam._widgets.loading import BackboneFileWantedError, backbone_news, name_of
from napari_ptsam._widgets.specialists import FILTER, SUFFIX
from napari_ptsam._widgets.trainform import EMBEDDED, BackboneChoice, list_choices
from napari_ptsam._widgets.words import size

if TYPE_CHECKING:
    from napari_ptsam._widgets.clicks_state import ClickState
    from napari_ptsam._widgets.training import Engine
    from napari_ptsam.clicking import Clicker
    from napari_ptsam.errors import PtsamError

POLL_MS = 500


def plain_clicker(engine: Engine, backbone: str) -> Clicker:
    """SAM as it is; loads its backbone, so not for the GUI thread."""
    from napari_ptsam.clicking import Clicker

    clicker = Clicker.plain(engine.backbone(backbone, "auto"))
    clicker.embeddings = engine.embeddings
    return clicker


def load_clicker(engine: Engine, path: Path, backbone: Path | None) -> Clicker:
    """A click specialist from its file; not for the GUI thread.

    Parameters
    ----------
    backbone
        File of its backbone, if it is none that is known by name.

    Raises
    ------
    BackboneFileWantedError
        If `backbone` is needed.
    """
    from napari_ptsam.clicking import Clicker
    from napari_ptsam.promptfile import read_prompt_file

    name = str(backbone) if backbone is not None else ""
    if not name:
        metadata = read_prompt_file(path).metadata
        backbone_news(path, metadata)
        name = metadata.backbone_name
    clicker = Clicker.load(path, backbone=engine.backbone(name, "auto"))
    clicker.embeddings = engine.embeddings
    return clicker


class ModelChoice(QWidget):
    """A list of the models that answer clicks, and below it buttons to load and export.

    Parameters
    ----------
    state
        What the sections of the dock share.

    Attributes
    ----------
    model
        The list, for a row of its own.
    """

    def __init__(self, state: ClickState) -> None:
        super().__init__()
        self._state = state
        self._plain: dict[str, ClickerEntry] = {}
        self._asked = False
        self._wanting: Path | None = None
        self.model = combo(
            "What answers your clicks: SAM as it is, for any object, or a click specialist that "
            "learned what you mean by one."
        )
        self.load_button = button("Load ...", "Load a click specialist from its file.")
        self.export_button = button(
            "Export ...", "Save the click specialist to a file, to keep or to send."
        )
        self.locate_button = button(
            "Choose the backbone's file ...", "The checkpoint (.pth, .pt or .safetensors)."
        )
        self.note = words()
        self.earlier = EarlierChoice(
            state.shelf, state.jobs, lambda: [entry.kept for entry in state.clickers]
        )
        layout = QVBoxLayout(self)
        layout.setContentsMargins(0, 0, 0, 0)
        layout.addLayout(row(self.load_button, self.export_button))
        layout.addWidget(self.earlier)
        layout.addWidget(self.note)
        layout.addWidget(self.locate_button)
        self._poll = QTimer(self)
        self._poll.setInterval(POLL_MS)
        self._poll.timeout.connect(self._show_download)
        self.set_backbones([EMBEDDED])
        if state.chosen is None:
            state.chosen = self._plain[EMBEDDED.name]
        self._connect()
        self.refresh()

    def _connect(self) -> None:
        state = self._state
        self.model.activated.connect(self._on_chosen)
        self.load_button.clicked.connect(self._ask_and_load)
        self.export_button.clicked.connect(self._ask_and_export)
        self.locate_button.clicked.connect(self._ask_and_locate)
        self.earlier.wanted.connect(self.load)
        state.clickers_changed.connect(self.refresh)
        state.chosen_changed.connect(self.refresh)
        state.session.changed.connect(self._load_if_needed)

    def showEvent(self, event: QShowEvent) -> None:  # noqa: N802 (Qt's name)
        """List the models, now that somebody looks."""
        super().showEvent(event)
        self.earlier.look()
        if not self._asked:
            self._asked = True
            self._state.jobs.aside(list_choices, lambda found: self.set_backbones(found[0]))

    def set_backbones(self, choices: list[BackboneChoice]) -> None:
        """Offer plain SAM with these backbones."""
        for choice in choices:
            entry = self._plain.setdefault(choice.name, ClickerEntry("", backbone=choice.name))
            entry.name = f"Plain SAM: {choice.title}"
            entry.tip = choice.tip
        self.refresh()

    def refresh(self) -> None:
        """List what there is anew."""
        entries = [*self._state.clickers, *self._plain.values()]
        with QSignalBlocker(self.model):
            self.model.clear()
            for number, entry in enumerate(entries):
                self.model.addItem(entry.name, entry)
                self.model.setItemData(number, entry.tip or entry.name, Qt.ItemDataRole.ToolTipRole)
            if self._state.chosen in entries:
                self.model.setCurrentIndex(entries.index(self._state.chosen))
        self.earlier.refresh()
        chosen = self._state.chosen
        self.export_button.setEnabled(chosen is not None and chosen.is_specialist)
        self.locate_button.setVisible(self._wanting is not None)
        self.note.setVisible(bool(self.note.text()))

    def _say(self, text: str) -> None:
        self.note.setText(text)
        self.note.setVisible(bool(text))
        self.locate_button.setVisible(self._wanting is not None)

    def _on_chosen(self) -> None:
        self._state.chosen = self.model.currentData()
        self._load_if_needed()

    # Plain SAM

    def _load_if_needed(self) -> None:
        """Load plain SAM as soon as somebody clicks with it."""
        entry = self._state.chosen
        if (
            entry is None
            or entry.clicker is not None
            or entry.loading
            or not self._state.session.on
        ):
            return
        entry.loading = True
        engine, backbone = self._state.engine, entry.backbone
        self._poll.start()

        def loaded(clicker: Clicker) -> None:
            self._poll.stop()
            entry.loading = False
            self._say("")
            self._state.set_loaded(entry, clicker)

        def failed(error: PtsamError) -> None:
            self._poll.stop()
            entry.loading = False
            self._state.chosen = None
            self.model.setCurrentIndex(-1)
            self._state.session.tell(str(error))

        self._state.jobs.aside(lambda: plain_clicker(engine, backbone), loaded, failed)

    def _show_download(self) -> None:
        found = self._state.engine.downloaded
        if found is not None:
            done, total = found
            rest = "" if total is None else f" of {size(total)}"
            self._say(f"Downloading the model: {size(done)}{rest}")

    # Files

    def load(self, path: Path, backbone: Path | None = None) -> None:
        """Load a click specialist in the background, and use it."""
        state, engine = self._state, self._state.engine
        self._wanting = None
        kept = state.shelf.holds(path)
        self._say("Loading a click specialist ..." if kept else f"Loading {path.name} ...")

        def loaded(clicker: Clicker) -> None:
            self._say("")
            if kept:
                clicker.path = None
                state.add_trained_clicker(clicker, path)
            else:
                state.add_clicker(ClickerEntry(name_of(path), clicker, path, saved=True))

        def failed(error: PtsamError) -> None:
            self._wanting = path if isinstance(error, BackboneFileWantedError) else None
            self._say(str(error))

        self._state.jobs.aside(lambda: load_clicker(engine, path, backbone), loaded, failed)

    def export(self, path: Path) -> None:
        """Save the click specialist in use to a file."""
        entry = self._state.chosen
        if entry is None or entry.clicker is None:
            return
        clicker = entry.clicker

        def saved(written: Path) -> None:
            self._state.shelf.let_go(entry.kept, written)
            entry.path, entry.saved, entry.kept = written, True, None
            self._state.clickers_changed.emit()
            self._say(f"Saved as {written}. Send it to anyone who has this program.")

        def failed(error: PtsamError) -> None:
            self._say(str(error))
            show(error)

        self._state.jobs.aside(lambda: clicker.save(path), saved, failed)

    def _ask_and_load(self) -> None:
        path, _ = QFileDialog.getOpenFileName(self, "Load a click specialist", "", FILTER)
        if path:
            self.load(Path(path))

    def _ask_and_export(self) -> None:
        entry = self._state.chosen
        if entry is None:
            return
        proposed = str(entry.path or f"{entry.name.replace('/', '-')}{SUFFIX}")
        path, _ = QFileDialog.getSaveFileName(self, "Export the click specialist", proposed, FILTER)
        if path:
            self.export(Path(path))

    def _ask_and_locate(self) -> None:
        path, _ = QFileDialog.getOpenFileName(
            self, "The backbone's file", "", "Checkpoints (*.pth *.pt *.safetensors)"
        )
        if path and self._wanting is not None:
            self.load(self._wanting, Path(path))
