"""Progress of long work: a bar on a terminal, plain lines elsewhere."""

from __future__ import annotations

import signal
import threading
import time
from collections.abc import Callable
from types import FrameType, TracebackType
from typing import TextIO

from tqdm import tqdm


class Progress:
    """Shows how far work has come, in one or several phases.

    An interrupt (Ctrl+C) that comes while it is open ends the work at the next `update` at the
    latest. Python raises it wherever the program is just then, and where that is a destructor or
    an import that tolerates failures, it would be lost.

    Parameters
    ----------
    stream
        Where to write. A bar when it is a terminal; otherwise the first and
        the last line of each phase and one line per `interval` between them,
        so that logs stay short.
    interval
        Seconds between plain lines.
    clock
        Seconds that only ever grow.
    """

    def __init__(
        self, stream: TextIO, interval: float = 5.0, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._stream = stream
        self._interval = interval
        self._clock = clock
        self._terminal = stream.isatty()
        self._phase: str | None = None
        self._printed_at = 0.0
        self._bar: tqdm[None] | None = None
        self._interrupted = False
        self._listening = False

    def __enter__(self) -> Progress:
        # Elsewhere Python allows no handlers; and a handler of somebody else's stays.
        main = threading.current_thread() is threading.main_thread()
        if main and signal.getsignal(signal.SIGINT) is signal.default_int_handler:
            signal.signal(signal.SIGINT, self._on_interrupt)
            self._listening = True
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._close_bar()
        if self._listening:
            signal.signal(signal.SIGINT, signal.default_int_handler)
            self._listening = False

    def _on_interrupt(self, number: int, frame: FrameType | None) -> None:
        self._interrupted = True
        signal.default_int_handler(number, frame)

    def update(self, phase: str, done: int, total: int | None, note: str = "") -> None:
        """Say that `done` of `total` steps of a phase are done; None if nobody knows how many.

        Parameters
        ----------
        phase
            Name of the phase; a new name starts a new bar.
        note
            More to show beside it, for instance the loss.

        Raises
        ------
        KeyboardInterrupt
            If an interrupt came meanwhile.
        """
        if self._interrupted:
            raise KeyboardInterrupt
        if self._terminal:
            self._draw(phase, done, total, note)
        else:
            self._print(phase, done, total, note)
        self._phase = phase

    def _draw(self, phase: str, done: int, total: int | None, note: str) -> None:
        if self._bar is None or phase != self._phase:
            self._close_bar()
            self._bar = tqdm(total=total, desc=phase, file=self._stream, dynamic_ncols=True)
        self._bar.set_postfix_str(note, refresh=False)
        self._bar.update(done - self._bar.n)

    def _print(self, phase: str, done: int, total: int | None, note: str) -> None:
        now = self._clock()
        too_soon = now - self._printed_at < self._interval
        if too_soon and phase == self._phase and done != total:
            return
        self._printed_at = now
        share = f"{done}" if total is None else f"{done}/{total}"
        print(f"{phase} {share}" + (f", {note}" if note else ""), file=self._stream)
        self._stream.flush()

    def _close_bar(self) -> None:
        if self._bar is not None:
            self._bar.close()
            self._bar = None
