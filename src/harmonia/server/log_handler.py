"""A log that no request waits for: its lines are written in a thread of their own."""

from __future__ import annotations

import logging
import queue
import sys
from contextlib import suppress
from logging.handlers import QueueHandler, QueueListener
from typing import TextIO

WAITING = 10_000
"""Most lines that wait for a reader who does not read; what comes then is lost."""
ENDING = 1.0
"""Seconds in which the lines that wait are written at the end."""

Lines = queue.Queue[logging.LogRecord | None]


class BackgroundLogHandler(QueueHandler):
    """Writes to a stream (standard error by default), so that a slow reader of it holds up no one."""

    def __init__(self, stream: TextIO | None = None) -> None:
        self.lines: Lines = queue.Queue(WAITING)
        super().__init__(self.lines)
        _Writer(self.lines, stream or sys.stderr).start()

    def enqueue(self, record: logging.LogRecord) -> None:
        """Put the line with those that wait."""
        with suppress(queue.Full):
            self.lines.put_nowait(record)

    def close(self) -> None:
        """Write what waits, if that can be done soon."""
        # QueueListener.stop would wait for ever for a reader who does not read.
        with suppress(queue.Full):
            self.lines.put(None, timeout=ENDING)
            with self.lines.all_tasks_done:
                self.lines.all_tasks_done.wait_for(lambda: not self.lines.unfinished_tasks, ENDING)
        super().close()


class _Writer(QueueListener):
    """Writes itself: a StreamHandler holds a lock while it writes, for which the end of Python would wait."""

    def __init__(self, lines: Lines, stream: TextIO) -> None:
        super().__init__(lines)
        self.stream = stream

    def handle(self, record: logging.LogRecord) -> None:
        """Write one line."""
        with suppress(OSError, ValueError):  # nobody reads: there is no one to tell
            self.stream.write(f"{record.message}\n")
            self.stream.flush()
