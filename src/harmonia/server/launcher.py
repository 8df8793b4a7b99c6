"""Runs uvicorn: connection limits, graceful shutdown, and a JSON log without content."""

from __future__ import annotations

import asyncio
import json
import logging
import os
import signal
import socket
import sys
import threading
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from types import FrameType
from typing import Any

import h11
import uvicorn
from fastapi import FastAPI
from uvicorn.protocols.http.h11_impl import STATUS_PHRASES, H11Protocol
from uvicorn.protocols.websockets.websockets_sansio_impl import WebSocketsSansIOProtocol
from uvicorn.server import HANDLED_SIGNALS

from harmonia.server import address, errors
from harmonia.server.log_handler import BackgroundLogHandler
from harmonia.server.response_recorder import request_id
from harmonia.server.settings import Settings
from harmonia.types import HarmoniaError

MAX_HEADER_BYTES = 32 * 2**10
"""Most bytes of a request line and headers."""
MAX_MESSAGE_BYTES = 16 * 2**20
"""Most bytes of one WebSocket message."""
MAX_CONNECTIONS = 2048
"""Most concurrent connections; further ones get 503."""
READ_BYTES = 32 * 2**10
"""Most bytes of a connection that are read before other connections have their turn."""
KEEP_ALIVE_SECONDS = 15
"""Seconds that an idle connection is kept open."""
SHUTDOWN_SECONDS = 10
"""Seconds that running responses have after SIGTERM."""


def bind(settings: Settings) -> socket.socket:
    """Open the listening socket; HarmoniaError if the address is in use or invalid."""
    family = socket.AF_INET6 if ":" in settings.host else socket.AF_INET
    try:
        return socket.create_server((settings.host, settings.port), family=family, backlog=MAX_CONNECTIONS)
    except (OSError, OverflowError, UnicodeError) as error:
        number = getattr(error, "errno", None)
        reason = os.strerror(number).lower() if number and number > 0 else "invalid address"
        raise HarmoniaError(
            f"cannot listen on {settings.host}:{settings.port} ({reason}): give another --port or --host"
        ) from error


def url_of(listener: socket.socket) -> str:
    """The URL of a listening socket."""
    host, port = listener.getsockname()[:2]
    return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"


