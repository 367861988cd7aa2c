"""The Train step: one button, a live curve and preview, stop, pause, train again, history."""

from __future__ import annotations

import gc
import threading
import weakref
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from napari.utils.notifications import notification_manager

from napari_ptsam import specialist as specialist_module
from napari_ptsam._widgets import training
from napari_ptsam._widgets.curve import Curve
from napari_ptsam._widgets.preview import COST, PlaneInView, PreviewedPlane, PreviewLayer, Previews
from napari_ptsam._widgets.runpanel import _Clock
from napari_ptsam._widgets.state import PluginState
from napari_ptsam._widgets.train import TrainSection, expected_text, result_text
from napari_ptsam._widgets.trainform import list_choices
from napari_ptsam._widgets.training import Engine, Expected, Request, run_training
from napari_ptsam._widgets.words import duration, planes, size
from napari_ptsam.backbones import Backbone
from napari_ptsam.errors import InputError, OutOfMemoryError
from napari_ptsam.estimates import Estimate
from napari_ptsam.planes import open_planes
from napari_ptsam.promptfile import read_prompt_metadata
from napari_ptsam.specialist import Specialist
from napari_ptsam.training import loop

STEPS = 8


@pytest.fixture(autouse=True)
def short(monkeypatch: pytest.MonkeyPatch) -> None:
    """A few steps in place of a preset's."""
    plan = specialist_module.training_plan

    def few(*args: Any, **options: Any) -> Any:
        return replace(plan(*args, **options), steps=STEPS, evaluate_every=4)

    monkeypatch.setattr(specialist_module, "training_plan", few)


@pytest.fixture
def state(viewer: Any, discs: np.ndarray) -> Iterator[PluginState]:
    """Six planes, the first four annotated."""
    image = viewer.add_image(discs, name="cells")
    masks = (discs > 100).astype(np.uint8)
    masks[4:] = 0
    labels = viewer.add_labels(masks, name="paint")
    state = PluginState(viewer)
    state.annotations.image = image
    state.annotations.labels = labels
    viewer.dims.set_point(0, 5)
    yield state
    state.close()


@pytest.fixture
def section(state: PluginState, tiny_backbone: Path, qtbot: Any) -> TrainSection:
    qtbot.waitUntil(lambda: state.annotations.annotated() == [0, 1, 2, 3], timeout=10_000)
    section = TrainSection(state)
    qtbot.addWidget(section)
    section.form.add_file(tiny_backbone)
    return section


@pytest.fixture
def finish(section: TrainSection, qtbot: Any) -> Callable[[], None]:
    def wait() -> None:
        qtbot.waitUntil(lambda: section._state.jobs.running is None, timeout=60_000)

    return wait


@pytest.fixture
def gate(monkeypatch: pytest.MonkeyPatch) -> Iterator[SimpleNamespace]:
    """Lets the training take steps one at a time: it waits at each until `go` is called."""
    step, tickets = loop._Run._step, threading.Semaphore(0)
    gate = SimpleNamespace(go=tickets.release, taken=0, open=False)

    def waiting(self: Any, *args: Any) -> float:
        if not gate.open:
            assert tickets.acquire(timeout=60)
        loss = step(self, *args)
        gate.taken += 1
        return loss

    def release() -> None:
        gate.open = True
        tickets.release(1000)

    gate.release = release
    monkeypatch.setattr(loop._Run, "_step", waiting)
    monkeypatch.setattr(training, "SHOWN_EVERY", 0.0)
    yield gate
    release()


def learning(section: TrainSection) -> bool:
    """Whether the window was told of a step."""
    return section.run.curve is not None and bool(section.run.curve.losses[0])


# The whole way.


