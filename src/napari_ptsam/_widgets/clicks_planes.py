"""Planes that can be clicked: what the model sees in them is computed in the background."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence
from typing import TYPE_CHECKING

from psygnal import Signal

if TYPE_CHECKING:
    from napari_ptsam._widgets.jobs import Jobs
    from napari_ptsam.clicking import Clicker, EmbeddedPlane
    from napari_ptsam.errors import PtsamError
    from napari_ptsam.planes import Planes

KEPT = 8
"""Planes at hand, the one in view and its neighbours among them."""


class ReadyPlanes:
    """Embeds planes one after the other, the most wanted first. Used in the GUI thread.

    Parameters
    ----------
    jobs
        Where the work is done.

    Attributes
    ----------
    changed
        Emitted when a plane became ready, or cannot be made so.
    """

    changed = Signal()

    def __init__(self, jobs: Jobs) -> None:
        self._jobs = jobs
        self._clicker: Clicker | None = None
        self._planes: Planes | None = None
        self._kept: OrderedDict[int, EmbeddedPlane] = OrderedDict()
        self._failed: dict[int, PtsamError] = {}
        self._wanted: list[int] = []
        self._busy = False
        # Of what was asked for: an answer to an older one is of no use.
        self._round = 0

    def use(self, clicker: Clicker | None, planes: Planes | None) -> None:
        """Look at other planes, or with another model; what was ready is forgotten."""
        self._clicker, self._planes = clicker, planes
        self._kept.clear()
        self._failed.clear()
        self._wanted = []
        self._round += 1

    def get(self, index: int) -> EmbeddedPlane | None:
        """A plane if it is ready."""
        if index in self._kept:
            self._kept.move_to_end(index)
        return self._kept.get(index)

    def error(self, index: int) -> PtsamError | None:
        """Why a plane cannot be made ready, None if it can."""
        return self._failed.get(index)

    def want(self, indices: Sequence[int]) -> None:
        """Say which planes are needed, the most urgent first; others are not any more."""
        count = 0 if self._planes is None else len(self._planes)
        self._wanted = [index for index in indices if 0 <= index < count][:KEPT]
        self._next()

    def _next(self) -> None:
        clicker, planes = self._clicker, self._planes
        missing = [i for i in self._wanted if i not in self._kept and i not in self._failed]
        if self._busy or not missing or clicker is None or planes is None:
            return
        index, asked = missing[0], self._round

        def ready(embedded: EmbeddedPlane) -> None:
            self._busy = False
            if asked == self._round:
                self._kept[index] = embedded
                while len(self._kept) > KEPT:
                    self._kept.popitem(last=False)
                self.changed.emit()
            self._next()

        def failed(error: PtsamError) -> None:
            self._busy = False
            if asked == self._round:
                self._failed[index] = error
                self.changed.emit()
            self._next()

        self._busy = True
        self._jobs.aside(lambda: clicker.embed(planes.read(index)), ready, failed)
