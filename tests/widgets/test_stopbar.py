"""The button at the foot of the dock that stops what has no panel of its own."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from napari.components import ViewerModel
from napari.utils.notifications import notification_manager
from numpy.typing import NDArray
from pytestqt.qtbot import QtBot

from napari_ptsam import backbones
from napari_ptsam._widgets import loading
from napari_ptsam._widgets.jobs import Jobs
from napari_ptsam._widgets.loading import load_specialists
from napari_ptsam._widgets.state import PluginState
from napari_ptsam._widgets.stopbar import StopBar
from napari_ptsam.backbones import Backbone
from napari_ptsam.specialist import Specialist


@pytest.fixture
def jobs(qtbot: QtBot) -> Iterator[Jobs]:
    made = Jobs()
    yield made
    made.close()


@pytest.fixture
def bar(jobs: Jobs, qtbot: QtBot) -> StopBar:
    made = StopBar(jobs)
    qtbot.addWidget(made)
    return made


def endless() -> Iterator[int]:
    while True:
        yield 1
        time.sleep(0.005)


def idle(jobs: Jobs, qtbot: QtBot) -> None:
    qtbot.waitUntil(lambda: jobs.running is None, timeout=30_000)


def test_work_that_offers_it_is_stopped_by_the_button(
    bar: StopBar, jobs: Jobs, qtbot: QtBot
) -> None:
    told: list[str] = []
    jobs.run(
        "Measuring objects",
        endless,  # type: ignore[arg-type]
        on_yield=lambda _: None,
        on_return=lambda _: None,
        on_stopped=lambda: told.append("stopped"),
        offer_stop=True,
    )
    qtbot.waitUntil(lambda: not bar.isHidden(), timeout=10_000)
    assert bar.title.text() == "Measuring objects ..."
    bar.stop.click()
    assert bar.title.text() == "Stopping ..."
    assert not bar.stop.isEnabled()
    idle(jobs, qtbot)
    assert told == ["stopped"]
    assert bar.isHidden()


@pytest.mark.parametrize(("offered", "seconds"), [(False, 1.0), (True, 0.0)])
def test_there_is_no_button_for_other_and_for_short_work(
    bar: StopBar, jobs: Jobs, qtbot: QtBot, offered: bool, seconds: float
) -> None:
    seen: list[bool] = []

    def work() -> Iterator[int]:
        yield 1
        time.sleep(seconds)

    def ended(_: object) -> None:
        seen.append(bar.isHidden())

    jobs.run("Training", work, on_yield=lambda _: None, on_return=ended, offer_stop=offered)  # type: ignore[arg-type]
    idle(jobs, qtbot)
    qtbot.wait(400)
    assert seen == [True]
    assert bar.isHidden()


def test_the_download_of_a_backbone_is_stopped_in_silence(
    windowless: ViewerModel,
    discs: NDArray[np.uint8],
    tiny_backbone_loaded: Backbone,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    qtbot: QtBot,
) -> None:
    trained = Specialist.train(
        discs[:2], (discs[:2] > 100).astype(int), backbone=tiny_backbone_loaded, steps=1
    )
    path = trained.save(tmp_path / "nuclei.ptsam.safetensors")

    def download(name: str, device: object, note: Callable[[int, int], None]) -> Any:
        while True:
            note(1, 2)
            time.sleep(0.005)

    monkeypatch.setattr(backbones, "load_backbone", download)
    monkeypatch.setattr(loading, "backbone_news", lambda *_: "Downloading ...")
    state = PluginState(windowless)
    bar = StopBar(state.jobs)
    qtbot.addWidget(bar)
    news: list[str] = []
    notified = len(notification_manager.records)
    load_specialists(state, [path], on_news=news.append)
    qtbot.waitUntil(lambda: not bar.isHidden(), timeout=10_000)
    bar.stop.click()
    idle(state.jobs, qtbot)
    assert news == ["Downloading ...", ""]
    assert state.specialists == []
    assert len(notification_manager.records) == notified
    state.close()
