"""The ASGI middleware before every route: host and origin checks, API keys, limits, and the log."""

from __future__ import annotations

import asyncio
import hmac
import logging
import math
import re
import time
from collections.abc import Mapping, MutableMapping, Sequence
from typing import Any

from fastapi.responses import Response
from prometheus_client import CollectorRegistry, Counter, Histogram

from harmonia.server import errors
from harmonia.server.bodies import Body, InFlight, Receive, drain, too_large
from harmonia.server.errors import ApiError
from harmonia.server.keys import LOCAL, OWNER, Key, find_key
from harmonia.server.origins import (
    authority,
    host_name,
    named_origins,
    opens_page,
    origin_of,
    preflight_headers,
    same_origin,
)
from harmonia.server.rates import Rates
from harmonia.server.response_recorder import ResponseRecorder, Send
from harmonia.server.settings import Settings

log = logging.getLogger("harmonia.server")

Scope = MutableMapping[str, Any]

OPEN = ("/health", "/ready")
"""Paths without a key: they reveal nothing of the memory."""
HANDSHAKE = "/v1/memory/owner"
"""Needs no API key: the server proves itself to the memory\'s owner, and learns nothing."""
PAGE = ("/", "/page/")
"""The page needs no key; its data come through the API with the key that the user enters."""
FAILED_RATE, FAILED_BURST = 1.0, 60
"""Wrong keys per second of one address, and at once, without ``rate``; further ones get 429."""
BURST_SECONDS = 5.0
"""Seconds of ``rate`` that may come at once, without ``burst``."""
LEFT = 499
"""The status in the log of a request whose client left before the answer began."""


class Unfinished(Exception):
    """Ends a connection in the middle of an answer that failed; the failure is logged already."""


