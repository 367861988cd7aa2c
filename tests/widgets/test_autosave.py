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
from napari.layers import Image, Labels
from numpy.typing import NDArray
from pytestqt.qtbot import QtBot

from napari_ptsam._widgets import keeping
from napari_ptsam._widgets.annotate import AnnotateSection
from napari_ptsam._widgets.autosave import DELAY_MS
from napari_ptsam._widgets.keeping import annotations_folder, find_kept, fingerprint
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
        qtbot.waitUntil(lambda: self.section.kept.autosave.recognised)

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
    autosave, signal = window.section.kept.autosave, window.section.kept.autosave.saved
    # Else it waits for more.
    qtbot.waitUntil(lambda: not window.annotations.searching and not autosave._busy)
    done: list[int] = []
    signal.connect(done.append)
    autosave.save()
    qtbot.waitUntil(lambda: bool(done))
    signal.disconnect(done.append)


def restart(windows: Any, qtbot: QtBot) -> Window:
    """Another process that opens the image, where something is offered."""
    window: Window = windows()
    qtbot.waitUntil(lambda: not window.section.kept.offer.isHidden())
    return window


def restore(window: Window, qtbot: QtBot, number: int = 0) -> Labels:
    """Bring back one of what is offered."""
    window.section.status.clear()
    window.section.kept.offer.which.setCurrentIndex(number)
    window.section.kept.offer.restore.click()
    qtbot.waitUntil(lambda: "restored" in window.section.status.text())
    labels = window.annotations.labels
    assert labels is not None
    return labels


def choose(window: Window, qtbot: QtBot, image: Image) -> None:
    """Take another image, as the user does, and wait until it is recognised."""
    window.section.image.chosen.emit(image)
    qtbot.waitUntil(lambda: window.section.kept.autosave.recognised)


def kept_of(image: str) -> dict[str, keeping.Kept]:
    """What is kept of an image, by the names of the labels layers."""
    runs = annotations_folder().glob("*/*/annotations.json")
    of_image = {
        run.parents[1] for run in runs if json.loads(run.read_text("utf-8"))["image"] == image
    }
    return {kept.labels: kept for folder in of_image for kept in find_kept(folder)}


def test_a_change_is_saved_within_a_minute(windows: Any, qtbot: QtBot) -> None:
    window = windows()
    timer = window.section.kept.autosave.timer
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
    qtbot.waitUntil(lambda: not second.section.kept.offer.isHidden())
    assert "2 planes" in second.section.kept.offer.text.text()
    second.section.kept.offer.restore.click()
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
    assert second.section.kept.offer.isHidden()


def test_closing_the_window_saves_what_was_painted_last(windows: Any, qtbot: QtBot) -> None:
    window = windows()
    window.paint(3)
    window.state.close()
    (folder,) = annotations_folder().iterdir()
    (kept,) = find_kept(folder)
    assert kept.planes == (3,)
    assert kept.read(3).any()


def test_declining_and_painting_anew_keeps_the_old_annotations(windows: Any, qtbot: QtBot) -> None:
    first = windows()
    first.paint(2)
    save_now(first, qtbot)
    second = windows()
    qtbot.waitUntil(lambda: not second.section.kept.offer.isHidden())
    second.section.kept.offer.dismiss.click()
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

    monkeypatch.setattr(keeping.tifffile, "imwrite", spy)
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
        patch.setattr(keeping.tifffile, "imwrite", fail)
        window.annotations.labels.paint((1, 5, 5), 1)
        window.section.kept.autosave.save()
        qtbot.waitUntil(lambda: "could not be saved" in window.section.status.text())
    assert fault.strerror in window.section.status.text()
    assert window.section.kept.autosave.timer.isActive()
    assert window.annotations.annotated() == [1]
    (folder,) = annotations_folder().iterdir()
    (kept,) = find_kept(folder)
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
    (kept,) = find_kept(newest.parents[1])
    assert kept.planes == (1,)


def test_two_images_with_one_labels_layer_each_keep_all_planes(windows: Any, qtbot: QtBot) -> None:
    window = windows(name="DAPI")
    dapi = window.image
    gfp = window.viewer.add_image(255 - dapi.data, name="GFP")
    window.paint(1)
    window.paint(2)
    save_now(window, qtbot)
    for image, plane in ((gfp, 3), (dapi, 4)):
        choose(window, qtbot, image)
        window.paint(plane)
        save_now(window, qtbot)
    for name, planes in (("DAPI", (1, 2, 3, 4)), ("GFP", (1, 2, 3))):
        (kept,) = kept_of(name).values()
        assert kept.planes == planes
        assert set(kept.read_all((64, 64))) == set(planes)


def test_an_image_that_is_chosen_again_goes_on_in_its_folder_and_is_not_offered(
    windows: Any, qtbot: QtBot
) -> None:
    window = windows()
    other = window.viewer.add_image(255 - window.image.data, name="other")
    for plane in range(6):
        window.paint(plane)
        save_now(window, qtbot)
        for image in (other, window.image):
            choose(window, qtbot, image)
    assert window.section.kept.offer.isHidden()
    assert len(list(annotations_folder().glob("*/*/annotations.json"))) == 1


