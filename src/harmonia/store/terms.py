"""What filters compare: columns, functions of them, and the values they are compared with."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, TypeAlias

from harmonia.store.values import Value, kind, plain
from harmonia.types import HarmoniaError

Literal: TypeAlias = bool | int | float | str
Row: TypeAlias = Mapping[str, Value | None]

KEYWORDS = frozenset(("and", "or", "not", "in", "like", "ilike", "between", "is", "null", "true", "false"))
_WORD = re.compile(r"[^\W\d]\w*")


class FilterError(HarmoniaError):
    """A filter that cannot be understood, or that names what is not there."""


@dataclass(frozen=True, slots=True)
class Call:
    """A function of a column: lower, upper, trim and length of text, abs, array_length of a list."""

    function: str
    of: Term

    def __post_init__(self) -> None:
        if self.function not in FUNCTIONS:
            raise FilterError(f"no function {self.function}: use {', '.join(FUNCTIONS)}")
        object.__setattr__(self, "of", as_term(self.of))

    def __str__(self) -> str:
        return f"{self.function}({shown(self.of)})"


Term: TypeAlias = str | Call
"""A column by its name, or a function of one."""

FUNCTIONS: Mapping[str, tuple[str, Callable[[Any], Value]]] = {
    "abs": ("number", lambda value: abs(float(value))),
    "array_length": ("list", len),
    "length": ("text", len),
    "lower": ("text", str.lower),
    "trim": ("text", lambda value: value.strip(" ")),
    "upper": ("text", str.upper),
}
"""What a term may call: the type that it takes, and what it gives; unknown for values of other types."""


def shown(term: Term) -> str:
    """A term in the text form."""
    if isinstance(term, Call):
        return str(term)
    return term if _WORD.fullmatch(term) and term not in KEYWORDS else f"`{term}`"


def quoted(value: Literal) -> str:
    """A value in the text form."""
    if isinstance(value, str):
        return "'" + value.replace("'", "''") + "'"
    return repr(value).lower()


def as_term(term: Term) -> Term:
    """A column as filters name it; FilterError for an empty name."""
    if isinstance(term, Call):
        return term
    if not term:
        raise FilterError("a column's name is empty")
    return re.sub(r"\W", "_", term.lower())


def as_literal(value: Literal) -> Literal:
    """A value that can be compared with; FilterError for another."""
    seen = plain(value)
    if seen is None or isinstance(seen, list) or (isinstance(seen, float) and math.isinf(seen)):
        raise FilterError(f"{value!r:.40} cannot be compared with: give text, a finite number, true or false")
    return seen


def value_of(term: Term, row: Row) -> Value | None:
    """What a term is for a record; None where it has no value, or none of the type that a function takes."""
    if isinstance(term, str):
        return row.get(term)
    value, (takes, function) = value_of(term.of, row), FUNCTIONS[term.function]
    return None if value is None or kind(value) != takes else function(value)


def comparable(one: Any, other: Any) -> tuple[Any, Any]:
    """Whole numbers as they are, a whole and another as floating numbers, as engines compare them."""
    if kind(one) == "number" and type(one) is not type(other):
        return float(one), float(other)
    return one, other
