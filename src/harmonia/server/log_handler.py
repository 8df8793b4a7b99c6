"""A log that no request waits for: its lines are written in a thread of their own."""

from __future__ import annotations

import logging
import queue
import sys
import threading
import time
from typing import TextIO

TOGETHER = 0.05
"""Seconds for which lines gather, to be written at once."""
WAITING = 10_000
"""Most lines that wait for a reader who does not read; what comes then is lost."""


class Aside(logging.Handler):
    """Writes to a stream (standard error by default), so that a slow reader of it holds up no one."""

    def __init__(self, stream: TextIO | None = None) -> None:
        super().__init__()
        self.stream = stream or sys.stderr
        self.lines: queue.Queue[str | None] = queue.Queue(WAITING)
        self.thread = threading.Thread(target=self._write, name="log", daemon=True)
        self.thread.start()

    def emit(self, record: logging.LogRecord) -> None:
        """Put the line with those that wait."""
        try:
            self.lines.put_nowait(self.format(record))
        except queue.Full:
            return
        except Exception:
            self.handleError(record)

    def close(self) -> None:
        """Write what waits, if that can be done soon."""
        if self.thread.is_alive():
            try:
                self.lines.put(None, timeout=1)
            except queue.Full:
                pass
            else:
                self.thread.join(1)
        super().close()

    def _write(self) -> None:
        more = True
        while more:
            several = [self.lines.get()]
            if several[0] is not None:
                time.sleep(TOGETHER)
            while not self.lines.empty():
                several.append(self.lines.get())
            more = None not in several
            try:
                self.stream.write("".join(f"{line}\n" for line in several if line is not None))
                self.stream.flush()
            except (OSError, ValueError):
                continue  # nobody reads: there is no one to tell
