"""The files of OpenAI's vector stores: attached one by one or in batches, remembered in the background."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from typing import Annotated, Any, Literal

from fastapi import APIRouter, Query, Response

from harmonia.collection.json_output import finite
from harmonia.server.errors import ApiError, not_found
from harmonia.server.jobs import ENDED, Job
from harmonia.server.openai import pagination
from harmonia.server.openai.attributes import attributes_of, checked_attributes, size_of
from harmonia.server.openai.routes.vector_stores import Cursor, Limit, counted, filename
from harmonia.server.openai.schemas.vector_stores import (
    AttachFileRequest,
    FileBatchRequest,
    StoreFileStatus,
    UpdateFileRequest,
)
from harmonia.server.openai.vector_stores import (
    KIND,
    StoreFile,
    VectorStore,
    VectorStores,
    VectorStoresDep,
    store_file_of,
)
from harmonia.server.service import ServiceDep
from harmonia.types import Record

router = APIRouter(prefix="/v1/vector_stores/{store_id}", tags=["openai"])

Order = Literal["asc", "desc"]
PATIENCE, LOOK = 1.0, 0.02
"""Seconds that attaching waits for a small file to be done, and between two looks."""
POLL = {"openai-poll-after-ms": "250"}
"""How soon a client that waits is to ask again."""
BATCH = "vsfb_"


@router.post("/files")
async def attach(
    store_id: str, asked: AttachFileRequest, service: ServiceDep, stores: VectorStoresDep
) -> dict[str, Any]:
    """Remember an uploaded file in a store; a large one goes on in the background."""
    store = stores.get(store_id)
    given = {asked.file_id: checked_attributes(asked.attributes)}
    job = await service.work(lambda: stores.attach(store, given))
    for _ in range(int(PATIENCE / LOOK)):
        if job.state in ENDED:
            break
        await asyncio.sleep(LOOK)
    return await service.work(lambda: _one(stores, store, asked.file_id))


@router.get("/files")
async def list_files(
    store_id: str,
    service: ServiceDep,
    stores: VectorStoresDep,
    limit: Limit = 20,
    order: Order = "desc",
    after: Cursor = None,
    before: Cursor = None,
    status: Annotated[StoreFileStatus | None, Query(alias="filter")] = None,
) -> dict[str, Any]:
    """The files of a store, newest first."""
    store = stores.get(store_id)

    def read() -> dict[str, Any]:
        every = stores.entries(store)
        ids = [one for one, entry in every.items() if status in (None, entry.status)]
        chosen, more = pagination.page(ids, limit, order, after, before)
        return pagination.list_json(_several(stores, store, {one: every[one] for one in chosen}), more)

    return await service.work(read)


@router.get("/files/{file_id}")
async def read(
    store_id: str, file_id: str, service: ServiceDep, stores: VectorStoresDep, response: Response
) -> dict[str, Any]:
    """One file of a store: how far it is, or what is wrong with it."""
    store = stores.get(store_id)
    response.headers.update(POLL)
    return await service.work(lambda: _one(stores, store, file_id))


@router.post("/files/{file_id}")
async def change(
    store_id: str, file_id: str, asked: UpdateFileRequest, service: ServiceDep, stores: VectorStoresDep
) -> dict[str, Any]:
    """Give a file other attributes. They are the record's metadata, the same in every store."""
    store, said = stores.get(store_id), checked_attributes(asked.attributes)
    record = await service.work(lambda: _held(stores, store, file_id))
    await service.write(lambda: stores.describe(record, said))
    return await service.work(lambda: _one(stores, store, file_id))


@router.delete("/files/{file_id}")
async def delete(store_id: str, file_id: str, service: ServiceDep, stores: VectorStoresDep) -> dict[str, Any]:
    """Take a file out of a store; the memory's own store forgets it."""
    store = stores.get(store_id)
    await service.work(lambda: _one(stores, store, file_id))
    await service.write(lambda: stores.remove(store, file_id))
    return {"id": file_id, "object": "vector_store.file.deleted", "deleted": True}


@router.get("/files/{file_id}/content")
async def content(
    store_id: str, file_id: str, service: ServiceDep, stores: VectorStoresDep
) -> dict[str, Any]:
    """The text of a file: what it says, and what is said of it."""
    store = stores.get(store_id)
    record = await service.work(lambda: _held(stores, store, file_id))
    texts = dict.fromkeys(part.text for part in record.parts if part.text)
    return {
        "object": "vector_store.file_content.page",
        "file_id": file_id,
        "filename": filename(stores, record),
        "attributes": finite(attributes_of(record)),
        "data": [{"type": "text", "text": text} for text in texts],
        "has_more": False,
        "next_page": None,
    }


