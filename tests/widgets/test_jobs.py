"""Background jobs: results in the GUI thread, stops that clean up, errors that are told."""

from __future__ import annotations

import gc
import sys
import threading
import time
import weakref
from collections.abc import Callable, Generator, Iterator
from typing import Any

import pytest
from napari.utils.notifications import Notification, notification_manager
from pytestqt.qtbot import QtBot
from superqt.utils import WorkerBase

from napari_ptsam._widgets.jobs import Jobs, in_words
from napari_ptsam.errors import InputError, OutOfMemoryError, PtsamError


@pytest.fixture
def jobs(qtbot: QtBot) -> Iterator[Jobs]:
    jobs = Jobs()
    yield jobs
    jobs.close()
    qtbot.wait(20)


@pytest.fixture
def told() -> Iterator[list[str]]:
    """Texts of napari's notifications."""
    texts: list[str] = []

    def keep(notification: Notification) -> None:
        texts.append(notification.message)

    notification_manager.notification_ready.connect(keep)
    yield texts
    notification_manager.notification_ready.disconnect(keep)


def nothing(*args: Any) -> None:
    pass


def counting(closed: list[int], count: int = 1000) -> Callable[[], Generator[int, None, str]]:
    def run() -> Generator[int, None, str]:
        try:
            for number in range(count):
                yield number
                time.sleep(0.005)
            return "done"
        finally:
            closed.append(threading.get_ident())

    return run


def test_values_and_result_arrive_in_order_in_the_gui_thread(jobs: Jobs, qtbot: QtBot) -> None:
    closed: list[int] = []
    got: list[Any] = []
    threads: set[int] = set()
    progress: list[tuple[int, int]] = []

    def keep(value: Any) -> None:
        threads.add(threading.get_ident())
        got.append(value)

    jobs.progressed.connect(lambda done, total: progress.append((done, total)))
    with qtbot.waitSignal(jobs.finished, timeout=5000):
        jobs.run(
            "Counting",
            counting(closed, 3),
            on_yield=keep,
            on_return=keep,
            progress=lambda n: (n + 1, 3),
        )
        assert jobs.running == "Counting"
    assert got == [0, 1, 2, "done"]
    assert progress == [(1, 3), (2, 3), (3, 3)]
    assert threads == {threading.get_ident()}
    assert closed[0] != threading.get_ident()
    assert jobs.running is None


def test_stop_closes_the_generator_at_once_in_its_own_thread(jobs: Jobs, qtbot: QtBot) -> None:
    closed: list[int] = []
    stopped: list[bool] = []
    returned: list[str] = []
    job = jobs.run(
        "Counting",
        counting(closed),
        on_yield=nothing,
        on_return=returned.append,
        on_stopped=lambda: stopped.append(True),
    )
    qtbot.wait(30)
    with qtbot.waitSignal(jobs.finished, timeout=2000):
        job.stop()
        assert job.stopping
    assert len(closed) == 1
    assert closed[0] != threading.get_ident()
    assert stopped == [True]
    assert returned == []


def test_a_paused_job_holds_goes_on_and_can_be_stopped(jobs: Jobs, qtbot: QtBot) -> None:
    got: list[int] = []
    job = jobs.run("Counting", counting([]), on_yield=got.append, on_return=nothing)
    qtbot.waitUntil(lambda: len(got) > 2)
    job.pause()
    qtbot.wait(50)
    held = len(got)
    qtbot.wait(100)
    assert job.paused
    assert len(got) == held
    job.resume()
    qtbot.waitUntil(lambda: len(got) > held)
    job.pause()
    with qtbot.waitSignal(jobs.finished, timeout=2000):
        job.stop()


def test_a_second_run_is_refused_in_words_and_the_first_goes_on(jobs: Jobs, qtbot: QtBot) -> None:
    got: list[str] = []
    jobs.run("Training", counting([], 5), on_yield=nothing, on_return=got.append)
    with pytest.raises(InputError, match="'Training' is still running"):
        jobs.run("Segmenting", counting([]), on_yield=nothing, on_return=nothing)
    qtbot.waitUntil(lambda: got == ["done"])


def test_a_job_waits_for_the_window(jobs: Jobs, qtbot: QtBot) -> None:
    got: list[Any] = []
    jobs.wait_for("a layer")
    jobs.wait_for("a step")
    jobs.run("Counting", counting([], 2), on_yield=got.append, on_return=got.append)
    jobs.go_on("a layer")
    qtbot.wait(50)
    assert jobs.running == "Counting"
    assert got == []
    with qtbot.waitSignal(jobs.finished, timeout=5000):
        jobs.go_on("a step")
    assert got == [0, 1, "done"]


def test_a_job_that_waits_is_stopped_or_closed(jobs: Jobs, qtbot: QtBot) -> None:
    got: list[Any] = []
    jobs.wait_for("a layer")
    job = jobs.run(
        "Counting",
        counting([]),
        on_yield=got.append,
        on_return=got.append,
        on_stopped=lambda: got.append("stopped"),
    )
    job.stop()
    with qtbot.waitSignal(jobs.finished, timeout=5000):
        jobs.go_on("a layer")
    assert got == ["stopped"]
    jobs.wait_for("a layer")
    jobs.run("Counting", counting([]), on_yield=got.append, on_return=got.append)
    jobs.close()
    jobs.go_on("a layer")
    qtbot.wait(50)
    assert got == ["stopped"]


def test_the_next_job_can_start_from_the_result_of_the_last(jobs: Jobs, qtbot: QtBot) -> None:
    got: list[str] = []

    def go_on(result: str) -> None:
        jobs.run("Second", counting([], 2), on_yield=nothing, on_return=got.append)

    jobs.run("First", counting([], 2), on_yield=nothing, on_return=go_on)
    qtbot.waitUntil(lambda: got == ["done"])


