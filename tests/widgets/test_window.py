"""The whole loop in a real napari window, drawn on a screen, with menus, mouse and buttons."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from napari.viewer import Viewer
from numpy.typing import NDArray
from qtpy.QtWidgets import QFileDialog
from scipy import ndimage

from benchmarks.driving import SAMPLE, Driver
from napari_ptsam import specialist as specialist_module
from napari_ptsam.metrics import dice

ROOT = Path(__file__).parents[2]
WEIGHTS = ROOT / "src/napari_ptsam/backbones/weights/embedded-v6.safetensors"
PAINTED = (2, 7, 12)
UNSEEN = 20
STEPS = 30

COLLEAGUE = """
import sys
from pathlib import Path
import napari, numpy as np
from benchmarks.driving import SAMPLE, Driver
from napari_ptsam._widgets.state import PluginState


def main(prompt_file, plane, mask_file, picture):
    viewer = napari.Viewer()
    driver = Driver(viewer)
    driver.menu(*SAMPLE).trigger()
    driver.wait_until(lambda: len(viewer.layers) == 2, 60, "The sample")
    driver.drop(Path(prompt_file))
    state = PluginState.of(viewer)
    driver.wait_until(lambda: state.current is not None, 120, "The specialist")
    viewer.dims.set_point(0, int(plane))
    dock, _ = driver.open_dock("Segment (batch)")
    section = dock.sections["segment"]
    section.what.setCurrentIndex(section.what.findData("plane"))
    driver.pause(0.2)
    driver.press(section.segment_button)
    results = section.segmenter.results
    driver.wait_until(lambda: state.jobs.running is None and results, 120, "The mask")
    driver.wait_until(lambda: section.segmenter.settled, 60, "The result")
    driver.shot(Path(picture))
    np.save(mask_file, np.asarray(results[0].labels.data[int(plane)]))
    viewer.close()


main(*sys.argv[1:])
"""


def no_window() -> str:
    """Why no window can be drawn here; empty if it can."""
    platform = os.environ.get("QT_QPA_PLATFORM", "")
    if platform.split(":")[0] in ("offscreen", "minimal"):
        return f"QT_QPA_PLATFORM={platform} draws no OpenGL"
    if sys.platform.startswith("linux") and not (
        os.environ.get("DISPLAY") or os.environ.get("WAYLAND_DISPLAY")
    ):
        return "there is no DISPLAY; xvfb-run -s '-screen 0 1280x720x24 +extension GLX' makes one"
    return ""


def no_screen() -> str:
    """Why the whole loop cannot be tested here; empty if it can."""
    return no_window() or (
        "" if WEIGHTS.is_file() else f"the trained weights {WEIGHTS.name} are missing"
    )


pytestmark = pytest.mark.skipif(bool(no_screen()), reason=f"a real window: {no_screen()}")


@pytest.fixture
def driver(make_napari_viewer: Callable[..., Viewer]) -> Iterator[Driver]:
    """A napari window of the size of a small screen, with the plugin's manifest."""
    from npe2 import PluginManager, PluginManifest

    plugins = PluginManager.instance()
    ours = "napari-ptsam" not in plugins
    if ours:
        plugins.register(PluginManifest.from_file(ROOT / "napari.yaml"))
    driver = Driver(make_napari_viewer(show=True))
    yield driver
    # pytest still holds it when napari looks whether its window is gone.
    vars(driver).clear()
    if ours:
        plugins.unregister("napari-ptsam")


@pytest.fixture
def pictures(tmp_path: Path) -> Path:
    """Where the screenshots of the steps go."""
    return Path(os.environ.get("NAPARI_PTSAM_SCREENSHOTS") or tmp_path / "screenshots")


@pytest.fixture(autouse=True)
def short(monkeypatch: pytest.MonkeyPatch) -> None:
    """Fewer steps than a preset's."""
    plan = specialist_module.training_plan

    def few(*args: Any, **options: Any) -> Any:
        return replace(plan(*args, **options), steps=STEPS, evaluate_every=10, views_per_image=2)

    monkeypatch.setattr(specialist_module, "training_plan", few)


