"""Stored responses and chat completions, with their inputs: per API key, in RAM only, a limited number."""

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
    """A response, the texts of its conversation, the items of its input, and the size of all in bytes."""

    response: dict[str, Any]
    turns: Sequence[Turn]
    items: Sequence[dict[str, Any]]
    size: int


class ResponseStore:
    """Responses by the name of the caller's key and the response id; ``what`` names them in errors."""

    def __init__(self, most: int = MAX_RESPONSES, size: int = MAX_BYTES, what: str = "response") -> None:
        self.most, self.limit, self.size, self.what = most, size, 0, what
        self.held: OrderedDict[tuple[str, str], StoredResponse] = OrderedDict()

    def keep(
        self,
        caller: str,
        response: dict[str, Any],
        turns: Sequence[Turn] = (),
        items: Sequence[dict[str, Any]] = (),
    ) -> None:
        """Store a response with the texts, not the media, of its conversation, and the items of its input.

        What is stored under the same id is replaced.
        """
        text_turns = [Turn(turn.role, turn.text) for turn in turns]
        size = len(json.dumps([response, list(items)])) + sum(len(turn.text) for turn in text_turns)
        key = caller, response["id"]
        self.size += size - (self.held.pop(key).size if key in self.held else 0)
        self.held[key] = StoredResponse(response, text_turns, items, size)
        while len(self.held) > self.most or self.size > self.limit:
            self.size -= self.held.popitem(last=False)[1].size

    def get(self, caller: str, response_id: str, param: str | None = None) -> StoredResponse:
        """One response; ApiError 404 if it is not stored."""
        stored = self.held.get((caller, response_id))
        if stored is None:
            raise ApiError(
                404, f"unknown {self.what} id ({self.what}s are not persisted)",
                code=f"{self.what.replace(' ', '_')}_not_found", param=param,
            )  # fmt: skip
        return stored

    def all(self, caller: str) -> list[dict[str, Any]]:
        """The responses of a caller, oldest first."""
        return [stored.response for (name, _), stored in self.held.items() if name == caller]

    def forget(self, caller: str, response_id: str) -> None:
        """Delete one response; ApiError 404 if it is not stored."""
        self.size -= self.get(caller, response_id).size
        del self.held[caller, response_id]
