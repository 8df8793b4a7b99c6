"""The embedded store: records, parts and files on LanceDB, in one local folder.

See `harmonia.store.lance.tables` for what makes writes atomic and exact under several processes. Encode
before calling: nothing here waits for an encoder while it holds the lock.
"""

from __future__ import annotations

import json
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray
from typing_extensions import override

from harmonia.store.filters import In
from harmonia.store.lance import columns, rows, search
from harmonia.store.lance.metadata_rows import add_records, complete_columns
from harmonia.store.lance.part_paths import relocate_parts
from harmonia.store.lance.sql import delete_in, rows_in, scan, sorted_ids
from harmonia.store.lance.tables import KEEP, NAMES, Snapshot, Tables, folder_bytes, upsert
from harmonia.store.metadata import (
    FILE_NAME,
    SCHEMA_VERSION,
    Layout,
    local_folder,
    read_layout,
    write_layout,
)
from harmonia.store.protocol import CodeTable, EncoderInfo, FileState, Store, Where
from harmonia.store.summary import FILE_NAME as SUMMARY
from harmonia.store.summary import stamp_of, write_summary
from harmonia.types import HarmoniaError, Record


class LanceStore(Store):
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
        root, layout = local_folder(root), Layout.of(encoders)
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
        root = local_folder(root)
        store = cls(root, read_layout(root))
        store.version()
        return store

    @staticmethod
    def exists(root: str | Path) -> bool:
        """Whether a store, of whatever version, was made in this folder."""
        return (local_folder(root) / FILE_NAME).is_file()

    @override
    def discard_empty(self) -> bool:
        with self._tables.writing():
            if self.ids():
                return False
            # first the file that says that there is a store
            for name in (FILE_NAME, SUMMARY):
                (self.root / name).unlink(missing_ok=True)
            self._tables.drop()
        return True

    @property
    @override
    def encoders(self) -> tuple[EncoderInfo, ...]:
        return self.layout.encoders

    # Writing

    @override
    def add(self, records: Sequence[Record], files: Sequence[FileState] = ()) -> int:
        given = _merged(records)
        for record in given.values():
            rows.check(record, self.layout)
        metadata = {r.id: columns.to_json(r.id, r.metadata) for r in given.values()}
        rows.file_rows(files)  # refuses what could not be written, before anything is
        with self._tables.writing():
            self._complete_columns()
            table = self._tables.open("records")
            found = rows_in(table, "id", given, ["id", "metadata", "created"])
            old = {r["id"]: (r["metadata"], r["created"]) for r in found.to_pylist()}
            self._add_parts(given, old)
            add_records(table, metadata, old)
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

    @override
    def describe(self, metadata: Mapping[str, Mapping[str, Any]]) -> int:
        given = {i: columns.to_json(i, found) for i, found in metadata.items()}
        with self._tables.writing():
            self._complete_columns()
            table = self._tables.open("records")
            found = rows_in(table, "id", given, ["id", "metadata", "created"])
            old = {r["id"]: (r["metadata"], r["created"]) for r in found.to_pylist()}
            add_records(table, {i: given[i] for i in old}, old)
            self._tables.tidy()
        return len(old)

    @override
    def relocate(
        self,
        paths: Mapping[str, Mapping[str, str]],
        metadata: Mapping[str, Mapping[str, Any]],
        files: Sequence[FileState],
    ) -> int:
        with self._tables.writing():
            count = relocate_parts(self._tables.open("parts"), paths)
        if metadata:
            self.describe(metadata)
        if files:
            self.touch(files)
        return count

    @override
    def remove(self, ids: Collection[str]) -> int:
        with self._tables.writing():
            count = len(rows_in(self._tables.open("records"), "id", ids, ["id"]))
            for name, key in (("files", "record_id"), ("records", "id"), ("parts", "record_id")):
                delete_in(self._tables.open(name), key, ids)
            self._tables.tidy()
        return count

    @override
    def touch(self, files: Sequence[FileState]) -> int:
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

    @override
    def forget_files(self, paths: Collection[str]) -> int:
        with self._tables.writing():
            table = self._tables.open("files")
            count = len(rows_in(table, "path", paths, ["path"]))
            delete_in(table, "path", paths)
            self._tables.tidy()
        return count

    # Reading

    @override
    def records(
        self,
        ids: Sequence[str] | None = None,
        where: Where | None = None,
        limit: int | None = None,
        offset: int = 0,
    ) -> list[Record]:
        complete = self._complete()

        def read(snapshot: Snapshot) -> list[Record]:
            chosen = _chosen(snapshot, ids, where, complete)[offset:][:limit]
            found = rows_in(snapshot.records, "id", chosen, ["id", "metadata"])
            metadata = dict(zip(*(found[c].to_pylist() for c in ("id", "metadata")), strict=True))
            parts = rows.stored_parts(rows_in(snapshot.parts, "record_id", chosen, rows.PIECE))
            return [
                Record(i, tuple(parts[i][n] for n in sorted(parts[i])), json.loads(metadata[i]))
                for i in chosen
            ]

        return self._tables.read(read)

    @override
    def select(self, where: Where | None = None) -> list[str]:
        return list(self.created(where))

    @override
    def created(self, where: Where | None = None) -> dict[str, float]:
        complete = self._complete()
        return self._tables.read(lambda snapshot: search.matching(snapshot.records, where, complete))

    @override
    def holding(self, digest: str) -> list[Record]:
        def read(snapshot: Snapshot) -> list[str]:
            rows_of = rows_in(snapshot.parts, "digest", [digest], ["record_id"])
            owners: list[str] = pc.unique(rows_of["record_id"]).to_pylist()
            return owners

        found = self._tables.read(read)
        return self.records(found, where=In("id", tuple(found))) if found else []

    @override
    def ids(self) -> list[str]:
        return self._tables.read(lambda snapshot: sorted_ids(snapshot.records).to_pylist())

    @override
    def metadata(self) -> dict[str, dict[str, Any]]:
        def read(snapshot: Snapshot) -> dict[str, dict[str, Any]]:
            found = scan(snapshot.records, ["id", "metadata"])
            pairs = zip(*(found[c].to_pylist() for c in ("id", "metadata")), strict=True)
            return {i: json.loads(text) for i, text in pairs}

        return self._tables.read(read)

    @override
    def texts(self, only: Collection[str] | None = None) -> tuple[list[str], list[str]]:
        return self._tables.read(lambda snapshot: rows.all_texts(snapshot.parts, only))

    @override
    def files(self) -> dict[str, FileState]:
        return self._tables.read(lambda _: rows.file_states(scan(self._tables.open("files"))))

    @override
    def codes(self, only: Collection[str] | None = None) -> CodeTable:
        def read(snapshot: Snapshot) -> CodeTable:
            ids = sorted_ids(snapshot.records)
            if only is not None:
                ids = ids.filter(pc.is_in(ids, pa.array(list(only), pa.string())))
            if only is None:
                table = rows.all_codes(snapshot.parts, self.encoders, ids)
            else:
                table = rows.some_codes(snapshot.parts, self.encoders, ids)
            version = (snapshot.records.version, snapshot.parts.version)
            return CodeTable(ids.to_pylist(), table, version)

        return self._tables.read(read)

    @override
    def version(self) -> tuple[int, int, int]:
        def read(snapshot: Snapshot) -> tuple[int, int, int]:
            files = self._tables.open("files")
            return snapshot.records.version, snapshot.parts.version, files.version

        return self._tables.read(read)

    @override
    def nearest(
        self,
        encoder: str,
        vector: NDArray[np.float32],
        k: int,
        where: Where | None = None,
        ids: Collection[str] | None = None,
    ) -> tuple[list[str], NDArray[np.float32]]:
        info = next((e for e in self.encoders if e.name == encoder), None)
        if info is None:
            raise HarmoniaError(f"no encoder {encoder!r}: this store has {self.layout.describe()}")
        if vector.shape != (info.dim,) or not np.isfinite(vector).all():
            raise HarmoniaError(f"a code of {encoder} is {info.dim} finite numbers")
        query = np.pad(vector.astype(np.float32), (0, self.layout.width - info.dim))
        complete = self._complete()

        def read(snapshot: Snapshot) -> tuple[list[str], NDArray[np.float32]]:
            every = where is None and ids is None
            only = None if every else set(_chosen(snapshot, ids, where, complete))
            return search.nearest(snapshot.records, snapshot.parts, encoder, query, k, only)

        return self._tables.read(read)

    @override
    def status(self) -> dict[str, Any]:
        def read(snapshot: Snapshot) -> dict[str, Any]:
            ids = sorted_ids(snapshot.records)
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

        stamp = stamp_of(self.root)
        counts = {
            **self._tables.read(read),
            "version": self.version(),
            "table_bytes": self._tables.bytes(),
            "media_bytes": folder_bytes(self.root / "media"),
        }
        write_summary(self.root, stamp, counts)
        return {**counts, "encoders": self.encoders, "width": self.layout.width}

    @override
    def code_bytes(self) -> int:
        return 4 * self.layout.width * int(self._tables.open("parts").count_rows())

    def _complete(self) -> bool:
        """Whether the columns of a snapshot that is taken from now on hold all that filters can see."""
        if self.layout.schema < SCHEMA_VERSION:
            self.layout = read_layout(self.root)  # another process may have completed them
        return self.layout.schema >= SCHEMA_VERSION

    # Upkeep

    def _complete_columns(self) -> None:
        """Give a store of schema 1 the columns and values that it lacks. The lock is held.

        The description says so at the end, and until then filters read the JSON: a process that dies on the
        way leaves a store that answers as before.
        """
        self.layout = read_layout(self.root)
        if self.layout.schema >= SCHEMA_VERSION:
            return
        complete_columns(self._tables.open("records"))
        self.layout = replace(self.layout, schema=SCHEMA_VERSION)
        write_layout(self.root, self.layout)

    @override
    def build_index(self) -> None:
        self.compact()
        if self._tables.open("parts").count_rows() == 0:
            raise HarmoniaError("there is nothing to index yet: remember something first")
        with self._tables.writing():
            self._tables.build_index()

    @override
    def compact(self, keep: timedelta = KEEP) -> None:
        with self._tables.writing():
            self._complete_columns()
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


def _chosen(snapshot: Snapshot, ids: Iterable[str] | None, where: Where | None, complete: bool) -> list[str]:
    """Ids that are among ``ids``, if given, and fulfil ``where``, if given; each once."""
    if ids is None:
        return list(search.matching(snapshot.records, where, complete))
    wanted = list(dict.fromkeys(ids))
    if where is None:
        fits = set(rows_in(snapshot.records, "id", wanted, ["id"])["id"].to_pylist())
    else:
        fits = set(search.matching(snapshot.records, where, complete))
    return [i for i in wanted if i in fits]