class GuardMiddleware:
    """Refuses invalid requests, and logs and counts all requests. Refused are:

    * host names other than loopback, ``host`` and ``names`` (DNS rebinding); requests of pages of other
      origins (a site in the same browser that posts to a memory on loopback), except those of ``cors``, and
      except a link that opens the page
    * a missing or wrong key, or one of insufficient scope: ``read`` to read, ``write`` to change and delete,
      ``admin`` where a route checks it (``request.state.key.may("admin")``)
    * bodies over ``upload`` bytes (JSON: ``json``), by header or as received; bodies that take longer than
      ``patience``; bodies that together exceed ``in_flight``
    * requests beyond ``rate``, and wrong keys

    HEAD is answered as GET without the content. A query whose client leaves is cancelled.
    """

    def __init__(
        self, app: Any, settings: Settings, keys: Sequence[Key], registry: CollectorRegistry, owner: str
    ) -> None:
        self.app, self.settings, self.keys, self.owner = app, settings, keys, owner
        names = ("localhost", "127.0.0.1", "[::1]", settings.host, *settings.names)
        self.hosts = {host[0] for name in names if (host := authority(name))} | {host_name(settings.host)}
        self.any_host = "*" in settings.names
        self.cors = named_origins(settings.cors)
        self.rates = Rates(settings.rate, settings.burst or max(1, math.ceil(BURST_SECONDS * settings.rate)))
        self.failures = Rates(settings.rate or FAILED_RATE, settings.burst or FAILED_BURST)
        self.in_flight = InFlight(settings.in_flight)
        self.requests = Counter("harmonia_requests_total", "Requests", ("route", "status"), registry=registry)
        self.seconds = Histogram(
            "harmonia_request_seconds", "Time to the end of the response", ("route",), registry=registry
        )

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Handle one connection."""
        if scope["type"] not in ("http", "websocket"):
            await self.app(scope, receive, send)
            return
        headers = {k.decode("latin-1").lower(): v.decode("latin-1") for k, v in scope["headers"]}
        recorder = ResponseRecorder(send, headers.get("x-request-id", ""))
        if self.cors:
            recorder.vary = "Origin"
        scope = {**scope, "query_string": _given(scope["query_string"])}
        head = scope.get("method") == "HEAD"
        if head:
            # the server sends no content to HEAD; the app answers as to GET
            scope = {**scope, "method": "GET"}
            recorder.head = True
        try:
            await self._guard(scope, receive, recorder, headers)
        finally:
            # a WebSocket begins as a GET
            self._log_request(scope, recorder, "HEAD" if head else scope.get("method", "GET"))

    async def _guard(
        self, scope: Scope, receive: Receive, recorder: ResponseRecorder, headers: Mapping[str, str]
    ) -> None:
        try:
            key = self._admit(scope, headers, recorder)
        except ApiError as error:
            if error.status == 413 and "expect" not in headers:
                await drain(receive, self.settings.upload)
            await _refuse(scope, receive, recorder, error)
            return
        scope.setdefault("state", {})["key"] = key
        if scope["type"] == "websocket":
            await self.app(scope, receive, recorder)
        elif scope["method"] == "OPTIONS":
            await self._answer_options(scope, receive, recorder, headers)
        else:
            await self._answer(scope, receive, recorder, headers)

    async def _answer(
        self, scope: Scope, receive: Receive, recorder: ResponseRecorder, headers: Mapping[str, str]
    ) -> None:
        """Let the app answer; a query ends when its client leaves."""
        task = asyncio.current_task()
        assert task is not None
        query = is_read_only(scope["method"], scope["path"])

        def leave() -> None:
            if not recorder.ended:
                recorder.left = True
                if query:
                    task.cancel()

        recorder.cut = task.cancel
        most, json = self._most(headers)
        body = Body(receive, most, self.settings.patience, self.in_flight, json=json, on_leave=leave)
        empty = headers.get("content-length", "0") == "0" and "transfer-encoding" not in headers
        try:
            await body.open(empty)
            await self.app(scope, body, recorder)
        except asyncio.CancelledError:
            if not (recorder.left or recorder.head):
                raise
            task.uncancel()
        except ApiError as error:
            # the body was too large or too slow, which the route that reads it raises
            if recorder.status:
                raise
            await _refuse(scope, receive, recorder, error)
        except Exception as error:
            if recorder.left:
                return
            crashed = errors.crash(scope, error)
            if recorder.status:
                raise Unfinished from None
            await crashed(scope, receive, recorder)
        finally:
            body.close()

    async def _answer_options(
        self, scope: Scope, receive: Receive, recorder: ResponseRecorder, headers: Mapping[str, str]
    ) -> None:
        """Answer OPTIONS with the methods of a path, and preflights of named origins."""
        methods = errors.allowed_methods(scope["app"], scope) if "app" in scope else []
        if not methods:
            await _refuse(scope, receive, recorder, ApiError(404, "Not Found"))
            return
        extra = preflight_headers(headers, methods) if recorder.cors else {}
        await Response(status_code=204, headers={"Allow": ", ".join(methods), **extra})(
            scope, receive, recorder
        )

    def _most(self, headers: Mapping[str, str]) -> tuple[int, bool]:
        """Most bytes of the body, and whether it is JSON."""
        # what is no form is JSON, or is refused as if it were
        if "multipart/form-data" in headers.get("content-type", "").lower():
            return self.settings.upload, False
        return min(self.settings.upload, self.settings.json), True

    def _admit(self, scope: Scope, headers: Mapping[str, str], recorder: ResponseRecorder) -> Key:
        """The caller's key; ApiError if the request is refused."""
        host = headers.get("host", "")
        place = authority(host)
        if not self.any_host and (place is None or place[0] not in self.hosts):
            raise ApiError(421, "host not allowed (add --name HOST)", code="wrong_host")
        origin = headers.get("origin")
        named = origin is not None and origin_of(origin) in self.cors
        if named and origin:
            recorder.cors = origin
        elif origin is not None and not same_origin(origin, host):
            raise ApiError(403, "cross-origin request refused", code="wrong_origin")
        path = scope["path"]
        linked = scope["type"] == "http" and is_page(path) and opens_page(scope["method"], headers)
        if headers.get("sec-fetch-site", "none") not in ("none", "same-origin") and not (named or linked):
            raise ApiError(403, "cross-origin request refused", code="wrong_origin")
        if "transfer-encoding" in headers and "content-length" in headers:
            # request smuggling: a proxy may have used the other length
            raise ApiError(
                400,
                "send either Content-Length or Transfer-Encoding, not both",
                headers={"Connection": "close"},
            )
        most, json = self._most(headers)
        if int(_number(headers.get("content-length", "0"))) > most:
            raise too_large(most, json=json)
        address = (scope.get("client") or ["?"])[0]
        # a preflight carries no key, and learns only methods
        preflight = scope.get("method") == "OPTIONS" and "access-control-request-method" in headers
        try:
            key = LOCAL if _open(path) or (named and preflight) else self._key(scope, headers)
        except ApiError as error:
            if error.code == "invalid_api_key":
                self.failures.take(address)
            raise
        if key is not OWNER and self.settings.rate and path not in OPEN:
            recorder.headers |= self.rates.take(key.name if key is not LOCAL else address)
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

    def _log_request(self, scope: Scope, recorder: ResponseRecorder, method: str) -> None:
        """Log and count a request by its route pattern, never its content."""
        route = getattr(scope.get("route"), "path", "other")
        took = time.perf_counter() - recorder.start
        status = recorder.status if recorder.status and not recorder.late else LEFT
        self.requests.labels(route, str(status)).inc()
        self.seconds.labels(route).observe(took)
        facts = {
            "method": method,
            "route": route,
            "status": status,
            "seconds": round(took, 4),
            "request": recorder.request_id,
        }
        facts["key"] = scope.get("state", {}).get("key", LOCAL).name
        if recorder.left:
            facts["left"] = True
        log.info("request", extra={"facts": facts})


def is_read_only(method: str, path: str) -> bool:
    """Whether a request only reads. Queries are POST too: only these paths change the memory."""
    changing = ("/v1/files", "/v1/vector_stores", "/v1/memory/records", "/v1/memory/jobs")
    if method in ("GET", "HEAD", "OPTIONS") or not path.startswith(changing):
        return True
    return method == "POST" and re.fullmatch(r"/v1/vector_stores/[^/]+/search", path) is not None


def is_page(path: str) -> bool:
    """Whether a path is of the page, not of the API."""
    return path == PAGE[0] or path.startswith(PAGE[1])


def _given(query: bytes) -> bytes:
    """The query without parameters that are empty: clients write so what is not given."""
    return b"&".join(pair for pair in query.split(b"&") if pair.partition(b"=")[2])


def _open(path: str) -> bool:
    return path in (*OPEN, HANDSHAKE) or is_page(path)


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


async def _refuse(scope: Scope, receive: Receive, send: Send, error: ApiError) -> None:
    if scope["type"] == "websocket":
        await receive()
        if "websocket.http.response" not in scope.get("extensions", {}):
            await send({"type": "websocket.close", "code": 1008, "reason": error.message})
            return
    await errors.response(error)(scope, receive, send)
