"""Gathering records from files, folders and manifests on real trees."""

from __future__ import annotations

import csv
import json
import os
import socket
from collections import Counter
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

from harmonia.data import Problem, gather
from harmonia.data.embedded import extract, suffix_of
from harmonia.types import HarmoniaError, Record
from tests.media import make_photo, make_tone
from tests.places import DATA

SHARED = DATA


def found(*paths: str | Path, **options: object) -> tuple[list[Record], list[Problem]]:
    """The records and the problems of a gathering."""
    everything = list(gather(paths, **options))  # type: ignore[arg-type]
    records = [one for one in everything if isinstance(one, Record)]
    return records, [one for one in everything if isinstance(one, Problem)]


def shapes(records: list[Record]) -> list[str]:
    """What each record consists of, as names relative to nothing: ``dog.jpg dog.txt``."""
    return [" ".join(Path(part.path or "").name for part in one.parts) for one in records]


def touch(*paths: Path) -> None:
    """Empty files: gathering must not open them."""
    for path in paths:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()


# --- files and folders


def test_files_of_one_stem_are_one_record(tmp_path: Path) -> None:
    touch(*(tmp_path / name for name in ("dog.jpg", "dog.txt", "dog.WAV", "cat.png", "sub/dog.jpg")))
    records, problems = found(tmp_path)
    assert not problems
    assert shapes(records) == ["cat.png", "dog.WAV dog.jpg dog.txt", "dog.jpg"]
    dog = records[1]
    assert [part.modality for part in dog.parts] == ["audio", "image", "text"]
    assert dog.id == ""
    assert all(part.digest == "" and part.code is None for part in dog.parts)
    assert dog.metadata["path"] == str(tmp_path / "dog.WAV")
    assert dog.metadata["name"] == "dog"
    assert dog.metadata["folder"] == tmp_path.name
    assert "tags" not in dog.metadata


def test_time_of_change_is_utc(tmp_path: Path) -> None:
    photo = make_photo(tmp_path / "a.jpg")
    os.utime(photo, (0, 1_000_000_000))
    records, _ = found(photo)
    assert records[0].metadata["modified"] == "2001-09-09T01:46:40+00:00"


def test_given_files_group_and_come_once(tmp_path: Path) -> None:
    touch(*(tmp_path / name for name in ("dog.jpg", "dog.txt", "cat.png")))
    records, _ = found(tmp_path / "dog.jpg", tmp_path / "dog.txt", tmp_path / "dog.jpg")
    assert shapes(records) == ["dog.jpg dog.txt"]
    records, _ = found(tmp_path / "dog.jpg", tmp_path, str(tmp_path))
    assert shapes(records) == ["cat.png", "dog.jpg dog.txt"]
    records, _ = found(tmp_path / "dog.jpg")
    assert shapes(records) == ["dog.jpg"]


