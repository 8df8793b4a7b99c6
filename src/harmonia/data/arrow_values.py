"""The values of Arrow columns as plain Python values, whatever the type holds: one that has none is None.

Arrow's types reach further than Python's: years after 9999, nanoseconds, time zones of no name that is known.
``to_pylist`` raises for these, and asks for pandas; here each value costs at most itself.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from datetime import UTC, date, datetime, time, timedelta, timezone, tzinfo
from itertools import pairwise
from typing import Any
from uuid import UUID
from zoneinfo import ZoneInfo

import pyarrow as pa
import pyarrow.compute as pc

_IN_A_SECOND = {"s": 1, "ms": 10**3, "us": 10**6, "ns": 10**9}
_EPOCH = datetime(1970, 1, 1)
_DAY = 86_400


def values(column: pa.Array) -> list[Any]:
    """The values of a column, one for each row; None for nulls and for what Python has no value for.

    Timestamps become datetimes of microseconds (those with a zone in that zone, or in UTC where its name is
    not known), dates and times of day Python's own, durations seconds, maps dicts, text that is not UTF-8
    text with U+FFFD. Lists, structs, dictionaries, runs and extensions become what they hold.
    """
    kind = column.type
    if isinstance(kind, pa.BaseExtensionType):
        held = values(column.storage)
        return [_uuid(value) for value in held] if kind.extension_name == "arrow.uuid" else held
    if pa.types.is_dictionary(kind):
        return values(column.dictionary_decode())
    if pa.types.is_run_end_encoded(kind):
        return values(pc.run_end_decode(column))
    if pa.types.is_map(kind):
        return _maps(column)
    if _is_list(kind):
        return _lists(column)
    if pa.types.is_struct(kind):
        return _structs(column)
    if convert := _of_time(kind):
        whole = pa.int32() if kind.bit_width == 32 else pa.int64()
        return [None if number is None else _tried(convert, number) for number in _list(column.view(whole))]
    if pa.types.is_float16(kind):
        column = column.cast(pa.float32())
    return _list(column)


def _is_list(kind: pa.DataType) -> bool:
    is_ = pa.types
    tests = (is_.is_list, is_.is_large_list, is_.is_fixed_size_list, is_.is_list_view, is_.is_large_list_view)
    return any(test(kind) for test in tests)


def _list(column: pa.Array) -> list[Any]:
    """What ``to_pylist`` gives; where that fails, value by value."""
    try:
        return column.to_pylist()  # type: ignore[no-any-return]
    except (ValueError, OverflowError, ArithmeticError, pa.ArrowException):
        return [_tried(_single, value) for value in column]


def _single(value: pa.Scalar) -> Any:
    try:
        return value.as_py()
    except UnicodeDecodeError:
        return value.as_buffer().to_pybytes().decode("utf-8", "replace")


def _tried(convert: Callable[[Any], Any], value: Any) -> Any:
    """A value converted; None where there is no such value in Python."""
    try:
        return convert(value)
    except (ValueError, OverflowError, ArithmeticError, pa.ArrowException):
        return None


def _uuid(value: Any) -> str | None:
    return str(UUID(bytes=value)) if isinstance(value, bytes) and len(value) == 16 else None


def _lists(column: pa.Array) -> list[list[Any] | None]:
    items = iter(values(column.flatten()))
    lengths = column.value_lengths().to_pylist()
    return [None if length is None else [next(items) for _ in range(length)] for length in lengths]


def _structs(column: pa.Array) -> list[dict[str, Any] | None]:
    names = [field.name for field in column.type]
    fields = [values(field) for field in column.flatten()]
    valid = column.is_valid().to_pylist()
    return [
        dict(zip(names, (field[row] for field in fields), strict=True)) if there else None
        for row, there in enumerate(valid)
    ]


def _maps(column: pa.Array) -> list[dict[str, Any] | None]:
    offsets = column.offsets.to_pylist()
    keys, items = values(column.keys), values(column.items)
    valid = column.is_valid().to_pylist()
    return [
        {str(key): value for key, value in zip(keys[start:end], items[start:end], strict=True)}
        if there
        else None
        for there, (start, end) in zip(valid, pairwise(offsets), strict=True)
    ]


def _of_time(kind: pa.DataType) -> Callable[[int], Any] | None:
    """What turns the whole numbers of a type of time into values; None for other types."""
    is_ = pa.types
    if is_.is_date32(kind):
        return lambda days: date.fromordinal(_EPOCH.toordinal() + days)
    if is_.is_date64(kind):
        return lambda milliseconds: date.fromordinal(_EPOCH.toordinal() + milliseconds // (_DAY * 1000))
    if not (is_.is_timestamp(kind) or is_.is_duration(kind) or is_.is_time(kind)):
        return None
    units = _IN_A_SECOND[kind.unit]
    if is_.is_duration(kind):
        return lambda count: count / units
    if is_.is_time(kind):
        return lambda count: _time_of_day(count, units)
    zone = _zone(kind.tz) if kind.tz else None
    return lambda count: _moment(count, units, zone)


def _moment(count: int, units: int, zone: tzinfo | None) -> datetime:
    moment = _EPOCH + timedelta(microseconds=count * 10**6 // units)
    if zone is None:
        return moment
    moment = moment.replace(tzinfo=UTC)
    try:
        return moment.astimezone(zone)
    except (OverflowError, ValueError):  # within a day of the calendar's ends
        return moment


def _time_of_day(count: int, units: int) -> time:
    if not 0 <= count < _DAY * units:
        raise ValueError(count)
    return (_EPOCH + timedelta(microseconds=count * 10**6 // units)).time()


def _zone(name: str) -> tzinfo:
    """The time zone of a name or an offset (+02:00); UTC for any other."""
    if offset := re.fullmatch(r"([+-])(\d\d):?(\d\d)", name):
        minutes = int(offset[2]) * 60 + int(offset[3])
        return timezone(timedelta(minutes=minutes if offset[1] == "+" else -minutes))
    try:
        return ZoneInfo(name)
    except (ValueError, OSError, KeyError):  # ZoneInfoNotFoundError is a KeyError
        return UTC
