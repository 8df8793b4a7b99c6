"""ResponseStore that are kept for their caller, so that a conversation can go on: in memory only, so many."""

from __future__ import annotations

import json
from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from harmonia.server.errors import ApiError
from harmonia.server.openai.messages import Turn

MAX_RESPONSES, MAX_BYTES = 1000, 64 * 2**20
"""ResponseStore that are kept, and their bytes as JSON; the oldest go first."""


@dataclass(frozen=True, slots=True, eq=False)
class StoredResponse:
    """A response, and the words of the conversation with it."""

    response: dict[str, Any]
    turns: Sequence[Turn]
    size: int


class ResponseStore:
    """What was answered, by the name of the caller's key and the id of the response."""

    def __init__(self, most: int = MAX_RESPONSES, size: int = MAX_BYTES) -> None:
        self.most, self.limit, self.size = most, size, 0
        self.held: OrderedDict[tuple[str, str], StoredResponse] = OrderedDict()

    def keep(self, caller: str, response: dict[str, Any], turns: Sequence[Turn]) -> None:
        """Keep a response; its conversation's media are not kept."""
        spoken = [Turn(turn.role, turn.text) for turn in turns]
        size = len(json.dumps(response)) + sum(len(turn.text) for turn in spoken)
        self.held[caller, response["id"]] = StoredResponse(response, spoken, size)
        self.size += size
        while len(self.held) > self.most or self.size > self.limit:
            self.size -= self.held.popitem(last=False)[1].size

    def get(self, caller: str, response_id: str, param: str | None = None) -> StoredResponse:
        """One response; ApiError 404 if it is not kept."""
        found = self.held.get((caller, response_id))
        if found is None:
            raise ApiError(
                404, "there is no such response: they are kept in memory only, until the server ends",
                code="response_not_found", param=param,
            )  # fmt: skip
        return found

    def forget(self, caller: str, response_id: str) -> None:
        """Forget one response; ApiError 404 if it is not kept."""
        self.size -= self.get(caller, response_id).size
        del self.held[caller, response_id]
