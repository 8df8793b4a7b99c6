"""The text form of filters: docs/filters.md has its grammar.

By hand, as it is a dozen rules: a library for all of SQL would accept far more, to be refused again.
"""

from __future__ import annotations

import datetime
import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import NoReturn, TypeVar

from harmonia.store.filters import (
    CONDITIONS,
    DEPTH,
    TEXT,
    And,
    Comparison,
    Filter,
    Has,
    In,
    IsNull,
    Known,
    Like,
    Not,
    Or,
)
from harmonia.store.terms import FUNCTIONS, KEYWORDS, Call, FilterError, Literal, Term

T = TypeVar("T")

_TOKEN = re.compile(
    r"""(?P<space>\s+)
    |(?P<text>'(?:[^']|'')*')
    |(?P<name>`[^`]+`|"[^"]+")
    |(?P<date>\d{4}-\d\d(?:-\d\d(?:T\d\d:\d\d(?::\d\d(?:\.\d+)?)?(?:Z|[+-]\d\d:\d\d)?)?)?(?![\w.-]))
    |(?P<number>(?:\d+(?:\.\d*)?|\.\d+)(?:[eE][+-]?\d+)?(?![\w.]))
    |(?P<word>[^\W\d]\w*)
    |(?P<sign><=|>=|<>|!=|==|[]\[+=<>(),-])""",
    re.VERBOSE,
)
_SAME = {"<>": "!=", "==": "="}
_TURNED = {"<": ">", "<=": ">=", ">": "<", ">=": "<=", "=": "=", "!=": "!="}
_LISTS: dict[str, Callable[[tuple[Filter, ...]], Filter]] = {"array_has_any": Or, "array_has_all": And}
_PATTERNS = {"contains": "%{}%", "starts_with": "{}%", "ends_with": "%{}"}


def as_filter(where: Filter | str | None) -> Filter | None:
    """What a caller gave as a condition: text is parsed, and has to name columns that there are."""
    return Known(parse(where)) if isinstance(where, str) else where


def parse(text: str) -> Filter:
    """The filter that a text says; FilterError, which says where, for a text that is none."""
    return _Parser(text).whole()


@dataclass(frozen=True, slots=True)
class _Token:
    kind: str
    text: str
    at: int

    def is_a(self, *words: str) -> bool:
        return self.kind in ("word", "sign") and self.text.lower() in words


