"""Filters on metadata: comparisons, and what joins them."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from harmonia.server.schemas.base import Strict

Value = bool | int | float | Annotated[str, Field(max_length=1000)]


class Comparison(Strict):
    """One metadata key compared with a value. ``contains`` is for keys that hold lists, such as tags."""

    type: Literal["eq", "ne", "gt", "gte", "lt", "lte", "in", "nin", "contains"]
    key: str = Field(min_length=1, max_length=200)
    value: Value | Annotated[list[Value], Field(max_length=1000)]


class Compound(Strict):
    """Several filters: all of them, or any."""

    type: Literal["and", "or"]
    filters: list[Comparison | Compound] = Field(min_length=1, max_length=64)


Filter = Comparison | Compound
