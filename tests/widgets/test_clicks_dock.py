"""The click dock: models and their files, neighbouring planes, training, ways into it."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from clickable import BrightRegions
from napari.components import ViewerModel
from napari.utils.notifications import notification_manager
from numpy.typing import NDArray
from pytestqt.qtbot import QtBot
from qtpy.QtCore import Qt
from qtpy.QtWidgets import QAbstractButton, QComboBox, QSpinBox

from napari_ptsam._widgets import clicks_models, clicks_train, reader
from napari_ptsam._widgets.clicks_following import axes_to_follow, ways_from
from napari_ptsam._widgets.clicks_labels import Part, paint
from napari_ptsam._widgets.clicks_neighbours import NeighboursSection
from napari_ptsam._widgets.clicks_section import START, STOP, ClickSection
from napari_ptsam._widgets.clicks_state import ClickerEntry, ClickState
from napari_ptsam._widgets.clicks_train import ClickTrainSection, result_text
from napari_ptsam._widgets.layers import go_to_plane
from napari_ptsam._widgets.state import PluginState
from napari_ptsam.backbones import Backbone
from napari_ptsam.clicking import Click
from napari_ptsam.errors import InputError

DISC = Click(20, 32)


@pytest.fixture
def model() -> BrightRegions:
    return BrightRegions()


@pytest.fixture
def clicking(
    windowless: ViewerModel, discs: NDArray[np.uint8], model: BrightRegions
) -> Iterator[ClickState]:
    """On plane 0 of six, of which each has one disc."""
    image = windowless.add_image(discs, name="discs")
    state = ClickState(windowless)
    state.annotations.image = image
    state.add_clicker(ClickerEntry("discs", model))  # type: ignore[arg-type]
    go_to_plane(windowless, image, 0)
    yield state
    model.gate.set()
    model.answers.set()
    state.close()


@pytest.fixture
def section(clicking: ClickState, qtbot: QtBot) -> ClickSection:
    made = ClickSection(clicking)
    qtbot.addWidget(made)
    return made


@pytest.fixture
def click_steps(discs: NDArray[np.uint8], qtbot: QtBot) -> Iterator[Callable[[], ClickSection]]:
    """Makes the first step of a click dock in a viewer of its own, as another process would."""
    states: list[ClickState] = []

    def make() -> ClickSection:
        states.append(ClickState(ViewerModel()))
        states[-1].viewer.add_image(discs, name="discs")
        made = ClickSection(states[-1])
        qtbot.addWidget(made)
        qtbot.waitUntil(lambda: made.kept.autosave.recognised)
        return made

    yield make
    for state in states:
        state.close()


@pytest.fixture
def neighbours(clicking: ClickState, qtbot: QtBot) -> NeighboursSection:
    made = NeighboursSection(clicking)
    qtbot.addWidget(made)
    return made


@pytest.fixture
def accept(clicking: ClickState, qtbot: QtBot) -> Callable[[], None]:
    """Clicks on the disc of the plane in view, and accepts it."""

    def act() -> None:
        if not clicking.session.on:
            clicking.canvas.start()
        qtbot.waitUntil(lambda: clicking.canvas.taking_clicks, timeout=30_000)
        clicking.session.say(Click(DISC.y + 4 * (clicking.session.source.index or 0), DISC.x))
        qtbot.waitUntil(lambda: clicking.session.answer is not None, timeout=30_000)
        clicking.session.accept()

    return act


# The first step.


def test_one_button_starts_clicking_and_ends_it(section: ClickSection, qtbot: QtBot) -> None:
    assert section.toggle.text() == START
    section.toggle.click()
    qtbot.waitUntil(lambda: section._state.canvas.taking_clicks, timeout=30_000)
    assert section.toggle.text() == STOP
    qtbot.waitUntil(lambda: "Click on an object" in section.status.text())
    section.toggle.click()
    assert section.toggle.text() == START
    assert not section._state.canvas.layers.active


def test_buttons_do_what_the_keys_do(
    section: ClickSection, clicking: ClickState, qtbot: QtBot
) -> None:
    section.toggle.click()
    qtbot.waitUntil(lambda: clicking.canvas.taking_clicks, timeout=30_000)
    assert not section.accept.isEnabled()
    clicking.session.say(DISC)
    assert section.accept.isEnabled()
    section.undo.click()
    assert not clicking.session.said
    clicking.session.say(DISC)
    section.discard.click()
    assert not clicking.session.said
    clicking.session.say(DISC)
    qtbot.waitUntil(lambda: clicking.session.answer is not None, timeout=30_000)
    section.accept.click()
    labels = clicking.annotations.labels
    assert labels is not None
    assert labels.data[0].any()
    qtbot.waitUntil(lambda: "1 plane annotated, next label 2" in section.counter.text())
    assert "Label 1" in section.status.text()
    section.undo.click()
    assert not labels.data.any()


def test_new_labels_leave_the_mouse_with_the_clicks(
    section: ClickSection, clicking: ClickState, qtbot: QtBot
) -> None:
    section.toggle.click()
    qtbot.waitUntil(lambda: clicking.canvas.taking_clicks, timeout=30_000)
    section.new_labels.click()
    qtbot.wait(20)
    assert clicking.session.on
    assert clicking.annotations.labels.mode == "pan_zoom"


def test_the_dock_says_what_to_do_without_an_image(windowless: ViewerModel, qtbot: QtBot) -> None:
    state = ClickState(windowless)
    section = ClickSection(state)
    qtbot.addWidget(section)
    assert "Open an image" in section.status.text()
    assert not section.toggle.isEnabled()
    image = windowless.add_image(np.zeros((8, 8)))
    assert section.image.layer is image
    assert section.toggle.isEnabled()
    assert "Start clicking" in section.status.text()
    state.close()


def test_accepted_objects_are_saved_and_offered_at_the_next_time(
    click_steps: Callable[[], ClickSection], qtbot: QtBot
) -> None:
    first = click_steps()
    first.new_labels.click()
    qtbot.waitUntil(lambda: not first._state.annotations.searching)
    labels = first._state.annotations.labels
    assert labels is not None
    paint(labels, {2: Part((slice(5, 9), slice(5, 9)), np.ones((4, 4), bool))}, 3)
    assert first.kept.autosave.timer.isActive()
    first.kept.autosave.save()
    qtbot.waitUntil(lambda: "1 plane are saved" in first.saving.text())

    second = click_steps()
    qtbot.waitUntil(lambda: not second.kept.offer.isHidden())
    second.kept.offer.restore.click()
    qtbot.waitUntil(lambda: second._state.annotations.annotated() == [2])
    restored = second._state.annotations.labels
    assert restored is not None
    assert (restored.data == labels.data).all()
    assert restored.mode == "pan_zoom"


def test_what_both_docks_have_is_saved_and_offered_by_one_of_them(
    click_steps: Callable[[], ClickSection], qtbot: QtBot, monkeypatch: pytest.MonkeyPatch
) -> None:
    section = click_steps()
    state, autosave = section._state, section.kept.autosave
    painting = PluginState(state.viewer)
    monkeypatch.setattr(PluginState, "of", lambda _: painting)
    section.new_labels.click()
    labels = state.annotations.labels
    painting.annotations.image = state.annotations.image
    painting.annotations.labels = labels
    labels.paint((1, 20, 20), 1)
    assert not autosave.timer.isActive()
    painting.annotations.labels = None
    labels.paint((1, 30, 30), 1)
    assert autosave.timer.isActive()
    painting.close()


@pytest.mark.parametrize("kind", [ClickSection, NeighboursSection, ClickTrainSection])
def test_every_control_has_a_tooltip_is_reached_by_keys_and_fits(
    clicking: ClickState, qtbot: QtBot, kind: Any
) -> None:
    section = kind(clicking)
    qtbot.addWidget(section)
    controls = [
        control
        for type_ in (QAbstractButton, QComboBox, QSpinBox)
        for control in section.findChildren(type_)
        if control.objectName() != "qt_spinbox_lineedit" and control.parent() is not None
    ]
    assert controls
    for control in controls:
        assert control.toolTip(), control
        assert control.focusPolicy() & Qt.FocusPolicy.TabFocus
    assert section.minimumSizeHint().width() <= 280


# Models.


def test_plain_sam_is_loaded_when_somebody_clicks(
    section: ClickSection, clicking: ClickState, tiny_backbone_loaded: Backbone,
    monkeypatch: pytest.MonkeyPatch, qtbot: QtBot,
) -> None:  # fmt: skip
    monkeypatch.setattr(clicking.engine, "backbone", lambda *_: tiny_backbone_loaded)
    clicking.chosen = section.models._plain["embedded"]
    assert clicking.clicker is None
    section.toggle.click()
    assert "Getting the model ready" in section.status.text()
    clicking.session.say(DISC)
    qtbot.waitUntil(lambda: clicking.session.answer is not None, timeout=20_000)
    assert clicking.clicker.backbone is tiny_backbone_loaded
    assert clicking.clicker.embeddings is clicking.engine.embeddings


def test_a_model_that_cannot_be_loaded_is_told(
    section: ClickSection, clicking: ClickState, monkeypatch: pytest.MonkeyPatch, qtbot: QtBot
) -> None:
    def refuse(*_: Any) -> None:
        raise InputError("This model is not there.")

    monkeypatch.setattr(clicks_models, "plain_clicker", refuse)
    clicking.chosen = section.models._plain["embedded"]
    section.toggle.click()
    qtbot.waitUntil(lambda: "not there" in section.status.text())


def test_the_list_offers_all_backbones_and_specialists(
    section: ClickSection, clicking: ClickState, qtbot: QtBot
) -> None:
    combo = section.models.model
    section.show()
    qtbot.waitUntil(lambda: combo.count() > 3, timeout=20_000)
    assert combo.itemText(0) == "discs"
    assert combo.itemText(1).startswith("Plain SAM")
    assert combo.currentIndex() == 0
    assert section.models.export_button.isEnabled()
    combo.setCurrentIndex(1)
    combo.activated.emit(1)
    assert clicking.chosen.backbone
    assert not section.models.export_button.isEnabled()


# Neighbouring planes.


def test_an_object_is_carried_through_the_stack_and_undone_at_once(
    neighbours: NeighboursSection,
    clicking: ClickState,
    accept: Callable[[], None],
    discs: NDArray[np.uint8],
    qtbot: QtBot,
) -> None:
    assert not neighbours.start.isEnabled()
    assert "accept" in neighbours.why.text()
    go_to_plane(clicking.viewer, clicking.annotations.image, 2)
    accept()
    assert neighbours.label.value() == 1
    neighbours.start.click()
    qtbot.waitUntil(lambda: clicking.jobs.running is None, timeout=30_000)
    labels = clicking.annotations.labels
    assert (labels.data.astype(bool) == (discs > 100)).all()
    assert "5 planes" in neighbours.status.text()
    labels.undo()
    assert labels.data[2].any()
    assert not np.delete(labels.data, 2, axis=0).any()


def test_it_stops_where_the_object_is_lost_and_after_so_many_planes(
    neighbours: NeighboursSection,
    clicking: ClickState,
    accept: Callable[[], None],
    qtbot: QtBot,
) -> None:
    clicking.annotations.image.data[4] = 30
    clicking.annotations.image.data[4, :3] = 200
    accept()
    neighbours.start.click()
    qtbot.waitUntil(lambda: clicking.jobs.running is None, timeout=30_000)
    labels = clicking.annotations.labels
    assert [bool(plane.any()) for plane in labels.data] == [True] * 4 + [False] * 2
    assert "Lost at plane 4" in neighbours.status.text()
    labels.undo()
    neighbours.to_the_end.setChecked(False)
    neighbours.up.setValue(2)
    neighbours.start.click()
    qtbot.waitUntil(lambda: clicking.jobs.running is None, timeout=30_000)
    assert [bool(plane.any()) for plane in labels.data] == [True] * 3 + [False] * 3


def test_stop_keeps_what_was_found(
    neighbours: NeighboursSection,
    clicking: ClickState,
    model: BrightRegions,
    accept: Callable[[], None],
    monkeypatch: pytest.MonkeyPatch,
    qtbot: QtBot,
) -> None:
    accept()
    follow, tickets = model.follow, threading.Semaphore(1)

    def waiting(*given: Any) -> Any:
        tickets.acquire(timeout=10)
        return follow(*given)

    monkeypatch.setattr(model, "follow", waiting)
    neighbours.start.click()
    qtbot.waitUntil(lambda: bool(neighbours._found))
    neighbours.stop.click()
    tickets.release()
    qtbot.waitUntil(lambda: clicking.jobs.running is None, timeout=30_000)
    assert "Stopped" in neighbours.status.text()
    painted = [bool(plane.any()) for plane in clicking.annotations.labels.data]
    assert painted[:2] == [True, True]
    assert not all(painted)


def test_what_cannot_be_carried_is_told(
    neighbours: NeighboursSection,
    clicking: ClickState,
    model: BrightRegions,
    accept: Callable[[], None],
    qtbot: QtBot,
) -> None:
    accept()
    go_to_plane(clicking.viewer, clicking.annotations.image, 3)
    neighbours.start.click()
    assert "no object 1 on plane 3" in neighbours.status.text()
    go_to_plane(clicking.viewer, clicking.annotations.image, 0)
    model.answers.clear()
    neighbours.start.click()
    with pytest.raises(InputError, match="still running"):
        clicking.jobs.run("Other", iter, on_yield=print, on_return=print)  # type: ignore[arg-type]
    clicking.viewer.layers.remove(clicking.annotations.labels)
    model.answers.set()
    qtbot.waitUntil(lambda: clicking.jobs.running is None, timeout=30_000)
    assert "removed meanwhile" in neighbours.status.text()
    assert neighbours.stop.isHidden()


def test_a_single_image_has_no_neighbours(windowless: ViewerModel, qtbot: QtBot) -> None:
    state = ClickState(windowless)
    state.annotations.image = windowless.add_image(np.zeros((8, 8)))
    section = NeighboursSection(state)
    qtbot.addWidget(section)
    assert "several planes" in section.why.text()
    assert not section.start.isEnabled()
    state.close()


def test_ways_lead_along_one_axis_and_depth_is_the_first(windowless: ViewerModel) -> None:
    layer = windowless.add_image(np.zeros((3, 5, 8, 8)), axis_labels=("t", "z", "y", "x"))
    assert axes_to_follow(layer) == [(1, "Z"), (0, "T")]
    assert ways_from(layer, 7, 1, 99, 99) == [[8, 9], [6, 5]]
    assert ways_from(layer, 7, 1, 1, 0) == [[8], []]
    assert ways_from(layer, 7, 0, 9, 9) == [[12], [2]]


# Training.


@pytest.fixture
def training(
    clicking: ClickState,
    tiny_backbone_loaded: Backbone,
    discs: NDArray[np.uint8],
    monkeypatch: pytest.MonkeyPatch,
    qtbot: QtBot,
) -> ClickTrainSection:
    monkeypatch.setattr(clicking.engine, "backbone", lambda *_: tiny_backbone_loaded)
    monkeypatch.setattr(clicks_train, "LENGTHS", (("Short", 2), ("Few", 4)))
    clicking.annotations.labels = clicking.viewer.add_labels((discs > 100).astype(np.uint8))
    qtbot.waitUntil(lambda: len(clicking.annotations.annotated()) == 6)
    section = ClickTrainSection(clicking)
    qtbot.addWidget(section)
    return section


def test_a_click_specialist_is_trained_saved_and_loaded(
    section: ClickSection,
    training: ClickTrainSection,
    clicking: ClickState,
    tmp_path: Path,
    qtbot: QtBot,
) -> None:
    training.class_name.setText("disc")
    assert "6 planes" in training.why.text()
    training.train.click()
    assert clicking.jobs.running == clicks_train.TRAINING_CLICKS
    assert not training.train.isEnabled()
    qtbot.waitUntil(lambda: clicking.jobs.running is None, timeout=60_000)
    entry = clicking.chosen
    assert entry.name == "disc 1"
    assert entry.is_specialist
    assert "IoU" in training.result.text()
    assert section.models.model.currentText() == "disc 1"
    assert (entry.saved, entry.path, entry.clicker.path) == (False, None, None)
    assert [one.path for one in clicking.shelf.earlier()] == [entry.kept]
    section.models.export(tmp_path / "disc.ptsam.safetensors")
    qtbot.waitUntil(lambda: entry.saved, timeout=10_000)
    assert reader._takes_clicks(entry.path)
    # No name says where its backbone is.
    section.models.load(entry.path)
    qtbot.waitUntil(lambda: not section.models.locate_button.isHidden(), timeout=10_000)
    assert "Choose that file" in section.models.note.text()
    section.models.load(entry.path, tmp_path / "patched")
    qtbot.waitUntil(lambda: len(clicking.clickers) == 3, timeout=10_000)
    loaded = clicking.chosen
    assert (loaded.name, loaded.saved) == ("disc", True)
    plane = entry.clicker.embed(clicking.annotations.image.data[0])
    from napari_ptsam.clicking import ClickPrompt

    answers = [
        one.clicker.answer(plane, ClickPrompt((DISC,))).probability for one in (entry, loaded)
    ]
    assert np.array_equal(*answers)


def test_a_click_specialist_of_another_time_is_brought_back(
    section: ClickSection,
    training: ClickTrainSection,
    clicking: ClickState,
    tiny_backbone: Path,
    qtbot: QtBot,
) -> None:
    training.train.click()
    qtbot.waitUntil(lambda: clicking.jobs.running is None, timeout=60_000)
    entry = clicking.chosen
    models = section.models
    models.earlier.look()
    qtbot.waitUntil(lambda: bool(models.earlier._found), timeout=10_000)
    assert models.earlier.isHidden()
    # As if napari was closed in between.
    clicking.clickers.remove(entry)
    clicking.clickers_changed.emit()
    assert not models.earlier.isHidden()
    assert models.earlier.choice.currentText().startswith("object, ")
    models.earlier.restore.click()
    qtbot.waitUntil(lambda: not models.locate_button.isHidden(), timeout=10_000)
    models.load(entry.kept, tiny_backbone)
    qtbot.waitUntil(lambda: clicking.chosen not in (entry, None), timeout=10_000)
    again = clicking.chosen
    assert (again.name, again.saved, again.path) == ("object 1", False, None)
    assert again.kept == entry.kept
    assert models.earlier.isHidden()


def test_while_it_trains_a_click_below_the_cursor_is_shown_and_stop_keeps_the_best(
    training: ClickTrainSection, clicking: ClickState, qtbot: QtBot, monkeypatch: pytest.MonkeyPatch
) -> None:
    from napari_ptsam._widgets import preview

    monkeypatch.setattr(preview, "SHORTEST", 0.0)
    training.length.setItemData(1, 500)
    shown: list[Any] = []
    show = clicking.canvas.layers.show_answer
    monkeypatch.setattr(
        clicking.canvas.layers, "show_answer", lambda *given: (shown.append(given), show(*given))
    )
    clicking.viewer.cursor.position = (0, 20, 32)
    training.train.click()
    qtbot.waitUntil(lambda: any(answer for _, answer in shown), timeout=60_000)
    assert not training.hint.isHidden()
    assert clicking.canvas.pointer.prompt.clicks[0].y == 20
    clicking.canvas._point((0, 40, 10))
    assert clicking.canvas.pointer.prompt.clicks[0].y == 40
    training.run.stop.click()
    qtbot.waitUntil(lambda: clicking.jobs.running is None, timeout=60_000)
    assert "Stopped" in training.result.text()
    assert clicking.chosen.is_specialist
    assert clicking.canvas.pointer.index is None
    assert shown[-1] == (0, None)


def test_training_says_what_is_missing(clicking: ClickState, qtbot: QtBot) -> None:
    section = ClickTrainSection(clicking)
    qtbot.addWidget(section)
    assert not section.train.isEnabled()
    assert "labels layer" in section.why.text()
    clicking.new_labels()
    qtbot.waitUntil(lambda: "Paint the object" in section.why.text())


def test_results_are_told_in_words() -> None:
    told = result_text({"held_out_iou": 0.812, "held_out": ["2"]})
    assert "<b>IoU 0.81</b>" in told
    assert "1 plane of your own that was kept out" in told
    assert "at least three planes" in result_text({"stopped": True})


# The window.


def test_files_are_told_apart_without_torch(tmp_path: Path) -> None:
    from napari_ptsam.methods import CLICK_METHODS

    assert set(reader.CLICK_METHODS) == set(CLICK_METHODS)
    (tmp_path / "damaged.ptsam.safetensors").write_bytes(b"no prompt file")
    assert not reader._takes_clicks(tmp_path / "damaged.ptsam.safetensors")


def test_the_annotate_step_offers_to_click_on_its_layers(viewer: Any, qtbot: QtBot) -> None:
    from napari_ptsam._widgets.commands import open_dock

    viewer.add_image(np.zeros((3, 32, 32), np.uint8))
    dock = open_dock(viewer)
    annotate = dock.sections["annotate"]
    annotate.new_labels.click()
    annotate.click.click()
    state = ClickState.of(viewer)
    assert state is not None
    assert state.annotations.image is dock.state.annotations.image
    labels = state.annotations.labels
    assert labels is dock.state.annotations.labels
    # What is painted by one counts for the other.
    labels.data_setitem((np.array([1]), np.array([4]), np.array([5])), 3)
    qtbot.waitUntil(lambda: dock.state.annotations.annotated() == [1])
    assert state.annotations.annotated() == [1]


def test_two_runs_at_once_are_refused_across_the_docks(viewer: Any, qtbot: QtBot) -> None:
    from napari_ptsam._widgets.commands import open_clicks, open_dock

    told: list[str] = []
    keep = notification_manager.notification_ready.connect(lambda n: told.append(n.message))
    one, other = open_dock(viewer).state, open_clicks(viewer).state
    gate = threading.Event()
    one.jobs.go_on(open_dock(viewer))

    def wait() -> Iterator[None]:
        gate.wait(10)
        yield

    nothing: dict[str, Any] = {"on_yield": lambda _: None, "on_return": lambda _: None}
    other.jobs.run("Training clicks", wait, **nothing)
    with pytest.raises(InputError, match="'Training clicks' is still running"):
        one.jobs.run("Training", wait, **nothing)
    gate.set()
    notification_manager.notification_ready.disconnect(keep)


def test_closing_the_window_during_a_run_stops_it(make_napari_viewer: Any, qtbot: QtBot) -> None:
    from napari_ptsam._widgets.commands import open_clicks

    viewer = make_napari_viewer()
    viewer.add_image(np.zeros((3, 32, 32), np.uint8))
    dock = open_clicks(viewer)
    state = dock.state
    dock.sections["click"].toggle.click()
    qtbot.waitUntil(lambda: state.canvas.taking_clicks, timeout=30_000)
    closed = threading.Event()

    def run() -> Iterator[None]:
        try:
            while True:
                yield
        finally:
            closed.set()

    state.jobs.go_on(dock)
    del dock
    state.jobs.run("Training", run, on_yield=lambda _: None, on_return=lambda _: None)
    viewer.close()
    qtbot.waitUntil(closed.is_set, timeout=10_000)
