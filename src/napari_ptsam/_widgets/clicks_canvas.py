"""What the mouse and the keys do in the viewer while one clicks.

napari gives the mouse to the layer that is selected. While clicking is on, that is the layer of
the clicks: dragging moves and zooms the picture as ever, and no brush is in the way.
"""

from __future__ import annotations

from collections.abc import Callable, Generator
from typing import TYPE_CHECKING, Any

import numpy as np
from qtpy.QtCore import QObject, QTimer

from napari_ptsam._widgets.clicks_layers import ClickLayers
from napari_ptsam._widgets.clicks_training import Pointer
from napari_ptsam._widgets.later import in_turn, later
from napari_ptsam.clicking import Box, Click

if TYPE_CHECKING:
    from napari.layers import Points

    from napari_ptsam._widgets.clicks_session import Asked, ClickSession
    from napari_ptsam._widgets.clicks_state import ClickState
    from napari_ptsam._widgets.clicks_training import ClickPreview
    from napari_ptsam.clicking import ClickAnswer

FARTHEST = 4
"""Screen pixels that the mouse may move between press and release of a click."""

LATE_MS = 150
"""After which a click is shown, if its answer is not there by then."""

LEFT, RIGHT = 1, 2

ZOOM = "double_click_to_zoom"
"""What napari does on a double click."""


