"""Clicks in the viewer: prompts, preview, accepting, undo, and what cannot be, in words."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from clickable import BrightRegions
from napari.components import ViewerModel
from numpy.typing import NDArray
from pytestqt.qtbot import QtBot

from napari_ptsam._widgets.clicks_canvas import ZOOM, ClickCanvas
from napari_ptsam._widgets.clicks_planes import KEPT, ReadyPlanes
from napari_ptsam._widgets.clicks_session import ClickSession
from napari_ptsam._widgets.clicks_state import ClickerEntry, ClickState
from napari_ptsam._widgets.clicks_words import status
from napari_ptsam._widgets.layers import go_to_plane
from napari_ptsam.clicking import Box, Click
from napari_ptsam.planes import open_planes

DISC = (20.0, 32.0)
"""Row and column of the disc on plane 0; on plane n it lies 4 n rows below."""


class Clicks:
    """The hands of a user, with a viewer that needs no window."""

    def __init__(self, viewer: Any, state: ClickState, model: BrightRegions, qtbot: QtBot) -> None:
        self.viewer, self.state, self.model, self.qtbot = viewer, state, model, qtbot
        self.session: ClickSession = state.session
        self.canvas: ClickCanvas = state.canvas

    def start(self) -> None:
        self.canvas.start()
        self.qtbot.waitUntil(lambda: self.canvas.taking_clicks, timeout=30_000)

    def ready(self) -> None:
        self.qtbot.waitUntil(lambda: self.session.source.embedded is not None, timeout=30_000)

    def press(
        self, *way: tuple[float, float], button: int = 1, modifiers: tuple[str, ...] = ()
    ) -> None:
        """Press the mouse at a place of the image, move it through others, let go."""
        layer = self.canvas.layers.points
        image = self.state.annotations.image
        world = [self._world(image, place) for place in way]
        event = SimpleNamespace(
            type="mouse_press", pos=np.array(way[0][::-1]) * 5, position=world[0],
            button=button, modifiers=modifiers,
        )  # fmt: skip
        for callback in layer.mouse_drag_callbacks:
            steps = callback(layer, event)
            if next(steps, "over") == "over":
                return
            for place, at in zip(way[1:], world[1:], strict=True):
                event.type, event.pos, event.position = "mouse_move", np.array(place[::-1]) * 5, at
                next(steps, None)
            event.type = "mouse_release"
            next(steps, None)

    def _world(self, image: Any, place: tuple[float, float]) -> Any:
        data = np.array(image.world_to_data(self.viewer.dims.point), float)
        data[-2:] = place
        return image.data_to_world(data)

    def key(self, name: str) -> None:
        layer = self.canvas.layers.points
        keys = {str(key): action for key, action in layer.keymap.items()}
        keys[name](layer)

    def answered(self) -> None:
        self.qtbot.waitUntil(lambda: self.session.answer is not None, timeout=30_000)

    @property
    def preview(self) -> NDArray[Any]:
        return np.asarray(self.canvas.layers.preview.data)

    @property
    def labels(self) -> Any:
        return self.state.annotations.labels

    def status(self) -> str:
        return status(self.state)


@pytest.fixture
def model() -> BrightRegions:
    return BrightRegions()


@pytest.fixture
def make(
    windowless: ViewerModel, model: BrightRegions, qtbot: QtBot
) -> Iterator[Callable[..., Clicks]]:
    """Makes the clicking on an image."""
    made: list[ClickState] = []

    def build(data: Any, *, start: bool = True, **options: Any) -> Clicks:
        state = ClickState(windowless)
        made.append(state)
        state.add_clicker(ClickerEntry("discs", model))  # type: ignore[arg-type]
        state.annotations.image = windowless.add_image(data, **options)
        go_to_plane(windowless, state.annotations.image, 0)
        clicks = Clicks(windowless, state, model, qtbot)
        if start:
            clicks.start()
            clicks.ready()
        return clicks

    yield build
    model.gate.set()
    model.answers.set()
    for state in made:
        if state.chosen is not None:
            state.close()


@pytest.fixture
def clicks(make: Callable[..., Clicks], discs: NDArray[np.uint8]) -> Clicks:
    made = make(discs, name="discs", scale=(3, 0.5, 0.5), translate=(1, 2, 3))
    made.viewer.dims.set_point(0, 1)
    made.ready()
    return made


# Clicks and what comes of them.


def test_a_click_shows_the_mask_of_the_object_below_it(
    clicks: Clicks, discs: NDArray[np.uint8]
) -> None:
    assert "Click on an object" in clicks.status()
    clicks.press(DISC)
    clicks.answered()
    assert (clicks.preview[0].astype(bool) == (discs[0] > 100)).all()
    assert not clicks.preview[1:].any()
    (click,) = clicks.session.said
    assert (click.y, click.x, click.positive) == pytest.approx((*DISC, True))
    assert len(clicks.canvas.layers.points.data) == 1
    assert "0.90" in clicks.status()


def test_dragging_is_no_click_and_a_shifted_drag_is_a_box(clicks: Clicks) -> None:
    clicks.press(DISC, (30, 40))
    assert not clicks.session.said
    clicks.press((10, 20), (15, 30), (30, 40), modifiers=("Shift",))
    (box,) = clicks.session.said
    assert isinstance(box, Box)
    assert (box.top, box.left, box.bottom, box.right) == pytest.approx((10, 20, 30, 40))
    clicks.answered()
    assert clicks.preview[0].any()
    # A second box takes the first one's place.
    clicks.press((40, 50), (12, 22), modifiers=("Shift",))
    assert [type(mark) for mark in clicks.session.marks] == [Box]
    assert clicks.session.marks[0].top == pytest.approx(12)


@pytest.mark.parametrize("how", [{"button": 2}, {"modifiers": ("Shift",)}])
def test_right_click_and_shift_click_take_away(clicks: Clicks, how: dict[str, Any]) -> None:
    clicks.press(DISC)
    clicks.press((50, 50), **how)
    assert [said.positive for said in clicks.session.said] == [True, False]


def test_other_buttons_and_modifiers_are_left_to_napari(clicks: Clicks) -> None:
    clicks.press(DISC, button=3)
    clicks.press(DISC, modifiers=("Alt",))
    clicks.press(DISC, modifiers=("Control",))
    assert not clicks.session.said


def test_undo_takes_back_the_last_click_and_then_the_object(clicks: Clicks) -> None:
    clicks.press(DISC)
    clicks.press((21, 33))
    clicks.key("Ctrl+Z")
    assert len(clicks.session.said) == 1
    clicks.answered()
    assert clicks.preview[0].any()
    clicks.key("Backspace")
    assert not clicks.session.said
    assert not clicks.preview.any()
    clicks.press(DISC)
    clicks.answered()
    clicks.key("Enter")
    assert clicks.labels.data.any()
    clicks.key("Ctrl+Z")
    assert not clicks.labels.data.any()
    clicks.key("Ctrl+Shift+Z")
    assert clicks.labels.data.any()


def test_escape_forgets_the_object(clicks: Clicks) -> None:
    clicks.press(DISC)
    clicks.answered()
    clicks.key("Escape")
    assert not clicks.session.said
    assert not clicks.preview.any()
    assert len(clicks.canvas.layers.points.data) == 0
    assert clicks.labels is None


@pytest.mark.parametrize("key", ["Enter", "A"])
def test_accepting_makes_labels_that_lie_on_the_image_and_goes_on(
    clicks: Clicks, discs: NDArray[np.uint8], key: str
) -> None:
    clicks.press(DISC)
    clicks.answered()
    clicks.key(key)
    image = clicks.state.annotations.image
    assert (clicks.labels.data[0] == (discs[0] > 100)).all()
    assert np.array_equal(clicks.labels.scale, image.scale)
    assert np.array_equal(clicks.labels.translate, image.translate)
    assert not clicks.preview.any()
    clicks.qtbot.wait(20)
    assert clicks.session.on
    assert clicks.canvas.layers.active
    clicks.viewer.dims.set_point(0, 4)
    clicks.ready()
    clicks.press((DISC[0] + 4, DISC[1]))
    clicks.answered()
    clicks.key("Enter")
    assert set(np.unique(clicks.labels.data[1])) == {0, 2}
    assert clicks.labels.selected_label == 3
    clicks.qtbot.waitUntil(lambda: clicks.state.annotations.annotated() == [0, 1])


def test_the_next_free_label_is_free_on_all_planes(
    make: Callable[..., Clicks], discs: NDArray[np.uint8]
) -> None:
    clicks = make(discs, start=False)
    labels = np.zeros(discs.shape, np.uint16)
    labels[5, 0, 0] = 41
    clicks.state.annotations.labels = clicks.viewer.add_labels(labels)
    clicks.start()
    clicks.ready()
    clicks.press(DISC)
    clicks.answered()
    clicks.session.accept()
    assert clicks.labels.data[0].max() == 42
    clicks.labels.paint((3, 3, 3), 90)
    assert clicks.session.free.value == 91
    clicks.session.own_label = False
    clicks.labels.selected_label = 7
    clicks.viewer.dims.set_point(0, 1)
    clicks.ready()
    clicks.press((DISC[0] + 4, DISC[1]))
    clicks.answered()
    clicks.session.accept()
    assert clicks.labels.data[1].max() == 7


def test_objects_that_were_accepted_keep_their_pixels(
    make: Callable[..., Clicks], discs: NDArray[np.uint8]
) -> None:
    clicks = make(discs, start=False)
    before = np.zeros(discs.shape, np.uint8)
    before[0, :, :32] = 3
    clicks.state.annotations.labels = clicks.viewer.add_labels(before.copy())
    clicks.start()
    clicks.ready()
    clicks.press(DISC)
    clicks.answered()
    clicks.session.accept()
    assert (clicks.labels.data[0][:, :32] == 3).all()
    assert (clicks.labels.data[0] == 4).sum() == (discs[0] > 100)[:, 32:].sum()
    clicks.labels.undo()
    assert (clicks.labels.data == before).all()
    clicks.labels.data[0] = 3
    clicks.press(DISC)
    clicks.answered()
    clicks.session.accept()
    assert "other objects" in clicks.status()


def test_a_key_pressed_before_the_answer_accepts_it_when_it_comes(clicks: Clicks) -> None:
    clicks.model.answers.clear()
    clicks.press(DISC)
    clicks.key("Enter")
    assert clicks.labels is None
    clicks.model.answers.set()
    clicks.qtbot.waitUntil(lambda: clicks.labels is not None and clicks.labels.data.any())


def test_of_clicks_in_a_row_only_the_last_state_is_answered(clicks: Clicks) -> None:
    clicks.model.answers.clear()
    for row in range(5):
        clicks.press((DISC[0] + row, DISC[1]))
    clicks.model.answers.set()
    clicks.answered()
    assert [len(prompt.clicks) for prompt in clicks.model.asked] == [1, 5]


# Planes.


def test_a_click_on_a_plane_that_is_not_ready_is_kept_and_answered(clicks: Clicks) -> None:
    clicks.model.gate.clear()
    clicks.viewer.dims.set_point(0, 1 + 3 * 4)
    assert clicks.session.source.embedded is None
    clicks.press((DISC[0] + 16, DISC[1]))
    assert "your click is kept" in clicks.status().lower()
    assert "plane 4" in clicks.status()
    clicks.model.gate.set()
    clicks.answered()
    assert clicks.preview[4].any()


def test_the_plane_in_view_comes_first_and_then_the_next_one(
    clicks: Clicks, discs: NDArray[np.uint8]
) -> None:
    assert np.array_equal(clicks.model.embedded[0], discs[0])
    clicks.qtbot.waitUntil(lambda: len(clicks.model.embedded) == 2)
    assert np.array_equal(clicks.model.embedded[1], discs[1])
    clicks.viewer.dims.set_point(0, 1 + 3 * 5)
    clicks.viewer.dims.set_point(0, 1 + 3 * 3)
    clicks.ready()
    assert len(clicks.model.embedded) <= 6
    # Back from 5 to 3: next is 2.
    clicks.qtbot.waitUntil(
        lambda: any(np.array_equal(plane, discs[2]) for plane in clicks.model.embedded)
    )


def test_nothing_is_looked_at_twice(clicks: Clicks) -> None:
    clicks.qtbot.waitUntil(lambda: len(clicks.model.embedded) == 2)
    clicks.press(DISC)
    clicks.answered()
    clicks.session.accept()
    clicks.viewer.dims.set_point(0, 4)
    clicks.state.annotations.labels.name = "other"
    clicks.ready()
    clicks.qtbot.waitUntil(lambda: len(clicks.model.embedded) == 3)
    clicks.viewer.dims.set_point(0, 1)
    clicks.ready()
    clicks.qtbot.wait(20)
    assert len(clicks.model.embedded) == 3


def test_few_planes_are_kept_at_hand(state: Any, model: BrightRegions, qtbot: QtBot) -> None:
    ready = ReadyPlanes(state.jobs)
    stack = np.arange(KEPT + 3, dtype=np.uint8)[:, None, None] + np.eye(8, dtype=np.uint8)
    ready.use(model, open_planes(stack))  # type: ignore[arg-type]
    ready.want(range(KEPT + 3))
    qtbot.waitUntil(lambda: ready.get(KEPT - 1) is not None)
    ready.want(range(KEPT, KEPT + 3))
    qtbot.waitUntil(lambda: ready.get(KEPT + 2) is not None)
    assert len(model.embedded) == KEPT + 3
    assert ready.get(0) is None
    assert ready.get(3) is not None


def test_clicks_on_another_plane_begin_anew_and_this_is_said(clicks: Clicks) -> None:
    clicks.press(DISC)
    clicks.answered()
    clicks.viewer.dims.set_point(0, 4)
    clicks.ready()
    clicks.press((DISC[0] + 4, DISC[1]))
    assert "was not accepted" in clicks.status()
    clicks.answered()
    assert not clicks.preview[0].any()
    assert clicks.preview[1].any()


@pytest.mark.parametrize(
    ("shape", "axes", "channel"),
    [
        ((64, 64), ("y", "x"), None),
        ((3, 64, 64), ("t", "y", "x"), None),
        ((2, 3, 64, 64), ("t", "z", "y", "x"), None),
        ((2, 3, 64, 64), ("channel", "z", "y", "x"), 1),
        ((3, 2, 64, 64), ("z", "channel", "y", "x"), 0),
    ],
)
def test_all_axes_are_clicked_and_labelled_where_they_are(
    make: Callable[..., Clicks],
    discs: NDArray[np.uint8],
    shape: tuple[int, ...],
    axes: tuple[str, ...],
    channel: int | None,
) -> None:
    data = np.broadcast_to(discs[0], shape).copy()
    clicks = make(data, start=False, axis_labels=axes, scale=[2.0] * len(shape))
    clicks.state.annotations.channel = channel
    for slider in range(len(shape) - 2):
        clicks.viewer.dims.set_point(slider, 2)
    clicks.start()
    clicks.ready()
    clicks.press(DISC)
    clicks.answered()
    clicks.session.accept()
    index = clicks.session.source.index
    assert clicks.state.annotations.annotated() == [index]
    assert clicks.labels.data.sum() == (discs[0] > 100).sum()


def test_colours_and_several_resolutions_are_clicked(
    make: Callable[..., Clicks], discs: NDArray[np.uint8]
) -> None:
    colour = make(np.repeat(discs[0][..., None], 3, axis=-1), rgb=True)
    colour.press(DISC)
    colour.answered()
    assert colour.preview.shape == (64, 64)
    assert colour.preview.any()
    colour.canvas.stop()
    pyramid = make([discs[0], discs[0][::2, ::2]], multiscale=True)
    pyramid.press(DISC)
    pyramid.answered()
    assert pyramid.preview.shape == (64, 64)
    assert (pyramid.preview.astype(bool) == (discs[0] > 100)).all()


# The cursor.


def test_the_preview_below_the_cursor_gives_way_to_clicks(clicks: Clicks) -> None:
    clicks.canvas.previewing = True
    image = clicks.state.annotations.image
    clicks.canvas._on_move(None, SimpleNamespace(position=clicks._world(image, DISC)))
    clicks.qtbot.waitUntil(lambda: bool(clicks.preview.any()))
    clicks.session.accept()
    assert clicks.labels is None
    clicks.canvas._on_move(None, SimpleNamespace(position=clicks._world(image, (-5, 3))))
    assert not clicks.preview.any()
    clicks.press(DISC)
    clicks.answered()
    asked = len(clicks.model.asked)
    clicks.canvas._on_move(None, SimpleNamespace(position=clicks._world(image, (50, 5))))
    clicks.qtbot.wait(20)
    assert len(clicks.model.asked) == asked
    assert clicks.preview[0].any()


# napari as ever.


def test_clicking_leaves_the_mouse_to_napari_when_it_is_off(clicks: Clicks) -> None:
    names = [callback.__name__ for callback in clicks.viewer.mouse_double_click_callbacks]
    assert ZOOM not in names
    clicks.canvas.stop()
    names = [callback.__name__ for callback in clicks.viewer.mouse_double_click_callbacks]
    assert ZOOM in names
    assert clicks.viewer.layers.selection.active is clicks.state.annotations.image
    assert not clicks.canvas.layers.points.visible


def test_choosing_another_layer_ends_clicking_and_says_so(clicks: Clicks) -> None:
    clicks.viewer.layers.selection.active = clicks.state.annotations.image
    clicks.qtbot.waitUntil(lambda: not clicks.session.on)
    assert "another layer was selected" in clicks.status()
    assert clicks.viewer.layers.selection.active is clicks.state.annotations.image
    clicks.start()
    assert clicks.session.on
    assert "Click on an object" in clicks.status()


def test_a_layer_that_is_selected_in_passing_ends_nothing(clicks: Clicks) -> None:
    clicks.viewer.layers.selection.active = clicks.state.annotations.image
    clicks.viewer.layers.selection.active = clicks.canvas.layers.points
    clicks.qtbot.wait(20)
    assert clicks.session.on


def test_closing_takes_the_layers_away(clicks: Clicks) -> None:
    clicks.state.close()
    assert [layer.name for layer in clicks.viewer.layers] == ["discs"]
    clicks.viewer.dims.set_point(0, 4)
    clicks.viewer.layers.clear()


# What cannot be, in words.


def test_a_click_outside_of_the_image_is_told(clicks: Clicks) -> None:
    clicks.press((-4, 10))
    assert "outside of the image" in clicks.status()
    assert not clicks.session.said
    clicks.press(DISC)
    assert "outside" not in clicks.status()


def test_negative_clicks_alone_are_told(clicks: Clicks) -> None:
    clicks.press(DISC, button=2)
    assert "which object" in clicks.status()
    assert not clicks.session.said


def test_accepting_nothing_is_told(clicks: Clicks) -> None:
    clicks.session.accept()
    assert "Click on an object first" in clicks.status()
    clicks.press((60, 2))
    clicks.answered()
    assert "Nothing was found" in clicks.status()
    clicks.session.accept()
    assert "nothing was found" in clicks.status()
    assert clicks.labels is None


def test_a_view_in_3d_or_along_other_axes_is_told(clicks: Clicks) -> None:
    clicks.viewer.dims.ndisplay = 3
    assert "2D" in clicks.status()
    clicks.press(DISC)
    assert not clicks.session.said
    assert "2D" in clicks.status()
    clicks.viewer.dims.ndisplay = 2
    clicks.viewer.dims.order = (1, 0, 2)
    clicks.press(DISC)
    assert not clicks.session.said


def test_a_plane_that_cannot_be_used_is_told(
    make: Callable[..., Clicks], discs: NDArray[np.uint8]
) -> None:
    discs[0] = 7
    clicks = make(discs, start=False)
    clicks.start()
    clicks.qtbot.waitUntil(lambda: "blank" in clicks.status())
    clicks.viewer.dims.set_point(0, 1)
    clicks.ready()
    assert "blank" not in clicks.status()


def test_a_channel_has_to_be_chosen(make: Callable[..., Clicks], discs: NDArray[np.uint8]) -> None:
    clicks = make(discs[:2], start=False, axis_labels=("channel", "y", "x"), scale=(1.0, 1.0, 1.0))
    clicks.start()
    clicks.press(DISC)
    assert "channel" in clicks.status()
    clicks.state.annotations.channel = 1
    clicks.ready()
    clicks.press((DISC[0] + 4, DISC[1]))
    clicks.answered()
    assert clicks.preview.any()


def test_an_image_that_vanishes_ends_clicking(clicks: Clicks) -> None:
    clicks.press(DISC)
    clicks.viewer.layers.remove(clicks.state.annotations.image)
    clicks.qtbot.waitUntil(lambda: not clicks.session.on)
    assert not clicks.session.said
    assert "Open an image" in clicks.status() or "another layer" in clicks.status()


def test_an_image_that_changes_its_shape_is_clicked_anew(
    clicks: Clicks, discs: NDArray[np.uint8]
) -> None:
    clicks.press((60, 60))
    clicks.state.annotations.image.data = discs[:, :32, :32]
    assert not clicks.session.said
    assert "click anew" in clicks.status()
    clicks.qtbot.waitUntil(lambda: clicks.canvas.taking_clicks, timeout=30_000)
    assert clicks.preview.shape == (6, 32, 32)
    clicks.ready()
    clicks.press((18, 30))
    clicks.answered()
    assert clicks.preview.any()


def test_an_image_that_is_renamed_is_clicked_on(clicks: Clicks) -> None:
    clicks.press(DISC)
    clicks.state.annotations.image.name = "other"
    clicks.answered()
    assert clicks.preview.any()


def test_labels_that_vanish_or_do_not_fit_are_told(
    clicks: Clicks, discs: NDArray[np.uint8]
) -> None:
    clicks.state.annotations.labels = clicks.viewer.add_labels(np.zeros((6, 8, 8), int))
    clicks.viewer.layers.selection.active = clicks.canvas.layers.points
    clicks.press(DISC)
    clicks.answered()
    clicks.session.accept()
    assert "does not have the size" in clicks.status()
    assert clicks.session.said
    clicks.viewer.layers.remove(clicks.labels)
    clicks.viewer.layers.selection.active = clicks.canvas.layers.points
    clicks.session.accept()
    assert clicks.labels is not None, clicks.status()
    assert (clicks.labels.data[0] > 0).sum() == (discs[0] > 100).sum()


def test_labels_of_too_few_bits_are_told(
    make: Callable[..., Clicks], discs: NDArray[np.uint8]
) -> None:
    clicks = make(discs, start=False)
    labels = np.zeros(discs.shape, np.uint8)
    labels[3, 0, 0] = 255
    clicks.state.annotations.labels = clicks.viewer.add_labels(labels)
    clicks.start()
    clicks.ready()
    clicks.press(DISC)
    clicks.answered()
    clicks.session.accept()
    assert "1 to 255" in clicks.status()


def test_large_labels_are_looked_through_in_the_background(
    clicks: Clicks, monkeypatch: pytest.MonkeyPatch
) -> None:
    from napari_ptsam._widgets import clicks_labels

    monkeypatch.setattr(clicks_labels, "AT_ONCE", 0)
    labels = np.zeros((6, 64, 64), np.uint16)
    labels[5, 1, 1] = 9
    clicks.state.annotations.labels = clicks.viewer.add_labels(labels)
    clicks.viewer.layers.selection.active = clicks.canvas.layers.points
    clicks.press(DISC)
    clicks.answered()
    clicks.session.accept()
    clicks.qtbot.waitUntil(lambda: clicks.labels.data[0].max() == 10)


def test_another_model_answers_the_same_clicks(clicks: Clicks) -> None:
    clicks.press(DISC)
    clicks.answered()
    other = BrightRegions()
    clicks.state.add_clicker(ClickerEntry("other", other))  # type: ignore[arg-type]
    clicks.qtbot.waitUntil(lambda: bool(other.asked))
    clicks.answered()
    assert other.asked[0].clicks[0].y == pytest.approx(DISC[0])


def test_a_click_that_the_model_refuses_is_told(
    clicks: Clicks, monkeypatch: pytest.MonkeyPatch
) -> None:
    from napari_ptsam.errors import InputError

    def refuse(*_: Any) -> None:
        raise InputError("This cannot be answered.")

    monkeypatch.setattr(clicks.model, "answer", refuse)
    clicks.session.say(Click(20, 32))
    clicks.qtbot.waitUntil(lambda: "cannot be answered" in clicks.status())
    assert not clicks.session.said
