"""Stored responses, by which conversations go on: per API key, in RAM only, a limited number."""

from __future__ import annotations

import json
from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from harmonia.server.errors import ApiError
from harmonia.server.openai.messages import Turn

MAX_RESPONSES, MAX_BYTES = 1000, 64 * 2**20
"""Most stored responses, and most bytes of them as JSON; the oldest are evicted first."""


@dataclass(frozen=True, slots=True, eq=False)
class StoredResponse:
    """A response, the texts of its conversation, and the size of both in bytes."""

    response: dict[str, Any]
    turns: Sequence[Turn]
    size: int


class ResponseStore:
    """Responses by the name of the caller's key and the response id."""

    def __init__(self, most: int = MAX_RESPONSES, size: int = MAX_BYTES) -> None:
        self.most, self.limit, self.size = most, size, 0
        self.held: OrderedDict[tuple[str, str], StoredResponse] = OrderedDict()

    def keep(self, caller: str, response: dict[str, Any], turns: Sequence[Turn]) -> None:
        """Store a response with the texts, not the media, of its conversation."""
        text_turns = [Turn(turn.role, turn.text) for turn in turns]
        size = len(json.dumps(response)) + sum(len(turn.text) for turn in text_turns)
        self.held[caller, response["id"]] = StoredResponse(response, text_turns, size)
        self.size += size
        while len(self.held) > self.most or self.size > self.limit:
            self.size -= self.held.popitem(last=False)[1].size

    def get(self, caller: str, response_id: str, param: str | None = None) -> StoredResponse:
        """One response; ApiError 404 if it is not stored."""
        stored = self.held.get((caller, response_id))
        if stored is None:
            raise ApiError(
                404, "unknown response id (responses are not persisted)",
                code="response_not_found", param=param,
            )  # fmt: skip
        return stored

    def forget(self, caller: str, response_id: str) -> None:
        """Delete one response; ApiError 404 if it is not stored."""
        self.size -= self.get(caller, response_id).size
        del self.held[caller, response_id]
