"""Recall, retrieve, answer, and the energy landscape of a recall."""

from __future__ import annotations

import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from fastapi import APIRouter, Request
from fastapi.responses import Response

from harmonia.collection.collection import Memory
from harmonia.collection.cues import decode, encode
from harmonia.collection.json_output import answer_json, neighbours_json, recollection_json
from harmonia.collection.sentences import Answer, answer_text
from harmonia.server.forms import FormRoute, form_openapi, read_form
from harmonia.server.queries import query_of
from harmonia.server.schemas.memory import RecallRequest, RetrieveRequest, SettleRequest
from harmonia.server.service import Service, ServiceDep, admin_of, view_of

router = APIRouter(prefix="/v1/memory", tags=["memory"])

PICTURE = {200: {"content": {"image/png": {"schema": {"type": "string", "format": "binary"}}}}}


async def recall_form(request: Request, service: ServiceDep) -> dict[str, Any]:
    """Recall with media as files of a form."""
    body, files = await read_form(request, RecallRequest)
    return await _recall(service, body, files, request)


router.add_api_route(
    "/recall", recall_form, methods=["POST"], route_class_override=FormRoute, include_in_schema=False
)


@router.post("/recall", openapi_extra=form_openapi(RecallRequest))
async def recall(body: RecallRequest, request: Request, service: ServiceDep) -> dict[str, Any]:
    """Recall the most probable records given all cues, with the certificate."""
    return await _recall(service, body, {}, request)


async def _recall(
    service: Service, body: RecallRequest, files: Mapping[str, bytes], request: Request
) -> dict[str, Any]:
    query, options = await query_of(service, body, files, admin=admin_of(request))
    recollection = await service.recall(query, options)
    return recollection_json(recollection, view_of(request), explain=body.explain)


async def retrieve_form(request: Request, service: ServiceDep) -> dict[str, Any]:
    """Retrieve with media as files of a form."""
    body, files = await read_form(request, RetrieveRequest)
    return await _retrieve(service, body, files, request)


router.add_api_route(
    "/retrieve", retrieve_form, methods=["POST"], route_class_override=FormRoute, include_in_schema=False
)


@router.post("/retrieve", openapi_extra=form_openapi(RetrieveRequest))
async def retrieve(body: RetrieveRequest, request: Request, service: ServiceDep) -> dict[str, Any]:
    """Plain nearest-neighbour search over the same codes, as a baseline."""
    return await _retrieve(service, body, {}, request)


async def _retrieve(
    service: Service, body: RetrieveRequest, files: Mapping[str, bytes], request: Request
) -> dict[str, Any]:
    query, options = await query_of(service, body, files, admin=admin_of(request))
    query = await service.work(lambda: decode(query, service.settings.limits))
    neighbours = await service.ask(
        lambda: service.collection.retrieve_by(query, where=options.where, k=body.k, metric=body.metric)
    )
    return neighbours_json(neighbours, view_of(request))


async def answer_form(request: Request, service: ServiceDep) -> dict[str, Any]:
    """Answer with media as files of a form."""
    body, files = await read_form(request, RecallRequest)
    return await _answer(service, body, files, request)


router.add_api_route(
    "/answer", answer_form, methods=["POST"], route_class_override=FormRoute, include_in_schema=False
)


@router.post("/answer", openapi_extra=form_openapi(RecallRequest))
async def answer(body: RecallRequest, request: Request, service: ServiceDep) -> dict[str, Any]:
    """Answer in sentences composed from the recalled records, with the recollection."""
    return await _answer(service, body, {}, request)


async def _answer(
    service: Service, body: RecallRequest, files: Mapping[str, bytes], request: Request
) -> dict[str, Any]:
    query, options = await query_of(service, body, files, admin=admin_of(request))
    recollection = await service.recall(query, options)
    return answer_json(Answer(answer_text(recollection), recollection), view_of(request))


async def landscape_form(request: Request, service: ServiceDep) -> Response:
    """The landscape with media as files of a form."""
    body, files = await read_form(request, SettleRequest)
    return await _landscape(service, body, files, request)


router.add_api_route(
    "/landscape", landscape_form, methods=["POST"], route_class_override=FormRoute, include_in_schema=False
)


@router.post(
    "/landscape", openapi_extra=form_openapi(SettleRequest), response_class=Response, responses=PICTURE  # type: ignore[arg-type]
)  # fmt: skip
async def landscape(body: SettleRequest, request: Request, service: ServiceDep) -> Response:
    """A PNG of the energy around the first cue, its retrieval path, and the nearest records."""
    return await _landscape(service, body, {}, request)


async def _landscape(
    service: Service, body: SettleRequest, files: Mapping[str, bytes], request: Request
) -> Response:
    query, _ = await query_of(service, body, files, admin=admin_of(request))
    query = await service.work(lambda: decode(query, service.settings.limits))

    def draw(collection: Memory) -> bytes:
        from harmonia.tasks.energy_plot import draw_landscape

        cues = encode(collection.encoders, [query])[0]
        with tempfile.TemporaryDirectory() as folder:
            file = Path(folder) / "landscape.png"
            draw_landscape(collection, cues, file, beta=body.beta, steps=body.steps)
            return file.read_bytes()

    return Response(await service.study(draw), media_type="image/png")
