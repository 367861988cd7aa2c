"""Saves what is annotated in a dock, and brings back what was kept of another time."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from numpy.typing import DTypeLike, NDArray

from napari_ptsam._widgets.autosave import Autosave, held_by, mark_held
from napari_ptsam._widgets.later import later
from napari_ptsam._widgets.layers import data_shape, plane_names, set_channel_axis, slots
from napari_ptsam._widgets.offer import RestoreOffer
from napari_ptsam._widgets.state import PluginState
from napari_ptsam._widgets.words import planes as in_planes

if TYPE_CHECKING:
    from napari.layers import Image, Labels

    from napari_ptsam._widgets.keeping import Kept


class KeptAnnotations:
    """Saves what is annotated in a dock, and brings back what was kept of another time.

    Parameters
    ----------
    state
        What the sections of the dock share.
    new_labels
        Makes a Labels layer of a data type on the image, and chooses it.
    say
        Tells the user what happened.

    Attributes
    ----------
    autosave
        Saves.
    offer
        Asks the user; to be shown in a section.
    """

    def __init__(
        self,
        state: PluginState,
        new_labels: Callable[[DTypeLike], Labels],
        say: Callable[[str], None],
    ) -> None:
        self._state = state
        self._annotations = state.annotations
        self._new_labels = new_labels
        self._say = say
        self._image: Image | None = None
        self.offer = RestoreOffer()
        self.autosave = Autosave(state.annotations, state.jobs, self._kept_elsewhere)
        self.offer.accepted.connect(self.restore)
        self.autosave.found.connect(self._on_found)
        self.autosave.saved.connect(self._on_saved)
        self.autosave.failed.connect(self._on_failed)
        state.annotations.changed.connect(self._on_changed)
        state.viewer.layers.events.inserted.connect(self._on_inserted)

    def restore(self, kept: Kept) -> None:
        """Put annotations of another time on a new Labels layer."""
        image = self._annotations.image
        if image is None:
            return
        set_channel_axis(image, kept.channel_axis)
        self._annotations.channel = kept.channel
        labels = self._new_labels(kept.dtype)
        if kept.labels:
            labels.name = kept.labels
        mark_held(labels, kept.folder.name)
        size = data_shape(image)[-2:]
        self._state.jobs.aside(
            lambda: kept.read_all(size), lambda planes: self._on_read(labels, planes, kept)
        )

    def release(self) -> None:
        """Save a last time; listen no longer."""
        self.autosave.close()
        self._annotations.changed.disconnect(self._on_changed)
        self._state.viewer.layers.events.inserted.disconnect(self._on_inserted)

    def _on_read(self, labels: Labels, planes: dict[int, NDArray[Any]], kept: Kept) -> None:
        if labels not in self._state.viewer.layers:
            return
        for index, place in slots(labels, planes).items():
            labels.data[place] = planes[index]
        labels.refresh()
        # Another may have been chosen, such as for what was restored next.
        self._annotations.labels = labels
        self._annotations.put_back(kept.empty, dict(kept.boxes))
        self._annotations.look(planes)
        lost = sorted(set(kept.planes).difference(planes))
        names = ", ".join(plane_names(labels, lost).values())
        self._say(
            f"{in_planes(kept.count - len(lost))} restored."
            + (f" Damaged, and not restored: {names}." if lost else "")
        )

    def _kept_elsewhere(self) -> bool:
        """Whether the dock where one paints keeps the same; it knows also of empty planes."""
        other = PluginState.of(self._state.viewer)
        if other is None or other is self._state:
            return False
        own, theirs = self._annotations, other.annotations
        return theirs.image is own.image and theirs.labels is own.labels

    def _on_found(self, kept: list[Kept]) -> None:
        held = held_by(self._state.viewer.layers)
        if not self._kept_elsewhere():
            self.offer.show_for([one for one in kept if one.folder.name not in held])

    def _on_changed(self) -> None:
        if self._annotations.image is not self._image:
            self._image = self._annotations.image
            self.offer.clear()

    def _on_inserted(self) -> None:
        # What was restored in another dock; its layer is marked just after it came.
        later(self.offer, self._leave_out_held)

    def _leave_out_held(self) -> None:
        self.offer.leave_out(held_by(self._state.viewer.layers))

    def _on_saved(self, count: int) -> None:
        self._say(f"Annotations of {in_planes(count)} are saved.")

    def _on_failed(self, reason: str) -> None:
        self._say(f"The annotations could not be saved: {reason}")
