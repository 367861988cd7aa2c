"""An interrupt ends long work, wherever Python raised it."""

from __future__ import annotations

import contextlib
import io
import signal

import pytest

from napari_ptsam.progress import Progress


def test_an_interrupt_that_was_swallowed_ends_the_work_at_the_next_update() -> None:
    before = signal.getsignal(signal.SIGINT)
    signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        with Progress(io.StringIO()) as progress:
            progress.update("working", 1, 3)
            with contextlib.suppress(KeyboardInterrupt):
                signal.raise_signal(signal.SIGINT)
            with pytest.raises(KeyboardInterrupt):
                progress.update("working", 2, 3)
        assert signal.getsignal(signal.SIGINT) is signal.default_int_handler
        with Progress(io.StringIO()) as progress:
            progress.update("working", 1, 3)
    finally:
        signal.signal(signal.SIGINT, before)


def test_a_handler_of_somebody_else_is_left_alone() -> None:
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        with Progress(io.StringIO()) as progress:
            signal.raise_signal(signal.SIGINT)
            progress.update("working", 1, 3)
            assert signal.getsignal(signal.SIGINT) is signal.SIG_IGN
    finally:
        signal.signal(signal.SIGINT, before)
