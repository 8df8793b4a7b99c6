"""Writing the table of records: metadata, and the columns that filters look at."""

from __future__ import annotations

import json
import time
from collections.abc import Mapping

from lancedb.table import Table

from harmonia.store.lance import columns, rows
from harmonia.store.lance.sql import scan
from harmonia.store.lance.tables import upsert

BATCH = 20_000
"""Records that are rewritten at once."""


def add_records(table: Table, given: Mapping[str, str], old: Mapping[str, tuple[str, float]]) -> None:
    """Commit new records, and old ones whose metadata changes, with columns for new keys."""
    now = time.time()
    changed: dict[str, tuple[str, float]] = {}
    for record_id, metadata in given.items():
        before, created = old.get(record_id, ("", now))
        if before:
            metadata = json.dumps(json.loads(before) | json.loads(metadata))
        if metadata != before:
            changed[record_id] = (metadata, created)
    if not changed:
        return
    values = [json.loads(metadata) for metadata, _ in changed.values()]
    if fresh := columns.new_columns(values, table.schema):
        table.add_columns(fresh)
    upsert(table, "id", rows.record_rows(changed, table.schema), bool(old))


def complete_columns(table: Table) -> None:
    """Rewrite the records that have values which their columns lack; doing it again changes nothing."""
    found = scan(table).to_pylist()
    metadata = [json.loads(row["metadata"]) for row in found]
    if fresh := columns.new_columns(metadata, table.schema):
        table.add_columns(fresh)
    lacking = {
        row["id"]: (row["metadata"], row["created"])
        for row, known in zip(found, metadata, strict=True)
        if any(row.get(name) != value for name, value in columns.column_values(known, table.schema).items())
    }
    todo = list(lacking)
    for start in range(0, len(todo), BATCH):
        batch = {one: lacking[one] for one in todo[start : start + BATCH]}
        upsert(table, "id", rows.record_rows(batch, table.schema), True)
