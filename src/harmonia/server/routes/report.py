"""The memory report (capacity, hubs, spurious attractors), and the status."""

from __future__ import annotations

from collections import Counter
from typing import Any

from fastapi import APIRouter, Request

from harmonia.collection.collection import Memory
from harmonia.collection.json_output import PRIVATE, finite
from harmonia.server.keys import Key
from harmonia.server.service import Service, ServiceDep, check_unbound, key_of
from harmonia.store.values import row_of
from harmonia.tasks.report import report, report_json

router = APIRouter(prefix="/v1/memory", tags=["memory"])

SHOWN = ("records", "parts", "files", "columns", "index", "version", "table_bytes", "media_bytes")


@router.get("/report")
async def memory_report(request: Request, service: ServiceDep) -> dict[str, Any]:
    """Capacity, hubs and spurious attractors per encoder; computed once per state of the memory."""
    check_unbound(request, "a report of the whole memory")

    def make(collection: Memory) -> dict[str, Any]:
        version = collection.store.version()[:2]
        if service.report[0] != version:
            service.report = version, finite(report_json(report(collection)))
        return service.report[1]

    return {"object": "memory.report", **await service.study(make)}


@router.get("/status")
async def status(request: Request, service: ServiceDep) -> dict[str, Any]:
    """The number of records and parts, the filterable columns, and the encoders.

    A key of a namespace gets the counts and columns of its own records.
    """
    key = key_of(request)

    def read() -> dict[str, Any]:
        if not service.collection.exists:
            return {"records": 0, "parts": {}, "columns": [], "encoders": []}
        store = service.collection.store
        encoders = [{"name": e.name, "modality": e.modality, "dim": e.dim} for e in store.encoders]
        if key.namespace is not None:
            return _counts(service, key) | {"encoders": encoders}
        found = store.status()
        return {name: found[name] for name in SHOWN} | {"encoders": encoders}

    return {"object": "memory.status", **await service.work(read)}


def _counts(service: Service, key: Key) -> dict[str, Any]:
    """The counts and the columns of the records that the caller may see."""
    records = service.collection.store.records(where=key.records)
    columns = {column for record in records for column in row_of(record.metadata)}
    return {
        "records": len(records),
        "parts": dict(Counter(part.modality for record in records for part in record.parts)),
        "columns": sorted(columns - set(PRIVATE)),
    }
