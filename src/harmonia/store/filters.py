"""Conditions on the metadata of records, as a tree that every store engine compiles.

The tree knows no engine. `Filter.matches` says what it means, and engines are tested against it;
`harmonia.store.filter_parser` reads its text form, which ``str`` gives back. Logic is that of SQL with three
values: a comparison with a key that a record lacks is unknown, and so is one with a value of another type;
records are chosen where the condition is true.
"""

from __future__ import annotations

import json
import operator
import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from harmonia.store.terms import (
    Call,
    FilterError,
    Literal,
    Row,
    Term,
    as_literal,
    as_term,
    comparable,
    quoted,
    shown,
    value_of,
)
from harmonia.store.values import Value, kind, row_of

DEPTH, CONDITIONS, TEXT = 16, 1000, 100_000
"""How far a filter may nest, how many conditions it may join, how long its text may be."""

COMPARED: Mapping[str, Callable[[Any, Any], bool]] = {
    "=": operator.eq, "!=": operator.ne, "<": operator.lt,
    "<=": operator.le, ">": operator.gt, ">=": operator.ge,
}  # fmt: skip


class Filter:
    """A condition on a record. Filters are values: equal if they say the same, and hashable."""

    __slots__ = ()

    def matches(self, metadata: Mapping[str, Any], *, id: str = "", created: float = 0.0) -> bool:
        """Whether a record with this metadata (parsed JSON) fulfils the condition."""
        row: dict[str, Value] = row_of(metadata)
        return self.test({**row, "id": id, "created": created, "metadata": json.dumps(metadata)}) is True

    def test(self, row: Row) -> bool | None:
        """True, false or unknown (None) for plain values by column name."""
        raise NotImplementedError

    def parts(self) -> tuple[Filter, ...]:
        """The filters that this one joins."""
        return ()

    def names(self) -> set[str]:
        """The columns that are named, in lower case."""
        return set().union(*(part.names() for part in self.parts()))

    def depth(self) -> int:
        """Levels of filters, this one included."""
        return 1 + max((part.depth() for part in self.parts()), default=0)

    def __eq__(self, other: object) -> bool:
        # By what they say, since 1 == True == 1.0 would make filters equal that find other records.
        return isinstance(other, Filter) and repr(self) == repr(other)

    def __hash__(self) -> int:
        return hash(repr(self))


@dataclass(frozen=True, eq=False)
class OfTerm(Filter):
    """A condition on one column, or a function of it."""

    term: Term

    def __post_init__(self) -> None:
        object.__setattr__(self, "term", as_term(self.term))

    def names(self) -> set[str]:
        """The one column that is named."""
        term = self.term
        while isinstance(term, Call):
            term = term.of
        return {term}


@dataclass(frozen=True, eq=False)
class Comparison(OfTerm):
    """``year > 2019``: a column compared with a value of its type; numbers, whole or not, are one type.

    Text is ordered by its characters' numbers, so dates in ISO form are ordered by time.
    """

    op: str
    value: Literal

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.op not in COMPARED:
            raise FilterError(f"no comparison {self.op}: use {' '.join(COMPARED)}")
        object.__setattr__(self, "value", as_literal(self.value))

    def test(self, row: Row) -> bool | None:
        """Unknown where the value is missing or of another type."""
        value = value_of(self.term, row)
        if value is None or kind(value) != kind(self.value):
            return None
        return COMPARED[self.op](*comparable(value, self.value))

    def __str__(self) -> str:
        return f"{shown(self.term)} {self.op} {quoted(self.value)}"


@dataclass(frozen=True, eq=False)
class In(OfTerm):
    """``year IN (2019, 2020)``: a column has one of some values; unknown for one of none of their types."""

    values: tuple[Literal, ...]

    def __post_init__(self) -> None:
        super().__post_init__()
        if not self.values:
            raise FilterError("IN needs at least one value")
        object.__setattr__(self, "values", tuple(map(as_literal, self.values)))

    def test(self, row: Row) -> bool | None:
        """Unknown where the value is missing or of a type that no value here has."""
        value = value_of(self.term, row)
        alike = [one for one in self.values if value is not None and kind(one) == kind(value)]
        return any(operator.eq(*comparable(value, one)) for one in alike) if alike else None

    def __str__(self) -> str:
        return f"{shown(self.term)} IN ({', '.join(map(quoted, self.values))})"


