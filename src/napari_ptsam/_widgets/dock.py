"""The dock: steps, from top to bottom."""

from __future__ import annotations

import atexit
import sys
import time
import weakref
from collections.abc import Callable, Iterator, Mapping
from functools import partial
from importlib import import_module
from typing import TYPE_CHECKING, Any, ClassVar

from qtpy.compat import isalive
from qtpy.QtCore import QEvent, QSize, Qt, QTimer
from qtpy.QtWidgets import QFrame, QScrollArea, QSizePolicy, QToolButton, QVBoxLayout, QWidget

from napari_ptsam._widgets.keys import bind_keys
from napari_ptsam._widgets.later import later
from napari_ptsam._widgets.layers import RESULT_MARK
from napari_ptsam._widgets.preview import NAME as PREVIEW
from napari_ptsam._widgets.state import SEGMENTING, TRAINING, PluginState
from napari_ptsam._widgets.stopbar import StopBar

if TYPE_CHECKING:
    import napari.viewer

SECTIONS = {
    "annotate": ("Annotate", "annotate:AnnotateSection"),
    "train": ("Train", "train:TrainSection"),
    "segment": ("Segment", "segment:SegmentSection"),
    "specialists": ("Specialists", "specialists:SpecialistsSection"),
}
"""Heading of each step, and where its section is; imported when it is made."""

