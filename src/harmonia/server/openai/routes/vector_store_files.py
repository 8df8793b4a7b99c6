"""The files of OpenAI's vector stores: attached one by one or in batches, remembered in the background."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from typing import Annotated, Any, Literal

from fastapi import APIRouter, Depends, Query, Response

from harmonia.collection.json_output import finite
from harmonia.server.errors import ApiError, not_found
from harmonia.server.jobs import ENDED, Job
from harmonia.server.openai import pagination
from harmonia.server.openai.attributes import attributes_of, checked_attributes, size_of
from harmonia.server.openai.routes.vector_stores import Cursor, Limit, counted, filename
from harmonia.server.openai.schemas.vector_stores import BatchIn, FileChange, FileIn, StoreFileStatus
from harmonia.server.openai.vector_stores import KIND, Entry, VectorStore, entry_of
from harmonia.server.service import Service, service
from harmonia.types import Record

router = APIRouter(prefix="/v1/vector_stores/{store_id}", tags=["openai"])

At = Annotated[Service, Depends(service)]
Order = Literal["asc", "desc"]
PATIENCE, LOOK = 1.0, 0.02
"""Seconds that attaching waits for a small file to be done, and between two looks."""
POLL = {"openai-poll-after-ms": "250"}
"""How soon a client that waits is to ask again."""
BATCH = "vsfb_"


@router.post("/files")
async def attach(store_id: str, asked: FileIn, at: At) -> dict[str, Any]:
    """Remember an uploaded file in a store; a large one goes on in the background."""
    store = at.stores.get(store_id)
    given = {asked.file_id: checked_attributes(asked.attributes)}
    job = await at.work(lambda: at.stores.attach(store, given))
    for _ in range(int(PATIENCE / LOOK)):
        if job.state in ENDED:
            break
        await asyncio.sleep(LOOK)
    return await at.work(lambda: _one(at, store, asked.file_id))


@router.get("/files")
async def list_files(
    store_id: str, at: At, limit: Limit = 20, order: Order = "desc", after: Cursor = None,
    before: Cursor = None, status: Annotated[StoreFileStatus | None, Query(alias="filter")] = None,
) -> dict[str, Any]:  # fmt: skip
    """The files of a store, newest first."""
    store = at.stores.get(store_id)

    def read() -> dict[str, Any]:
        every = at.stores.entries(store)
        ids = [one for one, entry in every.items() if status in (None, entry.status)]
        chosen, more = pagination.page(ids, limit, order, after, before)
        return pagination.listed(_several(at, store, {one: every[one] for one in chosen}), more)

    return await at.work(read)


@router.get("/files/{file_id}")
async def read(store_id: str, file_id: str, at: At, response: Response) -> dict[str, Any]:
    """One file of a store: how far it is, or what is wrong with it."""
    store = at.stores.get(store_id)
    response.headers.update(POLL)
    return await at.work(lambda: _one(at, store, file_id))


@router.post("/files/{file_id}")
async def change(store_id: str, file_id: str, asked: FileChange, at: At) -> dict[str, Any]:
    """Give a file other attributes. They are the record's metadata, the same in every store."""
    store, said = at.stores.get(store_id), checked_attributes(asked.attributes)
    record = await at.work(lambda: _held(at, store, file_id))
    await at.write(lambda: at.stores.describe(record, said))
    return await at.work(lambda: _one(at, store, file_id))


@router.delete("/files/{file_id}")
async def delete(store_id: str, file_id: str, at: At) -> dict[str, Any]:
    """Take a file out of a store; the memory's own store forgets it."""
    store = at.stores.get(store_id)
    await at.work(lambda: _one(at, store, file_id))
    await at.write(lambda: at.stores.remove(store, file_id))
    return {"id": file_id, "object": "vector_store.file.deleted", "deleted": True}


@router.get("/files/{file_id}/content")
async def content(store_id: str, file_id: str, at: At) -> dict[str, Any]:
    """The text of a file: what it says, and what is said of it."""
    store = at.stores.get(store_id)
    record = await at.work(lambda: _held(at, store, file_id))
    texts = dict.fromkeys(part.text for part in record.parts if part.text)
    return {
        "object": "vector_store.file_content.page",
        "file_id": file_id,
        "filename": filename(at, record),
        "attributes": finite(attributes_of(record)),
        "data": [{"type": "text", "text": text} for text in texts],
        "has_more": False,
        "next_page": None,
    }