def test_one_button_trains_a_specialist_and_says_what_to_expect(
    section: TrainSection, finish: Callable[[], None], state: PluginState
) -> None:
    section.form.class_name.setText("disc")
    assert section.train.isEnabled()
    assert section.again.isHidden()
    section.train.click()
    assert state.jobs.running == "Training"
    assert not section.train.isEnabled()
    assert not section.form.isEnabled()
    finish()
    (entry,) = state.specialists
    assert state.current is entry
    assert (entry.name, entry.specialist.metadata.class_name) == ("disc 1", "disc")
    record = entry.specialist.metadata.training
    assert record["images"] == 4
    assert f"<b>Dice {record['held_out_dice']:.2f}</b> on 1 plane" in section.result.text()
    assert section.train.isEnabled()
    assert not section.again.isHidden()
    assert section.run.curve is not None
    assert section.run.curve.losses[0] == list(range(1, STEPS + 1))
    assert section.run.curve.dice[0] == [4, 8]


def test_the_result_equals_that_of_the_library(
    section: TrainSection,
    finish: Callable[[], None],
    state: PluginState,
    discs: np.ndarray,
    tiny_backbone: Path,
) -> None:
    section.form.settings.seed.value = 3
    section.train.click()
    finish()
    masks = (discs > 100).astype(np.uint8)
    masks[4:] = 0
    plain = Specialist.train(discs, masks, backbone=tiny_backbone, preset="quick", seed=3)
    for name, tensor in plain.method.tensors().items():
        assert (state.current.specialist.method.tensors()[name] == tensor).all()


def test_what_cannot_be_done_yet_says_why(
    viewer: Any, discs: np.ndarray, qtbot: Any, state: PluginState
) -> None:
    state.annotations.labels = viewer.add_labels(np.zeros_like(discs))
    section = TrainSection(state)
    qtbot.addWidget(section)
    qtbot.waitUntil(lambda: "Paint the object" in section.why.text(), timeout=10_000)
    assert not section.train.isEnabled()
    assert not section.why.isHidden()
    state.annotations.image = None
    assert "Open an image" in section.why.text()


def test_while_something_else_runs_the_button_waits(
    section: TrainSection, finish: Callable[[], None], state: PluginState
) -> None:
    done = threading.Event()

    def other() -> Any:
        yield 1
        done.wait(30)

    state.jobs.run("Segmenting", other, on_yield=lambda _: None, on_return=lambda _: None)
    assert not section.train.isEnabled()
    assert section.why.text() == "Wait until 'Segmenting' is done."
    notified = len(notification_manager.records)
    section.start()
    assert "'Segmenting' is still running" in notification_manager.records[notified].message
    done.set()
    finish()
    assert section.train.isEnabled()


# The preview.


