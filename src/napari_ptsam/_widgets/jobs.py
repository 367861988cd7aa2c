"""The one way in which the plugin runs long work: a generator in a background thread."""

from __future__ import annotations

import sys
import threading
import traceback
from collections.abc import Callable, Generator
from contextlib import closing, suppress
from dataclasses import dataclass
from typing import Any, TypeVar

from napari.utils.notifications import notification_manager, show_error
from qtpy.QtCore import QObject, QThreadPool, Signal, Slot
from superqt.utils import WorkerBase

from napari_ptsam._widgets.activity import ActivityBar
from napari_ptsam._widgets.quiet import Quiet
from napari_ptsam.errors import InputError, OutOfMemoryError, PtsamError

Y = TypeVar("Y")
R = TypeVar("R")


@dataclass(frozen=True)
class _Returned:
    value: Any


@dataclass(frozen=True)
class _Stopped:
    pass


_Outcome = _Returned | _Stopped | PtsamError


class _Signals(QObject):
    """What superqt's worker emits, and how the work ended."""

    started = Signal()
    finished = Signal()
    _finished = Signal(object)
    returned = Signal(object)
    errored = Signal(object)
    warned = Signal(tuple)
    yielded = Signal(object)
    ended = Signal(object)


class _Worker(WorkerBase):
    """Runs a generator to its end, to a stop or to an error, and closes it in its own thread.

    superqt's own generator worker swallows a RuntimeError, and leaves a stopped generator to
    the garbage collector.

    Parameters
    ----------
    make
        Makes the generator, in the worker's thread.
    finish
        Has the generator end by itself soon, with what it has by then.
    """

    def __init__(
        self,
        make: Callable[[], Generator[Any, None, Any]],
        finish: Callable[[], None] | None = None,
    ) -> None:
        super().__init__(SignalsClass=_Signals)
        self._make: Callable[[], Generator[Any, None, Any]] | None = make
        self._finish = finish
        self.going = threading.Event()
        self.going.set()

    def run(self) -> None:
        """Run; called by the thread pool."""
        # `work` raises nothing. Where napari closed meanwhile, Qt has taken the signals away.
        with suppress(RuntimeError):
            super().run()

    def quit(self) -> None:
        """Ask the work to end; called by napari, too, as it quits."""
        if self._finish is not None and self.is_running:
            self._finish()
        else:
            super().quit()
        self.going.set()

    def work(self) -> None:
        """Drive the generator and tell how it ended."""
        try:
            outcome = self._drive()
        except Exception as error:
            outcome = in_words(error)
        # The closure may hold arrays, and Qt keeps the worker a little longer.
        self._make = None
        self.ended.emit(outcome)

    def _drive(self) -> _Outcome:
        if self._make is None:
            return _Stopped()
        with closing(self._make()) as steps:
            while not self.abort_requested:
                try:
                    value = next(steps)
                except StopIteration as end:
                    return _Returned(end.value)
                self.yielded.emit(value)
                del value
                self.going.wait()
        return _Stopped()


def in_words(error: Exception) -> PtsamError:
    """Make any exception one of the project's own, without the variables of its frames.

    A traceback keeps every frame's variables alive, tensors on the device among them.
    """
    link: BaseException | None = error
    while link is not None:
        traceback.clear_frames(link.__traceback__)
        link = link.__cause__ or link.__context__
    if isinstance(error, PtsamError):
        return error
    found: PtsamError
    # Where torch was never loaded, nothing can have thrown its exception.
    memory_errors = (
        MemoryError,
        getattr(sys.modules.get("torch"), "OutOfMemoryError", MemoryError),
    )
    if isinstance(error, memory_errors):
        found = OutOfMemoryError(
            "The memory is full. Close other programs and layers that use much of it, choose a "
            "smaller backbone, or the device 'cpu'."
        )
    elif isinstance(error, OSError):
        where = f"{error.filename}: " if error.filename else ""
        found = InputError(
            f"{where}{error.strerror or error}. Check that the disk has space and that you may "
            "read and write there, or choose another place."
        )
    else:
        found = PtsamError(f"This went wrong and was not expected: {type(error).__name__}: {error}")
    found.__cause__ = error
    return found


def show(error: PtsamError) -> None:
    """Show an error in napari's notifications; an unexpected one with its traceback."""
    if type(error) is PtsamError:
        notification_manager.receive_error(type(error), error, error.__traceback__)
    else:
        show_error(str(error))


@dataclass(frozen=True)
class _Callbacks:
    """What is called in the GUI thread."""

    on_yield: Callable[[Any], None] | None = None
    on_return: Callable[[Any], None] | None = None
    on_error: Callable[[PtsamError], None] | None = None
    on_stopped: Callable[[], None] | None = None


