"""Values of metadata as files hold them, checked: each gives None for what is broken, absurd or too long."""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Mapping
from datetime import UTC, datetime, timedelta
from email.utils import parsedate_to_datetime
from typing import Any

Facts = dict[str, Any]
"""Metadata by the names of docs/metadata.md."""

TEXT_MOST, PROSE_MOST, WORDS_MOST = 500, 5000, 200
"""Characters of a text and of a description, entries of a list; more is no description of a file."""
YEARS = range(1000, 3000)
_UNSET = ("1904-01-01", "1970-01-01")  # at midnight: what a clock says that was never set
_DATE = re.compile(
    r"(\d{4})[:/-](\d\d)[:/-](\d\d)"
    r"(?:[ T]+(\d\d):(\d\d)(?::(\d\d)(?:[.,]\d+)?)?\s*(Z|[+-]\d\d:?\d\d)?)?(?![\d:])"
)
_ZONE = re.compile(r"Z|[+-](?:0\d|1[0-4]):?[0-5]\d")


def known(facts: Mapping[str, Any]) -> Facts:
    """The facts that have a value."""
    return {name: value for name, value in facts.items() if value is not None and value not in ("", [])}


def clean(value: Any, most: int = TEXT_MOST) -> str | None:
    """Text on one line, without control characters and halves of surrogate pairs."""
    if isinstance(value, bytes):
        value = decoded(value)
    if not isinstance(value, str) or len(value) > 4 * most:
        return None
    value = value.encode("utf-8", "replace").decode()
    line = " ".join("".join(c if c.isprintable() or c in "\u200c\u200d" else " " for c in value).split())
    return line if 0 < len(line) <= most else None


def decoded(raw: bytes) -> str:
    """Bytes of metadata as text: UTF-8 as nearly every writer puts there now, else Windows-1252."""
    try:
        return raw.decode()
    except UnicodeDecodeError:
        return raw.decode("cp1252", "replace")


def words(values: Iterable[Any]) -> list[str]:
    """The texts among values, each once."""
    found = (clean(value) for value in values)
    return list(dict.fromkeys(word for word in found if word))[:WORDS_MOST]


def number(value: Any) -> float | None:
    """A finite number, also from text, a fraction such as ``125/10``, or a rational."""
    try:
        if isinstance(value, str) and "/" in value:
            above, _, below = value.partition("/")
            value = float(above) / float(below)
        found = float(value)
    except (TypeError, ValueError, ArithmeticError):
        return None
    return found if math.isfinite(found) else None


def rating(value: Any) -> int | float | None:
    """Stars from 0 to 5."""
    found = number(value)
    if found is None or not 0 <= found <= 5:
        return None
    return int(found) if found == int(found) else found


def year(value: Any) -> int | None:
    """The year that a text begins with."""
    found = re.match(r"\s*(\d{4})(?!\d)", clean(value) or "")
    return int(found[1]) if found and int(found[1]) in YEARS else None


def moment(value: Any, zone: Any = None) -> str | None:
    """A date as ISO 8601, with its time where that is known, and its zone, from the text or from ``zone``."""
    found = _DATE.match(clean(value) or "")
    if found is None:
        return None
    numbers = [int(part or 0) for part in found.groups()[:6]]
    numbers[5] -= numbers[5] == 60  # a leap second
    try:
        local = datetime(*numbers)  # type: ignore[arg-type]
    except ValueError:
        return None
    if local.year not in YEARS or (str(local.date()) in _UNSET and local == datetime(*numbers[:3])):  # type: ignore[arg-type]
        return None
    if found[4] is None:
        return str(local.date())
    return local.isoformat(timespec="seconds") + (offset(found[7]) or offset(zone) or "")


def spelled_moment(value: Any) -> str | None:
    """A date as mail and the standard of PNG write it: Fri, 01 May 2020 10:20:30 +0200."""
    try:
        return moment(parsedate_to_datetime(clean(value) or "").isoformat())
    except (ValueError, TypeError, OverflowError, IndexError):
        return None


def offset(value: Any) -> str | None:
    """The distance of a zone from UTC, as ``+02:00``."""
    text = clean(value) or ""
    if not _ZONE.fullmatch(text):
        return None
    return "+00:00" if text == "Z" else f"{text[:3]}:{text[-2:]}"


def zone_between(local: datetime, universal: datetime) -> str | None:
    """The zone in which a clock shows ``local`` at ``universal``, both naive; None where there is none such.

    Satellites give the time in UTC, some seconds before or after the picture. Zones are whole quarters of an
    hour.
    """
    quarters = round((local - universal) / timedelta(minutes=15))
    rest = abs(local - universal - quarters * timedelta(minutes=15))
    if abs(quarters) > 14 * 4 or rest > timedelta(minutes=2):
        return None
    hours, minutes = divmod(abs(quarters) * 15, 60)
    return f"{'-' if quarters < 0 else '+'}{hours:02d}:{minutes:02d}"


def since_1970(value: Any) -> str | None:
    """Seconds since 1970 as a moment in UTC."""
    seconds = number(value)
    if seconds is None or not abs(seconds) < 1e11:
        return None
    return moment((datetime(1970, 1, 1, tzinfo=UTC) + timedelta(seconds=int(seconds))).isoformat())


def place(latitude: Any, longitude: Any, altitude: Any = None) -> Facts:
    """Where on Earth: degrees, north and east positive, and metres above the sea; {} if no such place.

    A place at 0, 0 is what programs write that know none.
    """
    north, east, high = number(latitude), number(longitude), number(altitude)
    if north is None or east is None or abs(north) > 90 or abs(east) > 180 or north == east == 0:
        return {}
    high = None if high is None or abs(high) > 1e5 else round(high, 1)
    return known({"latitude": round(north, 6), "longitude": round(east, 6), "altitude": high})


def camera(make: Any, model: Any) -> str | None:
    """Maker and model, the maker once: Apple iPhone 12, NIKON D90, Canon EOS 5D."""
    maker, name = clean(make) or "", clean(model) or ""
    first = maker.split(" ")[0].lower()
    if first and name.lower().startswith(first):
        return name
    return f"{maker} {name}".strip() or None
