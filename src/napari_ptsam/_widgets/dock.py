"""The dock: four steps, from top to bottom."""

from __future__ import annotations

from functools import partial
from importlib import import_module
from typing import TYPE_CHECKING

from qtpy.QtCore import QSize, Qt
from qtpy.QtWidgets import QFrame, QScrollArea, QVBoxLayout, QWidget
from superqt import QCollapsible

from napari_ptsam._widgets.state import PluginState

if TYPE_CHECKING:
    import napari

SECTIONS = {
    "annotate": ("annotate", "AnnotateSection"),
    "train": ("train", "TrainSection"),
    "segment": ("segment", "SegmentSection"),
    "specialists": ("specialists", "SpecialistsSection"),
}


class PtsamDock(QWidget):
    """Annotate, train, segment, and the list of specialists.

    Parameters
    ----------
    viewer
        napari's; given by napari.

    Attributes
    ----------
    state
        What the steps share.
    sections
        The steps by name.
    """

    def __init__(self, viewer: napari.Viewer) -> None:
        super().__init__()
        self.setObjectName("PtsamDock")
        self.state = PluginState(viewer)
        self.sections: dict[str, QWidget] = {}
        self._frames: dict[str, QCollapsible] = {}
        inner = QWidget()
        self._layout = QVBoxLayout(inner)
        self._layout.setContentsMargins(4, 4, 4, 4)
        self._layout.setSpacing(4)
        for name, (module, section) in SECTIONS.items():
            self._add(name, module, section)
        self._layout.addStretch(1)
        self._scroll = QScrollArea()
        self._scroll.setWidgetResizable(True)
        self._scroll.setFrameShape(QFrame.Shape.NoFrame)
        self._scroll.setHorizontalScrollBarPolicy(Qt.ScrollBarPolicy.ScrollBarAlwaysOff)
        self._scroll.setWidget(inner)
        layout = QVBoxLayout(self)
        layout.setContentsMargins(0, 0, 0, 0)
        layout.addWidget(self._scroll)
        self.setMinimumWidth(280)
        # The widget may go without an event of its own: with napari's window, or its dock.
        self.destroyed.connect(partial(PluginState.close, self.state))
        self.show_section("annotate")

    def sizeHint(self) -> QSize:  # noqa: N802 (Qt's name)
        """Wide enough for all controls, as tall as there is."""
        return QSize(310, 600)

    def show_section(self, name: str) -> None:
        """Open a step and scroll to it.

        Parameters
        ----------
        name
            ``annotate``, ``train``, ``segment`` or ``specialists``.
        """
        frame = self._frames[name]
        frame.expand(animate=False)
        self._scroll.ensureWidgetVisible(frame)

    def _add(self, name: str, module: str, section: str) -> None:
        try:
            made = getattr(import_module(f"napari_ptsam._widgets.{module}"), section)(self.state)
        except ModuleNotFoundError:
            return
        frame = QCollapsible(made.title)
        frame.setDuration(100)
        frame.addWidget(made)
        self.sections[name] = made
        self._frames[name] = frame
        self._layout.addWidget(frame)
