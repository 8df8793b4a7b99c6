"""Realtime: a conversation over a WebSocket, in OpenAI's events, answered in text."""

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
from harmonia.server.service import Service
from harmonia.types import HarmoniaError

log = logging.getLogger("harmonia.server")

router = APIRouter(prefix="/v1", tags=["openai"])

EVENTS: TypeAdapter[Event] = TypeAdapter(Event)
SESSIONS = 64
"""Sessions at once; to more, the answer is to come again."""
IDLE = 900.0
"""Seconds without any message after which a session ends."""
PACE, BURST = 100.0, 200
"""Messages a second that are read in the long run, and at once, where ``Settings.rate`` gives none."""


class Pace:
    """Reads no faster than so many messages a second: who sends more waits."""

    def __init__(self, rate: float, burst: int) -> None:
        self.rate, self.free = rate, float(burst)
        self.burst, self.since = float(burst), time.monotonic()

    async def wait(self) -> None:
        """Until the next message may be read."""
        now = time.monotonic()
        self.free = min(self.burst, self.free + (now - self.since) * self.rate) - 1.0
        self.since = now
        if self.free < 0:
            await asyncio.sleep(-self.free / self.rate)


@router.websocket("/realtime")
async def realtime(socket: WebSocket, model: str = RECALLS) -> None:
    """One session, until either side ends it."""
    service: Service = socket.app.state.service
    await socket.accept("realtime" if "realtime" in socket.scope.get("subprotocols", ()) else None)
    state = socket.app.state
    state.sessions = getattr(state, "sessions", 0) + 1
    try:
        if state.sessions > SESSIONS:
            raise ApiError(503, "too many sessions are open: try again later")
        check_model(model)
        await _converse(socket, service, RealtimeSession(service, model))
    except ApiError as error:
        await _send(socket, _error(error, None))
        await socket.close(1008, error.message[:100])
    except TimeoutError:
        await socket.close(1001, "nothing was said for long")
    except WebSocketDisconnect:
        pass
    finally:
        state.sessions -= 1


async def _converse(socket: WebSocket, service: Service, session: RealtimeSession) -> None:
    """Events in, events out, one after the other."""
    settings = service.settings
    pace = Pace(settings.rate or PACE, settings.burst if settings.rate else BURST)
    await _send(socket, {"type": "session.created", "session": session.settings})
    while True:
        message = await asyncio.wait_for(socket.receive(), IDLE)
        if message["type"] == "websocket.disconnect":
            return
        await pace.wait()
        await _follow(socket, service, session, message.get("text"))


async def _follow(socket: WebSocket, service: Service, session: RealtimeSession, text: str | None) -> None:
    """Do what one event says; what is wrong with it is an event too, and the session goes on."""
    name: str | None = None
    try:
        if text is None:
            raise ApiError(400, "events are JSON text", code="invalid_json")
        said = parse_json(text, "event")
        given = said.get("event_id") if isinstance(said, dict) else None
        name = given[:100] if isinstance(given, str) else None
        async for told in session.handle(_event(said)):
            await _send(socket, told)
    except ApiError as error:
        await _send(socket, _error(error, name))
    except HarmoniaError as error:
        await _send(socket, _error(ApiError(400, service.without_paths(str(error))), name))
    except (WebSocketDisconnect, RuntimeError):
        raise
    except Exception as error:
        log.error("failed", extra={"facts": {"route": "/v1/realtime"}}, exc_info=error)
        await _send(
            socket, _error(ApiError(500, "the server failed; its log says why", code="internal_error"), name)
        )


def _event(said: Any) -> Event:
    try:
        return EVENTS.validate_python(said)
    except ValidationError as error:
        first = error.errors(include_context=False)[0]
        param = ".".join(str(one) for one in first["loc"][1:]) or "type"
        raise ApiError(400, f"{param}: {first['msg']}", code="invalid_value", param=param) from None


def _error(error: ApiError, name: str | None) -> dict[str, Any]:
    told = errors.body(error.status, error.message, error.code, error.param)["error"]
    return {"type": "error", "error": {**told, "event_id": name}}


async def _send(socket: WebSocket, told: dict[str, Any]) -> None:
    await socket.send_json({"event_id": f"event_{uuid.uuid4().hex}", **told})
