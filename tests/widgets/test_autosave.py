"""Annotations keep themselves, and are offered when the image is opened again."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tifffile
from napari.components import ViewerModel
from numpy.typing import NDArray
from pytestqt.qtbot import QtBot

from napari_ptsam._widgets import autosave
from napari_ptsam._widgets.annotate import AnnotateSection
from napari_ptsam._widgets.autosave import (
    DELAY_MS,
    annotations_folder,
    find_kept,
    fingerprint,
)
from napari_ptsam._widgets.state import PluginState
from napari_ptsam.planes import open_planes


class Window:
    """A viewer with the Annotate step, as a process would have it."""

    def __init__(self, qtbot: QtBot, image: NDArray[Any], name: str = "discs") -> None:
        self.viewer = ViewerModel()
        self.state = PluginState(self.viewer)
        self.section = AnnotateSection(self.state)
        qtbot.addWidget(self.section)
        self.image = self.viewer.add_image(image, name=name)
        self.annotations = self.state.annotations
        qtbot.waitUntil(lambda: self.section.autosave._place is not None)

    def paint(self, plane: int) -> None:
        if self.annotations.labels is None:
            self.section.new_labels.click()
        self.annotations.labels.paint((plane, 30, 30), 1)


@pytest.fixture
def windows(qtbot: QtBot, discs: NDArray[np.uint8]) -> Iterator[Any]:
    opened: list[Window] = []

    def open_window(image: NDArray[Any] = discs, name: str = "discs") -> Window:
        opened.append(Window(qtbot, image, name))
        return opened[-1]

    yield open_window
    for window in opened:
        window.state.close()


def save_now(window: Window, qtbot: QtBot) -> None:
    window.section.autosave.timer.stop()
    signal = window.section.autosave.saved
    done: list[int] = []
    signal.connect(done.append)
    window.section.autosave.save()
    qtbot.waitUntil(lambda: bool(done))
    signal.disconnect(done.append)


def test_a_change_is_saved_within_a_minute(windows: Any, qtbot: QtBot) -> None:
    window = windows()
    timer = window.section.autosave.timer
    assert not timer.isActive()
    window.paint(2)
    assert timer.isActive()
    assert timer.isSingleShot()
    assert timer.interval() == DELAY_MS <= 60_000
    timer.setInterval(10)
    timer.start()
    qtbot.waitUntil(lambda: bool(list(annotations_folder().glob("*/*/annotations.json"))))


def test_what_was_kept_is_offered_and_comes_back_whole(windows: Any, qtbot: QtBot) -> None:
    first = windows()
    first.paint(2)
    first.annotations.declare_empty(4)
    first.annotations.new_areas().add_rectangles(
        np.array([[2, 10, 10], [2, 10, 50], [2, 50, 50], [2, 50, 10]])
    )
    painted = first.annotations.labels.data.copy()
    save_now(first, qtbot)

    second = windows()
    qtbot.waitUntil(lambda: not second.section.offer.isHidden())
    assert "2 planes" in second.section.offer.text.text()
    second.section.offer.restore.click()
    qtbot.waitUntil(lambda: second.annotations.annotated() == [2, 4])
    assert (second.annotations.labels.data == painted).all()
    assert second.annotations.declared_empty() == [4]
    assert second.annotations.boxes() == first.annotations.boxes()


@pytest.mark.parametrize("change", ["name", "shape", "pixels"])
def test_nothing_is_offered_for_another_image(
    windows: Any, qtbot: QtBot, discs: NDArray[np.uint8], change: str
) -> None:
    first = windows()
    first.paint(2)
    save_now(first, qtbot)
    other = {"name": discs, "shape": discs[:5], "pixels": 255 - discs}[change]
    second = windows(other, "else" if change == "name" else "discs")
    qtbot.wait(50)
    assert second.section.offer.isHidden()


def test_closing_the_window_saves_what_was_painted_last(windows: Any, qtbot: QtBot) -> None:
    window = windows()
    window.paint(3)
    window.state.close()
    (folder,) = annotations_folder().iterdir()
    kept = find_kept(folder)
    assert kept is not None
    assert kept.planes == (3,)
    assert kept.read(3).any()


def test_declining_and_painting_anew_keeps_the_old_annotations(windows: Any, qtbot: QtBot) -> None:
    first = windows()
    first.paint(2)
    save_now(first, qtbot)
    second = windows()
    qtbot.waitUntil(lambda: not second.section.offer.isHidden())
    second.section.offer.dismiss.click()
    second.paint(5)
    save_now(second, qtbot)
    runs = sorted(annotations_folder().glob("*/*/annotations.json"))
    assert [json.loads(path.read_text())["planes"] for path in runs] == [[2], [5]]


def test_only_planes_that_changed_are_written_again(
    windows: Any, qtbot: QtBot, monkeypatch: pytest.MonkeyPatch
) -> None:
    window = windows()
    window.paint(1)
    window.paint(2)
    save_now(window, qtbot)
    written: list[str] = []
    write = tifffile.imwrite

    def spy(path: Path, *args: Any, **kwargs: Any) -> None:
        written.append(path.name)
        write(path, *args, **kwargs)

    monkeypatch.setattr(autosave.tifffile, "imwrite", spy)
    window.annotations.labels.paint((2, 5, 5), 1)
    save_now(window, qtbot)
    assert written == [".plane-000002.tif.partial"]


@pytest.mark.parametrize(
    "fault", [OSError(28, "No space left on device"), OSError(30, "Read-only")]
)
def test_a_full_or_read_only_disk_is_told_and_the_old_file_stays(
    windows: Any, qtbot: QtBot, monkeypatch: pytest.MonkeyPatch, fault: OSError
) -> None:
    window = windows()
    window.paint(1)
    save_now(window, qtbot)

    def fail(path: Path, *args: Any, **kwargs: Any) -> None:
        path.write_bytes(b"half")
        raise fault

    with monkeypatch.context() as patch:
        patch.setattr(autosave.tifffile, "imwrite", fail)
        window.annotations.labels.paint((1, 5, 5), 1)
        window.section.autosave.save()
        qtbot.waitUntil(lambda: "could not be saved" in window.section.status.text())
    assert fault.strerror in window.section.status.text()
    assert window.annotations.annotated() == [1]
    (folder,) = annotations_folder().iterdir()
    kept = find_kept(folder)
    assert kept is not None
    assert kept.read(1).any()
    save_now(window, qtbot)
    assert kept.read(1)[5, 5] == 1


def test_a_damaged_record_gives_way_to_an_older_one(windows: Any, qtbot: QtBot) -> None:
    for plane in (1, 2):
        window = windows()
        window.paint(plane)
        save_now(window, qtbot)
    newest = max(annotations_folder().glob("*/*/annotations.json"))
    newest.write_text('{"version": 1, "planes"')
    kept = find_kept(newest.parents[1])
    assert kept is not None
    assert kept.planes == (1,)


def test_the_fingerprint_reads_three_planes_of_a_large_stack() -> None:
    import dask.array as da

    read: list[int] = []

    def block(block_info: Any = None) -> Any:
        read.append(block_info[None]["chunk-location"][0])
        return np.zeros((1, 200, 200), np.uint8)

    lazy = da.map_blocks(block, chunks=((1,) * 90, (200,), (200,)), dtype=np.uint8)
    read.clear()
    fingerprint("stack", open_planes(lazy))
    assert read == [0, 45, 89]