def test_relative_paths_become_absolute(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    touch(tmp_path / "sub" / "a.jpg")
    monkeypatch.chdir(tmp_path)
    records, _ = found("sub/../sub/a.jpg")
    assert records[0].parts[0].path == str(tmp_path / "sub" / "a.jpg")


def test_hidden_and_stores_are_left_out_and_unknown_kinds_counted(tmp_path: Path) -> None:
    names = ("a.jpg", ".b.jpg", ".git/c.jpg", ".harmonia/d.jpg", "my.harmonia/e.jpg")
    touch(*(tmp_path / name for name in (*names, "x.XYZ", "y.xyz", "README", "table.csv")))
    ignored: Counter[str] = Counter()
    records, problems = found(tmp_path, ignored=ignored)
    assert shapes(records) == ["a.jpg"]
    assert not problems
    assert ignored == {".xyz": 2, "": 1, ".csv": 1}


def test_unicode_and_spaces_in_names(tmp_path: Path) -> None:
    composed, joined = "caf\u00e9 \u4e2d\u6587", "cafe\u0301 \u4e2d\u6587"
    touch(tmp_path / f"{composed}.jpg", tmp_path / f"{joined}.txt", tmp_path / "my dog  1.jpg")
    records, problems = found(tmp_path)
    assert not problems
    assert sorted(len(one.parts) for one in records) == [1, 2]


def test_order_does_not_depend_on_the_disk(tmp_path: Path) -> None:
    for name in ("b/z.jpg", "a/y.jpg", "m.jpg", "a/b/x.jpg", "c.jpg"):
        touch(tmp_path / name)
    records, _ = found(tmp_path)
    assert shapes(records) == ["c.jpg", "m.jpg", "y.jpg", "x.jpg", "z.jpg"]
    assert list(gather([tmp_path])) == list(gather([tmp_path]))


def test_links_are_followed_and_loops_end(tmp_path: Path) -> None:
    touch(tmp_path / "top" / "real" / "a.jpg", tmp_path / "elsewhere" / "b.jpg")
    top = tmp_path / "top"
    (top / "a_link").symlink_to(top / "real")
    (top / "real" / "loop").symlink_to(top)
    (top / "outside").symlink_to(tmp_path / "elsewhere")
    (top / "photo.jpg").symlink_to(tmp_path / "elsewhere" / "b.jpg")
    records, problems = found(top)
    assert not problems
    paths = [Path(one.parts[0].path or "").relative_to(top).as_posix() for one in records]
    assert paths == ["photo.jpg", "real/a.jpg", "outside/b.jpg"]


def test_broken_links_are_problems(tmp_path: Path) -> None:
    (tmp_path / "gone.jpg").symlink_to(tmp_path / "nowhere.jpg")
    (tmp_path / "self.jpg").symlink_to(tmp_path / "self.jpg")
    touch(tmp_path / "fine.jpg")
    records, problems = found(tmp_path)
    assert shapes(records) == ["fine.jpg"]
    assert sorted(Path(one.path).name for one in problems) == ["gone.jpg", "self.jpg"]


def test_unreadable_folder_is_a_problem(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    touch(tmp_path / "a.jpg", tmp_path / "closed" / "b.jpg", tmp_path / "open" / "c.jpg")
    real = os.scandir

    def scandir(path: Path) -> object:
        if Path(path).name == "closed":
            raise PermissionError(13, "Permission denied", str(path))
        return real(path)

    monkeypatch.setattr(os, "scandir", scandir)
    records, problems = found(tmp_path)
    assert shapes(records) == ["a.jpg", "c.jpg"]
    assert problems == [Problem(str(tmp_path / "closed"), "this folder cannot be read: permission denied")]


def test_what_vanishes_on_the_way_is_a_problem(tmp_path: Path) -> None:
    touch(tmp_path / "a.jpg", tmp_path / "b" / "b.jpg", tmp_path / "c" / "c.jpg")
    walk = gather([tmp_path])
    assert isinstance(next(walk), Record)
    (tmp_path / "b" / "b.jpg").unlink()
    (tmp_path / "b").rmdir()
    rest = list(walk)
    assert [type(one) for one in rest] == [Problem, Record]
    assert isinstance(rest[0], Problem) and rest[0].path == str(tmp_path / "b")


def test_a_vanished_file_leaves_its_siblings(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    touch(tmp_path / "dog.jpg", tmp_path / "dog.txt")
    real = Path.stat

    def stat(self: Path, **options: bool) -> os.stat_result:
        if self.name == "dog.jpg":
            raise FileNotFoundError(2, "No such file or directory", str(self))
        return real(self, **options)

    monkeypatch.setattr(Path, "stat", stat)
    records, problems = found(tmp_path)
    assert shapes(records) == ["dog.txt"]
    assert problems == [
        Problem(str(tmp_path / "dog.jpg"), "this file cannot be read: no such file or directory")
    ]


def test_paths_that_cannot_be_read_are_problems(tmp_path: Path) -> None:
    touch(tmp_path / "a.xyz", tmp_path / "noname", tmp_path / "b.jpg", tmp_path / "m.harmonia" / "c.jpg")
    with socket.socket(socket.AF_UNIX) as endpoint:
        endpoint.bind(str(tmp_path / "s.jpg"))
    given = [tmp_path / name for name in ("a.xyz", "noname", "gone.jpg", "m.harmonia", "s.jpg", "b.jpg")]
    records, problems = found(*given, "", "nul\0.jpg", "half\ud800.jpg")
    assert shapes(records) == ["b.jpg"]
    assert [one.reason for one in problems] == [
        ".xyz is not a kind of file Harmonia reads",
        "a file without suffix is not a kind of file Harmonia reads",
        "there is no such file or folder",
        "this is a Harmonia store; give the media themselves",
        "this is neither a file nor a folder",
        "there is no such file or folder",
        "this cannot be a path",
        "this cannot be a path",
    ]


def test_a_name_that_is_no_utf8_is_a_problem(tmp_path: Path) -> None:
    try:
        Path(os.fsdecode(os.fsencode(tmp_path) + b"/bad\xff.jpg")).touch()
    except OSError:
        pytest.skip("this file system refuses such names")
    touch(tmp_path / "good.jpg")
    records, problems = found(tmp_path)
    assert shapes(records) == ["good.jpg"]
    assert "UTF-8" in problems[0].reason
    problems[0].path.encode()  # can be printed


# --- manifests

ROWS: list[dict[str, object]] = [
    {"image": "photos/a.jpg", "caption": "a red barn", "year": 1999, "score": 0.5, "kept": True},
    {"image": "photos/b.jpg", "caption": "007", "year": 2001, "score": 2.0, "kept": False},
    {"image": "", "caption": 'only words; with "quotes",\nand two lines', "year": None, "kept": True},
    {"image": "photos/none.jpg", "caption": "lost", "year": 3, "score": 1.0, "kept": True},
    {"image": "", "caption": "", "year": 4, "score": 1.0, "kept": True},
]
for row in ROWS:
    row.update(code="007", tags=["old", "farm"], day="2020-02-03")


def write_table(path: Path, rows: list[dict[str, object]]) -> Path:
    """The rows as JSON lines, CSV or Parquet, whichever the suffix says."""
    if path.suffix == ".parquet":
        pq.write_table(pa.Table.from_pylist(rows), path)
    elif path.suffix == ".jsonl":
        path.write_text("".join(json.dumps(row) + "\n" for row in rows), "utf-8")
    else:
        with path.open("w", encoding="utf-8", newline="") as file:
            writer = csv.DictWriter(file, list(rows[0]))
            writer.writeheader()
            for row in rows:
                cells = {k: json.dumps(v) if isinstance(v, list) else v for k, v in row.items()}
                writer.writerow(cells)
    return path


def manifest(path: Path, text: str) -> Path:
    path.write_text(text, "utf-8")
    return path


@pytest.mark.parametrize("suffix", [".jsonl", ".csv", ".parquet"])
def test_a_manifest_is_the_same_in_every_format(tmp_path: Path, suffix: str) -> None:
    touch(tmp_path / "photos" / "a.jpg", tmp_path / "photos" / "b.jpg")
    table = write_table(tmp_path / f"list{suffix}", ROWS)
    records, problems = found(table)
    a, b, words = records
    assert [(p.modality, p.path, p.text) for p in a.parts] == [
        ("image", str(tmp_path / "photos" / "a.jpg"), None),
        ("text", None, "a red barn"),
    ]
    assert b.parts[1].text == "007"
    assert words.parts[0].text == 'only words; with "quotes",\nand two lines'
    assert words.metadata["path"] == str(table) and "score" not in words.metadata
    meta = dict(a.metadata)
    assert meta.pop("modified").startswith("20")
    assert meta == {
        "path": str(tmp_path / "photos" / "a.jpg"),
        "name": "a",
        "folder": "photos",
        "year": 1999,
        "score": 0.5,
        "kept": True,
        "code": "007",
        "tags": ["old", "farm"],
        "day": "2020-02-03",
    }
    assert [type(meta[k]) for k in ("year", "score", "kept")] == [int, float, bool]
    assert [(one.path, one.reason) for one in problems] == [
        (str(table), "row 4: there is no file photos/none.jpg"),
        (str(table), "row 5: it has no part: every column of parts is empty"),
    ]


def test_every_accepted_kind_of_column(tmp_path: Path) -> None:
    touch(*(tmp_path / name for name in ("a.jpg", "b.wav", "c.mp4", "d.txt", "e.png")))
    row = {
        "Image": "a.jpg",
        "audio_file": "b.wav",
        "file_name": "c.mp4",
        "text_path": "d.txt",
        "images": ["e.png", "a.jpg"],
        "captions": ["one", "", "two"],
        "note": "d.txt",
        "transcript": 5,
        "tags": "x, y,",
    }
    (record,), problems = found(manifest(tmp_path / "m.jsonl", json.dumps(row)))
    assert not problems
    assert [(p.modality, p.text or Path(p.path or "").name) for p in record.parts] == [
        ("image", "a.jpg"),
        ("audio", "b.wav"),
        ("video", "c.mp4"),
        ("text", "d.txt"),
        ("image", "e.png"),
        ("image", "a.jpg"),
        ("text", "one"),
        ("text", "two"),
        ("text", "d.txt"),
        ("text", "5"),
    ]
    assert record.parts[-2].path is not None  # the note names a text file that exists
    assert record.metadata["tags"] == ["x", "y"]


def test_damaged_lines_are_problems_with_their_number(tmp_path: Path) -> None:
    lines = [
        '{"text": "one"}',
        "",
        "{broken",
        "[1]",
        '{"text": "\\ud800"}',
        '{"other": 1}',
        '{"text": "two"}',
    ]
    lines += ['{"text": {"a": 1}}', '{"image": "x.xyz"}', '{"image": 5}']
    touch(tmp_path / "x.xyz")
    records, problems = found(manifest(tmp_path / "m.jsonl", "\ufeff" + "\n".join(lines)))
    assert [one.parts[0].text for one in records] == ["one", "two"]
    numbers = [one.reason.split(":")[0] for one in problems]
    assert numbers == ["row 3", "row 4", "row 5", "row 6", "row 8", "row 9", "row 10"]
    assert all("\n" not in one.reason for one in problems)


@pytest.mark.parametrize("suffix", [".jsonl", ".csv", ".parquet"])
def test_a_manifest_without_parts_is_one_problem(tmp_path: Path, suffix: str) -> None:
    rows: list[dict[str, object]] = [{"label": "dog", "size": n} for n in range(5)]
    records, problems = found(write_table(tmp_path / f"m{suffix}", rows))
    assert not records
    (problem,) = problems
    assert "found label, size" in problem.reason
    assert "image, audio, video, file_name" in problem.reason


@pytest.mark.parametrize("name", ["m.jsonl", "m.csv", "m.parquet"])
def test_a_broken_table_is_a_problem(tmp_path: Path, name: str) -> None:
    (tmp_path / name).write_bytes(b"caption\n\x89\xff\xfe\x00\x1a\x03PAR1\x00\x04 no table")
    touch(tmp_path / "fine.jpg")
    records, problems = found(tmp_path / name, tmp_path / "fine.jpg")
    assert shapes(records) == ["fine.jpg"]
    assert len(problems) == 1 and problems[0].path == str(tmp_path / name)


def test_an_empty_manifest_is_a_problem(tmp_path: Path) -> None:
    touch(tmp_path / "m.jsonl", tmp_path / "m.csv", tmp_path / "m.parquet")
    _, problems = found(*(tmp_path / f"m.{kind}" for kind in ("jsonl", "csv", "parquet")))
    assert len(problems) == 3


def test_csv_dialects_and_ragged_rows(tmp_path: Path) -> None:
    text = "\ufeffcaption;size\nfirst, with comma;1\nsecond\nthird;2;3\n"
    records, problems = found(manifest(tmp_path / "m.csv", text))
    assert [one.parts[0].text for one in records] == ["first, with comma", "second"]
    assert [dict(one.metadata).get("size") for one in records] == [1, None]
    assert problems[0].reason.startswith("row 3: it has more cells than the header")


def test_csv_text_is_never_a_number(tmp_path: Path) -> None:
    text = "caption,price\n1.50,1.50\ntrue,2\n"
    records, _ = found(manifest(tmp_path / "m.csv", text))
    assert [one.parts[0].text for one in records] == ["1.50", "true"]
    assert [one.metadata["price"] for one in records] == [1.5, 2.0]
    records, _ = found(manifest(tmp_path / "n.csv", "caption\n1.50\n2.50\n"))
    assert [one.parts[0].text for one in records] == ["1.50", "2.50"]


def test_metadata_keeps_its_types(tmp_path: Path) -> None:
    table = pa.table(
        {
            "text": ["x"],
            "when": pa.array([1_600_000_000_123_456_789], pa.timestamp("ns", tz="UTC")),
            "day": pa.array([0], pa.date32()),
            "score": [float("nan")],
            "box": [{"left": 1, "name": "é"}],
            "numbers": [[1, 2]],
            "bytes": [b"\x00"],
            "empty": [""],
        }
    )
    pq.write_table(table, tmp_path / "m.parquet")
    (record,), _ = found(tmp_path / "m.parquet")
    assert dict(record.metadata) == {
        "path": str(tmp_path / "m.parquet"),
        "when": "2020-09-13T12:26:40.123456+00:00",
        "day": "1970-01-01",
        "box": '{"left": 1, "name": "é"}',
        "numbers": [1, 2],
    }
    json.dumps(dict(record.metadata))


def test_manifest_of_a_folder_takes_its_files(tmp_path: Path) -> None:
    touch(*(tmp_path / name for name in ("a.jpg", "b.jpg", "b.txt", "sub/c.jpg", "sub/d.jpg")))
    lines = [{"file_name": "a.jpg", "caption": "a"}, {"file_name": "sub/c.jpg", "caption": "c"}]
    manifest(tmp_path / "metadata.jsonl", "\n".join(map(json.dumps, lines)))
    manifest(tmp_path / "other.jsonl", '{"text": "not read"}')
    ignored: Counter[str] = Counter()
    records, problems = found(tmp_path, ignored=ignored)
    assert not problems
    assert [len(one.parts) for one in records] == [2, 2, 2, 1]
    assert shapes(records)[2:] == ["b.jpg b.txt", "d.jpg"]
    assert ignored == {".jsonl": 1}
    given, _ = found(tmp_path, tmp_path / "metadata.jsonl", tmp_path / "a.jpg")
    assert sorted(shapes(given)) == sorted(shapes(records))


# --- embedded media


def test_embedded_media_become_files(tmp_path: Path) -> None:
    photo = make_photo(tmp_path / "a.jpg").read_bytes()
    sound = make_tone(tmp_path / "a.ogg", seconds=0.3).read_bytes()
    table = pa.table(
        {
            "image": [{"bytes": photo, "path": "old name.jpg"}, {"bytes": photo, "path": None}],
            "ogg": [sound, None],
            "captions": [["one", "two"], ["three"]],
        }
    )
    pq.write_table(table, tmp_path / "m.parquet")
    out = tmp_path / "out"
    records, problems = found(tmp_path / "m.parquet", extract_to=out)
    assert not problems
    first, second = records
    assert [part.modality for part in first.parts] == ["image", "audio", "text", "text"]
    assert first.metadata["name"] == "old name"
    assert Path(first.parts[0].path or "").read_bytes() == photo
    assert Path(first.parts[1].path or "").read_bytes() == sound
    assert first.parts[0].path == second.parts[0].path  # content-addressed
    files = {path: path.stat().st_mtime_ns for path in out.rglob("*") if path.is_file()}
    assert sorted(path.suffix for path in files) == [".jpg", ".ogg"]
    assert found(tmp_path / "m.parquet", extract_to=out)[0] == records
    assert files == {path: path.stat().st_mtime_ns for path in out.rglob("*") if path.is_file()}


def test_embedded_struct_with_a_path_only_names_a_file(tmp_path: Path) -> None:
    make_photo(tmp_path / "a.jpg")
    pq.write_table(pa.table({"image": [{"bytes": None, "path": "a.jpg"}]}), tmp_path / "m.parquet")
    (record,), _ = found(tmp_path / "m.parquet")
    assert record.parts[0].path == str(tmp_path / "a.jpg")


def test_a_table_without_rows_gives_nothing(tmp_path: Path) -> None:
    pq.write_table(pa.table({"image": pa.array([], pa.binary())}), tmp_path / "m.parquet")
    assert found(tmp_path / "m.parquet") == ([], [])


def test_embedded_media_that_cannot_be_written(tmp_path: Path) -> None:
    photo = make_photo(tmp_path / "a.png").read_bytes()
    pq.write_table(pa.table({"png": [photo, b"garbage"]}), tmp_path / "m.parquet")
    with pytest.raises(HarmoniaError, match="extract_to"):
        found(tmp_path / "m.parquet")
    with pytest.raises(HarmoniaError, match="cannot write"):
        found(tmp_path / "m.parquet", extract_to=tmp_path / "a.png")
    records, problems = found(tmp_path / "m.parquet", extract_to=tmp_path / "out")
    assert len(records) == 1
    assert problems[0].reason == "row 2: the bytes in column png are no known kind of image file"


def test_a_failed_extraction_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(self: Path, target: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Path, "replace", full)
    with pytest.raises(OSError, match="No space"):
        extract(b"content", ".jpg", tmp_path)
    assert not [path for path in tmp_path.rglob("*") if path.is_file()]


@pytest.mark.parametrize("suffix", [".jpg", ".png", ".gif", ".webp", ".bmp", ".tiff"])
def test_pictures_are_known_by_their_first_bytes(tmp_path: Path, suffix: str) -> None:
    Image.new("RGB", (8, 8)).save(tmp_path / f"a{suffix}")
    assert suffix_of((tmp_path / f"a{suffix}").read_bytes(), "image") == suffix


@pytest.mark.parametrize("suffix", [".wav", ".flac", ".ogg", ".mp3", ".m4a"])
def test_sounds_are_known_by_their_first_bytes(tmp_path: Path, suffix: str) -> None:
    content = make_tone(tmp_path / f"a{suffix}", seconds=0.3).read_bytes()
    assert suffix_of(content, "audio") == suffix
    assert suffix_of(content, "image") is None
    assert suffix_of(content, "audio", name="x.flac") == ".flac"  # the name comes first


def test_real_dataset_with_embedded_photos_and_captions(tmp_path: Path) -> None:
    source = SHARED / "flickr8k" / "images_captions.parquet"
    if not source.exists():
        pytest.skip(f"no {source}")
    small = tmp_path / "small.parquet"
    with pq.ParquetFile(source) as file:
        rows = next(file.iter_batches(batch_size=20))
        pq.write_table(pa.Table.from_batches([rows]), small)
    records, problems = found(small, extract_to=tmp_path / "out")
    assert not problems and len(records) == 20
    for record in records:
        assert Counter(part.modality for part in record.parts) == {"text": 5, "image": 1}
        (photo,) = (part.path for part in record.parts if part.modality == "image")
        with Image.open(photo or "") as image:
            assert image.size == (128, 128)
        assert record.metadata["image_id"].endswith(".jpg")
