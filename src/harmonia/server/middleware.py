"""The ASGI middleware before every route: host and origin checks, API keys, body limits, rate limits."""

from __future__ import annotations

import asyncio
import hmac
import logging
import math
import re
import time
from collections import OrderedDict
from collections.abc import Awaitable, Callable, Mapping, MutableMapping, Sequence
from typing import Any

from prometheus_client import CollectorRegistry, Counter, Histogram

from harmonia.server import errors
from harmonia.server.errors import ApiError
from harmonia.server.keys import LOCAL, OWNER, Key, find_key
from harmonia.server.settings import Settings

log = logging.getLogger("harmonia.server")

Scope = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[MutableMapping[str, Any]]]
Send = Callable[[MutableMapping[str, Any]], Awaitable[None]]

OPEN = ("/health", "/ready")
"""Paths without a key: they reveal nothing of the memory."""
HANDSHAKE = "/v1/memory/owner"
"""Needs no API key: the server proves itself to the memory\'s owner, and learns nothing."""
PAGE = ("/", "/page/")
"""The page needs no key; its data come through the API with the key that the user enters."""
MAX_CALLERS = 10_000
"""Most callers with a token bucket; the least recent one is evicted."""

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
}
_ENCODED = [(name.lower().encode(), value.encode()) for name, value in HEADERS.items()]


class GuardMiddleware:
    """Refuses invalid requests, and logs and counts all requests. Refused are:

    * host names other than loopback, ``host`` and ``names`` (DNS rebinding); requests of pages of other
      origins (a site in the same browser that posts to a memory on loopback)
    * a missing or wrong key, or one of insufficient scope: ``read`` to read, ``write`` to change and delete,
      ``admin`` where a route checks it (``request.state.key.may("admin")``)
    * bodies over ``upload`` bytes, by header or as received; bodies that take longer than ``patience``
    * requests beyond ``rate``
    """

    def __init__(
        self, app: Any, settings: Settings, keys: Sequence[Key], registry: CollectorRegistry, owner: str
    ) -> None:
        self.app, self.settings, self.keys, self.owner = app, settings, keys, owner
        self.hosts = {"localhost", "127.0.0.1", "[::1]", settings.host, *settings.names}
        self.buckets: OrderedDict[str, tuple[float, float]] = OrderedDict()
        self.requests = Counter("harmonia_requests_total", "Requests", ("route", "status"), registry=registry)
        self.seconds = Histogram(
            "harmonia_request_seconds", "Time to the end of the response", ("route",), registry=registry
        )

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Handle one connection."""
        if scope["type"] not in ("http", "websocket"):
            await self.app(scope, receive, send)
            return
        recorder = _ResponseRecorder(send, start=time.perf_counter())
        headers = {k.decode("latin-1").lower(): v.decode("latin-1") for k, v in scope["headers"]}
        try:
            key = self._admit(scope, headers)
        except ApiError as error:
            await _refuse(scope, receive, recorder, error)
        else:
            scope.setdefault("state", {})["key"] = key
            body = _LimitedBody(receive, self.settings.upload, self.settings.patience)
            try:
                await self.app(scope, body if scope["type"] == "http" else receive, recorder)
            except ApiError as error:
                # the body was too large or too slow, which the route that reads it raises
                if recorder.status:
                    raise
                await _refuse(scope, receive, recorder, error)
        self._log_request(scope, recorder)

    def _admit(self, scope: Scope, headers: Mapping[str, str]) -> Key:
        """The caller's key; ApiError if the request is refused."""
        host = headers.get("host", "")
        name = host.rsplit(":", 1)[0] if not host.endswith("]") else host
        if "*" not in self.hosts and name not in self.hosts:
            raise ApiError(421, "host not allowed (add --name HOST)", code="wrong_host")
        origin = headers.get("origin")
        if origin is not None and origin.partition("://")[2] != host:
            raise ApiError(403, "cross-origin request refused", code="wrong_origin")
        if headers.get("sec-fetch-site", "none") not in ("none", "same-origin"):
            raise ApiError(403, "cross-origin request refused", code="wrong_origin")
        if "transfer-encoding" in headers and "content-length" in headers:
            # request smuggling: a proxy may have used the other length
            raise ApiError(
                400,
                "send either Content-Length or Transfer-Encoding, not both",
                headers={"Connection": "close"},
            )
        if int(_number(headers.get("content-length", "0"))) > self.settings.upload:
            raise _too_large(self.settings.upload)
        path = scope["path"]
        key = self._key(scope, headers) if not _open(path) else LOCAL
        if key is not OWNER:
            self._limit(key.name if key is not LOCAL else (scope.get("client") or ["?"])[0])
        return key

    def _key(self, scope: Scope, headers: Mapping[str, str]) -> Key:
        scheme, _, secret = headers.get("authorization", "").partition(" ")
        if scope["type"] == "websocket" and not secret:
            secret = _subprotocol(headers.get("sec-websocket-protocol", ""))
        elif scheme.lower() != "bearer":
            secret = ""
        if hmac.compare_digest(secret.strip().encode(), self.owner.encode()):
            return OWNER
        if not self.keys:
            return LOCAL
        key = find_key(self.keys, secret.strip()) if secret else None
        if key is None:
            raise ApiError(
                401,
                "give an API key: Authorization: Bearer hm-...",
                code="invalid_api_key" if secret else "missing_api_key",
                headers={"WWW-Authenticate": "Bearer"},
            )
        needed = (
            "read"
            if scope["type"] == "websocket" or is_read_only(scope["method"], scope["path"])
            else "write"
        )
        if not key.may(needed):
            raise ApiError(403, f"the key {key.name!r} may not {needed}", code="insufficient_scope")
        return key

    def _limit(self, caller: str) -> None:
        """Apply the caller's token bucket; ApiError 429 if it is empty."""
        if not self.settings.rate:
            return
        now = time.monotonic()
        left, since = self.buckets.pop(caller, (float(self.settings.burst), now))
        left = min(float(self.settings.burst), left + (now - since) * self.settings.rate) - 1.0
        left = max(left, -1.0)  # refused requests count, but the debt is bounded
        self.buckets[caller] = left, now
        if len(self.buckets) > MAX_CALLERS:
            self.buckets.popitem(last=False)
        if left < 0:
            wait = str(math.ceil((1.0 - left) / self.settings.rate))
            raise ApiError(
                429, "too many requests: slow down", code="rate_limit_exceeded", headers={"Retry-After": wait}
            )

    def _log_request(self, scope: Scope, recorder: _ResponseRecorder) -> None:
        """Log and count a request by its route pattern, never its content."""
        if scope["type"] != "http":
            return
        route = getattr(scope.get("route"), "path", "other")
        took = time.perf_counter() - recorder.start
        self.requests.labels(route, str(recorder.status)).inc()
        self.seconds.labels(route).observe(took)
        facts = {
            "method": scope["method"],
            "route": route,
            "status": recorder.status,
            "seconds": round(took, 4),
        }
        facts["key"] = scope.get("state", {}).get("key", LOCAL).name
        log.info("request", extra={"facts": facts})


