"""OpenAI's vector store file endpoints: files attached one by one or in batches, remembered by jobs."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from typing import Annotated, Any

from fastapi import APIRouter, Query, Response

from harmonia.collection.json_output import finite
from harmonia.server.errors import ApiError, not_found
from harmonia.server.jobs import ENDED, Job
from harmonia.server.openai import pagination
from harmonia.server.openai.attributes import attributes_of, checked_attributes, size_of
from harmonia.server.openai.pagination import PageDep
from harmonia.server.openai.routes.vector_stores import VectorStoresDep, counted, filename
from harmonia.server.openai.schemas.vector_stores import (
    AttachFileRequest,
    FileBatchRequest,
    StoreFileStatus,
    UpdateFileRequest,
)
from harmonia.server.openai.vector_stores import (
    StoreFile,
    VectorStore,
    VectorStores,
    store_file_of,
)
from harmonia.server.service import ServiceDep
from harmonia.types import Record

router = APIRouter(prefix="/v1/vector_stores/{store_id}", tags=["openai"])

ATTACH_SECONDS, POLL_SECONDS = 1.0, 0.02
"""Seconds for which attaching waits for a file to complete, and between two checks."""
POLL_HEADERS = {"openai-poll-after-ms": "250"}
"""Tells a polling client when to ask again."""
BATCH = "vsfb_"


@router.post("/files")
async def attach(
    store_id: str, body: AttachFileRequest, service: ServiceDep, stores: VectorStoresDep
) -> dict[str, Any]:
    """Attach an uploaded file to a store; a large file is remembered in the background."""
    store = stores.get(store_id)
    attributes = {body.file_id: checked_attributes(body.attributes)}
    job = await service.work(lambda: stores.attach(store, attributes))
    for _ in range(int(ATTACH_SECONDS / POLL_SECONDS)):
        if job.state in ENDED:
            break
        await asyncio.sleep(POLL_SECONDS)
    return await service.work(lambda: _read_file(stores, store, body.file_id))


@router.get("/files")
async def list_files(
    store_id: str,
    service: ServiceDep,
    stores: VectorStoresDep,
    wanted: PageDep,
    status: Annotated[StoreFileStatus | None, Query(alias="filter")] = None,
) -> dict[str, Any]:
    """List the files of a store, newest first."""
    store = stores.get(store_id)

    def read() -> dict[str, Any]:
        files = stores.entries(store)
        ids = [file_id for file_id, file in files.items() if status in (None, file.status)]
        chosen, more = wanted.of(ids)
        return pagination.list_json(
            _read_files(stores, store, {file_id: files[file_id] for file_id in chosen}), more
        )

    return await service.work(read)


@router.get("/files/{file_id}")
async def read(
    store_id: str, file_id: str, service: ServiceDep, stores: VectorStoresDep, response: Response
) -> dict[str, Any]:
    """Read the status of one file of a store."""
    store = stores.get(store_id)
    response.headers.update(POLL_HEADERS)
    return await service.work(lambda: _read_file(stores, store, file_id))


@router.post("/files/{file_id}")
async def change(
    store_id: str, file_id: str, body: UpdateFileRequest, service: ServiceDep, stores: VectorStoresDep
) -> dict[str, Any]:
    """Replace the attributes of a file. They are the metadata of its record, shared by all stores."""
    store, attributes = stores.get(store_id), checked_attributes(body.attributes)
    record = await service.work(lambda: _find_record(stores, store, file_id))
    await service.write(lambda: stores.describe(record, attributes))
    return await service.work(lambda: _read_file(stores, store, file_id))


@router.delete("/files/{file_id}")
async def delete(store_id: str, file_id: str, service: ServiceDep, stores: VectorStoresDep) -> dict[str, Any]:
    """Remove a file from a store; removal from the memory's own store forgets the record."""
    store = stores.get(store_id)
    await service.work(lambda: _read_file(stores, store, file_id))
    await service.write(lambda: stores.remove(store, file_id))
    return {"id": file_id, "object": "vector_store.file.deleted", "deleted": True}


@router.get("/files/{file_id}/content")
async def content(
    store_id: str, file_id: str, service: ServiceDep, stores: VectorStoresDep
) -> dict[str, Any]:
    """Read the texts of a file's record."""
    store = stores.get(store_id)
    record = await service.work(lambda: _find_record(stores, store, file_id))
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
    store_id: str, body: FileBatchRequest, service: ServiceDep, stores: VectorStoresDep
) -> dict[str, Any]:
    """Attach several files in one background job, which survives a restart."""
    store = stores.get(store_id)
    attributes = {one: checked_attributes(said) for one, said in body.attached.items()}
    job = await service.work(lambda: stores.attach(store, attributes))
    return await service.work(lambda: _batch_json(stores, store, job))


