"""OpenAI's responses endpoints: conversations answered from the memory."""

from __future__ import annotations

import base64
import time
import uuid
from collections.abc import AsyncIterator, Iterator
from typing import Annotated, Any

from fastapi import APIRouter, Query, Request
from fastapi.responses import JSONResponse, Response

from harmonia.server.errors import ApiError
from harmonia.server.openai import pagination
from harmonia.server.openai.messages import (
    NOTHING_ASKED,
    Attachment,
    Reply,
    Turn,
    answer,
    check_model,
    count_input_words,
)
from harmonia.server.openai.pagination import PageDep
from harmonia.server.openai.response_store import ResponseStore
from harmonia.server.openai.schemas.chat import EchoedPart
from harmonia.server.openai.schemas.responses import (
    AssistantMessage,
    InputFile,
    InputImage,
    InputSound,
    ResponseMessage,
    ResponseRequest,
    WordsPart,
)
from harmonia.server.schemas.errors import NO_MODEL
from harmonia.server.service import ServiceDep, key_of
from harmonia.server.sse import (
    STREAM,
    cancel_on_disconnect,
    count_words,
    event,
    split_words,
    stream,
    truncate,
)

MESSAGE = (ResponseMessage, AssistantMessage)
"""The items of an input that say something."""

router = APIRouter(prefix="/v1/responses", tags=["openai"], responses=NO_MODEL)


@router.post("", responses=STREAM)
async def create(body: ResponseRequest, request: Request, service: ServiceDep) -> Response:
    """Answer the last message of the user, with the ids of the records used."""
    check_model(body.model)
    body.refuse_unsupported()
    store, caller = _response_store(request), request.state.key.name
    new_turns = [_turn(item, f"input.{i}") for i, item in enumerate(body.input) if isinstance(item, MESSAGE)]
    previous = body.previous_response_id
    turns = [*(store.get(caller, previous, "previous_response_id").turns if previous else ()), *new_turns]
    all_turns = turns + ([Turn("developer", body.instructions)] if body.instructions else [])
    reply = NOTHING_ASKED
    if body.input:
        pending = answer(service, body.model, new_turns, key=key_of(request), param="input")
        reply = await cancel_on_disconnect(request, pending)
    text, cut = truncate(reply.text, body.max_output_tokens)
    started = _started(body)
    finished = started | _finished(reply, text, cut, count_input_words(all_turns))
    if body.store is not False:
        items = [_item_json(item) for item in body.input if isinstance(item, MESSAGE)]
        store.keep(caller, finished, [*turns, Turn("assistant", text)], items)
    if body.stream:
        return stream(_numbered(_events(started, finished)))
    return JSONResponse(finished)


@router.get("/{response_id}", responses=STREAM)
async def retrieve(
    response_id: str,
    request: Request,
    stream_: Annotated[bool, Query(alias="stream")] = False,
    starting_after: Annotated[int | None, Query(ge=0)] = None,
) -> Response:
    """Read a stored response; with ``stream`` its events again, those after number ``starting_after``."""
    response = _response_store(request).get(request.state.key.name, response_id).response
    if not stream_:
        return JSONResponse(response)
    started = {**response, "status": "in_progress", "output": [], "usage": None, "incomplete_details": None}
    return stream(_numbered(_events(started, response), -1 if starting_after is None else starting_after))


@router.get("/{response_id}/input_items")
async def list_input_items(
    response_id: str,
    request: Request,
    wanted: PageDep,
) -> dict[str, Any]:
    """List the input of a stored response: its messages, without the bytes of media."""
    items = {
        one["id"]: one for one in _response_store(request).get(request.state.key.name, response_id).items
    }
    ids, more = wanted.of(list(items))
    return pagination.list_json([items[item_id] for item_id in ids], more)


@router.delete("/{response_id}")
async def delete(response_id: str, request: Request) -> dict[str, Any]:
    """Delete a stored response."""
    _response_store(request).forget(request.state.key.name, response_id)
    return {"id": response_id, "object": "response", "deleted": True}


@router.post("/{response_id}/cancel")
async def cancel(response_id: str, request: Request) -> dict[str, Any]:
    """Always refuses: no response runs in the background."""
    _response_store(request).get(request.state.key.name, response_id)
    raise ApiError(
        400, "only background responses can be cancelled, and this is not one", param="response_id"
    )


def _response_store(request: Request) -> ResponseStore:
    """The response store of this app."""
    state = request.app.state
    if not hasattr(state, "responses"):
        state.responses = ResponseStore()
    store: ResponseStore = state.responses
    return store


def _turn(message: ResponseMessage | AssistantMessage, param: str) -> Turn:
    texts, media = [], []
    for i, part in enumerate(message.content):
        place = f"{param}.content.{i}"
        if isinstance(part, WordsPart | EchoedPart):
            texts.append(part.text or "")
        elif isinstance(part, InputSound):
            media.append(Attachment(part.input_audio.data, "audio", f"{place}.input_audio.data"))
        elif isinstance(part, InputImage | InputFile):
            media.append(_attached(part, place))
    return Turn(message.role, "\n".join(texts), media)


