"""Filters as OpenAI's clients write them, and as text, made filters of the store."""

from __future__ import annotations

import math
from collections.abc import Iterator

from harmonia.collection.json_output import PRIVATE
from harmonia.server.errors import ApiError
from harmonia.server.keys import Key
from harmonia.server.schemas.filters import Comparison, Compound, Filter
from harmonia.store import as_filter
from harmonia.store import filters as tree
from harmonia.store.terms import FilterError, Literal
from harmonia.store.values import column_name

DEPTH, CONDITIONS = 8, 128
"""How far filters may nest, and how many comparisons they may have."""

SIGNS = {"eq": "=", "ne": "!=", "gt": ">", "gte": ">=", "lt": "<", "lte": "<="}


def where_of(given: Filter | None, param: str = "filters") -> tree.Filter | None:
    """The store's filter for a client's; ApiError 400 if it cannot be meant. None for none.

    A key that no record has matches nothing, as with OpenAI.
    """
    if given is None:
        return None
    if sum(1 for _ in _comparisons(given, 0, param)) > CONDITIONS:
        raise ApiError(400, f"{param} has more than {CONDITIONS} comparisons: give fewer", param=param)
    return _condition(given, param)


def condition_of(
    where: str | None, given: Filter | None, *more: tree.Filter | None, key: Key
) -> tree.Filter | None:
    """All of the conditions that there are, and that of the caller's ``key``, as one.

    ApiError 403 for one that would tell paths: only a key of scope admin may ask by where files lie and whose
    records are, or by the metadata as a whole, which say it too.
    """
    try:
        asked = as_filter(where or None)
        if isinstance(asked, tree.Known) and key.namespace is not None:
            asked = asked.filter  # what it refuses would tell the columns of others
        found = [asked, where_of(given), *more, key.records]
    except FilterError as error:
        raise ApiError(400, str(error), param="where") from error
    named = {name for one in found[:2] if one for name in one.names()}
    if not key.may("admin") and named & {*PRIVATE, "metadata"}:
        raise ApiError(
            403, "to filter by path, folder or namespace takes a key of scope admin",
            code="insufficient_scope",
        )  # fmt: skip
    joined = tree.all_of(found)
    if joined is not None and joined.depth() > tree.DEPTH:
        raise ApiError(400, "the filter is nested too deep: make it flatter", param="where")
    return joined


def _comparisons(given: Filter, depth: int, param: str) -> Iterator[Comparison]:
    if isinstance(given, Comparison):
        yield given
        return
    if depth >= DEPTH:
        raise ApiError(400, f"{param} nests deeper than {DEPTH} levels: make it flatter", param=param)
    for one in given.filters:
        yield from _comparisons(one, depth + 1, param)


def _condition(given: Filter, param: str) -> tree.Filter:
    if isinstance(given, Compound):
        join = tree.And if given.type == "and" else tree.Or
        return join(tuple(_condition(one, param) for one in given.filters))
    column, value = column_name(given.key), given.value
    if given.type in ("in", "nin"):
        if not isinstance(value, list) or not value:
            raise ApiError(400, f"{param}: {given.type!r} takes a list of values", param=param)
        among = tree.In(column, tuple(_literal(one, param) for one in value))
        return among if given.type == "in" else tree.Or((tree.IsNull(column), tree.Not(among)))
    if isinstance(value, list):
        raise ApiError(400, f"{param}: {given.type!r} takes one value, not a list", param=param)
    if given.type == "contains":
        if not isinstance(value, str):
            raise ApiError(400, f"{param}: 'contains' takes text", param=param)
        return tree.Has(column, str(_literal(value, param)))
    condition = tree.Comparison(column, SIGNS[given.type], _literal(value, param))
    return tree.Or((tree.IsNull(column), condition)) if given.type == "ne" else condition


def _literal(value: Literal, param: str) -> Literal:
    if isinstance(value, int | float) and (not math.isfinite(value) or abs(value) >= 2**63):
        raise ApiError(400, f"{param}: the number is too large", param=param)
    return value
