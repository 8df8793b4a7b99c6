"""OpenAI's vector stores: the memory and subsets of it, searched by recall."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from fastapi import APIRouter, Query, Request

from harmonia.collection.cues import QueryItem, RecallOptions
from harmonia.collection.json_output import SERVED, finite, part_json
from harmonia.server import filters
from harmonia.server.openai import pagination
from harmonia.server.openai.attributes import attributes_of
from harmonia.server.openai.schemas.vector_stores import (
    CreateStoreRequest,
    Ranking,
    SearchRequest,
    UpdateStoreRequest,
)
from harmonia.server.openai.vector_stores import VectorStore, VectorStores, VectorStoresDep
from harmonia.server.service import Service, ServiceDep, admin_of
from harmonia.server.uploaded_files import file_id
from harmonia.server.uploaded_records import checked_metadata
from harmonia.store import Where
from harmonia.types import HarmoniaError, Recalled, Recollection, Record

router = APIRouter(prefix="/v1/vector_stores", tags=["openai"])

Limit = Annotated[int, Query(ge=1, le=100)]
Cursor = Annotated[str | None, Query(max_length=100)]


@router.post("")
async def create(asked: CreateStoreRequest, service: ServiceDep, stores: VectorStoresDep) -> dict[str, Any]:
    """A new subset of the memory, with files that were uploaded before."""
    name = asked.name or "unnamed"
    given: dict[str, dict[str, Any]] = {one: {} for one in asked.file_ids}
    for one in given:
        stores.files.get(one)
    metadata = checked_metadata(asked.metadata or {})
    store = await service.work(lambda: stores.create(name, asked.description, metadata))
    if given:
        await service.work(lambda: stores.attach(store, given))
    return await service.work(lambda: store_json(stores, store))


@router.get("")
async def list_stores(
    service: ServiceDep,
    stores: VectorStoresDep,
    limit: Limit = 20,
    order: Literal["asc", "desc"] = "desc",
    after: Cursor = None,
    before: Cursor = None,
) -> dict[str, Any]:
    """VectorStores, newest first; the memory itself is the oldest."""
    ids, more = pagination.page([store.id for store in stores.all()], limit, order, after, before)
    data = await service.work(lambda: [store_json(stores, stores.get(one)) for one in ids])
    return pagination.list_json(data, more)


@router.get("/{store_id}")
async def read(store_id: str, service: ServiceDep, stores: VectorStoresDep) -> dict[str, Any]:
    """One store: how many files it has, and how far they are."""
    store = stores.get(store_id)
    return await service.work(lambda: store_json(stores, store))


@router.post("/{store_id}")
async def change(
    store_id: str, asked: UpdateStoreRequest, service: ServiceDep, stores: VectorStoresDep
) -> dict[str, Any]:
    """Give a store another name, or other metadata."""
    store = stores.get(store_id)
    metadata = None if asked.metadata is None else checked_metadata(asked.metadata)
    await service.work(lambda: stores.change(store, asked.name, metadata))
    return await service.work(lambda: store_json(stores, store))


@router.delete("/{store_id}")
async def delete(store_id: str, service: ServiceDep, stores: VectorStoresDep) -> dict[str, Any]:
    """Delete a store. What is in it stays in the memory."""
    store = stores.get(store_id)
    await service.write(lambda: stores.delete(store))
    return {"id": store_id, "object": "vector_store.deleted", "deleted": True}


@router.post("/{store_id}/search")
async def search(
    store_id: str, asked: SearchRequest, request: Request, service: ServiceDep, stores: VectorStoresDep
) -> dict[str, Any]:
    """The records of a store that the memory recalls by the query, the most probable first.

    ``score`` is the probability that the record is meant, among all of the store's and "nothing".
    """
    ranking = asked.ranking_options or Ranking()
    found = await recall_in_store(service, stores, stores.get(store_id), asked, admin=admin_of(request))
    kept = [one for one in found.records if one.probability >= ranking.score_threshold] if found else []
    return {
        "object": "vector_store.search_results.page",
        "search_query": asked.query,
        "data": [result_json(stores, one) for one in kept],
        "has_more": False,
        "next_page": None,
        "abstained": found is None or found.abstained,
    }


async def recall_in_store(
    service: Service, stores: VectorStores, store: VectorStore, asked: SearchRequest, *, admin: bool
) -> Recollection | None:
    """What the memory recalls within a store; None if there is nothing that could be."""
    query = [QueryItem(f"query {i}", "text", words) for i, words in enumerate(asked.query, 1)]
    where = filters.condition_of(None, asked.filters, stores.condition(store), admin=admin)
    try:
        return await service.recall(query, RecallOptions(k=asked.max_num_results, where=where))
    except HarmoniaError:
        if await service.work(lambda: _empty(stores, store, where)):
            return None
        raise


def _empty(stores: VectorStores, store: VectorStore, where: Where | None) -> bool:
    return not stores.members(store) or not stores.open_memory().store.created(where)


def result_json(stores: VectorStores, one: Recalled) -> dict[str, Any]:
    """One result as OpenAI's clients read it; and which record it is, and where its media are."""
    best = one.moment or one.record.parts
    texts = [part.text for part in best if part.text] or [p.text for p in one.record.parts if p.text]
    return {
        "file_id": file_id(one.record.id),
        "filename": filename(stores, one.record),
        "score": min(1.0, max(0.0, one.probability)),
        "attributes": finite(attributes_of(one.record)),
        "content": [{"type": "text", "text": text} for text in dict.fromkeys(texts)],
        "record_id": one.record.id,
        "media": list(dict.fromkeys(url for part in best if (url := part_json(part, SERVED)["media"]))),
    }


def filename(stores: VectorStores, record: Record) -> str:
    """What a record's file is called: as it was uploaded, or as it was found."""
    file = stores.files.find(file_id(record.id))
    name = file.filename if file else record.metadata.get("name")
    return name if isinstance(name, str) and name else record.id


def store_json(stores: VectorStores, store: VectorStore) -> dict[str, Any]:
    """A store as OpenAI's clients read it."""
    counts = counted([entry.status for entry in stores.entries(store).values()])
    return {
        "id": store.id,
        "object": "vector_store",
        "created_at": store.created_at,
        "name": store.name,
        "description": store.description,
        "usage_bytes": stores.usage_bytes(store),
        "file_counts": counts,
        "status": "in_progress" if counts["in_progress"] else "completed",
        "expires_after": None,
        "expires_at": None,
        "last_active_at": None,
        "metadata": store.metadata,
    }


def counted(statuses: list[str]) -> dict[str, int]:
    """How many files stand how."""
    kinds = ("in_progress", "completed", "failed", "cancelled")
    return {kind: statuses.count(kind) for kind in kinds} | {"total": len(statuses)}
