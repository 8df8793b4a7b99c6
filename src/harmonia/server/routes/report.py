"""The memory report: what it can hold and where it goes wrong; and its status."""

from __future__ import annotations

from typing import Annotated, Any

from fastapi import APIRouter, Depends

from harmonia.collection.collection import Collection
from harmonia.collection.json_output import finite
from harmonia.server.service import Service, service
from harmonia.tasks.report import report, report_json

router = APIRouter(prefix="/v1/memory", tags=["memory"])

At = Annotated[Service, Depends(service)]
SHOWN = ("records", "parts", "files", "columns", "index", "version", "table_bytes", "media_bytes")


@router.get("/report")
async def memory_report(at: At) -> dict[str, Any]:
    """Room, hubs and false memories of each encoder's codes; computed once for each state of the memory."""

    def make(collection: Collection) -> dict[str, Any]:
        version = collection.store.version()[:2]
        if at.report[0] != version:
            at.report = version, finite(report_json(report(collection)))
        return at.report[1]

    return {"object": "memory.report", **await at.study(make)}


@router.get("/status")
async def status(at: At) -> dict[str, Any]:
    """How many records and parts there are, what can be filtered on, and which encoders made the codes."""

    def read() -> dict[str, Any]:
        if not at.collection.exists:
            return {"records": 0, "parts": {}, "columns": [], "encoders": []}
        held = at.collection.store.status()
        encoders = [{"name": e.name, "modality": e.modality, "dim": e.dim} for e in held["encoders"]]
        return {key: held[key] for key in SHOWN} | {"encoders": encoders}

    return {"object": "memory.status", **await at.work(read)}