class Job(QObject):
    """One run in the background. Made by `Jobs`; lives in the GUI thread.

    Attributes
    ----------
    title
        What runs, in the user's words.
    offers_stop
        Whether the foot of the dock offers to stop it.
    ended
        Emitted in the GUI thread when the run is over, whatever the reason, before the
        callbacks, so that these may start the next.
    """

    ended = Signal()

    def __init__(
        self,
        title: str,
        make: Callable[[], Generator[Any, None, Any]],
        callbacks: _Callbacks,
        finish: Callable[[], None] | None = None,
    ) -> None:
        super().__init__()
        self.title = title
        self.offers_stop = False
        self._callbacks = callbacks
        self._worker: _Worker | None = _Worker(make, finish)
        # Slots of an object that lives in the GUI thread, so that they are called there.
        self._worker.yielded.connect(self._on_yielded)
        self._worker.ended.connect(self._on_ended)
        self._paused = False
        self._stopping = False

    @property
    def paused(self) -> bool:
        """Whether the run is held after its current step."""
        return self._paused

    @property
    def stopping(self) -> bool:
        """Whether the run was asked to stop."""
        return self._stopping

    @property
    def running(self) -> bool:
        """Whether the run is not over yet."""
        return self._worker is not None

    def start(self, pool: QThreadPool | None = None) -> None:
        """Begin, in a thread of `pool` (default: Qt's global one)."""
        if self._worker is not None:
            if pool is None:
                self._worker.start()
            else:
                pool.start(self._worker)

    def stop(self) -> None:
        """End the run after its current step; its clean-up runs at once, in its own thread."""
        self._stopping = True
        if self._worker is not None:
            self._worker.quit()

    def pause(self) -> None:
        """Hold the run after its current step."""
        if self._worker is not None and not self._stopping:
            self._paused = True
            self._worker.going.clear()

    def resume(self) -> None:
        """Go on after a pause."""
        self._paused = False
        if self._worker is not None:
            self._worker.going.set()

    def abandon(self) -> None:
        """Stop, and call nobody back: those who wait for it are gone."""
        self.forget()
        self.stop()

    def forget(self) -> None:
        """Let the run go on, and call nobody back."""
        self._callbacks = _Callbacks()

    @Slot(object)
    def _on_yielded(self, value: Any) -> None:
        if self._callbacks.on_yield is not None and not self._stopping:
            self._callbacks.on_yield(value)

    @Slot(object)
    def _on_ended(self, outcome: _Outcome) -> None:
        callbacks, self._callbacks = self._callbacks, _Callbacks()
        self._worker = None
        self._paused = False
        self.ended.emit()
        _tell(callbacks, outcome)


def _tell(callbacks: _Callbacks, outcome: _Outcome) -> None:
    if isinstance(outcome, _Returned):
        if callbacks.on_return is not None:
            callbacks.on_return(outcome.value)
    elif isinstance(outcome, _Stopped):
        if callbacks.on_stopped is not None:
            callbacks.on_stopped()
    elif callbacks.on_error is not None:
        callbacks.on_error(outcome)


