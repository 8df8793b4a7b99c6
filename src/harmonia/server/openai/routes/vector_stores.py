"""OpenAI's vector stores endpoints: the memory and its subsets, searched by recall."""

from __future__ import annotations

from typing import Annotated, Any

from fastapi import APIRouter, Depends, Request

from harmonia.collection.cues import QueryItem, RecallOptions
from harmonia.collection.json_output import SERVED, finite, part_json
from harmonia.server import filters
from harmonia.server.keys import Key
from harmonia.server.namespaces import PerNamespace
from harmonia.server.openai import pagination
from harmonia.server.openai.attributes import attributes_of
from harmonia.server.openai.pagination import PageDep
from harmonia.server.openai.schemas.vector_stores import (
    CreateStoreRequest,
    Ranking,
    SearchRequest,
    UpdateStoreRequest,
)
from harmonia.server.openai.vector_stores import VectorStore, VectorStores
from harmonia.server.service import Service, ServiceDep, key_of
from harmonia.server.uploaded_files import file_id
from harmonia.server.uploaded_records import checked_metadata
from harmonia.store import Where
from harmonia.types import HarmoniaError, Recalled, Recollection, Record

router = APIRouter(prefix="/v1/vector_stores", tags=["openai"])


async def get_vector_stores(request: Request) -> VectorStores:
    """The vector stores of the caller's namespace (``Depends(get_vector_stores)``)."""
    stores: PerNamespace[VectorStores] = request.app.state.vector_stores
    return stores.of(key_of(request).namespace)


VectorStoresDep = Annotated[VectorStores, Depends(get_vector_stores)]
"""The parameter type by which a route gets the vector stores."""


@router.post("")
async def create(body: CreateStoreRequest, service: ServiceDep, stores: VectorStoresDep) -> dict[str, Any]:
    """Create a vector store, optionally with files uploaded before."""
    name = body.name or "unnamed"
    attributes: dict[str, dict[str, Any]] = {uploaded: {} for uploaded in body.file_ids}
    for uploaded in attributes:
        stores.files.get(uploaded)
    metadata = checked_metadata(body.metadata or {})
    days = body.expires_after.days if body.expires_after else None
    store = await service.work(lambda: stores.create(name, body.description, metadata, days))
    if attributes:
        await service.work(lambda: stores.attach(store, attributes))
    return await service.work(lambda: store_json(stores, store))


@router.get("")
async def list_stores(
    service: ServiceDep,
    stores: VectorStoresDep,
    wanted: PageDep,
) -> dict[str, Any]:
    """List the vector stores, newest first; the memory's own store is the oldest."""
    ids, more = wanted.of([store.id for store in stores.all()])
    data = await service.work(lambda: [store_json(stores, stores.get(store_id)) for store_id in ids])
    return pagination.list_json(data, more)


@router.get("/{store_id}")
async def read(store_id: str, service: ServiceDep, stores: VectorStoresDep) -> dict[str, Any]:
    """Read one vector store, with the number of its files by status."""
    store = stores.get(store_id)
    return await service.work(lambda: store_json(stores, store))


@router.post("/{store_id}")
async def change(
    store_id: str, body: UpdateStoreRequest, service: ServiceDep, stores: VectorStoresDep
) -> dict[str, Any]:
    """Change the name, the metadata or the expiry of a vector store."""
    store = stores.get(store_id)
    metadata = None if body.metadata is None else checked_metadata(body.metadata)
    days = body.expires_after.days if body.expires_after else None
    await service.work(lambda: stores.change(store, body.name, metadata, days))
    return await service.work(lambda: store_json(stores, store))


@router.delete("/{store_id}")
async def delete(store_id: str, service: ServiceDep, stores: VectorStoresDep) -> dict[str, Any]:
    """Delete a vector store; its records stay in the memory."""
    store = stores.get(store_id)
    await service.write(lambda: stores.delete(store))
    return {"id": store_id, "object": "vector_store.deleted", "deleted": True}


