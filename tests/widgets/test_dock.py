"""The dock in napari's window: opened at its steps, closed during a run, dropped files."""

from __future__ import annotations

import gc
import os
import subprocess
import sys
import time
import weakref
from collections.abc import Generator, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from napari.viewer import Viewer
from numpy.typing import NDArray
from pytestqt.qtbot import QtBot
from qtpy.QtCore import QPoint, Qt
from qtpy.QtWidgets import QScrollArea, QToolButton

from napari_ptsam._widgets import commands, reader
from napari_ptsam._widgets.commands import open_dock
from napari_ptsam._widgets.dock import PtsamDock
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


def test_removing_the_dock_during_a_run_stops_it_and_a_new_dock_works(
    viewer: Viewer, discs: NDArray[np.uint8], qtbot: QtBot
) -> None:
    viewer.add_image(discs)
    dock = open_dock(viewer)
    told: list[str] = []
    held = start_run(dock.state, told)
    qtbot.waitUntil(lambda: told == ["begun"])
    viewer.window.remove_dock_widget(dock)
    dock.deleteLater()
    del dock
    qtbot.waitUntil(lambda: told == ["begun", "closed"], timeout=3000)
    qtbot.wait(50)
    gc.collect()
    assert held() is None
    # Events of the viewer must reach nobody who is gone.
    viewer.add_labels(np.zeros((6, 64, 64), int))
    viewer.dims.set_point(0, 3)
    viewer.layers.clear()
    assert open_dock(viewer).state.jobs.running is None


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
from napari_ptsam._widgets.dock import PtsamDock

viewer = napari.Viewer(show=False)
viewer.open_sample("napari-ptsam", "procedural_stack")
viewer.window.add_dock_widget(PtsamDock(viewer))
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