class ClickCanvas(QObject):
    """Clicks in the viewer to the session, and its answers to the viewer. In the GUI thread.

    Parameters
    ----------
    state
        What the sections of the dock share.
    session
        Told of clicks.

    Attributes
    ----------
    layers
        What shows clicks and mask.
    pointer
        Where the cursor is, for a training to show what a click there gives.
    previewing
        Whether what a click would give is shown below the cursor.
    """

    def __init__(self, state: ClickState, session: ClickSession) -> None:
        super().__init__()
        self._viewer = state.viewer
        self._annotations = state.annotations
        self._session = session
        self._zoom: tuple[int, Any] | None = None
        self._marks: tuple[Any, ...] = ()
        self._starting = self._following = False
        self.pointer = Pointer()
        self.previewing = False
        self._late = QTimer(self)
        self._late.setSingleShot(True)
        self._late.timeout.connect(self._show_marks)
        self.layers = ClickLayers(state.viewer)
        session.answered.connect(self._show)
        session.changed.connect(self._show_said)
        session.source.changed.connect(self._on_image)
        self._viewer.layers.selection.events.active.connect(self._on_selected)
        self._viewer.layers.events.removed.connect(self._on_selected)
        self._viewer.mouse_move_callbacks.append(self._on_move)
        state.annotations.changed.connect(self._on_image)

    @property
    def taking_clicks(self) -> bool:
        """Whether the mouse is for clicking, all layers being there."""
        return self._session.on and not self._starting and self.layers.active

    def start(self) -> None:
        """Take clicks in the image from now on."""
        image = self._annotations.image
        if image is None:
            return
        self._hold_zoom()
        self._starting = True
        self._session.switch(True)
        # napari takes a moment to add each.
        in_turn(self, lambda: self.layers.lay_preview(image), self.layers.lay_points, self._started)

    def _started(self) -> None:
        self._starting = False
        if not self._session.on:
            self.layers.hide()
            return
        points = self.layers.points
        if points is not None and self._on_press not in points.mouse_drag_callbacks:
            self._bind(points)
        self.layers.come_back()
        self._show_said()

    def stop(self) -> None:
        """Leave the mouse to napari; an object that was not accepted is forgotten."""
        self._session.discard()
        self._session.switch(False)
        self._release_zoom()
        points = self.layers.points
        if points is not None and self.layers.active:
            self._viewer.layers.selection.active = (
                self._annotations.labels or self._annotations.image
            )
        self.layers.hide()

    def close(self) -> None:
        """Take the layers away and listen no longer."""
        self._release_zoom()
        self._viewer.layers.selection.events.active.disconnect(self._on_selected)
        self._viewer.layers.events.removed.disconnect(self._on_selected)
        self._viewer.mouse_move_callbacks.remove(self._on_move)
        self.layers.remove()

    # What the user does

    def _bind(self, points: Points) -> None:
        session = self._session
        points.mouse_drag_callbacks.append(self._on_press)
        keys: dict[str, Callable[[], object]] = {
            "Enter": session.accept,
            "A": session.accept,
            "Escape": session.discard,
            "Backspace": session.undo,
            "Delete": session.undo,
            "Control-Z": self.undo,
            "Control-Shift-Z": self.redo,
        }
        for key, action in keys.items():
            points.bind_key(key, _pressed(action), overwrite=True)

    def undo(self) -> None:
        """Take back the last click; if there is none, the object that was accepted last."""
        labels = self._annotations.labels
        if not self._session.undo() and labels is not None:
            labels.undo()

    def redo(self) -> None:
        """Paint again what was taken back."""
        if not self._session.said and self._annotations.labels is not None:
            self._annotations.labels.redo()

    def _on_press(self, layer: Any, event: Any) -> Generator[None, None, None]:
        """A click, or with Shift held a box."""
        start, at, button = event.pos, event.position, event.button
        shift = "Shift" in event.modifiers
        boxing = shift and button == LEFT
        if button not in (LEFT, RIGHT) or set(event.modifiers) - {"Shift"}:
            return
        # Also where Shift is let go of before the mouse.
        layer.mouse_pan = not boxing
        yield
        moved = False
        while event.type == "mouse_move":
            moved = moved or float(np.abs(np.subtract(event.pos, start)).max()) > FARTHEST
            if boxing and moved:
                self._draw(self._box(at, event.position))
            yield
        layer.mouse_pan = True
        if not moved:
            y, x = self._place(at)
            self._session.say(Click(y, x, positive=button == LEFT and not shift))
        elif boxing:
            self._marks = ()
            self._session.say(self._box(at, event.position))

    def _on_move(self, _: Any, event: Any) -> None:
        self._point(event.position)

    def _point(self, world: Any) -> None:
        """The cursor is here."""
        y, x = self._place(world)
        if self._following:
            asked = self._session.passing(y, x)
            if asked is not None:
                self.pointer.point(asked.index, asked.prompt)
        elif self.previewing and self._session.on:
            self._session.point_at(y, x)

    def follow_cursor(self) -> None:
        """A training shows what clicks give: tell it where the cursor is, or was last."""
        image = self._annotations.image
        if image is None:
            return
        self._following = True
        self._session.look_away()
        selection = self._viewer.layers.selection
        selected, active = set(selection), selection.active
        self.layers.lay_preview(image)
        selection.intersection_update(selected)
        selection.update(selected)
        selection.active = active
        self._point(self._viewer.cursor.position)

    def leave_cursor(self) -> None:
        """The training is over."""
        if self._following:
            self._following = False
            self.pointer.index = None
            self.layers.show_answer(0, None)
            if not self._session.on:
                self.layers.hide()

    def show_preview(self, preview: ClickPreview) -> None:
        """What a click at the cursor gives at this moment; real clicks go before it."""
        if self._following and not self._session.said:
            self.layers.show_answer(preview.index, preview.answer)

    def _place(self, world: Any) -> tuple[float, float]:
        """Row and column of the image that lie below a point of the viewer."""
        image = self._annotations.image
        if image is None:
            return (-1.0, -1.0)
        y, x = image.world_to_data(world)[-2:]
        return float(y), float(x)

    def _box(self, one: Any, other: Any) -> Box:
        (top, left), (bottom, right) = np.sort([self._place(one), self._place(other)], axis=0)
        return Box(float(top), float(left), float(bottom), float(right))

    # What is shown

    def _draw(self, box: Box) -> None:
        """A box that is being drawn, beside the clicks that there are."""
        index = self._session.source.index
        if index is not None:
            clicks = [said for said in self._session.said if isinstance(said, Click)]
            self.layers.show_said(index, [*clicks, box])

    def _show(self, asked: Asked | None, answer: ClickAnswer | None) -> None:
        if asked is None:
            self.layers.show_answer(0, None)
        else:
            self.layers.show_answer(asked.index, answer)

    def _show_said(self) -> None:
        if self._session.asking and not self._late.isActive():
            # Drawn with the answer: a picture more would hold that up.
            self._late.start(LATE_MS)
        elif not self._session.asking:
            self._show_marks()

    def _show_marks(self) -> None:
        self._late.stop()
        marks = (self._session.index or 0, self._session.marks, self.layers.points)
        if marks != self._marks:
            self._marks = marks
            self.layers.show_said(*marks[:2])

    def _on_selected(self) -> None:
        # napari selects layers in passing, and back.
        if self._session.on:
            later(self, self._stop_if_left)

    def _stop_if_left(self) -> None:
        ours = self._starting or (self.layers.active and self.layers.preview is not None)
        if self._session.on and not ours:
            self.stop()
            self._session.tell("Clicking is off, because another layer was selected.")

    def _on_image(self) -> None:
        """Another image, or one of another shape: the layers have to lie on that."""
        if not self._session.on:
            return
        image = self._annotations.image
        if image is None:
            self.stop()
        elif not self._starting and not self.layers.lie_on(image):
            self.start()

    def _hold_zoom(self) -> None:
        """Two clicks in a row are no zoom."""
        callbacks = self._viewer.mouse_double_click_callbacks
        names = [getattr(callback, "__name__", "") for callback in callbacks]
        if self._zoom is None and ZOOM in names:
            place = names.index(ZOOM)
            self._zoom = place, callbacks.pop(place)

    def _release_zoom(self) -> None:
        if self._zoom is not None:
            self._viewer.mouse_double_click_callbacks.insert(*self._zoom)
            self._zoom = None


def _pressed(action: Callable[[], object]) -> Callable[[Any], None]:
    def press(layer: Any) -> None:  # noqa: ARG001 (napari's signature)
        action()

    return press