class Server(uvicorn.Server):
    """Serves one app on one socket. ``run`` returns after SIGTERM, Ctrl-C or ``should_exit``.

    ``ready`` is called with the URL once requests are accepted.
    """

    def __init__(
        self, app: FastAPI, settings: Settings, listener: socket.socket, ready: Callable[[str], None]
    ) -> None:
        super().__init__(_config(app, settings))
        self.app, self.settings, self.listener, self.ready = app, settings, listener, ready

    def run(self, sockets: list[socket.socket] | None = None) -> None:
        """Serve until the server is stopped."""
        with self._clean_exit(), _all_is_logged():
            super().run(sockets or [self.listener])

    @contextmanager
    def _clean_exit(self) -> Iterator[None]:
        """Exit with status 0 after a stop signal, which uvicorn would raise again."""
        if threading.current_thread() is not threading.main_thread():
            yield
            return

        def leave(number: int, frame: FrameType | None) -> None:
            if not self.should_exit:
                sys.exit(0)

        before = {one: signal.signal(one, leave) for one in HANDLED_SIGNALS}
        try:
            yield
        finally:
            for one, handler in before.items():
                signal.signal(one, handler)

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Start the app, publish the address file, and call ``ready``."""
        await super().startup(sockets)
        url = url_of(self.listener)
        address.publish(self.settings.memory, url, self.app.state.token)
        self.ready(url)

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """Finish running responses; endless streams end because ``ready`` is false."""
        self.app.state.service.ready = False
        address.withdraw(self.settings.memory, self.app.state.token)
        await super().shutdown(sockets)


@contextmanager
def _all_is_logged() -> Iterator[None]:
    """Log also the warnings of Python and the messages of other packages, which would be bare lines."""
    root, own = logging.getLogger(), logging.getLogger(OWN[0]).handlers
    for handler in own:
        root.addHandler(handler)
    logging.captureWarnings(True)
    try:
        yield
    finally:
        logging.captureWarnings(False)
        for handler in own:
            root.removeHandler(handler)


def _config(app: FastAPI, settings: Settings) -> uvicorn.Config:
    return uvicorn.Config(
        app,
        http=_protocol(settings.patience),
        ws=_WebSocket,
        h11_max_incomplete_event_size=MAX_HEADER_BYTES,
        ws_max_size=MAX_MESSAGE_BYTES,
        ws_per_message_deflate=False,
        lifespan="on",
        log_config=LOGGING,
        access_log=False,  # it would log queries, which are content; the middleware logs instead
        server_header=False,
        proxy_headers=False,  # clients must not set their own address
        limit_concurrency=MAX_CONNECTIONS,
        timeout_keep_alive=KEEP_ALIVE_SECONDS,
        timeout_graceful_shutdown=SHUTDOWN_SECONDS,
    )


class _WebSocket(WebSocketsSansIOProtocol):
    """A WebSocket whose refusal with a status and a body is a finished handshake, not an error to log."""

    async def send(self, message: Any) -> None:
        await super().send(message)
        if message["type"] == "websocket.http.response.body" and not message.get("more_body", False):
            self.handshake_complete = True


def _protocol(patience: float) -> type[asyncio.Protocol]:
    """HTTP that aborts clients slower than ``patience`` seconds at sending headers or reading."""

    class Patient(H11Protocol):
        _hurry: asyncio.TimerHandle | None = None
        _stalled: asyncio.TimerHandle | None = None

        def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
            super().connection_made(transport)
            # asyncio sets it only for sockets with an explicit protocol; a body could wait 40 ms for an ACK
            transport.get_extra_info("socket").setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            # what arrives at once is parsed at once: chunks of one byte in 256 KiB would take a second
            transport.max_size = READ_BYTES  # type: ignore[attr-defined]
            self._wait()

        def connection_lost(self, exc: Exception | None) -> None:
            self._relax()
            self.resume_writing()
            super().connection_lost(exc)

        def data_received(self, data: bytes) -> None:
            self._wait()
            super().data_received(data)
            if self.cycle is not None and not self.cycle.response_complete:
                self._relax()

        def handle_websocket_upgrade(self, event: h11.Request) -> None:
            self._relax()
            super().handle_websocket_upgrade(event)

        def send_400_response(self, msg: str) -> None:
            body = json.dumps(errors.body(400, "invalid HTTP request")).encode()
            headers = [("content-type", "application/json"), ("content-length", str(len(body))),
                       ("x-request-id", request_id()), ("connection", "close")]  # fmt: skip
            for event in (
                h11.Response(status_code=400, headers=headers, reason=STATUS_PHRASES[400]),
                h11.Data(data=body),
                h11.EndOfMessage(),
            ):
                self.transport.write(self.conn.send(event) or b"")
            self.transport.close()

        def pause_writing(self) -> None:
            super().pause_writing()
            self._stalled = self.loop.call_later(patience, self.transport.abort)

        def resume_writing(self) -> None:
            if self._stalled is not None:
                self._stalled.cancel()
                self._stalled = None
            super().resume_writing()

        def _wait(self) -> None:
            """Start the deadline at the first byte of a request; later bytes do not extend it."""
            if self._hurry is None and (self.cycle is None or self.cycle.response_complete):
                self._hurry = self.loop.call_later(patience, self.transport.abort)

        def _relax(self) -> None:
            if self._hurry is not None:
                self._hurry.cancel()
                self._hurry = None

    return Patient


class JsonFormatter(logging.Formatter):
    """Formats each event as a line of JSON: time, level, event, and its ``facts``.

    An exception is logged as its type and code positions, without its message, which may quote client data;
    so are warnings and the messages of other packages.
    """

    def format(self, record: logging.LogRecord) -> str:
        """Format one line."""
        line: dict[str, Any] = {
            "time": datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds"),
            "level": record.levelname.lower(),
            "event": _event(record),
            **getattr(record, "facts", {}),
        }
        if record.exc_info and record.exc_info[1]:
            line["error"] = [_describe_error(error) for error in _chain(record.exc_info[1])]
        return json.dumps(line)


def _event(record: logging.LogRecord) -> str:
    """What a record says, if it is of this server: other messages may quote what clients sent."""
    if record.name.startswith(OWN):
        return record.getMessage().strip()
    if record.name == "py.warnings":
        place, _, rest = record.getMessage().partition(": ")
        return f"{rest.partition(':')[0]} at {_shown(place)}"
    return f"{record.name} at {_shown(record.pathname)}:{record.lineno}"


def _shown(path: str) -> str:
    return path.rpartition("site-packages/")[2].rpartition("src/")[2]


def _chain(error: BaseException | None) -> list[BaseException]:
    found: list[BaseException] = []
    while error is not None and error not in found:
        found.append(error)
        error = error.__cause__ or error.__context__
    return found


def _describe_error(error: BaseException) -> dict[str, Any]:
    frames = traceback.extract_tb(error.__traceback__)
    places = [f"{_shown(frame.filename)}:{frame.lineno} {frame.name}" for frame in frames]
    return {"kind": type(error).__name__, "at": places}


OWN = ("harmonia.server", "uvicorn", "asyncio")
"""The loggers whose messages have no content."""
LOGGING: dict[str, Any] = {
    "version": 1,
    "disable_existing_loggers": False,
    "formatters": {"json": {"()": JsonFormatter}},
    "handlers": {"json": {"()": BackgroundLogHandler, "formatter": "json"}},
    "loggers": {
        "uvicorn": {"handlers": ["json"], "level": "WARNING", "propagate": False},
        "asyncio": {"handlers": ["json"], "level": "ERROR", "propagate": False},
        "harmonia.server": {"handlers": ["json"], "level": "INFO", "propagate": False},
        "python_multipart": {"level": "ERROR"},  # it would log each malformed form
    },
}
"""The logging configuration: JSON lines on standard error."""
