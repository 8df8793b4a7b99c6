"""Sidecar files are read as the metadata of what they lie beside."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from harmonia.data import gather
from harmonia.modalities.metadata import metadata_of
from harmonia.types import Record
from tests.media import make_photo, make_tone
from tests.modalities.test_metadata import BOMB, HEAD, PACKET, TAIL, exif

NOTE = {
    "title": "a.jpg", "description": "On the\nbeach", "photoTakenTime": {"timestamp": "1560000000"},
    "geoData": {"latitude": 48.5, "longitude": -2.25, "altitude": 0.0}, "people": [{"name": "Ada"},
    {"name": 7}, 7],
}  # fmt: skip


@pytest.mark.parametrize("beside", ["a.jpg.xmp", "a.xmp", "a.jpg.XMP"])
def test_xmp_beside_a_photo_counts_more_than_the_photo(tmp_path: Path, beside: str) -> None:
    path = make_photo(tmp_path / "a.jpg", exif=exif())
    (tmp_path / beside).write_text(PACKET, encoding="utf-8")
    found = metadata_of(path, "image")
    assert (found["rating"], found["title"], found["year"]) == (4, "Der Hafen", 2018)
    assert (found["camera"], found["artist"]) == ("Google Pixel 6", "Ada, Bob")


def test_the_date_of_a_sidecar_file_itself_is_not_that_of_the_photo(tmp_path: Path) -> None:
    (tmp_path / "a.xmp").write_text(HEAD + 'xmp:CreateDate="2024-01-01">' + TAIL)
    assert metadata_of(make_photo(tmp_path / "a.jpg", exif=exif()), "image")["year"] == 2021
    assert metadata_of(make_photo(tmp_path / "a.jpg"), "image")["taken"] == "2024-01-01"


@pytest.mark.parametrize(
    "note",
    ["<x", BOMB + PACKET, PACKET.replace('"4"', '"99"'), PACKET.replace("Hafen", "x" * 10**6), "\0\xff", "",
     " " * (2 << 20)],
)  # fmt: skip
def test_a_broken_sidecar_costs_only_itself(tmp_path: Path, note: str) -> None:
    path = make_photo(tmp_path / "a.jpg", exif=exif())
    for name in ("a.xmp", "a.jpg.json"):
        (tmp_path / name).write_text(note, encoding="utf-8")
    found = metadata_of(path, "image")
    assert found["camera"] == "Google Pixel 6"
    assert "rating" not in found


@pytest.mark.parametrize(
    ("name", "beside"),
    [
        ("a.jpg", "a.jpg.json"), ("a.jpg", "a.jpg.supplemental-metadata.json"),
        ("a(2).jpg", "a.jpg(2).json"), ("a(2).jpg", "a.jpg.supplemental-metadata(2).json"),
        ("a-edited.jpg", "a.jpg.supplemental-metadata.json"),
        ("PXL_20240101_123456789.NIGHT.jpg", "PXL_20240101_123456789.NIGHT.jpg.supplemental-.json"),
        (f"{'x' * 60}.jpg", f"{'x' * 46}.json"), ("a.wav", "a.wav.supplemental-metadata.json"),
    ],
)  # fmt: skip
def test_the_files_of_google_takeout_are_found(tmp_path: Path, name: str, beside: str) -> None:
    (tmp_path / beside).write_text(json.dumps(NOTE))
    make = make_tone if name.endswith("wav") else make_photo
    found = metadata_of(make(tmp_path / name), "audio" if name.endswith("wav") else "image")
    assert (found["taken"], found["year"]) == ("2019-06-08T13:20:00+00:00", 2019)
    assert (found["latitude"], found["longitude"], found["people"]) == (48.5, -2.25, ["Ada"])
    assert found["description"] == "On the beach"
    ignored: Counter[str] = Counter()
    (record,) = gather([tmp_path], ignored=ignored)
    assert isinstance(record, Record)
    assert len(record.parts) == 1
    assert not ignored


def test_takeout_fills_what_the_photo_leaves_open(tmp_path: Path) -> None:
    path = make_photo(tmp_path / "a.jpg", exif=exif(ImageDescription=None))
    (tmp_path / "a.jpg.json").write_text(json.dumps(NOTE))
    found = metadata_of(path, "image")
    assert (found["latitude"], found["taken"]) == (-33.86, "2021-07-09T10:11:12+02:00")
    assert found["description"] == "On the beach"


@pytest.mark.parametrize(
    ("changed", "kept"),
    [
        ({"photoTakenTime": {"timestamp": "9" * 40}}, {"latitude"}),
        ({"photoTakenTime": {"timestamp": "0"}}, {"latitude"}),
        ({"photoTakenTime": "now"}, {"latitude"}),
        ({"photoTakenTime": {"timestamp": "-86400"}}, {"latitude", "taken"}),
        ({"geoData": {"latitude": 0.0, "longitude": 0.0}}, {"taken"}),
        ({"geoData": {"latitude": 200, "longitude": 5}}, {"taken"}),
        ({"geoData": None, "geoDataExif": {"latitude": 1.0, "longitude": 0.0}}, {"taken", "latitude"}),
        ({"geoData": [1, 2], "people": "Ada", "description": 7}, {"taken"}),
    ],
)
def test_values_of_takeout(tmp_path: Path, changed: dict[str, Any], kept: set[str]) -> None:
    (tmp_path / "a.jpg.json").write_text(json.dumps(NOTE | changed))
    found = metadata_of(make_photo(tmp_path / "a.jpg"), "image")
    assert {"taken", "latitude"} & set(found) == kept


@pytest.mark.parametrize("note", ["[]", "7", '{"photoTakenTime": ' * 50_000, "\ufeff{}", "null", "{'a': 1}"])
def test_json_that_is_no_note_of_takeout(tmp_path: Path, note: str) -> None:
    (tmp_path / "a.jpg.json").write_text(note, encoding="utf-8")
    assert metadata_of(make_photo(tmp_path / "a.jpg"), "image") == {"width": 320, "height": 240}


def test_a_sidecar_file_that_may_not_be_read_is_not(tmp_path: Path) -> None:
    (tmp_path / "elsewhere").write_text(PACKET)
    (tmp_path / "a.xmp").symlink_to(tmp_path / "elsewhere")
    path = make_photo(tmp_path / "a.jpg")
    assert metadata_of(path, "image")["rating"] == 4
    assert "rating" not in metadata_of(path, "image", allowed=lambda file: not file.is_symlink())


def test_other_files_are_still_named_as_skipped(tmp_path: Path) -> None:
    make_photo(tmp_path / "a.jpg")
    for name in ("a.xmp", "b.xmp", "settings.json", "a.jpg.json"):
        (tmp_path / name).write_text("{}")
    ignored: Counter[str] = Counter()
    list(gather([tmp_path], ignored=ignored))
    assert ignored == {".xmp": 1, ".json": 1}
