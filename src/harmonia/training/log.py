"""The log of a run: progress bar, console, metrics.jsonl and TensorBoard."""

from __future__ import annotations

import json
import os
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from tqdm import tqdm

METRICS = "metrics.jsonl"
Line = dict[str, float]


def read(file: Path, end: int) -> tuple[list[Line], int]:
    """The lines of a metrics.jsonl up to step ``end``, and how many bytes they take."""
    lines, size = [], 0
    for text in file.read_bytes().splitlines(keepends=True) if file.exists() else []:
        # A kill can leave half a line at the end.
        if not text.endswith(b"\n") or (line := json.loads(text))["step"] > end:
            break
        lines.append(line)
        size += len(text)
    return lines, size


class Log:
    """The log of one process; only the ``main`` process writes and shows anything.

    Lines after step ``start`` of an interrupted run are dropped: the resumed run writes them again.
    """

    def __init__(self, folder: Path, *, start: int, steps: int, batch: int, main: bool) -> None:
        self.batch, self.main = batch, main
        self.lines, size = read(folder / METRICS, start)
        self.clock = time.perf_counter()
        self.counted = start
        if not main:
            return
        self.file = (folder / METRICS).open("a", encoding="utf-8")
        self.file.truncate(size)
        # disable=None: no bar where the console is a file; lines are printed there instead.
        self.bar = tqdm(total=steps, initial=start, unit="step", disable=None, dynamic_ncols=True)
        self.board = _board(folder / "tensorboard", start)

    @contextmanager
    def paused(self) -> Iterator[None]:
        """Exclude the time of the block from samples per second."""
        since = time.perf_counter()
        yield
        self.clock += time.perf_counter() - since

    def speed(self, step: int) -> float:
        """Samples per second since the last call."""
        now = time.perf_counter()
        speed = (step - self.counted) * self.batch / max(now - self.clock, 1e-9)
        self.clock, self.counted = now, step
        return speed

    def advance(self) -> None:
        """One step of the bar."""
        if self.main:
            self.bar.update()

    def write(self, line: Line) -> None:
        """Add a line, which has its ``step``, to every log."""
        self.lines.append(line)
        if not self.main:
            return
        self.file.write(json.dumps(line) + "\n")
        self.file.flush()
        if self.board is not None:
            for name, value in line.items():
                if name != "step":
                    self.board.add_scalar(name, value, int(line["step"]))
        shown = {name: f"{value:.4g}" for name, value in line.items() if name != "step"}
        if self.bar.disable or any(name.startswith("evaluation/") for name in line):
            text = "  ".join(f"{name} {value}" for name, value in shown.items())
            tqdm.write(f"step {int(line['step'])}  {text}", file=sys.stderr)
        self.bar.set_postfix(
            {k: v for k, v in shown.items() if k.startswith(("loss", "samples"))}, refresh=False
        )

    def sync(self) -> None:
        """Flush the log to the disk, before a checkpoint."""
        if self.main:
            os.fsync(self.file.fileno())

    def close(self) -> None:
        """Close the file, the bar and the board."""
        if not self.main:
            return
        self.bar.close()
        self.file.close()
        if self.board is not None:
            self.board.close()


def _board(folder: Path, start: int) -> Any:
    """A TensorBoard writer where tensorboard is installed, else None."""
    if find_spec("tensorboard") is None:
        return None
    from torch.utils.tensorboard import SummaryWriter

    return SummaryWriter(str(folder), purge_step=start + 1 if start else None)
