"""A folder of mixed files, some of them broken, that is moved, renamed, copied and deleted between two runs.

The figures are counts of what must not happen (doubles, lost records, broken files that no run names) and the
time of both runs.
"""

from __future__ import annotations

import argparse
import hashlib
import io
import itertools
import json
import os
import random
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import soundfile

import harmonia
from benchmarks.common import Row, data_folder, report, row

FOLDERS = ("", "2019", "2019/été", "写真/夏", "Новая папка", "a b/c'd", "deep/er/still deeper")
BROKEN = 0.05
"""The share of files that are made unreadable."""
SHARES = {".jpg": 0.4, ".png": 0.15, ".ogg": 0.09, ".wav": 0.1, ".mp4": 0.03, ".txt": 0.23}
"""Of these, by suffix; a fifth of the photos have a caption beside them."""


def contents(data: Path, suffix: str) -> Iterator[bytes]:
    """Real files of a kind, no two alike."""
    if suffix == ".wav":
        with np.load(data / "fsdd/digits.npz") as digits:
            audio, offset = digits["audio"], digits["offset"]
        for start, end in itertools.pairwise(offset):
            sound = io.BytesIO()
            soundfile.write(sound, audio[start:end], 8000, format="WAV")
            yield sound.getvalue()
        return
    if suffix == ".txt":
        for several in pq.read_table(data / "coco_captions/captions.parquet")["captions"].to_pylist():
            yield "\n".join(several).encode()
        return
    tables = {
        ".jpg": [("flickr8k/images_captions", "jpeg"), ("pacs/images", "jpeg")],
        ".png": [("emoji/noto", "png")],
        ".ogg": [("esc10/clips", "ogg")],
        ".mp4": [("grid/clips", "mp4")],
    }
    for name, column in tables[suffix]:
        for batch in pq.ParquetFile(data / f"{name}.parquet").iter_batches(64, columns=[column]):
            yield from batch[column].to_pylist()


def damage(content: bytes, suffix: str, number: int) -> bytes:
    """A file that cannot be read: empty, cut, overwritten, or of another kind than its name says."""
    if suffix == ".txt":
        return b""
    cut = content[:40] if suffix in (".jpg", ".png", ".mp4") else content[:12]
    return (b"", cut, b"\0" * 64 + number.to_bytes(8, "big"), f"not a file {number}".encode())[number % 4]


def write_folder(data: Path, top: Path, count: int, chance: random.Random) -> set[Path]:
    """Write ``count`` files; returns the broken ones."""
    broken: set[Path] = set()
    seen: set[bytes] = set()
    written = 0
    captions = contents(data, ".txt")
    for suffix, share in SHARES.items():
        source = captions if suffix == ".txt" else contents(data, suffix)
        for number in range(round(count * share)):
            content = next((c for c in source if hashlib.sha256(c).digest() not in seen), None)
            if content is None or written == count:
                break
            seen.add(hashlib.sha256(content).digest())
            path = top / chance.choice(FOLDERS) / f"{suffix[1:]} nº {number:04d}{suffix}"
            path.parent.mkdir(parents=True, exist_ok=True)
            if chance.random() < BROKEN:
                content = damage(content, suffix, len(broken))
                broken.add(path)
            path.write_bytes(content)
            written += 1
            if suffix == ".jpg" and number % 5 == 0 and path not in broken and written < count:
                caption = next(c for c in captions if hashlib.sha256(c).digest() not in seen)
                seen.add(hashlib.sha256(caption).digest())
                path.with_suffix(".txt").write_bytes(caption)
                written += 1
    return broken


