"""Reading, computing and writing at the same time, in a few threads and little memory."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Generator, Iterable
from concurrent.futures import Executor, Future, ThreadPoolExecutor
from typing import Any, TypeVar

import torch

from napari_ptsam.backbones import Backbone
from napari_ptsam.devices import one_core

T = TypeVar("T")

DEPTH = 2
"""Items that may wait before and after the computation."""

MOST_AT_ONCE = 8
"""Planes computed at the same time, at most: each takes memory."""


def side_by_side(backbone: Backbone, planes: int) -> int:
    """How many of so many planes are best computed at the same time, each in one thread.

    The embedded backbone is small: with several threads for one plane they mostly wait for each
    other. A ViT has work for all of them, and another device does one thing after the other.
    Fewer planes than threads would leave cores idle.
    """
    if backbone.device.type != "cpu" or not backbone.is_embedded:
        return 1
    count = min(torch.get_num_threads(), MOST_AT_ONCE)
    return count if planes >= count else 1


def overlapped(
    items: Iterable[T],
    read: Callable[[T], Any],
    compute: Callable[[Any], Any],
    write: Callable[[T, Any], None],
    *,
    at_once: int = 1,
    depth: int = DEPTH,
) -> Generator[T, None, None]:
    """Read the next items and write the last ones while others are computed.

    Reading and writing happen in one thread each. Closing the generator waits for what its
    threads are at, and ends them.

    Parameters
    ----------
    items
        What to work on, in order.
    read, compute, write
        From an item to its data, to its result, to the disk.
    at_once
        How many items are computed at the same time, each with one core. A single one is
        computed in the thread that asks for items, with all cores.
    depth
        How many items are read ahead, and how many results may wait.

    Yields
    ------
    Each item once it is written, in order.
    """
    readers = ThreadPoolExecutor(1, thread_name_prefix="ptsam-read")
    computers = _computers(at_once)
    writers = ThreadPoolExecutor(1, thread_name_prefix="ptsam-write")
    reading: deque[tuple[T, Future[Any]]] = deque()
    computing: deque[tuple[T, Future[Any]]] = deque()
    writing: deque[tuple[T, Future[None]]] = deque()
    waiting = iter(items)

    def read_ahead() -> None:
        while len(reading) < depth:
            try:
                item = next(waiting)
            except StopIteration:
                return
            reading.append((item, readers.submit(read, item)))

    try:
        read_ahead()
        while reading or computing:
            while reading and len(computing) < at_once:
                item, data = reading.popleft()
                found = data.result()
                read_ahead()
                computing.append((item, computers.submit(compute, found)))
                del data, found
            item, result = computing.popleft()
            writing.append((item, writers.submit(write, item, result.result())))
            del result
            while writing and (len(writing) > depth or writing[0][1].done()):
                yield _finished(writing)
        while writing:
            yield _finished(writing)
    finally:
        for pool in (readers, computers, writers):
            pool.shutdown(wait=True, cancel_futures=True)


class _Caller(Executor):
    """Computes in the thread that asks for it, which may have others to help it."""

    def submit(self, call: Callable[..., T], /, *args: Any, **kwargs: Any) -> Future[T]:
        """Do it now."""
        done: Future[T] = Future()
        done.set_result(call(*args, **kwargs))
        return done


def _computers(count: int) -> Executor:
    """Several threads with a core each; a single one is the caller's, with all cores."""
    if count == 1:
        return _Caller()
    return ThreadPoolExecutor(count, thread_name_prefix="ptsam-compute", initializer=one_core)


def _finished(writing: deque[tuple[T, Future[None]]]) -> T:
    item, done = writing.popleft()
    done.result()
    return item


def ahead(items: Iterable[T], depth: int = DEPTH) -> Generator[T, None, None]:
    """The items, of which the next ones are made in another thread while one is in use."""
    waiting = iter(items)
    end = object()
    with ThreadPoolExecutor(1, thread_name_prefix="ptsam-draw") as pool:
        made = deque(pool.submit(next, waiting, end) for _ in range(depth))
        try:
            while (item := made.popleft().result()) is not end:
                made.append(pool.submit(next, waiting, end))
                yield item  # type: ignore[misc]
        finally:
            pool.shutdown(wait=False, cancel_futures=True)
