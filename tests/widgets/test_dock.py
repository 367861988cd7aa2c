"""The dock in napari's window: opened at its steps, closed during a run, dropped files."""

from __future__ import annotations

import gc
import os
import subprocess
import sys
import time
import weakref
from collections.abc import Callable, Generator, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import numpy as np
import pytest
from clickable import BrightRegions
from napari.viewer import Viewer
from numpy.typing import NDArray
from pytestqt.qtbot import QtBot
from qtpy.compat import isalive
from qtpy.QtCore import QPoint, Qt
from qtpy.QtWidgets import QScrollArea, QToolButton, QWidget

from napari_ptsam._widgets import commands, reader
from napari_ptsam._widgets.clicks_state import ClickerEntry
from napari_ptsam._widgets.commands import open_clicks, open_dock
from napari_ptsam._widgets.dock import PtsamDock, StepsDock
from napari_ptsam._widgets.keys import KEYS
from napari_ptsam._widgets.state import PluginState

if TYPE_CHECKING:
    from napari_ptsam.backbones import Backbone


class Big:
    """Stands for a tensor."""


def start_run(state: PluginState, told: list[str]) -> weakref.ref[Big]:
    """Start a run that holds something big until it is closed, and tells both."""
    big = Big()

    def run(held: Big) -> Generator[int, None, None]:
        try:
            told.append("begun")
            while True:
                yield 1
                time.sleep(0.005)
        finally:
            told.append("closed")

    runs = [run(big)]
    state.jobs.run("Training", runs.pop, on_yield=lambda _: None, on_return=lambda _: None)
    return weakref.ref(big)


def test_the_dock_opens_once_and_at_the_step_that_is_asked_for(viewer: Viewer) -> None:
    dock = open_dock(viewer, "annotate")
    assert not dock.sections["annotate"].isHidden()
    assert open_dock(viewer) is dock
    assert PluginState.of(viewer) is dock.state
    for name, section in dock.sections.items():
        open_dock(viewer, name)
        assert not section.isHidden()


def test_work_begins_when_all_steps_are_made(viewer: Viewer, qtbot: QtBot) -> None:
    dock = open_dock(viewer, "train")
    made: list[bool] = []

    def run() -> Generator[int, None, None]:
        made.extend(step.made for step in dock._steps.values())
        yield 1

    jobs = dock.state.jobs
    with qtbot.waitSignal(jobs.finished, timeout=10_000):
        jobs.run("Training", run, on_yield=lambda _: None, on_return=lambda _: None)
    assert made == [True] * 4


def test_headings_open_and_close_their_step_with_the_keyboard(viewer: Viewer, qtbot: QtBot) -> None:
    dock = open_dock(viewer)
    heading = next(b for b in dock.findChildren(QToolButton) if "Annotate" in b.text())
    assert heading.focusPolicy() & Qt.FocusPolicy.TabFocus
    qtbot.keyClick(heading, Qt.Key.Key_Space)
    assert dock.sections["annotate"].isHidden()
    qtbot.keyClick(heading, Qt.Key.Key_Space)
    assert not dock.sections["annotate"].isHidden()


@pytest.mark.parametrize(
    ("entry", "section"),
    [
        (commands.Annotate, "annotate"),
        (commands.TrainSpecialist, "train"),
        (commands.Segment, "segment"),
        (commands.LoadSpecialist, "specialists"),
        (commands.ExportPromptFile, "specialists"),
    ],
)
def test_menu_entries_give_way_to_the_dock_at_their_step(
    viewer: Viewer, qtbot: QtBot, entry: type[Any], section: str
) -> None:
    viewer.window.add_dock_widget(entry(viewer), name="entry")
    qtbot.waitUntil(lambda: PluginState.of(viewer) is not None)
    assert [type(w) for w in viewer.window.dock_widgets.values()] == [PtsamDock]
    assert not open_dock(viewer).sections[section].isHidden()


