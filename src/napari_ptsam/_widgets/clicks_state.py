"""What the sections of the click dock share."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import DTypeLike
from psygnal import Signal

from napari_ptsam._widgets.clicks_canvas import ClickCanvas
from napari_ptsam._widgets.clicks_session import ClickSession
from napari_ptsam._widgets.shelf import numbered
from napari_ptsam._widgets.state import PluginState
from napari_ptsam._widgets.training import Engine

if TYPE_CHECKING:
    from napari.layers import Labels
    from napari.viewer import Viewer

    from napari_ptsam._widgets.annotations import Annotations
    from napari_ptsam.clicking import Clicker


@dataclass(eq=False)
class ClickerEntry:
    """A model that answers clicks, in the list of this window.

    Attributes
    ----------
    name
        What the user calls it.
    clicker
        Itself; None until it is loaded.
    path
        File of a click specialist, None if it was never saved.
    saved
        Whether the file holds what the entry holds.
    backbone
        Of plain SAM its name; empty for a click specialist.
    tip
        More about it.
    loading
        Whether it is being loaded.
    kept
        Its file on the shelf, which the user knows nothing of; None if there is none.
    """

    name: str
    clicker: Clicker | None = None
    path: Path | None = None
    saved: bool = False
    backbone: str = ""
    tip: str = ""
    loading: bool = False
    kept: Path | None = None

    @property
    def is_specialist(self) -> bool:
        """Whether it was trained on clicks."""
        return not self.backbone


class ClickState(PluginState):
    """What the sections of one viewer's click dock share, beside what all docks have.

    Attributes
    ----------
    engine
        Backbone in use, and embeddings.
    clickers
        The click specialists of this window, the newest last.
    clickers_changed
        Emitted when that list, or an entry of it, changed.
    chosen_changed
        Emitted when another model is in use, or when it was loaded.
    session
        The object that is being clicked.
    canvas
        What is shown in the viewer, and what the mouse does there.
    """

    clickers_changed = Signal()
    chosen_changed = Signal()

    SHELF = "click specialists"

    def __init__(self, viewer: Viewer) -> None:
        super().__init__(viewer)
        self.engine = Engine()
        self.clickers: list[ClickerEntry] = []
        self._chosen: ClickerEntry | None = None
        self.session = ClickSession(self)
        self.canvas = ClickCanvas(self, self.session)

    @property
    def chosen(self) -> ClickerEntry | None:
        """The model in use."""
        return self._chosen

    @chosen.setter
    def chosen(self, entry: ClickerEntry | None) -> None:
        if entry is not self._chosen:
            self._chosen = entry
            self.chosen_changed.emit()

    @property
    def clicker(self) -> Clicker | None:
        """What answers clicks, None until it is loaded."""
        return None if self._chosen is None else self._chosen.clicker

    def add_clicker(self, entry: ClickerEntry) -> None:
        """Put a click specialist at the end of the list and use it."""
        self.clickers.append(entry)
        self.clickers_changed.emit()
        self.chosen = entry

    def add_trained_clicker(self, clicker: Clicker, kept: Path | None) -> None:
        """Put a click specialist that nobody has saved at the end of the list and use it.

        Parameters
        ----------
        kept
            Its file on the shelf.
        """
        taken = {entry.name for entry in self.clickers}
        name = numbered(clicker.metadata.class_name, taken)
        self.add_clicker(ClickerEntry(name, clicker, kept=kept))

    def set_loaded(self, entry: ClickerEntry, clicker: Clicker) -> None:
        """Plain SAM was loaded."""
        entry.clicker = clicker
        if entry is self._chosen:
            self.chosen_changed.emit()

    def take_over(self, annotations: Annotations) -> None:
        """Click on the layers that are annotated elsewhere."""
        own = self.annotations
        own.image = annotations.image
        own.channel = annotations.channel
        if annotations.labels is not None:
            own.labels = annotations.labels

    def new_labels(self, dtype: DTypeLike = np.uint16) -> Labels:
        """Make a layer for accepted objects; the mouse stays with what it was for.

        Raises
        ------
        InputError
            If there is no image.
        """
        labels = self.annotations.new_labels(dtype)
        labels.mode = "pan_zoom"
        if self.session.on:
            self.canvas.layers.come_back()
        return labels

    def close(self) -> None:
        """Stop what runs and let go of all that takes memory."""
        self.canvas.close()
        self.session.close()
        super().close()
        self.clickers.clear()
        self._chosen = None
        self.engine.clear()
