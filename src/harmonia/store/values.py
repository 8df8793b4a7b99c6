"""What filters see of a record's metadata: the names of keys, and plain values."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from typing import Any, TypeAlias

Value: TypeAlias = bool | int | float | str | list[str]

FIXED = ("id", "metadata", "created")
"""Columns that every record has: its id, its metadata as JSON text, when it was added (Unix seconds)."""


def column_name(key: str) -> str:
    """How filters name a metadata key: lower case, ``_`` for all but letters and digits.

    ``Camera Model`` is ``camera_model``, ``2020`` is ``_2020``, and ``id`` is ``id_``, for the id of a record
    is no metadata. Keys that differ only in such signs share a name; a record's first value counts.
    """
    name = re.sub(r"\W", "_", key.lower())
    if name in FIXED or name.startswith("_row"):
        return name + "_"
    return name if name and not name[0].isdigit() else "_" + name


def plain(value: Any) -> Value | None:
    """A value of parsed JSON as filters see it: true or false, a number, text, or a list of texts.

    None for all else: null, objects, lists of other things, NaN, text that is not Unicode.
    """
    match value:
        case bool():
            return value
        case int() if -(2**63) <= value < 2**63:
            return value
        case int() | float():
            try:
                number = float(value) + 0.0  # no -0.0, which engines sort below 0
            except OverflowError:
                return None
            return None if math.isnan(number) else number
        case str():
            return value if _is_unicode(value) else None
        case list():
            return value if all(isinstance(item, str) and _is_unicode(item) for item in value) else None
    return None


def kind(value: Value) -> str:
    """The type of a plain value: bool, number, text or list."""
    names = {bool: "bool", int: "number", float: "number", str: "text", list: "list"}
    return names[type(value)]


def row_of(metadata: Mapping[str, Any]) -> dict[str, Value]:
    """Metadata by the names that filters use; what filters cannot see is left out."""
    row: dict[str, Value] = {}
    for key, value in metadata.items():
        name, seen = column_name(key), plain(value)
        if seen is not None:
            row.setdefault(name, seen)
    return row


def _is_unicode(text: str) -> bool:
    """Whether text can be written as UTF-8 (names of odd files may hold lone surrogates)."""
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True
