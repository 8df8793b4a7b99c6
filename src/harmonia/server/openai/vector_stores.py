"""Vector stores: the memory itself, and subsets of it. The metadata of a record list its stores."""

from __future__ import annotations

import json
import logging
import re
import threading
import time
import uuid
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from harmonia.collection.collection import Memory
from harmonia.collection.namespaces import condition_of
from harmonia.collection.remember import Report
from harmonia.server.errors import ApiError, not_found
from harmonia.server.jobs import Job, Jobs
from harmonia.server.namespaces import folder_of
from harmonia.server.openai.attributes import FACTS, KEY, attributes_of, size_of, stores_of
from harmonia.server.uploaded_files import UploadedFile, UploadedFiles, file_id, record_id
from harmonia.store.atomic import write_atomically
from harmonia.store.filters import Filter, Has, In, all_of
from harmonia.types import Record

log = logging.getLogger("harmonia.server")

KIND = "vector_store"
MEMORY = "vs_memory"
"""The store of all records."""
ACTIVE_SECONDS = 60
"""How exactly the last activity of a store that expires is noted."""
UNSUPPORTED = "unknown file format: send an image, audio, video or text file"
_ID = re.compile("file-[0-9a-f]{32}")


@dataclass(slots=True)
class VectorStore:
    """One store. ``troubles`` maps the id of each failed file to its error code, message and time.

    ``expires_days`` is how many days it lasts after ``last_active_at``; None for ever.
    """

    id: str
    name: str
    created_at: int
    description: str | None = None
    metadata: dict[str, str] = field(default_factory=dict)
    troubles: dict[str, dict[str, Any]] = field(default_factory=dict)
    expires_days: int | None = None
    last_active_at: int | None = None

    @property
    def expires_at(self) -> int | None:
        """When it expires (Unix seconds): days after its last search or file; None for never."""
        if self.expires_days is None:
            return None
        return (self.last_active_at or self.created_at) + self.expires_days * 86_400

    @property
    def expired(self) -> bool:
        """Whether it has expired: it is listed, but not searched, and takes no files."""
        return self.expires_at is not None and self.expires_at <= time.time()


@dataclass(frozen=True, slots=True)
class StoreFile:
    """A file of a store: its status, creation time (Unix seconds) and error."""

    status: str
    created_at: int
    error: Mapping[str, str] | None = None


