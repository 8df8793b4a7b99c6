"""What a function allocates, told by a process in which nothing else runs."""

from __future__ import annotations

import multiprocessing
import tracemalloc
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from typing import Any


def peak_of(function: Callable[..., Any], *arguments: Any) -> tuple[Any, int]:
    """What ``function`` of a module returns, and the most bytes that Python objects held meanwhile.

    tracemalloc sees every thread of a process, also those that earlier tests left.
    """
    with ProcessPoolExecutor(1, multiprocessing.get_context("spawn")) as alone:
        return alone.submit(_traced, function, arguments).result()


def _traced(function: Callable[..., Any], arguments: tuple[Any, ...]) -> tuple[Any, int]:
    tracemalloc.start()
    found = function(*arguments)
    return found, tracemalloc.get_traced_memory()[1]
