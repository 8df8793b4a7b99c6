"""Record metadata: JSON as the truth, and typed columns beside it for SQL filters.

A key's column is typed by the first value seen: bool, int, float, str or list of str. A value that
does not fit the column is null there and complete in the JSON. Columns are named by
`column_name`: ``Camera Model`` is filtered as ``camera_model``.
"""

from __future__ import annotations

import datetime
import json
import re
from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np
import pyarrow as pa

from harmonia.types import HarmoniaError

MAX_COLUMNS = 256
"""Metadata keys beyond this many are kept in the JSON but cannot be filtered on."""

FIXED = ("id", "metadata", "created")
"""Columns of the table of records that are not metadata keys."""

_TEXTS = pa.list_(pa.string())


def column_name(key: str) -> str:
    """The SQL name of a metadata key: lower case, ``_`` for what SQL could misread.

    Keys that differ only in such characters share a column; a record's first value fills it.
    """
    name = re.sub(r"\W", "_", key.lower())
    if name in FIXED or name.startswith("_row"):
        return name + "_"
    return name if name and not name[0].isdigit() else "_" + name


def _plain(value: Any) -> Any:
    """Values that JSON does not know, as values that it does."""
    if isinstance(value, np.generic):
        return value.item()
    if isinstance(value, (datetime.datetime, datetime.date)):
        return value.isoformat()
    raise TypeError(type(value).__name__)


def to_json(record_id: str, metadata: Mapping[str, Any]) -> str:
    """Metadata as JSON text; HarmoniaError if a key is not text or a value not JSON."""
    if not all(isinstance(key, str) for key in metadata):
        raise HarmoniaError(f"metadata keys of record {record_id} must be text")
    try:
        return json.dumps(dict(metadata), default=_plain)
    except (TypeError, ValueError) as error:
        raise HarmoniaError(
            f"metadata of record {record_id} cannot be stored as JSON ({error}): "
            "use text, numbers, true/false, and lists or dicts of these"
        ) from error


def new_columns(rows: Iterable[Mapping[str, Any]], schema: pa.Schema) -> list[pa.Field]:
    """Columns that ``schema`` lacks for the metadata of ``rows``."""
    found: dict[str, pa.Field] = {}
    room = MAX_COLUMNS + len(FIXED) - len(schema)
    for row in rows:
        for key, value in row.items():
            name, kind = column_name(key), _kind(value)
            if kind is not None and name not in schema.names and len(found) < room:
                found.setdefault(name, pa.field(name, kind))
    return list(found.values())


def column_values(metadata: Mapping[str, Any], schema: pa.Schema) -> dict[str, Any]:
    """The part of one record's metadata that fits the columns of ``schema``."""
    row: dict[str, Any] = {}
    for key, value in metadata.items():
        name = column_name(key)
        if name in schema.names and row.get(name) is None:
            row[name] = _fit(value, schema.field(name).type)
    return row


def _kind(value: Any) -> pa.DataType | None:
    """The column type for a value of parsed JSON; None if it has none."""
    match value:
        case bool():
            return pa.bool_()
        case int() if -(2**63) <= value < 2**63:
            return pa.int64()
        case float():
            return pa.float64()
        case str() if _is_utf8(value):
            return pa.string()
        case [_, *_] if all(isinstance(item, str) and _is_utf8(item) for item in value):
            return _TEXTS
    return None


def _fit(value: Any, kind: pa.DataType) -> Any:
    """The value as the column holds it; None if it does not fit."""
    if _kind(value) == kind or (value == [] and kind == _TEXTS):
        return value
    if kind == pa.float64() and _kind(value) == pa.int64():
        return float(value)
    return None


def _is_utf8(text: str) -> bool:
    """Whether text can be written as UTF-8 (names of odd files may hold lone surrogates)."""
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True
