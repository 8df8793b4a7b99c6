"""The timeline: how many records each month has."""

from __future__ import annotations

from typing import Any

from fastapi import APIRouter, Request

from harmonia.collection.dates import by_date
from harmonia.server import filters
from harmonia.server.routes.records import FiltersParam, Order, WhereParam, parse_filters
from harmonia.server.service import ServiceDep, key_of

router = APIRouter(prefix="/v1/memory", tags=["memory"])


@router.get("/timeline")
async def timeline(
    request: Request,
    service: ServiceDep,
    order: Order = "desc",
    where: WhereParam = None,
    filters_: FiltersParam = None,
) -> dict[str, Any]:
    """Count records by the month of their date: when they were taken, else modified, else added.

    ``after`` is the cursor with which a list of records, sorted by date in the same order, begins at that
    month; null for the first.
    """
    condition = filters.condition_of(where, parse_filters(filters_), key=key_of(request))

    def read() -> list[dict[str, Any]]:
        if not service.collection.exists:
            return []
        store = service.collection.store
        dates = service.dates.of(store)
        months: list[dict[str, Any]] = []
        before = None
        for one in by_date(store.created(condition), dates, newest_first=order == "desc"):
            month = dates[one][:7]
            if not months or months[-1]["month"] != month:
                months.append({"month": month, "count": 0, "after": before})
            months[-1]["count"] += 1
            before = one
        return months

    return {"object": "memory.timeline", "data": await service.work(read)}
