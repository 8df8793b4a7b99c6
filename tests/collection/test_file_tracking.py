"""Files that move, double and vanish between runs: records follow them and nothing is encoded again."""

from __future__ import annotations

import hashlib
import os
import tempfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule
from PIL import Image

from harmonia.collection.collection import Memory
from harmonia.collection.remember import Report
from harmonia.store.lance.store import LanceStore
from harmonia.tasks.export import export


def picture(path: Path, seed: int) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    pixels = np.random.default_rng(seed).integers(0, 255, (24, 24, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(path)


def memory(folder: Path) -> Memory:
    return Memory(folder / "m", ["descriptors"])


def held(found: Memory) -> list[list[str]]:
    """The file names of every record's parts."""
    return sorted(sorted(Path(p.path or "").name for p in r.parts) for r in found.store.records())


def encoded(found: Memory, monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """How many signals each later call encodes."""
    counts: list[int] = []
    for encoder in found.encoders.encoders:
        before = encoder.encode

        def encode(signals, before=before):  # type: ignore[no-untyped-def]
            counts.append(len(signals))
            return before(signals)

        monkeypatch.setattr(encoder, "encode", encode)
    return counts


def swap(folder: Path) -> None:
    (folder / "a.png").rename(folder / "x.png")
    (folder / "b.png").rename(folder / "a.png")
    (folder / "x.png").rename(folder / "b.png")


def chain(folder: Path) -> None:
    (folder / "b.png").rename(folder / "c.png")
    (folder / "a.png").rename(folder / "b.png")


def onto_deleted(folder: Path) -> None:
    (folder / "b.png").unlink()
    (folder / "a.png").rename(folder / "b.png")


def case_only(folder: Path) -> None:
    (folder / "a.png").rename(folder / "A.PNG")


def replaced_and_moved(folder: Path) -> None:
    (folder / "a.png").rename(folder / "c.png")
    (folder / "b.png").rename(folder / "a.png")


def moved_folder(folder: Path) -> None:
    (folder / "sub").mkdir()
    for name in "ab":
        (folder / f"{name}.png").rename(folder / "sub" / f"{name}.png")


def became_a_folder(folder: Path) -> None:
    (folder / "a.png").rename(folder / "x")
    (folder / "a.png").mkdir()
    (folder / "x").rename(folder / "a.png" / "a.png")


def copied(folder: Path) -> None:
    (folder / "c.png").write_bytes((folder / "a.png").read_bytes())
    (folder / "a.png").unlink()


CHANGES = [became_a_folder, swap, chain, onto_deleted, case_only, replaced_and_moved, moved_folder, copied]


@pytest.mark.parametrize("change", CHANGES, ids=lambda change: change.__name__)
@pytest.mark.parametrize("copy", [False, True])
def test_records_follow_their_files(
    tmp_path: Path, change: Callable[[Path], None], copy: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "p"
    picture(folder / "a.png", 1)
    picture(folder / "b.png", 2)
    for path in folder.iterdir():
        os.utime(path, (1e9, 1e9))
    found = memory(tmp_path)
    found.remember(folder, copy=copy)
    change(folder)
    counts = encoded(found, monkeypatch)
    report = found.remember(folder, copy=copy)
    assert (report.remembered, report.problems, counts) == (0, (), [])
    assert report.gone == ()
    agree(found, folder, report)
    assert found.remember(folder, copy=copy).gone == ()
    if not copy:
        assert export(found.store, found.root, tmp_path / "out") == 2 - (change is onto_deleted)


def agree(found: Memory, folder: Path, report: Report) -> None:
    """Every file under a folder belongs to one record that names it, or a copy of it."""
    contents = {hashlib.sha256(p.read_bytes()).hexdigest() for p in folder.rglob("*") if p.is_file()}
    seen = []
    for record in found.store.records():
        digests = {part.digest for part in record.parts if part.path}
        if not digests <= contents:
            continue
        seen += sorted(digests)
        path = Path(record.metadata["path"])
        assert hashlib.sha256(path.read_bytes()).hexdigest() in digests
        assert (record.metadata["name"], record.metadata["folder"]) == (path.stem, path.parent.name)
        for part in record.parts:
            place = found.root / str(part.path)
            assert hashlib.sha256(place.read_bytes()).hexdigest() == part.digest
    assert set(seen) == contents
    assert report.problems == ()


PAIRS: list[tuple[str, Callable[[Path], object], list[list[str]], int]] = [
    ("photo renamed", lambda f: (f / "a.png").rename(f / "b.png"), [["a.txt"], ["b.png"]], 0),
    ("caption renamed", lambda f: (f / "a.txt").rename(f / "b.txt"), [["a.png"], ["b.txt"]], 0),
    (
        "both renamed",
        lambda f: [(f / f"a.{kind}").rename(f / f"b.{kind}") for kind in ("png", "txt")],
        [["b.png", "b.txt"]],
        0,
    ),
    ("caption edited", lambda f: (f / "a.txt").write_text("a grey wall"), [["a.png", "a.txt"]], 1),
    ("caption deleted", lambda f: (f / "a.txt").unlink(), [["a.png"]], 0),
]


@pytest.mark.parametrize(("change", "right", "new"), [row[1:] for row in PAIRS], ids=[r[0] for r in PAIRS])
def test_a_pair_makes_no_double(
    tmp_path: Path,
    change: Callable[[Path], object],
    right: list[list[str]],
    new: int,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    folder = tmp_path / "p"
    picture(folder / "a.png", 1)
    (folder / "a.txt").write_text("coloured noise")
    found = memory(tmp_path)
    found.remember(folder)
    change(folder)
    counts = encoded(found, monkeypatch)
    report = found.remember(folder)
    assert sorted({*map(tuple, held(found))}) == sorted(map(tuple, right))
    assert sum(counts) == new
    assert report.gone == () or not (folder / "a.txt").exists()
    assert found.remember(folder).remembered == 0


def test_a_caption_that_comes_later_joins_its_photo(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = tmp_path / "p"
    picture(folder / "a.png", 1)
    found = memory(tmp_path)
    found.remember(folder)
    (folder / "a.txt").write_text("coloured noise")
    counts = encoded(found, monkeypatch)
    found.remember(folder)
    assert held(found) == [["a.png", "a.txt"]]
    assert sum(counts) == 1


@pytest.mark.parametrize("suffix", [".txt", ".md", ".markdown", ".rst"])
def test_a_deleted_caption_of_any_kind_of_text_keeps_no_record(tmp_path: Path, suffix: str) -> None:
    folder = tmp_path / "p"
    picture(folder / "a.png", 1)
    caption = folder / f"a{suffix}"
    caption.write_text("coloured noise")
    found = memory(tmp_path)
    found.remember(folder)
    (folder / "a.png").rename(folder / "b.png")
    (folder / f"b{suffix}").write_text("a grey wall")
    caption.unlink()
    found.remember(folder)
    assert list(map(sorted, held(found))) == [sorted(["b.png", f"b{suffix}"])]


def test_forget_gone_keeps_what_another_copy_holds(tmp_path: Path) -> None:
    folder = tmp_path / "p"
    picture(folder / "a.png", 1)
    (folder / "b.png").write_bytes((folder / "a.png").read_bytes())
    picture(folder / "c.png", 2)
    found = memory(tmp_path)
    found.remember(folder, threads=1)
    (folder / "a.png").unlink()
    (folder / "c.png").unlink()
    assert len(found.forget(gone=True)) == 1
    assert held(found) == [["b.png"]]
    assert list(found.store.files()) == [str(folder / "b.png")]
    assert found.store.records()[0].metadata["name"] == "b"
    (folder / "b.png").unlink()
    assert found.remember(folder).gone == (str(folder / "b.png"),)
    found.forget(gone=True)
    assert held(found) == [] and found.store.files() == {}


@pytest.mark.parametrize("caption", [False, True])
def test_a_broken_file_at_the_old_place_holds_no_record(tmp_path: Path, caption: bool) -> None:
    folder = tmp_path / "p"
    picture(folder / "a.png", 1)
    if caption:
        (folder / "a.txt").write_text("a grey wall")
    found = memory(tmp_path)
    found.remember(folder)
    for path in sorted(folder.iterdir()):
        path.rename(folder / f"b{path.suffix}")
    (folder / "a.png").write_bytes(b"\xff\xd8\xff")
    for _ in range(2):
        report = found.remember(folder)
        assert (report.remembered, len(report.problems), report.gone) == (0, 1, ())
        assert held(found) == [["b.png", "b.txt"] if caption else ["b.png"]]
        assert [r.metadata["name"] for r in found.store.records()] == ["b"]
        assert {Path(path).stem for path in found.store.files()} == {"b"}
    assert export(found.store, found.root, tmp_path / "out") == 1
    for path in sorted(folder.glob("b.*")):
        path.unlink()
    assert len(found.forget(gone=True)) == 1


def test_a_file_that_was_overwritten_by_a_broken_one_keeps_its_record(tmp_path: Path) -> None:
    picture(tmp_path / "p" / "a.png", 1)
    found = memory(tmp_path)
    found.remember(tmp_path / "p")
    (tmp_path / "p" / "a.png").write_bytes(b"\xff\xd8\xff")
    report = found.remember(tmp_path / "p")
    assert (report.remembered, len(report.problems)) == (0, 1)
    assert len(found.store.records()) == 1


def test_a_folder_that_moved_out_of_the_roots_is_gone(tmp_path: Path) -> None:
    picture(tmp_path / "p" / "q" / "a.png", 1)
    (tmp_path / "p" / "q" / "b.txt").write_text("a note")
    found = memory(tmp_path)
    found.remember(tmp_path / "p")
    (tmp_path / "p" / "q").rename(tmp_path / "elsewhere")
    assert len(found.remember(tmp_path / "p").gone) == 2
    assert found.remember(tmp_path / "elsewhere").remembered == 0
    assert found.remember(tmp_path / "p").gone == ()


def test_rows_that_share_a_file_all_stay(tmp_path: Path) -> None:
    """Several captions of one picture, as data sets have them."""
    folder = tmp_path / "p"
    picture(folder / "a.png", 1)
    rows = '{"image": "a.png", "text": "one"}\n{"image": "a.png", "text": "two"}\n'
    (folder / "manifest.jsonl").write_text(rows)
    found = memory(tmp_path)
    for _ in range(3):
        report = found.remember(folder)
        assert (len(found.store.ids()), report.problems) == (2, ())
    (folder / "a.png").rename(folder / "b.png")
    (folder / "manifest.jsonl").write_text(rows.replace("a.png", "b.png"))
    assert found.remember(folder).remembered == 0
    assert {p.path for r in found.store.records() for p in r.parts if p.path} == {str(folder / "b.png")}


def test_a_broken_part_is_named_in_every_run_and_by_every_copy(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("p", "q"):
        picture(tmp_path / name / "a.png", 1)
        (tmp_path / name / "a.txt").write_bytes(b"")
    found = memory(tmp_path)
    broken = {str(tmp_path / name / "a.txt") for name in ("p", "q")}
    for run in range(3):
        counts = encoded(found, monkeypatch)
        report = found.remember([tmp_path / "p", tmp_path / "q"])
        assert {problem.path for problem in report.problems} == broken
        assert (report.remembered, bool(counts)) == ((1, True) if run == 0 else (0, False))


@pytest.mark.parametrize("moment", ["before", "between", "after"])
def test_killed_while_it_follows(tmp_path: Path, moment: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """The run ends between two commits of the operation; the next one completes it."""
    folder = tmp_path / "p"
    picture(folder / "a.png", 1)
    picture(folder / "b.png", 2)
    found = memory(tmp_path)
    found.remember(folder)
    swap(folder)
    name = {"before": "relocate", "between": "touch", "after": "forget_files"}[moment]
    if moment == "after":
        (folder / "a.png").rename(folder / "c.png")

    def die(*_: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(LanceStore, name, die)
        with pytest.raises(KeyboardInterrupt):
            memory(tmp_path).remember(folder)
    found = memory(tmp_path)
    counts = encoded(found, monkeypatch)
    report = found.remember(folder)
    assert (report.remembered, report.gone, counts) == (0, (), [])
    agree(found, folder, report)


NAMES = st.sampled_from(["a.png", "b.png", "c.png", "q/a.png", "q/d.txt", "e.txt", "f.txt"])


class Folder(RuleBasedStateMachine):
    """Files are written, renamed, copied and deleted; after each run the records are those of the folder.

    No two files have one stem here, so that each is a record.
    """

    def __init__(self) -> None:
        super().__init__()
        self.temporary = tempfile.TemporaryDirectory()
        self.top = Path(self.temporary.name)
        self.folder = self.top / "p"
        (self.folder / "q").mkdir(parents=True)
        self.found = memory(self.top)
        self.ever: set[str] = set()
        self.ran = True

    @rule(name=NAMES, seed=st.integers(0, 3))
    def write(self, name: str, seed: int) -> None:
        path = self.folder / name
        if path.suffix == ".png":
            picture(path, seed)
        else:
            path.write_text(f"note {seed}")
        # A file that is overwritten has another time, as size and time tell that it changed.
        os.utime(path, (1e9 + seed, 1e9 + seed))
        self.ran = False

    @rule(name=NAMES, other=NAMES)
    def rename(self, name: str, other: str) -> None:
        if (self.folder / name).exists() and name[-3:] == other[-3:]:
            (self.folder / name).rename(self.folder / other)
            self.ran = False

    @rule(name=NAMES)
    def delete(self, name: str) -> None:
        (self.folder / name).unlink(missing_ok=True)
        self.ran = False

    @rule(gone=st.booleans())
    def remember(self, gone: bool) -> None:
        report = self.found.remember(self.folder, threads=1)
        agree(self.found, self.folder, report)
        contents = {hashlib.sha256(p.read_bytes()).hexdigest() for p in self.folder.rglob("*.*")}
        assert report.remembered == len(contents - self._digests(before=True))
        if gone:
            self.found.forget(gone=True)
            assert self._digests() == contents
            assert set(self.found.store.files()) == {str(p) for p in self.folder.rglob("*.*")}
        self.ever = self._digests()
        self.ran = True

    def _digests(self, before: bool = False) -> set[str]:
        if before:
            return self.ever
        digests = [p.digest for r in self.found.store.records() for p in r.parts]
        assert len(digests) == len(set(digests))
        return set(digests)

    @invariant()
    def no_double(self) -> None:
        if self.ran and self.found.exists:
            self._digests()

    def teardown(self) -> None:
        self.temporary.cleanup()


Folder.TestCase.settings = settings(
    max_examples=10, stateful_step_count=12, deadline=None, suppress_health_check=list(HealthCheck)
)
TestFolder = Folder.TestCase
