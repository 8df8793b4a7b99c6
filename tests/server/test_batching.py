"""Requests that share a batch, and what a client may rely on when its write was acknowledged."""

from __future__ import annotations

import asyncio
import io
import json
import logging
import os
import subprocess
import sys
import threading
import time
from collections.abc import Awaitable, Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import httpx
import pytest

from harmonia.collection.collection import Memory
from harmonia.collection.record_cache import CachedRecords
from harmonia.server.batching import Batcher
from harmonia.server.errors import ApiError
from harmonia.server.log_handler import BackgroundLogHandler
from harmonia.server.settings import Settings
from harmonia.types import HarmoniaError, Part, Record
from tests.serving import memory_of, serve

Ask = Batcher[int, int]


class Slow:
    """Doubles numbers, each batch when it is let; refuses 13, fails as a whole with 99 in it."""

    def __init__(self) -> None:
        self.batches: list[list[int]] = []
        self.let = threading.Event()
        self.begun = threading.Event()

    def __call__(self, several: Sequence[int]) -> list[int | Exception]:
        self.begun.set()
        self.let.wait(60)
        self.batches.append(list(several))
        if 99 in several:
            raise ValueError("all of it")
        return [HarmoniaError("thirteen") if one == 13 else 2 * one for one in several]


def asked(slow: Slow, ask: Callable[[Ask], Awaitable[None]], *, size: int = 4, queue: int = 100) -> None:
    """Run a conversation with a batcher of ``slow``."""

    async def run() -> None:
        batcher: Ask = Batcher(slow, executor, size=size, delay=0.001, queue=queue)
        batcher.start()
        await asyncio.wait_for(ask(batcher), 60)
        await asyncio.wait_for(batcher.stop(), 60)

    with ThreadPoolExecutor(1) as executor:
        asyncio.run(run())


async def begin(batcher: Ask, slow: Slow, first: int = 0) -> asyncio.Future[int]:
    """Ask the first question and wait until it is being answered, so that later ones gather."""
    found = asyncio.ensure_future(batcher(first))
    while not slow.begun.is_set():
        await asyncio.sleep(0.001)
    return found


def test_what_waits_is_the_next_batch() -> None:
    slow = Slow()

    async def ask(batcher: Ask) -> None:
        first = await begin(batcher, slow)
        others = [asyncio.ensure_future(batcher(i)) for i in range(1, 8)]
        await asyncio.sleep(0)
        slow.let.set()
        assert await first == 0
        assert await asyncio.gather(*others) == [2 * i for i in range(1, 8)]
        assert (batcher.batches, batcher.questions) == (3, 8)

    asked(slow, ask)
    assert slow.batches == [[0], [1, 2, 3, 4], [5, 6, 7]]


def test_an_error_belongs_to_who_asked() -> None:
    slow = Slow()

    async def ask(batcher: Ask) -> None:
        first = await begin(batcher, slow)
        others = [asyncio.ensure_future(batcher(i)) for i in (12, 13, 14)]
        await asyncio.sleep(0)
        slow.let.set()
        found = await asyncio.gather(first, *others, return_exceptions=True)
        assert found[:2] == [0, 24] and found[3] == 28 and isinstance(found[2], HarmoniaError)
        with pytest.raises(ValueError, match="all of it"):
            await batcher(99)
        assert await batcher(5) == 10  # and the next batch goes well

    asked(slow, ask)


def test_who_went_away_is_not_asked_for() -> None:
    slow = Slow()

    async def ask(batcher: Ask) -> None:
        first = await begin(batcher, slow)
        gone, there = (asyncio.ensure_future(batcher(i)) for i in (1, 2))
        await asyncio.sleep(0)
        first.cancel()  # while it is answered
        gone.cancel()  # while it waits
        slow.let.set()
        assert await there == 4

    asked(slow, ask)
    assert slow.batches == [[0], [2]]


def test_a_full_queue_says_come_again() -> None:
    slow = Slow()

    async def ask(batcher: Ask) -> None:
        first = await begin(batcher, slow)
        others = [asyncio.ensure_future(batcher(i)) for i in (1, 2)]
        await asyncio.sleep(0)
        with pytest.raises(ApiError) as refused:
            await batcher(3)
        assert refused.value.status == 503 and refused.value.headers == {"Retry-After": "1"}
        slow.let.set()
        assert await asyncio.gather(first, *others) == [0, 2, 4]

    asked(slow, ask, queue=2)


def test_stopping_answers_what_waits() -> None:
    slow = Slow()
    found: list[asyncio.Future[int]] = []

    async def ask(batcher: Ask) -> None:
        found.append(await begin(batcher, slow))
        found.extend(asyncio.ensure_future(batcher(i)) for i in (1, 2))
        await asyncio.sleep(0)
        slow.let.set()

    asked(slow, ask)
    assert [one.result() for one in found] == [0, 2, 4]


def test_records_are_read_once() -> None:
    reads: list[list[str]] = []

    def fetch(ids: Sequence[str]) -> list[Record]:
        reads.append(list(ids))
        return [Record(one, (Part("text", text=one),) * 2) for one in ids if one != "gone"]

    cached = CachedRecords(fetch, most=6)
    assert [one.id for one in cached(["a", "gone", "b"])] == ["a", "b"]
    assert [one.id for one in cached(["c", "a"])] == ["c", "a"]
    assert reads == [["a", "gone", "b"], ["c"]]
    cached(["d"])  # 8 parts are too many: b was asked for longest ago
    assert cached.parts == 6 and set(cached.held) == {"a", "c", "d"}
    assert len(CachedRecords(fetch, most=1)(["x", "y"])) == 2


