"""ResponseStore: OpenAI's newer conversation, answered by what is remembered."""

from __future__ import annotations

import base64
import time
import uuid
from collections.abc import AsyncIterator, Iterator
from typing import Any

from fastapi import APIRouter, Request
from fastapi.responses import JSONResponse, Response

from harmonia.server.errors import ApiError
from harmonia.server.openai.messages import Attachment, Reply, Turn, answer, check_model, count_input_words
from harmonia.server.openai.response_store import ResponseStore
from harmonia.server.openai.schemas.responses import (
    InputFile,
    InputImage,
    InputSound,
    ResponseMessage,
    ResponseRequest,
    WordsPart,
)
from harmonia.server.schemas.errors import LACKS
from harmonia.server.service import ServiceDep
from harmonia.server.sse import (
    STREAM,
    cancel_on_disconnect,
    count_words,
    event,
    split_words,
    stream,
    truncate,
)

router = APIRouter(prefix="/v1/responses", tags=["openai"], responses=LACKS)


@router.post("", responses=STREAM)
async def create(asked: ResponseRequest, request: Request, service: ServiceDep) -> Response:
    """The answer to the last message of the user, with the ids of the records behind it."""
    check_model(asked.model)
    asked.refuse_unsupported()
    kept, caller = _kept(request), request.state.key.name
    given = [
        _turn(item, f"input.{i}") for i, item in enumerate(asked.input) if isinstance(item, ResponseMessage)
    ]
    before = asked.previous_response_id
    turns = [*(kept.get(caller, before, "previous_response_id").turns if before else ()), *given]
    spoken = turns + ([Turn("developer", asked.instructions)] if asked.instructions else [])
    found = await cancel_on_disconnect(request, answer(service, asked.model, given, param="input"))
    text, cut = truncate(found.text, asked.max_output_tokens)
    response = _begun(asked)
    ended = response | _ended(found, text, cut, count_input_words(spoken))
    if asked.store is not False:
        kept.keep(caller, ended, [*turns, Turn("assistant", text)])
    if asked.stream:
        return stream(_numbered(_events(response, ended)))
    return JSONResponse(ended)


@router.get("/{response_id}")
async def retrieve(response_id: str, request: Request) -> dict[str, Any]:
    """A response that is still kept."""
    return _kept(request).get(request.state.key.name, response_id).response


@router.delete("/{response_id}")
async def delete(response_id: str, request: Request) -> dict[str, Any]:
    """Forget a response."""
    _kept(request).forget(request.state.key.name, response_id)
    return {"id": response_id, "object": "response", "deleted": True}


@router.post("/{response_id}/cancel")
async def cancel(response_id: str, request: Request) -> dict[str, Any]:
    """Nothing runs in the background, so that there is nothing to cancel."""
    _kept(request).get(request.state.key.name, response_id)
    raise ApiError(400, "only responses in the background can be cancelled, and none is", param="response_id")


def _kept(request: Request) -> ResponseStore:
    """What this app keeps."""
    state = request.app.state
    if not hasattr(state, "responses"):
        state.responses = ResponseStore()
    found: ResponseStore = state.responses
    return found


def _turn(message: ResponseMessage, param: str) -> Turn:
    said, media = [], []
    for i, part in enumerate(message.content):
        place = f"{param}.content.{i}"
        if isinstance(part, WordsPart):
            said.append(part.text)
        elif isinstance(part, InputSound):
            media.append(Attachment(part.input_audio.data, "audio", f"{place}.input_audio.data"))
        elif isinstance(part, InputImage | InputFile):
            media.append(_attached(part, place))
    return Turn(message.role, "\n".join(said), media)


def _attached(part: InputImage | InputFile, place: str) -> Attachment:
    """The first of the ways to give a file that is there."""
    for name in ("file_id", "image_url", "file_data", "file_url"):
        if given := getattr(part, name, None):
            return Attachment(given, "image" if isinstance(part, InputImage) else "", f"{place}.{name}")
    raise ApiError(400, f"{place} has nothing to recall by", param=place)