def _attached(part: InputImage | InputFile, place: str) -> Attachment:
    """The attachment of a part, from the first source field that is set."""
    for name in ("file_id", "image_url", "file_data", "file_url"):
        if source := getattr(part, name, None):
            return Attachment(source, "image" if isinstance(part, InputImage) else "", f"{place}.{name}")
    raise ApiError(400, f"{place} has no file_id, URL or data", param=place)


def _started(body: ResponseRequest) -> dict[str, Any]:
    return {
        "id": f"resp_{uuid.uuid4().hex}", "object": "response", "created_at": int(time.time()),
        "status": "in_progress", "error": None, "incomplete_details": None, "model": body.model,
        "instructions": body.instructions, "max_output_tokens": body.max_output_tokens,
        "previous_response_id": body.previous_response_id, "metadata": body.metadata or {},
        "store": body.store is not False, "output": [], "parallel_tool_calls": False, "tool_choice": "none",
        "tools": [], "temperature": None, "top_p": None, "truncation": "disabled", "background": False,
        "text": {"format": {"type": "text"}}, "usage": None,
    }  # fmt: skip


def _finished(reply: Reply, text: str, cut: bool, input_words: int) -> dict[str, Any]:
    """The final fields of a response. Usage counts words as tokens."""
    status, output_words = "incomplete" if cut else "completed", count_words(text)
    message = {
        "id": f"msg_{uuid.uuid4().hex}", "type": "message", "role": "assistant", "status": status,
        "content": [{"type": "output_text", "text": text, "annotations": [], "logprobs": []}],
        "harmonia": reply.harmonia(),
    }  # fmt: skip
    pictures = [
        {"id": f"ig_{uuid.uuid4().hex}", "type": "image_generation_call", "status": "completed",
         "result": base64.b64encode(picture).decode(), "output_format": "png"}
        for picture in reply.pictures
    ]  # fmt: skip
    return {
        "status": status, "output": [*pictures, message], "completed_at": None if cut else int(time.time()),
        "incomplete_details": {"reason": "max_output_tokens"} if cut else None,
        "usage": {
            "input_tokens": input_words, "output_tokens": output_words,
            "total_tokens": input_words + output_words,
            "input_tokens_details": {"cached_tokens": 0, "cache_write_tokens": 0},
            "output_tokens_details": {"reasoning_tokens": 0},
        },
    }  # fmt: skip


def _item_json(message: ResponseMessage | AssistantMessage) -> dict[str, Any]:
    """A message of the input, as it is listed; media that came as bytes are told without them."""
    content = []
    for part in message.content:
        shown = part.model_dump(exclude_none=True)
        for name in ("image_url", "file_data", "file_url"):
            if name in shown and not shown[name].lower().startswith(("http://", "https://")):
                del shown[name]
        if isinstance(part, InputSound):
            shown["input_audio"] = {"data": "", "format": part.input_audio.format or "wav"}
        if part.type == "output_text":
            shown |= {"annotations": [], "logprobs": []}
        content.append({"detail": "auto", **shown} if isinstance(part, InputImage) else shown)
    item_id = message.id or f"msg_{uuid.uuid4().hex}"
    facts = {"type": "message", "role": message.role, "status": "completed", "content": content}
    return {"id": item_id, **facts}


async def _numbered(events: Iterator[dict[str, Any]], after: int = -1) -> AsyncIterator[str]:
    for number, item in enumerate(events):
        if number <= after:
            continue
        yield event({**item, "sequence_number": number}, item["type"])


def _events(started: dict[str, Any], finished: dict[str, Any]) -> Iterator[dict[str, Any]]:
    """The stream events of a response, in OpenAI's order."""
    yield {"type": "response.created", "response": started}
    yield {"type": "response.in_progress", "response": started}
    for index, item in enumerate(finished["output"]):
        if item["type"] == "message":
            yield from _message_events(index, item)
        else:
            yield from _picture_events(index, item)
    yield {"type": f"response.{finished['status']}", "response": finished}


def _picture_events(index: int, item: dict[str, Any]) -> Iterator[dict[str, Any]]:
    place = {"output_index": index, "item_id": item["id"]}
    started = {**item, "status": "in_progress", "result": None}
    yield {"type": "response.output_item.added", "output_index": index, "item": started}
    yield {"type": "response.image_generation_call.completed", **place}
    yield {"type": "response.output_item.done", "output_index": index, "item": item}


def _message_events(index: int, item: dict[str, Any]) -> Iterator[dict[str, Any]]:
    (part,) = item["content"]
    place = {"output_index": index, "item_id": item["id"], "content_index": 0}
    started = {**item, "status": "in_progress", "content": []}
    yield {"type": "response.output_item.added", "output_index": index, "item": started}
    yield {"type": "response.content_part.added", **place, "part": {**part, "text": ""}}
    for word in split_words(part["text"]):
        yield {"type": "response.output_text.delta", **place, "delta": word, "logprobs": []}
    yield {"type": "response.output_text.done", **place, "text": part["text"], "logprobs": []}
    yield {"type": "response.content_part.done", **place, "part": part}
    yield {"type": "response.output_item.done", "output_index": index, "item": item}
