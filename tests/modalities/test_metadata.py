"""What files say about themselves becomes metadata; what is broken costs only itself."""

from __future__ import annotations

import json
import struct
import zlib
from pathlib import Path
from typing import Any

import av
import numpy as np
import pillow_heif
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import ExifTags, Image
from PIL.PngImagePlugin import PngInfo
from PIL.TiffImagePlugin import IFDRational

from harmonia.modalities import photo_metadata, xmp
from harmonia.modalities.metadata import metadata_of
from harmonia.modalities.metadata_values import camera, moment, place, rating, zone_between
from harmonia.modalities.recording_tags import tags_as_facts
from tests.media import make_photo, make_tone, make_video, scene, tone

Base, Gps = ExifTags.Base, ExifTags.GPS
HEAD = (
    '<x:xmpmeta xmlns:x="adobe:ns:meta/"><rdf:RDF xmlns:rdf="http://www.w3.org/1999/02/22-rdf-syntax-ns#">'
    '<rdf:Description rdf:about="" xmlns:xmp="http://ns.adobe.com/xap/1.0/" xmlns:dc="http://purl.org/dc/elements/1.1/"'
    ' xmlns:exif="http://ns.adobe.com/exif/1.0/" xmlns:tiff="http://ns.adobe.com/tiff/1.0/"'
    ' xmlns:aux="http://ns.adobe.com/exif/1.0/aux/" xmlns:photoshop="http://ns.adobe.com/photoshop/1.0/"'
    ' xmlns:digiKam="http://www.digikam.org/ns/1.0/" '
)
REGIONS = 'xmlns:r="http://www.metadataworkinggroup.com/schemas/regions/"><r:Regions><r:RegionList><rdf:Bag>'
TAIL = "</rdf:Description></rdf:RDF></x:xmpmeta>"
LISTS = (
    "<dc:subject><rdf:Bag><rdf:li>Hafen</rdf:li><rdf:li>Nacht</rdf:li></rdf:Bag></dc:subject>"
    '<dc:title><rdf:Alt><rdf:li xml:lang="en">Harbour</rdf:li><rdf:li xml:lang="x-default">Der Hafen</rdf:li>'
    "</rdf:Alt></dc:title><dc:creator><rdf:Seq><rdf:li>Ada</rdf:li><rdf:li>Bob</rdf:li></rdf:Seq></dc:creator>"
)
PACKET = f'{HEAD}xmp:Rating="4" exif:DateTimeOriginal="2018-02-03T04:05:06+02:00">{LISTS}{TAIL}'


def exif(**tags: Any) -> Image.Exif:
    """EXIF of a phone; a name of a tag gives its value, None leaves it out."""
    values = {
        "Make": "Google", "Model": "Pixel 6", "Orientation": 1, "Artist": "Ada",
        "ImageDescription": "A bridge",
        "DateTimeOriginal": "2021:07:09 10:11:12", "OffsetTimeOriginal": "+02:00", "LensModel": "Wide 4.5mm",
        "GPSLatitudeRef": "S", "GPSLatitude": (33.0, 51.0, 36.0), "GPSLongitudeRef": "E",
        "GPSLongitude": (151.0, 12.0, 0.0), "GPSAltitudeRef": b"\0", "GPSAltitude": 12.5, **tags,
    }  # fmt: skip
    found = Image.Exif()
    for name, value in values.items():
        if value is None or name.startswith("XP"):
            continue
        if name.startswith("GPS"):
            found.get_ifd(ExifTags.IFD.GPSInfo)[Gps[name].value] = value
        elif name.startswith(("DateTime", "Offset", "Lens")):
            found.get_ifd(ExifTags.IFD.Exif)[Base[name].value] = value
        else:
            found[Base[name].value] = value
    for name in ("XPTitle", "XPKeywords"):
        if name in tags:
            found[Base[name]] = (tags[name] + "\0").encode("utf-16-le")
    return found


def photo(folder: Path, name: str = "a.jpg", **tags: Any) -> dict[str, Any]:
    return metadata_of(make_photo(folder / name, exif=exif(**tags)), "image")


