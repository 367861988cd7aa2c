"""Reading, computing and writing at the same time, in a few threads and little memory."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Generator, Iterable
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any, TypeVar

T = TypeVar("T")

DEPTH = 2
"""Items that may wait before and after the computation."""


def overlapped(
    items: Iterable[T],
    read: Callable[[T], Any],
    compute: Callable[[Any], Any],
    write: Callable[[T, Any], None],
    *,
    depth: int = DEPTH,
) -> Generator[T, None, None]:
    """Read the next items and write the last ones while one is computed.

    Computing happens in the thread that asks for items, reading and writing in one thread each.
    Closing the generator waits for what these two are at, and ends them.

    Parameters
    ----------
    items
        What to work on, in order.
    read, compute, write
        From an item to its data, to its result, to the disk.
    depth
        How many items are read ahead, and how many results may wait.

    Yields
    ------
    Each item once it is written, in order.
    """
    readers = ThreadPoolExecutor(1, thread_name_prefix="ptsam-read")
    writers = ThreadPoolExecutor(1, thread_name_prefix="ptsam-write")
    reading: deque[tuple[T, Future[Any]]] = deque()
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
        while reading:
            item, data = reading.popleft()
            found = data.result()
            read_ahead()
            writing.append((item, writers.submit(write, item, compute(found))))
            del data, found
            while writing and (len(writing) > depth or writing[0][1].done()):
                yield _finished(writing)
        while writing:
            yield _finished(writing)
    finally:
        for pool in (readers, writers):
            pool.shutdown(wait=True, cancel_futures=True)


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