@pytest.mark.parametrize(
    ("error", "kind", "text"),
    [
        (RuntimeError("the device caught fire"), PtsamError, "the device caught fire"),
        (InputError("Paint first."), InputError, "Paint first."),
        (MemoryError(), OutOfMemoryError, "memory is full"),
        (OSError(28, "No space left on device", "/x/y.tif"), InputError, "No space left"),
        (OSError(30, "Read-only file system", "/x/y.tif"), InputError, "y.tif: Read-only"),
    ],
)
def test_every_error_is_shown_and_frees_the_way_for_the_next_job(
    jobs: Jobs,
    qtbot: QtBot,
    told: list[str],
    error: Exception,
    kind: type[PtsamError],
    text: str,
) -> None:
    errors: list[PtsamError] = []

    def fail() -> Generator[int, None, None]:
        yield 1
        raise error

    with qtbot.waitSignal(jobs.finished, timeout=2000):
        jobs.run("Failing", fail, on_yield=nothing, on_return=nothing, on_error=errors.append)
    assert [type(e) for e in errors] == [kind]
    assert len(told) == 1
    assert text in told[0]
    assert jobs.running is None


def test_torch_out_of_memory_is_told_as_such() -> None:
    torch = pytest.importorskip("torch")
    error = torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 20 GiB")
    assert isinstance(in_words(error), OutOfMemoryError)


class Big:
    """Stands for a tensor."""


@pytest.mark.parametrize("how", ["return", "stop", "error"])
def test_nothing_of_a_run_stays_in_memory(jobs: Jobs, qtbot: QtBot, how: str) -> None:
    alive: list[weakref.ref[Big]] = []
    errors: list[PtsamError] = []

    def run() -> Generator[int, None, None]:
        held = Big()
        alive.append(weakref.ref(held))
        for number in range(1000 if how == "stop" else 3):
            yield number
            time.sleep(0.002)
        if how == "error":
            raise RuntimeError("no more")

    with qtbot.waitSignal(jobs.finished, timeout=3000):
        job = jobs.run("Run", run, on_yield=nothing, on_return=nothing, on_error=errors.append)
        if how == "stop":
            qtbot.wait(20)
            job.stop()
    del job
    gc.collect()
    assert alive[0]() is None
    assert len(errors) == (how == "error")


def test_closing_stops_the_run_and_calls_nobody_back(jobs: Jobs, qtbot: QtBot) -> None:
    closed: list[int] = []
    called: list[Any] = []
    jobs.run(
        "Counting",
        counting(closed),
        on_yield=nothing,
        on_return=called.append,
        on_error=called.append,
        on_stopped=lambda: called.append("stopped"),
    )
    qtbot.wait(20)
    jobs.close()
    qtbot.waitUntil(lambda: len(closed) == 1)
    qtbot.wait(20)
    assert called == []
    assert jobs.running is None


@pytest.mark.parametrize("how", ["close", "napari quits"])
def test_work_that_can_finish_early_ends_with_what_it_has(
    jobs: Jobs, qtbot: QtBot, how: str
) -> None:
    stop = threading.Event()
    kept: list[int] = []

    def run() -> Generator[int, None, int]:
        number = 0
        while not stop.is_set():
            number += 1
            yield number
            time.sleep(0.005)
        yield number
        kept.append(number)
        return number

    told: list[int] = []
    job = jobs.run("Training", run, on_yield=told.append, on_return=told.append, finish=stop.set)
    qtbot.waitUntil(lambda: bool(told), timeout=10_000)
    job.pause()
    if how == "close":
        jobs.close()
        told.clear()
    else:
        WorkerBase.await_workers(10_000)
    qtbot.waitUntil(lambda: bool(kept), timeout=10_000)
    qtbot.wait(50)
    assert told[-1:] == ([] if how == "close" else kept)


def test_short_work_runs_beside_a_long_job(jobs: Jobs, qtbot: QtBot) -> None:
    got: list[int] = []
    job = jobs.run("Counting", counting([]), on_yield=nothing, on_return=nothing)
    jobs.aside(lambda: 7, got.append)
    qtbot.waitUntil(lambda: got == [7], timeout=2000)
    assert jobs.running == "Counting"
    job.stop()


def test_the_activity_bar_goes_with_the_job(jobs: Jobs, qtbot: QtBot) -> None:
    from napari.utils.progress import progress

    before = len(progress._all_instances)
    go = threading.Event()

    def waiting() -> Generator[int, None, None]:
        yield 1
        go.wait(5)

    with qtbot.waitSignal(jobs.finished, timeout=5000):
        jobs.run("Waiting", waiting, on_yield=nothing, on_return=nothing, progress=lambda n: (n, 3))
        assert len(progress._all_instances) == before  # most runs are over at once
        qtbot.waitUntil(lambda: len(progress._all_instances) == before + 1, timeout=3000)
        (bar,) = (b for b in progress._all_instances if str(b.desc).startswith("Waiting"))
        assert (bar.n, bar.total) == (1, 3)
        go.set()
    assert len(progress._all_instances) == before


def test_while_a_job_runs_what_was_there_before_is_not_searched_for_garbage(
    jobs: Jobs, qtbot: QtBot
) -> None:
    turn, frozen = sys.getswitchinterval(), gc.get_freeze_count()
    with qtbot.waitSignal(jobs.finished, timeout=2000):
        jobs.run("Counting", counting([], 3), on_yield=nothing, on_return=nothing)
        assert gc.get_freeze_count() > frozen + 10_000
        assert sys.getswitchinterval() < turn
    assert gc.get_freeze_count() == 0
    assert sys.getswitchinterval() == turn