class Jobs(QObject):
    """Runs one long job at a time, and short ones aside.

    Parameters
    ----------
    elsewhere
        Tells the title of what another dock runs, None if nothing.

    Attributes
    ----------
    started, finished
        Emitted in the GUI thread when a job begins (with its title) and when it is over,
        whatever the reason; `finished` comes just before ``on_return`` and its like, which
        may start the next job.
    progressed
        Emitted with what is done and the total, if the job can say.
    quiet
        Held while a job runs.
    """

    started = Signal(str)
    finished = Signal()
    progressed = Signal(int, int)

    def __init__(self, elsewhere: Callable[[], str | None] = lambda: None) -> None:
        super().__init__()
        self._elsewhere = elsewhere
        self._job: Job | None = None
        self._bar: ActivityBar | None = None
        self._awaited: set[object] = set()
        self._waiting: Job | None = None
        self.quiet = Quiet()
        self._asides: set[Job] = set()
        # Of its own, so that short work does not wait for a long run where there is one core.
        self._pool = QThreadPool()
        self._pool.setMaxThreadCount(2)
        # What the user waits for with a hand on the mouse waits for no other.
        self._urgent = QThreadPool()
        self._urgent.setMaxThreadCount(1)

    @property
    def running(self) -> str | None:
        """Title of what runs, None if nothing does."""
        return None if self._job is None else self._job.title

    @property
    def job(self) -> Job | None:
        """What runs."""
        return self._job

    def run(  # noqa: PLR0913 (what can become of a run, each with its own answer)
        self,
        title: str,
        generator: Callable[[], Generator[Y, None, R]],
        *,
        on_yield: Callable[[Y], None],
        on_return: Callable[[R], None],
        on_error: Callable[[PtsamError], None] | None = None,
        on_stopped: Callable[[], None] | None = None,
        progress: Callable[[Y], tuple[int, int]] | None = None,
        finish: Callable[[], None] | None = None,
        offer_stop: bool = False,
    ) -> Job:
        """Run a generator in the background.

        Parameters
        ----------
        title
            What it is, in the user's words, such as "Training".
        generator
            Called in the worker thread; so is everything in the generator.
        on_yield, on_return, on_error, on_stopped
            Called in the GUI thread. An error was shown to the user before.
        progress
            What a yielded value says is done, and of how much.
        finish
            Has the generator end by itself soon, with what it has by then; called in place of
            closing it after its current step.
        offer_stop
            Have the foot of the dock offer to stop it: for work without a button of its own, if
            it ends within a second or so.

        Raises
        ------
        InputError
            If another job runs.
        """
        busy = self.running or self._elsewhere()
        if busy is not None:
            raise InputError(
                f"'{busy}' is still running. Wait until it is done, or press Stop where there is "
                "such a button."
            )

        def failed(error: PtsamError) -> None:
            try:
                show(error)
            finally:
                if on_error is not None:
                    on_error(error)

        def yielded(value: Y) -> None:
            on_yield(value)
            # Last: napari's bar handles events as it moves, the next value's among them.
            if progress is not None:
                self._advance(*progress(value))

        job = Job(title, generator, _Callbacks(yielded, on_return, failed, on_stopped), finish)
        job.offers_stop = offer_stop
        job.ended.connect(self._on_ended)
        self._job = job
        self._bar = ActivityBar(title)
        self.quiet.begin()
        self.started.emit(title)
        if self._awaited:
            self._waiting = job
        else:
            job.start()
        return job

    def wait_for(self, what: object) -> None:
        """Have the next job begin its work only after ``go_on(what)``.

        The window can finish first what would take it much longer beside a job.
        """
        self._awaited.add(what)

    def go_on(self, what: object) -> None:
        """Begin the job that waits, if it waits for nothing else."""
        self._awaited.discard(what)
        if not self._awaited and self._waiting is not None:
            waiting, self._waiting = self._waiting, None
            waiting.start()

    def aside(
        self,
        function: Callable[[], R | Generator[Y, None, R]],
        on_return: Callable[[R], None],
        on_error: Callable[[PtsamError], None] | None = None,
        *,
        on_yield: Callable[[Y], None] | None = None,
        urgent: bool = False,
    ) -> Job:
        """Run something short in the background, also beside a long job.

        Parameters
        ----------
        function
            Called in another thread. It may be a generator, which can be stopped.
        on_return, on_error, on_yield
            Called in the GUI thread. Without `on_error`, an error is shown.
        urgent
            In a thread that is kept for this: what takes some milliseconds, and is waited for.
        """

        def once() -> Generator[Y, None, R]:
            result = function()
            if isinstance(result, Generator):
                return (yield from result)
            return result

        job = Job("aside", once, _Callbacks(on_yield, on_return, on_error or show))
        self._asides.add(job)
        job.ended.connect(self._sweep)
        if urgent and self._job is None:
            # Else the window's turns would make it several times as long.
            self.quiet.begin()
            job.ended.connect(self._end_hurry)
        job.start(self._urgent if urgent else self._pool)
        return job

    def close(self, wait_ms: int = 2000) -> None:
        """Stop what runs without calling anyone back; let short work finish."""
        if self._job is not None:
            self._job.abandon()
            self._job = self._waiting = None
            self._end_bar()
        for job in self._asides:
            job.forget()
        self._pool.waitForDone(wait_ms)
        self._urgent.waitForDone(wait_ms)

    def _advance(self, done: int, total: int) -> None:
        if self._bar is not None:
            self._bar.advance(done, total)
        self.progressed.emit(done, total)

    @Slot()
    def _on_ended(self) -> None:
        if self._job is not None and not self._job.running:
            self._job = None
            self._end_bar()
            self.finished.emit()

    @Slot()
    def _end_hurry(self) -> None:
        if self._job is None:
            self.quiet.end()

    @Slot()
    def _sweep(self) -> None:
        self._asides = {job for job in self._asides if job.running}

    def _end_bar(self) -> None:
        self.quiet.end()
        if self._bar is not None:
            self._bar.close()
            self._bar = None
