"""How long a window does not answer, and who keeps it from answering.

A timer ticks on the GUI thread, and another thread looks at the GUI thread's stack whenever a tick
is late. A pause is charged to

- *plugin* where a function of the plugin is on the stack, also where it called napari;
- *napari* where Python code runs on the GUI thread, and none of it is the plugin's;
- *Qt* where the GUI thread computes outside of Python, as in drawing its controls;
- *lock* where the GUI thread wants to run Python code, and another thread holds the interpreter;
- *computer* where the whole process computed during less than half of it: other programs had
  the processor, or the disk was waited for. On a computer with nothing else to do there is none.
"""

from __future__ import annotations

import sys
import threading
import time
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from types import FrameType
from typing import Any

import numpy as np
from numpy.typing import NDArray
from qtpy.QtCore import Qt, QTimer

TICK_MS = 10
LOOK_SECONDS = 0.005
LATE_SECONDS = 0.03
"""Pauses from here on are looked into."""

LOCKED_SECONDS = 0.03
"""A thread that sleeps `LOOK_SECONDS` wakes up this late only where it waits for the lock."""

NAMED_MS = 50.0
"""Pauses from here on are named in the summary."""

PLUGIN = "/napari_ptsam/"
BY_THE_PLUGIN = ("plugin", "lock")
"""Causes that are the plugin's: what it does in the GUI thread, and its work in others."""

OWN = ("/benchmarks/",)
DEPTH = 6


@dataclass(frozen=True)
class _Look:
    """What was seen of the GUI thread, and of the others, at one moment."""

    at: float
    late: bool
    gui: tuple[str, ...]
    others: tuple[tuple[str, ...], ...]


@dataclass
class Pause:
    """A time in which the window did not answer.

    Attributes
    ----------
    ms, busy_ms, computed_ms
        How long, and how long the GUI thread and the whole process computed in it.
    cause
        See the module.
    where
        The innermost functions, seen most often.
    """

    ms: float
    busy_ms: float
    computed_ms: float
    cause: str
    where: str

    def __str__(self) -> str:
        return (
            f"{self.ms:.0f} ms ({self.busy_ms:.0f} in the GUI thread, {self.computed_ms:.0f} in "
            f"all), {self.cause}: {self.where}"
        )


@dataclass
class _Watcher:
    """Looks at the stacks while a tick is late. Runs in a thread of its own."""

    gui: int
    last: float = 0.0
    looks: list[_Look] = field(default_factory=list)
    done: threading.Event = field(default_factory=threading.Event)

    def run(self) -> None:
        woken = time.perf_counter()
        while not self.done.wait(LOOK_SECONDS):
            now = time.perf_counter()
            late, woken = now - woken > LOCKED_SECONDS, now
            if late or now - self.last > LATE_SECONDS:
                self.looks.append(self._look(now, late))

    def _look(self, now: float, late: bool) -> _Look:
        frames = sys._current_frames()
        me = threading.get_ident()
        others = (_stack(f) for thread, f in frames.items() if thread not in (me, self.gui))
        busy = tuple(stack for stack in others if stack and not _waits(stack))
        return _Look(now, late, _stack(frames.get(self.gui)), busy)


class Stalls:
    """Pauses between the ticks of a timer on the GUI thread, while it is entered."""

    def __init__(self) -> None:
        self._timer = QTimer()
        self._timer.setTimerType(Qt.TimerType.PreciseTimer)
        self._timer.timeout.connect(self._tick)
        self._ticks: list[tuple[float, float, float]] = []
        self._watcher = _Watcher(threading.get_ident())

    def _tick(self) -> None:
        now = time.perf_counter()
        self._watcher.last = now
        self._ticks.append((now, time.thread_time(), time.process_time()))

    def __enter__(self) -> Stalls:
        self._watcher = _Watcher(threading.get_ident())
        self._ticks = []
        self._tick()
        self._timer.start(TICK_MS)
        self._thread = threading.Thread(target=self._watcher.run, daemon=True)
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._timer.stop()
        self._watcher.done.set()
        self._thread.join()

    def pauses(self, at_least_ms: float = NAMED_MS) -> list[Pause]:
        """Those of this length, the longest first."""
        found = []
        ticks = np.array(self._ticks)
        for begin, taken in zip(ticks[:-1, 0], np.diff(ticks, axis=0), strict=True):
            if taken[0] * 1000 >= at_least_ms:
                end = begin + taken[0] + LOOK_SECONDS
                looks = [x for x in self._watcher.looks if begin < x.at <= end]
                found.append(_explained(taken * 1000, looks))
        return sorted(found, key=lambda pause: -pause.ms)

    def summary(self) -> dict[str, Any]:
        """Percentiles in ms, the longest pause of each cause, and the longest in words."""
        gaps = np.diff([at for at, _, _ in self._ticks]) * 1000
        p50, p99 = np.percentile(gaps, (50, 99))
        longest: dict[str, float] = {}
        for pause in self.pauses():
            longest.setdefault(pause.cause, round(pause.ms, 1))
        return {
            "p50_ms": round(float(p50), 2),
            "p99_ms": round(float(p99), 2),
            "max_ms": round(float(gaps.max()), 2),
            "over_100_ms": int((gaps > 100).sum()),
            "seconds": round(float(gaps.sum()) / 1000, 1),
            "longest_ms": longest,
            "pauses": [str(pause) for pause in self.pauses()[:8]],
        }


def _explained(taken: NDArray[np.float64], looks: list[_Look]) -> Pause:
    """A pause from its milliseconds, those of the GUI thread and of the process, and the looks."""
    ms, busy, computed = taken
    ours = [x for x in looks if any(PLUGIN in call for call in x.gui)]
    python = [x for x in looks if x.gui and not _is_loop(x.gui)]
    locked = [x for x in looks if x.late]
    cause, shown = "Qt", [x.gui for x in looks]
    if computed < ms / 2:
        cause, shown = "computer", [stack for x in looks for stack in (x.gui, *x.others)]
    elif busy < ms / 3:
        cause, shown = "lock", [stack for x in locked or looks for stack in x.others]
    elif len(ours) * 2 > len(looks):
        cause, shown = "plugin", [x.gui for x in ours]
    elif len(python) * 2 > len(looks):
        cause, shown = "napari", [x.gui for x in python]
    counted = Counter(" < ".join(_told(stack)) for stack in shown if stack)
    where = counted.most_common(1)[0][0] if counted else "not seen"
    return Pause(float(ms), float(busy), float(computed), cause, where)


def _told(stack: tuple[str, ...]) -> list[str]:
    """The innermost calls, and the plugin's innermost if it is not among them."""
    names = [call.replace("\\", "/").rpartition("site-packages/")[2] for call in stack]
    told = names[:DEPTH]
    ours = next((n for n in names if PLUGIN in n), None)
    if ours is not None and ours not in told:
        told += ["...", ours]
    return [f"{Path(name).parent.name}/{Path(name).name}" for name in told if name != "..."]


def _stack(frame: FrameType | None) -> tuple[str, ...]:
    """The calls of a thread, the innermost first."""
    found = []
    while frame is not None:
        code = frame.f_code
        found.append(f"{code.co_filename}:{frame.f_lineno} {code.co_name}")
        frame = frame.f_back
    return tuple(found)


def _is_loop(stack: tuple[str, ...]) -> bool:
    """Whether nothing is called but the event loop, by what measures."""
    return any(own in stack[0] for own in OWN)


def _waits(stack: tuple[str, ...]) -> bool:
    return any(f"/{name}.py:" in stack[0] for name in ("threading", "queue", "selectors"))