def test_closing_the_viewer_during_a_run_stops_it_and_frees_its_memory(
    make_napari_viewer: Any, discs: NDArray[np.uint8], qtbot: QtBot
) -> None:
    viewer = make_napari_viewer()
    viewer.add_image(discs)
    dock = open_dock(viewer)
    dock.sections["annotate"].new_labels.click()
    told: list[str] = []
    held = start_run(dock.state, told)
    qtbot.waitUntil(lambda: told == ["begun"])
    del dock
    viewer.close()
    qtbot.waitUntil(lambda: told == ["begun", "closed"], timeout=3000)
    qtbot.wait(50)
    gc.collect()
    assert held() is None


def close_with_its_button(dock: StepsDock, qtbot: QtBot) -> None:
    """What napari does when the X in the title bar of a dock is clicked."""
    dock.parentWidget().destroyOnClose()
    qtbot.waitUntil(lambda: not isalive(dock))


@pytest.mark.parametrize("opened", [open_dock, open_clicks])
def test_the_x_of_the_dock_stops_what_runs_and_a_new_dock_works(
    viewer: Viewer, discs: NDArray[np.uint8], qtbot: QtBot, opened: Callable[[Viewer], StepsDock]
) -> None:
    viewer.add_image(discs)
    dock = opened(viewer)
    kind = type(dock)
    told: list[str] = []
    held = start_run(dock.state, told)
    qtbot.waitUntil(lambda: told == ["begun"], timeout=30_000)
    close_with_its_button(dock, qtbot)
    qtbot.waitUntil(lambda: told == ["begun", "closed"], timeout=10_000)
    old = weakref.ref(dock.state)
    del dock
    qtbot.wait(50)
    gc.collect()
    assert held() is None
    assert old() is None
    # Events of the viewer must reach nobody who is gone.
    viewer.add_labels(np.zeros((6, 64, 64), int))
    viewer.dims.set_point(0, 3)
    viewer.layers.clear()
    again = opened(viewer)
    assert isinstance(again, kind)
    assert again.state.jobs.running is None


def test_keys_of_a_dock_that_was_closed_and_opened_again_press_its_buttons(
    viewer: Viewer, discs: NDArray[np.uint8], qtbot: QtBot
) -> None:
    before = set(viewer.keymap)
    viewer.add_image(discs)
    close_with_its_button(open_dock(viewer), qtbot)
    assert set(viewer.keymap) == before
    dock = open_dock(viewer)
    dock.sections["annotate"].new_labels.click()
    keys = {str(key): action for key, action in viewer.keymap.items()}
    keys["Shift+N"](viewer)
    assert viewer.dims.current_step[0] == 3
    keys["Shift+E"](viewer)
    assert dock.state.annotations.declared_empty() == [3]
    keys["Shift+G"](viewer)


def test_paint_that_is_not_saved_yet_is_saved_as_the_dock_is_closed(
    viewer: Viewer, discs: NDArray[np.uint8], tmp_path: Path, qtbot: QtBot
) -> None:
    viewer.add_image(discs)
    dock = open_dock(viewer)
    annotate = dock.sections["annotate"]
    annotate.new_labels.click()
    qtbot.waitUntil(lambda: annotate.kept.autosave.recognised, timeout=30_000)
    labels = dock.state.annotations.labels
    labels.data_setitem((np.array([2]), np.array([5]), np.array([5])), 1)
    close_with_its_button(dock, qtbot)
    assert len(list((tmp_path / "annotations").rglob("plane-000002.tif"))) == 1


def test_the_x_of_the_click_dock_leaves_nothing_in_the_viewer(
    viewer: Viewer, discs: NDArray[np.uint8], qtbot: QtBot
) -> None:
    image = viewer.add_image(discs)
    callbacks = list(viewer.mouse_move_callbacks)
    dock = open_clicks(viewer)
    dock.state.chosen = ClickerEntry("bright", cast(Any, BrightRegions()))
    dock.sections["click"].toggle.click()
    qtbot.waitUntil(lambda: dock.state.canvas.taking_clicks, timeout=30_000)
    close_with_its_button(dock, qtbot)
    assert list(viewer.layers) == [image]
    assert list(viewer.mouse_move_callbacks) == callbacks


