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
from harmonia.server.forms import add_query_route
from harmonia.server.queries import query_of
from harmonia.server.schemas.memory import RecallRequest, RetrieveRequest, SettleRequest
from harmonia.server.service import Service, check_unbound, key_of, view_of
from harmonia.types import Neighbour

router = APIRouter(prefix="/v1/memory", tags=["memory"])

PICTURE = {200: {"content": {"image/png": {"schema": {"type": "string", "format": "binary"}}}}}


async def recall(
    service: Service, body: RecallRequest, files: Mapping[str, bytes], request: Request
) -> dict[str, Any]:
    """Recall the most probable records given all cues, with the certificate."""
    query, options = await query_of(service, body, files, key=key_of(request))
    recollection = await service.recall(query, options)
    return recollection_json(recollection, view_of(request), explain=body.explain)


async def retrieve(
    service: Service, body: RetrieveRequest, files: Mapping[str, bytes], request: Request
) -> dict[str, Any]:
    """Plain nearest-neighbour search over the same codes, as a baseline."""
    query, options = await query_of(service, body, files, key=key_of(request))
    query = await service.work(lambda: decode(query, service.settings.limits))

    def search() -> tuple[Neighbour, ...]:
        if not service.collection.exists:
            return ()
        return service.collection.retrieve_by(query, where=options.where, k=body.k, metric=body.metric)

    neighbours = await service.ask(search)
    return neighbours_json(neighbours, view_of(request))


async def answer(
    service: Service, body: RecallRequest, files: Mapping[str, bytes], request: Request
) -> dict[str, Any]:
    """Answer in sentences composed from the recalled records, with the recollection."""
    query, options = await query_of(service, body, files, key=key_of(request))
    recollection = await service.recall(query, options)
    return answer_json(Answer(answer_text(recollection), recollection), view_of(request))


async def landscape(
    service: Service, body: SettleRequest, files: Mapping[str, bytes], request: Request
) -> Response:
    """A PNG of the energy around the first cue, its retrieval path, and the nearest records."""
    check_unbound(request, "a plot of the whole memory")
    query, _ = await query_of(service, body, files, key=key_of(request))
    query = await service.work(lambda: decode(query, service.settings.limits))

    def draw(collection: Memory) -> bytes:
        from harmonia.tasks.energy_plot import draw_landscape

        cues = encode(collection.encoders, [query])[0]
        with tempfile.TemporaryDirectory() as folder:
            file = Path(folder) / "landscape.png"
            draw_landscape(collection, cues, file, beta=body.beta, steps=body.steps)
            return file.read_bytes()

    return Response(await service.study(draw), media_type="image/png")


add_query_route(router, "/recall", RecallRequest, recall)
add_query_route(router, "/retrieve", RetrieveRequest, retrieve)
add_query_route(router, "/answer", RecallRequest, answer)
add_query_route(router, "/landscape", SettleRequest, landscape, response_class=Response, responses=PICTURE)
