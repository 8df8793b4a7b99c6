"""Finding records in the tables: by a filter, and by the similarity of their codes."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from lancedb.table import Table
from numpy.typing import NDArray

from harmonia.store.filter_parser import as_filter
from harmonia.store.filters import Filter
from harmonia.store.lance.columns import is_full
from harmonia.store.lance.compile import Held, compiled, held_columns
from harmonia.store.lance.sql import IN_LIMIT, equals, is_in, rows_in, scan
from harmonia.store.terms import FilterError
from harmonia.store.values import FIXED, kind, row_of
from harmonia.types import HarmoniaError


def filter_columns(records: Table) -> list[str]:
    """Metadata columns that a filter can name."""
    return [name for name in records.schema.names if name not in FIXED and "@" not in name]


def matching(records: Table, where: Filter | str | None, complete: bool) -> dict[str, float]:
    """Ids of the records that fulfil ``where``, oldest first, and when each was added (Unix seconds).

    Where the columns are not ``complete``, their JSON is read. HarmoniaError for a filter that cannot be
    understood.
    """
    if where is None:
        found = scan(records, ["id", "created"])
    elif complete and not is_full(records.schema):
        sql = _asked(where, held_columns(records.schema))[1]
        found = scan(records, ["id", "created"], sql)
    else:
        found = _read(records, where)
    ordered = found.sort_by([("created", "ascending"), ("id", "ascending")])
    return dict(zip(*(ordered[name].to_pylist() for name in ("id", "created")), strict=True))


def _asked(where: Filter | str, columns: Mapping[str, Sequence[Held]]) -> tuple[Filter, str]:
    """The filter, and its SQL over these columns; HarmoniaError, with the columns, if it has none."""
    try:
        asked = as_filter(where)
        assert asked is not None
        return asked, compiled(asked, columns)
    except FilterError as error:
        names = ", ".join(name for name in columns if name not in FIXED) or "none yet"
        said = str(error)
        if not said.startswith("cannot filter"):
            said = f"cannot filter by {str(where)[:200]!r}: {said}"
        raise HarmoniaError(f"{said}; metadata columns are {names}") from error


def _read(records: Table, where: Filter | str) -> pa.Table:
    """The records that fulfil a filter, by their JSON."""
    found = scan(records, ["id", "created", "metadata"])
    columns = held_columns(records.schema)
    rows = [row_of(json.loads(text)) for text in found["metadata"].to_pylist()]
    for row in rows:
        for name, value in row.items():
            held = columns.setdefault(name, [])
            if kind(value) not in {one.kind for one in held}:
                held.append(Held(name, kind(value)))
    asked, _ = _asked(where, columns)
    facts = zip(rows, found.to_pylist(), strict=True)
    return found.filter(pa.array([asked.test({**row, **fixed}) is True for row, fixed in facts], pa.bool_()))


def has_index(parts: Table) -> bool:
    """Whether an index of the codes has been built."""
    return any(index.columns == ["code"] for index in parts.list_indices())


def nearest(
    records: Table,
    parts: Table,
    encoder: str,
    query: NDArray[np.float32],
    k: int,
    only: set[str] | None,
) -> tuple[list[str], NDArray[np.float32]]:
    """The ``k`` records of the most similar parts, of those in ``only`` if given.

    A record has many parts, and parts may lack a record or be outside ``only``, so the search
    widens until ``k`` records are found or no part is left; at the last it passes by the index,
    which may hold back parts.
    """
    where = equals("encoder", encoder)
    if only is not None and len(only) <= IN_LIMIT:
        where += " AND " + is_in("record_id", only)
    total, indexed = parts.count_rows(where), has_index(parts)
    limit = 4 * k
    best: dict[str, float] = {}
    while total:
        exact = not indexed or limit >= total
        best = _best(records, parts, where, query, min(limit, total), exact, only)
        if len(best) >= k or limit >= total:
            break
        limit *= 8
    ranked = sorted(best.items(), key=lambda item: -item[1])[:k]
    return [i for i, _ in ranked], np.array([s for _, s in ranked], dtype=np.float32)


def _best(
    records: Table,
    parts: Table,
    where: str,
    query: NDArray[np.float32],
    limit: int,
    exact: bool,
    only: set[str] | None,
) -> dict[str, float]:
    """The cosine of the best part of each record among the ``limit`` most similar parts."""
    ask = parts.search(query, vector_column_name="code").distance_type("dot").limit(limit)
    ask = ask.where(where, prefilter=True).select(["record_id", "_distance"])
    ask = ask.bypass_vector_index() if exact else ask.ef(max(200, 2 * limit)).refine_factor(2)
    rows = ask.to_arrow()
    if only is None:
        owners = pc.unique(rows["record_id"]).to_pylist()
        only = set(rows_in(records, "id", owners, ["id"])["id"].to_pylist())
    best: dict[str, float] = {}
    for record_id, distance in zip(*(rows[c].to_pylist() for c in rows.column_names), strict=True):
        if record_id in only:
            best[record_id] = max(best.get(record_id, -np.inf), 1.0 - distance)
    return best