@router.post("/{store_id}/search")
async def search(
    store_id: str, body: SearchRequest, request: Request, service: ServiceDep, stores: VectorStoresDep
) -> dict[str, Any]:
    """Recall records of a vector store by a query, most probable first.

    ``score`` is the posterior probability of the record among all records of the store and "nothing".
    """
    ranking = body.ranking_options or Ranking()
    await service.work(lambda: stores.used(stores.get(store_id)))
    recollection = await recall_in_store(service, stores, stores.get(store_id), body, key=key_of(request))
    results = (
        [recalled for recalled in recollection.records if recalled.probability >= ranking.score_threshold]
        if recollection
        else []
    )
    return {
        "object": "vector_store.search_results.page",
        "search_query": body.query,
        "data": [result_json(stores, recalled) for recalled in results],
        "has_more": False,
        "next_page": None,
        "abstained": recollection is None or recollection.abstained,
    }


async def recall_in_store(
    service: Service, stores: VectorStores, store: VectorStore, body: SearchRequest, *, key: Key
) -> Recollection | None:
    """Recall among the records of a store; None if no record passes the filters."""
    query = [QueryItem(f"query {i}", "text", words) for i, words in enumerate(body.query, 1)]
    where = filters.condition_of(None, body.filters, stores.condition(store), key=key)
    try:
        return await service.recall(query, RecallOptions(k=body.max_num_results, where=where))
    except HarmoniaError:
        if await service.work(lambda: _empty(stores, store, where)):
            return None
        raise


def _empty(stores: VectorStores, store: VectorStore, where: Where | None) -> bool:
    return not stores.members(store) or not stores.open_memory().store.created(where)


def result_json(stores: VectorStores, recalled: Recalled) -> dict[str, Any]:
    """A search result in OpenAI's format, with the extensions ``record_id`` and ``media``."""
    parts = recalled.moment or recalled.record.parts
    texts = [part.text for part in parts if part.text] or [p.text for p in recalled.record.parts if p.text]
    return {
        "file_id": file_id(recalled.record.id),
        "filename": filename(stores, recalled.record),
        "score": min(1.0, max(0.0, recalled.probability)),
        "attributes": finite(attributes_of(recalled.record)),
        "content": [{"type": "text", "text": text} for text in dict.fromkeys(texts)],
        "record_id": recalled.record.id,
        "media": list(dict.fromkeys(url for part in parts if (url := part_json(part, SERVED)["media"]))),
    }


def filename(stores: VectorStores, record: Record) -> str:
    """The file name of a record: that of the upload, else the name in its metadata."""
    file = stores.files.find(file_id(record.id))
    name = file.filename if file else record.metadata.get("name")
    return name if isinstance(name, str) and name else record.id


def store_json(stores: VectorStores, store: VectorStore) -> dict[str, Any]:
    """A vector store in OpenAI's format."""
    counts = counted([entry.status for entry in stores.entries(store).values()])
    expires = store.expires_days is not None
    return {
        "id": store.id,
        "object": "vector_store",
        "created_at": store.created_at,
        "name": store.name,
        "description": store.description,
        "usage_bytes": stores.usage_bytes(store),
        "file_counts": counts,
        "status": _status(store, counts),
        "expires_after": {"anchor": "last_active_at", "days": store.expires_days} if expires else None,
        "expires_at": store.expires_at,
        "last_active_at": store.last_active_at,
        "metadata": store.metadata,
    }


def _status(store: VectorStore, counts: dict[str, int]) -> str:
    if store.expired:
        return "expired"
    return "in_progress" if counts["in_progress"] else "completed"


def counted(statuses: list[str]) -> dict[str, int]:
    """The number of files by status, and in total."""
    kinds = ("in_progress", "completed", "failed", "cancelled")
    return {kind: statuses.count(kind) for kind in kinds} | {"total": len(statuses)}
