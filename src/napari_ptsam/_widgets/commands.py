"""What the menu entries do: open the dock at its step."""

from __future__ import annotations

from typing import TYPE_CHECKING, TypeVar

from qtpy.QtCore import QTimer
from qtpy.QtWidgets import QWidget

if TYPE_CHECKING:
    import napari.viewer

    from napari_ptsam._widgets.annotations import Annotations
    from napari_ptsam._widgets.clicks import ClickDock
    from napari_ptsam._widgets.dock import PtsamDock, StepsDock

D = TypeVar("D", bound="StepsDock")

DOCK_NAME = "All four steps (PTSAM)"
CLICK_DOCK_NAME = "Click to segment (PTSAM)"
"""The names that napari gives the docks when they are opened from the Plugins menu."""


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

    dock, made = _shown(viewer, PtsamDock, DOCK_NAME)
    if section is not None or made:
        dock.show_section(section or "annotate")
    return dock


def open_clicks(viewer: napari.viewer.Viewer, annotations: Annotations | None = None) -> ClickDock:
    """Show the dock of a viewer in which one clicks, which is made if there is none.

    Parameters
    ----------
    viewer
        napari's.
    annotations
        Whose layers to click on; by default those that the dock has.
    """
    from napari_ptsam._widgets.clicks import ClickDock

    dock, _ = _shown(viewer, ClickDock, CLICK_DOCK_NAME)
    if annotations is not None:
        dock.state.take_over(annotations)
    return dock


def _shown(viewer: napari.viewer.Viewer, kind: type[D], name: str) -> tuple[D, bool]:
    """The viewer's dock of a kind, in front, and whether it had to be made."""
    docks = [w for w in viewer.window.dock_widgets.values() if isinstance(w, kind)]
    dock = docks[0] if docks else kind(viewer)
    if not docks:
        viewer.window.add_dock_widget(dock, name=name, area="right", tabify=True)
    frame = dock.parentWidget()
    if frame is not None:
        frame.show()
        frame.raise_()
    return dock, not docks


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
