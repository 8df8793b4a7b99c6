"""What pictures say about themselves: EXIF (CIPA DC-008), IPTC-IIM, XMP, the text of PNG, and their size."""

from __future__ import annotations

import io
import math
from collections.abc import Iterator, Mapping
from contextlib import suppress
from datetime import datetime
from pathlib import Path
from typing import Any, BinaryIO

from PIL import ExifTags, Image

from harmonia.modalities import xmp
from harmonia.modalities.image_formats import DAMAGE, is_raw, open_image
from harmonia.modalities.image_repair import without_broken_metadata
from harmonia.modalities.limits import NOT_CAPTIONS, Limits, opened
from harmonia.modalities.metadata_values import (
    PROSE_MOST,
    Facts,
    camera,
    clean,
    decoded,
    known,
    moment,
    number,
    offset,
    place,
    rating,
    spelled_moment,
    words,
    zone_between,
)
from harmonia.modalities.provenance import from_xmp

Base, Gps = ExifTags.Base, ExifTags.GPS
_RATING = 0x4746  # of Windows; Pillow has no name for it
# Columns in which what people wrote last, by programs that know XMP, counts more than EXIF.
_EDITED = ("title", "description", "artist", "rating")
_PNG_MOST = 1 << 20  # bytes of a chunk of metadata


def facts_of(path: Path, limits: Limits) -> Facts:
    """The columns that a picture gives. Only heads are read; HarmoniaError if it is no picture."""
    with opened(path, limits) as file:
        if is_raw(path, file):
            return _raw(file)
        image = without_broken_metadata(file, lambda found: open_image(path, found))
        info: dict[Any, Any] = dict(image.info)
        if image.format == "PNG":
            info |= _png_metadata(file)
            exif = _loaded(info.get("exif"))
        else:
            # of PNG, Pillow's own reader would decode the picture to find what stands behind it
            exif = _attempted(image)
        width, height = image.size
        if exif.get(Base.Orientation) in (5, 6, 7, 8):
            width, height = height, width
        own: Facts = {"width": width, "height": height}
        packet = info.get("xmp")
        if from_xmp(packet) is not None:
            own["generated"] = True
        return own | _merged(_exif(exif), _iptc(image), xmp.facts_of(packet), _png_text(info))


def _raw(file: BinaryIO) -> Facts:
    """The EXIF of RAW files that are TIFF: those of most makers."""
    exif = Image.Exif()
    file.seek(0)
    with suppress(*DAMAGE):
        exif.load_from_fp(file)
    return _merged(_exif(exif), {}, {}, {})


def _attempted(image: Image.Image) -> Image.Exif:
    try:
        return image.getexif()
    except DAMAGE:
        return Image.Exif()


def _loaded(raw: Any) -> Image.Exif:
    exif = Image.Exif()
    with suppress(*DAMAGE):
        if isinstance(raw, bytes):
            exif.load(raw)
    return exif


def _merged(exif: Facts, iptc: Facts, packet: Facts, text: Facts) -> Facts:
    """One set of columns; the moment a picture was taken goes before that of its scan."""
    found = text | packet | iptc | exif
    found |= {name: packet[name] for name in _EDITED if name in packet}
    dates = [facts.get("taken") for facts in (exif, packet, iptc)]
    dates += [packet.get("created"), exif.get("created"), text.get("created")]
    found.pop("created", None)
    keywords = words(word for facts in (packet, iptc, exif) for word in facts.get("keywords", ()))
    return known({**found, "taken": next(filter(None, dates), None), "keywords": keywords})


# EXIF


def _exif(exif: Image.Exif) -> Facts:
    main = _values(exif, None)
    details = {**main, **_values(exif, ExifTags.IFD.Exif)}
    gps = _values(exif, ExifTags.IFD.GPSInfo)
    zone = offset(details.get(Base.OffsetTimeOriginal)) or offset(details.get(Base.OffsetTime))
    described = _text(main.get(Base.ImageDescription), PROSE_MOST)
    taken = moment(_text(details.get(Base.DateTimeOriginal)), zone)
    return known(
        {
            "taken": _with_zone(taken, gps),
            "created": moment(_text(details.get(Base.DateTimeDigitized)), zone),
            "camera": camera(_text(main.get(Base.Make)), _text(main.get(Base.Model))),
            "lens": _text(details.get(Base.LensModel)),
            "artist": _text(main.get(Base.Artist)) or _wide(main.get(Base.XPAuthor)),
            "title": _wide(main.get(Base.XPTitle)),
            "description": None if described in NOT_CAPTIONS else described,
            "rating": rating(main.get(_RATING)),
            "keywords": words((_wide(main.get(Base.XPKeywords), PROSE_MOST) or "").split(";")),
            **_place(gps),
        }
    )


def _values(exif: Image.Exif, which: int | None) -> dict[int, Any]:
    """The entries of a directory; one that cannot be read costs only itself."""
    found: dict[int, Any] = {}
    with suppress(*DAMAGE):
        entries: Mapping[int, Any] = exif if which is None else exif.get_ifd(which)
        for tag in list(entries):
            with suppress(*DAMAGE):
                found[tag] = entries[tag]
    return found