@pytest.mark.parametrize("suffix", ["jpg", "png", "webp", "avif", "heic", "tif", "jxl"])
def test_a_photo_says_when_where_and_with_what_it_was_taken(tmp_path: Path, suffix: str) -> None:
    pillow_heif.register_heif_opener()
    pytest.importorskip("pillow_jxl")
    described = exif()
    make_photo(tmp_path / f"a.{suffix}", exif=described.tobytes() if suffix in ("jxl", "tif") else described)
    found = metadata_of(tmp_path / f"a.{suffix}", "image")
    assert found == {
        "taken": "2021-07-09T10:11:12+02:00", "year": 2021, "camera": "Google Pixel 6", "lens": "Wide 4.5mm",
        "latitude": -33.86, "longitude": 151.2, "altitude": 12.5, "width": 320, "height": 240,
        "artist": "Ada",
        "description": "A bridge",
    }  # fmt: skip


@pytest.mark.parametrize("turn", [1, 2, 3, 4, 5, 6, 7, 8, 0, 9, 65535])
def test_the_size_is_that_of_the_upright_picture(tmp_path: Path, turn: int) -> None:
    found = photo(tmp_path, Orientation=turn)
    assert (found["width"], found["height"]) == ((240, 320) if 5 <= turn <= 8 else (320, 240))


def test_the_size_of_a_photo_that_decoding_mends(tmp_path: Path) -> None:
    whole = make_photo(tmp_path / "a.png", exif=exif()).read_bytes()
    broken = struct.pack(">I", 4) + b"iCCPjunk" + b"\0\0\0\0"
    (tmp_path / "a.png").write_bytes(whole[:33] + broken + whole[33:])
    assert metadata_of(tmp_path / "a.png", "image")["width"] == 320


# Dates


@pytest.mark.parametrize(
    "taken",
    ["0000:00:00 00:00:00", "2021:13:01 00:00:00", "2021:02:30 10:00:00", "    :  :     :  :  ",
     "3000:01:01 01:01:01",
     "1970:01:01 00:00:00", "1904:01:01 00:00:00", "garbage", "", "2021", "2021:07:09 25:61:61",
     "-021:07:09 10:00:00",
     "\0" * 19, "x" * 100_000],
)  # fmt: skip
def test_a_date_that_no_calendar_has_is_left_out(tmp_path: Path, taken: str) -> None:
    found = photo(tmp_path, DateTimeOriginal=taken[:30_000])
    assert "taken" not in found
    assert "year" not in found
    assert found["camera"] == "Google Pixel 6"


@pytest.mark.parametrize(
    ("written", "read"),
    [
        ("2999:12:31 23:59:59", "2999-12-31T23:59:59"), ("1000:01:01 00:00:00", "1000-01-01T00:00:00"),
        ("1970:01:01 00:00:01", "1970-01-01T00:00:01"), ("2021-07-09T10:11", "2021-07-09T10:11:00"),
        ("2021:07:09", "2021-07-09"), ("2021-07-09T10:11:12.123456Z", "2021-07-09T10:11:12+00:00"),
        ("2021-07-09T10:11:12+0530", "2021-07-09T10:11:12+05:30"), ("2021/07/09 10:11:12",
         "2021-07-09T10:11:12"),
        ("2021:07:09 10:11:12\0", "2021-07-09T10:11:12"), ("2021-07", None), ("2021-07-09T10:11:99", None),
        ("2016:12:31 23:59:60", "2016-12-31T23:59:59"),
        ("2021-07-091", None), (20210709, None), (None, None), (b"2021:07:09 10:11:12",
         "2021-07-09T10:11:12"),
    ],
)  # fmt: skip
def test_dates_are_iso_text(written: Any, read: str | None) -> None:
    assert moment(written) == read


@pytest.mark.parametrize(
    "zone", [None, "", "+25:00", "nonsense", "+14:75", "Z", "-03:30", "+0200", "   :  ", b"\xff"]
)
def test_a_zone_is_kept_where_there_is_one(tmp_path: Path, zone: Any) -> None:
    found = photo(tmp_path, OffsetTimeOriginal=zone)
    end = {"Z": "+00:00", "-03:30": "-03:30", "+0200": "+02:00"}.get(zone, "")
    assert found["taken"] == "2021-07-09T10:11:12" + end


