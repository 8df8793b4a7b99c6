"""Threaded prefetching: workers decode while the consumer encodes and commits."""

from __future__ import annotations

import queue
import threading
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Generic, TypeVar

T = TypeVar("T")
R = TypeVar("R")


@dataclass(frozen=True, slots=True)
class Produced(Generic[T, R]):
    """A result ``value`` of ``item``; None marks the end of the item, because of ``error`` if that is set."""

    item: T
    value: R | None
    error: Exception | None = None


def look_ahead(
    items: Iterable[T], produce: Callable[[T], Iterator[R]], threads: int, depth: int
) -> Iterator[Produced[T, R]]:
    """Run ``produce`` on every item in ``threads`` threads, at most ``depth`` results ahead.

    The results of one item come in order; those of several items interleave. If the iterator is closed (by an
    error or Ctrl-C), each thread stops after its current result. An exception in ``produce`` ends that item
    only; one in ``items`` is raised here.
    """
    ready: queue.Queue[Produced[T, R] | BaseException | None] = queue.Queue(maxsize=depth)
    source = iter(items)
    lock = threading.Lock()
    stop = threading.Event()

    def put(value: Produced[T, R] | BaseException | None) -> None:
        while not stop.is_set():
            try:
                ready.put(value, timeout=0.1)
                return
            except queue.Full:
                continue

    def work() -> None:
        while not stop.is_set():
            try:
                with lock:
                    item = next(source)
            except StopIteration:
                break
            except BaseException as error:
                put(error)
                break
            try:
                for value in produce(item):
                    put(Produced(item, value))
                    if stop.is_set():
                        return
                put(Produced(item, None))
            except Exception as error:
                put(Produced(item, None, error))
        put(None)

    workers = [threading.Thread(target=work, daemon=True) for _ in range(threads)]
    for worker in workers:
        worker.start()
    running = threads
    try:
        while running:
            value = ready.get()
            if value is None:
                running -= 1
            elif isinstance(value, BaseException):
                raise value
            else:
                yield value
    finally:
        stop.set()
        for worker in workers:
            worker.join()
