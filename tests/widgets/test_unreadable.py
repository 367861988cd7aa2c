"""Labels that cannot be read once, as where a network drive is away for a moment."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, cast

import numpy as np
import pytest
from clickable import BrightRegions
from napari.components import ViewerModel
from numpy.typing import NDArray
from pytestqt.qtbot import QtBot

from napari_ptsam._widgets import clicks_labels, jobs, tracking
from napari_ptsam._widgets.clicks_state import ClickerEntry, ClickState
from napari_ptsam._widgets.state import PluginState
from napari_ptsam.clicking import Click
from napari_ptsam.errors import PtsamError

BAD = 4


class Drive(np.ndarray[Any, np.dtype[np.uint8]]):
    """An array of which one plane cannot be read while the drive is away."""

    away = False

    def __getitem__(self, key: Any) -> Any:
        first = key[0] if isinstance(key, tuple) else key
        if Drive.away and not isinstance(first, np.ndarray) and first == BAD:
            raise OSError(5, "Input/output error", "labels.zarr")
        return super().__getitem__(key)


@pytest.fixture
def stored() -> Iterator[NDArray[np.uint8]]:
    """Labels on six planes, painted on the first and the last; the drive is away."""
    labels = np.zeros((6, 64, 64), np.uint8)
    labels[1, 2, 2], labels[5, 3, 3] = 1, 7
    Drive.away = True
    yield labels.view(Drive)
    Drive.away = False


@pytest.fixture
def shown(monkeypatch: pytest.MonkeyPatch) -> list[PtsamError]:
    """What the user is told."""
    told: list[PtsamError] = []
    for module in (jobs, tracking, clicks_labels):
        monkeypatch.setattr(module, "show", told.append)
    return told


def test_planes_that_cannot_be_read_end_the_search_for_paint_in_words(
    windowless: ViewerModel,
    discs: NDArray[np.uint8],
    stored: NDArray[np.uint8],
    shown: list[PtsamError],
    qtbot: QtBot,
) -> None:
    state = PluginState(windowless)
    annotations = state.annotations
    annotations.image = windowless.add_image(discs)
    windowless.dims.set_point(0, 0)
    labels = windowless.add_labels(stored)
    annotations.labels = labels
    assert annotations.searching
    qtbot.waitUntil(lambda: not annotations.searching, timeout=30_000)
    assert "labels.zarr" in str(shown[0])
    # What was seen before the failure counts, and nothing waits for the rest.
    assert annotations.missing() is None
    assert annotations.annotated() == [1]
    Drive.away = False
    labels.events.data()
    qtbot.waitUntil(lambda: annotations.annotated() == [1, 5], timeout=30_000)
    assert len(shown) == 1
    state.close()


def test_accept_says_that_the_labels_cannot_be_read_and_works_once_they_can(
    windowless: ViewerModel,
    discs: NDArray[np.uint8],
    stored: NDArray[np.uint8],
    shown: list[PtsamError],
    monkeypatch: pytest.MonkeyPatch,
    qtbot: QtBot,
) -> None:
    monkeypatch.setattr(clicks_labels, "AT_ONCE", 0)
    state = ClickState(windowless)
    state.add_clicker(ClickerEntry("discs", cast(Any, BrightRegions())))
    state.annotations.image = windowless.add_image(discs)
    windowless.dims.set_point(0, 0)
    labels = windowless.add_labels(stored)
    state.annotations.labels = labels
    session = state.session
    session.switch(True)
    qtbot.waitUntil(lambda: session.free.failed, timeout=30_000)
    assert session.free.value is None
    session.say(Click(20.0, 32.0))
    qtbot.waitUntil(lambda: session.answer is not None, timeout=30_000)
    session.accept()
    qtbot.waitUntil(lambda: "could not be read" in session.problem, timeout=30_000)
    Drive.away = False
    session.accept()
    qtbot.waitUntil(lambda: not session.said, timeout=30_000)
    assert np.asarray(labels.data)[0, 20, 32] == 8
    assert all("labels.zarr" in str(error) for error in shown)
    state.close()
