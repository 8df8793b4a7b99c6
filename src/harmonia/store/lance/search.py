"""Finding records in the tables: by an SQL condition, and by the similarity of their codes."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from lancedb.table import Table
from numpy.typing import NDArray

from harmonia.store.lance.columns import FIXED
from harmonia.store.lance.sql import IN_LIMIT, LANCE_ERRORS, brief, is_in, quoted, rows_in, scan
from harmonia.types import HarmoniaError


def of_encoder(name: str) -> str:
    """The SQL condition for the parts of one encoder."""
    return f"encoder = {quoted(name)}"


def filter_columns(records: Table) -> list[str]:
    """Metadata columns that a condition can name."""
    return [name for name in records.schema.names if name not in FIXED]


def matching(records: Table, where: str | None) -> dict[str, float]:
    """Ids of the records that fulfil ``where``, oldest first, and when each was added (Unix seconds)."""
    try:
        found = scan(records, ["id", "created"], where)
    except LANCE_ERRORS as error:
        if where is None:
            raise
        scan(records, ["id"])  # raises what has nothing to do with the condition
        reason = brief(error).split(" Valid fields")[0].rstrip(". ")
        names = ", ".join(filter_columns(records)) or "none yet"
        raise HarmoniaError(
            f"cannot filter by {where!r} ({reason}): metadata columns are {names}; text goes in single quotes"
        ) from error
    ordered = found.sort_by([("created", "ascending"), ("id", "ascending")])
    return dict(zip(*(ordered[name].to_pylist() for name in ("id", "created")), strict=True))


def sorted_ids(records: Table) -> pa.Array:
    """The id of every record, sorted, each once."""
    ids = pc.unique(scan(records, ["id"])["id"])
    return ids.take(pc.sort_indices(ids))


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
    where = of_encoder(encoder)
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