@pytest.mark.parametrize("opened", [open_dock, open_clicks])
def test_a_dock_that_is_moved_floated_tabbed_or_hidden_stays(
    viewer: Viewer, qtbot: QtBot, opened: Callable[[Viewer], StepsDock]
) -> None:
    dock = opened(viewer)
    told: list[str] = []
    start_run(dock.state, told)
    qtbot.waitUntil(lambda: told == ["begun"], timeout=30_000)
    frame, window = dock.parentWidget(), viewer.window._qt_window
    frame.setFloating(True)
    qtbot.wait(50)
    frame.setFloating(False)
    window.addDockWidget(Qt.DockWidgetArea.LeftDockWidgetArea, frame)
    other = viewer.window.add_dock_widget(QWidget(), name="other", area="left")
    window.tabifyDockWidget(other, frame)
    frame.close()
    frame.show()
    qtbot.wait(50)
    assert isalive(dock)
    assert dock.state.jobs.running == "Training"
    assert told == ["begun"]


def test_keys_press_their_buttons_and_go_with_the_dock(
    viewer: Viewer, discs: NDArray[np.uint8], qtbot: QtBot
) -> None:
    before = set(viewer.keymap)
    viewer.add_image(discs)
    dock = open_dock(viewer)
    assert len(set(viewer.keymap) - before) == len(KEYS)
    dock.sections["annotate"].new_labels.click()
    next_plane = next(k for k in viewer.keymap if str(k) == "Shift+N")
    viewer.keymap[next_plane](viewer)
    assert viewer.dims.current_step[0] == 3
    dock.state.close()
    assert set(viewer.keymap) == before


def test_keys_collide_with_none_of_naparis() -> None:
    from napari.utils.key_bindings import coerce_keybinding
    from napari.utils.shortcuts import default_shortcuts

    taken = {str(key) for keys in default_shortcuts.values() for key in keys}
    ours = {str(coerce_keybinding(key)) for key in KEYS}
    assert len(ours) == len(KEYS)
    assert not ours & taken


