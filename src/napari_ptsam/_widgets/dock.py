"""The dock: four steps, from top to bottom."""

from __future__ import annotations

import atexit
import time
import weakref
from functools import partial
from typing import TYPE_CHECKING, Any

from qtpy.compat import isalive
from qtpy.QtCore import QSize, Qt, QTimer
from qtpy.QtWidgets import QFrame, QScrollArea, QSizePolicy, QToolButton, QVBoxLayout, QWidget

from napari_ptsam._widgets.annotate import AnnotateSection
from napari_ptsam._widgets.keys import bind_keys
from napari_ptsam._widgets.layers import RESULT_MARK
from napari_ptsam._widgets.preview import NAME as PREVIEW
from napari_ptsam._widgets.segment import SegmentSection
from napari_ptsam._widgets.specialists import SpecialistsSection
from napari_ptsam._widgets.state import PluginState
from napari_ptsam._widgets.train import TITLE as TRAINING
from napari_ptsam._widgets.train import TrainSection

if TYPE_CHECKING:
    import napari.viewer

SECTIONS = {
    "annotate": AnnotateSection,
    "train": TrainSection,
    "segment": SegmentSection,
    "specialists": SpecialistsSection,
}

SEGMENTING = "Segmenting"
"""Title of the runs that segment layers."""

SETTLED = 1.0
"""Seconds in which the rows of a step that was opened find their places."""


class Step(QFrame):
    """A section below a heading that opens and closes it.

    superqt's QCollapsible fixes the height at the time of opening, so that rows which show up
    later would be squeezed.

    Parameters
    ----------
    title
        The heading.
    section
        What is shown below it.
    """

    def __init__(self, title: str, section: QWidget) -> None:
        super().__init__()
        self.heading = QToolButton()
        self.heading.setText(title)
        self.heading.setCheckable(True)
        self.heading.setAutoRaise(True)
        self.heading.setToolButtonStyle(Qt.ToolButtonStyle.ToolButtonTextBesideIcon)
        self.heading.setSizePolicy(QSizePolicy.Policy.Expanding, QSizePolicy.Policy.Fixed)
        self.heading.setFocusPolicy(Qt.FocusPolicy.StrongFocus)
        self.heading.setStyleSheet("QToolButton { font-weight: bold; text-align: left; }")
        self._section = section
        layout = QVBoxLayout(self)
        layout.setContentsMargins(0, 0, 0, 0)
        layout.addWidget(self.heading)
        layout.addWidget(section)
        self.heading.toggled.connect(self.open)
        self.open(False)

    def open(self, opened: bool = True) -> None:
        """Show the section, or close it."""
        self.heading.setChecked(opened)
        arrow = Qt.ArrowType.DownArrow if opened else Qt.ArrowType.RightArrow
        self.heading.setArrowType(arrow)
        self._section.setVisible(opened)


def _close_at_exit(found: weakref.ref[PtsamDock]) -> None:
    """Close a dock that outlives its window, before Qt deletes its parts in any order."""
    dock = found()
    if dock is not None and isalive(dock):
        dock.destroyed.disconnect(dock._close)
        dock._close()


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

    def __init__(self, viewer: napari.viewer.Viewer) -> None:
        super().__init__()
        self.setObjectName("PtsamDock")
        self.state = PluginState(viewer)
        self.sections: dict[str, Any] = {}
        self._steps: dict[str, Step] = {}
        self._top: tuple[Step, float] | None = None
        self._scrolling = QTimer(self)
        self._scrolling.setSingleShot(True)
        self._scrolling.timeout.connect(self._scroll_to_top)
        inner = QWidget()
        self._layout = QVBoxLayout(inner)
        self._layout.setContentsMargins(4, 4, 4, 4)
        self._layout.setSpacing(4)
        for number, (name, section) in enumerate(SECTIONS.items(), start=1):
            self._add(name, number, section(self.state))
        self._layout.addStretch(1)
        self._scroll = QScrollArea()
        self._scroll.setWidgetResizable(True)
        self._scroll.setFrameShape(QFrame.Shape.NoFrame)
        self._scroll.setHorizontalScrollBarPolicy(Qt.ScrollBarPolicy.ScrollBarAlwaysOff)
        self._scroll.setWidget(inner)
        self._scroll.verticalScrollBar().rangeChanged.connect(self._on_range)
        layout = QVBoxLayout(self)
        layout.setContentsMargins(0, 0, 0, 0)
        layout.addWidget(self._scroll)
        self.setMinimumWidth(280)
        # The widget may go without an event of its own: with napari's window, or its dock.
        self._close = partial(PluginState.close, self.state)
        self.destroyed.connect(self._close)
        atexit.register(_close_at_exit, weakref.ref(self))
        self.state.jobs.started.connect(self._on_started)
        bind_keys(self.state, self.sections)
        self.show_section("annotate")

    def sizeHint(self) -> QSize:  # noqa: N802 (Qt's name)
        """Wide enough for all controls, as tall as there is."""
        return QSize(310, 600)

    def show_section(self, name: str) -> None:
        """Open a step, with its heading at the top; the others are closed.

        Parameters
        ----------
        name
            ``annotate``, ``train``, ``segment`` or ``specialists``.
        """
        for other, step in self._steps.items():
            step.open(other == name)
        self._reveal(name)

    def _on_started(self, title: str) -> None:
        if title == TRAINING:
            # Progress, curve and Stop fit below the heading even on a small screen.
            self._reveal("train")
        if title in (TRAINING, SEGMENTING):
            # Preview and result over each other would mix their colours.
            for layer in self.state.viewer.layers:
                if layer.metadata.get(RESULT_MARK) == PREVIEW:
                    layer.visible = title == TRAINING

    def _reveal(self, name: str) -> None:
        """Scroll until the heading of a step is at the top."""
        self._top = self._steps[name], time.monotonic()
        self._scrolling.start(0)

    def _on_range(self) -> None:
        # Emitted before the layout has moved the steps.
        if self._top is not None and time.monotonic() - self._top[1] < SETTLED:
            self._scrolling.start(0)

    def _scroll_to_top(self) -> None:
        if self._top is not None:
            self._scroll.verticalScrollBar().setValue(self._top[0].y())

    def _add(self, name: str, number: int, section: Any) -> None:
        step = Step(f"{number}   {section.title}", section)
        self.sections[name] = section
        self._steps[name] = step
        self._layout.addWidget(step)