@router.get("/file_batches/{batch_id}")
async def read_batch(
    store_id: str, batch_id: str, service: ServiceDep, stores: VectorStoresDep, response: Response
) -> dict[str, Any]:
    """Read the status of a batch."""
    store = stores.get(store_id)
    response.headers.update(POLL_HEADERS)
    return await service.work(lambda: _batch_json(stores, store, _batch(stores, store, batch_id)))


@router.get("/file_batches/{batch_id}/files")
async def list_batch(
    store_id: str,
    batch_id: str,
    service: ServiceDep,
    stores: VectorStoresDep,
    wanted: PageDep,
    status: Annotated[StoreFileStatus | None, Query(alias="filter")] = None,
) -> dict[str, Any]:
    """List the files of a batch."""
    store = stores.get(store_id)

    def read() -> dict[str, Any]:
        files = _batch_files(stores, store, _batch(stores, store, batch_id))
        ids = [file_id for file_id, file in files.items() if status in (None, file.status)]
        chosen, more = wanted.of(ids)
        return pagination.list_json(
            _read_files(stores, store, {file_id: files[file_id] for file_id in chosen}), more
        )

    return await service.work(read)


@router.post("/file_batches/{batch_id}/cancel")
async def cancel_batch(
    store_id: str, batch_id: str, service: ServiceDep, stores: VectorStoresDep
) -> dict[str, Any]:
    """Cancel a batch after its current file; files remembered so far stay."""
    store = stores.get(store_id)
    job = _batch(stores, store, batch_id)
    await service.work(lambda: stores.jobs.cancel(job))
    return await service.work(lambda: _batch_json(stores, store, job))


def _read_file(stores: VectorStores, store: VectorStore, file_id: str) -> dict[str, Any]:
    found = _read_files(stores, store, {file_id: None})
    if not found:
        raise not_found("file", file_id)
    return found[0]


def _read_files(
    stores: VectorStores, store: VectorStore, wanted: Mapping[str, StoreFile | None]
) -> list[dict[str, Any]]:
    """Files of a store in OpenAI's format; files that are not in the store are left out."""
    found, records = stores.select(store, list(wanted))
    files = {file_id: found.get(file_id) or file for file_id, file in wanted.items()}
    return [
        _file_json(stores, store, file_id, file, records.get(file_id))
        for file_id, file in files.items()
        if file
    ]


def _find_record(stores: VectorStores, store: VectorStore, file_id: str) -> Record:
    found, records = stores.select(store, [file_id])
    if file_id in records:
        return records[file_id]
    if file_id in found:
        raise ApiError(400, f"the file {file_id!r} is {found[file_id].status}", code="file_not_completed")
    raise not_found("file", file_id)


def _file_json(
    stores: VectorStores, store: VectorStore, file_id: str, file: StoreFile, record: Record | None
) -> dict[str, Any]:
    return {
        "id": file_id,
        "object": "vector_store.file",
        "created_at": file.created_at,
        "vector_store_id": store.id,
        "status": file.status,
        "last_error": file.error,
        "usage_bytes": size_of(record, stores.open_memory().root) if record else 0,
        "attributes": finite(attributes_of(record)) if record else {},
        "chunking_strategy": {"type": "other"},
        "record_id": record.id if record else None,
    }


def _batch(stores: VectorStores, store: VectorStore, batch_id: str) -> Job:
    for job in stores.jobs_of(store):
        if batch_id == _batch_id(job):
            return job
    raise not_found("file batch", batch_id)


def _batch_id(job: Job) -> str:
    return BATCH + job.id.removeprefix("job-")


def _batch_files(stores: VectorStores, store: VectorStore, job: Job) -> dict[str, StoreFile]:
    """The files of a batch; a file removed from the store since takes the status of the job."""
    ids = list(job.note["files"])
    found, _ = stores.select(store, ids)
    return {file_id: found.get(file_id) or store_file_of(job) for file_id in ids}


def _batch_json(stores: VectorStores, store: VectorStore, job: Job) -> dict[str, Any]:
    counts = counted([file.status for file in _batch_files(stores, store, job).values()])
    states = {"completed": "completed", "failed": "failed", "stopped": "cancelled"}
    return {
        "id": _batch_id(job),
        "object": "vector_store.files_batch",
        "created_at": int(job.created),
        "vector_store_id": store.id,
        "status": states.get(job.state, "in_progress"),
        "file_counts": counts,
    }
