"""Recall: the whole from a part; and the picture of a settling."""

from __future__ import annotations

import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from fastapi import APIRouter, Request
from fastapi.responses import Response

from harmonia.collection.collection import Collection
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
    """A recall with media as files of a form."""
    asked, files = await read_form(request, RecallRequest)
    return await _recall(service, asked, files, request)


router.add_api_route(
    "/recall", recall_form, methods=["POST"], route_class_override=FormRoute, include_in_schema=False
)


@router.post("/recall", openapi_extra=form_openapi(RecallRequest))
async def recall(asked: RecallRequest, request: Request, service: ServiceDep) -> dict[str, Any]:
    """The most probable records for all the cues together, with the certificate of the settling."""
    return await _recall(service, asked, {}, request)


async def _recall(
    service: Service, asked: RecallRequest, files: Mapping[str, bytes], request: Request
) -> dict[str, Any]:
    query, options = await query_of(service, asked, files, admin=admin_of(request))
    found = await service.recall(query, options)
    return recollection_json(found, view_of(request), explain=asked.explain)


async def retrieve_form(request: Request, service: ServiceDep) -> dict[str, Any]:
    """A plain search with media as files of a form."""
    asked, files = await read_form(request, RetrieveRequest)
    return await _retrieve(service, asked, files, request)


router.add_api_route(
    "/retrieve", retrieve_form, methods=["POST"], route_class_override=FormRoute, include_in_schema=False
)


@router.post("/retrieve", openapi_extra=form_openapi(RetrieveRequest))
async def retrieve(asked: RetrieveRequest, request: Request, service: ServiceDep) -> dict[str, Any]:
    """Plain nearest-neighbour search over the same codes, to compare recall with."""
    return await _retrieve(service, asked, {}, request)


async def _retrieve(
    service: Service, asked: RetrieveRequest, files: Mapping[str, bytes], request: Request
) -> dict[str, Any]:
    query, options = await query_of(service, asked, files, admin=admin_of(request))
    query = await service.work(lambda: decode(query, service.settings.limits))
    found = await service.ask(
        lambda: service.collection.retrieve_by(query, where=options.where, k=asked.k, metric=asked.metric)
    )
    return neighbours_json(found, view_of(request))


async def answer_form(request: Request, service: ServiceDep) -> dict[str, Any]:
    """An answer with media as files of a form."""
    asked, files = await read_form(request, RecallRequest)
    return await _answer(service, asked, files, request)


router.add_api_route(
    "/answer", answer_form, methods=["POST"], route_class_override=FormRoute, include_in_schema=False
)


@router.post("/answer", openapi_extra=form_openapi(RecallRequest))
async def answer(asked: RecallRequest, request: Request, service: ServiceDep) -> dict[str, Any]:
    """What the memory says, in sentences made from the records that it recalls, and the recollection."""
    return await _answer(service, asked, {}, request)


async def _answer(
    service: Service, asked: RecallRequest, files: Mapping[str, bytes], request: Request
) -> dict[str, Any]:
    query, options = await query_of(service, asked, files, admin=admin_of(request))
    found = await service.recall(query, options)
    return answer_json(Answer(answer_text(found), found), view_of(request))


async def landscape_form(request: Request, service: ServiceDep) -> Response:
    """A landscape with media as files of a form."""
    asked, files = await read_form(request, SettleRequest)
    return await _landscape(service, asked, files, request)


router.add_api_route(
    "/landscape", landscape_form, methods=["POST"], route_class_override=FormRoute, include_in_schema=False
)


@router.post(
    "/landscape", openapi_extra=form_openapi(SettleRequest), response_class=Response, responses=PICTURE  # type: ignore[arg-type]
)  # fmt: skip
async def landscape(asked: SettleRequest, request: Request, service: ServiceDep) -> Response:
    """A PNG of the energy around the first cue, its path, and the memories nearest to it."""
    return await _landscape(service, asked, {}, request)


async def _landscape(
    service: Service, asked: SettleRequest, files: Mapping[str, bytes], request: Request
) -> Response:
    query, _ = await query_of(service, asked, files, admin=admin_of(request))
    query = await service.work(lambda: decode(query, service.settings.limits))

    def draw(collection: Collection) -> bytes:
        from harmonia.tasks.energy_plot import draw_landscape

        cues = encode(collection.encoders, [query])[0]
        with tempfile.TemporaryDirectory() as folder:
            file = Path(folder) / "landscape.png"
            draw_landscape(collection, cues, file, beta=asked.beta, steps=asked.steps)
            return file.read_bytes()

    return Response(await service.study(draw), media_type="image/png")