def test_the_preview_shows_the_plane_in_view_and_follows_to_another(
    section: TrainSection,
    finish: Callable[[], None],
    state: PluginState,
    gate: SimpleNamespace,
    qtbot: Any,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("napari_ptsam._widgets.preview.SHORTEST", 0.0)
    monkeypatch.setattr("napari_ptsam._widgets.preview.COST", 1.0)
    viewer = state.viewer
    active = viewer.layers.selection.active
    shown: list[int] = []
    show = section._preview.show
    monkeypatch.setattr(section._preview, "show", lambda p: (shown.append(p.index), show(p)))
    section.train.click()
    qtbot.waitUntil(lambda: 5 in shown, timeout=30_000)
    layer = section._preview.layer
    assert layer is viewer.layers["preview"]
    assert layer.data.shape == (6, 64, 64)
    assert layer.visible
    assert viewer.layers.selection.active is active
    viewer.dims.set_point(0, 2)
    gate.go()
    gate.go()
    gate.go()
    qtbot.waitUntil(lambda: 2 in shown, timeout=30_000)
    assert not layer.data[5].any()
    gate.release()
    finish()
    image = np.asarray(viewer.layers["cells"].data[2])
    np.testing.assert_array_equal(layer.data[2] > 0, state.current.specialist.predict(image).mask)


def test_a_preview_that_the_user_removed_does_not_come_back_in_this_training(
    section: TrainSection, finish: Callable[[], None], state: PluginState, viewer: Any
) -> None:
    preview = PreviewLayer(viewer)
    image = viewer.layers["cells"]
    mask = PreviewedPlane(1, np.ones((64, 64), bool))
    preview.begin(image)
    preview.show(mask)
    viewer.layers.remove("preview")
    preview.show(mask)
    assert "preview" not in viewer.layers
    preview.begin(image)
    preview.show(mask)
    assert viewer.layers["preview"].data[1].all()
    assert "napari-ptsam" in viewer.layers["preview"].metadata


def test_a_preview_that_never_showed_anything_goes_with_its_training(viewer: Any) -> None:
    image = viewer.add_image(np.zeros((2, 8, 8)))
    preview = PreviewLayer(viewer)
    preview.begin(image)
    preview.end()
    assert list(viewer.layers) == [image]
    preview.begin(image)
    preview.show(PreviewedPlane(0, np.ones((8, 8), bool)))
    preview.end()
    layer = viewer.layers["preview"]
    image.data = np.zeros((2, 6, 6))
    preview.begin(image)
    assert layer not in viewer.layers
    assert viewer.layers["preview"].data.shape == (2, 6, 6)


def test_an_image_removed_or_reshaped_during_a_training_ends_the_preview_alone(
    section: TrainSection,
    finish: Callable[[], None],
    state: PluginState,
    gate: SimpleNamespace,
    qtbot: Any,
) -> None:
    section.train.click()
    gate.go()
    qtbot.waitUntil(lambda: gate.taken == 1, timeout=30_000)
    state.viewer.layers["cells"].data = np.zeros((6, 32, 32), np.uint8)
    gate.go()
    state.viewer.layers.remove("cells")
    gate.release()
    finish()
    assert len(state.specialists) == 1
    assert "Open an image" in section.why.text()


@pytest.mark.parametrize(("cost", "step"), [(0.01, 0.02), (0.1, 0.05), (2.0, 0.1)])
def test_previews_take_a_small_share_of_the_time(cost: float, step: float) -> None:
    now = [0.0]
    spent = [0.0]

    def look(plane: np.ndarray) -> Any:
        now[0] += cost
        spent[0] += cost
        return SimpleNamespace(mask=plane > 0)

    view = PlaneInView(0)
    looks = Previews(open_planes(np.ones((3, 8, 8))), view, clock=lambda: now[0])
    count = 0
    while now[0] < 100:
        view.index = count % 3
        count += looks.due(look) is not None
        now[0] += step
    assert count > 5
    assert spent[0] <= 1.05 * COST * now[0] + cost
    view.index = None
    assert looks.now(look) is None
    assert looks.now(None) is None


# Stop and pause.


def test_stop_keeps_the_best_so_far(
    section: TrainSection,
    finish: Callable[[], None],
    state: PluginState,
    gate: SimpleNamespace,
    qtbot: Any,
) -> None:
    section.train.click()
    gate.go()
    qtbot.waitUntil(lambda: learning(section), timeout=30_000)
    section.run.stop.click()
    assert section.run.status.text() == "Stopping ..."
    assert not section.run.stop.isEnabled()
    gate.release()
    finish()
    record = state.current.specialist.metadata.training
    assert record["stopped"]
    assert record["steps"] < STEPS
    assert section.result.text().startswith("Stopped; the best so far is kept. <b>Dice")


def test_a_stop_before_anything_was_learned_leaves_no_specialist(
    section: TrainSection, finish: Callable[[], None], state: PluginState
) -> None:
    section.train.click()
    section.run.stop.click()
    finish()
    assert state.specialists == []
    assert section.result.text() == "Stopped before anything was learned."
    assert section.train.isEnabled()


def test_a_paused_training_takes_no_steps_until_it_goes_on(
    section: TrainSection,
    finish: Callable[[], None],
    state: PluginState,
    gate: SimpleNamespace,
    qtbot: Any,
) -> None:
    section.train.click()
    gate.go()
    qtbot.waitUntil(lambda: learning(section), timeout=30_000)
    section.run.pause.click()
    assert section.run.pause.text() == "Go on"
    gate.release()
    qtbot.wait(300)
    taken = gate.taken
    qtbot.wait(300)
    assert gate.taken == taken < STEPS
    section.run.pause.click()
    assert section.run.pause.text() == "Pause"
    finish()
    assert state.current.specialist.metadata.training["steps"] in (4, STEPS)


def test_stop_also_ends_a_paused_training(
    section: TrainSection,
    finish: Callable[[], None],
    state: PluginState,
    gate: SimpleNamespace,
    qtbot: Any,
) -> None:
    section.train.click()
    gate.go()
    qtbot.waitUntil(lambda: learning(section), timeout=30_000)
    section.run.pause.click()
    section.run.stop.click()
    gate.release()
    finish()
    assert state.current.specialist.metadata.training["stopped"]


# Faults.


def test_after_an_error_the_button_works_again_and_annotations_are_intact(
    section: TrainSection,
    finish: Callable[[], None],
    state: PluginState,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    before = np.array(state.annotations.labels.data)

    def broken(self: Any, *args: Any) -> float:
        raise RuntimeError("the cable was pulled")

    notified = len(notification_manager.records)
    with monkeypatch.context() as patch:
        patch.setattr(loop._Run, "_step", broken)
        # Shown, and not raised in the test.
        patch.setattr("napari_ptsam._widgets.jobs.show", lambda e: shown.append(str(e)))
        shown: list[str] = []
        section.train.click()
        finish()
    assert "the cable was pulled" in shown[0]
    assert len(notification_manager.records) == notified
    assert state.specialists == []
    np.testing.assert_array_equal(state.annotations.labels.data, before)
    assert section.train.isEnabled()
    section.train.click()
    finish()
    assert len(state.specialists) == 1


def test_where_memory_is_full_one_image_at_a_time_is_tried(
    state: PluginState,
    section: TrainSection,
    tiny_backbone_loaded: Backbone,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    step, sizes = loop._Run._step, []

    def small(self: Any, *args: Any) -> float:
        sizes.append(self.job.plan.batch_size)
        if self.job.plan.batch_size > 1:
            raise OutOfMemoryError("full")
        return step(self, *args)

    monkeypatch.setattr(loop._Run, "_step", small)
    monkeypatch.setattr(Engine, "backbone", lambda self, *_: tiny_backbone_loaded)
    request = Request(state.annotations.examples_input())
    run = run_training(request, Engine(), PlaneInView(), threading.Event())
    notes = [progress.note for progress in run if progress.note]
    assert notes == ["The memory was full: trying with one image at a time."]
    assert sizes == [2] + [1] * STEPS
    monkeypatch.setattr(loop._Run, "_step", lambda self, *_: _raise(OutOfMemoryError("full")))
    with pytest.raises(OutOfMemoryError):
        list(run_training(request, Engine(), PlaneInView(), threading.Event()))


def _raise(error: Exception) -> float:
    raise error


def test_the_window_may_close_during_a_training(
    section: TrainSection, state: PluginState, gate: SimpleNamespace, qtbot: Any
) -> None:
    section.train.click()
    gate.go()
    qtbot.waitUntil(lambda: learning(section), timeout=30_000)
    state.close()
    gate.release()
    qtbot.waitUntil(lambda: bool(state.shelf.earlier()), timeout=30_000)
    assert state.specialists == []
    (kept,) = state.shelf.earlier()
    record = read_prompt_metadata(kept.path).training
    assert record["stopped"]
    assert record["steps"] < STEPS


def test_a_paused_training_ends_when_the_window_closes(
    section: TrainSection, state: PluginState, gate: SimpleNamespace, qtbot: Any
) -> None:
    section.train.click()
    gate.go()
    qtbot.waitUntil(lambda: learning(section), timeout=30_000)
    section.run.pause.click()
    state.close()
    gate.release()
    qtbot.waitUntil(lambda: bool(state.shelf.earlier()), timeout=30_000)


def test_what_was_trained_is_put_aside_until_it_is_exported(
    section: TrainSection, finish: Callable[[], None], state: PluginState
) -> None:
    section.form.class_name.setText("disc")
    section.train.click()
    finish()
    entry = state.current
    (kept,) = state.shelf.earlier()
    assert entry.kept == kept.path
    # Nobody has exported it.
    assert (entry.saved, entry.path, entry.specialist.path) == (False, None, None)
    assert kept.name == "disc"
    dice = entry.specialist.metadata.training["held_out_dice"]
    assert kept.title.endswith(f", Dice {dice:.2f}")
    again = Specialist.load(kept.path, backbone=entry.specialist.backbone)
    for name, tensor in again.method.tensors().items():
        assert (entry.specialist.method.tensors()[name] == tensor).all()


def test_a_training_is_not_lost_where_it_cannot_be_put_aside(
    section: TrainSection, finish: Callable[[], None], state: PluginState
) -> None:
    state.shelf.folder.parent.mkdir(parents=True)
    state.shelf.folder.write_text("a file in the place of the folder")
    section.train.click()
    finish()
    assert state.current is not None
    assert state.current.kept is None


def test_what_was_kept_is_given_back_when_the_dock_closes(
    tiny_backbone: Path, discs: np.ndarray
) -> None:
    engine = Engine()
    request = Request(
        {"images": open_planes(discs), "masks": open_planes(discs > 100), "planes": [0, 1, 2]},
        backbone=str(tiny_backbone),
    )
    for _ in run_training(request, engine, PlaneInView(0), threading.Event()):
        pass
    assert len(engine.embeddings) > 0
    backbone = weakref.ref(engine.backbone(str(tiny_backbone), "auto"))
    engine.clear()
    gc.collect()
    assert backbone() is None
    assert len(engine.embeddings) == 0


# Again.


def test_what_a_training_encoded_another_window_finds_on_disk(
    tiny_backbone: Path, discs: np.ndarray, monkeypatch: pytest.MonkeyPatch
) -> None:
    # A tiny encoder is as fast as a disk.
    monkeypatch.setattr("napari_ptsam.embeddings._Costs.too_high", property(lambda _: False))
    request = Request(
        {"images": open_planes(discs), "masks": open_planes(discs > 100), "planes": [0, 1, 2]},
        backbone=str(tiny_backbone),
    )
    encoded = []
    for engine in (Engine(), Engine()):
        for _ in run_training(request, engine, PlaneInView(), threading.Event()):
            pass
        encoded.append(engine.embeddings.encoded)
    assert encoded[0] > encoded[1] == 0


def test_training_again_goes_on_from_the_specialist_in_use_and_encodes_new_planes_alone(
    section: TrainSection,
    finish: Callable[[], None],
    state: PluginState,
    qtbot: Any,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    section.train.click()
    finish()
    first = state.current.specialist
    state.annotations.labels.data[4, 30:40, 30:40] = 1
    state.annotations.look([4])
    qtbot.waitUntil(lambda: state.annotations.annotated() == [0, 1, 2, 3, 4], timeout=10_000)
    encode, encoded = Backbone.encode, []

    def counted(self: Backbone, images: Any, prompts: Any = None) -> Any:
        encoded.extend(range(len(images)))
        return encode(self, images, prompts)

    monkeypatch.setattr(Backbone, "encode", counted)
    # It has a model of its own, whatever is chosen in the form.
    section.form.backbone.setCurrentIndex(0)
    section.again.click()
    finish()
    again = state.current.specialist
    assert (
        again.metadata.training["started_from"]["data_hash"]
        == (first.metadata.training["data_hash"])
    )
    assert again.metadata.training["images"] == 5
    # The new plane is held out, or its four views are; one that was held out joins at most.
    assert 0 < len(encoded) <= 10
    assert [entry.name for entry in state.specialists] == ["object 1", "object 2"]


def test_a_click_in_the_history_goes_back_to_a_specialist(
    section: TrainSection, finish: Callable[[], None], state: PluginState
) -> None:
    assert section.history.isHidden()
    for _ in range(2):
        section.train.click()
        finish()
    table, (first, second) = section.history, state.specialists
    assert table.entries == [second, first]
    assert table.rowCount() == 2
    record = first.specialist.metadata.training
    texts = [table.item(1, column).text() for column in range(table.columnCount())]
    assert texts[0] == "object 1"
    assert texts[2] == f"{record['held_out_dice']:.2f}"
    assert texts[3] == str(record["steps"])
    assert texts[5] == "fast"
    assert state.current is second
    table.cellClicked.emit(1, 0)
    assert state.current is first
    assert {index.row() for index in table.selectedIndexes()} == {1}


# What is told before and after.


def test_the_cost_is_told_before_the_start(
    section: TrainSection, qtbot: Any, tiny_backbone_loaded: Backbone
) -> None:
    with qtbot.waitExposed(section):
        section.show()
    qtbot.waitUntil(lambda: section.estimate.text().startswith("Takes up to"), timeout=30_000)
    assert section.form.backbone.findData("vit_b") > 0
    assert section.form.backbone.currentText() == "tiny.safetensors"
    fast = section.estimate.text()
    section.form.thorough.setChecked(True)
    qtbot.waitUntil(lambda: section.estimate.text() != fast, timeout=30_000)


def test_a_model_that_is_not_here_yet_is_downloaded_first(discs: np.ndarray) -> None:
    examples = {"images": open_planes(discs), "masks": open_planes(discs), "planes": [0]}
    expected = Engine().expected(Request(examples, backbone="vit_h"))
    assert expected.estimate is None
    assert "is downloaded first" in expected_text(expected)
    assert "(380 MB)" in expected_text(Expected(None, 375_042_383))


def test_costs_and_results_are_put_in_words() -> None:
    assert [duration(s) for s in (0.2, 7, 43, 130, 9000)] == ["1 s", "7 s", "45 s", "2 min", "2 h"]
    assert duration(43, short=True) == "43 s"
    assert [size(b) for b in (1e6, 47e6, 1.26e9)] == ["10 MB", "50 MB", "1.3 GB"]
    assert [planes(n) for n in (1, 2)] == ["1 plane", "2 planes"]
    assert expected_text(Expected(Estimate(42, 1_300_000_000), None, "cuda")) == (
        "Takes up to 40 s and 1.3 GB of memory on the graphics card."
    )
    assert "memory" not in expected_text(Expected(Estimate(42, None)))
    assert result_text({"held_out_dice": 0.874, "held_out": ["a", "b", "c"]}) == (
        "<b>Dice 0.87</b> on 3 planes of your own that were kept out: expect about that on "
        "similar planes."
    )
    assert "at least three planes" in result_text({"held_out_dice": None, "held_out": []})
    assert "new to it" in result_text({"held_out_dice": None, "started_from": {"file": None}})


def test_paused_time_does_not_count_for_the_time_left() -> None:
    now = [0.0]
    clock = _Clock(lambda: now[0])
    assert clock.left("train", 1, 11) is None
    now[0] = 10.0
    assert clock.left("train", 6, 11) == 10.0
    clock.hold(True)
    now[0] = 1000.0
    clock.hold(False)
    assert clock.left("train", 6, 11) == 10.0
    assert clock.left("refit", 1, 11) is None


def test_an_unusable_file_of_weights_is_explained(
    section: TrainSection, finish: Callable[[], None], state: PluginState, tmp_path: Path
) -> None:
    wrong = tmp_path / "holiday.pth"
    wrong.write_bytes(b"no weights")
    section.form.add_file(wrong)
    notified = len(notification_manager.records)
    section.train.click()
    finish()
    assert "holiday.pth" in notification_manager.records[notified].message
    assert section.train.isEnabled()


def test_the_mode_is_handed_on(section: TrainSection, state: PluginState) -> None:
    examples = state.annotations.examples_input()
    assert not section.form.request(examples).encoder_prompts
    section.form.thorough.setChecked(True)
    section.form.settings.length.value = "standard"
    section.form.settings.device.value = "cpu"
    request = section.form.request(examples)
    assert (request.encoder_prompts, request.preset, request.device) == (True, "standard", "cpu")
    section.form.class_name.setText("  ")
    assert section.form.request(examples).class_name == "object"


def test_other_methods_have_their_own_settings_and_estimate(
    section: TrainSection, state: PluginState
) -> None:
    form, settings = section.form, section.form.settings
    form.set_choices(list_choices())
    form.thorough.setChecked(True)
    examples = state.annotations.examples_input()
    assert form.request(examples).trained() == ("ptsam", {"encoder_prompts": 8})
    settings.method.value = "lora"
    assert form.thorough.isHidden()  # a choice of PTSAM's
    settings["method_rank"].value = 2
    settings["method_encoder"].value = True
    request = form.request(examples)
    assert not request.encoder_prompts
    assert request.trained() == ("lora", {"rank": 2, "encoder": True, "decoder": True})
    assert "Learns" in expected_text(section.engine.expected(request))
    settings.method.value = "ssam"
    assert "method_rank" not in [widget.name for widget in settings]
    assert form.request(examples).method_settings["text_encoder"] == "learned"
    settings.method.value = "autosam"
    assert form.request(examples).options()["method"] == "autosam"
    settings.method.value = "ptsam"
    assert not form.thorough.isHidden()


def test_a_specialist_of_another_method_is_trained_and_trained_again(
    section: TrainSection, state: PluginState, finish: Any
) -> None:
    section.form.set_choices(list_choices())
    section.form.settings.method.value = "autosam"
    section.train.click()
    finish()
    assert state.current.specialist.method.name == "autosam"
    section.form.settings.method.value = "ptsam"
    section.again.click()
    finish()
    assert state.current.specialist.method.name == "autosam"
    assert len(state.specialists) == 2


def test_advanced_choices_are_folded_away(section: TrainSection) -> None:
    assert section.form.more.isHidden()
    section.form.advanced.setChecked(True)
    assert not section.form.more.isHidden()


def test_the_curve_takes_the_colours_of_the_theme(viewer: Any, qtbot: Any) -> None:
    curve = Curve(viewer)
    qtbot.addWidget(curve)
    dark = curve.backgroundBrush().color().lightness()
    viewer.theme = "light"
    assert curve.backgroundBrush().color().lightness() > dark + 100
    curve.add(((1, 0.9), (2, float("nan"))), ((2, 0.5),))
    curve.add(((5, 0.3), (6, 0.2)), ())
    curve.add(((3, 0.5), (4, 0.4)), ())
    assert curve.losses[0] == [1, 2, 3, 4, 5, 6]
    assert curve.losses[1][2:] == [0.5, 0.4, 0.3, 0.2]
    curve.clear_points()
    assert curve.losses == ([], [])
    curve.release()
    viewer.theme = "dark"
    assert curve.backgroundBrush().color().lightness() > dark + 100


def test_an_estimate_that_cannot_be_made_says_so(
    section: TrainSection, qtbot: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refused(self: Engine, request: Request) -> Any:
        raise InputError("the model is on a disk that is not there")

    monkeypatch.setattr(Engine, "expected", refused)
    with qtbot.waitExposed(section):
        section.show()
    qtbot.waitUntil(lambda: "a disk that is not there" in section.estimate.text(), timeout=30_000)
    assert section.train.isEnabled()