@pytest.mark.parametrize(
    ("day", "clock", "zone"),
    [("2021:07:09", (8.0, 11.0, 40.0), "+02:00"), ("2021:07:08", (23.0, 11.0, 12.0), "+11:00"),
     ("2021:07:09", (13.0, 41.0, 12.0), "-03:30"), ("2021:07:09", (10.0, 11.0, 0.0), "+00:00"),
     ("2021:07:09", (8.0, 4.0, 0.0), ""), ("2021:07:01", (8.0, 11.0, 12.0), ""),
     ("2021:07:09", (25.0, 0.0, 0.0), ""), ("nothing", (8.0, 11.0, 12.0), "")],
)  # fmt: skip
def test_the_time_of_satellites_tells_the_zone(
    tmp_path: Path, day: str, clock: tuple[float, ...], zone: str
) -> None:
    found = photo(tmp_path, OffsetTimeOriginal=None, GPSDateStamp=day, GPSTimeStamp=clock)
    assert found["taken"] == "2021-07-09T10:11:12" + zone


@given(st.datetimes(), st.datetimes())
def test_zones_are_of_this_world(local: Any, universal: Any) -> None:
    zone = zone_between(local, universal)
    assert zone is None or moment("2020-01-01T10:00:00" + zone) == "2020-01-01T10:00:00" + zone


def test_the_moment_of_a_scan_is_that_of_a_photo_without_another(tmp_path: Path) -> None:
    scan = photo(
        tmp_path, DateTimeOriginal=None, DateTimeDigitized="2010:01:02 03:04:05", OffsetTimeOriginal=None
    )
    assert scan["taken"] == "2010-01-02T03:04:05"
    assert photo(tmp_path, DateTimeDigitized="2022:01:02 03:04:05")["year"] == 2021


# Places, cameras, ratings


@pytest.mark.parametrize(
    ("tags", "where"),
    [
        ({"GPSLatitude": (200.0, 0.0, 0.0)}, None),
        ({"GPSLongitude": (181.0, 0.0, 0.0)}, None),
        ({"GPSLatitude": (IFDRational(1, 0), 0.0, 0.0)}, None),
        ({"GPSLatitude": (IFDRational(0, 0), IFDRational(0, 0), IFDRational(0, 0))}, None),
        ({"GPSLatitude": (0.0, 0.0, 0.0), "GPSLongitude": (0.0, 0.0, 0.0)}, None),
        ({"GPSLatitude": None}, None),
        ({"GPSLatitude": (0.0, 0.0, 0.0)}, (0.0, 151.2)),
        ({"GPSLatitude": 33.5}, (-33.5, 151.2)),
        ({"GPSLongitudeRef": "W", "GPSLatitudeRef": "N"}, (33.86, -151.2)),
        ({"GPSAltitude": IFDRational(5, 0)}, (-33.86, 151.2)),
    ],
)
def test_a_place_that_is_not_on_earth_is_left_out(tmp_path: Path, tags: Any, where: Any) -> None:
    found = photo(tmp_path, **tags)
    assert found["camera"] == "Google Pixel 6"
    assert (found.get("latitude"), found.get("longitude")) == (where or (None, None))


def test_below_the_sea() -> None:
    below = exif(GPSAltitudeRef=b"\1")
    assert photo_metadata._place(below.get_ifd(ExifTags.IFD.GPSInfo))["altitude"] == -12.5
    assert place(10, 20, 1e300) == {"latitude": 10, "longitude": 20}


@pytest.mark.parametrize(
    ("make", "model", "name"),
    [("NIKON CORPORATION", "NIKON D90", "NIKON D90"), ("Canon", "Canon EOS 5D", "Canon EOS 5D"),
     ("Apple", "iPhone 12", "Apple iPhone 12"), (None, "X100", "X100"), ("LEICA", None, "LEICA"), ("", " ",
      None),
     (b"SONY\0", "ILCE-7", "SONY ILCE-7"), (5, (1, 2), None), ("\0\0", "\ud800", "?")],
)  # fmt: skip
def test_the_maker_of_a_camera_is_named_once(make: Any, model: Any, name: str | None) -> None:
    assert camera(make, model) == name


