"""Request bodies: their bounds in bytes and time, the size of JSON, and clients that leave."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, MutableMapping
from contextlib import suppress
from itertools import accumulate
from typing import Any

from harmonia.server.errors import ApiError

Receive = Callable[[], Awaitable[MutableMapping[str, Any]]]

MAX_ELEMENTS = 20_000
"""Most elements of a JSON text: its commas, lists and objects.

A parser holds Python's interpreter lock, so that no thread keeps the event loop free: the number of
elements bounds the time that a parser, a validator and its list of errors take: 0.3 s at most.
"""
MAX_DEPTH = 256
"""Most levels of lists and objects in each other."""
FREE_BYTES = 64 * 1024
"""The first bytes of each body do not count among the bodies in flight: small requests always get in."""
DRAIN_SECONDS = 5.0
"""Seconds in which the rest of a refused body is discarded."""

_BRACKETS = b"{[]}"
_OTHERS = bytes(set(range(256)) - set(_BRACKETS))
_STEP = {ord("{"): 1, ord("["): 1, ord("}"): -1, ord("]"): -1}


class JsonSize:
    """Counts the elements and levels of a JSON text, piece by piece, without parsing it."""

    def __init__(self) -> None:
        self.elements = self.depth = 0
        self._in_string = False
        self._tail = b""

    def add(self, piece: bytes) -> None:
        """Count a piece; ApiError 413 or 400 if the text is too large or too deep to be parsed."""
        piece = self._tail + piece
        # a backslash at the end escapes the first byte of the next piece
        whole = len(piece) - (len(piece) - len(piece.rstrip(b"\\"))) % 2
        piece, self._tail = piece[:whole], piece[whole:]
        if b"\\" in piece:
            piece = piece.replace(b"\\\\", b"").replace(b'\\"', b"")
        split = piece.split(b'"')
        outside = b"".join(split[self._in_string :: 2])
        self._in_string ^= not len(split) % 2
        levels = list(
            accumulate(map(_STEP.__getitem__, outside.translate(None, _OTHERS)), initial=self.depth)
        )
        if max(levels) > MAX_DEPTH:
            raise ApiError(400, f"JSON nested deeper than {MAX_DEPTH} levels", code="invalid_json")
        self.depth = levels[-1]
        self.elements += outside.count(b",") + outside.count(b"{") + outside.count(b"[")
        if self.elements > MAX_ELEMENTS:
            raise ApiError(
                413, f"JSON of more than {MAX_ELEMENTS:,} elements: send several requests, or files",
                code="too_large",
            )  # fmt: skip


def check_json(text: str) -> None:
    """ApiError if a JSON text has too many elements or levels to be parsed."""
    JsonSize().add(text.encode("utf-8", "surrogatepass"))


class InFlight:
    """The bytes of all bodies that are being received or answered; more than ``most`` get 503."""

    def __init__(self, most: int) -> None:
        self.most, self.size = most, 0

    def add(self, size: int) -> None:
        """Count bytes; ApiError 503 if there is no room for them."""
        if self.size + size > self.most:
            raise ApiError(
                503, "too many large requests: try again in a second", code="overloaded",
                headers={"Retry-After": "1", "Connection": "close"},
            )  # fmt: skip
        self.size += size


class Body:
    """Receives a body within its bounds, and tells when the client leaves.

    ``most`` bytes within ``patience`` seconds; ``json``: count its elements. ``on_leave`` is called when
    the client closes the connection.
    """

    def __init__(
        self, receive: Receive, most: int, patience: float, in_flight: InFlight, *, json: bool,
        on_leave: Callable[[], None],
    ) -> None:  # fmt: skip
        self.receive, self.most, self.in_flight, self.on_leave = receive, most, in_flight, on_leave
        self.json = JsonSize() if json else None
        self.size = self.counted = 0
        self.done = False
        self.patience, self.until = patience, time.monotonic() + patience
        self._gone = asyncio.Event()
        self._first: MutableMapping[str, Any] | None = None
        self._watcher: asyncio.Task[None] | None = None

    async def open(self, empty: bool) -> None:
        """Begin to watch for the client's leave; a body that is not ``empty`` is read first."""
        if empty:
            self._first = await self()

    async def __call__(self) -> MutableMapping[str, Any]:
        """The next message of the client."""
        if self._first is not None:
            message, self._first = self._first, None
            return message
        if self.done:
            await self._gone.wait()
            return {"type": "http.disconnect"}
        try:
            async with asyncio.timeout(max(0.01, self.until - time.monotonic())):
                message = await self.receive()
        except TimeoutError:
            raise ApiError(
                408, "request body timed out", code="timeout", headers={"Connection": "close"}
            ) from None
        if message["type"] != "http.request":
            self.done = True
            self._gone.set()
            self.on_leave()
            return message
        piece = message.get("body", b"")
        last = not message.get("more_body", False)
        try:
            self._count(piece)
        except ApiError:
            if not last:
                await drain(self.receive, self.most)
            raise
        if last:
            self.done = True
            self._watcher = asyncio.create_task(self._watch())
        return message

    def close(self) -> None:
        """Stop watching, and give the bytes in flight back."""
        if self._watcher is not None:
            self._watcher.cancel()
        self.in_flight.size -= self.counted
        self.counted = 0

    def _count(self, piece: bytes) -> None:
        self.size += len(piece)
        if self.size > self.most:
            raise too_large(self.most, json=self.json is not None)
        more = max(0, self.size - FREE_BYTES) - self.counted
        if more:
            self.in_flight.add(more)
            self.counted += more
        if self.json is not None:
            self.json.add(piece)

    async def _watch(self) -> None:
        while (await self.receive())["type"] != "http.disconnect":
            pass
        self._gone.set()
        self.on_leave()


async def drain(receive: Receive, most: int) -> None:
    """Discard what the client still sends, at most ``most`` bytes, so that it can read the refusal.

    A connection that is closed with unread bytes is reset, and the answer is lost.
    """
    with suppress(TimeoutError):
        async with asyncio.timeout(DRAIN_SECONDS):
            while most > 0:
                message = await receive()
                most -= len(message.get("body", b""))
                if message["type"] != "http.request" or not message.get("more_body", False):
                    return


def too_large(most: int, *, json: bool = False) -> ApiError:
    """The error for a body over its limit."""
    hint = ": send media as a form" if json else ""
    return ApiError(
        413, f"{'JSON' if json else 'request body'} over the limit of {most:,} bytes{hint}", code="too_large"
    )
