"""Imagine: pictures of what cues bring back, marked as generated."""

from __future__ import annotations

import base64
from collections.abc import Mapping
from dataclasses import replace
from typing import Annotated, Any

from fastapi import APIRouter, Depends, Request

from harmonia.collection.cues import Query
from harmonia.server.errors import ApiError
from harmonia.server.forms import FormRoute, attached, documented
from harmonia.server.image_requests import EVIDENCE, file_of, painted, planned, recalled
from harmonia.server.queries import query_of
from harmonia.server.schemas.errors import LACKS
from harmonia.server.schemas.memory import ImagineRequest
from harmonia.server.service import Service, admin_of, service
from harmonia.server.sse import while_there
from harmonia.tasks.imagine import GenerationRequest
from harmonia.tasks.sampling import Sampling

router = APIRouter(prefix="/v1/memory", tags=["memory"], responses=LACKS)

At = Annotated[Service, Depends(service)]


async def imagine_form(request: Request, at: At) -> dict[str, Any]:
    """Pictures from media that are files of a form."""
    asked, files = await attached(request, ImagineRequest)
    return await while_there(request, _imagine(at, asked, files, admin_of(request)))


router.add_api_route(
    "/imagine", imagine_form, methods=["POST"], route_class_override=FormRoute, include_in_schema=False
)


@router.post("/imagine", openapi_extra=documented(ImagineRequest))
async def imagine(asked: ImagineRequest, request: Request, at: At) -> dict[str, Any]:
    """PNG pictures, each of which says in its metadata that it was generated, and the records behind them."""
    return await while_there(request, _imagine(at, asked, {}, admin_of(request)))


async def _imagine(
    at: Service, asked: ImagineRequest, files: Mapping[str, bytes], admin: bool
) -> dict[str, Any]:
    await at.work(at.generator)  # that there is none is said first
    query, options = await query_of(at, asked, files, admin=admin, leave_out=False)
    options = replace(options, k=EVIDENCE)
    found = None
    if asked.from_memory is not False:
        found = await recalled(at, query, options, must=bool(asked.from_memory))
    sampling = Sampling(asked.n, asked.steps, asked.guidance, asked.seed)
    given = _given(query, asked.from_memory)
    plan = await planned(at, given, sampling, found=found, from_memory=asked.from_memory)
    drawn = await painted(at, plan)
    pictures = await at.work(lambda: [base64.b64encode(file_of(one, plan.mark)).decode() for one in drawn])
    return {
        "object": "memory.imagination", "generated": True, "model": plan.mark.generator, "how": plan.wish.how,
        "data": [{"b64_json": one, "seed": asked.seed, "index": i} for i, one in enumerate(pictures)],
        "evidence": _evidence(plan.wish),
    }  # fmt: skip


def _given(query: Query, from_memory: bool | None) -> dict[str, Any]:
    """The cues by modality; a record's codes stand for themselves in what the memory answers."""
    words = " ".join(item.value for item in query if isinstance(item.value, str))
    given: dict[str, Any] = {"text": words} if words else {}
    for item in query:
        if isinstance(item.value, bytes):
            given.setdefault(item.modality, []).append(item.value)
    if not given and from_memory is not True:
        raise ApiError(400, "a record is drawn from the memory: leave from_memory true", param="from_memory")
    return given or {"record": "a record"}


def _evidence(wish: GenerationRequest) -> list[dict[str, Any]]:
    if wish.found is None:
        return []
    return [{"record": one.record.id, "probability": one.probability} for one in wish.found.records]