@pytest.mark.parametrize(
    ("value", "stars"),
    [(4, 4), ("3", 3), ("2.5", 2.5), (0, 0), (5.0, 5), (-1, None), (6, None), ("x", None), ("nan", None),
     (None, None), ((1, 2), None), ("1e999", None), (IFDRational(1, 0), None)],
)  # fmt: skip
def test_ratings(value: Any, stars: float | None) -> None:
    assert rating(value) == stars


def test_words_of_windows_and_other_encodings(tmp_path: Path) -> None:
    found = photo(tmp_path, XPTitle="Brücke", XPKeywords="Fluß; Brücke;;Fluß", Artist="Jörg".encode())
    assert (found["title"], found["keywords"], found["artist"]) == ("Brücke", ["Fluß", "Brücke"], "Jörg")


def test_what_cameras_write_in_place_of_words_is_no_description(tmp_path: Path) -> None:
    assert "description" not in photo(tmp_path, ImageDescription="OLYMPUS DIGITAL CAMERA")


# IPTC and XMP


def with_iptc(path: Path, sets: bytes) -> Path:
    block = b"8BIM\x04\x04\0\0" + len(sets).to_bytes(4, "big") + sets + b"\0" * (len(sets) % 2)
    content = b"Photoshop 3.0\0" + block
    plain = make_photo(path).read_bytes()
    path.write_bytes(plain[:2] + b"\xff\xed" + (len(content) + 2).to_bytes(2, "big") + content + plain[2:])
    return path


def data_set(number: int, value: bytes) -> bytes:
    return bytes((0x1C, 2, number)) + len(value).to_bytes(2, "big") + value


def test_iptc(tmp_path: Path) -> None:
    sets = [(5, b"Port"), (25, b"harbour"), (25, "Zürich".encode()), (25, "Genève".encode("cp1252")), (55,
    b"20190301"),
            (60, b"101112+0100"), (80, b"Ada"), (120, b"Boats at rest")]  # fmt: skip
    path = with_iptc(tmp_path / "a.jpg", b"".join(data_set(*one) for one in sets))
    assert metadata_of(path, "image") == {
        "keywords": ["harbour", "Zürich", "Genève"], "title": "Port", "artist": "Ada",
        "description": "Boats at rest",
        "taken": "2019-03-01T10:11:12+01:00", "year": 2019, "width": 320, "height": 240,
    }  # fmt: skip


@settings(max_examples=60)
@given(st.binary(max_size=40))
def test_broken_iptc_costs_what_stands_behind_it(tmp_path_factory: Any, junk: bytes) -> None:
    path = with_iptc(tmp_path_factory.mktemp("m") / "a.jpg", data_set(25, b"harbour") + junk)
    assert metadata_of(path, "image")["keywords"][0] == "harbour"


def late_png(path: Path) -> None:
    """A PNG with its EXIF and XMP behind the picture, as ExifTool writes them."""
    whole = make_photo(path).read_bytes()
    chunks = b""
    text = b"XML:com.adobe.xmp\0\0\0\0\0" + PACKET.encode()
    for name, content in ((b"eXIf", exif().tobytes()[6:]), (b"iTXt", text)):
        crc = zlib.crc32(name + content)
        chunks += len(content).to_bytes(4, "big") + name + content + crc.to_bytes(4, "big")
    path.write_bytes(whole[:-12] + chunks + whole[-12:])


def test_metadata_behind_the_picture_of_a_png(tmp_path: Path) -> None:
    late_png(tmp_path / "a.png")
    found = metadata_of(tmp_path / "a.png", "image")
    assert (found["camera"], found["rating"], found["keywords"]) == ("Google Pixel 6", 4, ["Hafen", "Nacht"])


def test_the_head_of_a_png_that_is_too_large_to_decode(tmp_path: Path) -> None:
    header = struct.pack(">IIBBBBB", 60_000, 60_000, 8, 2, 0, 0, 0)
    content = b"\x89PNG\r\n\x1a\n"
    for name, data in ((b"IHDR", header), (b"IDAT", zlib.compress(b"0"))):
        content += len(data).to_bytes(4, "big") + name + data + zlib.crc32(name + data).to_bytes(4, "big")
    (tmp_path / "a.png").write_bytes(content)
    assert metadata_of(tmp_path / "a.png", "image") == {"width": 60_000, "height": 60_000}


