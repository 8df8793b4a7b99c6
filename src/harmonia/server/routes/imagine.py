"""Imagine: pictures of what cues bring back, marked as generated."""

from __future__ import annotations

import base64
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from fastapi import APIRouter, Request

from harmonia.collection.cues import Query
from harmonia.server.errors import ApiError
from harmonia.server.forms import FormRoute, form_openapi, read_form
from harmonia.server.image_requests import EVIDENCE, draw_plan, encode_picture, make_plan, recall_for_picture
from harmonia.server.queries import query_of
from harmonia.server.schemas.errors import LACKS
from harmonia.server.schemas.memory import ImagineRequest
from harmonia.server.service import Service, ServiceDep, admin_of
from harmonia.server.sse import cancel_on_disconnect
from harmonia.tasks.imagine import GenerationRequest
from harmonia.tasks.sampling import Sampling

router = APIRouter(prefix="/v1/memory", tags=["memory"], responses=LACKS)


async def imagine_form(request: Request, service: ServiceDep) -> dict[str, Any]:
    """Pictures from media that are files of a form."""
    asked, files = await read_form(request, ImagineRequest)
    return await cancel_on_disconnect(request, _imagine(service, asked, files, admin_of(request)))


router.add_api_route(
    "/imagine", imagine_form, methods=["POST"], route_class_override=FormRoute, include_in_schema=False
)


@router.post("/imagine", openapi_extra=form_openapi(ImagineRequest))
async def imagine(asked: ImagineRequest, request: Request, service: ServiceDep) -> dict[str, Any]:
    """PNG pictures, each of which says in its metadata that it was generated, and the records behind them."""
    return await cancel_on_disconnect(request, _imagine(service, asked, {}, admin_of(request)))


async def _imagine(
    service: Service, asked: ImagineRequest, files: Mapping[str, bytes], admin: bool
) -> dict[str, Any]:
    await service.work(service.generator)  # that there is none is said first
    query, options = await query_of(service, asked, files, admin=admin, leave_out=False)
    options = replace(options, k=EVIDENCE)
    found = None
    if asked.from_memory is not False:
        found = await recall_for_picture(service, query, options, must=bool(asked.from_memory))
    sampling = Sampling(asked.n, asked.steps, asked.guidance, asked.seed)
    given = _given(query, asked.from_memory)
    plan = await make_plan(service, given, sampling, found=found, from_memory=asked.from_memory)
    drawn = await draw_plan(service, plan)
    pictures = await service.work(
        lambda: [base64.b64encode(encode_picture(one, plan.mark)).decode() for one in drawn]
    )
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
