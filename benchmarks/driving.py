"""Drives the plugin in a real napari window as a user does: menus, mouse, buttons.

For the test of the whole loop, the pictures of the documentation, and the benchmark of the window.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from qtpy.QtCore import QEvent, QEventLoop, QMimeData, QPoint, QPointF, Qt, QTimer, QUrl
from qtpy.QtGui import QDropEvent
from qtpy.QtTest import QTest
from qtpy.QtWidgets import QApplication

if TYPE_CHECKING:
    from napari.viewer import Viewer
    from qtpy.QtGui import QAction
    from qtpy.QtWidgets import QWidget

WIDTH, HEIGHT = 1280, 720
POLL_MS = 20

SAMPLE = ("File", "Open Sample", "PTSAM", "Procedural micrographs")
PLUGIN = ("Plugins", "PTSAM")


class Driver:
    """The hands of a user at one napari window.

    Parameters
    ----------
    viewer
        napari's; its window is shown.
    """

    def __init__(self, viewer: Viewer) -> None:
        self.viewer = viewer
        self.window: Any = viewer.window._qt_window
        self.window.resize(WIDTH, HEIGHT)
        self.pause(0.3)

    def pause(self, seconds: float) -> None:
        """Let the window live for a while."""
        loop = QEventLoop()
        QTimer.singleShot(round(seconds * 1000), loop.quit)
        loop.exec()

    def wait_until(self, condition: Callable[[], Any], seconds: float, what: str) -> float:
        """Let the window live until something is so.

        Returns
        -------
        float
            How long that took, in seconds.

        Raises
        ------
        TimeoutError
            If it is not so after `seconds`.
        """
        started = time.perf_counter()
        loop, poll, seen = QEventLoop(), QTimer(), [False]

        def look() -> None:
            seen[0] = bool(condition())
            if seen[0] or time.perf_counter() - started > seconds:
                loop.quit()

        poll.timeout.connect(look)
        poll.start(POLL_MS)
        loop.exec()
        poll.stop()
        if not seen[0]:
            raise TimeoutError(f"{what}: not within {seconds:.0f} s")
        return time.perf_counter() - started

    def menu(self, *titles: str) -> QAction:
        """An entry of the menu bar, by the beginnings of the titles on the way to it.

        Raises
        ------
        LookupError
            If there is none.
        """
        actions, found = self.window.menuBar().actions(), None
        for title in titles:
            found = next((a for a in actions if a.text().replace("&", "").startswith(title)), None)
            if found is None:
                raise LookupError(f"No menu entry {title} among {[a.text() for a in actions]}")
            if found.menu() is not None:
                # napari fills some of its menus when they are about to be shown.
                found.menu().aboutToShow.emit()
                actions = found.menu().actions()
        return found

    def open_dock(self, entry: str = "Train specialist") -> tuple[Any, float]:
        """Choose an entry of the Plugins menu.

        Returns
        -------
        PtsamDock
            The dock.
        float
            Seconds until it was there.
        """
        from napari_ptsam._widgets.state import PluginState

        started = time.perf_counter()
        self.menu(*PLUGIN, entry).trigger()
        self.wait_until(lambda: PluginState.of(self.viewer) is not None, 60, "The dock")
        seconds = time.perf_counter() - started
        docks = self.viewer.window.dock_widgets.values()
        return next(w for w in docks if hasattr(w, "show_section")), seconds

    def press(self, button: QWidget) -> None:
        """Click a button with the mouse."""
        QTest.mouseClick(button, Qt.MouseButton.LeftButton)

    def stroke(self, points: Iterable[tuple[float, float]]) -> None:
        """Press the mouse in the image, move it through points, let go.

        Parameters
        ----------
        points
            Row and column in world coordinates.
        """
        native = self.viewer.window._qt_viewer.canvas.native
        places = [self._on_canvas(row, column) for row, column in points]
        QTest.mouseMove(native, places[0])
        QTest.mousePress(native, Qt.MouseButton.LeftButton, pos=places[0])
        for place in places[1:]:
            QTest.mouseMove(native, place)
        QTest.mouseRelease(native, Qt.MouseButton.LeftButton, pos=places[-1])
        QApplication.processEvents()

    def leave_image(self) -> None:
        """Move the mouse out of the image, so that nothing is drawn below it there."""
        native = self.viewer.window._qt_viewer.canvas.native
        QTest.mouseMove(native, QPoint(4, 4))
        QApplication.sendEvent(native, QEvent(QEvent.Type.Leave))

    def drop(self, path: Path) -> None:
        """Drop a file on the window."""
        content = QMimeData()
        content.setUrls([QUrl.fromLocalFile(str(path))])
        event = QDropEvent(
            QPointF(WIDTH / 2, HEIGHT / 2),
            Qt.DropAction.CopyAction,
            content,
            Qt.MouseButton.LeftButton,
            Qt.KeyboardModifier.NoModifier,
        )
        self.viewer.window._qt_viewer.dropEvent(event)

    def shot(self, path: Path) -> None:
        """Save a picture of the window."""
        self.pause(0.2)
        path.parent.mkdir(parents=True, exist_ok=True)
        if not self.window.grab().save(str(path)):
            raise OSError(f"The picture {path} could not be written")

    def _on_canvas(self, row: float, column: float) -> QPoint:
        view = self.viewer.window._qt_viewer.canvas.view
        x, y = (view.transform * view.scene.transform).map([column, row])[:2]
        return QPoint(round(float(x)), round(float(y)))
