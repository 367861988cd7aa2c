"""What the sections of the dock share."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar

from psygnal import Signal

from napari_ptsam._widgets.annotations import Annotations
from napari_ptsam._widgets.jobs import Jobs
from napari_ptsam._widgets.quiet import load_ahead
from napari_ptsam._widgets.shelf import Shelf, numbered, specialists_folder

if TYPE_CHECKING:
    from napari.viewer import Viewer

    from napari_ptsam.specialist import Specialist

TRAINING, SEGMENTING = "Training", "Segmenting"
"""Titles of the runs that all of the dock knows of."""


@dataclass(eq=False)
class SpecialistEntry:
    """A specialist in the list of this window.

    Attributes
    ----------
    name
        What the user calls it.
    specialist
        Itself, on its backbone.
    path
        Its prompt file, None if it was never saved.
    saved
        Whether the file holds what the entry holds.
    kept
        Its file on the shelf, which the user knows nothing of; None if there is none.
    """

    name: str
    specialist: Specialist
    path: Path | None
    saved: bool
    kept: Path | None = None


class PluginState:
    """What the sections of the dock of one viewer share.

    Attributes
    ----------
    viewer
        napari's.
    annotations
        What is painted, and where.
    jobs
        What runs in the background.
    shelf
        Where specialists are put aside as they are trained.
    specialists
        All of this window, the newest last.
    current
        The one in use, None if there is none yet.
    specialists_changed
        Emitted when the list, or an entry of it, changed.
    current_changed
        Emitted with the entry that is now in use, or None.
    loaded
        Whether what trainings need is imported.
    load_finished
        Emitted when it is.
    closing
        Emitted when the dock goes: listen to the viewer no longer, let go of what takes memory.
        Widgets may be gone already.
    """

    specialists_changed = Signal()
    current_changed = Signal(object)
    load_finished = Signal()
    closing = Signal()

    SHELF: ClassVar[str] = "specialists"

    def __init__(self, viewer: Viewer) -> None:
        self.viewer = viewer
        self.shelf = Shelf(specialists_folder(self.SHELF))
        self.jobs = Jobs(self._running_elsewhere)
        self.annotations = Annotations(viewer, self.jobs)
        self.specialists: list[SpecialistEntry] = []
        self._current: SpecialistEntry | None = None
        self.loaded = False
        self._loading = False
        viewer.layers.events.removed.connect(self.jobs.quiet.thaw)

    @classmethod
    def of(cls, viewer: Viewer) -> PluginState | None:
        """The state of a viewer's dock of this kind, None if it has none."""
        return next((state for state in _states(viewer) if type(state) is cls), None)

    def _running_elsewhere(self) -> str | None:
        """Title of what another dock of the viewer runs."""
        others = (state.jobs for state in _states(self.viewer) if state is not self)
        return next((jobs.running for jobs in others if jobs.running is not None), None)

    @property
    def current(self) -> SpecialistEntry | None:
        """The specialist in use."""
        return self._current

    @current.setter
    def current(self, entry: SpecialistEntry | None) -> None:
        if entry is not self._current:
            self._current = entry
            self.current_changed.emit(entry)

    def add_specialist(
        self, specialist: Specialist, name: str, path: Path | None = None
    ) -> SpecialistEntry:
        """Put a specialist at the end of the list and use it."""
        return self._add(SpecialistEntry(name, specialist, path, saved=path is not None))

    def add_trained(self, specialist: Specialist, kept: Path | None) -> SpecialistEntry:
        """Put a specialist that nobody has saved at the end of the list and use it.

        Parameters
        ----------
        kept
            Its file on the shelf.
        """
        taken = {entry.name for entry in self.specialists}
        name = numbered(specialist.metadata.class_name, taken)
        return self._add(SpecialistEntry(name, specialist, None, saved=False, kept=kept))

    def _add(self, entry: SpecialistEntry) -> SpecialistEntry:
        self.specialists.append(entry)
        self.specialists_changed.emit()
        self.current = entry
        return entry

    def remove_specialist(self, entry: SpecialistEntry) -> None:
        """Take a specialist off the list; the newest of the others is used in its place."""
        self.specialists.remove(entry)
        if self.current is entry:
            self.current = self.specialists[-1] if self.specialists else None
        self.specialists_changed.emit()

    def load(self) -> None:
        """Import what trainings need, in the background, unless that was done."""
        if not self._loading:
            self._loading = True
            # What cannot be imported is told by the work that needs it.
            self.jobs.aside(load_ahead, self._on_loaded, lambda _: None)

    def _on_loaded(self, _: None) -> None:
        self.loaded = True
        self.load_finished.emit()

    def close(self) -> None:
        """Stop what runs and let go of all that takes memory."""
        self.closing.emit()
        self.viewer.layers.events.removed.disconnect(self.jobs.quiet.thaw)
        self.annotations.close()
        self.jobs.close()
        self.specialists.clear()
        self._current = None


def _states(viewer: Viewer) -> Iterator[PluginState]:
    """What the docks of a viewer hold; a viewer may have no window."""
    window = getattr(viewer, "window", None)
    for widget in () if window is None else window.dock_widgets.values():
        state = getattr(widget, "state", None)
        if isinstance(state, PluginState):
            yield state
