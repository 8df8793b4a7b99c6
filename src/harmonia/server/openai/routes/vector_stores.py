"""OpenAI's vector stores: the memory and subsets of it, searched by recall."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from fastapi import APIRouter, Depends, Query, Request

from harmonia.collection.cues import QueryItem, RecallOptions
from harmonia.collection.json_output import SERVED, finite, part_json
from harmonia.server import filters
from harmonia.server.openai import pagination
from harmonia.server.openai.attributes import attributes_of
from harmonia.server.openai.schemas.vector_stores import Ranking, SearchIn, StoreChange, StoreIn
from harmonia.server.openai.vector_stores import VectorStore
from harmonia.server.service import Service, admin_of, service
from harmonia.server.uploaded_files import file_id
from harmonia.server.uploaded_records import checked_metadata
from harmonia.store import Where
from harmonia.types import HarmoniaError, Recalled, Recollection, Record

router = APIRouter(prefix="/v1/vector_stores", tags=["openai"])

At = Annotated[Service, Depends(service)]
Limit = Annotated[int, Query(ge=1, le=100)]
Cursor = Annotated[str | None, Query(max_length=100)]


@router.post("")
async def create(asked: StoreIn, at: At) -> dict[str, Any]:
    """A new subset of the memory, with files that were uploaded before."""
    name = asked.name or "unnamed"
    given: dict[str, dict[str, Any]] = {one: {} for one in asked.file_ids}
    for one in given:
        at.files.get(one)
    metadata = checked_metadata(asked.metadata or {})
    store = await at.work(lambda: at.stores.create(name, asked.description, metadata))
    if given:
        await at.work(lambda: at.stores.attach(store, given))
    return await at.work(lambda: store_json(at, store))


@router.get("")
async def list_stores(
    at: At, limit: Limit = 20, order: Literal["asc", "desc"] = "desc", after: Cursor = None,
    before: Cursor = None,
) -> dict[str, Any]:  # fmt: skip
    """Stores, newest first; the memory itself is the oldest."""
    ids, more = pagination.page([store.id for store in at.stores.all()], limit, order, after, before)
    data = await at.work(lambda: [store_json(at, at.stores.get(one)) for one in ids])
    return pagination.listed(data, more)


@router.get("/{store_id}")
async def read(store_id: str, at: At) -> dict[str, Any]:
    """One store: how many files it has, and how far they are."""
    store = at.stores.get(store_id)
    return await at.work(lambda: store_json(at, store))


@router.post("/{store_id}")
async def change(store_id: str, asked: StoreChange, at: At) -> dict[str, Any]:
    """Give a store another name, or other metadata."""
    store = at.stores.get(store_id)
    metadata = None if asked.metadata is None else checked_metadata(asked.metadata)
    await at.work(lambda: at.stores.change(store, asked.name, metadata))
    return await at.work(lambda: store_json(at, store))


@router.delete("/{store_id}")
async def delete(store_id: str, at: At) -> dict[str, Any]:
    """Delete a store. What is in it stays in the memory."""
    store = at.stores.get(store_id)
    await at.write(lambda: at.stores.delete(store))
    return {"id": store_id, "object": "vector_store.deleted", "deleted": True}


@router.post("/{store_id}/search")
async def search(store_id: str, asked: SearchIn, request: Request, at: At) -> dict[str, Any]:
    """The records of a store that the memory recalls by the query, the most probable first.

    ``score`` is the probability that the record is meant, among all of the store's and "nothing".
    """
    ranking = asked.ranking_options or Ranking()
    found = await recalled(at, at.stores.get(store_id), asked, admin=admin_of(request))
    kept = [one for one in found.records if one.probability >= ranking.score_threshold] if found else []
    return {
        "object": "vector_store.search_results.page",
        "search_query": asked.query,
        "data": [result_json(at, one) for one in kept],
        "has_more": False,
        "next_page": None,
        "abstained": found is None or found.abstained,
    }


async def recalled(at: Service, store: VectorStore, asked: SearchIn, *, admin: bool) -> Recollection | None:
    """What the memory recalls within a store; None if there is nothing that could be."""
    query = [QueryItem(f"query {i}", "text", words) for i, words in enumerate(asked.query, 1)]
    where = filters.condition_of(None, asked.filters, at.stores.condition(store), admin=admin)
    try:
        return await at.recall(query, RecallOptions(k=asked.max_num_results, where=where))
    except HarmoniaError:
        if await at.work(lambda: _empty(at, store, where)):
            return None
        raise


def _empty(at: Service, store: VectorStore, where: Where | None) -> bool:
    return not at.stores.members(store) or not at.writer().store.created(where)


def result_json(at: Service, one: Recalled) -> dict[str, Any]:
    """One result as OpenAI's clients read it; and which record it is, and where its media are."""
    best = one.moment or one.record.parts
    texts = [part.text for part in best if part.text] or [p.text for p in one.record.parts if p.text]
    return {
        "file_id": file_id(one.record.id),
        "filename": filename(at, one.record),
        "score": min(1.0, max(0.0, one.probability)),
        "attributes": finite(attributes_of(one.record)),
        "content": [{"type": "text", "text": text} for text in dict.fromkeys(texts)],
        "record_id": one.record.id,
        "media": list(dict.fromkeys(url for part in best if (url := part_json(part, SERVED)["media"]))),
    }


def filename(at: Service, record: Record) -> str:
    """What a record's file is called: as it was uploaded, or as it was found."""
    file = at.files.find(file_id(record.id))
    name = file.filename if file else record.metadata.get("name")
    return name if isinstance(name, str) and name else record.id


def store_json(at: Service, store: VectorStore) -> dict[str, Any]:
    """A store as OpenAI's clients read it."""
    counts = counted([entry.status for entry in at.stores.entries(store).values()])
    return {
        "id": store.id,
        "object": "vector_store",
        "created_at": store.created_at,
        "name": store.name,
        "description": store.description,
        "usage_bytes": at.stores.usage_bytes(store),
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
