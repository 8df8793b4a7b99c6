"""Cursor pagination of lists, as in OpenAI's API: the cursors are ids."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from harmonia.server.errors import ApiError


def page(
    ids: Sequence[str], limit: int, order: str, after: str | None = None, before: str | None = None
) -> tuple[list[str], bool]:
    """One page of ``ids`` (given oldest first), and whether more follow.

    ApiError 400 if ``after`` or ``before`` is not one of ``ids``.
    """
    ordered = list(ids) if order == "asc" else list(reversed(ids))
    begin = 0 if after is None else _index(ordered, after, "after") + 1
    if before is not None:
        end = _index(ordered, before, "before")
        begin = max(begin, end - limit)
        return ordered[begin:end], begin > 0
    return ordered[begin : begin + limit], len(ordered) > begin + limit


def list_json(data: Sequence[dict[str, Any]], more: bool) -> dict[str, Any]:
    """A page in OpenAI's list format."""
    return {
        "object": "list",
        "data": list(data),
        "first_id": data[0]["id"] if data else None,
        "last_id": data[-1]["id"] if data else None,
        "has_more": more,
    }


def _index(ids: Sequence[str], wanted: str, param: str) -> int:
    try:
        return ids.index(wanted)
    except ValueError:
        raise ApiError(400, f"unknown cursor: {param} is not an id of this list", param=param) from None