NEXT_AFTER_MS = 50
"""Between the making of two sections, for what else the window has to do."""

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
    make
        Makes what is shown below it, when that is first asked for.
    """

    def __init__(self, title: str, make: Callable[[], QWidget]) -> None:
        super().__init__()
        self.heading = QToolButton()
        self.heading.setText(title)
        self.heading.setCheckable(True)
        self.heading.setAutoRaise(True)
        self.heading.setToolButtonStyle(Qt.ToolButtonStyle.ToolButtonTextBesideIcon)
        self.heading.setSizePolicy(QSizePolicy.Policy.Expanding, QSizePolicy.Policy.Fixed)
        self.heading.setFocusPolicy(Qt.FocusPolicy.StrongFocus)
        self.heading.setStyleSheet("QToolButton { font-weight: bold; text-align: left; }")
        self._make = make
        self._section: QWidget | None = None
        layout = QVBoxLayout(self)
        layout.setContentsMargins(0, 0, 0, 0)
        layout.addWidget(self.heading)
        self.heading.toggled.connect(self.open)
        self.open(False)

    @property
    def section(self) -> QWidget:
        """What is shown below the heading."""
        if self._section is None:
            self._section = self._make()
            self._section.setVisible(self.heading.isChecked())
            self.layout().addWidget(self._section)
        return self._section

    @property
    def made(self) -> bool:
        """Whether the section is there."""
        return self._section is not None

    def open(self, opened: bool = True) -> None:
        """Show the section, or close it."""
        self.heading.setChecked(opened)
        arrow = Qt.ArrowType.DownArrow if opened else Qt.ArrowType.RightArrow
        self.heading.setArrowType(arrow)
        if opened or self.made:
            self.section.setVisible(opened)


class Sections(Mapping[str, Any]):
    """The sections of a dock by name, each made when it is first asked for."""

    def __init__(self, steps: Mapping[str, Step]) -> None:
        self._steps = steps

    def __getitem__(self, name: str) -> Any:
        return self._steps[name].section

    def __iter__(self) -> Iterator[str]:
        return iter(self._steps)

    def __len__(self) -> int:
        return len(self._steps)


def _module_of(place: str) -> str:
    return f"{__package__}.{place.partition(':')[0]}"


def _made(place: str, state: PluginState) -> QWidget:
    name = place.partition(":")[2]
    section: QWidget = getattr(import_module(_module_of(place)), name)(state)
    return section


def _close_at_exit(found: weakref.ref[StepsDock]) -> None:
    """Close a dock that outlives its window, before Qt deletes its parts in any order."""
    dock = found()
    if dock is not None and isalive(dock):
        dock.leave()


class StepsDock(QWidget):
    """A dock of steps that open and close.

    Parameters
    ----------
    viewer
        napari's; given by napari.

    Attributes
    ----------
    state
        What the steps share.
    sections
        The steps by name. All are there soon after the dock is shown, one after the other: made
        at once they would hold up the window.
    stop_bar
        Stops work without a panel of its own.
    """

    STEPS: ClassVar[Mapping[str, tuple[str, str]]]
    """Heading of each step, and where its section is; imported when it is made."""

    STATE: ClassVar[type[PluginState]] = PluginState

    _docked = False
    _left = False

    def __init__(self, viewer: napari.viewer.Viewer) -> None:
        super().__init__()
        self.setObjectName(type(self).__name__)
        self.state = self.STATE(viewer)
        self._steps: dict[str, Step] = {}
        self.sections = Sections(self._steps)
        self._top: tuple[Step, float] | None = None
        self._scrolling = QTimer(self)
        self._scrolling.setSingleShot(True)
        self._scrolling.timeout.connect(self._scroll_to_top)
        inner = QWidget()
        self._layout = QVBoxLayout(inner)
        self._layout.setContentsMargins(4, 4, 4, 4)
        self._layout.setSpacing(4)
        for number, (name, (title, place)) in enumerate(self.STEPS.items(), start=1):
            self._steps[name] = Step(f"{number}   {title}", partial(_made, place, self.state))
            self._layout.addWidget(self._steps[name])
        self._layout.addStretch(1)
        self._scroll = QScrollArea()
        self._scroll.setWidgetResizable(True)
        self._scroll.setFrameShape(QFrame.Shape.NoFrame)
        self._scroll.setHorizontalScrollBarPolicy(Qt.ScrollBarPolicy.ScrollBarAlwaysOff)
        self._scroll.setWidget(inner)
        self._scroll.verticalScrollBar().rangeChanged.connect(self._on_range)
        layout = QVBoxLayout(self)
        layout.setContentsMargins(0, 0, 0, 0)
        layout.setSpacing(0)
        layout.addWidget(self._scroll)
        self.stop_bar = StopBar(self.state.jobs)
        layout.addWidget(self.stop_bar)
        self.setMinimumWidth(280)
        # The widget may go without an event of its own: with napari's window, or its dock.
        self._close = partial(self.STATE.close, self.state)
        self.destroyed.connect(self._close)
        atexit.register(_close_at_exit, weakref.ref(self))
        # Beside a training, making them would take several times as long.
        self.state.jobs.wait_for(self)
        later(self, self._open_first)
        later(self, self._make_next, NEXT_AFTER_MS)

    def sizeHint(self) -> QSize:  # noqa: N802 (Qt's name)
        """Wide enough for all controls, as tall as there is."""
        return QSize(310, 600)

    def changeEvent(self, event: QEvent) -> None:  # noqa: N802 (Qt's name)
        """Go for good when taken out of napari's dock, which is all that its X does."""
        super().changeEvent(event)
        if event.type() == QEvent.Type.ParentChange:
            if self.parent() is not None:
                self._docked = True
            elif self._docked:
                self.leave()
                self.deleteLater()

    def leave(self) -> None:
        """Stop what runs and let go of the viewer; nothing can be done here afterwards."""
        if not self._left:
            self._left = True
            self.destroyed.disconnect(self._close)
            self._close()

    def show_section(self, name: str) -> None:
        """Open a step, with its heading at the top; the others are closed.

        Parameters
        ----------
        name
            One of `STEPS`.
        """
        for other, step in self._steps.items():
            step.open(other == name)
        self._reveal(name)

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

    def _open_first(self) -> None:
        if not self._left and not any(step.heading.isChecked() for step in self._steps.values()):
            self.show_section(next(iter(self.STEPS)))

    def _make_next(self) -> None:
        """Make the next section; when all are there, load what trainings need."""
        if self._left:
            return
        missing = [name for name, step in self._steps.items() if not step.made]
        if missing:
            module = _module_of(self.STEPS[missing[0]][1])
            if module in sys.modules:
                _ = self._steps[missing[0]].section
            else:
                # As long as the making, and so in a turn of its own.
                import_module(module)
            later(self, self._make_next, NEXT_AFTER_MS)
        else:
            # Imports, too, hold up the window; a training that waits sees to them itself.
            if self.state.jobs.running is None:
                self.state.load()
            self.state.jobs.go_on(self)


class PtsamDock(StepsDock):
    """Annotate, train, segment, and the list of specialists."""

    STEPS = SECTIONS

    def __init__(self, viewer: napari.viewer.Viewer) -> None:
        super().__init__(viewer)
        self.state.jobs.started.connect(self._on_started)
        bind_keys(self.state, self.sections)

    def _on_started(self, title: str) -> None:
        if title == TRAINING:
            # Progress, curve and Stop fit below the heading even on a small screen.
            self._reveal("train")
        if title in (TRAINING, SEGMENTING):
            # Preview and result over each other would mix their colours.
            for layer in self.state.viewer.layers:
                if layer.metadata.get(RESULT_MARK) == PREVIEW:
                    layer.visible = title == TRAINING