@router.post("/file_batches")
async def create_batch(store_id: str, asked: BatchIn, at: At) -> dict[str, Any]:
    """Begin to remember several files; what was begun goes on after a restart."""
    store = at.stores.get(store_id)
    given = {one: checked_attributes(said) for one, said in asked.attached.items()}
    job = await at.work(lambda: at.stores.attach(store, given))
    return await at.work(lambda: _batch_json(at, store, job))


@router.get("/file_batches/{batch_id}")
async def read_batch(store_id: str, batch_id: str, at: At, response: Response) -> dict[str, Any]:
    """How far a batch is."""
    store = at.stores.get(store_id)
    response.headers.update(POLL)
    return await at.work(lambda: _batch_json(at, store, _batch(at, store, batch_id)))


@router.get("/file_batches/{batch_id}/files")
async def list_batch(
    store_id: str, batch_id: str, at: At, limit: Limit = 20, order: Order = "desc", after: Cursor = None,
    before: Cursor = None, status: Annotated[StoreFileStatus | None, Query(alias="filter")] = None,
) -> dict[str, Any]:  # fmt: skip
    """The files of a batch."""
    store = at.stores.get(store_id)

    def read() -> dict[str, Any]:
        every = _entries(at, store, _batch(at, store, batch_id))
        ids = [one for one, entry in every.items() if status in (None, entry.status)]
        chosen, more = pagination.page(ids, limit, order, after, before)
        return pagination.listed(_several(at, store, {one: every[one] for one in chosen}), more)

    return await at.work(read)


@router.post("/file_batches/{batch_id}/cancel")
async def cancel_batch(store_id: str, batch_id: str, at: At) -> dict[str, Any]:
    """Stop a batch after the file that it is at; what is remembered stays."""
    store = at.stores.get(store_id)
    job = _batch(at, store, batch_id)
    await at.work(lambda: at.jobs.cancel(job))
    return await at.work(lambda: _batch_json(at, store, job))


def _one(at: Service, store: VectorStore, file_id: str) -> dict[str, Any]:
    found = _several(at, store, {file_id: None})
    if not found:
        raise not_found("file", file_id)
    return found[0]


def _several(at: Service, store: VectorStore, wanted: Mapping[str, Entry | None]) -> list[dict[str, Any]]:
    """Files of a store as clients read them; those that are not in it are left out."""
    found, records = at.stores.some(store, list(wanted))
    entries = {one: found.get(one) or known for one, known in wanted.items()}
    return [_file_json(at, store, one, e, records.get(one)) for one, e in entries.items() if e]


def _held(at: Service, store: VectorStore, file_id: str) -> Record:
    found, records = at.stores.some(store, [file_id])
    if file_id in records:
        return records[file_id]
    if file_id in found:
        raise ApiError(400, f"the file {file_id!r} is {found[file_id].status}", code="file_not_completed")
    raise not_found("file", file_id)


def _file_json(
    at: Service, store: VectorStore, file_id: str, entry: Entry, record: Record | None
) -> dict[str, Any]:
    return {
        "id": file_id,
        "object": "vector_store.file",
        "created_at": entry.created_at,
        "vector_store_id": store.id,
        "status": entry.status,
        "last_error": entry.error,
        "usage_bytes": size_of(record, at.settings.memory) if record else 0,
        "attributes": finite(attributes_of(record)) if record else {},
        "chunking_strategy": {"type": "other"},
        "record_id": record.id if record else None,
    }


def _batch(at: Service, store: VectorStore, batch_id: str) -> Job:
    job = at.jobs.jobs.get("job-" + batch_id.removeprefix(BATCH)) if batch_id.startswith(BATCH) else None
    if job is None or job.kind != KIND or job.note["store"] != store.id:
        raise not_found("file batch", batch_id)
    return job


def _entries(at: Service, store: VectorStore, job: Job) -> dict[str, Entry]:
    """The files of a batch; of one that was taken out of the store since, no more is known than that."""
    ids = list(job.note["files"])
    found, _ = at.stores.some(store, ids)
    return {one: found.get(one) or entry_of(job) for one in ids}


def _batch_json(at: Service, store: VectorStore, job: Job) -> dict[str, Any]:
    counts = counted([entry.status for entry in _entries(at, store, job).values()])
    states = {"completed": "completed", "failed": "failed", "stopped": "cancelled"}
    return {
        "id": BATCH + job.id.removeprefix("job-"),
        "object": "vector_store.files_batch",
        "created_at": int(job.created),
        "vector_store_id": store.id,
        "status": states.get(job.state, "in_progress"),
        "file_counts": counts,
    }