@pytest.mark.parametrize("how", ["another is chosen", "another image", "it is removed"])
def test_strokes_are_saved_as_soon_as_their_layer_is_left(
    windows: Any, qtbot: QtBot, how: str
) -> None:
    window = windows()
    window.paint(2)
    window.annotations.declare_empty(5)
    first = window.annotations.labels
    if how == "another is chosen":
        window.section.new_labels.click()
    elif how == "another image":
        window.section.image.chosen.emit(window.viewer.add_image(np.zeros((3, 8, 8)), name="other"))
    else:
        window.viewer.layers.remove(first)
    qtbot.waitUntil(lambda: bool(kept_of("discs")))
    kept = kept_of("discs")[first.name]
    assert (kept.planes, kept.empty) == ((2,), (5,))
    assert (kept.read(2) == first.data[2]).all()


def test_a_layer_that_is_only_looked_at_is_not_saved(windows: Any, qtbot: QtBot) -> None:
    window = windows()
    other = window.viewer.add_labels(np.ones((6, 64, 64), np.uint16), name="from a file")
    window.section.new_labels.click()
    window.paint(2)
    painted = window.annotations.labels.name
    window.annotations.labels = other
    qtbot.waitUntil(lambda: bool(kept_of("discs")))
    qtbot.waitUntil(lambda: not window.annotations.searching)
    window.section.kept.autosave.timer.timeout.emit()
    window.state.close()
    assert list(kept_of("discs")) == [painted]


def test_each_labels_layer_is_offered_and_comes_back_by_its_name(
    windows: Any, qtbot: QtBot
) -> None:
    first = windows()
    painted = {}
    for plane, name in enumerate(("nuclei", "mitochondria")):
        first.section.new_labels.click()
        first.annotations.labels.name = name
        first.paint(plane)
        painted[name] = first.annotations.labels.data
        save_now(first, qtbot)

    second = restart(windows, qtbot)
    offer = second.section.kept.offer
    assert "2 labels layers" in offer.text.text()
    shown = [offer.which.itemText(i).partition(":")[0] for i in range(offer.which.count())]
    assert sorted(shown) == sorted(painted)
    restore(second, qtbot, shown.index("nuclei"))
    assert not offer.isHidden()
    assert offer.which.isHidden()
    restore(second, qtbot)
    assert offer.isHidden()
    for name, labels in painted.items():
        assert (second.viewer.layers[name].data == labels).all()


def test_restoring_two_layers_at_once_does_not_mix_them(windows: Any, qtbot: QtBot) -> None:
    first = windows()
    for plane in (1, 2):
        first.section.new_labels.click()
        first.annotations.labels.name = f"class {plane}"
        first.paint(plane)
        first.annotations.declare_empty(plane + 2)
        save_now(first, qtbot)
    second = restart(windows, qtbot)
    for _ in range(2):
        second.section.kept.offer.restore.click()
    layers = second.viewer.layers
    qtbot.waitUntil(lambda: all(layers[f"class {plane}"].data.any() for plane in (1, 2)))
    for plane in (1, 2):
        second.annotations.labels = layers[f"class {plane}"]
        qtbot.waitUntil(lambda plane=plane: second.annotations.annotated() == [plane, plane + 2])


def test_annotations_without_their_files_give_way_to_whole_ones(windows: Any, qtbot: QtBot) -> None:
    for planes in ((1,), (1, 2)):
        window = windows()
        for plane in planes:
            window.paint(plane)
        save_now(window, qtbot)
    newest = max(annotations_folder().glob("*/*/annotations.json"))
    (newest.parent / "plane-000001.tif").unlink()
    (kept,) = find_kept(newest.parents[1])
    assert kept.planes == (1,)
    for older in newest.parents[1].iterdir():
        if older != newest.parent:
            (older / "plane-000001.tif").unlink()
    (kept,) = find_kept(newest.parents[1])
    assert kept.folder == newest.parent


def test_a_plane_that_cannot_be_read_is_named_and_the_others_come_back(
    windows: Any, qtbot: QtBot
) -> None:
    first = windows()
    for plane in (1, 2, 3):
        first.paint(plane)
    first.annotations.declare_empty(5)
    save_now(first, qtbot)
    (kept,) = kept_of("discs").values()
    (kept.folder / "plane-000002.tif").write_bytes(b"II*\0damaged")
    second = restart(windows, qtbot)
    restore(second, qtbot)
    assert second.section.status.text() == "3 planes restored. Damaged, and not restored: Plane 2."
    qtbot.waitUntil(lambda: second.annotations.annotated() == [1, 3, 5])


def test_labels_come_back_in_the_type_that_they_had(windows: Any, qtbot: QtBot) -> None:
    first = windows()
    data = np.zeros((6, 64, 64), np.int32)
    first.annotations.labels = first.viewer.add_labels(data, name="many objects")
    first.annotations.labels.paint((2, 30, 30), 70_000)
    save_now(first, qtbot)
    labels = restore(restart(windows, qtbot), qtbot)
    assert labels.data.dtype == np.int32
    assert labels.data.max() == 70_000
    assert labels.name == "many objects"


def test_old_annotations_go_for_each_labels_layer_by_itself(tmp_path: Path) -> None:
    array = np.ones((2, 4, 4), np.uint16)
    whole = (slice(None), slice(None))

    def write(run: int, labels: str) -> None:
        snapshot = keeping.Snapshot(
            array, {0: (0, *whole)}, frozenset(), (), {}, "image", None, None, labels
        )
        keeping.save(tmp_path / f"{run:03d}", snapshot)

    write(0, "rarely used")
    for run in range(1, 10):
        write(run, "often used")
    assert [path.name for path in sorted(tmp_path.iterdir())] == [
        "000",
        *(f"{run:03d}" for run in range(10 - keeping.KEPT, 10)),
    ]


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
