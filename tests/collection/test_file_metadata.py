"""What files say about themselves is remembered with them, and filters find it."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

import harmonia
from harmonia.cli import cli
from harmonia.collection.collection import Memory
from harmonia.tasks.export import export
from harmonia.types import Part, Record
from tests.media import make_photo, make_video
from tests.modalities.test_metadata import exif, make_sound


@pytest.fixture(scope="module")
def media(tmp_path_factory: Any) -> Path:
    folder: Path = tmp_path_factory.mktemp("media")
    make_photo(folder / "pixel.jpg", 1, exif=exif())
    make_photo(folder / "early.jpg", 2, exif=exif(DateTimeOriginal="2019:05:31 23:59:59"))
    make_photo(
        folder / "nikon.jpg", 3, exif=exif(Make="NIKON CORPORATION", Model="NIKON D90", GPSLatitudeRef="N")
    )
    make_photo(folder / "bare.jpg", 4)
    make_video(folder / "film.mp4")
    make_sound(folder / "a.flac", {"artist": "The Sea", "album": "Dusk", "date": "1998"})
    note = "---\ntags: [soup]\nyear: 2011\n---\nWash the leeks."
    (folder / "soup.md").write_text(note, encoding="utf-8")
    return folder


@pytest.fixture(scope="module")
def memory(media: Path, tmp_path_factory: Any) -> Memory:
    found = harmonia.open(tmp_path_factory.mktemp("memory") / "m")
    assert found.remember(media).problems == ()
    return found


@pytest.mark.parametrize(
    ("where", "names"),
    [
        ("taken > 2019-06-01 and camera like '%Pixel%'", {"pixel"}),
        ("taken > 2019-06-01", {"pixel", "nikon"}),
        ("taken < 2019-06-01", {"early"}),
        ("taken between 2019-05-01 and 2019-06-01", {"early"}),
        ("taken >= '2021' and taken < '2022'", {"pixel", "nikon"}),
        ("starts_with(taken, '2019-05')", {"early"}),
        ("taken > 2021-07-09T10:11 and taken < 2021-07-09T10:12", {"pixel", "nikon"}),
        ("taken is null", {"bare", "film", "a", "soup"}),
        ("camera = 'NIKON D90'", {"nikon"}),
        ("year < 2012", {"a", "soup"}),
        ("year = 2021", {"pixel", "nikon"}),
        ("latitude between -34 and -33 and longitude > 151", {"pixel", "early"}),
        ("width = 160 and duration > 1", {"film"}),
        ("artist = 'The Sea' and album = 'Dusk'", {"a"}),
        ("array_has(tags, 'soup')", {"soup"}),
    ],
)
def test_filters_find_what_files_say(memory: Memory, where: str, names: set[str]) -> None:
    assert {r.metadata["name"] for r in memory.store.records(where=where)} == names


@pytest.mark.parametrize("command", ["recall", "retrieve"])
def test_the_command_line_finds_photos_by_when_and_with_what_they_were_taken(
    memory: Memory, media: Path, command: str
) -> None:
    where = "taken > 2019-06-01 and camera like '%Pixel%'"
    arguments = [
        command,
        "-m",
        str(memory.root),
        "--json",
        "--image",
        str(media / "nikon.jpg"),
        "--where",
        where,
    ]
    run = CliRunner().invoke(cli, arguments)
    assert run.exit_code == 0, run.output
    (found,) = json.loads(run.output)["records"]
    assert found["metadata"]["name"] == "pixel"
    assert found["metadata"]["latitude"] == -33.86


def test_the_note_is_the_body(memory: Memory) -> None:
    (note,) = memory.store.records(where="name = 'soup'")
    assert [part.text for part in note.parts] == ["Wash the leeks."]


def test_export_carries_them_and_remember_reads_them_back(memory: Memory, tmp_path: Path) -> None:
    export(memory.store, memory.root, tmp_path / "out")
    other = harmonia.open(tmp_path / "m")
    other.remember(tmp_path / "out")

    def facts(one: Memory) -> dict[str, Any]:
        names = ("taken", "year", "tags", "latitude", "album", "camera")
        return {r.metadata["name"]: [r.metadata.get(name) for name in names] for r in one.store.records()}

    assert facts(other) == facts(memory)


def test_what_the_user_says_counts_more_than_the_file(tmp_path: Path) -> None:
    path = make_photo(tmp_path / "a.jpg", exif=exif())
    rows = [{"file_name": "a.jpg", "camera": "a shoe box", "year": 1900}]
    (tmp_path / "metadata.jsonl").write_text("\n".join(map(json.dumps, rows)))
    memory = harmonia.open(tmp_path / "m")
    memory.remember(tmp_path)
    (record,) = memory.store.records()
    assert (record.metadata["camera"], record.metadata["year"]) == ("a shoe box", 1900)
    assert record.metadata["lens"] == "Wide 4.5mm"
    memory = harmonia.open(tmp_path / "n")
    memory.remember([Record("", (Part("image", path=str(path)),), {"taken": "long ago"})])
    (record,) = memory.store.records()
    assert (record.metadata["taken"], record.metadata["camera"]) == ("long ago", "Google Pixel 6")


def test_a_photo_speaks_before_the_note_beside_it(tmp_path: Path) -> None:
    make_photo(tmp_path / "a.jpg", exif=exif())
    (tmp_path / "a.md").write_text("---\ncamera: mine\nmood: calm\n---\nAt the bridge.")
    memory = harmonia.open(tmp_path / "m")
    memory.remember(tmp_path)
    (record,) = memory.store.records()
    assert (record.metadata["camera"], record.metadata["mood"]) == ("Google Pixel 6", "calm")


def test_an_unchanged_file_is_not_read_again_and_a_changed_one_is(tmp_path: Path) -> None:
    media = tmp_path / "in"
    media.mkdir()
    make_photo(media / "a.jpg", 1, exif=exif())
    memory = harmonia.open(tmp_path / "m")
    memory.remember(media)
    (media / "a.jpg.json").write_text(json.dumps({"description": "new", "people": [{"name": "Ada"}]}))
    memory.remember(media)
    (record,) = memory.store.records()
    assert "people" not in record.metadata
    assert record.metadata["camera"] == "Google Pixel 6"
    os.rename(media / "a.jpg", media / "b.jpg")  # noqa: PTH104
    memory.remember(media)
    (record,) = memory.store.records()
    assert (record.metadata["name"], record.metadata["camera"]) == ("b", "Google Pixel 6")
    make_photo(media / "b.jpg", 1, exif=exif(Model="Pixel 9"))
    memory.remember(media)
    (record,) = memory.store.records()
    assert record.metadata["camera"] == "Google Pixel 9"


def test_sidecar_files_are_no_records_and_not_named_as_skipped(tmp_path: Path) -> None:
    make_photo(tmp_path / "a.jpg")
    (tmp_path / "a.jpg.supplemental-metadata.json").write_text(json.dumps({"people": [{"name": "Ada"}]}))
    memory = harmonia.open(tmp_path / "m.harmonia")
    report = memory.remember(tmp_path)
    assert (report.remembered, report.ignored, report.problems) == (1, 0, ())
    assert len(memory.store.records(where="array_has(people, 'Ada')")) == 1