def test_the_words_of_a_png(tmp_path: Path) -> None:
    info = PngInfo()
    info.add_text("Title", "Dunes")
    info.add_text("Author", "Ada")
    make_photo(tmp_path / "a.png", pnginfo=info)
    found = metadata_of(tmp_path / "a.png", "image")
    assert (found["title"], found["artist"]) == ("Dunes", "Ada")


@pytest.mark.parametrize(
    ("written", "read"),
    [
        ("Fri, 01 May 2020 10:20:30 +0200", "2020-05-01T10:20:30+02:00"), ("1 May 2020 10:20:30 GMT",
         "2020-05-01T10:20:30+00:00"),
        ("2020-05-01T10:20:30Z", "2020-05-01T10:20:30+00:00"), ("2020:05:01 10:20:30", "2020-05-01T10:20:30"),
        ("32 May 2020 10:20:30", None), ("1 May 99999 10:20:30", None), ("yesterday", None), ("", None),
    ],
)  # fmt: skip
def test_when_a_png_was_made(tmp_path: Path, written: str, read: str | None) -> None:
    info = PngInfo()
    info.add_text("Creation Time", written)
    make_photo(tmp_path / "a.png", pnginfo=info)
    assert metadata_of(tmp_path / "a.png", "image").get("taken") == read


@pytest.mark.parametrize("suffix", ["jpg", "png", "webp", "tif", "avif"])
def test_xmp_inside_a_picture(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"a.{suffix}"
    if suffix == "png":
        info = PngInfo()
        info.add_itxt("XML:com.adobe.xmp", PACKET)
        make_photo(path, pnginfo=info)
    elif suffix == "tif":
        make_photo(path, tiffinfo={700: PACKET.encode()})
    else:
        make_photo(path, xmp=PACKET.encode())
    assert metadata_of(path, "image") == {
        "rating": 4, "keywords": ["Hafen", "Nacht"], "title": "Der Hafen", "artist": "Ada, Bob", "year": 2018,
        "taken": "2018-02-03T04:05:06+02:00", "width": 320, "height": 240,
    }  # fmt: skip


def test_exif_tells_the_moment_and_xmp_what_people_wrote(tmp_path: Path) -> None:
    path = make_photo(tmp_path / "a.jpg", exif=exif(XPTitle="old", XPKeywords="river"), xmp=PACKET.encode())
    found = metadata_of(path, "image")
    assert (found["year"], found["title"], found["artist"]) == (2021, "Der Hafen", "Ada, Bob")
    assert found["keywords"] == ["Hafen", "Nacht", "river"]


@pytest.mark.parametrize(
    ("inside", "facts"),
    [
        ('tiff:Make="Google" tiff:Model="Pixel 4" aux:Lens="28mm">', {"camera": "Google Pixel 4",
         "lens": "28mm"}),
        ('exif:GPSLatitude="48,30.5N" exif:GPSLongitude="2,15,0W" exif:GPSAltitude="125/10">',
         {"latitude": 48.508333, "longitude": -2.25, "altitude": 12.5}),
        ('exif:GPSLatitude="95,30.5N" exif:GPSLongitude="2,15,0W">', {}),
        ('exif:GPSLatitude="48.5" exif:GPSLongitude="-2.25">', {"latitude": 48.5, "longitude": -2.25}),
        ("><xmp:Rating>3</xmp:Rating>", {"rating": 3}),
        ('xmp:Rating="-1">', {}), ('xmp:Rating="99">', {}), ('xmp:Rating="">', {}),
        ('xmp:CreateDate="2018-02-03">', {"created": "2018-02-03"}),
        ('photoshop:DateCreated="2017-02-03T01:02">', {"taken": "2017-02-03T01:02:00"}),
        ("><digiKam:TagsList><rdf:Seq><rdf:li>People/Ada</rdf:li></rdf:Seq></digiKam:TagsList>",
         {"keywords": ["Ada"]}),
        ("><dc:title>bare</dc:title>", {"title": "bare"}), ("><dc:subject>bare</dc:subject>",
         {"keywords": ["bare"]}),
        (REGIONS + ('<rdf:li><rdf:Description r:Name="Ada" r:Type="Face"/></rdf:li>'
                    '<rdf:li r:Name="Bob" r:Type="Face"/>'
                    '<rdf:li><r:Name>Eve</r:Name><r:Type>Face</r:Type></rdf:li><rdf:li r:Type="Face"/>'
                    '<rdf:li r:Name="a bone" r:Type="Focus"/></rdf:Bag></r:RegionList></r:Regions>'),
         {"people": ["Ada", "Bob", "Eve"]}),
        (f"><dc:subject><rdf:Bag><rdf:li>{'x' * 90_000}</rdf:li><rdf:li>kept</rdf:li></rdf:Bag></dc:subject>",
         {"keywords": ["kept"]}),
    ],
)  # fmt: skip
def test_properties_of_xmp(inside: str, facts: dict[str, Any]) -> None:
    assert xmp.facts_of(HEAD + inside + TAIL) == facts


BOMB = "<!DOCTYPE x [<!ENTITY a 'bbbbbbbbbb'><!ENTITY c '&a;&a;&a;&a;&a;'>]>"


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "utf-16-le", "utf-16-be", "utf-32"])
def test_xmp_in_all_encodings_and_no_document_type_in_any(encoding: str) -> None:
    assert xmp.facts_of(PACKET.encode(encoding)).get("rating") == 4
    assert xmp.parsed((BOMB + PACKET).encode(encoding)) is None


