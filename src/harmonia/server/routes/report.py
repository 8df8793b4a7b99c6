"""The memory report: what it can hold and where it goes wrong; and its status."""

from __future__ import annotations

from typing import Any

from fastapi import APIRouter

from harmonia.collection.collection import Collection
from harmonia.collection.json_output import finite
from harmonia.server.service import ServiceDep
from harmonia.tasks.report import report, report_json

router = APIRouter(prefix="/v1/memory", tags=["memory"])

SHOWN = ("records", "parts", "files", "columns", "index", "version", "table_bytes", "media_bytes")


@router.get("/report")
async def memory_report(service: ServiceDep) -> dict[str, Any]:
    """Room, hubs and false memories of each encoder's codes; computed once for each state of the memory."""

    def make(collection: Collection) -> dict[str, Any]:
        version = collection.store.version()[:2]
        if service.report[0] != version:
            service.report = version, finite(report_json(report(collection)))
        return service.report[1]

    return {"object": "memory.report", **await service.study(make)}


@router.get("/status")
async def status(service: ServiceDep) -> dict[str, Any]:
    """How many records and parts there are, what can be filtered on, and which encoders made the codes."""

    def read() -> dict[str, Any]:
        if not service.collection.exists:
            return {"records": 0, "parts": {}, "columns": [], "encoders": []}
        held = service.collection.store.status()
        encoders = [{"name": e.name, "modality": e.modality, "dim": e.dim} for e in held["encoders"]]
        return {key: held[key] for key in SHOWN} | {"encoders": encoders}

    return {"object": "memory.status", **await service.work(read)}
