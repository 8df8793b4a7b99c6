"""The embedded store: records, parts and files on LanceDB, in one local folder.

See `harmonia.store.lance.tables` for what makes writes atomic and exact under several processes. Encode
before calling: nothing here waits for an encoder while it holds the lock.
"""

from __future__ import annotations

import json
import time
from collections.abc import Collection, Iterable, Mapping, Sequence
from datetime import timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from lancedb.table import Table
from numpy.typing import NDArray

from harmonia.store.lance import columns, rows, search
from harmonia.store.lance.sql import delete_in, is_in, rows_in, scan
from harmonia.store.lance.tables import KEEP, NAMES, Snapshot, Tables, folder_bytes, upsert
from harmonia.store.metadata import FILE_NAME, Layout, read_layout, write_layout
from harmonia.store.protocol import Codes, CodeTable, EncoderInfo, FileState
from harmonia.types import HarmoniaError, Record


class LanceStore:
    """A `harmonia.store.protocol.Store` in a local folder. Make one with `create` or `open`."""

    def __init__(self, root: Path, layout: Layout) -> None:
        self.root = root
        self.layout = layout
        self._tables = Tables(root)

    @classmethod
    def create(
        cls, root: str | Path, encoders: Sequence[EncoderInfo], *, exist_ok: bool = False
    ) -> LanceStore:
        """Make an empty store for codes of these encoders, making the folder if need be.

        With ``exist_ok`` a store that is already there is opened, if its encoders are the same.
        """
        root, layout = Path(root).absolute(), Layout.of(encoders)
        try:
            root.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise HarmoniaError(f"cannot make the folder {root}: {error.strerror}") from error
        store = cls(root, layout)
        with store._tables.writing():
            if not (root / FILE_NAME).exists():
                store._tables.create(layout.width)
                write_layout(root, layout)
                return store
        there = cls.open(root)
        if not exist_ok:
            raise HarmoniaError(f"there is a store in {root} already: open it")
        if there.encoders != layout.encoders:
            raise HarmoniaError(
                f"the store in {root} was made with {there.layout.describe()}: "
                "use these encoders, or another folder"
            )
        return there

    @classmethod
    def open(cls, root: str | Path) -> LanceStore:
        """Open a store; HarmoniaError if there is none or one of a newer schema version."""
        root = Path(root).absolute()
        store = cls(root, read_layout(root))
        store.version()
        return store

    @staticmethod
    def exists(root: str | Path) -> bool:
        """Whether a store, of whatever version, was made in this folder."""
        return (Path(root) / FILE_NAME).is_file()

    @property
    def encoders(self) -> tuple[EncoderInfo, ...]:
        """The encoders the store was made with; it takes codes of no other."""
        return self.layout.encoders

    # Writing

    def add(self, records: Sequence[Record], files: Sequence[FileState] = ()) -> int:
        """Store records with coded parts, then the files they came from; returns how many are new.

        Adding a record again stores no second one: parts and codes it lacks are added, and its
        metadata is updated key by key. After a failure every record is there with all its parts or
        not at all, and adding again completes it.
        """
        given = _merged(records)
        for record in given.values():
            rows.check(record, self.layout)
        metadata = {r.id: columns.to_json(r.id, r.metadata) for r in given.values()}
        rows.file_rows(files)  # refuses what could not be written, before anything is
        with self._tables.writing():
            table = self._tables.open("records")
            found = rows_in(table, "id", given, ["id", "metadata", "created"])
            old = {r["id"]: (r["metadata"], r["created"]) for r in found.to_pylist()}
            self._add_parts(given, old)
            _add_records(table, metadata, old)
            self._put_files(files, set(given))
            self._tables.tidy()
        return len(given) - len(old)

    def _add_parts(self, given: dict[str, Record], old: Collection[str]) -> None:
        """Commit the parts that are missing; those of an interrupted write are replaced."""
        table = self._tables.open("parts")
        stored = rows_in(table, "record_id", given, [*rows.PIECE, "encoder"])
        orphan = pc.invert(pc.is_in(stored["record_id"], pa.array(list(old), pa.string())))
        delete_in(table, "record_id", pc.unique(stored.filter(orphan)["record_id"]).to_pylist())
        kept = stored.filter(pc.invert(orphan))
        missing = rows.part_rows(given.values(), self.layout, kept)
        if missing.num_rows:
            table.add(missing)

    def describe(self, metadata: Mapping[str, Mapping[str, Any]]) -> int:
        """Update the metadata of records key by key, by id; returns how many of them there are."""
        given = {i: columns.to_json(i, found) for i, found in metadata.items()}
        with self._tables.writing():
            table = self._tables.open("records")
            found = rows_in(table, "id", given, ["id", "metadata", "created"])
            old = {r["id"]: (r["metadata"], r["created"]) for r in found.to_pylist()}
            _add_records(table, {i: given[i] for i in old}, old)
            self._tables.tidy()
        return len(old)

    def remove(self, ids: Collection[str]) -> int:
        """Forget records, their parts and their files; returns how many there were.

        The bytes stay on disk until compaction: ``compact(keep=timedelta(0))`` clears them now.
        """
        with self._tables.writing():
            count = len(rows_in(self._tables.open("records"), "id", ids, ["id"]))
            for name, key in (("files", "record_id"), ("records", "id"), ("parts", "record_id")):
                delete_in(self._tables.open(name), key, ids)
            self._tables.tidy()
        return count

    def touch(self, files: Sequence[FileState]) -> int:
        """Insert or update file states; those of unknown records are left out. Returns the rest."""
        rows.file_rows(files)
        with self._tables.writing():
            wanted = {file.record_id for file in files}
            found = rows_in(self._tables.open("records"), "id", wanted, ["id"])
            count = self._put_files(files, set(found["id"].to_pylist()))
            self._tables.tidy()
        return count

    def _put_files(self, files: Sequence[FileState], known: set[str]) -> int:
        """Commit the file states that are new or changed; returns how many are as given now."""
        given = {file.path: file for file in files if file.record_id in known}
        table = self._tables.open("files")
        old = rows.file_states(rows_in(table, "path", given, rows.FILES_SCHEMA.names))
        changed = [file for file in given.values() if old.get(file.path) != file]
        if changed:
            upsert(table, "path", rows.file_rows(changed), bool(old))
        return len(given)

    def forget_files(self, paths: Collection[str]) -> int:
        """Forget file states, keeping their records; returns how many there were."""
        with self._tables.writing():
            table = self._tables.open("files")
            count = len(rows_in(table, "path", paths, ["path"]))
            delete_in(table, "path", paths)
            self._tables.tidy()
        return count

    # Reading

    def records(
        self,
        ids: Sequence[str] | None = None,
        where: str | None = None,
        limit: int | None = None,
        offset: int = 0,
    ) -> list[Record]:
        """Records without codes, in the order of ``ids`` or else oldest first.

        Ids that the store does not have are left out. ``limit`` and ``offset`` count records.
        """

        def read(snapshot: Snapshot) -> list[Record]:
            chosen = _chosen(snapshot, ids, where)[offset:][:limit]
            found = rows_in(snapshot.records, "id", chosen, ["id", "metadata"])
            metadata = dict(zip(*(found[c].to_pylist() for c in ("id", "metadata")), strict=True))
            parts = rows.stored_parts(rows_in(snapshot.parts, "record_id", chosen, rows.PIECE))
            return [
                Record(i, tuple(parts[i][n] for n in sorted(parts[i])), json.loads(metadata[i]))
                for i in chosen
            ]

        return self._tables.read(read)

    def select(self, where: str) -> list[str]:
        """Ids of the records whose metadata fulfils an SQL condition, oldest first.

        ``tag = 'beach'``, ``year > 2019``, ``array_has(people, 'Ada')``. HarmoniaError, with the
        columns there are, for a condition that cannot be understood.
        """
        return self._tables.read(lambda snapshot: _chosen(snapshot, None, where))

    def created(self, where: str | None = None) -> dict[str, float]:
        """When records were added (Unix seconds), by id, oldest first; ``where`` is that of ``select``."""
        return self._tables.read(lambda snapshot: search.matching(snapshot.records, where))

    def holding(self, digest: str) -> list[Record]:
        """Records with a part of this content (SHA-256 in hexadecimal), without codes, oldest first."""

        def read(snapshot: Snapshot) -> list[str]:
            rows_of = rows_in(snapshot.parts, "digest", [digest], ["record_id"])
            owners: list[str] = pc.unique(rows_of["record_id"]).to_pylist()
            return owners

        found = self._tables.read(read)
        return self.records(found, where=is_in("id", found)) if found else []

    def ids(self) -> list[str]:
        """The id of every record, sorted."""
        return self._tables.read(lambda snapshot: search.sorted_ids(snapshot.records).to_pylist())

    def metadata(self) -> dict[str, dict[str, Any]]:
        """The metadata of every record, by id."""

        def read(snapshot: Snapshot) -> dict[str, dict[str, Any]]:
            found = scan(snapshot.records, ["id", "metadata"])
            pairs = zip(*(found[c].to_pylist() for c in ("id", "metadata")), strict=True)
            return {i: json.loads(text) for i, text in pairs}

        return self._tables.read(read)

    def files(self) -> dict[str, FileState]:
        """Every known file, by path."""
        return self._tables.read(lambda _: rows.file_states(scan(self._tables.open("files"))))

    def codes(self, only: Collection[str] | None = None) -> CodeTable:
        """Every code, or those of some records, grouped by encoder.

        About 0.2 s (1 s before compaction) per 100,000 of 512.
        """

        def read(snapshot: Snapshot) -> CodeTable:
            ids = search.sorted_ids(snapshot.records)
            if only is not None:
                ids = ids.filter(pc.is_in(ids, pa.array(list(only), pa.string())))
            table = {e.name: _codes_of(snapshot, e, ids, only is None) for e in self.encoders}
            version = (snapshot.records.version, snapshot.parts.version)
            return CodeTable(ids.to_pylist(), table, version)

        return self._tables.read(read)

    def version(self) -> tuple[int, int, int]:
        """Counters of records, parts and files; a change by any process moves one of them."""

        def read(snapshot: Snapshot) -> tuple[int, int, int]:
            files = self._tables.open("files")
            return snapshot.records.version, snapshot.parts.version, files.version

        return self._tables.read(read)

    def nearest(
        self,
        encoder: str,
        vector: NDArray[np.float32],
        k: int,
        where: str | None = None,
        ids: Collection[str] | None = None,
    ) -> tuple[list[str], NDArray[np.float32]]:
        """The ``k`` records with the most similar part, and the cosines, best first.

        Exact without an index; with one, records may be missed but the cosines are exact.
        """
        info = next((e for e in self.encoders if e.name == encoder), None)
        if info is None:
            raise HarmoniaError(f"no encoder {encoder!r}: this store has {self.layout.describe()}")
        if vector.shape != (info.dim,) or not np.isfinite(vector).all():
            raise HarmoniaError(f"a code of {encoder} is {info.dim} finite numbers")
        query = np.pad(vector.astype(np.float32), (0, self.layout.width - info.dim))

        def read(snapshot: Snapshot) -> tuple[list[str], NDArray[np.float32]]:
            every = where is None and ids is None
            only = None if every else set(_chosen(snapshot, ids, where))
            return search.nearest(snapshot.records, snapshot.parts, encoder, query, k, only)

        return self._tables.read(read)

    def status(self) -> dict[str, Any]:
        """Counts, sizes in bytes, encoders, columns for filters, and versions."""

        def read(snapshot: Snapshot) -> dict[str, Any]:
            ids = search.sorted_ids(snapshot.records)
            pieces = scan(snapshot.parts, ["record_id", "part", "modality"])
            pieces = pieces.filter(pc.is_in(pieces["record_id"], value_set=ids))
            distinct = pieces.group_by(["record_id", "part", "modality"]).aggregate([])
            counted = distinct["modality"].value_counts().to_pylist()
            return {
                "records": len(ids),
                "parts": {c["values"]: c["counts"] for c in counted},
                "files": self._tables.open("files").count_rows(),
                "columns": search.filter_columns(snapshot.records),
                "index": search.has_index(snapshot.parts),
            }

        return {
            **self._tables.read(read),
            "encoders": self.encoders,
            "width": self.layout.width,
            "version": self.version(),
            "table_bytes": self._tables.bytes(),
            "media_bytes": folder_bytes(self.root / "media"),
        }

    # Upkeep

    def build_index(self) -> None:
        """Make `nearest` sublinear in the number of parts, and approximate (IVF_HNSW_SQ).

        For memories that outgrow RAM. Later parts are found too: by a scan until the next
        compaction adds them to the index. Building again makes one index out of its pieces.
        """
        self.compact()
        if self._tables.open("parts").count_rows() == 0:
            raise HarmoniaError("there is nothing to index yet: remember something first")
        with self._tables.writing():
            self._tables.build_index()

    def compact(self, keep: timedelta = KEEP) -> None:
        """Merge fragments, and clear parts without a record and versions older than ``keep``."""
        with self._tables.writing():
            for name in NAMES:
                self._tables.compact(name, keep)


