"""What files say about themselves becomes metadata; what is broken costs only itself."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest
from click.testing import CliRunner
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

import harmonia
from harmonia.cli import cli
from harmonia.modalities.front_matter import split
from harmonia.modalities.metadata import metadata_of
from tests.media import make_photo, make_video, scene, tone

XMP = """<x:xmpmeta xmlns:x="adobe:ns:meta/"><rdf:RDF xmlns:rdf="http://www.w3.org/1999/02/22-rdf-syntax-ns#">
<rdf:Description xmlns:xmp="http://ns.adobe.com/xap/1.0/" xmlns:dc="http://purl.org/dc/elements/1.1/"
 xmp:Rating="4" xmp:CreateDate="2018-02-03T04:05:06+02:00">
<dc:subject><rdf:Bag><rdf:li>Hafen</rdf:li><rdf:li>Nacht</rdf:li></rdf:Bag></dc:subject>
<dc:title><rdf:Alt><rdf:li xml:lang="x-default">Der Hafen</rdf:li></rdf:Alt></dc:title>
<dc:creator><rdf:Seq><rdf:li>Ada</rdf:li></rdf:Seq></dc:creator>
</rdf:Description></rdf:RDF></x:xmpmeta>"""


def exif(**tags: Any) -> Image.Exif:
    found = Image.Exif()
    found[271], found[272], found[274] = "Google", "Google Pixel 6", tags.get("turn", 1)
    found.get_ifd(0x8769).update(
        {
            36867: tags.get("taken", "2021:07:09 10:11:12"),
            36881: tags.get("zone", "+02:00"),
            42036: "Wide 4.5mm",
        }
    )
    found.get_ifd(0x8825).update(
        {1: "S", 2: (33.0, 51.0, 36.0), 3: "E", 4: (151.0, 12.0, 0.0), 5: b"\0", 6: 12.5}
    )
    return found


@pytest.mark.parametrize("suffix", ["jpg", "png", "webp", "avif", "heic"])
def test_a_photo_says_when_where_and_with_what_it_was_taken(tmp_path: Path, suffix: str) -> None:
    if suffix == "heic":
        import pillow_heif

        pillow_heif.register_heif_opener()
    path = make_photo(tmp_path / f"a.{suffix}", exif=exif(turn=6))
    found = metadata_of(path, "image")
    # HEIC is turned by its own header, where Pillow has no say
    assert {found.pop("width"), found.pop("height")} == {240, 320}
    assert found == {
        "taken": "2021-07-09T10:11:12+02:00", "year": 2021, "camera": "Google Pixel 6", "lens": "Wide 4.5mm",
        "latitude": -33.86, "longitude": 151.2, "altitude": 12.5,
    }  # fmt: skip


def test_size_is_that_of_the_upright_picture(tmp_path: Path) -> None:
    found = metadata_of(make_photo(tmp_path / "a.jpg", size=(320, 200), exif=exif(turn=8)), "image")
    assert (found["width"], found["height"]) == (200, 320)


@pytest.mark.parametrize("place", ["inside", "a.jpg.xmp", "a.xmp"])
def test_xmp_inside_and_beside_a_photo(tmp_path: Path, place: str) -> None:
    inside = {"xmp": XMP.encode()} if place == "inside" else {}
    path = make_photo(tmp_path / "a.jpg", **inside)
    if place != "inside":
        (tmp_path / place).write_text(XMP, encoding="utf-8")
    found = metadata_of(path, "image")
    assert found["rating"] == 4
    assert found["keywords"] == ["Hafen", "Nacht"]
    assert (found["title"], found["artist"]) == ("Der Hafen", "Ada")
    assert found["taken"] == "2018-02-03T04:05:06+02:00"
    assert found["year"] == 2018


def test_iptc_keywords(tmp_path: Path) -> None:
    words = [b"harbour", "Zürich".encode()]
    sets = b"".join(b"\x1c\x02\x19" + len(w).to_bytes(2, "big") + w for w in words)
    block = b"8BIM\x04\x04\0\0" + len(sets).to_bytes(4, "big") + sets + b"\0" * (len(sets) % 2)
    content = b"Photoshop 3.0\0" + block
    plain = make_photo(tmp_path / "a.jpg").read_bytes()
    segment = b"\xff\xed" + (len(content) + 2).to_bytes(2, "big") + content
    (tmp_path / "a.jpg").write_bytes(plain[:2] + segment + plain[2:])
    assert metadata_of(tmp_path / "a.jpg", "image")["keywords"] == ["harbour", "Zürich"]


@pytest.mark.parametrize("suffix", [".json", ".supplemental-metadata.json"])
def test_a_json_file_of_google_takeout_fills_what_the_photo_leaves_open(tmp_path: Path, suffix: str) -> None:
    note = {
        "photoTakenTime": {"timestamp": "1560000000"}, "geoData": {"latitude": 48.5, "longitude": -2.25},
        "people": [{"name": "Ada"}, {"name": 7}],
    }  # fmt: skip
    for name, options in (("a.jpg", {}), ("b.jpg", {"exif": exif()})):
        make_photo(tmp_path / name, **options)  # type: ignore[arg-type]
        (tmp_path / f"{name}{suffix}").write_text(json.dumps(note))
    found = metadata_of(tmp_path / "a.jpg", "image")
    assert found["taken"] == "2019-06-08T13:20:00+00:00"
    assert (found["latitude"], found["longitude"], found["people"]) == (48.5, -2.25, ["Ada"])
    assert metadata_of(tmp_path / "b.jpg", "image")["latitude"] == -33.86


@pytest.mark.parametrize(
    ("name", "codec"), [("a.mp3", "libmp3lame"), ("a.m4a", "aac"), ("a.flac", "flac"), ("a.ogg", "libopus")]
)
def test_the_tags_of_a_sound(tmp_path: Path, name: str, codec: str) -> None:
    tags = {"title": "Waves", "artist": "The Sea", "album": "Dusk", "genre": "Ambient", "date": "1998-05-01"}
    with av.open(str(tmp_path / name), "w") as out:
        out.metadata.update(tags)
        stream: Any = out.add_stream(codec, rate=48000)
        stream.layout = "mono"
        frame = av.AudioFrame.from_ndarray(tone(2.0, rate=48000)[None], format="fltp", layout="mono")
        frame.rate, frame.pts = 48000, 0
        size = stream.codec_context.frame_size or 1024
        shaped = av.AudioResampler(stream.format, stream.layout, 48000, size)
        for piece in (*shaped.resample(frame), *shaped.resample(None)):
            out.mux(stream.encode(piece))
        out.mux(stream.encode())
    found = metadata_of(tmp_path / name, "audio")
    assert found.pop("duration") == pytest.approx(2, abs=0.2)
    assert found == {"title": "Waves", "artist": "The Sea", "album": "Dusk", "genre": "Ambient", "year": 1998}


def test_a_video_says_its_size_and_length(tmp_path: Path) -> None:
    found = metadata_of(make_video(tmp_path / "a.mp4", seconds=2), "video")
    assert (found["width"], found["height"]) == (160, 120)
    assert found["duration"] == pytest.approx(2, abs=0.2)


@pytest.mark.parametrize(
    "taken",
    ["0000:00:00 00:00:00", "2021:13:01 00:00:00", "2021:02:30 10:00:00", "    :  :     :  :  ",
     "1970:01:01 00:00:00", "9999:01:01 00:00:00", "garbage", "", "2021", "2021:07:09 25:61:61"],
)  # fmt: skip
def test_a_date_that_no_calendar_has_is_left_out(tmp_path: Path, taken: str) -> None:
    found = metadata_of(make_photo(tmp_path / "a.jpg", exif=exif(taken=taken)), "image")
    assert "taken" not in found
    assert "year" not in found
    assert found["camera"] == "Google Pixel 6"


@pytest.mark.parametrize("zone", ["", "+25:00", "nonsense", "Z", "-03:30"])
def test_a_zone_is_kept_where_there_is_one(tmp_path: Path, zone: str) -> None:
    found = metadata_of(make_photo(tmp_path / "a.jpg", exif=exif(zone=zone)), "image")
    end = {"Z": "+00:00", "-03:30": "-03:30"}.get(zone, "")
    assert found["taken"] == "2021-07-09T10:11:12" + end


@settings(deadline=None, max_examples=150)
@given(st.binary(max_size=60), st.integers(0, 400))
def test_broken_exif_costs_only_itself(tmp_path_factory: Any, junk: bytes, at: int) -> None:
    raw = bytearray(exif().tobytes())
    raw[at % len(raw) : at % len(raw) + len(junk)] = junk
    path = tmp_path_factory.mktemp("m") / "a.jpg"
    scene(1).save(path, exif=bytes(raw)[:60000])
    found = metadata_of(path, "image")
    assert {found["width"], found["height"]} == {320, 240}
    json.dumps(found)
    for name, value in found.items():
        assert not isinstance(value, float) or np.isfinite(value), name
        assert not isinstance(value, str) or (0 < len(value) <= 500 and "\0" not in value), name
    assert -90 <= found.get("latitude", 0) <= 90
    assert -180 <= found.get("longitude", 0) <= 180


@pytest.mark.parametrize(
    "note",
    [
        "<x",
        "<!DOCTYPE x [<!ENTITY a 'b'>]>" + XMP,
        XMP.replace("4", "99"),
        XMP.replace("Hafen", "x" * 10**6),
        "\0\xff",
    ],
)
def test_a_broken_sidecar_costs_only_itself(tmp_path: Path, note: str) -> None:
    path = make_photo(tmp_path / "a.jpg", exif=exif())
    (tmp_path / "a.xmp").write_text(note, encoding="utf-8")
    found = metadata_of(path, "image")
    assert found["camera"] == "Google Pixel 6"
    assert "rating" not in found or found["rating"] in range(6)


@pytest.mark.parametrize(
    ("text", "facts", "body"),
    [
        ("---\ntitle: Leek soup\ntags: [soup, leek]\ndate: 2024-05-06\nserves: 4\ndone: true\n---\n"
         "Wash the leeks.",
         {"title": "Leek soup", "tags": ["soup", "leek"], "date": "2024-05-06", "serves": 4, "done": True},
         "Wash the leeks."),
        ("---\nnot yaml: [\n---\nbody", {}, None),
        ("---\na: &x [1]\nb: *x\n---\nbody", {}, None),
        ("---\njust words\n---\nbody", {}, None),
        ("--- \n\n---\nbody", {}, None),
        ("no front matter\n---\na: 1\n---\n", {}, None),
        ("---\nnested: {a: 1}\nnothing:\nkept: x\n---\n\nbody", {"kept": "x"}, "\nbody"),
    ],
)  # fmt: skip
def test_front_matter(text: str, facts: dict[str, Any], body: str | None) -> None:
    assert split(text) == (facts, text if body is None else body)


@given(st.text(max_size=200))
def test_front_matter_never_fails(text: str) -> None:
    facts, body = split(f"---\n{text}\n---\nthe note")
    assert body.endswith("the note")
    json.dumps(facts)


def test_what_files_say_can_be_filtered_by(tmp_path: Path) -> None:
    media = tmp_path / "in"
    media.mkdir()
    make_photo(media / "new.jpg", 1, exif=exif())
    old = exif(taken="2015:01:01 10:00:00")
    old[271], old[272] = "NIKON CORPORATION", "NIKON D90"
    make_photo(media / "old.jpg", 2, exif=old)
    (media / "soup.md").write_text("---\ntags: [soup]\nyear: 2011\n---\nWash the leeks.", encoding="utf-8")
    memory = harmonia.open(tmp_path / "m")
    assert memory.remember(media).problems == ()

    def named(where: str) -> set[str]:
        return {r.metadata["name"] for r in memory.store.records(where=where)}

    assert named("taken > 2019-06-01 and camera like '%Pixel%'") == {"new"}
    assert named("camera = 'NIKON D90'") == {"old"}
    assert named("year < 2016") == {"old", "soup"}
    assert named("latitude between -34 and -33") == {"new", "old"}
    assert named("array_has(tags, 'soup')") == {"soup"}
    (note,) = memory.store.records(where="name = 'soup'")
    assert [part.text for part in note.parts] == ["Wash the leeks."]
    run = CliRunner().invoke(
        cli,
        ["retrieve", "-m", str(tmp_path / "m"), "--json", "--image", str(media / "new.jpg"),
         "--where", "taken > 2019-06-01 and camera like '%Pixel%'"],
    )  # fmt: skip
    assert run.exit_code == 0, run.output
    assert [r["metadata"]["name"] for r in json.loads(run.output)["records"]] == ["new"]
