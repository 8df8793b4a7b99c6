"""Record metadata: JSON as the truth, and typed columns beside it for filters.

A key's first column has its name (`harmonia.store.filters.column_name`) and the type of the first value seen:
bool, int, float, text or list. A value of another type makes one more column, ``year@text`` or
``rating@float``; a record fills at most one of them, so what a filter finds does not depend on which value
came first.
"""

from __future__ import annotations

import datetime
import json
import math
from collections.abc import Iterable, Mapping
from decimal import Decimal
from typing import Any

import numpy as np
import pyarrow as pa

from harmonia.store.values import FIXED, Value, row_of
from harmonia.types import HarmoniaError

MAX_COLUMNS = 256
"""Columns beyond this many are not made: filters then read the JSON, which is slower."""

KINDS = {
    "bool": pa.bool_(),
    "int": pa.int64(),
    "float": pa.float64(),
    "text": pa.string(),
    "list": pa.list_(pa.string()),
}
"""The types that columns have."""

DIGITS = 4300
"""Python reads no whole number of more digits (`sys.int_info.default_max_str_digits`)."""

EXACT = 2**53
"""Whole numbers below this are floating numbers too."""


def _plain(value: Any) -> Any:
    """Values that JSON does not know, as values that it does."""
    if isinstance(value, np.datetime64 | np.timedelta64):
        return None if np.isnat(value) else str(value)
    if isinstance(value, np.generic):
        return value.item()
    if isinstance(value, datetime.date | datetime.time):
        return value.isoformat()
    if isinstance(value, datetime.timedelta):
        return value.total_seconds()
    if isinstance(value, Decimal):
        return float(value)
    raise TypeError(type(value).__name__)


def to_json(record_id: str, metadata: Mapping[str, Any]) -> str:
    """Metadata as JSON text; HarmoniaError if a key is not text or a value not JSON.

    Numbers that JSON cannot hold (NaN, infinities, more digits than Python reads again) are null.
    """
    if not all(isinstance(key, str) for key in metadata):
        raise HarmoniaError(f"metadata keys of record {record_id} must be text")
    try:
        try:
            return json.dumps(dict(metadata), default=_plain, allow_nan=False)
        except ValueError:
            return json.dumps(_finite(dict(metadata)), allow_nan=False)
    except (TypeError, ValueError, ArithmeticError, RecursionError) as error:
        raise HarmoniaError(
            f"metadata of record {record_id} cannot be stored as JSON ({error}): "
            "use text, numbers, true/false, and lists or dicts of these"
        ) from error


def _finite(value: Any) -> Any:
    """A value with null for each number in it that JSON cannot hold."""
    match value:
        case None | bool() | str():
            return value
        case int():
            return value if abs(value) < 10**DIGITS else None
        case float():
            return float(value) if math.isfinite(value) else None
        case list() | tuple():
            return [_finite(item) for item in value]
        case dict():
            return {key: _finite(item) for key, item in value.items()}
    return _finite(_plain(value))


def is_full(schema: pa.Schema) -> bool:
    """Whether there may be values that no column holds."""
    return len(schema) >= MAX_COLUMNS + len(FIXED)


def new_columns(rows: Iterable[Mapping[str, Any]], schema: pa.Schema) -> list[pa.Field]:
    """Columns that ``schema`` lacks for the metadata of ``rows``."""
    types = {field.name: field.type for field in schema}
    for row in rows:
        for name, value in row_of(row).items():
            if _column(name, value, types) is None and len(types) < MAX_COLUMNS + len(FIXED):
                kind = _kind(value)
                types[f"{name}@{kind}" if name in types else name] = KINDS[kind]
    return [pa.field(name, found) for name, found in list(types.items())[len(schema) :]]


def column_values(metadata: Mapping[str, Any], schema: pa.Schema) -> dict[str, Any]:
    """One record's metadata by the columns of ``schema`` that hold it."""
    types = {field.name: field.type for field in schema}
    row: dict[str, Any] = {}
    for name, value in row_of(metadata).items():
        column = _column(name, value, types)
        if column is not None:
            row[column] = float(value) if types[column] == KINDS["float"] else value  # type: ignore[arg-type]
    return row


def _column(name: str, value: Value, types: Mapping[str, pa.DataType]) -> str | None:
    """The column for a value of a key; None if there is none yet."""
    kind = _kind(value)
    kinds = [kind, "float"] if kind == "int" and abs(int(value)) < EXACT else [kind]  # type: ignore[arg-type]
    for one in kinds:
        for column in (name, f"{name}@{one}"):
            if types.get(column) == KINDS[one]:
                return column
    return None


def _kind(value: Value) -> str:
    return {bool: "bool", int: "int", float: "float", str: "text", list: "list"}[type(value)]