def _merged(records: Sequence[Record]) -> dict[str, Record]:
    """Records by id, those of one id made one."""
    merged: dict[str, Record] = {}
    for record in records:
        if before := merged.get(record.id):
            metadata = {**before.metadata, **record.metadata}
            record = Record(record.id, before.parts + record.parts, metadata)
        merged[record.id] = record
    return merged


def _add_records(table: Table, given: dict[str, str], old: dict[str, tuple[str, float]]) -> None:
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


def _chosen(snapshot: Snapshot, ids: Iterable[str] | None, where: str | None) -> list[str]:
    """Ids that are among ``ids``, if given, and fulfil ``where``, if given; each once."""
    if ids is None:
        return list(search.matching(snapshot.records, where))
    wanted = list(dict.fromkeys(ids))
    if where is None:
        fits = set(rows_in(snapshot.records, "id", wanted, ["id"])["id"].to_pylist())
    else:
        fits = set(search.matching(snapshot.records, where))
    return [i for i in wanted if i in fits]


def _codes_of(snapshot: Snapshot, encoder: EncoderInfo, ids: pa.Array, every: bool) -> Codes:
    names = ["record_id", "part", "t0", "t1", "code"]
    if every:
        found = scan(snapshot.parts, names, search.of_encoder(encoder.name))
    else:
        found = rows_in(snapshot.parts, "record_id", ids.to_pylist(), [*names, "encoder"])
        found = found.filter(pc.equal(found["encoder"], encoder.name))
    return rows.gather_codes(found, ids, encoder.dim)
