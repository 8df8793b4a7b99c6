"""What files say about themselves: EXIF, IPTC and XMP of pictures, tags of sounds and videos, sidecar files.

Each source gives the columns of docs/metadata.md. A value that is broken, absurd or too long is left out; no
file is refused for its metadata.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Callable, Iterator, Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

from PIL import ExifTags, Image, IptcImagePlugin

from harmonia.modalities import front_matter
from harmonia.modalities.image_formats import is_raw, open_image
from harmonia.modalities.limits import LIMITS, Limits, opened
from harmonia.modalities.pyav import container_of
from harmonia.types import HarmoniaError

Facts = dict[str, Any]

# Characters of a text, and entries of a list; more is no description of a file.
TEXT_MOST, LIST_MOST, SIDECAR_MOST = 500, 200, 1 << 20
# Before photography, and far off: what a clock that was never set says.
YEARS = range(1826, 2200)
_RATINGS = range(6)

_DC, _XMP = "{http://purl.org/dc/elements/1.1/}", "{http://ns.adobe.com/xap/1.0/}"
_PHOTOSHOP, _EXIF = "{http://ns.adobe.com/photoshop/1.0/}", "{http://ns.adobe.com/exif/1.0/}"
_RDF = "{http://www.w3.org/1999/02/22-rdf-syntax-ns#}"
_DATE = re.compile(
    r"(\d{4})[:-](\d\d)[:-](\d\d)(?:[ T](\d\d):(\d\d)(?::(\d\d)(?:\.\d+)?)?)?\s*(Z|[+-]\d\d:?\d\d)?"
)
_PLACE = re.compile(r"([+-]\d+(?:\.\d+)?)([+-]\d+(?:\.\d+)?)([+-]\d+(?:\.\d+)?)?")


def metadata_of(path: Path, modality: str, limits: Limits = LIMITS) -> Facts:
    """The columns that a file and its sidecar files give, by name; {} where nothing is known.

    An XMP sidecar, which people edit, counts more than what the file holds; a JSON file of Google Takeout
    fills what both leave open.
    """
    readers: dict[str, Callable[[Path, Limits], Facts]] = {
        "image": _of_image, "audio": _of_recording, "video": _of_recording, "text": front_matter.facts_of
    }  # fmt: skip
    if modality not in readers:
        return {}
    try:
        own = readers[modality](path, limits)
    except (
        HarmoniaError,
        OSError,
        ValueError,
        TypeError,
        LookupError,
        ArithmeticError,
        SyntaxError,
        EOFError,
    ):
        own = {}
    found = _of_takeout(path) | own | _of_sidecar(path)
    taken = str(found.get("taken", ""))
    if "year" not in found and taken[:4].isdigit():
        found["year"] = int(taken[:4])
    return found


# Pictures


def _of_image(path: Path, limits: Limits) -> Facts:
    with opened(path, limits) as file:
        if is_raw(path, file):
            file.seek(0)
            return (
                _of_exif(Image.open(file, formats=["TIFF"]).getexif())
                if file.read(2) in (b"II", b"MM")
                else {}
            )
        image = open_image(path, file)
        exif = image.getexif()
        width, height = image.size
        if exif.get(ExifTags.Base.Orientation) in (5, 6, 7, 8):
            width, height = height, width
        packet = image.info.get("xmp") or image.info.get("XML:com.adobe.xmp")
        found = {"width": width, "height": height}
        for read in (lambda: _of_exif(exif), lambda: _of_iptc(image), lambda: _of_xmp(packet)):
            found |= _attempt(read)
        return found


def _attempt(read: Callable[[], Facts]) -> Facts:
    """What a reader finds; one source that is broken costs only itself."""
    try:
        return read()
    except Exception:
        return {}


def _of_exif(exif: Image.Exif) -> Facts:
    details: Mapping[int, Any] = _ifd(exif, ExifTags.IFD.Exif)
    base, camera = ExifTags.Base, ExifTags.Base.Model
    found = {
        "taken": _date(details.get(base.DateTimeOriginal) or details.get(base.DateTimeDigitized),
                       details.get(base.OffsetTimeOriginal) or details.get(base.OffsetTime)),
        "camera": _camera(exif.get(base.Make), exif.get(camera)),
        "lens": _text(details.get(base.LensModel)),
        "artist": _text(exif.get(base.Artist)),
        "title": _wide(exif.get(base.XPTitle)),
        "rating": _rating(exif.get(0x4746)),
        "keywords": _list(str(_wide(exif.get(base.XPKeywords)) or "").split(";")),
    }  # fmt: skip
    return _given(found) | _of_gps(_ifd(exif, ExifTags.IFD.GPSInfo))


def _ifd(exif: Image.Exif, which: int) -> Mapping[int, Any]:
    try:
        return exif.get_ifd(which)
    except Exception:
        return {}


def _of_gps(gps: Mapping[int, Any]) -> Facts:
    latitude = _degrees(gps.get(2), gps.get(1), "S", 90)
    longitude = _degrees(gps.get(4), gps.get(3), "W", 180)
    if latitude is None or longitude is None or latitude == longitude == 0:
        return {}
    altitude = _number(gps.get(6))
    below = gps.get(5) in (1, b"\x01")
    high = None if altitude is None or abs(altitude) > 1e5 else round(-altitude if below else altitude, 1)
    return _given({"latitude": latitude, "longitude": longitude, "altitude": high})


def _degrees(parts: Any, side: Any, negative: str, most: int) -> float | None:
    if not isinstance(parts, tuple) or not 1 <= len(parts) <= 3:
        return None
    numbers = [_number(part) for part in parts]
    if any(number is None for number in numbers):
        return None
    total = sum((number or 0.0) / 60**i for i, number in enumerate(numbers))
    if not 0 <= total <= most:
        return None
    side = _text(side)
    return float(round(-total if side == negative else total, 6))


def _of_iptc(image: Any) -> Facts:
    found = IptcImagePlugin.getiptcinfo(image) or {}
    words = found.get((2, 25), [])
    words = words if isinstance(words, list) else [words]
    names = {"title": (2, 5), "artist": (2, 80)}
    single = {name: found.get(key) for name, key in names.items()}
    first = {name: value[0] if isinstance(value, list) else value for name, value in single.items()}
    return _given({"keywords": _list(words)} | {name: _text(value) for name, value in first.items()})


def _of_xmp(packet: Any) -> Facts:
    # a document type could define entities that expand without end; XMP has none
    raw = packet.encode() if isinstance(packet, str) else packet
    if not isinstance(raw, bytes) or b"<!DOCTYPE" in raw or len(raw) > SIDECAR_MOST:
        return {}
    try:
        root = ElementTree.fromstring(raw.strip(b"\0 \t\r\n"))
    except ElementTree.ParseError:
        return {}
    dates = (_PHOTOSHOP + "DateCreated", _EXIF + "DateTimeOriginal", _XMP + "CreateDate")
    return _given(
        {
            "taken": next(filter(None, (_date(_property(root, name)) for name in dates)), None),
            "rating": _rating(_property(root, _XMP + "Rating")),
            "keywords": _list(_items(root, _DC + "subject")),
            "title": _text(next(_items(root, _DC + "title"), None)),
            "artist": _text(next(_items(root, _DC + "creator"), None)),
        }
    )


def _property(root: ElementTree.Element, name: str) -> str | None:
    """A simple property, which XMP writes as an attribute or as an element."""
    for node in root.iter(_RDF + "Description"):
        if name in node.attrib:
            return node.attrib[name]
        child = node.find(name)
        if child is not None:
            return child.text
    return None


def _items(root: ElementTree.Element, name: str) -> Iterator[str]:
    for node in root.iter(name):
        for item in node.iter(_RDF + "li"):
            yield item.text or ""


# Sounds and videos


def _of_recording(path: Path, limits: Limits) -> Facts:
    with opened(path, limits) as file, container_of(path, file, "audio", "give another file") as container:
        tags: dict[str, str] = {}
        for holder in (container, *list(container.streams)[:4]):
            for name, value in holder.metadata.items():
                tags.setdefault(name.lower(), value)
        moving = [s for s in container.streams.video if not s.disposition & 0x400]
        seconds = (
            round(container.duration / 1e6, 2) if container.duration and container.duration > 0 else None
        )
        size = {"width": moving[0].width, "height": moving[0].height} if moving else {}
    return _of_tags(tags) | _given({"duration": seconds, **size})


def _of_tags(tags: Mapping[str, str]) -> Facts:
    apple = "com.apple.quicktime."
    year = re.match(r"\d{4}", str(tags.get("date") or tags.get("year") or ""))
    place = _PLACE.match(tags.get(apple + "location.iso6709", tags.get("location", "")))
    found = {name: _text(tags.get(name)) for name in ("title", "artist", "album", "genre")}
    found["camera"] = _camera(tags.get(apple + "make"), tags.get(apple + "model"))
    where: Facts = {}
    if place is not None and abs(float(place[1])) <= 90 and abs(float(place[2])) <= 180:
        where = {"latitude": float(place[1]), "longitude": float(place[2])}
    return _given(
        {
            **found,
            "year": int(year[0]) if year and int(year[0]) in range(1000, 2200) else None,
            "taken": _date(tags.get(apple + "creationdate") or tags.get("creation_time")),
            "keywords": _list(re.split(r"[;,]", tags.get("keywords", ""))),
            **where,
        }
    )


# Sidecar files


def _of_sidecar(path: Path) -> Facts:
    for beside in (path.with_name(path.name + ".xmp"), path.with_suffix(".xmp")):
        raw = _small(beside)
        if raw is not None:
            return _attempt(lambda raw=raw: _of_xmp(raw))  # type: ignore[misc]
    return {}


def _of_takeout(path: Path) -> Facts:
    for suffix in (".supplemental-metadata.json", ".json"):
        raw = _small(path.with_name(path.name + suffix))
        if raw is not None:
            return _attempt(lambda raw=raw: _of_google(json.loads(raw)))  # type: ignore[misc]
    return {}


def _of_google(note: Any) -> Facts:
    stamp = _number(note.get("photoTakenTime", {}).get("timestamp"))
    taken = None if stamp is None else datetime.fromtimestamp(stamp, UTC).isoformat(timespec="seconds")
    place = note.get("geoData", {})
    latitude, longitude = _number(place.get("latitude")), _number(place.get("longitude"))
    where = {"latitude": latitude, "longitude": longitude} if latitude and longitude else {}
    people = _list([person.get("name") for person in note.get("people", [])])
    return _given({"taken": _date(taken), "people": people, **where})


def _small(path: Path) -> bytes | None:
    try:
        return path.read_bytes() if path.is_file() and path.stat().st_size <= SIDECAR_MOST else None
    except (OSError, ValueError):
        return None


# Values


def _given(found: Facts) -> Facts:
    return {name: value for name, value in found.items() if value not in (None, [], "")}


def _text(value: Any) -> str | None:
    if isinstance(value, bytes):
        value = value.decode("utf-8", "replace")
    elif isinstance(value, str):
        try:  # Pillow reads EXIF strings as Latin-1, though nearly every writer now puts UTF-8 there
            value = value.encode("latin-1").decode("utf-8")
        except UnicodeError:
            value = value.encode("utf-8", "replace").decode()
    else:
        return None
    value = " ".join(value.replace("\0", " ").split())
    return value if 0 < len(value) <= TEXT_MOST else None


def _wide(value: Any) -> str | None:
    return _text(bytes(value).decode("utf-16-le", "replace")) if isinstance(value, bytes | tuple) else None


def _list(values: Any) -> list[str]:
    found = (_text(value) for value in values)
    return list(dict.fromkeys(word for word in found if word))[:LIST_MOST]


def _camera(make: Any, model: Any) -> str | None:
    maker, name = _text(make) or "", _text(model) or ""
    first = maker.split(" ")[0].lower()
    return (name if first and name.lower().startswith(first) else f"{maker} {name}".strip()) or None


def _number(value: Any) -> float | None:
    try:
        number = float(value)
    except (TypeError, ValueError, ArithmeticError):
        return None
    return number if math.isfinite(number) else None


def _rating(value: Any) -> int | None:
    number = _number(value)
    return int(number) if number is not None and number in _RATINGS else None


def _date(value: Any, zone: Any = None) -> str | None:
    """A date as ISO 8601, with its zone where it is known; None for what no calendar has."""
    found = _DATE.match(_text(value) or "")
    if found is None:
        return None
    year, month, day, hour, minute, second = (int(part or 0) for part in found.groups()[:6])
    try:
        moment = datetime(year, month, day, hour, minute, second)
    except ValueError:
        return None
    offset = found[7] or _text(zone) or ""
    known = re.fullmatch(r"Z|[+-](?:0\d|1[0-4]):?[0-5]\d", offset)
    if year not in YEARS or (moment.year, moment.month, moment.day) in ((1904, 1, 1), (1970, 1, 1)):
        return None
    end = "" if known is None else "+00:00" if offset == "Z" else f"{offset[:3]}:{offset[-2:]}"
    return moment.isoformat(timespec="seconds") + end