def paint_cells(driver: Driver, labels: Any, truth: NDArray[Any]) -> None:
    """Dab the brush on every cell of the plane in view, as wide as the cell."""
    found = ndimage.find_objects(truth)
    for number, where in enumerate(found, start=1):
        if where is None:
            continue
        cell = truth == number
        row, column = ndimage.center_of_mass(cell)
        labels.brush_size = max(2, round(2 * np.sqrt(cell.sum() / np.pi)))
        driver.stroke([(row, column), (row, column + 1)])


def test_paint_train_segment_and_send_to_a_colleague(
    driver: Driver, pictures: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    viewer = driver.viewer
    driver.menu(*SAMPLE).trigger()
    driver.wait_until(lambda: len(viewer.layers) == 2, 60, "The sample")
    sample_labels = viewer.layers[1]
    truth = np.asarray(sample_labels.data)
    dock, _ = driver.open_dock("Train specialist")
    state, sections = dock.state, dock.sections
    driver.shot(pictures / "1-opened.png")
    assert not sections["train"].isHidden()
    assert sections["annotate"].isHidden()

    # Paint on a layer of one's own.
    dock.show_section("annotate")
    driver.pause(0.2)
    driver.press(sections["annotate"].new_labels)
    sample_labels.visible = False
    labels = state.annotations.labels
    assert labels is not sample_labels
    for plane in PAINTED:
        viewer.dims.set_point(0, plane)
        driver.pause(0.1)
        paint_cells(driver, labels, truth[plane])
        assert dice(labels.data[plane] > 0, truth[plane] > 0) > 0.7
    driver.wait_until(
        lambda: state.annotations.annotated() == list(PAINTED), 10, "The list of planes"
    )
    driver.shot(pictures / "2-painted.png")
    assert "3 of 16" in sections["annotate"].counter.text()

    # Train, and watch a plane without paint.
    viewer.dims.set_point(0, UNSEEN)
    dock.show_section("train")
    train = sections["train"]
    driver.pause(0.2)
    seen: list[bytes] = []
    driver.press(train.train)

    def trained() -> bool:
        preview = train._preview.layer
        if preview is not None and preview.data[UNSEEN].any():
            shown = preview.data[UNSEEN].tobytes()
            if shown not in seen:
                seen.append(shown)
                if len(seen) == 1:
                    driver.window.grab().save(str(pictures / "3-training.png"))
        return state.jobs.running is None

    driver.wait_until(trained, 200, "The training")
    driver.shot(pictures / "4-trained.png")
    assert len(seen) >= 2
    assert state.current is not None
    assert "Dice" in train.result.text()

    # Segment the stack.
    dock.show_section("segment")
    segment = sections["segment"]
    segment.what.setCurrentIndex(segment.what.findData("layer"))
    driver.pause(0.2)
    driver.press(segment.segment_button)
    driver.wait_until(
        lambda: state.jobs.running is None and segment.segmenter.settled, 200, "The segmentation"
    )
    (result,) = segment.segmenter.results
    driver.shot(pictures / "5-segmented.png")
    assert not result.missing()
    assert dice(result.labels.data[10] > 0, truth[10] > 0) > 0.7

    # Export, and let someone else load it.
    dock.show_section("specialists")
    prompt_file = tmp_path / "cells.ptsam.safetensors"
    monkeypatch.setattr(QFileDialog, "getSaveFileName", lambda *_: (str(prompt_file), ""))
    driver.pause(0.2)
    driver.press(sections["specialists"].export_button)
    driver.wait_until(lambda: state.current.saved, 30, "The prompt file")
    driver.shot(pictures / "6-exported.png")
    mask_file = tmp_path / "mask.npy"
    done = subprocess.run(
        [sys.executable, "-c", COLLEAGUE, prompt_file, str(UNSEEN), mask_file,
         pictures / "7-colleague.png"],
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": f"{ROOT / 'src'}{os.pathsep}{ROOT}"},
        capture_output=True,
        text=True,
        timeout=240,
        check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    mask = np.load(mask_file)
    assert mask.any()
    assert np.array_equal(mask, result.labels.data[UNSEEN])
