"""Server-sent events, word counts, and cancellation when a client disconnects."""

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
"""Seconds between two checks whether the client is connected."""
STREAM: dict[int | str, dict[str, Any]] = {
    200: {"content": {"text/event-stream": {"schema": {"type": "string"}}}}
}
"""The OpenAPI responses of a route that can stream."""


def event(data: Any, name: str | None = None) -> str:
    """Format one server-sent event with JSON data."""
    return (f"event: {name}\n" if name else "") + f"data: {json.dumps(data)}\n\n"


def stream(events: AsyncIterator[str]) -> StreamingResponse:
    """A streaming response; when the client disconnects, the iterator is cancelled."""
    return StreamingResponse(events, media_type="text/event-stream")


def split_words(text: str) -> list[str]:
    """Split a text into words, each with the space before it: the chunks of streams."""
    return re.findall(r"\s*\S+|\s+$", text)


def count_words(text: str) -> int:
    """The number of words of a text, separated by white space: the tokens of usage."""
    return len(text.split())


def truncate(text: str, most: int | None = None, stops: Sequence[str] = ()) -> tuple[str, bool]:
    """The text up to the first of ``stops`` and ``most`` words, and whether the word limit cut it."""
    text = text[: min([len(text), *(at for stop in stops if (at := text.find(stop)) >= 0)])]
    if most is None or count_words(text) <= most:
        return text, False
    return "".join(split_words(text)[:most]), True


async def cancel_on_disconnect(request: Request, work: Coroutine[Any, Any, T]) -> T:
    """The result of ``work``; ApiError 499, and ``work`` cancelled, if the client disconnects."""
    task = asyncio.ensure_future(work)
    try:
        while not (await asyncio.wait({task}, timeout=POLL_SECONDS))[0]:
            if await request.is_disconnected():
                raise ApiError(499, "client disconnected")
        return task.result()
    finally:
        task.cancel()
