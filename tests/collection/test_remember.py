"""remember: broken input, once and again, changed files, two at once, killed at any moment."""

from __future__ import annotations

import json
import os
import random
import resource
import signal
import struct
import subprocess
import sys
import time
import zlib
from pathlib import Path

import numpy as np
import pytest
import soundfile
from PIL import Image

import harmonia
from harmonia.collection.collection import Memory
from harmonia.collection.encoder_set import EncoderSet
from harmonia.types import HarmoniaError
from tests.media import make_photo, make_tone, make_video


def tiny(path: Path, seed: int) -> None:
    pixels = np.random.default_rng(seed).integers(0, 255, (8, 8, 3), dtype=np.uint8)
    Image.fromarray(pixels).resize((24, 24)).save(path)


def bomb(path: Path) -> None:
    """A small PNG that declares 60,000 x 60,000 pixels."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = struct.pack(">IIBBBBB", 60_000, 60_000, 8, 2, 0, 0, 0)
    path.write_bytes(b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(b"0")))


def names(collection: Memory) -> list[str]:
    return sorted(r.metadata["name"] for r in collection.store.records())


def cli(*arguments: str | Path) -> list[str]:
    return [sys.executable, "-m", "harmonia", *map(str, arguments)]


def test_broken_files_are_listed_and_the_rest_is_remembered(tmp_path: Path) -> None:
    media = tmp_path / "böse Dateien"
    media.mkdir()
    make_photo(media / "gut ünd schön.jpg")
    make_video(media / "silent film.mp4", sound=False)
    whole = (media / "gut ünd schön.jpg").read_bytes()
    (media / "cut.jpg").write_bytes(whole[: len(whole) // 2])
    (media / "empty.png").write_bytes(b"")
    (media / "words.png").write_text("this is not a picture")
    bomb(media / "bomb.png")
    (media / "loop").symlink_to(media, target_is_directory=True)
    soundfile.write(media / "three hours.flac", np.zeros(3 * 3600 * 1000, np.float32), 1000)
    report = harmonia.open(tmp_path / "memory").remember(media)
    assert report.remembered == 3
    assert {Path(p.path).name for p in report.problems} == {"cut.jpg", "empty.png", "words.png", "bomb.png"}
    assert all("\n" not in p.reason and p.reason for p in report.problems)
    memory = harmonia.open(tmp_path / "memory")
    assert names(memory) == ["gut ünd schön", "silent film", "three hours"]


def test_a_folder_that_cannot_be_read_is_a_problem(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "closed").mkdir()
    make_photo(tmp_path / "open.jpg")
    real = os.scandir

    def scandir(path: str | os.PathLike[str] = ".") -> object:
        if Path(os.fsdecode(path)).name == "closed":
            raise PermissionError(13, "Permission denied", str(path))
        return real(path)

    monkeypatch.setattr(os, "scandir", scandir)
    report = harmonia.open(tmp_path / ".memory").remember(tmp_path)
    assert report.remembered == 1
    assert [Path(p.path).name for p in report.problems] == ["closed"]


def test_950_of_1000(tmp_path: Path) -> None:
    media = tmp_path / "media"
    media.mkdir()
    for number in range(1000):
        path = media / f"{number:04d}.png"
        tiny(path, number)
        if number % 20 == 0:
            # Many of these are the same forty bytes: each is listed all the same.
            path.write_bytes(path.read_bytes()[:40])
    first = subprocess.run(
        cli("remember", media, "--into", tmp_path / "m", "--json"),
        capture_output=True,
        text=True,
        check=False,
    )
    report = json.loads(first.stdout)
    assert first.returncode == 1 and report["remembered"] == 950
    assert len(report["problems"]) == 50 and all(p["reason"] for p in report["problems"])
    memory = harmonia.open(tmp_path / "m")
    version = memory.store.version()
    begun = time.process_time()
    again = memory.remember(media)
    assert time.process_time() - begun < 3
    assert (again.remembered, again.already, len(again.problems)) == (0, 950, 50)
    assert memory.store.version() == version


def test_changed_doubled_and_deleted_files(tmp_path: Path) -> None:
    media = tmp_path / "media"
    media.mkdir()
    for seed, name in enumerate(("a", "b", "c")):
        make_photo(media / f"{name}.jpg", seed=seed)
    (media / "again.jpg").write_bytes((media / "a.jpg").read_bytes())
    memory = harmonia.open(tmp_path / "memory")
    assert memory.remember(media).remembered == 3
    old = {r.metadata["name"]: r.id for r in memory.store.records()}
    make_photo(media / "b.jpg", seed=77)
    (media / "c.jpg").unlink()
    report = memory.remember(media)
    assert report.remembered == 1
    assert [Path(p).name for p in report.gone] == ["c.jpg"]
    assert old["b"] not in memory.store.ids() and old["c"] in memory.store.ids()
    assert [r.id for r in memory.forget(gone=True)] == [old["c"]]
    assert old["c"] not in memory.store.ids()


def test_copies_outlive_their_originals(tmp_path: Path) -> None:
    media = tmp_path / "media"
    media.mkdir()
    for seed in range(5):
        make_photo(media / f"{seed}.jpg", seed=seed)
    memory = harmonia.open(tmp_path / "memory")
    memory.remember(media, copy=True)
    cue = (media / "3.jpg").read_bytes()
    for path in media.iterdir():
        path.unlink()
    best = memory.recall(image=cue).records[0].record
    kept = memory.root / (best.parts[0].path or "")
    assert kept.is_relative_to(memory.root / "media") and kept.read_bytes() == cue
    memory.forget([best.id])
    assert not kept.exists()


def test_one_stem_is_one_record_and_a_video_binds_its_sound(tmp_path: Path) -> None:
    media = tmp_path / "media"
    media.mkdir()
    make_photo(media / "dog.jpg")
    make_tone(media / "dog.wav")
    (media / "dog.txt").write_text("A brown dog runs.")
    make_video(media / "film.mp4", seconds=2)
    memory = harmonia.open(tmp_path / "memory")
    memory.remember(media)
    kinds = {r.metadata["name"]: {p.modality for p in r.parts} for r in memory.store.records()}
    assert kinds == {"dog": {"image", "audio", "text"}, "film": {"video", "audio"}}


def test_manifests_fill_metadata_and_renew_it(tmp_path: Path) -> None:
    for seed in range(3):
        make_photo(tmp_path / f"{seed}.jpg", seed=seed)
    rows = [
        {"image": f"{n}.jpg", "caption": f"picture {n}", "tag": "beach" if n else "city"} for n in range(3)
    ]
    manifest = tmp_path / "list.jsonl"
    manifest.write_text("\n".join(json.dumps(r) for r in [*rows, {"image": "missing.jpg", "tag": "x"}]))
    memory = harmonia.open(tmp_path / "memory")
    report = memory.remember(manifest)
    assert report.remembered == 3 and "missing.jpg" in report.problems[0].reason + report.problems[0].path
    assert len(memory.store.select("tag = 'beach'")) == 2
    manifest.write_text("\n".join(json.dumps(r | {"tag": "beach"}) for r in rows))
    assert memory.remember(manifest).already == 3
    assert len(memory.store.select("tag = 'beach'")) == 3
    (tmp_path / "no.csv").write_text("colour,size\nred,3\n")
    problem = memory.remember(tmp_path / "no.csv").problems[0]
    assert "colour" in problem.reason


def test_other_encoders_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    make_photo(tmp_path / "a.jpg")
    harmonia.open(tmp_path / "m").remember(tmp_path / "a.jpg")
    whole = EncoderSet.load()
    monkeypatch.setattr(
        EncoderSet, "load", classmethod(lambda *_, **__: EncoderSet(("x",), {"x": whole.encoders[:2]}))
    )
    with pytest.raises(HarmoniaError, match="other encoders"):
        harmonia.open(tmp_path / "m", models=["x"]).remember(tmp_path / "a.jpg")


def test_a_full_disk_loses_nothing(tmp_path: Path) -> None:
    for seed in range(40):
        make_photo(tmp_path / f"{seed}.jpg", seed=seed)
    memory = harmonia.open(tmp_path / "m")
    memory.remember(tmp_path / "0.jpg")
    before = memory.store.records()
    # The system refuses to write more than 16 KiB into any file: the codes no longer fit.
    full = subprocess.run(
        cli("remember", tmp_path, "--into", tmp_path / "m"),
        capture_output=True, text=True, check=False,
        env=os.environ | {"PYTHONDONTWRITEBYTECODE": "1"},
        preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (16_384, 16_384)),
    )  # fmt: skip
    assert full.returncode == 1 and "Traceback" not in full.stderr
    assert full.stderr.splitlines()[-1].startswith("harmonia: cannot write to the store")
    again = harmonia.open(tmp_path / "m")
    assert again.store.records() == before
    report = again.remember(tmp_path)
    assert (report.remembered, report.already) == (39, 1)


def test_what_a_file_says_of_itself_becomes_text(tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[0x010E] = "a lighthouse at dusk"  # ImageDescription
    make_photo(tmp_path / "photo.jpg", exif=exif)
    make_tone(tmp_path / "song.flac", tags={"title": "Morning Raga"})
    memory = harmonia.open(tmp_path / "m")
    assert memory.remember([tmp_path / "photo.jpg", tmp_path / "song.flac"]).remembered == 2
    texts = {
        r.metadata["name"]: [p.text for p in r.parts if p.modality == "text"] for r in memory.store.records()
    }
    assert texts["photo"] == ["a lighthouse at dusk"] and "Morning Raga" in (texts["song"][0] or "")
    assert memory.recall("lighthouse at dusk").records[0].record.metadata["name"] == "photo"


@pytest.mark.parametrize(
    "text", ["a\0b", "x\u0085y\u2028z", "\x01\x02 sea", "\ufeffsea", "é", "\x1b[1mx\r\ny"]
)
def test_text_of_a_manifest_is_no_encoding_to_guess(tmp_path: Path, text: str) -> None:
    rows = tmp_path / "rows.jsonl"
    rows.write_text(json.dumps({"text": text}), encoding="utf-8")
    memory = harmonia.open(tmp_path / "m", ["descriptors"])
    assert memory.remember(rows).problems == ()
    (record,) = memory.store.records()
    assert record.parts[0].text == text.replace("\0", "\ufffd").replace("\r\n", "\n")
    assert memory.recall(text).records[0].record.id == record.id


def test_a_long_text_is_kept_in_pieces(tmp_path: Path) -> None:
    chapters = [f"Chapter {n}. " + f"The number {n} walked by the river {n}. " * 60 for n in range(12)]
    chapters[7] += "An unexpected zeppelin landed on the cathedral."
    (tmp_path / "novel.txt").write_text("\n\n".join(chapters))
    (tmp_path / "other.txt").write_text("Something else altogether.")
    memory = harmonia.open(tmp_path / "m")
    memory.remember([tmp_path / "novel.txt", tmp_path / "other.txt"])
    best = memory.recall("unexpected zeppelin landed on the cathedral").records[0]
    assert best.record.metadata["name"] == "novel" and len(best.record.parts) > 12
    assert "zeppelin" in (best.matches["text"].part.text or "")


def test_two_processes_at_once(tmp_path: Path) -> None:
    media = tmp_path / "media"
    media.mkdir()
    for number in range(120):
        tiny(media / f"{number:03d}.png", number)
    both = [subprocess.Popen(cli("remember", media, "--into", tmp_path / "m", "--json")) for _ in range(2)]
    assert [process.wait(120) for process in both] == [0, 0]
    memory = harmonia.open(tmp_path / "m")
    ids = [r.id for r in memory.store.records()]
    assert len(ids) == len(set(ids)) == 120
    assert memory.remember(media).remembered == 0


def size(folder: Path) -> int:
    """How many files lie in a folder: more once a process that writes there has begun."""
    return sum(1 for _ in folder.rglob("*"))


def test_killed_at_ten_random_moments(tmp_path: Path) -> None:
    media = tmp_path / "media"
    media.mkdir()
    for number in range(400):
        tiny(media / f"{number:03d}.png", number)
    chance = random.Random(3)
    for _ in range(10):
        process = subprocess.Popen(
            cli("remember", media, "--into", tmp_path / "m"),
            stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
        )  # fmt: skip
        before = size(tmp_path / "m")
        while size(tmp_path / "m") == before and process.poll() is None:
            time.sleep(0.02)
        time.sleep(chance.uniform(0.0, 0.4))
        process.send_signal(signal.SIGKILL)
        process.wait()
    memory = harmonia.open(tmp_path / "m")
    report = memory.remember(media)
    assert report.remembered + report.already == 400 and not report.problems
    records = memory.store.records()
    assert len(records) == 400 and all(len(r.parts) == 1 for r in records)
    table, _ = memory.bound()
    assert {len(c.record) for c in table.encoders.values()} - {0} == {400}


def test_ctrl_c_keeps_what_is_done(tmp_path: Path) -> None:
    media = tmp_path / "media"
    media.mkdir()
    for number in range(1500):
        tiny(media / f"{number:04d}.png", number)
    process = subprocess.Popen(
        cli("remember", media, "--into", tmp_path / "m"), stdout=subprocess.PIPE, stderr=subprocess.PIPE
    )
    while not (tmp_path / "m" / "metadata.json").exists():
        time.sleep(0.02)
    time.sleep(0.4)
    process.send_signal(signal.SIGINT)
    _, errors = process.communicate(timeout=60)
    assert b"Traceback" not in errors
    report = harmonia.open(tmp_path / "m").remember(media)
    assert report.remembered + report.already == 1500
    assert process.returncode in (0, 130)


def test_a_run_can_be_watched_and_stopped(tmp_path: Path) -> None:
    for seed in range(6):
        make_photo(tmp_path / f"{seed}.png", seed=seed)
    memory = harmonia.open(tmp_path / "store", models=["descriptors"])
    seen: list[tuple[int, int]] = []
    report = memory.remember(tmp_path, watch=lambda done, total: seen.append((done, total)) or done < 3)
    assert seen == [(1, 6), (2, 6), (3, 6)]
    assert report.stopped and report.remembered == len(memory.store.ids()) == 3
    assert memory.remember(tmp_path).remembered == 3
