"""A viewer, and a backbone that is quick and has learned nothing."""

from __future__ import annotations

import importlib.util
import os
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

# Without a screen Qt draws into memory, where there is no OpenGL: layers are not rendered.
if sys.platform.startswith("linux") and not os.environ.get("DISPLAY"):
    os.environ.setdefault("QT_QPA_PLATFORM", "offscreen")

NEEDED = ("napari", "qtpy", "pytestqt", "superqt", "pyqtgraph")
missing = [name for name in NEEDED if importlib.util.find_spec(name) is None]
if missing:
    collect_ignore_glob = ["test_*.py"]

if TYPE_CHECKING:
    from napari.components import ViewerModel
    from napari.viewer import Viewer

    from napari_ptsam._widgets.state import PluginState
    from napari_ptsam.backbones import Backbone


def pytest_report_header() -> str:
    """Tell what is not tested here, and why."""
    return f"widget tests: not run, {', '.join(missing)} missing" if missing else "widget tests: on"


@pytest.fixture(autouse=True)
def no_opengl(monkeypatch: pytest.MonkeyPatch) -> None:
    """Tell napari what a graphics card would say, where Qt's offscreen platform has none."""
    if os.environ.get("QT_QPA_PLATFORM") != "offscreen":
        return
    from vispy.gloo import gl

    def answer(parameter: int) -> str | int:
        return "" if parameter == gl.GL_EXTENSIONS else 4096

    monkeypatch.setattr(gl, "glGetParameter", answer)


@pytest.fixture(autouse=True)
def own_folders(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Keep the tests' files out of the user's folders.

    But for XDG_CACHE_HOME: napari draws its buttons' icons there when it is imported, and looks
    for them when a window opens.
    """
    for variable in ("XDG_DATA_HOME", "LOCALAPPDATA"):
        monkeypatch.setenv(variable, str(tmp_path / variable))
    monkeypatch.setenv("NAPARI_PTSAM_ANNOTATIONS", str(tmp_path / "annotations"))
    monkeypatch.setenv("NAPARI_PTSAM_SPECIALISTS", str(tmp_path / "kept"))
    monkeypatch.setenv("NAPARI_PTSAM_CACHE", str(tmp_path / "cache"))


@pytest.fixture
def viewer(make_napari_viewer: Callable[..., Viewer]) -> Viewer:
    """A viewer without layers, not shown."""
    return make_napari_viewer()


@pytest.fixture
def state(viewer: Viewer) -> Iterator[PluginState]:
    """What the sections of that viewer's dock would share."""
    from napari_ptsam._widgets.state import PluginState

    made = PluginState(viewer)
    yield made
    made.close()


@pytest.fixture
def windowless() -> ViewerModel:
    """What a viewer is without its window; much quicker to make."""
    from napari.components import ViewerModel

    return ViewerModel()


@pytest.fixture
def discs() -> np.ndarray[Any, Any]:
    """Bright discs on dark ground, 6x64x64 uint8, and one in each plane."""
    rows, columns = np.mgrid[:64, :64]
    stack = np.full((6, 64, 64), 30, np.uint8)
    for index in range(6):
        stack[index][(rows - 20 - 4 * index) ** 2 + (columns - 32) ** 2 < 120] = 200
    return stack


@pytest.fixture(scope="session")
def tiny_backbone_loaded(tiny_backbone: Path) -> Backbone:
    """The tiny backbone of tests/conftest.py, on the CPU."""
    from napari_ptsam.backbones import load_backbone

    return load_backbone(tiny_backbone)
