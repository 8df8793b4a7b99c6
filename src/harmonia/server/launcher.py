"""Starting uvicorn: what one connection may do, a graceful end, and a log in JSON without content."""

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
from uvicorn.server import HANDLED_SIGNALS

from harmonia.server import address, errors
from harmonia.server.log_handler import BackgroundLogHandler
from harmonia.server.settings import Settings
from harmonia.types import HarmoniaError

HEADERS = 32 * 2**10
"""Most bytes that a request's line and headers may have."""
MESSAGE = 16 * 2**20
"""Most bytes of one WebSocket message."""
CONNECTIONS = 2048
"""Connections at once; to more, the answer is 503."""
IDLE = 15
"""Seconds that a connection is kept open for the next request."""
GRACE = 10
"""Seconds that answers under way have after SIGTERM."""


def bind(settings: Settings) -> socket.socket:
    """A socket that listens at the settings' address; HarmoniaError if it is taken or is none of ours."""
    family = socket.AF_INET6 if ":" in settings.host else socket.AF_INET
    try:
        return socket.create_server((settings.host, settings.port), family=family, backlog=CONNECTIONS)
    except (OSError, OverflowError, UnicodeError) as error:
        number = getattr(error, "errno", None)
        reason = os.strerror(number).lower() if number and number > 0 else "no such address"
        raise HarmoniaError(
            f"cannot serve at {settings.host} port {settings.port} ({reason}): give another --port or --host"
        ) from error


def url_of(listener: socket.socket) -> str:
    """The address of a server, as clients give it."""
    host, port = listener.getsockname()[:2]
    return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"


class Server(uvicorn.Server):
    """One app on one socket. ``run`` returns after SIGTERM, Ctrl-C or ``should_exit``.

    ``started`` is called with the URL once requests are answered.
    """

    def __init__(
        self, app: FastAPI, settings: Settings, listener: socket.socket, ready: Callable[[str], None]
    ) -> None:
        super().__init__(_config(app, settings))
        self.app, self.settings, self.listener, self.ready = app, settings, listener, ready

    def run(self, sockets: list[socket.socket] | None = None) -> None:
        """Serve until told to stop."""
        with self._clean_exit():
            super().run(sockets or [self.listener])

    @contextmanager
    def _clean_exit(self) -> Iterator[None]:
        """uvicorn ends the process by the signal that told it to stop; but that is no failure."""
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
        """Load, listen, and say so."""
        await super().startup(sockets)
        url = url_of(self.listener)
        address.publish(self.settings.memory, url, self.app.state.token)
        self.ready(url)

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """Finish what is under way; streams that would go on see that the service ends."""
        self.app.state.service.ready = False
        address.withdraw(self.settings.memory, self.app.state.token)
        await super().shutdown(sockets)


def _config(app: FastAPI, settings: Settings) -> uvicorn.Config:
    return uvicorn.Config(
        app,
        http=_protocol(settings.patience),
        h11_max_incomplete_event_size=HEADERS,
        ws_max_size=MESSAGE,
        ws_per_message_deflate=False,
        lifespan="on",
        log_config=LOGGING,
        access_log=False,  # its lines have the query, which is content; the guard writes its own
        server_header=False,
        proxy_headers=False,  # nobody may say that he calls from elsewhere
        limit_concurrency=CONNECTIONS,
        timeout_keep_alive=IDLE,
        timeout_graceful_shutdown=GRACE,
    )


def _protocol(patience: float) -> type[asyncio.Protocol]:
    """HTTP for clients that send a request's headers, and take what they are sent, within ``patience``."""

    class Patient(H11Protocol):
        _hurry: asyncio.TimerHandle | None = None
        _stalled: asyncio.TimerHandle | None = None

        def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
            super().connection_made(transport)
            # asyncio does so only for sockets that name TCP; the body would wait 40 ms for the head's receipt
            transport.get_extra_info("socket").setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
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
            body = json.dumps(errors.body(400, "this is no HTTP request that can be read")).encode()
            headers = [("content-type", "application/json"), ("content-length", str(len(body))),
                       ("connection", "close")]  # fmt: skip
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
            """The first byte of a request starts the clock, and no later one sets it back."""
            if self._hurry is None and (self.cycle is None or self.cycle.response_complete):
                self._hurry = self.loop.call_later(patience, self.transport.abort)

        def _relax(self) -> None:
            if self._hurry is not None:
                self._hurry.cancel()
                self._hurry = None

    return Patient


class JsonFormatter(logging.Formatter):
    """A line of JSON for each event: when, how grave, what, and its ``facts``.

    Of an exception it tells the kind and the places in the code, not the message, which may quote
    what a client sent.
    """

    def format(self, record: logging.LogRecord) -> str:
        """The line."""
        line: dict[str, Any] = {
            "time": datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds"),
            "level": record.levelname.lower(),
            "event": record.getMessage().strip(),
            **getattr(record, "facts", {}),
        }
        if record.exc_info and record.exc_info[1]:
            line["error"] = [_describe_error(error) for error in _chain(record.exc_info[1])]
        return json.dumps(line)


def _chain(error: BaseException | None) -> list[BaseException]:
    found: list[BaseException] = []
    while error is not None and error not in found:
        found.append(error)
        error = error.__cause__ or error.__context__
    return found


def _describe_error(error: BaseException) -> dict[str, Any]:
    frames = traceback.extract_tb(error.__traceback__)
    places = [
        f"{frame.filename.rpartition('site-packages/')[2]}:{frame.lineno} {frame.name}" for frame in frames
    ]
    return {"kind": type(error).__name__, "at": places}


LOGGING: dict[str, Any] = {
    "version": 1,
    "disable_existing_loggers": False,
    "formatters": {"json": {"()": JsonFormatter}},
    "handlers": {"json": {"()": BackgroundLogHandler, "formatter": "json"}},
    "loggers": {
        "uvicorn": {"handlers": ["json"], "level": "WARNING", "propagate": False},
        "harmonia.server": {"handlers": ["json"], "level": "INFO", "propagate": False},
        "python_multipart": {"level": "ERROR"},  # it tells of each malformed form, which is answered already
    },
}
"""Where the log goes: JSON lines on standard error."""
