"""Filters as SQL of LanceDB: the only place that makes SQL of what a caller says.

A metadata key has a column for each type of its values, at most one of which a record fills; so a comparison
is that of the one column that has a value.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace

import pyarrow as pa

from harmonia.store import filters
from harmonia.store.filters import (
    Comparison,
    Filter,
    Has,
    In,
    IsNull,
    Known,
    Like,
    Not,
)
from harmonia.store.lance.columns import KINDS
from harmonia.store.lance.sql import quoted
from harmonia.store.terms import FUNCTIONS, FilterError, Literal, Term
from harmonia.store.values import kind

UNKNOWN = "CAST(NULL AS BOOLEAN)"
_NUMBER = "CAST({} AS DOUBLE)"
_SQL = {
    "abs": f"abs({_NUMBER})",
    "array_length": "CAST(array_length({}) AS BIGINT)",
    "length": "CAST(length({}) AS BIGINT)",
    "lower": "lower({})", "trim": "btrim({})", "upper": "upper({})",
}  # fmt: skip
_GIVES = {"abs": "float", "array_length": "int", "length": "int"}


@dataclass(frozen=True, slots=True)
class Held:
    """An SQL expression that holds values of one type: bool, int, float, text or list."""

    sql: str
    type: str

    @property
    def kind(self) -> str:
        """The type as filters tell types apart."""
        return "number" if self.type in ("int", "float") else self.type


def compiled(where: Filter, columns: Mapping[str, Sequence[Held]]) -> str:
    """The SQL of a filter over these columns, by the names that filters use; FilterError if it cannot be."""
    if where.depth() > filters.DEPTH:
        raise FilterError(f"the filter is nested deeper than {filters.DEPTH} levels: make it flatter")
    return _Compiler(columns).sql(where)


def held_columns(schema: pa.Schema) -> dict[str, list[Held]]:
    """The columns of the table of records, by the names that filters use."""
    found: dict[str, list[Held]] = {}
    types = {arrow: kind for kind, arrow in KINDS.items()}
    for field in schema:
        found.setdefault(field.name.partition("@")[0], []).append(Held(f"`{field.name}`", types[field.type]))
    return found


@dataclass(frozen=True, slots=True)
class _Compiler:
    columns: Mapping[str, Sequence[Held]]
    strict: bool = False

    def sql(self, where: Filter) -> str:
        match where:
            case Known():
                return replace(self, strict=True).sql(where.filter)
            case filters.Joined():
                word = " AND " if isinstance(where, filters.And) else " OR "
                return word.join(self._inner(part) for part in where.filters)
            case Not():
                return f"NOT ({self.sql(where.filter)})"
            case IsNull():
                return " AND ".join(f"{held.sql} IS NULL" for held in self._held(where.term)) or "true"
            case Comparison():
                return self._of(where.term, kind(where.value), lambda h: _compared(h, where))
            case In():
                return self._among(where)
            case Like():
                return self._of(where.term, "text", lambda h: f"{h.sql} LIKE {quoted(where.pattern)}")
            case Has():
                return self._of(where.term, "list", lambda h: f"array_has({h.sql}, {quoted(where.value)})")
        raise TypeError(type(where).__name__)

    def _inner(self, where: Filter) -> str:
        return f"({self.sql(where)})"

    def _held(self, term: Term) -> list[Held]:
        """The expressions of a term, one for each type; of a record at most one is not null."""
        if isinstance(term, str):
            if self.strict and term not in self.columns:
                raise FilterError(f"there is no column {term}")
            return list(self.columns.get(term, ()))
        of, takes = self._held(term.of), FUNCTIONS[term.function][0]
        self._check(term.of, of, takes, f"{term.function} takes")
        gives = _GIVES.get(term.function, "text")
        return [Held(_SQL[term.function].format(one.sql), gives) for one in of if one.kind == takes]

    def _check(self, term: Term, held: Sequence[Held], wanted: str, doing: str) -> None:
        if self.strict and isinstance(term, str) and wanted not in {one.kind for one in held}:
            kinds = " and ".join(dict.fromkeys(one.kind for one in held))
            instead = f" (write array_has({term}, 'text'))" if kinds == "list" else ""
            raise FilterError(f"{term} holds {kinds}, {doing} {wanted}{instead}")

    def _of(self, term: Term, wanted: str, condition: Callable[[Held], str]) -> str:
        """The condition on the columns of one type."""
        held = self._held(term)
        self._check(term, held, wanted, "this condition is for")
        return _first([condition(one) for one in held if one.kind == wanted])

    def _among(self, where: In) -> str:
        held = self._held(where.term)
        kinds = {kind(value) for value in where.values}
        for wanted in sorted(kinds):
            self._check(where.term, held, wanted, "this condition is for")
        return _first([_one_of(one, where.values) for one in held if one.kind in kinds])


def _first(conditions: Sequence[str]) -> str:
    """The condition that is not null."""
    if len(conditions) > 1:
        return f"coalesce({', '.join(conditions)})"
    return conditions[0] if conditions else UNKNOWN


def _one_of(held: Held, values: Sequence[Literal]) -> str:
    found: dict[str, list[str]] = {}
    for value in values:
        if kind(value) == held.kind:
            left, right = _sides(held, value)
            found.setdefault(left, []).append(right)
    return " OR ".join(f"{left} IN ({', '.join(right)})" for left, right in found.items())


def _compared(held: Held, where: Comparison) -> str:
    left, right = _sides(held, where.value)
    return f"{left} {where.op} {right}"


def _sides(held: Held, value: Literal) -> tuple[str, str]:
    """The column and the value, both whole, or both floating numbers."""
    if isinstance(value, str):
        return held.sql, quoted(value)
    if isinstance(value, bool):
        return held.sql, repr(value).lower()
    # The literal -2**63 is read as the negative of what no whole number can be.
    if held.type == "int" and isinstance(value, int) and value != -(2**63):
        return held.sql, repr(value)
    return _NUMBER.format(held.sql) if held.type == "int" else held.sql, repr(float(value))
