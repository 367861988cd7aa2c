"""Calls that wait, and are forgotten with the object that they belong to."""

from __future__ import annotations

from collections.abc import Callable

from qtpy.QtCore import QObject, QTimer


def later(owner: QObject, slot: Callable[[], object], ms: int = 0) -> None:
    """Call `slot` from the event loop, unless `owner` is gone by then.

    Parameters
    ----------
    owner
        Lives in the GUI thread.
    slot
        What to call.
    ms
        Milliseconds from now; with 0 as soon as what waits is done.
    """
    timer = QTimer(owner)
    timer.setSingleShot(True)
    timer.timeout.connect(slot)
    timer.timeout.connect(timer.deleteLater)
    timer.start(ms)


def in_turn(owner: QObject, *slots: Callable[[], object]) -> None:
    """Call one after the other, and let the window live in between; see `later`.

    The others are called also if one raises.
    """
    first, *rest = slots

    def call() -> None:
        try:
            first()
        finally:
            if rest:
                in_turn(owner, *rest)

    later(owner, call)
