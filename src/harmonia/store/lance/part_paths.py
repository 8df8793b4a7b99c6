"""Rewriting the paths of parts: their codes are carried over as they are."""

from __future__ import annotations

from collections.abc import Mapping

import pyarrow as pa
from lancedb.table import Table

from harmonia.store.lance import rows
from harmonia.store.lance.sql import rows_in

BATCH = 2_000
"""Records whose parts are rewritten in one commit."""


def relocate_parts(table: Table, paths: Mapping[str, Mapping[str, str]]) -> int:
    """Give parts new paths, by record id and digest; returns how many records changed."""
    ids = list(paths)
    changed: set[str] = set()
    for start in range(0, len(ids), BATCH):
        found = rows_in(table, "record_id", ids[start : start + BATCH], table.schema.names)
        owners, digests, old = (found[c].to_pylist() for c in ("record_id", "digest", "path"))
        new = [paths[o].get(d, p) for o, d, p in zip(owners, digests, old, strict=True)]
        differs = [p != q for p, q in zip(old, new, strict=True)]
        if not any(differs):
            continue
        column = rows.arrow_table({"path": new}, pa.schema([("path", pa.string())]))["path"]
        rewritten = found.set_column(found.schema.get_field_index("path"), "path", column)
        rewritten = rewritten.filter(pa.array(differs))
        merge = table.merge_insert(["record_id", "part", "encoder"]).when_matched_update_all()
        merge.execute(rewritten.cast(table.schema))
        changed |= {owner for owner, other in zip(owners, differs, strict=True) if other}
    return len(changed)