def test_a_dropped_prompt_file_loads_the_specialist(
    viewer: Viewer,
    discs: NDArray[np.uint8],
    tiny_backbone_loaded: Backbone,
    tmp_path: Path,
    qtbot: QtBot,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    from napari_ptsam import specialist

    trained = specialist.Specialist.train(
        discs, (discs > 100).astype(int), backbone=tiny_backbone_loaded, steps=2, preset="quick"
    )
    path = trained.save(tmp_path / "nuclei.ptsam.safetensors")
    # Its backbone is known in this window, though not by name.
    open_dock(viewer).state.add_specialist(trained, "first")
    monkeypatch.setattr("napari.current_viewer", lambda: viewer)
    assert reader.get_reader(str(tmp_path / "other.safetensors")) is None
    read = reader.get_reader([str(path)])
    assert read is not None
    assert read([str(path)]) == reader.NO_LAYERS
    state = PluginState.of(viewer)
    assert state is not None
    qtbot.waitUntil(lambda: state.current is not None and state.current.name == "nuclei")
    assert state.current.path == path
    expected = trained.predict(discs[0]).probability
    assert (state.current.specialist.predict(discs[0]).probability == expected).all()


def test_the_dock_fits_into_300_pixels(viewer: Viewer, qtbot: QtBot) -> None:
    viewer.add_image(
        np.zeros((4, 3, 64, 64)), name="a name that is much longer than the dock is wide"
    )
    dock = open_dock(viewer)
    for name in dock.sections:
        dock.show_section(name)
    for name, section in dock.sections.items():
        assert section.minimumSizeHint().width() <= 285, name


@pytest.fixture
def menus(viewer: Viewer) -> Iterator[Any]:
    """napari's commands, with those of the manifest."""
    from napari._app_model import get_app_model
    from npe2 import PluginManager, PluginManifest

    plugins = PluginManager.instance()
    ours = "napari-ptsam" not in plugins
    if ours:
        plugins.register(PluginManifest.from_file(Path(__file__).parents[2] / "napari.yaml"))
    yield get_app_model()
    if ours:
        plugins.unregister("napari-ptsam")


@pytest.mark.parametrize(
    ("command", "section"), [("napari-ptsam.train", "train"), ("napari-ptsam.load", "specialists")]
)
def test_naparis_own_menus_open_the_dock(
    viewer: Viewer, menus: Any, qtbot: QtBot, command: str, section: str
) -> None:
    menus.commands.execute_command(command).result()
    qtbot.waitUntil(lambda: PluginState.of(viewer) is not None)
    assert [type(w) for w in viewer.window.dock_widgets.values()] == [PtsamDock]
    assert not open_dock(viewer).sections[section].isHidden()


def test_the_dock_of_the_plugins_menu_is_the_one_that_commands_open(
    viewer: Viewer, menus: Any
) -> None:
    menus.commands.execute_command("napari-ptsam.dock").result()
    (dock,) = viewer.window.dock_widgets.values()
    assert open_dock(viewer) is dock
    assert list(viewer.window.dock_widgets) == [commands.DOCK_NAME]


def test_the_sample_of_the_menu_is_opened_with_its_labels(viewer: Viewer, menus: Any) -> None:
    viewer.open_sample("napari-ptsam", "procedural_stack")
    assert [type(layer).__name__ for layer in viewer.layers] == ["Image", "Labels"]


@pytest.mark.parametrize("title", ["Train", "Segment"])
def test_a_step_opened_from_the_menu_has_its_heading_at_the_top(
    viewer: Viewer, qtbot: QtBot, title: str
) -> None:
    dock = open_dock(viewer)
    dock.setFixedSize(300, 200)
    dock.parentWidget().setFloating(True)
    dock.parentWidget().show()
    dock.show_section(title.casefold())
    heading = next(b for b in dock.findChildren(QToolButton) if b.text().endswith(title))
    viewport = dock.findChild(QScrollArea).viewport()

    def at_the_top() -> None:
        assert 0 <= heading.mapTo(viewport, QPoint(0, 0)).y() < heading.height()

    qtbot.waitUntil(at_the_top)
    assert dock.sections["annotate"].isHidden()


def test_a_training_that_starts_is_scrolled_into_view(viewer: Viewer, qtbot: QtBot) -> None:
    dock = open_dock(viewer)
    dock.setFixedSize(300, 400)
    dock.parentWidget().setFloating(True)
    dock.parentWidget().show()
    train = dock.sections["train"]
    heading = next(b for b in dock.findChildren(QToolButton) if b.text().endswith("Train"))
    heading.click()
    viewport = dock.findChild(QScrollArea).viewport()
    qtbot.wait(50)
    train.run.begin(lambda: None)
    dock.state.jobs.started.emit("Training")

    def in_view() -> None:
        stop = train.run.stop
        assert 0 < stop.mapTo(viewport, QPoint(0, stop.height())).y() <= viewport.height()

    qtbot.waitUntil(in_view)


LEAVE = """
import sys
import napari
from qtpy.QtWidgets import QApplication
from napari_ptsam._widgets.commands import open_clicks, open_dock

viewer = napari.Viewer(show=False)
viewer.open_sample("napari-ptsam", "procedural_stack")
open_dock(viewer)
clicks = open_clicks(viewer)
clicks.sections["click"].toggle.click()
while not clicks.state.canvas.taking_clicks:
    QApplication.processEvents()
if sys.argv[1] == "close":
    viewer.close()
"""


@pytest.mark.skipif(
    os.environ.get("QT_QPA_PLATFORM") == "offscreen", reason="napari's window needs a screen"
)
@pytest.mark.parametrize("how", ["close", "end"])
def test_napari_ends_without_a_word_of_the_plugin(how: str) -> None:
    done = subprocess.run(
        [sys.executable, "-c", LEAVE, how], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0
    assert "napari_ptsam" not in done.stderr, done.stderr
