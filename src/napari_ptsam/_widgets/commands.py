"""What the menu entries do: open the dock at its step."""

from __future__ import annotations

from typing import TYPE_CHECKING

from qtpy.QtCore import QTimer
from qtpy.QtWidgets import QWidget

if TYPE_CHECKING:
    import napari.viewer

    from napari_ptsam._widgets.dock import PtsamDock

DOCK_NAME = "Annotate, train, segment (PTSAM)"
"""The name that napari gives the dock when it is opened from the Plugins menu."""


def open_dock(viewer: napari.viewer.Viewer, section: str | None = None) -> PtsamDock:
    """Show the dock of a viewer, which is made if there is none.

    Parameters
    ----------
    viewer
        napari's.
    section
        The step to open, see `PtsamDock.show_section`.
    """
    from napari_ptsam._widgets.dock import PtsamDock

    docks = [w for w in viewer.window.dock_widgets.values() if isinstance(w, PtsamDock)]
    dock = docks[0] if docks else PtsamDock(viewer)
    if not docks:
        viewer.window.add_dock_widget(dock, name=DOCK_NAME, area="right", tabify=True)
    frame = dock.parentWidget()
    if frame is not None:
        frame.show()
        frame.raise_()
    if section is not None or not docks:
        dock.show_section(section or "annotate")
    return dock


class _Entry(QWidget):
    """An entry of the Plugins menu, where napari lists nothing but widgets.

    As soon as napari has docked it, it takes itself away and opens the dock at its step.
    """

    section = ""

    def __init__(self, viewer: napari.viewer.Viewer) -> None:
        super().__init__()
        self._viewer = viewer
        self.setFixedSize(0, 0)
        QTimer.singleShot(0, self._replace)

    def _replace(self) -> None:
        viewer = self._viewer
        viewer.window.remove_dock_widget(self)
        open_dock(viewer, self.section)
        self.deleteLater()


class Annotate(_Entry):
    """Open the dock where one paints."""

    section = "annotate"


class TrainSpecialist(_Entry):
    """Open the dock where one trains."""

    section = "train"


class Segment(_Entry):
    """Open the dock where one segments layers and folders."""

    section = "segment"


class ExportPromptFile(_Entry):
    """Open the dock where one exports the prompt file of a specialist."""

    section = "specialists"


class LoadSpecialist(_Entry):
    """Open the dock where one loads the prompt file of a specialist."""

    section = "specialists"
