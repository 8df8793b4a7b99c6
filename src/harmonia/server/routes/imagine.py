"""Imagine: generated images conditioned on what cues recall."""

from __future__ import annotations

import base64
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from fastapi import APIRouter, Request

from harmonia.collection.cues import Query
from harmonia.server.errors import ApiError
from harmonia.server.forms import add_query_route
from harmonia.server.image_requests import (
    EVIDENCE,
    draw_plan,
    encode_picture,
    make_plan,
    name_of,
    recall_for_picture,
)
from harmonia.server.keys import Key
from harmonia.server.queries import query_of
from harmonia.server.schemas.errors import NO_MODEL
from harmonia.server.schemas.memory import ImagineRequest
from harmonia.server.service import Service, key_of
from harmonia.server.sse import cancel_on_disconnect
from harmonia.tasks.sampling import Sampling
from harmonia.types import Recollection

router = APIRouter(prefix="/v1/memory", tags=["memory"], responses=NO_MODEL)


async def imagine(
    service: Service, body: ImagineRequest, files: Mapping[str, bytes], request: Request
) -> dict[str, Any]:
    """Generate PNG images, marked as generated in their metadata, and list the records used."""
    return await cancel_on_disconnect(request, _imagine(service, body, files, key_of(request)))


add_query_route(router, "/imagine", ImagineRequest, imagine)


async def _imagine(
    service: Service, body: ImagineRequest, files: Mapping[str, bytes], key: Key
) -> dict[str, Any]:
    saved = await service.work(service.generator)  # fail early without a generator
    query, options = await query_of(service, body, files, key=key, leave_out=False)
    options = replace(options, k=EVIDENCE)
    recollection = None
    if body.from_memory is not False:
        recollection = await recall_for_picture(service, query, options, must=bool(body.from_memory))
    if body.from_memory and recollection is not None and (recollection.abstained or not recollection.records):
        return _imagination(name_of(saved), "nothing that is remembered matches", [], body.seed, None)
    sampling = Sampling(body.n, body.steps, body.guidance, body.seed)
    cues = _cues_by_modality(query, body.from_memory)
    plan = await make_plan(service, cues, sampling, found=recollection, from_memory=body.from_memory)
    signals = await draw_plan(service, plan)
    pictures = await service.work(
        lambda: [base64.b64encode(encode_picture(picture, plan.mark)).decode() for picture in signals]
    )
    return _imagination(plan.mark.generator, plan.request.how, pictures, body.seed, plan.request.found)


def _imagination(
    model: str, how: str, pictures: Sequence[str], seed: int, found: Recollection | None
) -> dict[str, Any]:
    """An answer; without pictures it abstains: they should be of a memory, and none matches."""
    records = found.records if found else ()
    return {
        "object": "memory.imagination", "generated": True, "model": model, "how": how,
        "abstained": not pictures,
        "data": [{"b64_json": picture, "seed": seed, "index": i} for i, picture in enumerate(pictures)],
        "evidence": [{"record": one.record.id, "probability": one.probability} for one in records],
    }  # fmt: skip


def _cues_by_modality(query: Query, from_memory: bool | None) -> dict[str, Any]:
    """The cues by modality; record cues act through the recollection only."""
    words = " ".join(item.value for item in query if isinstance(item.value, str))
    cues: dict[str, Any] = {"text": words} if words else {}
    for item in query:
        if isinstance(item.value, bytes):
            cues.setdefault(item.modality, []).append(item.value)
    if not cues and from_memory is not True:
        raise ApiError(400, "a record cue needs from_memory true", param="from_memory")
    return cues or {"record": "a record"}
