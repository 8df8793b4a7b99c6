"""Scans, deletions and errors of a Lance table."""

from __future__ import annotations

import re
from collections.abc import Collection

import pyarrow as pa
import pyarrow.compute as pc
from lancedb.table import Table

LANCE_ERRORS = (RuntimeError, OSError, ValueError)
"""What LanceDB and Arrow raise for failures of the disk, of a table or of a condition."""

IN_LIMIT = 1000
"""Values put into one SQL ``IN``; parsing longer lists costs more than scanning the column."""


def quoted(text: str) -> str:
    """Text as an SQL literal."""
    return "'" + text.replace("'", "''") + "'"


def brief(error: BaseException) -> str:
    """The first line of a Lance error, without the place in its source."""
    line = (str(error) or type(error).__name__).splitlines()[0]
    line = re.sub(r", \S+\.rs:\d+(:\d+)?.*$", "", line)
    return re.sub(r"^(Invalid input|lance error), ?", "", line)[:300]


def scan(table: Table, names: list[str] | None = None, where: str | None = None) -> pa.Table:
    """All rows, or those that fulfil an SQL condition, with the columns ``names``."""
    query = table.search().limit(None)
    query = query.select(names) if names is not None else query
    return (query.where(where) if where is not None else query).to_arrow()


def rows_in(table: Table, key: str, values: Collection[str], names: list[str]) -> pa.Table:
    """Rows whose ``key`` is one of ``values``."""
    if len(values) <= IN_LIMIT:
        return scan(table, names, is_in(key, values))
    found = scan(table, names)
    return found.filter(pc.is_in(found[key], pa.array(list(values), pa.string())))


def delete_in(table: Table, key: str, values: Collection[str]) -> None:
    """Delete the rows whose ``key`` is one of ``values``."""
    todo = list(values)
    for start in range(0, len(todo), IN_LIMIT):
        table.delete(is_in(key, todo[start : start + IN_LIMIT]))


def is_in(key: str, values: Collection[str]) -> str:
    """The SQL condition that ``key`` is one of ``values``."""
    return f"{key} IN ({', '.join(map(quoted, values))})" if values else "false"


def equals(key: str, value: str) -> str:
    """The SQL condition that ``key`` is ``value``."""
    return f"{key} = {quoted(value)}"


def rows_where(table: Table, key: str, value: str, names: list[str]) -> pa.Table:
    """Rows whose ``key`` is ``value``."""
    return scan(table, names, equals(key, value))


def sorted_ids(records: Table) -> pa.Array:
    """The id of every record, sorted, each once."""
    ids = pc.unique(scan(records, ["id"])["id"])
    return ids.take(pc.sort_indices(ids))
