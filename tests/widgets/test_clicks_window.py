"""Clicking in a real napari window, with the mouse and the keys."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest
from clickable import BrightRegions
from napari.viewer import Viewer
from numpy.typing import NDArray
from qtpy.QtCore import Qt
from qtpy.QtTest import QTest
from test_window import no_window

from benchmarks.driving import Driver
from napari_ptsam._widgets.clicks_state import ClickerEntry, ClickState
from napari_ptsam._widgets.commands import open_clicks

pytestmark = pytest.mark.skipif(bool(no_window()), reason=f"a real window: {no_window()}")


@pytest.fixture
def driver(make_napari_viewer: Callable[..., Viewer]) -> Iterator[Driver]:
    driver = Driver(make_napari_viewer(show=True))
    yield driver
    # pytest still holds it when napari looks whether its window is gone.
    vars(driver).clear()


@pytest.fixture
def clicking(driver: Driver, discs: NDArray[np.uint8]) -> ClickState:
    """Clicking is on, on plane 0 with a disc at row 20, column 32."""
    viewer = driver.viewer
    viewer.add_image(discs, name="discs", scale=(3, 0.5, 0.5))
    viewer.dims.set_point(0, 0)
    dock = open_clicks(viewer)
    section, state = dock.sections["click"], dock.state
    state.add_clicker(ClickerEntry("discs", BrightRegions()))  # type: ignore[arg-type]
    driver.pause(0.3)
    driver.press(section.toggle)
    driver.wait_until(lambda: state.canvas.taking_clicks, 60, "Clicking")
    driver.wait_until(lambda: state.session.source.embedded, 60, "The plane")
    return state


def shifted(driver: Driver, way: list[tuple[float, float]]) -> None:
    """Press the mouse with Shift held, move it, let go."""
    native = driver.viewer.window._qt_viewer.canvas.native
    shift, left = Qt.KeyboardModifier.ShiftModifier, Qt.MouseButton.LeftButton
    places = [driver._on_canvas(row, column) for row, column in way]
    QTest.mousePress(native, left, shift, places[0])
    for place in places[1:]:
        driver.pause(0.02)
        QTest.mouseMove(native, place)
    QTest.mouseRelease(native, left, shift, places[-1])


def test_mouse_and_keys_click_accept_and_undo(
    driver: Driver,
    clicking: ClickState,
    discs: NDArray[np.uint8],
) -> None:
    session, native = clicking.session, driver.viewer.window._qt_viewer.canvas.native

    def answered() -> Any:
        return session.answer

    camera = getattr(driver.viewer, "scene", driver.viewer).camera
    zoom = camera.zoom
    driver.stroke([(10, 16)])
    driver.wait_until(answered, 30, "The answer")
    assert (clicking.canvas.layers.preview.data[0].astype(bool) == (discs[0] > 100)).all()
    outside = driver._on_canvas(28, 5)
    QTest.mouseClick(native, Qt.MouseButton.RightButton, pos=outside)
    driver.wait_until(lambda: len(session.said) == 2, 30, "The second click")
    assert [said.positive for said in session.said] == [True, False]
    QTest.keyClick(native, Qt.Key.Key_Z, Qt.KeyboardModifier.ControlModifier)
    assert len(session.said) == 1
    driver.wait_until(answered, 30, "The answer")
    QTest.keyClick(native, Qt.Key.Key_Return)
    labels = clicking.annotations.labels
    driver.wait_until(lambda: clicking.canvas.taking_clicks, 30, "The next label")
    assert (labels.data[0] == (discs[0] > 100)).all()
    QTest.keyClick(native, Qt.Key.Key_Z, Qt.KeyboardModifier.ControlModifier)
    assert not labels.data.any()
    # Twice at one place is no zoom.
    for _ in range(2):
        driver.stroke([(10, 16)])
    QTest.mouseDClick(native, Qt.MouseButton.LeftButton, pos=driver._on_canvas(10, 16))
    assert camera.zoom == zoom
    QTest.keyClick(native, Qt.Key.Key_Escape)
    assert not session.said


def test_a_shifted_drag_draws_a_box_and_a_drag_moves_the_picture(
    driver: Driver,
    clicking: ClickState,
) -> None:
    session = clicking.session
    camera = getattr(driver.viewer, "scene", driver.viewer).camera
    centre = np.array(camera.center)
    shifted(driver, [(4, 8), (8, 16), (16, 24)])
    driver.wait_until(lambda: session.answer, 30, "The answer")
    (box,) = session.said
    assert (box.top, box.left, box.bottom, box.right) == pytest.approx((8, 16, 32, 48), abs=1)
    assert np.array_equal(camera.center, centre)
    assert clicking.canvas.layers.preview.data[0].any()
    session.discard()
    native = driver.viewer.window._qt_viewer.canvas.native
    left, start = Qt.MouseButton.LeftButton, driver._on_canvas(10, 16)
    end = driver._on_canvas(16, 22)
    QTest.mousePress(native, left, pos=start)
    for share in (0.3, 0.6, 1.0):
        driver.pause(0.05)
        QTest.mouseMove(native, start + (end - start) * share)
    QTest.mouseRelease(native, left, pos=end)
    assert not session.said
