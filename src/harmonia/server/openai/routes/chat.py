"""OpenAI's chat completions, answered from the memory."""

from __future__ import annotations

import time
import uuid
from collections.abc import AsyncIterator, Sequence
from typing import Annotated, Any

from fastapi import APIRouter, Query, Request
from fastapi.responses import JSONResponse, Response

from harmonia.server.errors import ApiError
from harmonia.server.openai import pagination
from harmonia.server.openai.messages import (
    Attachment,
    Reply,
    Turn,
    answer,
    check_model,
    count_input_words,
    no_speech,
)
from harmonia.server.openai.pagination import Cursor, Limit, Order
from harmonia.server.openai.response_store import ResponseStore
from harmonia.server.openai.schemas.chat import (
    AudioPart,
    ChatRequest,
    EchoedPart,
    FilePart,
    ImagePart,
    Message,
    TextPart,
    UpdateCompletionRequest,
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

router = APIRouter(prefix="/v1/chat", tags=["openai"], responses=NO_MODEL)


@router.post("/completions", responses=STREAM)
async def completions(body: ChatRequest, request: Request, service: ServiceDep) -> Response:
    """Answer the last message of the user, with the ids of the records used."""
    check_model(body.model)
    if "audio" in (body.modalities or []):
        raise no_speech("modalities")
    body.refuse_unsupported()
    turns = [turn_of(message, f"messages.{i}") for i, message in enumerate(body.messages)]
    pending = answer(
        service, body.model, turns, key=key_of(request), param="messages", n=body.n or 1, seed=body.seed or 0
    )
    reply = await cancel_on_disconnect(request, pending)
    text, cut = truncate(reply.text, body.most, body.stop)
    head = {"id": f"chatcmpl-{uuid.uuid4().hex}", "created": int(time.time()), "model": body.model}
    usage = _usage(count_input_words(turns), count_words(text) * (body.n or 1))
    reason = "length" if cut else "stop"
    choices = [
        {"index": i, "finish_reason": reason, "logprobs": None,
         "message": {"role": "assistant", "content": text, "refusal": None, "harmonia": reply.harmonia(i)}}
        for i in range(body.n or 1)
    ]  # fmt: skip
    finished = {**head, "object": "chat.completion", "choices": choices, "usage": usage}
    if body.store:
        finished["metadata"] = body.metadata or {}
        messages = [_message_json(message, f"{head['id']}-{i}") for i, message in enumerate(body.messages)]
        _completions(request).keep(request.state.key.name, finished, items=messages)
    if body.stream:
        with_usage = body.stream_options is not None and body.stream_options.include_usage
        return stream(_chunks(head, reply, text, reason, body.n or 1, usage if with_usage else None))
    return JSONResponse(finished)


@router.get("/completions")
async def list_completions(
    request: Request,
    limit: Limit = 20,
    order: Order = "asc",
    after: Cursor = None,
    model: Annotated[str | None, Query(max_length=200)] = None,
) -> dict[str, Any]:
    """List the completions that were stored (``store``), by ``model`` and ``metadata[KEY]=VALUE``."""
    wanted = {
        name[len("metadata[") : -1]: value
        for name, value in request.query_params.items()
        if name.startswith("metadata[")
    }
    held = {
        one["id"]: one
        for one in _completions(request).all(request.state.key.name)
        if model in (None, one["model"]) and wanted.items() <= one["metadata"].items()
    }
    ids, more = pagination.page(list(held), limit, order, after)
    return pagination.list_json([held[completion_id] for completion_id in ids], more)


@router.get("/completions/{completion_id}")
async def retrieve(completion_id: str, request: Request) -> dict[str, Any]:
    """Read a stored completion."""
    return _completions(request).get(request.state.key.name, completion_id).response


@router.post("/completions/{completion_id}")
async def change(completion_id: str, body: UpdateCompletionRequest, request: Request) -> dict[str, Any]:
    """Replace the metadata of a stored completion."""
    store, caller = _completions(request), request.state.key.name
    stored = store.get(caller, completion_id)
    changed = {**stored.response, "metadata": body.metadata or {}}
    store.keep(caller, changed, items=stored.items)
    return changed


@router.delete("/completions/{completion_id}")
async def delete(completion_id: str, request: Request) -> dict[str, Any]:
    """Delete a stored completion."""
    _completions(request).forget(request.state.key.name, completion_id)
    return {"id": completion_id, "object": "chat.completion.deleted", "deleted": True}


@router.get("/completions/{completion_id}/messages")
async def list_messages(
    completion_id: str, request: Request, limit: Limit = 20, order: Order = "asc", after: Cursor = None
) -> dict[str, Any]:
    """List the messages that a stored completion answers: their texts, without media."""
    items = _completions(request).get(request.state.key.name, completion_id).items
    messages = {one["id"]: one for one in items}
    ids, more = pagination.page(list(messages), limit, order, after)
    return pagination.list_json([messages[message_id] for message_id in ids], more)


def _completions(request: Request) -> ResponseStore:
    """The stored completions of this app."""
    state = request.app.state
    if not hasattr(state, "completions"):
        state.completions = ResponseStore(what="chat completion")
    store: ResponseStore = state.completions
    return store


def _message_json(message: Message, message_id: str) -> dict[str, Any]:
    texts = [part.text for part in message.content if isinstance(part, TextPart | EchoedPart) and part.text]
    return {
        "id": message_id,
        "role": message.role,
        "content": "\n".join(texts) if message.content else None,
        "refusal": None,
        "content_parts": None,
    }


async def _chunks(
    head: dict[str, Any], reply: Reply, text: str, reason: str, n: int, usage: dict[str, Any] | None
) -> AsyncIterator[str]:
    """Chunks of one word; the last chunk of each choice has the evidence, the final one the usage."""

    def chunk(choices: Sequence[dict[str, Any]], **more: Any) -> str:
        return event({**head, "object": "chat.completion.chunk", "choices": choices, **more})

    def choice(i: int, delta: dict[str, Any], end: str | None = None) -> list[dict[str, Any]]:
        return [{"index": i, "delta": delta, "logprobs": None, "finish_reason": end}]

    for i in range(n):
        yield chunk(choice(i, {"role": "assistant", "content": "", "refusal": None}))
        for word in split_words(text):
            yield chunk(choice(i, {"content": word}))
        evidence = reply.harmonia(i)
        yield chunk(choice(i, {"harmonia": evidence}, reason), harmonia=evidence)
    if usage is not None:
        yield chunk([], usage=usage)
    yield "data: [DONE]\n\n"


def turn_of(message: Message, param: str) -> Turn:
    """A message as a turn; ApiError 400 if a part cannot be read."""
    texts, media = [], []
    for i, part in enumerate(message.content):
        place = f"{param}.content.{i}"
        if isinstance(part, TextPart | EchoedPart):
            texts.append(part.text or "")
        elif isinstance(part, ImagePart):
            media.append(Attachment(part.image_url.url, "image", f"{place}.image_url.url"))
        elif isinstance(part, AudioPart):
            media.append(Attachment(part.input_audio.data, "audio", f"{place}.input_audio.data"))
        elif isinstance(part, FilePart):
            source = part.file.file_id or part.file.file_data
            if source is None:
                raise ApiError(
                    400, f"{place}.file has neither file_data nor file_id", param=f"{place}.file.file_data"
                )
            media.append(
                Attachment(source, "", f"{place}.file.{'file_id' if part.file.file_id else 'file_data'}")
            )
    return Turn(message.role, "\n".join(texts), media)


def _usage(prompt: int, completion: int) -> dict[str, int]:
    """Usage counts words as tokens."""
    return {"prompt_tokens": prompt, "completion_tokens": completion, "total_tokens": prompt + completion}
