"""OpenAI's realtime endpoint: a conversation over a WebSocket, answered in text."""

from __future__ import annotations

import asyncio
import logging
import time
import uuid
from typing import Any

from fastapi import APIRouter, WebSocket, WebSocketDisconnect
from pydantic import TypeAdapter, ValidationError

from harmonia.server import errors
from harmonia.server.errors import ApiError
from harmonia.server.forms import parse_json
from harmonia.server.openai.messages import RECALLS, check_model
from harmonia.server.openai.realtime_session import RealtimeSession
from harmonia.server.openai.schemas.realtime import Event
from harmonia.server.service import Service, key_of
from harmonia.types import HarmoniaError

log = logging.getLogger("harmonia.server")

router = APIRouter(prefix="/v1", tags=["openai"])

EVENTS: TypeAdapter[Event] = TypeAdapter(Event)
MAX_SESSIONS = 64
"""Most concurrent sessions; further sessions get an error of status 503."""
IDLE_SECONDS = 900.0
"""Seconds without a message after which a session is closed."""
RATE, BURST = 100.0, 200
"""Messages read per second in the long run, and at once, where ``Settings.rate`` sets no limit."""


class MessageRate:
    """A token bucket that delays reads beyond ``rate`` messages per second."""

    def __init__(self, rate: float, burst: int) -> None:
        self.rate, self.free = rate, float(burst)
        self.burst, self.since = float(burst), time.monotonic()

    async def wait(self) -> None:
        """Wait until the next message may be read."""
        now = time.monotonic()
        self.free = min(self.burst, self.free + (now - self.since) * self.rate) - 1.0
        self.since = now
        if self.free < 0:
            await asyncio.sleep(-self.free / self.rate)


@router.websocket("/realtime")
async def realtime(socket: WebSocket, model: str = RECALLS) -> None:
    """Run one session until either side closes it."""
    service: Service = socket.app.state.service
    await socket.accept("realtime" if "realtime" in socket.scope.get("subprotocols", ()) else None)
    state = socket.app.state
    state.sessions = getattr(state, "sessions", 0) + 1
    try:
        if state.sessions > MAX_SESSIONS:
            raise ApiError(503, "too many sessions are open: try again later")
        check_model(model)
        await _converse(socket, service, RealtimeSession(service, model, key_of(socket)))
    except ApiError as error:
        await _send(socket, _error(error, None))
        await socket.close(1008, error.message[:100])
    except TimeoutError:
        await socket.close(1001, "the session was idle for too long")
    except WebSocketDisconnect:
        pass
    finally:
        state.sessions -= 1


async def _converse(socket: WebSocket, service: Service, session: RealtimeSession) -> None:
    """Handle events one after the other."""
    settings = service.settings
    pace = MessageRate(settings.rate or RATE, settings.burst if settings.rate else BURST)
    await _send(socket, {"type": "session.created", "session": session.settings})
    while True:
        message = await asyncio.wait_for(socket.receive(), IDLE_SECONDS)
        if message["type"] == "websocket.disconnect":
            return
        await pace.wait()
        await _follow(socket, service, session, message.get("text"))


async def _follow(socket: WebSocket, service: Service, session: RealtimeSession, text: str | None) -> None:
    """Handle one event; a failure is sent as an error event, and the session goes on."""
    name: str | None = None
    try:
        if text is None:
            raise ApiError(400, "an event must be JSON text", code="invalid_json")
        payload = parse_json(text, "event")
        client_id = payload.get("event_id") if isinstance(payload, dict) else None
        name = client_id[:100] if isinstance(client_id, str) else None
        async for message in session.handle(_event(payload)):
            await _send(socket, message)
    except ApiError as error:
        await _send(socket, _error(error, name))
    except HarmoniaError as error:
        await _send(socket, _error(ApiError(400, service.without_paths(str(error))), name))
    except (WebSocketDisconnect, RuntimeError):
        raise
    except Exception as error:
        log.error("failed", extra={"facts": {"route": "/v1/realtime"}}, exc_info=error)
        await _send(
            socket,
            _error(
                ApiError(500, "internal server error: see the log of the server", code="internal_error"), name
            ),
        )


def _event(event: Any) -> Event:
    try:
        return EVENTS.validate_python(event)
    except ValidationError as error:
        invalid = errors.refusal(error.errors(include_context=False)[0], event)
        invalid.param = invalid.param or "type"
        raise invalid from None


def _error(error: ApiError, name: str | None) -> dict[str, Any]:
    detail = errors.body(error.status, error.message, error.code, error.param)["error"]
    return {"type": "error", "error": {**detail, "event_id": name}}


async def _send(socket: WebSocket, message: dict[str, Any]) -> None:
    await socket.send_json({"event_id": f"event_{uuid.uuid4().hex}", **message})