def rearrange(top: Path, broken: set[Path], chance: random.Random) -> tuple[set[Path], set[str]]:
    """Rename, move, copy, swap and delete; returns the broken files and the digests that were deleted."""
    by_stem: dict[Path, list[Path]] = {}
    for path in sorted(p for p in top.rglob("*") if p.is_file()):
        by_stem.setdefault(path.with_suffix(""), []).append(path)
    groups = list(by_stem.items())
    chance.shuffle(groups)
    now: set[Path] = set()
    deleted: set[str] = set()
    for number, (stem, paths) in enumerate(groups):
        new = stem
        if number % 6 == 0:
            new = stem.with_name(f"renamed ✓ {number}")
        elif number % 6 == 1:
            new = top / "moved" / stem.parent.name / stem.name
        for path in paths:
            place = new.with_name(new.name + path.suffix)
            place.parent.mkdir(parents=True, exist_ok=True)
            path.rename(place)
            if path in broken:
                now.add(place)
            elif number % 6 == 2:
                copy = place.with_name(f"copy of {place.name}")
                copy.write_bytes(place.read_bytes())
            elif number % 24 == 3:
                deleted.add(hashlib.sha256(place.read_bytes()).hexdigest())
                place.unlink()
    folder = top / "2019"
    if folder.is_dir():
        folder.rename(top / "2020")
        now = {top / "2020" / p.relative_to(folder) if p.is_relative_to(folder) else p for p in now}
    pictures = sorted(p for p in top.rglob("png*.png") if p not in now)
    for one, other in zip(pictures[0::8], pictures[1::8], strict=False):
        aside = one.with_suffix(".aside")
        one.rename(aside)
        other.rename(one)
        aside.rename(other)
    return now, deleted


def remember(top: Path, memory: Path) -> tuple[dict[str, Any], int, bool, float]:
    """One run of the command: its report, exit code, whether it shows a traceback, and seconds."""
    begun = time.perf_counter()
    run = subprocess.run(
        [sys.executable, "-m", "harmonia", "remember", str(top), "--into", str(memory), "--json"],
        capture_output=True,
        text=True,
        check=False,
    )
    seconds = time.perf_counter() - begun
    found = json.loads(run.stdout) if run.stdout.startswith("{") else {"problems": [], "remembered": 0}
    return found, run.returncode, "Traceback" in run.stderr, seconds


def main() -> None:
    """Run the protocol; --quick has 200 files instead of 3,500."""
    parser = argparse.ArgumentParser(description="a mixed folder that changes between two runs")
    parser.add_argument("--quick", action="store_true", help="200 files")
    quick = parser.parse_args().quick
    count, chance = 200 if quick else 3500, random.Random(0)
    with tempfile.TemporaryDirectory() as name:
        top, memory = Path(name).resolve() / "files", Path(name).resolve() / "memory"
        broken = write_folder(data_folder(), top, count, chance)
        total = sum(p.is_file() for p in top.rglob("*"))
        first, code, trace, seconds = remember(top, memory)
        named = {problem["path"] for problem in first["problems"]}
        missed = len({str(p) for p in broken} - named)
        store = harmonia.open(memory).store
        before = {p.digest for r in store.records() for p in r.parts}
        broken, deleted = rearrange(top, broken, chance)
        second, again_code, again_trace, again = remember(top, memory)
        named = {problem["path"] for problem in second["problems"]}
        records = store.records()
        holders = Counter(digest for r in records for digest in {p.digest for p in r.parts})
        dead = [
            part.path
            for r in records
            for part in r.parts
            if part.path and part.digest not in deleted and not os.path.exists(part.path)  # noqa: PTH110
        ]
        rows: list[Row] = [
            row("files", total, "files"),
            row("broken files", len(broken), "files"),
            row("first run", seconds, "s"),
            row("second run, after moves", again, "s"),
            row("tracebacks", trace + again_trace, "runs", goal=("<=", 0)),
            row("runs that exit with 1", (code == 1) + (again_code == 1), "runs", goal=(">=", 2)),
            row("broken files not named by the first run", missed, "files", goal=("<=", 0)),
            row(
                "broken files not named by the second run",
                len({str(p) for p in broken} - named),
                "files",
                goal=("<=", 0),
            ),
            row("records added by the second run", second["remembered"], "records", goal=("<=", 0)),
            row("contents in two records", sum(n > 1 for n in holders.values()), "contents", goal=("<=", 0)),
            row("contents lost", len(before - set(holders)), "contents", goal=("<=", 0)),
            row("parts whose path is empty", len(dead), "parts", goal=("<=", 0)),
        ]
    report("mixed_folder", rows, quick)
    if any(one["holds"] is False for one in rows):
        sys.exit(1)


if __name__ == "__main__":
    main()
