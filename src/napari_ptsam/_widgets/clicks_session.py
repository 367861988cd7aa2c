"""The object that is being clicked: what was said of it, and what the model answers."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from psygnal import Signal

from napari_ptsam._widgets.clicks_labels import FreeLabel, Part, check_fit, paint
from napari_ptsam._widgets.clicks_source import ClickSource
from napari_ptsam._widgets.layers import data_shape
from napari_ptsam.clicking import Box, Click, ClickPrompt
from napari_ptsam.errors import InputError, PtsamError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from napari.layers import Labels

    from napari_ptsam._widgets.clicks_state import ClickState
    from napari_ptsam.clicking import ClickAnswer

Said = Click | Box


@dataclass(frozen=True)
class Asked:
    """A prompt and the plane that it is for; `passing` if only the cursor is there."""

    index: int
    prompt: ClickPrompt
    passing: bool = False


@dataclass(frozen=True)
class Accepted:
    """An object that was painted: its plane, its label, and how many pixels."""

    index: int
    label: int
    pixels: int


class ClickSession:
    """Keeps the clicks of one object, has them answered, and paints what is accepted.

    Used in the GUI thread. Answers are computed in another, one at a time and the latest first.

    Parameters
    ----------
    state
        What the sections of the dock share.

    Attributes
    ----------
    changed
        Emitted when anything of it changed.
    answered
        Emitted with what was `Asked` and its `ClickAnswer`, or twice None where there is nothing
        to show any more.
    accepted
        Emitted with what was `Accepted`.
    source
        What is clicked on.
    free
        The next free label.
    own_label
        Whether each object gets a label of its own; else all get the one chosen in the layer.
    problem
        What went wrong with what the user did last; else empty.
    """

    changed = Signal()
    answered = Signal(object, object)
    accepted = Signal(object)

    def __init__(self, state: ClickState) -> None:
        self._state = state
        self._on = False
        self._said: list[Said] = []
        self._index = 0
        self._cursor: Asked | None = None
        self._answer: tuple[Asked, ClickAnswer] | None = None
        self._asking = False
        self._accepting = False
        self.own_label = True
        self.problem = ""
        self.source = ClickSource(state)
        self.free = FreeLabel(state.jobs)
        self.source.changed.connect(self._on_source)
        self.source.moved.connect(self.look_away)
        self.source.ready.changed.connect(self._ask)
        self.free.changed.connect(self._accept_if_waiting)
        state.annotations.changed.connect(self._on_annotations)

    @property
    def on(self) -> bool:
        """Whether clicks in the image are for this."""
        return self._on

    @property
    def said(self) -> tuple[Said, ...]:
        """Clicks and boxes of the object, the latest last."""
        return tuple(self._said)

    @property
    def marks(self) -> tuple[Said, ...]:
        """What counts of it: all clicks, and the last box."""
        if not self._said:
            return ()
        prompt = _prompt(self._said)
        return prompt.clicks if prompt.box is None else (*prompt.clicks, prompt.box)

    @property
    def index(self) -> int | None:
        """The plane that was clicked on."""
        return self._index if self._said else None

    @property
    def asking(self) -> bool:
        """Whether an answer is being computed."""
        return self._asking

    @property
    def asked(self) -> Asked | None:
        """What is asked for now: the object's clicks, else what lies below the cursor."""
        return Asked(self._index, _prompt(self._said)) if self._said else self._cursor

    @property
    def answer(self) -> ClickAnswer | None:
        """The answer to what is asked for now, None while there is none."""
        if self._answer is None or self._answer[0] != self.asked:
            return None
        return self._answer[1]

    # What the user does

    def switch(self, on: bool) -> None:
        """Begin to take clicks, or leave the mouse to napari."""
        if on != self._on:
            self._on = on
            self.problem = ""
            self._cursor = None
            self.source.switch(on)
            self._on_annotations()
            self._ask()

    def say(self, said: Said) -> None:
        """A click, or a box, on the plane in view; what cannot be is told in words."""
        index = self.source.index
        shape = self.source.shape_of(index)
        if index is None or shape is None:
            self.tell(self.source.problem or "Show one plane of the image first, in 2D.")
            return
        before = self._said if self._index == index else []
        try:
            _prompt([*before, said]).checked_for(shape)
        except PtsamError as error:
            self.tell(str(error))
            return
        left = bool(self._said) and self._index != index
        self._said, self._index = [*before, said], index
        self._begin("The mask on the other plane was not accepted, and is gone." if left else "")

    def undo(self) -> bool:
        """Take back the last click or box; False if there was none."""
        if not self._said:
            return False
        self._said.pop()
        self._begin()
        return True

    def discard(self) -> None:
        """Forget the object; nothing is painted."""
        self._said.clear()
        self._begin()

    def point_at(self, y: float, x: float) -> None:
        """Show what a click here would give, until there is a real one."""
        self._cursor = self.passing(y, x)
        if not self._said:
            self._ask()

    def passing(self, y: float, x: float) -> Asked | None:
        """What is asked for by pointing here; None if nothing of the plane in view is there."""
        index, image = self.source.index, self._state.annotations.image
        if index is None or image is None:
            return None
        rows, columns = data_shape(image)[-2:]
        try:
            prompt = ClickPrompt((Click(y, x),)).checked_for((rows, columns))
            return Asked(index, prompt, passing=True)
        except PtsamError:
            return None

    def look_away(self) -> None:
        """The cursor is not over the plane any more."""
        if self._cursor is not None:
            self._cursor = None
            self._ask()
        self.changed.emit()

    def accept(self) -> None:
        """Paint the object into the labels layer, as soon as its mask is there."""
        if not self._said:
            self.tell("Click on an object first.")
            return
        self.problem = ""
        self.free.retry()
        self._accepting = True
        self._accept_if_waiting()
        self.changed.emit()

    # What follows from it

    def _begin(self, problem: str = "") -> None:
        """Something else is asked for."""
        self.problem = problem
        self._accepting = False
        self._ask()

    def tell(self, problem: str) -> None:
        """Say what went wrong."""
        self.problem = problem
        self.changed.emit()

    def _ask(self) -> None:
        """Have what is asked for now answered, unless that is so, or under way."""
        asked, clicker, key = self.asked, self._state.clicker, self.source.key
        embedded = None if asked is None else self.source.ready.get(asked.index)
        if asked is None:
            self._answer = None
            self.answered.emit(None, None)
        elif self.answer is None and not self._asking and embedded is not None and clicker:
            self._asking = True
            self._state.jobs.aside(
                lambda: clicker.answer(embedded, asked.prompt),
                lambda answer: self._on_answer(asked, answer, key),
                lambda error: self._on_error(asked, error),
                urgent=True,
            )
        self.changed.emit()

    def _on_answer(self, asked: Asked, answer: ClickAnswer, key: object) -> None:
        self._asking = False
        now = self.asked
        # What the cursor has passed is shown late; of clicks only the latest count.
        passed = asked.passing and now is not None and now.passing and now.index == asked.index
        if key == self.source.key and (asked == now or passed):
            self._answer = asked, answer
            self.answered.emit(asked, answer)
            self._accept_if_waiting()
        if self.asked is not None:
            self._ask()
        self.changed.emit()

    def _on_error(self, asked: Asked, error: PtsamError) -> None:
        self._asking = False
        if asked == self.asked:
            self._said.clear()
            self._cursor = None
            self.problem = str(error)
        self._ask()

    def _accept_if_waiting(self) -> None:
        answer = self.answer
        if self._accepting and answer is not None and self._said:
            try:
                self._paint(answer)
            except PtsamError as error:
                self._accepting = False
                self.tell(str(error))

    def _paint(self, answer: ClickAnswer) -> None:
        part = Part.of(answer.mask, answer.region)
        if part is None:
            self._accepting = False
            self.tell("There is no mask to accept: nothing was found there.")
            return
        # Before all of which the next free label hears.
        self._accepting = False
        labels = self._labels()
        value = self.free.value if self.own_label else labels.selected_label
        if value is None and self.free.failed:
            raise InputError(
                "The labels layer could not be read, so that its next free label is not known. "
                "Accept again to try once more, or choose another layer."
            )
        if value is None:
            self._accepting = True  # as soon as it is known
            return
        pixels = paint(labels, {self._index: part}, int(value))
        self._said.clear()
        if self.own_label and self.free.value is not None:
            labels.selected_label = self.free.value
        self._ask()
        if pixels:
            self.accepted.emit(Accepted(self._index, int(value), pixels))
        else:
            self.tell("Nothing was painted: all of that mask belongs to other objects already.")

    def _labels(self) -> Labels:
        """The layer to paint on, which is made if there is none.

        Raises
        ------
        InputError
            If it does not fit.
        """
        annotations = self._state.annotations
        labels = annotations.labels
        if labels is None:
            labels = self._state.new_labels()
        if annotations.image is not None:
            check_fit(labels, annotations.image)
        return labels

    def _on_annotations(self) -> None:
        self.free.watch(self._state.annotations.labels if self._on else None)
        self.changed.emit()

    def _on_source(self) -> None:
        """Image or model changed: clicks stay if they still lie on a plane."""
        self._answer = self._cursor = None
        if self._said and self._on and self._state.clicker is not None:
            shape = self.source.shape_of(self._index)
            try:
                lost = shape is None or not _prompt(self._said).checked_for(shape)
            except PtsamError:
                lost = True
            if lost:
                self._said.clear()
                self.problem = "The image is not what it was: click anew."
        self._ask()

    def close(self) -> None:
        """Listen no longer."""
        self._on = False
        self.source.close()
        self.free.watch(None)


def _prompt(said: Sequence[Said]) -> ClickPrompt:
    """All clicks, and the last box."""
    boxes = [one for one in said if isinstance(one, Box)]
    return ClickPrompt(
        tuple(one for one in said if isinstance(one, Click)), boxes[-1] if boxes else None
    )