@pytest.mark.parametrize(
    "packet",
    [b"<x", b"", b"\0\xff", "<a>" * 100_000, ("<a>" * 100_000 + "</a>" * 100_000)[:900_000], PACKET[:-9], 7,
     None,
     b" " * (2 << 20), PACKET.replace("xmp:Rating", "nope:Rating"), "\ud800" + PACKET],
)  # fmt: skip
def test_broken_xmp_gives_nothing(packet: Any) -> None:
    assert xmp.facts_of(packet) == {}


@settings(max_examples=300)
@given(st.binary(max_size=12), st.integers(0, 4000))
def test_broken_exif_costs_only_itself(tmp_path_factory: Any, junk: bytes, at: int) -> None:
    raw = bytearray(
        exif(XPTitle="bridge", GPSDateStamp="2021:07:09", GPSTimeStamp=(8.0, 11.0, 12.0)).tobytes()
    )
    raw[at % len(raw) : at % len(raw) + len(junk)] = junk
    path = tmp_path_factory.mktemp("m") / "a.jpg"
    scene(1, (64, 48)).save(path, exif=bytes(raw))
    found = metadata_of(path, "image")
    assert {found["width"], found["height"]} == {64, 48}
    check(found)


def check(found: dict[str, Any]) -> None:
    """What holds of all metadata, whatever the file."""
    json.dumps(found).encode()
    for name, value in found.items():
        texts = value if isinstance(value, list) else [value] if isinstance(value, str) else []
        assert all(0 < len(text) <= 5000 and text.isprintable() for text in texts), name
        assert not isinstance(value, float) or np.isfinite(value), name
    assert -90 <= found.get("latitude", 0) <= 90
    assert -180 <= found.get("longitude", 0) <= 180
    assert 0 <= found.get("rating", 0) <= 5
    assert 1000 <= found.get("year", 1000) < 3000
    assert "taken" not in found or moment(found["taken"]) == found["taken"]


# Sounds and videos

SOUNDS = {
    "a.mp3": "libmp3lame", "a.m4a": "aac", "a.flac": "flac", "a.ogg": "libopus", "a.wav": "pcm_s16le",
    "a.mka": "flac",
}  # fmt: skip


def make_sound(path: Path, tags: dict[str, str]) -> Path:
    with av.open(str(path), "w") as out:
        out.metadata.update(tags)
        stream: Any = out.add_stream(SOUNDS[path.name], rate=48000)
        stream.layout = "mono"
        frame = av.AudioFrame.from_ndarray(tone(2.0, rate=48000)[None], format="fltp", layout="mono")
        frame.rate, frame.pts = 48000, 0
        size = stream.codec_context.frame_size or 1024
        shaped = av.AudioResampler(stream.format, stream.layout, 48000, size)
        for piece in (*shaped.resample(frame), *shaped.resample(None)):
            out.mux(stream.encode(piece))
        out.mux(stream.encode())
    return path


