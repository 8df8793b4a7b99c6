"""Filters as OpenAI's clients write them, made SQL conditions on the metadata; nothing is taken as SQL."""

from __future__ import annotations

import math
import re
from collections.abc import Iterator
from itertools import pairwise

from harmonia.collection.json_output import PLACES
from harmonia.server.errors import ApiError
from harmonia.server.schemas.filters import Comparison, Compound, Filter
from harmonia.store.lance.columns import column_name
from harmonia.store.lance.sql import quoted

DEPTH, CONDITIONS = 8, 128
"""How far filters may nest, and how many comparisons they may have."""

FUNCTIONS = frozenset((
    "abs", "array_has", "array_has_all", "array_has_any", "array_length", "cast", "coalesce", "contains",
    "ends_with", "length", "lower", "regexp_like", "starts_with", "trim", "upper",
))  # fmt: skip
"""What a condition may call; others make much of little, such as ``repeat``."""
BEFORE = frozenset(("and", "any", "between", "in", "like", "ilike", "not", "or"))
"""Words that may stand before a parenthesis and call nothing."""
# text, quoted names, words and numbers, signs; a comment is none of these
_TOKEN = re.compile(r"""\s+|'(?:[^']|'')*'|`[^`']*`|"[^"']*"|\w[\w.]*|(?!--|/\*)[-=<>!(),+*/%\[\].]""")
SIGNS = {"eq": "=", "ne": "!=", "gt": ">", "gte": ">=", "lt": "<", "lte": "<="}


def where_of(given: Filter | None, param: str = "filters") -> str | None:
    """The SQL condition of a filter; ApiError 400 if it cannot be meant. None for none."""
    if given is None:
        return None
    if sum(1 for _ in _comparisons(given, 0, param)) > CONDITIONS:
        raise ApiError(400, f"{param} has more than {CONDITIONS} comparisons: give fewer", param=param)
    return _condition(given, param)


def condition_of(where: str | None, given: Filter | None, *more: str | None, admin: bool) -> str | None:
    """All of the conditions that there are, as one; ApiError 403 for one that would tell paths.

    Only a key of scope admin may ask by where files lie, or by the metadata as a whole, which say it too.
    """
    found = [where, where_of(given), *more]
    named = {word for one in found[:2] if one for word in _names(one)}
    if not admin and named & {*PLACES, "metadata"}:
        raise ApiError(
            403, "to filter by path or folder takes a key of scope admin", code="insufficient_scope"
        )
    return " AND ".join(f"({one})" for one in found if one) or None


def _names(condition: str) -> set[str]:
    """The words of an SQL condition outside of its texts, in lower case; ApiError 400 if it does more."""
    tokens, end = [], 0
    while end < len(condition):
        token = _TOKEN.match(condition, end)
        if token is None:
            raise ApiError(400, f"where has {condition[end]!r}, which no condition needs", param="where")
        end = token.end()
        tokens += [token[0].lower()] if token[0].strip() else []
    for word, after in pairwise(tokens):
        if after == "(" and (word[0].isalnum() or word[0] in '_`"') and word not in FUNCTIONS | BEFORE:
            allowed = ", ".join(sorted(FUNCTIONS))
            raise ApiError(400, f"where may not call {word}: use {allowed}", param="where")
    return {word for token in tokens if token[0] != "'" for word in re.findall(r"\w+", token)}


def _comparisons(given: Filter, depth: int, param: str) -> Iterator[Comparison]:
    if isinstance(given, Comparison):
        yield given
        return
    if depth >= DEPTH:
        raise ApiError(400, f"{param} nests deeper than {DEPTH} levels: make it flatter", param=param)
    for one in given.filters:
        yield from _comparisons(one, depth + 1, param)


def _condition(given: Filter, param: str) -> str:
    if isinstance(given, Compound):
        return f" {given.type.upper()} ".join(f"({_condition(one, param)})" for one in given.filters)
    column, value = f"`{column_name(given.key)}`", given.value
    if given.type in ("in", "nin"):
        if not isinstance(value, list) or not value:
            raise ApiError(400, f"{param}: {given.type!r} takes a list of values", param=param)
        among = f"{column} IN ({', '.join(_literal(one, param) for one in value)})"
        return among if given.type == "in" else f"{column} IS NULL OR NOT {among}"
    if isinstance(value, list):
        raise ApiError(400, f"{param}: {given.type!r} takes one value, not a list", param=param)
    if given.type == "contains":
        return f"array_has({column}, {_literal(value, param)})"
    condition = f"{column} {SIGNS[given.type]} {_literal(value, param)}"
    return f"{column} IS NULL OR {condition}" if given.type == "ne" else condition


def _literal(value: str | float | bool, param: str) -> str:
    if isinstance(value, str):
        return quoted(value)
    if isinstance(value, bool):
        return "true" if value else "false"
    if not math.isfinite(value) or abs(value) >= 2**63:
        raise ApiError(400, f"{param}: the number is too large", param=param)
    return repr(value)
