"""The Lance tables of a store: taking turns to write, consistent reading, compaction.

Commits go parts, records, files, and removals the other way, so that whatever moment a process
dies at, at most parts without a record stay behind. Readers do not see them; adding the same record
again or compacting clears them. Writers of one folder take turns by a file lock, which the system
releases when its holder dies. Readers take no lock.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import TypeVar

import filelock
import lancedb
import pyarrow as pa
import pyarrow.compute as pc
from lancedb.index import BTree, HnswSq
from lancedb.table import Table

from harmonia.store.lance import rows
from harmonia.store.lance.sql import LANCE_ERRORS, brief, delete_in, scan
from harmonia.types import HarmoniaError

NAMES = ("records", "parts", "files")
LOCK_SECONDS = 600.0
"""How long a writer waits for another one."""

FRAGMENTS = 64
FRAGMENT_ROWS = 512
"""A table is compacted when it has more than ``FRAGMENTS + rows / FRAGMENT_ROWS`` fragments: small
ones often, large ones rarely enough that rewriting stays a small multiple of writing."""

KEEP = timedelta(minutes=2)
"""Age up to which compaction keeps old versions, for readers that are in the middle of one."""

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Snapshot:
    """Records and parts pinned at versions that belong together."""

    records: Table
    parts: Table


class Tables:
    """The tables of one local folder. Every handle is opened anew, so threads share none."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self._db = lancedb.connect(root)
        self._lock = filelock.FileLock(root / ".lock", timeout=LOCK_SECONDS)

    def create(self, width: int) -> None:
        """Make empty tables, for codes of ``width`` numbers."""
        for name, schema in zip(
            NAMES, (rows.RECORDS_SCHEMA, rows.parts_schema(width), rows.FILES_SCHEMA), strict=True
        ):
            self._db.drop_table(name, ignore_missing=True)  # of a creation that was interrupted
            self._db.create_table(name, schema=schema)

    def drop(self) -> None:
        """Remove the tables, and the file of the lock, which the caller holds."""
        for name in NAMES:
            self._db.drop_table(name, ignore_missing=True)
        with suppress(OSError):  # some systems keep an open file
            (self.root / ".lock").unlink()

    def open(self, name: str) -> Table:
        """A table at its newest version. What is read through the handle stays at that version."""
        return self._db.open_table(name)

    def snapshot(self) -> Snapshot:
        """Pin records and parts that belong together: no record commit between the two."""
        records = self.open("records")
        for _ in range(8):
            parts = self.open("parts")
            newest = self.open("records")
            if newest.version == records.version:
                return Snapshot(records, parts)
            records = newest
        with self.writing():
            return Snapshot(self.open("records"), self.open("parts"))

    def read(self, work: Callable[[Snapshot], T]) -> T:
        """Read from a snapshot; from a new one if compaction cleared it meanwhile."""
        for _ in range(2):
            try:
                return work(self.snapshot())
            except LANCE_ERRORS:
                continue
        try:
            return work(self.snapshot())
        except LANCE_ERRORS as error:
            raise HarmoniaError(
                f"cannot read the store in {self.root}: {brief(error)}; is the folder complete?"
            ) from error

    @contextmanager
    def writing(self) -> Iterator[None]:
        """Hold the lock of the folder; failures of the disk become HarmoniaErrors."""
        try:
            with self._lock:
                yield
        except filelock.Timeout as error:
            raise HarmoniaError(
                f"another process has been writing to {self.root} for {LOCK_SECONDS:.0f} s: "
                "try again when it is done"
            ) from error
        except LANCE_ERRORS as error:
            raise HarmoniaError(
                f"cannot write to the store in {self.root}: {brief(error)}; what it held before is "
                "safe: make room or give access, then try again"
            ) from error

    def compact(self, name: str, keep: timedelta) -> None:
        """Merge a table's fragments and clear old versions and orphans. The lock is held."""
        table = self.open(name)
        if name == "parts":
            owners = pc.unique(scan(table, ["record_id"])["record_id"])
            known = scan(self.open("records"), ["id"])["id"]
            orphan = pc.invert(pc.is_in(owners, value_set=known))
            delete_in(table, "record_id", owners.filter(orphan).to_pylist())
        with warnings.catch_warnings():
            # Lance warns of keep=0 for the sake of other writers; the lock holds them off.
            warnings.filterwarnings("ignore", message="optimize.cleanup_older_than=0")
            # Unverified files are those of writers that died: no other writer is at work.
            table.optimize(cleanup_older_than=keep, delete_unverified=True)

    def tidy(self) -> None:
        """Compact tables that have become many small fragments. The lock is held."""
        for name in NAMES:
            stats = self.open(name).stats()
            limit = FRAGMENTS + stats["num_rows"] // FRAGMENT_ROWS
            if stats["fragment_stats"]["num_fragments"] <= limit:
                continue
            try:
                self.compact(name, KEEP)
            except LANCE_ERRORS as error:  # what was to be written has been committed
                warnings.warn(f"could not compact {self.root}: {brief(error)}", stacklevel=3)

    def build_index(self) -> None:
        """Index the codes (IVF_HNSW_SQ) and the ids. The lock is held; there are parts."""
        self.open("records").create_index("id", config=BTree())
        parts = self.open("parts")
        parts.create_index("record_id", config=BTree())
        partitions = 1 + parts.count_rows() // 1_000_000
        parts.create_index("code", config=HnswSq(distance_type="dot", num_partitions=partitions))

    def bytes(self) -> int:
        """Bytes of all tables on disk, old versions and indices included."""
        return sum(folder_bytes(self.root / f"{name}.lance") for name in NAMES)


def upsert(table: Table, key: str, new: pa.Table, some_exist: bool) -> None:
    """Commit rows, replacing those of the same key."""
    if some_exist:
        merge = table.merge_insert(key).when_matched_update_all().when_not_matched_insert_all()
        merge.execute(new)
    else:
        table.add(new)


def folder_bytes(folder: Path) -> int:
    """Bytes of a folder's files; those that vanish meanwhile are left out."""
    total = 0
    for path in folder.rglob("*"):
        try:
            total += path.stat().st_size if path.is_file() else 0
        except FileNotFoundError:
            continue
    return total
