"""Recall: the whole from a part; and the picture of a settling."""

from __future__ import annotations

import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any

from fastapi import APIRouter, Depends, Request
from fastapi.responses import Response

from harmonia.collection.collection import Collection
from harmonia.collection.cues import encode_heard, hear
from harmonia.collection.recall import Options
from harmonia.server.forms import FormRoute, attached, documented
from harmonia.server.json_output import recollection_json
from harmonia.server.queries import query_of
from harmonia.server.schemas.memory import RecallIn, Settling
from harmonia.server.service import Service, admin_of, service

router = APIRouter(prefix="/v1/memory", tags=["memory"])

PICTURE = {200: {"content": {"image/png": {"schema": {"type": "string", "format": "binary"}}}}}


async def recall_form(request: Request, at: Annotated[Service, Depends(service)]) -> dict[str, Any]:
    """A recall with media as files of a form."""
    asked, files = await attached(request, RecallIn)
    return await _recall(at, asked, files, admin_of(request))


router.add_api_route(
    "/recall", recall_form, methods=["POST"], route_class_override=FormRoute, include_in_schema=False
)


@router.post("/recall", openapi_extra=documented(RecallIn))
async def recall(
    asked: RecallIn, request: Request, at: Annotated[Service, Depends(service)]
) -> dict[str, Any]:
    """The most probable records for all the cues together, with the certificate of the settling."""
    return await _recall(at, asked, {}, admin_of(request))


async def _recall(at: Service, asked: RecallIn, files: Mapping[str, bytes], admin: bool) -> dict[str, Any]:
    query, where = await query_of(at, asked, files, admin=admin)
    options = Options(asked.k, asked.steps, asked.alpha, asked.beta, asked.noise)
    found = await at.recall(query, options, where)
    return recollection_json(found, admin=admin, explain=asked.explain)


async def landscape_form(request: Request, at: Annotated[Service, Depends(service)]) -> Response:
    """A landscape with media as files of a form."""
    asked, files = await attached(request, Settling)
    return await _landscape(at, asked, files, admin_of(request))


router.add_api_route(
    "/landscape", landscape_form, methods=["POST"], route_class_override=FormRoute, include_in_schema=False
)


@router.post(
    "/landscape", openapi_extra=documented(Settling), response_class=Response, responses=PICTURE  # type: ignore[arg-type]
)  # fmt: skip
async def landscape(asked: Settling, request: Request, at: Annotated[Service, Depends(service)]) -> Response:
    """A PNG of the energy around the first cue, its path, and the memories nearest to it."""
    return await _landscape(at, asked, {}, admin_of(request))


async def _landscape(at: Service, asked: Settling, files: Mapping[str, bytes], admin: bool) -> Response:
    query, _ = await query_of(at, asked, files, admin=admin)
    heard = await at.work(lambda: hear(query, at.settings.limits))

    def draw(collection: Collection) -> bytes:
        from harmonia.tasks.energy_plot import draw_landscape

        cues = encode_heard(collection.agreed(), [heard])[0]
        with tempfile.TemporaryDirectory() as folder:
            file = Path(folder) / "landscape.png"
            draw_landscape(collection, cues, file, beta=asked.beta, steps=asked.steps)
            return file.read_bytes()

    return Response(await at.study(draw), media_type="image/png")