@dataclass(frozen=True, eq=False)
class IsNull(OfTerm):
    """``tag IS NULL``: a record has no such value."""

    def test(self, row: Row) -> bool | None:
        """Never unknown."""
        return value_of(self.term, row) is None

    def __str__(self) -> str:
        return f"{shown(self.term)} IS NULL"


@dataclass(frozen=True, eq=False)
class Like(OfTerm):
    r"""``name LIKE 'IMG%'``: text of a form; ``%`` is any text, ``_`` a sign, ``\%`` and ``\_`` are these."""

    pattern: str

    def __post_init__(self) -> None:
        super().__post_init__()
        as_literal(self.pattern)
        if re.search(r"(?<!\\)(\\\\)*\\(?![%_\\])", self.pattern):
            raise FilterError(r"in a LIKE pattern a \ stands before %, _ or \: write \\ for one")

    def test(self, row: Row) -> bool | None:
        """Unknown where there is no text."""
        value = value_of(self.term, row)
        signs = re.findall(r"\\.|.", self.pattern, re.DOTALL)
        regex = "".join({"%": ".*", "_": "."}.get(sign, re.escape(sign[-1])) for sign in signs)
        return bool(re.fullmatch(regex, value, re.DOTALL)) if isinstance(value, str) else None

    def __str__(self) -> str:
        return f"{shown(self.term)} LIKE {quoted(self.pattern)}"


@dataclass(frozen=True, eq=False)
class Has(OfTerm):
    """``array_has(people, 'Ada')``: a list holds a text."""

    value: str

    def __post_init__(self) -> None:
        super().__post_init__()
        if not isinstance(as_literal(self.value), str):
            raise FilterError("lists hold texts: array_has takes text in single quotes")

    def test(self, row: Row) -> bool | None:
        """Unknown where there is no list."""
        value = value_of(self.term, row)
        return self.value in value if isinstance(value, list) else None

    def __str__(self) -> str:
        return f"array_has({shown(self.term)}, {quoted(self.value)})"


@dataclass(frozen=True, eq=False)
class Joined(Filter):
    """Several filters as one."""

    filters: tuple[Filter, ...]

    def __post_init__(self) -> None:
        object.__setattr__(self, "filters", tuple(self.filters))
        if not self.filters:
            raise FilterError("AND and OR need at least one filter")

    def parts(self) -> tuple[Filter, ...]:
        """The filters."""
        return self.filters

    def __str__(self) -> str:
        word = f" {type(self).__name__.upper()} "
        return word.join(_inner(part) for part in self.filters)


@dataclass(frozen=True, eq=False)
class And(Joined):
    """All of the filters."""

    def test(self, row: Row) -> bool | None:
        """False if one is; else unknown if one is."""
        found = {part.test(row) for part in self.filters}
        return False if False in found else None if None in found else True


@dataclass(frozen=True, eq=False)
class Or(Joined):
    """Any of the filters."""

    def test(self, row: Row) -> bool | None:
        """True if one is; else unknown if one is."""
        found = {part.test(row) for part in self.filters}
        return True if True in found else None if None in found else False


@dataclass(frozen=True, eq=False)
class Not(Filter):
    """The contrary; of what is unknown, unknown."""

    filter: Filter

    def test(self, row: Row) -> bool | None:
        """Unknown stays unknown."""
        found = self.filter.test(row)
        return None if found is None else not found

    def parts(self) -> tuple[Filter, ...]:
        """The one filter."""
        return (self.filter,)

    def __str__(self) -> str:
        return f"NOT {_inner(self.filter)}"


@dataclass(frozen=True, eq=False)
class Known(Filter):
    """A filter that a person wrote: refused if no record has a column that it names, or of that type.

    Other filters are unknown there.
    """

    filter: Filter

    def test(self, row: Row) -> bool | None:
        """As the filter."""
        return self.filter.test(row)

    def parts(self) -> tuple[Filter, ...]:
        """The one filter."""
        return (self.filter,)

    def depth(self) -> int:
        """As the filter."""
        return self.filter.depth()

    def __str__(self) -> str:
        return str(self.filter)


def all_of(filters: Iterable[Filter | None]) -> Filter | None:
    """The filters that there are as one; None for none."""
    found = tuple(one for one in filters if one is not None)
    return found[0] if len(found) == 1 else And(found) if found else None


def _inner(filter: Filter) -> str:
    return f"({filter})" if isinstance(filter, Joined) or filter.parts() else str(filter)