def _text(value: Any, most: int = 500) -> str | None:
    """Pillow reads EXIF strings as Latin-1, though nearly every writer now puts UTF-8 there."""
    if isinstance(value, str):
        with suppress(UnicodeError):
            value = decoded(value.encode("latin-1"))
    return clean(value, most)


def _wide(value: Any, most: int = 500) -> str | None:
    """The texts of Windows, in UTF-16."""
    with suppress(ValueError, TypeError):
        value = bytes(value) if isinstance(value, tuple) else value
    return clean(value.decode("utf-16-le", "replace"), most) if isinstance(value, bytes) else None


def _place(gps: Mapping[int, Any]) -> Facts:
    altitude = number(gps.get(Gps.GPSAltitude))
    if altitude is not None and gps.get(Gps.GPSAltitudeRef) in (1, b"\1"):
        altitude = -altitude
    return place(
        _degrees(gps.get(Gps.GPSLatitude), gps.get(Gps.GPSLatitudeRef), "S"),
        _degrees(gps.get(Gps.GPSLongitude), gps.get(Gps.GPSLongitudeRef), "W"),
        altitude,
    )


def _degrees(value: Any, side: Any, negative: str) -> float | None:
    """Degrees from a triple of degrees, minutes and seconds."""
    numbers = _numbers(value)
    if numbers is None:
        return None
    total = math.fsum(part / 60**i for i, part in enumerate(numbers))
    return -total if (_text(side) or "").upper().startswith(negative) else total


def _numbers(value: Any) -> list[float] | None:
    """One to three numbers that are not negative."""
    values = value if isinstance(value, tuple) else (value,)
    numbers = [found for part in values[:4] if (found := number(part)) is not None and found >= 0]
    return numbers if 1 <= len(numbers) == len(values) <= 3 else None


def _with_zone(taken: str | None, gps: Mapping[int, Any]) -> str | None:
    """A local time with the zone that the time of the satellites tells, if it has none and they agree."""
    day, clock = moment(_text(gps.get(Gps.GPSDateStamp))), _numbers(gps.get(Gps.GPSTimeStamp))
    if taken is None or len(taken) != 19 or day is None or clock is None or len(clock) != 3:
        return taken
    try:
        hours, minutes, seconds = map(int, clock)
        universal = datetime.fromisoformat(day[:10]).replace(hour=hours, minute=minutes, second=seconds)
    except ValueError:
        return taken
    return taken + (zone_between(datetime.fromisoformat(taken), universal) or "")


# IPTC


def _iptc(image: Image.Image) -> Facts:
    raw = None
    with suppress(*DAMAGE):
        block = image.info.get("photoshop")
        raw = block.get(0x0404) if isinstance(block, dict) else None
        if hasattr(image, "tag_v2"):
            raw = image.tag_v2._tagdata.get(Base.IPTCNAA)  # the one place where its bytes are
    sets = list(_data_sets(raw)) if isinstance(raw, bytes) else []
    first: dict[int, bytes] = {}
    for name, value in sets:
        first.setdefault(name, value)
    day, clock = decoded(first.get(55, b"")), decoded(first.get(60, b""))
    stamp = f"{day[:4]}-{day[4:6]}-{day[6:8]}"
    if len(clock) >= 6:
        stamp += f" {clock[:2]}:{clock[2:4]}:{clock[4:6]}{clock[6:]}"
    return known(
        {
            "taken": moment(stamp),
            "title": clean(first.get(5)),
            "artist": clean(first.get(80)),
            "description": clean(first.get(120), PROSE_MOST),
            "keywords": words(value for name, value in sets if name == 25),
        }
    )


def _data_sets(raw: bytes) -> Iterator[tuple[int, bytes]]:
    """Number and content of the data sets of record 2 (IIM 4.2), up to one that is broken."""
    at = 0
    while at + 5 <= len(raw) and raw[at] == 0x1C:
        record, name, size = raw[at + 1], raw[at + 2], int.from_bytes(raw[at + 3 : at + 5], "big")
        at += 5
        if size & 0x8000:  # the size of the size
            width = size & 0x7FFF
            size = int.from_bytes(raw[at : at + width], "big")
            at += width
        if at + size > len(raw):
            return
        if record == 2:
            yield name, raw[at : at + size]
        at += size


# PNG


def _png_metadata(file: BinaryIO) -> dict[str, Any]:
    """EXIF and XMP of a PNG file wherever they stand: programs put them behind the picture too."""
    found: dict[str, Any] = {}
    file.seek(8)
    while len(head := file.read(8)) == 8:
        size, name = int.from_bytes(head[:4], "big"), head[4:]
        if name in (b"eXIf", b"iTXt") and size <= _PNG_MOST:
            content = file.read(size)
            if name == b"eXIf":
                found["exif"] = content
            elif content.startswith(b"XML:com.adobe.xmp\0\0"):  # not compressed, as the standard asks
                found["xmp"] = content[20:].split(b"\0", 2)[-1]
            size = 0
        file.seek(size + 4, io.SEEK_CUR)
    return found


def _png_text(info: Mapping[Any, Any]) -> Facts:
    """What the standard names for the text of PNG."""
    return known(
        {
            "title": clean(info.get("Title")),
            "artist": clean(info.get("Author")),
            "description": clean(info.get("Description"), PROSE_MOST),
            "created": moment(info.get("Creation Time")) or spelled_moment(info.get("Creation Time")),
        }
    )
