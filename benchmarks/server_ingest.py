"""Uploads to a server: while others recall, and when it is killed. Part of `benchmarks.server`."""

from __future__ import annotations

import itertools
import random
import statistics
import threading
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import httpx

from benchmarks.common import Row, row
from benchmarks.served import Served, Size, body, captions, quantile
from benchmarks.server_clients import PATH, Seen, ask_all
from harmonia.types import Record

UPLOADERS = 2


class Uploader(threading.Thread):
    """Uploads ``most`` photos with a caption, unless the server goes; with ``look`` recalls each at once.

    ``kept`` has the id of each that was acknowledged, with its bytes; ``unfound`` counts those that the
    recall of their caption, asked after it, did not bring.
    """

    def __init__(self, url: str, records: Iterator[Record], most: int, look: bool) -> None:
        super().__init__(daemon=True)
        self.url, self.records, self.most, self.look = url, records, most, look
        self.kept: dict[str, bytes] = {}
        self.taken: list[float] = []
        self.unfound = 0

    def run(self) -> None:
        """Upload."""
        with httpx.Client(base_url=self.url, timeout=60) as client:
            for record in itertools.islice(self.records, self.most):
                try:
                    self._one(client, record)
                except httpx.HTTPError:
                    return

    def _one(self, client: httpx.Client, record: Record) -> None:
        data, words = Path(str(record.parts[0].path)).read_bytes(), captions(record)[0]
        begun = time.perf_counter()
        answer = client.post("/v1/memory/records", files={"files": ("photo.jpg", data)}, data={"text": words})
        if answer.status_code not in (200, 201):
            return
        name = answer.json()["id"]
        self.taken.append(time.perf_counter() - begun)
        self.kept[name] = data
        if self.look:
            found = client.post(PATH, json={"cues": [{"text": words}], "k": 10}).json()["records"]
            self.unfound += name not in [one["id"] for one in found]


class Source(Iterator[Record]):
    """Records that several threads take from, each once."""

    def __init__(self, records: Sequence[Record]) -> None:
        self.left, self.lock = iter(records), threading.Lock()

    def __next__(self) -> Record:
        with self.lock:
            return next(self.left)


def lost(url: str, kept: dict[str, bytes]) -> int:
    """How many of what was acknowledged are not there with their photo, byte for byte."""
    missing = 0
    with httpx.Client(base_url=url, timeout=60) as client:
        for name, data in kept.items():
            answer = client.get(f"/v1/memory/records/{name}")
            media = [part["media"] for part in answer.json().get("parts", ()) if part["media"]]
            missing += not media or client.get(media[0]).content != data
    return missing


def ingest(server: Served, cues: Sequence[str], source: Source, size: Size) -> list[Row]:
    """Uploads while 16 clients recall: what is acknowledged is there, and is recalled at once."""
    several = [Uploader(server.url, source, size.uploads // UPLOADERS, look=True) for _ in range(UPLOADERS)]
    with ThreadPoolExecutor(1) as pool:
        asking = pool.submit(
            ask_all, server.url, [body(words) for words in cues], 16, max(3.0, size.seconds / 4)
        )
        for one in several:
            one.start()
        for one in several:
            one.join()
        seen: Seen = asking.result()
    kept = {name: data for one in several for name, data in one.kept.items()}
    unfound = sum(one.unfound for one in several)
    return [
        row("ingest: uploads acknowledged", len(kept), "records", goal=(">=", size.uploads * 0.95)),
        row("ingest: of them lost", lost(server.url, kept), "records", goal=("<=", 0)),
        row("ingest: of them not in the next recall", unfound, "records", goal=("<=", 0)),
        row("ingest: an upload", statistics.median(t for u in several for t in u.taken), "s"),
        row("ingest: errors of recalls meanwhile", seen.errors, "errors", goal=("<=", 0)),
        row("ingest: 16 clients' recalls meanwhile: p50", quantile(seen.taken, 0.5), "s"),
        row("ingest: 16 clients' recalls meanwhile: p99", quantile(seen.taken, 0.99), "s"),
    ]  # fmt: skip


def killed(server: Served, memory: Path, source: Source, size: Size) -> list[Row]:
    """SIGKILL among uploads, and a new server, again and again."""
    kept: dict[str, bytes] = {}
    missing, chance = 0, random.Random(0)
    for _ in range(size.kills):
        several = [Uploader(server.url, source, 1000, look=False) for _ in range(UPLOADERS)]
        for one in several:
            one.start()
        while any(one.is_alive() and len(one.kept) < size.uploads // 4 for one in several):
            time.sleep(0.01)
        time.sleep(chance.random() * 0.3)
        server.kill()
        for one in several:
            one.join()
            kept |= one.kept
        server = Served(memory)
        missing += lost(server.url, kept)
    server.kill()
    return [
        row(f"killed {size.kills} times among uploads: acknowledged", len(kept), "records", goal=(">=", 1)),
        row("killed: of them lost", missing, "records", goal=("<=", 0)),
    ]
