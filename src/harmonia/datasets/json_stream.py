"""The elements of a large JSON array one by one: annotation files of public datasets reach hundreds of
megabytes, and json.load takes several times that in memory.

The package ijson would do less: its parser in C turns half a surrogate pair into "?" without a word and
refuses integers of more than 64 bits, and the one in Python took 20 times as long.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any, TextIO

_CHUNK = 1 << 16  # characters read at once


def json_items(path: Path, key: str | None = None) -> Iterator[Any]:
    """Stream the array that a JSON file is, or the one under ``key`` of the object that it is.

    Only one element is held at a time. Raises ValueError when the file is not such JSON or ends early (after
    the elements before the damage), OSError when it cannot be opened.
    """
    with path.open(encoding="utf-8-sig") as file:
        scanner = _Scanner(file)
        if key is None:
            yield from scanner.array()
            return
        for name in scanner.members():
            if name == key:
                yield from scanner.array()
                return
            if scanner.peek() == "[":  # an array that nobody asked for may be large as well
                for _ in scanner.array():
                    pass
            else:
                scanner.value()
    raise ValueError(f"it has no {key!r}")


class _Scanner:
    """A window that moves over a JSON text."""

    def __init__(self, file: TextIO) -> None:
        self._file = file
        self._text = ""
        self._at = 0
        self._ended = False
        self._decode = json.JSONDecoder().raw_decode

    def peek(self) -> str:
        """The next character that is no white space; empty at the end."""
        while True:
            while self._at < len(self._text):
                if self._text[self._at] not in " \t\r\n":
                    return self._text[self._at]
                self._at += 1
            if not self._more(_CHUNK):
                return ""

    def take(self, expected: str) -> None:
        """Step over one character."""
        if (found := self.peek()) != expected:
            raise ValueError(f"it is cut or damaged: {expected!r} expected, {found!r} found")
        self._at += 1

    def value(self) -> Any:
        """The next whole value; what has been read of it is doubled until it is complete."""
        self.peek()
        size = _CHUNK
        while True:
            try:
                value, end = self._decode(self._text, self._at)
            except json.JSONDecodeError as error:
                if not self._more(size):
                    raise ValueError(f"it is cut or damaged: {error.msg}") from None
            except RecursionError:
                raise ValueError("it is nested too deep") from None
            else:
                if end < len(self._text) or not self._more(size):  # a number may go on in the next chunk
                    self._at = end
                    return value
            size *= 2

    def array(self) -> Iterator[Any]:
        """The elements of the array that begins here."""
        self.take("[")
        while self.peek() != "]":
            yield self.value()
            if self.peek() != "]":
                self.take(",")
        self.take("]")

    def members(self) -> Iterator[Any]:
        """The keys of the object that begins here; the caller consumes the value after each."""
        self.take("{")
        while self.peek() != "}":
            name = self.value()
            self.take(":")
            self.peek()
            yield name
            if self.peek() != "}":
                self.take(",")
        self.take("}")

    def _more(self, size: int) -> bool:
        chunk = "" if self._ended else self._file.read(size)
        self._ended = not chunk
        self._text = self._text[self._at :] + chunk
        self._at = 0
        return bool(chunk)