class _Parser:
    def __init__(self, text: str) -> None:
        self._text, self._tokens, self._next = text, [_Token("end", "the end", len(text))], 0
        self._depth = self._conditions = 0
        if len(text) > TEXT:
            raise FilterError(f"cannot filter by a text of more than {TEXT:,} characters: give a shorter one")
        tokens, at = [], 0
        while at < len(text):
            found = _TOKEN.match(text, at)
            if found is None:
                lone = text[at] in "'`\""
                self._fail(at, f"{text[at]} is never closed" if lone else f"unexpected {text[at]!r}")
            if found.lastgroup != "space":
                tokens.append(_Token(found.lastgroup or "", found[0], at))
            at = found.end()
        self._tokens = tokens + self._tokens

    def whole(self) -> Filter:
        found = self._or()
        if self._here.kind != "end":
            self._unexpected("AND, OR or the end")
        return found

    # Tokens

    @property
    def _here(self) -> _Token:
        return self._tokens[self._next]

    def _fail(self, at: int, problem: str) -> NoReturn:
        text = self._text if len(self._text) <= 200 else self._text[:200] + "..."
        raise FilterError(f"cannot filter by {text!r}: {problem} at character {at + 1}")

    def _unexpected(self, wanted: str) -> NoReturn:
        here = self._here
        found = here.text if here.kind == "end" else f"{here.text[:40]!r}"
        self._fail(here.at, f"expected {wanted}, found {found}")

    def _take(self, *words: str) -> str | None:
        """The next token in lower case, if it is one of these words or signs."""
        if not self._here.is_a(*words):
            return None
        self._next += 1
        return self._tokens[self._next - 1].text.lower()

    def _need(self, word: str) -> None:
        if self._take(word) is None:
            self._unexpected(word.upper())

    # Logic

    def _or(self) -> Filter:
        return self._joined(self._and, "or", Or)

    def _and(self) -> Filter:
        return self._joined(self._not, "and", And)

    def _joined(self, one: Callable[[], Filter], word: str, join: type[And] | type[Or]) -> Filter:
        found = [one()]
        while self._take(word):
            found.append(one())
        return join(tuple(found)) if len(found) > 1 else found[0]

    def _not(self) -> Filter:
        at = self._here.at
        if (word := self._take("not", "(")) is None:
            self._conditions += 1
            if self._conditions > CONDITIONS:
                self._fail(at, f"more than {CONDITIONS} conditions")
            return self._condition()
        self._depth += 1
        if self._depth > DEPTH:
            self._fail(at, f"nested deeper than {DEPTH} levels")
        if word == "not":
            found: Filter = Not(self._not())
        else:
            found = self._or()
            self._need(")")
        self._depth -= 1
        return found

    # Conditions

    def _condition(self) -> Filter:
        at = self._here.at
        try:
            return self._checked_condition()
        except FilterError as error:
            if str(error).startswith("cannot filter by "):
                raise
            self._fail(at, str(error))

    def _checked_condition(self) -> Filter:
        function = self._here.text.lower() if self._opens_call() else ""
        if function == "array_has" or function in _LISTS or function in _PATTERNS:
            return self._predicate(function)
        found: Filter
        if self._here.kind in ("text", "date", "number") or self._here.is_a("-", "+", "true", "false"):
            value, op = self._literal(), self._operator()  # 2019 < year
            if op is None:
                self._unexpected("a comparison")
            term, default = self._term()
            found = Comparison(term, _TURNED[op], value)
        else:
            term, default = self._term()
            found = self._of(term)
        if default is None:
            return found
        # coalesce(rating, 0) > 3: what the default says stands where there is no value
        (name,) = found.names()
        missing = IsNull(name)
        return Or((missing, found)) if found.test({name: default}) else And((Not(missing), found))

    def _of(self, term: Term) -> Filter:
        """What follows a term."""
        if op := self._operator():
            return Comparison(term, op, self._literal())
        if self._take("is"):
            negated = self._take("not")
            self._need("null")
            return Not(IsNull(term)) if negated else IsNull(term)
        negated = self._take("not")
        word = self._take("in", "like", "ilike", "between")
        found: Filter
        if word == "in":
            found = In(term, tuple(self._many("(", ")", self._literal)))
        elif word == "between":
            low = self._literal()
            self._need("and")
            found = And((Comparison(term, ">=", low), Comparison(term, "<=", self._literal())))
        elif word:
            pattern = self._literal_text()
            found = Like(term, pattern) if word == "like" else Like(Call("lower", term), pattern.lower())
        elif negated or isinstance(term, Call):
            self._unexpected("IN, LIKE, ILIKE or BETWEEN" if negated else "a comparison")
        else:
            found = Comparison(term, "=", True)
        return Not(found) if negated else found

    def _predicate(self, function: str) -> Filter:
        self._next += 1
        self._need("(")
        term = self._term()[0]
        self._need(",")
        if function in _PATTERNS:
            plain = re.sub(r"([\\%_])", r"\\\1", self._literal_text())
            found: Filter = Like(term, _PATTERNS[function].format(plain))
        elif function == "array_has":
            found = Has(term, self._literal_text())
        else:
            found = self._list_of(term, function)
        self._need(")")
        return found

    def _list_of(self, term: Term, function: str) -> Filter:
        found: list[Filter] = [Has(term, text) for text in self._many("[", "]", self._literal_text)]
        return found[0] if len(found) == 1 else _LISTS[function](tuple(found))

    # Terms and values

    def _opens_call(self) -> bool:
        after = self._tokens[min(self._next + 1, len(self._tokens) - 1)]
        return self._here.kind == "word" and self._here.text.lower() not in KEYWORDS and after.is_a("(")

    def _term(self) -> tuple[Term, Literal | None]:
        """A column or a function of one, and what `coalesce` gives where there is none."""
        here = self._here
        if self._opens_call():
            return self._call(here)
        if here.kind == "name":
            self._next += 1
            return here.text[1:-1], None
        if here.kind != "word" or here.text.lower() in KEYWORDS:
            self._unexpected("a column")
        self._next += 1
        return here.text, None

    def _call(self, here: _Token) -> tuple[Term, Literal | None]:
        function = here.text.lower()
        if function != "coalesce" and function not in FUNCTIONS:
            known = ", ".join(sorted({*FUNCTIONS, "coalesce", "array_has", *_LISTS, *_PATTERNS}))
            self._fail(here.at, f"no function {here.text[:40]} (use {known})")
        self._depth += 1
        if self._depth > DEPTH:
            self._fail(here.at, f"nested deeper than {DEPTH} levels")
        self._next += 2
        term, default = self._term()
        if function == "coalesce":
            if isinstance(term, Call) or default is not None:
                self._fail(here.at, "coalesce takes a column and a value")
            self._need(",")
            default = self._literal()
        else:
            term = Call(function, term)
        self._need(")")
        self._depth -= 1
        return term, default

    def _operator(self) -> str | None:
        op = self._take("=", "==", "!=", "<>", "<", "<=", ">", ">=")
        return None if op is None else _SAME.get(op, op)

    def _literal(self) -> Literal:
        here = self._here
        sign = self._take("-", "+")
        token = self._here
        if token.kind == "number":
            self._next += 1
            whole = token.text.isdecimal() and len(token.text) < 400
            number: float = int(token.text) if whole else float(token.text)
            return -number if sign == "-" else number
        if sign is None and token.kind in ("text", "date"):
            self._next += 1
            return token.text[1:-1].replace("''", "'") if token.kind == "text" else self._date(token)
        if sign is None and (word := self._take("true", "false")):
            return word == "true"
        if here.is_a("null"):
            self._fail(here.at, "nothing equals NULL (write IS NULL or IS NOT NULL)")
        self._unexpected("a value, text in single quotes")

    def _date(self, token: _Token) -> str:
        try:
            month = len(token.text) == len("2019-06")
            datetime.datetime.fromisoformat(token.text + "-01" * month)
        except ValueError:
            self._fail(token.at, f"{token.text} is no date")
        return token.text

    def _literal_text(self) -> str:
        if self._here.kind != "text":
            self._unexpected("text in single quotes")
        return str(self._literal())

    def _many(self, first: str, last: str, one: Callable[[], T]) -> list[T]:
        self._need(first)
        found = [one()]
        while self._take(","):
            found.append(one())
        self._need(last)
        return found
