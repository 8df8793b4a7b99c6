"""Remembering files, recalling at size, time to the first answer, bytes per record.

Files: real Flickr8k photos and ESC-10 sounds, against a bare loop over the same decoders and encoders
with one thread, and with as many decoding threads as ``remember`` has. The loop stores nothing; ``remember``
includes finding, digests, identity and the committed tables. Encoders are loaded before both.
Recall: random unit codes of 512 numbers, one step, k = 10, against faiss' and LanceDB's flat search.
"""

from __future__ import annotations

import argparse
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import faiss
import numpy as np
import pyarrow.parquet as pq
import torch
from numpy.typing import NDArray

import harmonia
from benchmarks.common import Row, data_folder, medians, report, row
from harmonia.collection.encoder_set import EncoderSet
from harmonia.memory import Given, HarmonicMemory
from harmonia.modalities import MODALITIES, modality_of
from harmonia.store import EncoderInfo
from harmonia.store.lance.store import LanceStore
from harmonia.types import Code, Part, Record, Signal

SIZE = 512
THREADS = os.cpu_count() or 1


def write_files(data: Path, folder: Path, count: int) -> list[Path]:
    """Real photos and sounds as files; one sound to four photos."""
    photos = pq.read_table(data / "flickr8k/images_captions.parquet", columns=["jpeg"])["jpeg"]
    sounds = pq.read_table(data / "esc10/clips.parquet")
    column = next(c for c in sounds.column_names if str(sounds.schema.field(c).type).endswith("binary"))
    folder.mkdir()
    paths = []
    for number in range(count):
        ogg = number % 5 == 4 and number // 5 < len(sounds)
        source = sounds[column][number // 5] if ogg else photos[number]
        path = folder / f"{number:05d}.{'ogg' if ogg else 'jpg'}"
        path.write_bytes(source.as_py())
        paths.append(path)
    return paths


def decoded(path: Path) -> list[Signal]:
    """All windows of a file."""
    return list(MODALITIES[modality_of(path) or ""].windows(path))


def bare_loop(model: EncoderSet, paths: Sequence[Path], threads: int) -> None:
    """Decode, with so many threads, and encode in batches of 64; nothing stored."""
    batch: list[Signal] = []
    with ThreadPoolExecutor(threads) as pool:
        for signals in map(decoded, paths) if threads == 1 else pool.map(decoded, paths):
            batch += signals
            if len(batch) >= 64:
                model.encode(batch)
                batch = []
    model.encode(batch)


def remembering(data: Path, count: int, repeats: int) -> list[Row]:
    """Files per second against the bare loop, in turns; then a second run with nothing new."""
    model = EncoderSet.load()
    one, several, mine, again = [], [], [], []
    with tempfile.TemporaryDirectory() as name:
        paths = write_files(data, Path(name) / "files", count)
        bare_loop(model, paths[:64], 1)
        for turn in range(repeats):
            for threads, speeds in ((1, one), (THREADS + 1, several)):
                begun = time.perf_counter()
                bare_loop(model, paths, threads)
                speeds.append(count / (time.perf_counter() - begun))
            collection = harmonia.open(Path(name) / f"memory-{turn}", ("descriptors",))
            assert collection.encoders.names == model.names
            begun = time.perf_counter()
            report = collection.remember(Path(name) / "files")
            mine.append(count / (time.perf_counter() - begun))
            assert report.remembered == count, report.problems
            begun = time.perf_counter()
            collection.remember(Path(name) / "files")
            again.append(time.perf_counter() - begun)
    value = statistics.median(mine)
    what = f"remember {count} photos and sounds ({THREADS + 1} decoding threads, committed)"
    goal, same = (">=", 0.9), f"bare loop, {THREADS + 1} decoding threads"
    return [
        row(what, value, "files/s", "bare loop, one thread", statistics.median(one), goal),
        row(what, value, "files/s", same, statistics.median(several), goal),
        row(f"remember the same {count} files again", statistics.median(again), "s"),
    ]


def recalling(count: int, repeats: int, lance: bool) -> list[Row]:
    """One-step recall of 1 and of 64 cues at one size."""
    generator = torch.Generator().manual_seed(0)
    codes = torch.nn.functional.normalize(torch.randn(count, SIZE, generator=generator), dim=-1)
    noise = torch.randn(64, SIZE, generator=generator) / SIZE**0.5
    cues = torch.nn.functional.normalize(codes[:64] + noise, dim=-1)
    memory = HarmonicMemory({"a": codes}, centre=False)
    index = faiss.IndexFlatIP(SIZE)
    index.add(codes.numpy())
    rows = []
    for number in (1, 64):
        cue = cues[:number]
        found = memory.recall([Given("a", cue)], k=10, steps=0)
        assert (found.slots[:, 0].numpy() == index.search(cue.numpy(), 10)[1][:, 0]).all()
        mine, peer = medians(
            [
                lambda cue=cue: memory.recall([Given("a", cue)], k=10, steps=0),  # type: ignore[misc]
                lambda cue=cue: index.search(cue.numpy(), 10),  # type: ignore[misc]
            ],
            repeats,
        )
        goal = ("<=", 1.5) if number == 1 else ("<=", 1 / 3)
        what = f"one-step recall, {number} cues, {count} x {SIZE}"
        rows.append(
            row(what, mine * 1e3, "ms", "faiss IndexFlatIP", peer * 1e3, goal if count >= 10**5 else None)
        )
    if lance:
        rows.append(_lance(codes.numpy(), cues[:1], memory, repeats))
    held = (
        memory.matrices["a"].nbytes
        + sum(p.nbytes for p in memory.layout.parts.values())
        + memory.layout.slot.nbytes
    )
    rows.append(row(f"RAM of the memory, {count} x {SIZE} float32", held / count, "bytes/record"))
    return rows


def _lance(codes: NDArray[np.float32], cue: torch.Tensor, memory: HarmonicMemory, repeats: int) -> Row:
    with tempfile.TemporaryDirectory() as name:
        store = filled_store(Path(name) / "store", codes)
        vector = cue[0].numpy()
        mine, peer = medians(
            [
                lambda: memory.recall([Given("a", cue)], k=10, steps=0),
                lambda: store.nearest("a", vector, 10),
            ],
            max(3, repeats // 3),
        )
    return row(f"one-step recall, 1 cue, {len(codes)} x {SIZE}", mine * 1e3, "ms", "LanceDB flat", peer * 1e3)


def filled_store(root: Path, codes: NDArray[np.float32]) -> LanceStore:
    """A real store of random codes."""
    store = LanceStore.create(root, [EncoderInfo("a", "image", "a", SIZE)])
    for first in range(0, len(codes), 5000):
        store.add(
            [
                Record(
                    f"{n:08d}",
                    (Part("image", text=str(n), digest=str(n), code=Code("image", codes[n], "a")),),
                )
                for n in range(first, min(first + 5000, len(codes)))
            ]
        )
    return store


def command_line(*arguments: str) -> None:
    """Run the command as a user's shell would: with OpenMP's own defaults."""
    environment = {k: v for k, v in os.environ.items() if k != "OMP_WAIT_POLICY"}
    command = [sys.executable, "-m", "harmonia", *arguments]
    subprocess.run(command, check=True, capture_output=True, env=environment)


def first_answer(data: Path, count: int, repeats: int) -> list[Row]:
    """From process start to the answer, and the disk a record takes, media not copied."""
    with tempfile.TemporaryDirectory() as name:
        table = pq.read_table(data / "flickr8k/images_captions.parquet", columns=["captions"])
        for path in write_files(data, Path(name) / "files", count):
            if path.suffix == ".jpg":
                caption = table["captions"][int(path.stem)][0].as_py()
                path.with_suffix(".txt").write_text(caption, encoding="utf-8")
        root = Path(name) / "memory"
        collection = harmonia.open(root, ("descriptors",))
        collection.remember(Path(name) / "files")
        disk = collection.status()["table_bytes"] / count
        photo = str(Path(name) / "files" / "00000.jpg")
        recall = ["recall", "--memory", str(root), "--json"]
        words, picture, helping = medians(
            [
                lambda: command_line(*recall, "a dog runs on the beach"),
                lambda: command_line(*recall, "--image", photo),
                lambda: command_line("--help"),
            ],
            repeats,
        )
    return [
        row(f"process start to first answer, words, {count} records", words, "s"),
        row(f"process start to first answer, photo, {count} records", picture, "s"),
        row("harmonia --help", helping, "s", goal=("<=", 0.3)),
        row("disk, media not copied", disk, "bytes/record"),
    ]


def main() -> None:
    """Run the protocol; --quick is small."""
    parser = argparse.ArgumentParser(description="remembering and recalling at size")
    parser.add_argument("--quick", action="store_true", help="fewer files, up to 10,000 records")
    quick = parser.parse_args().quick
    data = data_folder()
    torch.set_num_threads(THREADS)
    faiss.omp_set_num_threads(THREADS)
    repeats = 3 if quick else 7
    rows = remembering(data, 100 if quick else 800, 1 if quick else 3)
    for count in (1_000, 10_000) if quick else (1_000, 10_000, 100_000):
        rows += recalling(count, repeats * 3, lance=True)
    rows += first_answer(data, 100 if quick else 1000, repeats)
    report("ingest", rows, quick)


if __name__ == "__main__":
    main()
