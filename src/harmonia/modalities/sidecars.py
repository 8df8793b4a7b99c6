"""Sidecar files: what programs write beside a photo, a video or a sound, of which it is the metadata.

``photo.jpg.xmp`` and ``photo.xmp`` (XMP), ``photo.jpg.json`` and ``photo.jpg.supplemental-metadata.json``
(Google Takeout). They are no records of their own.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from harmonia.modalities import xmp
from harmonia.modalities.metadata_values import PROSE_MOST, Facts, clean, known, place, since_1970, words
from harmonia.modalities.text_encoding import decode

SUFFIXES = (".xmp", ".json")
MOST = 1 << 20
"""Bytes of a sidecar file; more is no description of one."""
_TAKEOUT = ".supplemental-metadata"
_TAKEOUT_NAME = 46  # characters to which Takeout cuts names, before .json
_COPY = re.compile(r"(.+)(\(\d+\))(\.[^.]+)")
_EDITED = re.compile(r"(.+)-edited(\.[^.]+)")


def xmp_files(path: Path) -> Iterator[Path]:
    """Where the XMP of a file may be, the most specific first."""
    for suffix in (".xmp", ".XMP"):
        yield path.with_name(path.name + suffix)
    for suffix in (".xmp", ".XMP"):
        yield path.with_suffix(suffix)


def takeout_files(path: Path) -> Iterator[Path]:
    """Where the JSON of a file may be, with Takeout's ways to name copies, edits and long names."""
    name, number = path.name, ""
    if edited := _EDITED.fullmatch(name):
        name = edited[1] + edited[2]
    names = [(name, number)]
    if copy := _COPY.fullmatch(name):
        # photo(1).jpg has photo.jpg(1).json
        names.append((copy[1] + copy[3], copy[2]))
    for stem, number in names:
        for full in (stem + _TAKEOUT, stem):
            yield path.with_name(f"{full[:_TAKEOUT_NAME]}{number}.json")


def sidecars_of(path: Path) -> set[Path]:
    """All names under which a file may have a sidecar."""
    return {*xmp_files(path), *takeout_files(path)}


def facts_beside(path: Path, allowed: Callable[[Path], bool]) -> tuple[Facts, Facts]:
    """What the XMP beside a file says, and what Takeout says; {} where there is none that may be read."""
    edited, exported = _first(xmp_files(path), allowed), _first(takeout_files(path), allowed)
    return (xmp.facts_of(edited) if edited else {}), (_takeout(exported) if exported else {})


def _first(paths: Iterator[Path], allowed: Callable[[Path], bool]) -> bytes | None:
    """The content of the first file that is there."""
    for path in paths:
        try:
            if path.is_file() and allowed(path) and path.stat().st_size <= MOST:
                return path.read_bytes()
        except (OSError, ValueError):  # also a name that is too long
            continue
    return None


def _takeout(raw: bytes) -> Facts:
    try:
        held = json.loads(decode(raw) or "")
    except (ValueError, RecursionError):
        return {}
    if not isinstance(held, dict):
        return {}
    where = place(*_coordinates(held.get("geoData"))) or place(*_coordinates(held.get("geoDataExif")))
    people = held.get("people")
    named = [one.get("name") for one in people if isinstance(one, dict)] if isinstance(people, list) else []
    return known(
        {
            "taken": since_1970(_inside(held.get("photoTakenTime"), "timestamp")),
            "description": clean(held.get("description"), PROSE_MOST),
            "people": words(named),
            **where,
        }
    )


def _coordinates(value: Any) -> tuple[Any, Any, Any]:
    return _inside(value, "latitude"), _inside(value, "longitude"), _inside(value, "altitude") or None


def _inside(value: Any, key: str) -> Any:
    return value.get(key) if isinstance(value, dict) else None
