"""The store under several processes, sudden death, and a full disk."""

from __future__ import annotations

import multiprocessing
import os
import random
import resource
import signal
import threading
import time
from collections.abc import Iterator
from datetime import timedelta
from multiprocessing.context import ForkServerProcess
from pathlib import Path

import numpy as np
import pytest

from harmonia.store import EncoderInfo, FileState, put_media
from harmonia.store.lance.store import LanceStore
from harmonia.types import Code, HarmoniaError, Part, Record

ENCODER = EncoderInfo("e", "image", "s", 32)
PIECES = 3
TOTAL = 400


def record(number: int) -> Record:
    """A record that says of itself whether it is whole: three parts, codes known by number."""
    parts = tuple(
        Part("image", f"/m/{number}", None, i, i + 1, str(number), Code("image", code(number, i), "s"))
        for i in range(PIECES)
    )
    return Record(f"{number:06}", parts, {"number": number, f"key{number % 5}": "x"})


def code(number: int, piece: int) -> np.ndarray:
    row = np.random.default_rng((number, piece)).standard_normal(32).astype(np.float32)
    return row / np.linalg.norm(row)


def state(number: int) -> FileState:
    return FileState(f"/m/{number}", 1, 2, str(number), f"{number:06}")


def add_range(root: str, numbers: range, batch: int) -> None:
    """In another process: add records, few at a time, removing and adding some again."""
    store = LanceStore.open(root)
    for start in range(0, len(numbers), batch):
        some = numbers[start : start + batch]
        store.add([record(n) for n in some], [state(n) for n in some])
        if start % 5 == 0:
            store.remove([f"{some[0]:06}"])
            store.add([record(some[0])], [state(some[0])])


def assert_whole(store: LanceStore) -> set[int]:
    """Every record that is there has all its parts, codes and metadata, once."""
    records = store.records()
    ids = [r.id for r in records]
    assert len(set(ids)) == len(ids)
    for found in records:
        assert found == record(int(found.id))
    table = store.codes()
    codes = table.encoders["e"]
    rows = np.arange(len(table.record_ids))
    np.testing.assert_array_equal(codes.record, np.repeat(rows, PIECES))
    for row in range(0, len(codes.record), 7):
        number = int(table.record_ids[codes.record[row]])
        np.testing.assert_array_equal(codes.codes[row], code(number, codes.part[row]))
    return {int(i) for i in ids}


@pytest.fixture(scope="module")
def processes() -> multiprocessing.context.ForkServerContext:
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["harmonia.store"])
    return context


@pytest.fixture
def store(tmp_path: Path) -> LanceStore:
    return LanceStore.create(tmp_path / "memory", [ENCODER])