@pytest.mark.parametrize("name", SOUNDS)
def test_the_tags_of_a_sound(tmp_path: Path, name: str) -> None:
    tags = {"title": "Waves", "artist": "The Sea", "album": "Dusk", "genre": "Ambient", "date": "1998-05-01"}
    found = metadata_of(make_sound(tmp_path / name, tags), "audio")
    assert found.pop("duration") == pytest.approx(2, abs=0.2)
    assert found == {"title": "Waves", "artist": "The Sea", "album": "Dusk", "genre": "Ambient", "year": 1998}


@pytest.mark.parametrize("suffix", ["wav", "flac", "ogg"])
def test_the_tags_that_soundfile_writes(tmp_path: Path, suffix: str) -> None:
    tags = {"title": "Waves", "artist": "The Sea", "album": "Dusk", "genre": "Ambient", "date": "1998"}
    found = metadata_of(make_tone(tmp_path / f"a.{suffix}", tags=tags), "audio")
    assert (found["title"], found["artist"], found["year"]) == ("Waves", "The Sea", 1998)


@pytest.mark.parametrize(
    ("tags", "facts"),
    [
        ({"creation_time": "2021-07-09T08:11:12.000000Z"}, {"taken": "2021-07-09T08:11:12+00:00"}),
        ({"creation_time": "1904-01-01T00:00:00.000000Z"}, {}),
        ({"creation_time": "2021-07-09T08:11:12Z", "album": "Dusk"}, {"album": "Dusk"}),
        ({"com.apple.quicktime.creationdate": "2021-07-09T10:11:12+0200",
         "creation_time": "2022-01-01T00:00:01Z"},
         {"taken": "2021-07-09T10:11:12+02:00"}),
        ({"origination_date": "2019-03-01", "origination_time": "10:11:12"},
         {"taken": "2019-03-01T10:11:12"}),
        ({"com.apple.quicktime.location.iso6709": "+48.8584-002.2945+035.000/"},
         {"latitude": 48.8584, "longitude": -2.2945, "altitude": 35.0}),
        ({"location": "+91.0+200.0/"}, {}),
        ({"com.apple.quicktime.make": "Apple", "com.apple.quicktime.model": "iPhone 12"},
         {"camera": "Apple iPhone 12"}),
        ({"date": "0000"}, {}), ({"date": "19"}, {}), ({"date": "19980501"}, {}), ({"year": "1998"},
         {"year": 1998}),
        ({"keywords": "sea, wave;sea"}, {"keywords": ["sea", "wave"]}),
        ({"title": "x" * 10**6, "artist": "\0"}, {}),
    ],
)  # fmt: skip
def test_tags(tags: dict[str, str], facts: dict[str, Any]) -> None:
    assert tags_as_facts(tags) == facts


@given(
    st.dictionaries(
        st.sampled_from(["date", "creation_time", "location", "title", "keywords", "make"]), st.text()
    )
)
def test_tags_of_any_text(tags: dict[str, str]) -> None:
    check(tags_as_facts(tags))


@pytest.mark.parametrize("rotation", [0, 90, 180, 270])
def test_a_video_says_its_size_as_shown_and_its_length(tmp_path: Path, rotation: int) -> None:
    found = metadata_of(make_video(tmp_path / "a.mp4", seconds=2, rotation=rotation), "video")
    assert (found["width"], found["height"]) == ((120, 160) if rotation % 180 else (160, 120))
    assert found["duration"] == pytest.approx(2, abs=0.2)


@pytest.mark.parametrize("modality", ["image", "audio", "video", "text"])
@pytest.mark.parametrize(
    "content", [b"", b"junk", b"\xff\xd8\xff\xe1\xff\xff", b"RIFF\xff\xff\xff\xffWAVE", None]
)
def test_a_file_that_is_none_gives_nothing(tmp_path: Path, modality: str, content: bytes | None) -> None:
    if content is not None:
        (tmp_path / "a").write_bytes(content)
    assert metadata_of(tmp_path / "a", modality) == {}