class _ResponseRecorder:
    """Adds the security headers to a response, and records its status."""

    def __init__(self, send: Send, start: float) -> None:
        self.send, self.start, self.status = send, start, 0

    async def __call__(self, message: MutableMapping[str, Any]) -> None:
        if message["type"] == "http.response.start":
            self.status = message["status"]
            headers = message.get("headers", [])
            names = {name.lower() for name, _ in headers}
            message["headers"] = [*headers, *(header for header in _ENCODED if header[0] not in names)]
        await self.send(message)


class _LimitedBody:
    """Receives a body of at most ``most`` bytes within ``patience`` seconds."""

    def __init__(self, receive: Receive, most: int, patience: float) -> None:
        self.receive, self.most, self.size, self.done = receive, most, 0, False
        self.until = time.monotonic() + patience

    async def __call__(self) -> MutableMapping[str, Any]:
        if self.done:
            # after the body only the disconnect follows, which has no deadline
            return await self.receive()
        try:
            async with asyncio.timeout(max(0.01, self.until - time.monotonic())):
                message = await self.receive()
        except TimeoutError:
            raise ApiError(
                408, "request body timed out", code="timeout",
                headers={"Connection": "close"},
            ) from None  # fmt: skip
        if message["type"] == "http.request":
            self.size += len(message.get("body", b""))
            self.done = not message.get("more_body", False)
            if self.size > self.most:
                raise _too_large(self.most)
        return message


def is_read_only(method: str, path: str) -> bool:
    """Whether a request only reads. Queries are POST too: only these paths change the memory."""
    changing = ("/v1/files", "/v1/vector_stores", "/v1/memory/records", "/v1/memory/jobs")
    if method in ("GET", "HEAD", "OPTIONS") or not path.startswith(changing):
        return True
    return method == "POST" and re.fullmatch(r"/v1/vector_stores/[^/]+/search", path) is not None


def _open(path: str) -> bool:
    return path in (*OPEN, HANDSHAKE) or path == PAGE[0] or path.startswith(PAGE[1])


def _number(text: str) -> float:
    """A header as a number; infinity if it is invalid."""
    return float(text) if text.isdigit() else float("inf") if text else 0.0


def _subprotocol(header: str) -> str:
    """The key in a WebSocket subprotocol, because browsers cannot set other headers there."""
    protocols = [protocol.strip() for protocol in header.split(",")]
    return next(
        (
            protocol.partition("openai-insecure-api-key.")[2]
            for protocol in protocols
            if "api-key." in protocol
        ),
        "",
    )


def _too_large(most: int) -> ApiError:
    return ApiError(413, f"request body over the limit of {most:,} bytes", code="too_large")


async def _refuse(scope: Scope, receive: Receive, send: Send, error: ApiError) -> None:
    if scope["type"] == "websocket":
        await receive()
        await send({"type": "websocket.close", "code": 1008, "reason": error.message})
        return
    await errors.response(error)(scope, receive, send)
