"""Answers that come piece by piece, as server-sent events; work that ends when nobody waits for it."""

from __future__ import annotations

import asyncio
import json
import re
from collections.abc import AsyncIterator, Coroutine, Sequence
from typing import Any, TypeVar

from fastapi import Request
from fastapi.responses import StreamingResponse

from harmonia.server.errors import ApiError

T = TypeVar("T")

POLL_SECONDS = 0.25
"""Seconds after which one looks again whether the client is still there."""
STREAM: dict[int | str, dict[str, Any]] = {
    200: {"content": {"text/event-stream": {"schema": {"type": "string"}}}}
}
"""What OpenAPI is to say of a route that can stream."""


def event(data: Any, name: str | None = None) -> str:
    """One server-sent event with JSON."""
    return (f"event: {name}\n" if name else "") + f"data: {json.dumps(data)}\n\n"


def stream(events: AsyncIterator[str]) -> StreamingResponse:
    """A stream of events; when the client goes away, the iterator is cancelled where it waits."""
    return StreamingResponse(events, media_type="text/event-stream")


def split_words(text: str) -> list[str]:
    """The pieces that usage counts and streams send: a word and the space before it."""
    return re.findall(r"\s*\S+|\s+$", text)


def count_words(text: str) -> int:
    """How many words a text has, parted by white space: what usage calls tokens."""
    return len(text.split())


def truncate(text: str, most: int | None = None, stops: Sequence[str] = ()) -> tuple[str, bool]:
    """A text up to the first of ``stops`` and ``most`` words, and whether it was cut for its length."""
    text = text[: min([len(text), *(at for stop in stops if (at := text.find(stop)) >= 0)])]
    if most is None or count_words(text) <= most:
        return text, False
    return "".join(split_words(text)[:most]), True


async def cancel_on_disconnect(request: Request, work: Coroutine[Any, Any, T]) -> T:
    """The result of ``work``, which is cancelled when the client goes away."""
    task = asyncio.ensure_future(work)
    try:
        while not (await asyncio.wait({task}, timeout=POLL_SECONDS))[0]:
            if await request.is_disconnected():
                raise ApiError(499, "the client has gone away")
        return task.result()
    finally:
        task.cancel()
