"""Runs specialists on layers, and keeps the result layers in step with their look."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np
from psygnal import Signal
from qtpy.QtCore import QObject, QTimer

from napari_ptsam._widgets.jobs import show
from napari_ptsam._widgets.later import in_turn
from napari_ptsam._widgets.layerresult import LayerResult, PlaneShown, empty_result, segmented
from napari_ptsam._widgets.layers import (
    add_unseen,
    blank,
    image_over,
    plane_index,
    planes_of,
    result_shape,
)
from napari_ptsam._widgets.results import Look
from napari_ptsam._widgets.state import SEGMENTING
from napari_ptsam._widgets.tracking import touched_planes
from napari_ptsam.errors import PtsamError

if TYPE_CHECKING:
    from napari.layers import Image, Labels

    from napari_ptsam._widgets.jobs import Job
    from napari_ptsam._widgets.state import PluginState

REFRESH_MS = 200
"""A layer is drawn at most once in this time while its planes come in."""

AT_ONCE = 16
"""Planes of a new look that are handed to the other thread together, at most."""

LINKING = "Finding objects through planes"


class Segmenter(QObject):
    """Segments layers in the background, and draws the results anew when their look changes.

    Attributes
    ----------
    results
        Those whose layers are in the viewer, the newest last.
    running
        The job, while planes are segmented.
    changed
        Emitted when results came, went, or are complete.
    """

    changed = Signal()

    def __init__(self, state: PluginState) -> None:
        super().__init__()
        self.results: list[LayerResult] = []
        self.running: Job | None = None
        self._state = state
        self._drawing = False
        self._linking: Job | None = None
        self._declined: set[LayerResult] = set()
        self._dirty: set[LayerResult] = set()
        self._timer = QTimer(self)
        self._timer.setSingleShot(True)
        self._timer.setInterval(REFRESH_MS)
        self._timer.timeout.connect(self._refresh)
        state.viewer.layers.events.removed.connect(self._on_removed)
        state.viewer.dims.events.current_step.connect(self._draw_stale)
        state.jobs.finished.connect(self._draw_stale)

    def close(self) -> None:
        """Let go of the viewer and all results; the timer is Qt's to end, and may be gone."""
        self._state.viewer.layers.events.removed.disconnect(self._on_removed)
        self._state.viewer.dims.events.current_step.disconnect(self._draw_stale)
        self.results.clear()
        self._dirty.clear()

    def result_for(
        self,
        source: Image,
        channel: int | str | None,
        *,
        look: Look,
        rotations: int = 1,
        probability: bool = False,
    ) -> LayerResult:
        """The result of the current specialist on a layer; its layers are made if need be.

        A result that was corrected by hand is not written over: it gets a successor.

        Raises
        ------
        PtsamError
            If there is no specialist, or the layer cannot be read as planes.
        """
        entry = self._state.current
        if entry is None:
            raise PtsamError("There is no specialist yet: train or load one first.")
        planes = planes_of(source, channel)
        for found in self.results:
            same = found.source is source and found.entry is entry and found.channel == channel
            same = same and found.rotations == rotations
            if same and found.intact and not self._corrected(found):
                found.planes = planes
                self.set_look(found, look)
                self._add_probability(found, wanted=probability)
                return found
        target = empty_result(source, planes, entry, channel, rotations=rotations, look=look)
        self._take_on(target)
        self._add_probability(target, wanted=probability)
        return target

    def run(self, targets: Sequence[tuple[LayerResult, Sequence[int]]]) -> None:
        """Segment planes of results; of several results one after the other.

        Raises
        ------
        InputError
            If something else runs.
        """
        specialist = targets[0][0].entry.specialist
        work = [(target, index) for target, indices in targets for index in indices]
        self.running = self._state.jobs.run(
            SEGMENTING,
            partial(segmented, specialist, work),
            on_yield=self._on_plane,
            on_return=lambda _: self._on_over(),
            on_error=lambda _: self._on_over(),
            on_stopped=self._on_over,
            progress=lambda shown: (shown.done, shown.total),
        )
        for target, indices in targets:
            self._declined.discard(target)
            target.wanted = sorted({*target.missing(), *indices})
            target.result.forget(indices)
        self.changed.emit()

    def stop(self) -> None:
        """End the run after its current plane; what is done stays."""
        if self.running is not None:
            self.running.stop()

    def set_look(self, target: LayerResult, look: Look) -> None:
        """Show a result in another look."""
        if target.result.look != look:
            target.result.look = look
            self._declined.discard(target)
            self._draw_stale()

    @property
    def settled(self) -> bool:
        """Whether all that is segmented is shown in its look."""
        return not self._drawing and not any(
            t.result.stale() or (t.result.unfinished and t not in self._declined)
            for t in self.results
        )

    def _take_on(self, target: LayerResult) -> None:
        """Follow a new result, and have its layer added."""
        labels = target.labels
        labels.events.paint.connect(partial(self._on_painted, target))
        labels.events.set_data.connect(partial(self._on_drawn, target))
        self.results.append(target)
        jobs = self._state.jobs
        # Nothing is computed before: beside a job, napari takes several times as long for this.
        jobs.wait_for(target)
        in_turn(
            self,
            partial(self._add, target),
            partial(setattr, labels, "visible", True),
            partial(self._select, target),
            partial(jobs.go_on, target),
        )

    def _add(self, target: LayerResult) -> None:
        if target in self.results:
            add_unseen(self._state.viewer, target.labels)

    def _select(self, target: LayerResult) -> None:
        if target in self.results:
            self._state.viewer.layers.selection.active = target.labels

    def _add_probability(self, target: LayerResult, *, wanted: bool) -> None:
        if not wanted or target.probability is not None:
            return
        name = f"{target.labels.name} probability"
        data = blank(result_shape(target.source), np.float32)
        target.probability = image_over(target.source, name, data, contrast_limits=(0, 1))
        in_turn(self, partial(self._lay_below, target.probability, target.labels))

    def _lay_below(self, layer: Image, upper: Labels) -> None:
        """Add a layer, out of the way of the other, which may come later."""
        layers = self._state.viewer.layers
        add_unseen(self._state.viewer, layer)
        if upper in layers:
            layers.move(layers.index(layer), layers.index(upper))

    def _on_plane(self, shown: PlaneShown) -> None:
        if shown.target in self.results:
            self._touch(shown.target, [shown.index])

    def _on_over(self) -> None:
        self.running = None
        for target in self.results:
            self._dirty.add(target)
        self._refresh()
        self._draw_stale()
        self.changed.emit()

    def _on_painted(self, target: LayerResult, event: Any) -> None:
        planes = touched_planes(target.labels, [atom[0] for atom in event.value])
        if target.result.edit(planes) and target in self.results:
            self.changed.emit()

    def _on_drawn(self, target: LayerResult, _: Any) -> None:
        """Undo and redo show as a drawing that no slider caused."""
        point = tuple(self._state.viewer.dims.point)
        moved, target.point = point != target.point, point
        if not moved and target in self.results:
            self._corrected(target)

    def _corrected(self, target: LayerResult) -> bool:
        """Whether planes are corrected by hand; what was undone gets the present look."""
        if target.result.look_again():
            self._draw_stale()
            self.changed.emit()
        return bool(target.result.edited)

    def _on_removed(self, event: Any) -> None:
        gone = [target for target in self.results if target.labels is event.value]
        for target in gone:
            self.results.remove(target)
            self._dirty.discard(target)
            if self.running is not None:
                self.running.stop()
        for target in self.results:
            if target.probability is event.value:
                target.probability = None
        if gone:
            self.changed.emit()

    def _draw_stale(self) -> None:
        """Have the next few planes drawn in the present look, those in view first."""
        if self._drawing:
            return
        for target in self._in_view_first():
            indices = self._stale(target)
            if indices:
                self._aside(target, partial(target.result.draw_some, indices))
                return
        if self.running is not None:
            return  # it brings more planes
        for target in self.results:
            if target.result.unfinished and target not in self._declined:
                self._finish(target)
                return

    def _in_view_first(self) -> list[LayerResult]:
        return sorted(self.results, key=lambda target: not target.labels.visible)

    def _stale(self, target: LayerResult) -> list[int]:
        indices = target.result.stale()
        shown = plane_index(self._state.viewer, target.labels)
        if shown in indices:
            return [shown]
        return indices[:AT_ONCE]

    def _aside(self, target: LayerResult, draw: Callable[[], list[int]]) -> None:
        self._drawing = True

        def drawn(indices: list[int]) -> None:
            self._drawing = False
            if target in self.results:
                self._touch(target, indices)
            self._draw_stale()
            if not self._drawing:
                self.changed.emit()

        def failed(error: PtsamError) -> None:
            self._drawing = False
            show(error)

        self._state.jobs.aside(draw, drawn, failed)

    def _finish(self, target: LayerResult) -> None:
        """Do what needs all planes: numbers without repetition, or objects through planes."""
        if not target.result.look.through_planes:

            def renumbered() -> list[int]:
                target.result.renumber()
                return target.result.done()

            self._aside(target, renumbered)
            return
        if self._state.jobs.running is not None or self._linking is not None:
            return  # tried again when that is over

        def over(*_: object, declined: bool = False) -> None:
            self._linking = None
            if declined:
                self._declined.add(target)
            if target in self.results:
                self._touch(target, target.result.done())
            self._draw_stale()
            self.changed.emit()

        self._linking = self._state.jobs.run(
            LINKING,
            target.result.link,
            on_yield=lambda _: None,
            on_return=over,
            on_error=partial(over, declined=True),
            on_stopped=partial(over, declined=True),
            progress=lambda share: share,
        )

    def _touch(self, target: LayerResult, indices: Sequence[int]) -> None:
        """Show planes soon, if one of them is in view."""
        viewer = self._state.viewer
        shown = plane_index(viewer, target.labels)
        if shown in indices or (indices and viewer.dims.ndisplay == 3):
            self._dirty.add(target)
            if not self._timer.isActive():
                self._refresh()
                self._timer.start()

    def _refresh(self) -> None:
        for target in self._dirty:
            for layer in (target.labels, target.probability):
                if layer is not None and layer in self._state.viewer.layers:
                    layer.refresh(extent=False)
        self._dirty.clear()