class VectorStores:
    """The vector stores of one memory, or of a ``namespace`` of it: its records are then their memory.

    Each is a small JSON file; membership is in the records' metadata. ``own`` is the server's own folder,
    ``open_memory`` returns the calling thread's collection; ``created_at`` is the time of the memory in Unix
    seconds. All methods read or write the disk.
    """

    def __init__(
        self,
        own: Path,
        open_memory: Callable[[], Memory],
        files: UploadedFiles,
        jobs: Jobs,
        created_at: int,
        namespace: str | None = None,
    ) -> None:
        self.folder, self.namespace = folder_of(own, namespace) / "stores", namespace
        self.open_memory, self.files, self.jobs = open_memory, files, jobs
        self._lock = threading.RLock()
        self._bytes: dict[str, tuple[tuple[int, ...], int]] = {}
        self._stores = {MEMORY: VectorStore(MEMORY, "memory", created_at)}
        self._stores |= {store.id: store for store in map(_read, self.folder.glob("vs_*.json")) if store}

    # The stores

    def all(self) -> list[VectorStore]:
        """All stores, oldest first; the memory's own store is the first."""
        return sorted(
            self._stores.values(), key=lambda store: (store.id != MEMORY, store.created_at, store.id)
        )

    def get(self, store_id: str) -> VectorStore:
        """The store of an id; ApiError 404 if there is none."""
        store = self._stores.get(store_id)
        if store is None:
            raise not_found("vector store", store_id)
        return store

    def create(
        self, name: str, description: str | None, metadata: Mapping[str, str], expires_days: int | None = None
    ) -> VectorStore:
        """Create a store."""
        store = VectorStore(
            f"vs_{uuid.uuid4().hex}", name, int(time.time()), description, dict(metadata),
            expires_days=expires_days,
        )  # fmt: skip
        with self._lock:
            self._stores[store.id] = store
            self._save(store)
        return store

    def used(self, store: VectorStore) -> None:
        """Note that a store is searched or given a file; ApiError 400 if it has expired."""
        if store.expired:
            raise ApiError(400, f"the vector store {store.id!r} has expired", code="vector_store_expired")
        now = int(time.time())
        if store.expires_days is not None and now - (store.last_active_at or 0) >= ACTIVE_SECONDS:
            with self._lock:
                store.last_active_at = now
                self._save(store)

    def change(
        self,
        store: VectorStore,
        name: str | None,
        metadata: Mapping[str, str] | None,
        expires_days: int | None = None,
    ) -> None:
        """Change the name, metadata or expiry of a store; None keeps them."""
        if store.id == MEMORY and expires_days is not None:
            raise ApiError(400, "the memory's own store does not expire", param="expires_after")
        if store.id == MEMORY and name not in (None, store.name):
            raise ApiError(400, "the memory's own store cannot be renamed", param="name")
        with self._lock:
            store.name = store.name if name is None else name
            store.metadata = store.metadata if metadata is None else dict(metadata)
            store.expires_days = store.expires_days if expires_days is None else expires_days
            self._save(store)

    def delete(self, store: VectorStore) -> None:
        """Delete a store; its records stay in the memory. ApiError 400 for the memory's own store."""
        if store.id == MEMORY:
            raise ApiError(400, "this store is the memory itself and cannot be deleted: forget its records")
        with self._lock:
            # without its file the store is gone, and its id in the metadata of records has no meaning
            self._stores.pop(store.id, None)
            (self.folder / f"{store.id}.json").unlink(missing_ok=True)
            self._update_records({one: {} for one in self.members(store)}, out=store.id)

    # What is in them

    def condition(self, store: VectorStore) -> Filter | None:
        """The condition that a record is in a store; None for the whole memory."""
        held = None if store.id == MEMORY else Has(KEY, store.id)
        return all_of([held, condition_of(self.namespace)])

    def members(self, store: VectorStore) -> dict[str, float]:
        """The creation times of the records of a store (Unix seconds), by record id, oldest first."""
        memory = self.open_memory()
        return memory.store.created(self.condition(store)) if memory.exists else {}

    def attach(self, store: VectorStore, uploads: Mapping[str, Mapping[str, Any]]) -> Job:
        """Start a job that adds files to a store; ``uploads`` maps file ids to attributes. ApiError 404."""
        self.used(store)
        files = [self.files.get(upload_id) for upload_id in uploads]
        paths = [self.files.path(file) for file in files if file.modality]
        files_note = {upload_id: dict(attributes) for upload_id, attributes in uploads.items()}
        note = {"store": store.id, "files": files_note}
        return self.jobs.submit(KIND, paths, copy=True, whole=True, note=note, namespace=self.namespace)

    def jobs_of(self, store: VectorStore) -> list[Job]:
        """The jobs that add files to a store, oldest first."""
        return [
            job
            for job in self.jobs.all()
            if job.kind == KIND and job.namespace == self.namespace and job.note["store"] == store.id
        ]

    def entries(self, store: VectorStore) -> dict[str, StoreFile]:
        """All files of a store by id, oldest first."""
        files = self._pending_and_failed(store)
        _add_completed(files, self.members(store))
        return dict(sorted(files.items(), key=lambda item: (item[1].created_at, item[0])))

    def select(
        self, store: VectorStore, ids: Sequence[str]
    ) -> tuple[dict[str, StoreFile], dict[str, Record]]:
        """The files of a store among ``ids``, and the records of those that are completed, by file id."""
        memory = self.open_memory()
        wanted = [record_id(upload_id) for upload_id in ids if _ID.fullmatch(upload_id)]
        records = self._records(wanted)
        if store.id != MEMORY:
            records = [record for record in records if store.id in stores_of(record)]
        ids_of_records = tuple(record.id for record in records)
        since = memory.store.created(In("id", ids_of_records)) if records else {}
        files = {key: file for key, file in self._pending_and_failed(store).items() if key in set(ids)}
        _add_completed(files, since)
        return files, {file_id(record.id): record for record in records}

    def describe(self, record: Record, attributes: Mapping[str, Any]) -> None:
        """Replace the attributes of a file."""
        cleared = dict.fromkeys(key for key in attributes_of(record) if key not in FACTS)
        with self._lock:
            self._update_records({record.id: {**cleared, **attributes}})

    def remove(self, store: VectorStore, upload_id: str) -> None:
        """Remove a file from a store; removal from the memory's own store forgets the record."""
        if store.id == MEMORY:
            self.forget(record_id(upload_id))
        else:
            with self._lock:
                self._update_records({record_id(upload_id): {}}, out=store.id)
        self._drop_entries(upload_id, [store])

    def forget(self, record: str) -> None:
        """Forget a record, and its file in every store."""
        if self._records([record]):
            self.open_memory().forget([record])
        self._drop_entries(file_id(record), self.all())

    def usage_bytes(self, store: VectorStore) -> int:
        """The size of the records of a store in bytes."""
        memory = self.open_memory()
        if not memory.exists:
            return 0
        version = memory.store.version()
        if self._bytes.get(store.id, ((), 0))[0] != version:
            records = memory.store.records(list(self.members(store)))
            self._bytes[store.id] = version, sum(size_of(record, memory.root) for record in records)
        return self._bytes[store.id][1]

    # Within

    def _records(self, ids: Sequence[str]) -> list[Record]:
        """The records of these ids that there are, and that belong to the namespace."""
        memory, own = self.open_memory(), condition_of(self.namespace)
        found = memory.store.records(ids) if memory.exists and ids else []
        return [record for record in found if own is None or own.matches(record.metadata)]

    def _pending_and_failed(self, store: VectorStore) -> dict[str, StoreFile]:
        """Pending and failed files of a store."""
        files: dict[str, StoreFile] = {}
        for job in self.jobs_of(store):
            for upload_id in dict(job.note["files"]):
                if job.state == "completed":
                    files.pop(upload_id, None)
                else:
                    files[upload_id] = store_file_of(job)
        for upload_id, trouble in dict(store.troubles).items():
            if upload_id not in files or files[upload_id].status != "in_progress":
                error = {"code": trouble["code"], "message": trouble["message"]}
                files[upload_id] = StoreFile("failed", trouble["created_at"], error)
        return files

    def add_records(self, job: Job, report: Report) -> None:
        """Add the records of a finished job to its store, with their attributes. Runs in the jobs' thread."""
        uploads: dict[str, dict[str, Any]] = dict(job.note["files"])
        reasons = {Path(problem.path).stem: problem.reason for problem in report.problems}
        changes: dict[str, dict[str, Any]] = {}
        troubles = {}
        for upload_id, attributes in uploads.items():
            file, code = self.files.find(upload_id), "invalid_file"
            reason = reasons.get(upload_id)
            if file is None:
                reason = "the file was deleted"
            elif file.modality is None:
                code, reason = "unsupported_file", UNSUPPORTED
            if reason is None:
                changes[record_id(upload_id)] = attributes
            else:
                message = self.jobs.without_paths(reason if file is None else _named(reason, file))
                troubles[upload_id] = {"code": code, "message": message, "created_at": int(job.created)}
        left = {Path(path).stem for path in job.paths} - set(uploads)
        for upload_id in left:
            # deleted, or removed from the memory's own store, while the job ran
            if job.note["store"] == MEMORY or self.files.find(upload_id) is None:
                self.forget(record_id(upload_id))
        with self._lock:
            self._update_records(changes, into=job.note["store"])
            store = self._stores.get(job.note["store"])
            if store is not None:
                kept = {upload_id: t for upload_id, t in store.troubles.items() if upload_id not in uploads}
                if kept | troubles != store.troubles:
                    store.troubles = kept | troubles
                    self._save(store)

    def _update_records(
        self, changes: Mapping[str, Mapping[str, Any]], *, into: str | None = None, out: str | None = None
    ) -> None:
        """Change the metadata of existing records, and add them to or remove them from a store."""
        updates = {}
        for record in self._records(list(changes)):
            metadata = dict(changes[record.id])
            file = self.files.find(file_id(record.id))
            if file is not None and record.metadata.get("name") == file.id:
                # remembered from the upload folder: its path is not metadata
                metadata = {"name": Path(file.filename).stem, "path": None, "folder": None} | metadata
            stores = stores_of(record)
            new_stores = [store_id for store_id in stores if store_id != out]
            if into is not None and into in self._stores and into != MEMORY and into not in new_stores:
                new_stores.append(into)
            if new_stores != stores:
                metadata[KEY] = new_stores
            if metadata:
                updates[record.id] = metadata
        if updates:
            self.open_memory().store.describe(updates)

    def _drop_entries(self, upload_id: str, stores: Collection[VectorStore]) -> None:
        """Drop the pending and failed entries of a file in stores."""
        for job in [job for store in stores for job in self.jobs_of(store)]:
            if upload_id in job.note["files"]:
                files = {k: v for k, v in job.note["files"].items() if k != upload_id}
                self.jobs.update_note(job, {**job.note, "files": files})
        for store in stores:
            with self._lock:
                if store.troubles.pop(upload_id, None):
                    self._save(store)

    def _save(self, store: VectorStore) -> None:
        self.folder.mkdir(parents=True, exist_ok=True)
        write_atomically(self.folder / f"{store.id}.json", json.dumps(asdict(store)))


def _add_completed(files: dict[str, StoreFile], members: Mapping[str, float]) -> None:
    """Add the members of a store, except those of a running job, which recalls may not see yet."""
    for id_of_record, since in members.items():
        before = files.get(file_id(id_of_record))
        if before is None or before.status != "in_progress":
            files[file_id(id_of_record)] = StoreFile("completed", int(since))


def store_file_of(job: Job) -> StoreFile:
    """The file of a job that is neither in the store nor among its troubles: it has the job's status."""
    match job.state:
        case "completed":
            return StoreFile("completed", int(job.created))
        case "stopped":
            return StoreFile("cancelled", int(job.created))
        case "failed":
            error = {"code": "server_error", "message": job.message or "the job failed"}
            return StoreFile("failed", int(job.created), error)
    return StoreFile("in_progress", int(job.created))


def _named(reason: str, file: UploadedFile) -> str:
    """A reason with the file name that the client gave."""
    return reason.replace(file.id + file.suffix, file.filename)


def _read(path: Path) -> VectorStore | None:
    try:
        return VectorStore(**json.loads(path.read_text(encoding="utf-8")))
    except (OSError, ValueError, TypeError):
        log.warning("a vector store cannot be read", extra={"facts": {"store": path.stem}})
        return None
