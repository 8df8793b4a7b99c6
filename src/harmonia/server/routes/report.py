"""The memory report (capacity, hubs, spurious attractors), and the status."""

from __future__ import annotations

from typing import Any

from fastapi import APIRouter

from harmonia.collection.collection import Memory
from harmonia.collection.json_output import finite
from harmonia.server.service import ServiceDep
from harmonia.tasks.report import report, report_json

router = APIRouter(prefix="/v1/memory", tags=["memory"])

SHOWN = ("records", "parts", "files", "columns", "index", "version", "table_bytes", "media_bytes")


@router.get("/report")
async def memory_report(service: ServiceDep) -> dict[str, Any]:
    """Capacity, hubs and spurious attractors per encoder; computed once per state of the memory."""

    def make(collection: Memory) -> dict[str, Any]:
        version = collection.store.version()[:2]
        if service.report[0] != version:
            service.report = version, finite(report_json(report(collection)))
        return service.report[1]

    return {"object": "memory.report", **await service.study(make)}


@router.get("/status")
async def status(service: ServiceDep) -> dict[str, Any]:
    """The number of records and parts, the filterable columns, and the encoders."""

    def read() -> dict[str, Any]:
        if not service.collection.exists:
            return {"records": 0, "parts": {}, "columns": [], "encoders": []}
        store_status = service.collection.store.status()
        encoders = [{"name": e.name, "modality": e.modality, "dim": e.dim} for e in store_status["encoders"]]
        return {key: store_status[key] for key in SHOWN} | {"encoders": encoders}

    return {"object": "memory.status", **await service.work(read)}