@pytest.fixture
def file_size_limit() -> Iterator[None]:
    """Writes beyond 64 KiB of a file fail, as they do on a full disk."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1 << 16, before[1]))
    yield
    resource.setrlimit(resource.RLIMIT_FSIZE, before)


def test_two_writers_and_a_reader(
    store: LanceStore, processes: multiprocessing.context.ForkServerContext
) -> None:
    ranges = range(120), range(60, 180)
    writers = [processes.Process(target=add_range, args=(str(store.root), r, 4)) for r in ranges]
    for writer in writers:
        writer.start()
    looks, sizes = 0, set()
    while any(writer.is_alive() for writer in writers):
        sizes.add(len(assert_whole(store)))
        looks += 1
    for writer in writers:
        writer.join()
        assert writer.exitcode == 0
    assert looks >= 3 and len(sizes) >= 3, "the reader saw nothing of the writing"
    assert assert_whole(store) == set(range(180))
    assert store._tables.open("records").count_rows() == 180
    assert store._tables.open("parts").count_rows() == 180 * PIECES
    assert set(store.files()) == {f"/m/{n}" for n in range(180)}
    assert len(store.select("key3 = 'x'")) == 36


def test_killing_a_writer_ten_times_loses_nothing(
    store: LanceStore, processes: multiprocessing.context.ForkServerContext
) -> None:
    rng, before = random.Random(0), set[int]()
    for attempt in range(10):
        first = len(before) if attempt % 2 else 0  # go on, or begin again over what is there
        arguments = (str(store.root), range(first, first + TOTAL), 5)
        writer: ForkServerProcess = processes.Process(target=add_range, args=arguments)
        version = store.version()
        writer.start()
        while store.version() == version and writer.is_alive():
            time.sleep(0.002)
        time.sleep(rng.uniform(0.0, 0.12))
        assert writer.pid is not None
        os.kill(writer.pid, signal.SIGKILL)
        writer.join()
        now = assert_whole(store)
        lost = before - now  # at most the one that was being removed and added again
        assert len(lost) <= 1
        assert {f.record_id for f in store.files().values()} <= {f"{n:06}" for n in now}
        before = now
    everything = range(max(before) + 20)
    store.add([record(n) for n in everything], [state(n) for n in everything])
    assert assert_whole(store) == set(everything)
    store.compact()
    assert store._tables.open("parts").count_rows() == PIECES * len(everything)
    assert len(store.files()) == len(everything)


def test_threads_of_one_store(store: LanceStore) -> None:
    def work(offset: int) -> None:
        for start in range(offset, offset + 40, 8):
            store.add([record(n) for n in range(start, start + 8)])

    threads = [threading.Thread(target=work, args=(offset,)) for offset in (0, 20, 40)]
    for thread in threads:
        thread.start()
    while any(thread.is_alive() for thread in threads):
        assert_whole(store)
    assert assert_whole(store) == set(range(80))
    assert store._tables.open("parts").count_rows() == 80 * PIECES


def test_a_write_between_the_pins_of_a_reader(store: LanceStore, monkeypatch: pytest.MonkeyPatch) -> None:
    store.add([record(0), record(1)])
    other, whole, writes = LanceStore.open(store.root), store._tables.open, iter((0, 1, 2))

    def meddled(name: str):  # type: ignore[no-untyped-def]
        handle = whole(name)
        if name == "records" and (step := next(writes, None)) is not None:
            other.remove(["000000"]) if step % 2 == 0 else other.add([record(0), record(2)])
        return handle

    monkeypatch.setattr(store._tables, "open", meddled)
    assert assert_whole(store) == {1, 2}


def test_readers_survive_compaction_under_their_hands(store: LanceStore) -> None:
    store.add([record(n) for n in range(30)])
    stop = threading.Event()

    def work() -> None:
        for n in range(30, 45):
            store.add([record(n)])
            store.compact(timedelta(0))
        stop.set()

    thread = threading.Thread(target=work)
    thread.start()
    while not stop.is_set():
        assert len(assert_whole(store)) >= 30
    thread.join()
    assert assert_whole(store) == set(range(45))


def test_a_full_disk_loses_nothing(store: LanceStore, tmp_path: Path, request: pytest.FixtureRequest) -> None:
    store.add([record(n) for n in range(20)], [state(n) for n in range(20)])
    photo = tmp_path / "photo.png"
    photo.write_bytes(os.urandom(1 << 17))
    request.getfixturevalue("file_size_limit")
    with pytest.raises(HarmoniaError, match="what it held before is safe") as caught:
        store.add([record(n) for n in range(1000)], [state(n) for n in range(1000)])
    assert "\n" not in str(caught.value)
    with pytest.raises(HarmoniaError, match="cannot copy"):
        put_media(store.root, photo)
    assert not [p for p in (store.root / "media").rglob("*") if p.is_file()]
    again = LanceStore.open(store.root)
    assert assert_whole(again) == set(range(20))
    assert again.add([record(20)], [state(20)]) == 1
    assert assert_whole(again) == set(range(21))


@pytest.mark.parametrize("table", ["records", "files"])
def test_a_failure_between_commits_leaves_whole_records(
    store: LanceStore, table: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    store.add([record(0)], [state(0)])
    whole = store._tables.open

    def failing(name: str):  # type: ignore[no-untyped-def]
        handle = whole(name)
        if name == table:
            handle.add = _no_space
        return handle

    monkeypatch.setattr(store._tables, "open", failing)
    with pytest.raises(HarmoniaError, match="No space left"):
        store.add([record(1)], [state(1)])
    monkeypatch.undo()
    assert assert_whole(store) == ({0} if table == "records" else {0, 1})
    assert set(store.files()) == {"/m/0"}
    store.add([record(1)], [state(1)])
    assert assert_whole(store) == {0, 1} and set(store.files()) == {"/m/0", "/m/1"}
    assert whole("parts").count_rows() == 2 * PIECES


def _no_space(*_: object) -> None:
    raise OSError(28, "No space left on device")
