"""Adds the headers of every response, and records what was sent."""

from __future__ import annotations

import asyncio
import re
import time
import uuid
from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any

from harmonia.server.origins import cors_headers

Send = Callable[[MutableMapping[str, Any]], Awaitable[None]]

HEADERS = {
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Content-Security-Policy": (
        "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' blob: data:; "
        "media-src 'self' blob:; connect-src 'self'; form-action 'none'; frame-ancestors 'none'; "
        "base-uri 'none'"
    ),
    "Permissions-Policy": "microphone=(self), camera=(), geolocation=()",
    "Cache-Control": "no-store",
    "openai-version": "2020-10-01",
}
_ENCODED = [(name.lower().encode(), value.encode()) for name, value in HEADERS.items()]
_REQUEST_ID = re.compile(r"[A-Za-z0-9][A-Za-z0-9._:-]{0,127}")


def request_id(given: str = "") -> str:
    """The client's request id if it is well-formed, or a new one."""
    return given if _REQUEST_ID.fullmatch(given) else f"req_{uuid.uuid4().hex}"


class ResponseRecorder:
    """Sends a response with the headers of every response, and records its status.

    ``headers`` are more of them; ``cors`` is the named origin of the caller; ``vary`` names the request
    headers that the response depends on; ``head`` ends the response
    after its headers and calls ``cut`` to end the work for its content. ``left``: the client has left;
    ``late``: it had left before the response began.
    """

    def __init__(self, send: Send, given_id: str) -> None:
        self.send, self.start, self.status = send, time.perf_counter(), 0
        self.request_id = request_id(given_id)
        self.headers: dict[str, str] = {}
        self.cors = self.vary = ""
        self.head = self.left = self.late = self.ended = False
        self.cut: Callable[[], object] = bool

    async def __call__(self, message: MutableMapping[str, Any]) -> None:
        """Send one message."""
        kind = message["type"].removeprefix("websocket.")
        if kind == "accept":
            self.status = 101
        elif kind == "close" and not self.status:
            self.status = 403
        if kind == "http.response.start":
            self.status, self.late = message["status"], self.left
            message["headers"] = self._complete(message.get("headers", []))
        elif message["type"] == "http.response.body":
            more = message.get("more_body", False)
            if self.ended:
                return
            if self.head and more:
                message = {"type": "http.response.body", "body": b""}
                more = False
                self.cut()
            self.ended = not more
            await self.send(message)
            if more:
                # lets the loop see that the client has left before the next piece is written
                await asyncio.sleep(0)
            return
        await self.send(message)

    def _complete(self, headers: list[tuple[bytes, bytes]]) -> list[tuple[bytes, bytes]]:
        took = f"{1000 * (time.perf_counter() - self.start):.0f}"
        more = {"x-request-id": self.request_id, "openai-processing-ms": took, **self.headers}
        added = [(name.lower().encode(), value.encode("latin-1")) for name, value in more.items()]
        if self.cors:
            added += cors_headers(self.cors)
        if self.vary:
            added.append((b"vary", self.vary.encode()))
        names = {name.lower() for name, _ in headers} - {b"vary"}
        headers = [*headers, *(header for header in added if header[0] not in names)]
        names = {name.lower() for name, _ in headers}
        return [*headers, *(header for header in _ENCODED if header[0] not in names)]
