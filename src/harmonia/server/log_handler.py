"""A log handler that writes in its own thread, so that no request waits for it."""

from __future__ import annotations

import logging
import queue
import sys
from contextlib import suppress
from logging.handlers import QueueHandler, QueueListener
from typing import TextIO

WAITING = 10_000
"""Most queued lines; further lines are dropped."""
ENDING = 1.0
"""Seconds to write the queued lines on close."""

Lines = queue.Queue[logging.LogRecord | None]


class BackgroundLogHandler(QueueHandler):
    """Writes to a stream (standard error by default) without blocking on a slow reader."""

    def __init__(self, stream: TextIO | None = None) -> None:
        self.lines: Lines = queue.Queue(WAITING)
        super().__init__(self.lines)
        _Writer(self.lines, stream or sys.stderr).start()

    def enqueue(self, record: logging.LogRecord) -> None:
        """Queue a line, or drop it if the queue is full."""
        with suppress(queue.Full):
            self.lines.put_nowait(record)

    def close(self) -> None:
        """Write the queued lines, for at most ``ENDING`` seconds."""
        # QueueListener.stop would block forever on a stalled reader
        with suppress(queue.Full):
            self.lines.put(None, timeout=ENDING)
            with self.lines.all_tasks_done:
                self.lines.all_tasks_done.wait_for(lambda: not self.lines.unfinished_tasks, ENDING)
        super().close()


class _Writer(QueueListener):
    """Writes without a StreamHandler, whose lock would block the exit of Python on a stalled reader."""

    def __init__(self, lines: Lines, stream: TextIO) -> None:
        super().__init__(lines)
        self.stream = stream

    def handle(self, record: logging.LogRecord) -> None:
        """Write one line."""
        with suppress(OSError, ValueError):  # the reader is gone
            self.stream.write(f"{record.message}\n")
            self.stream.flush()