@router.post("/file_batches")
async def create_batch(
    store_id: str, asked: FileBatchRequest, service: ServiceDep, stores: VectorStoresDep
) -> dict[str, Any]:
    """Begin to remember several files; what was begun goes on after a restart."""
    store = stores.get(store_id)
    given = {one: checked_attributes(said) for one, said in asked.attached.items()}
    job = await service.work(lambda: stores.attach(store, given))
    return await service.work(lambda: _batch_json(stores, store, job))


@router.get("/file_batches/{batch_id}")
async def read_batch(
    store_id: str, batch_id: str, service: ServiceDep, stores: VectorStoresDep, response: Response
) -> dict[str, Any]:
    """How far a batch is."""
    store = stores.get(store_id)
    response.headers.update(POLL)
    return await service.work(lambda: _batch_json(stores, store, _batch(stores, store, batch_id)))


@router.get("/file_batches/{batch_id}/files")
async def list_batch(
    store_id: str,
    batch_id: str,
    service: ServiceDep,
    stores: VectorStoresDep,
    limit: Limit = 20,
    order: Order = "desc",
    after: Cursor = None,
    before: Cursor = None,
    status: Annotated[StoreFileStatus | None, Query(alias="filter")] = None,
) -> dict[str, Any]:
    """The files of a batch."""
    store = stores.get(store_id)

    def read() -> dict[str, Any]:
        every = _entries(stores, store, _batch(stores, store, batch_id))
        ids = [one for one, entry in every.items() if status in (None, entry.status)]
        chosen, more = pagination.page(ids, limit, order, after, before)
        return pagination.list_json(_several(stores, store, {one: every[one] for one in chosen}), more)

    return await service.work(read)


@router.post("/file_batches/{batch_id}/cancel")
async def cancel_batch(
    store_id: str, batch_id: str, service: ServiceDep, stores: VectorStoresDep
) -> dict[str, Any]:
    """Stop a batch after the file that it is at; what is remembered stays."""
    store = stores.get(store_id)
    job = _batch(stores, store, batch_id)
    await service.work(lambda: stores.jobs.cancel(job))
    return await service.work(lambda: _batch_json(stores, store, job))


def _one(stores: VectorStores, store: VectorStore, file_id: str) -> dict[str, Any]:
    found = _several(stores, store, {file_id: None})
    if not found:
        raise not_found("file", file_id)
    return found[0]


def _several(
    stores: VectorStores, store: VectorStore, wanted: Mapping[str, StoreFile | None]
) -> list[dict[str, Any]]:
    """Files of a store as clients read them; those that are not in it are left out."""
    found, records = stores.select(store, list(wanted))
    entries = {one: found.get(one) or known for one, known in wanted.items()}
    return [_file_json(stores, store, one, e, records.get(one)) for one, e in entries.items() if e]


def _held(stores: VectorStores, store: VectorStore, file_id: str) -> Record:
    found, records = stores.select(store, [file_id])
    if file_id in records:
        return records[file_id]
    if file_id in found:
        raise ApiError(400, f"the file {file_id!r} is {found[file_id].status}", code="file_not_completed")
    raise not_found("file", file_id)


def _file_json(
    stores: VectorStores, store: VectorStore, file_id: str, entry: StoreFile, record: Record | None
) -> dict[str, Any]:
    return {
        "id": file_id,
        "object": "vector_store.file",
        "created_at": entry.created_at,
        "vector_store_id": store.id,
        "status": entry.status,
        "last_error": entry.error,
        "usage_bytes": size_of(record, stores.open_memory().root) if record else 0,
        "attributes": finite(attributes_of(record)) if record else {},
        "chunking_strategy": {"type": "other"},
        "record_id": record.id if record else None,
    }


def _batch(stores: VectorStores, store: VectorStore, batch_id: str) -> Job:
    job = stores.jobs.jobs.get("job-" + batch_id.removeprefix(BATCH)) if batch_id.startswith(BATCH) else None
    if job is None or job.kind != KIND or job.note["store"] != store.id:
        raise not_found("file batch", batch_id)
    return job


def _entries(stores: VectorStores, store: VectorStore, job: Job) -> dict[str, StoreFile]:
    """The files of a batch; of one that was taken out of the store since, no more is known than that."""
    ids = list(job.note["files"])
    found, _ = stores.select(store, ids)
    return {one: found.get(one) or store_file_of(job) for one in ids}


def _batch_json(stores: VectorStores, store: VectorStore, job: Job) -> dict[str, Any]:
    counts = counted([entry.status for entry in _entries(stores, store, job).values()])
    states = {"completed": "completed", "failed": "failed", "stopped": "cancelled"}
    return {
        "id": BATCH + job.id.removeprefix("job-"),
        "object": "vector_store.files_batch",
        "created_at": int(job.created),
        "vector_store_id": store.id,
        "status": states.get(job.state, "in_progress"),
        "file_counts": counts,
    }
