"""Cursor pagination of lists, as in OpenAI's API: the cursors are ids."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated, Any, Literal

from fastapi import Depends, Query

Cursor = str | None
"""The id after or before which a page lies; any text, since an unknown one is no error."""
Limit = Annotated[int, Query(ge=0, le=100)]
"""Most ids of a page."""
Order = Literal["asc", "desc"]
"""By time of creation."""


def page(
    ids: Sequence[str], limit: int, order: str, after: str | None = None, before: str | None = None
) -> tuple[list[str], bool]:
    """One page of ``ids`` (given oldest first), and whether more follow.

    Nothing comes after or before an id that is not one of ``ids``. An empty cursor is none.
    """
    ordered = list(ids) if order == "asc" else list(reversed(ids))
    if any(cursor and cursor not in ordered for cursor in (after, before)):
        return [], False
    begin = ordered.index(after) + 1 if after else 0
    if before:
        end = ordered.index(before)
        begin = max(begin, end - limit)
        return ordered[begin:end], begin > 0
    return ordered[begin : begin + limit], len(ordered) > begin + limit


@dataclass(frozen=True, slots=True)
class Wanted:
    """The page that a request wants of a list, newest first by default."""

    limit: int
    order: str
    after: str | None
    before: str | None

    def of(self, ids: Sequence[str]) -> tuple[list[str], bool]:
        """That page of ``ids`` (given oldest first), and whether more follow."""
        return page(ids, self.limit, self.order, self.after, self.before)


def get_wanted(
    limit: Limit = 20, order: Order = "desc", after: Cursor = None, before: Cursor = None
) -> Wanted:
    """The parameters of a list, as most lists take them."""
    return Wanted(limit, order, after, before)


PageDep = Annotated[Wanted, Depends(get_wanted)]
"""The parameter type by which a route gets the wanted page."""


def list_json(data: Sequence[dict[str, Any]], more: bool) -> dict[str, Any]:
    """A page in OpenAI's list format."""
    return {
        "object": "list",
        "data": list(data),
        "first_id": data[0]["id"] if data else None,
        "last_id": data[-1]["id"] if data else None,
        "has_more": more,
    }
