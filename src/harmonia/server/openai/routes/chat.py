"""OpenAI's chat completions, answered from the memory."""

from __future__ import annotations

import time
import uuid
from collections.abc import AsyncIterator, Sequence
from typing import Any

from fastapi import APIRouter, Request
from fastapi.responses import JSONResponse, Response

from harmonia.server.errors import ApiError
from harmonia.server.openai.messages import (
    Attachment,
    Reply,
    Turn,
    answer,
    check_model,
    count_input_words,
    no_speech,
)
from harmonia.server.openai.schemas.chat import (
    AudioPart,
    ChatMessage,
    ChatRequest,
    FilePart,
    ImagePart,
    TextPart,
)
from harmonia.server.schemas.errors import NO_MODEL
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

router = APIRouter(prefix="/v1/chat", tags=["openai"], responses=NO_MODEL)


@router.post("/completions", responses=STREAM)
async def completions(body: ChatRequest, request: Request, service: ServiceDep) -> Response:
    """Answer the last message of the user, with the ids of the records used."""
    check_model(body.model)
    if "audio" in (body.modalities or []):
        raise no_speech("modalities")
    body.refuse_unsupported()
    turns = [turn_of(message, f"messages.{i}") for i, message in enumerate(body.messages)]
    pending = answer(service, body.model, turns, param="messages", n=body.n or 1, seed=body.seed or 0)
    reply = await cancel_on_disconnect(request, pending)
    text, cut = truncate(reply.text, body.most, body.stop)
    head = {"id": f"chatcmpl-{uuid.uuid4().hex}", "created": int(time.time()), "model": body.model}
    usage = _usage(count_input_words(turns), count_words(text) * (body.n or 1))
    reason = "length" if cut else "stop"
    if body.stream:
        with_usage = body.stream_options is not None and body.stream_options.include_usage
        return stream(_chunks(head, reply, text, reason, body.n or 1, usage if with_usage else None))
    choices = [
        {"index": i, "finish_reason": reason, "logprobs": None,
         "message": {"role": "assistant", "content": text, "refusal": None, "harmonia": reply.harmonia(i)}}
        for i in range(body.n or 1)
    ]  # fmt: skip
    return JSONResponse({**head, "object": "chat.completion", "choices": choices, "usage": usage})


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


def turn_of(message: ChatMessage, param: str) -> Turn:
    """A message as a turn; ApiError 400 if a part cannot be read."""
    texts, media = [], []
    for i, part in enumerate(message.content):
        place = f"{param}.content.{i}"
        if isinstance(part, TextPart):
            texts.append(part.text)
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