def test_no_request_waits_for_who_reads_the_log() -> None:
    out, into = os.pipe()
    with os.fdopen(out, encoding="utf-8") as reader, os.fdopen(into, "w", encoding="utf-8") as stream:
        handler = BackgroundLogHandler(stream)

        def write() -> None:
            for number in range(3000):  # more than a pipe holds
                handler.emit(logging.LogRecord("x", logging.INFO, "", 0, f"{number:04d}" * 25, None, None))

        writer = threading.Thread(target=write, daemon=True)
        writer.start()
        writer.join(60)
        assert not writer.is_alive(), "it waits for a reader, who has not begun"
        lines = [next(reader) for _ in range(3000)]
        assert lines[0].startswith("0000") and lines[-1] == "2999" * 25 + "\n"
        handler.close()


def test_what_a_full_log_cannot_hold_is_lost_and_no_one_waits() -> None:
    code = (
        "import logging, sys, time\n"
        "from harmonia.server.log_handler import WAITING, BackgroundLogHandler\n"
        "log = logging.getLogger('x')\n"
        "log.addHandler(BackgroundLogHandler())\n"
        "begun = time.perf_counter()\n"
        "for number in range(2 * WAITING):\n"
        "    log.warning('%06d' % number * 20)\n"
        "print(time.perf_counter() - begun, flush=True)\n"
    )
    out, into = os.pipe()
    with os.fdopen(out, encoding="utf-8") as unread:
        with os.fdopen(into, "w") as stream:
            done = subprocess.run(
                [sys.executable, "-c", code], stdout=subprocess.PIPE, stderr=stream, timeout=60, check=True
            )
        lines = unread.read().splitlines()
    assert float(done.stdout) < 10
    assert lines[:3] == ["000000" * 20, "000001" * 20, "000002" * 20]
    assert 100 < len(lines) < 10_000


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return memory_of(tmp_path_factory.mktemp("batching"))


@pytest.fixture(scope="module")
def url(folder: Path) -> Iterator[str]:
    with serve(Settings(folder)) as found:
        yield found


def recalled(client: httpx.Client, words: str, **options: Any) -> list[dict[str, Any]]:
    answer = client.post("/v1/memory/recall", json={"cues": [{"text": words}], "k": 3, **options})
    assert answer.status_code == 200, answer.text
    found: list[dict[str, Any]] = answer.json()["records"]
    return found


def test_an_acknowledged_change_is_seen_by_the_next_recall(url: str) -> None:
    """While other clients recall all the time, so that batches are always under way."""
    done = threading.Event()
    failures: list[int] = []

    def others() -> None:
        with httpx.Client(base_url=url, timeout=30) as client:
            while not done.is_set():
                answer = client.post("/v1/memory/recall", json={"cues": [{"text": "a red thing"}]})
                failures.extend([answer.status_code] if answer.status_code != 200 else [])
                time.sleep(0.01)

    threads = [threading.Thread(target=others) for _ in range(2)]
    for thread in threads:
        thread.start()
    try:
        with httpx.Client(base_url=url, timeout=30) as client:
            for number in range(2):
                words = f"the harbour of Valparaíso at dusk, plate {number}"
                name = client.post("/v1/memory/records", files={"text": (None, words)}).json()["id"]
                assert recalled(client, words)[0]["id"] == name
                client.patch(f"/v1/memory/records/{name}", json={"metadata": {"plate": number}})
                found = recalled(client, words, where=f"plate = {number}")
                assert [one["id"] for one in found] == [name] and found[0]["metadata"]["plate"] == number
                assert client.delete(f"/v1/memory/records/{name}").status_code == 200
                assert name not in [one["id"] for one in recalled(client, words)]
    finally:
        done.set()
        for thread in threads:
            thread.join()
    assert not failures


def test_a_job_that_is_completed_is_seen_by_the_next_recall(url: str) -> None:
    with httpx.Client(base_url=url, timeout=30) as client:
        note = io.BytesIO(b"three hedgehogs under the walnut tree")
        file = client.post(
            "/v1/files", files={"file": ("note.txt", note)}, data={"purpose": "user_data"}
        ).json()["id"]
        job = client.post("/v1/memory/jobs", json={"files": [file]}).json()
        until = time.monotonic() + 60
        while job["state"] not in ("completed", "failed") and time.monotonic() < until:
            job = client.get(f"/v1/memory/jobs/{job['id']}").json()
        assert job["state"] == "completed", json.dumps(job)
        first = recalled(client, "hedgehogs under the walnut tree")[0]
        assert "hedgehogs" in first["parts"][0]["text"]


def test_what_another_process_remembers_is_seen_soon(url: str, folder: Path) -> None:
    words = "a lighthouse keeper paints his boat"
    with httpx.Client(base_url=url, timeout=30) as client:
        Memory(folder).remember(Record("", (Part("text", text=words),)))
        until = time.monotonic() + 60
        while not any(p["text"] == words for p in recalled(client, words)[0]["parts"]):
            assert time.monotonic() < until, "it was never seen"
            time.sleep(0.1)


def test_a_pinned_memory_answers_from_what_it_was(folder: Path) -> None:
    memory = Memory(folder)
    pinned = memory.pinned()
    before = pinned.state
    assert [one.record.id for one in pinned.recall("milk").records] == [
        one.record.id for one in memory.recall("milk").records
    ]
    words = "a glass of oat milk for the violinist"
    memory.remember(Record("", (Part("text", text=words),)))
    assert pinned.state != before
    assert memory.recall(words).records[0].record.parts[0].text == words
    assert all(one.record.parts[0].text != words for one in pinned.recall(words).records)
    assert pinned.pinned().recall(words).records[0].record.parts[0].text == words