def _begun(asked: ResponseRequest) -> dict[str, Any]:
    return {
        "id": f"resp_{uuid.uuid4().hex}", "object": "response", "created_at": int(time.time()),
        "status": "in_progress", "error": None, "incomplete_details": None, "model": asked.model,
        "instructions": asked.instructions, "max_output_tokens": asked.max_output_tokens,
        "previous_response_id": asked.previous_response_id, "metadata": asked.metadata or {},
        "store": asked.store is not False, "output": [], "parallel_tool_calls": False, "tool_choice": "none",
        "tools": [], "temperature": None, "top_p": None, "truncation": "disabled", "background": False,
        "text": {"format": {"type": "text"}}, "usage": None,
    }  # fmt: skip


def _ended(found: Reply, text: str, cut: bool, asked: int) -> dict[str, Any]:
    """What a response has at its end. A token of the usage is a word."""
    status, said = "incomplete" if cut else "completed", count_words(text)
    message = {
        "id": f"msg_{uuid.uuid4().hex}", "type": "message", "role": "assistant", "status": status,
        "content": [{"type": "output_text", "text": text, "annotations": [], "logprobs": []}],
        "harmonia": found.harmonia(),
    }  # fmt: skip
    drawn = [
        {"id": f"ig_{uuid.uuid4().hex}", "type": "image_generation_call", "status": "completed",
         "result": base64.b64encode(one).decode(), "output_format": "png"}
        for one in found.pictures
    ]  # fmt: skip
    return {
        "status": status, "output": [*drawn, message], "completed_at": None if cut else int(time.time()),
        "incomplete_details": {"reason": "max_output_tokens"} if cut else None,
        "usage": {
            "input_tokens": asked, "output_tokens": said, "total_tokens": asked + said,
            "input_tokens_details": {"cached_tokens": 0, "cache_write_tokens": 0},
            "output_tokens_details": {"reasoning_tokens": 0},
        },
    }  # fmt: skip


async def _numbered(events: Iterator[dict[str, Any]]) -> AsyncIterator[str]:
    for number, one in enumerate(events):
        yield event({**one, "sequence_number": number}, one["type"])


def _events(begun: dict[str, Any], ended: dict[str, Any]) -> Iterator[dict[str, Any]]:
    """A response as it would come to be, in OpenAI's order."""
    yield {"type": "response.created", "response": begun}
    yield {"type": "response.in_progress", "response": begun}
    for index, item in enumerate(ended["output"]):
        if item["type"] == "message":
            yield from _message_events(index, item)
        else:
            yield from _picture_events(index, item)
    yield {"type": f"response.{ended['status']}", "response": ended}


def _picture_events(index: int, item: dict[str, Any]) -> Iterator[dict[str, Any]]:
    place = {"output_index": index, "item_id": item["id"]}
    begun = {**item, "status": "in_progress", "result": None}
    yield {"type": "response.output_item.added", "output_index": index, "item": begun}
    yield {"type": "response.image_generation_call.completed", **place}
    yield {"type": "response.output_item.done", "output_index": index, "item": item}


def _message_events(index: int, item: dict[str, Any]) -> Iterator[dict[str, Any]]:
    (part,) = item["content"]
    place = {"output_index": index, "item_id": item["id"], "content_index": 0}
    begun = {**item, "status": "in_progress", "content": []}
    yield {"type": "response.output_item.added", "output_index": index, "item": begun}
    yield {"type": "response.content_part.added", **place, "part": {**part, "text": ""}}
    for word in split_words(part["text"]):
        yield {"type": "response.output_text.delta", **place, "delta": word, "logprobs": []}
    yield {"type": "response.output_text.done", **place, "text": part["text"], "logprobs": []}
    yield {"type": "response.content_part.done", **place, "part": part}
    yield {"type": "response.output_item.done", "output_index": index, "item": item}
