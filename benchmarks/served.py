"""What the benchmarks of the server share: the process, its memories of real photos, sizes."""

from __future__ import annotations

import itertools
import json
import math
import os
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

import httpx
import psutil

from benchmarks.common import REPOSITORY
from harmonia.collection.collection import Memory
from harmonia.datasets.flickr import flickr8k
from harmonia.types import Part, Record


@dataclass(frozen=True)
class Size:
    """How much is done."""

    records: int = 1000
    large: int = 10_000
    trained: int = 6000
    seconds: float = 60.0
    turns: int = 4
    requests: int = 10_000
    singles: int = 60
    uploads: int = 60
    kills: int = 3


QUICK = Size(
    records=400, large=500, trained=400, seconds=5.0, turns=2, requests=1000, singles=12, uploads=10, kills=1
)


class Served:
    """A server process: ``url``, and ``startup``, the seconds from its start until it was ready."""

    def __init__(self, memory: Path) -> None:
        begun = time.perf_counter()
        command = [sys.executable, "-m", "harmonia", "serve", "-m", str(memory), "--port", "0"]
        self.process = subprocess.Popen(
            command, cwd=REPOSITORY, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True,
            env={**os.environ, "OMP_NUM_THREADS": "1"},
        )  # fmt: skip
        assert self.process.stdout is not None
        self.url = self.process.stdout.readline().strip()
        while httpx.get(f"{self.url}/ready").status_code != 200:
            time.sleep(0.01)
        self.startup = time.perf_counter() - begun
        self.measured = psutil.Process(self.process.pid)

    def rss(self) -> float:
        """MiB of RAM that the process holds."""
        return float(self.measured.memory_info().rss) / 2**20

    def cpu(self) -> float:
        """Seconds of computing so far."""
        times = self.measured.cpu_times()
        return float(times.user + times.system)

    def kill(self) -> None:
        """SIGKILL."""
        self.process.kill()
        self.process.wait()


@contextmanager
def served(memory: Path) -> Iterator[Served]:
    """A server that is told to stop at the end."""
    server = Served(memory)
    try:
        yield server
    finally:
        server.process.terminate()
        server.process.wait(60)


def photos(data: Path, split: str, count: int) -> list[Record]:
    """The first photos with their captions."""
    found = (one for one in flickr8k(data / "flickr8k", split) if isinstance(one, Record))
    return list(itertools.islice(found, count))


def captions(record: Record) -> list[str]:
    """The captions of a photo."""
    return [part.text for part in record.parts if part.text is not None]


def small(data: Path, folder: Path, count: int) -> list[str]:
    """A memory of photos with captions 1 to 4; captions 0."""
    several = photos(data, "val", count)
    kept = [replace(one, parts=(one.parts[0], *one.parts[2:])) for one in several]
    Memory(folder).remember(kept, copy=True)
    return [captions(one)[0] for one in several]


def large(trained: Sequence[Record], folder: Path, count: int) -> None:
    """A memory of one photo with a caption to four captions alone."""
    pictured = [replace(one, parts=one.parts[:2]) for one in trained[: count // 5]]
    words = dict.fromkeys(text for one in trained for text in captions(one)[1:])
    several = itertools.islice(words, count - len(pictured))
    notes = [Record("", (Part("text", text=text),)) for text in several]
    Memory(folder).remember([*pictured, *notes], copy=True)


def body(words: str) -> str:
    """A recall by words."""
    return json.dumps({"cues": [{"text": words}]})


def quantile(taken: Sequence[float], q: float) -> float:
    """The smallest time that a share ``q`` of all does not exceed."""
    return sorted(taken)[max(0, math.ceil(q * len(taken)) - 1)]
