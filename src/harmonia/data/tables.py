"""The rows of a manifest: JSON lines, CSV or Parquet, read as a stream."""

from __future__ import annotations

import csv
import io
import json
import math
import re
import sys
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from harmonia.data.arrow_values import values
from harmonia.data.records import is_writable_text
from harmonia.modalities import LIMITS
from harmonia.modalities.text_encoding import REPLACED, codec_of

Row = Mapping[str, Any]
Rows = Iterator[tuple[int, Row | str]]
"""(row number from 1, the row or the reason why it is unreadable)"""

TABLE_ERRORS = (OSError, UnicodeError, csv.Error, pa.ArrowException)
"""What a damaged table raises, when it is opened or between two rows."""

_BATCH = 64  # rows of Parquet decoded at once: embedded photos make a row large


def read_table(path: Path, is_part: Callable[[str], bool]) -> tuple[list[str], Rows]:
    """Column names and rows of a table, its format told by the suffix; raises TABLE_ERRORS.

    Only CSV needs ``is_part``: a column that holds parts of records stays text there, any other
    has the type that all its cells can be read as.
    """
    match path.suffix.lower():
        case ".jsonl":
            rows = (row for _, row in _json_rows(path) if not isinstance(row, str))
            return list(dict.fromkeys(name for row in rows for name in row)), _json_rows(path)
        case ".csv":
            return _csv_columns(path), _typed_csv_rows(path, is_part)
        case ".parquet":
            with pq.ParquetFile(path) as file:
                return list(file.schema_arrow.names), _parquet_rows(path)
        case other:
            raise ValueError(f"{other} is not a format of manifests")


def _json_rows(path: Path) -> Rows:
    """One JSON object a line. Empty lines are counted and skipped."""
    with path.open("rb") as file:
        encoding, _ = codec_of(file.read(2**16)) or ("", 0)
    wide = encoding.startswith(("utf-16", "utf-32"))  # as some shells write their output
    lines: AbstractContextManager[Iterable[str | bytes]] = _text(path) if wide else path.open("rb")
    with lines as found:
        for number, line in enumerate(found, start=1):
            if not line.strip():
                continue
            try:
                row = json.loads(line)
            except (ValueError, RecursionError) as error:
                yield number, f"this is not JSON: {error}"
                continue
            if not isinstance(row, dict):
                yield number, "this is not a JSON object {...}"
            elif reason := _unfit(row):
                yield number, reason
            else:
                yield number, row


def _unfit(row: dict[str, Any]) -> str:
    """Why an object cannot be a row, empty when it can."""
    try:
        whole = is_writable_text(json.dumps(row, ensure_ascii=False))
    except RecursionError:
        return "it is nested too deep"
    return "" if whole else "it holds half a character (a lone surrogate)"


@dataclass(frozen=True, slots=True)
class _Form:
    """How a CSV file is written: what stands between cells, and whether spaces after it belong to no cell."""

    delimiter: str
    spaced: bool


def _csv_columns(path: Path) -> list[str]:
    with _text(path) as lines:
        return _header(lines)[0]


def _header(lines: Iterator[str]) -> tuple[list[str], _Form]:
    """Column names and form: comma, semicolon, tab or bar, whichever the first line has most of.

    A first line ``sep=;``, as Excel writes it, names the delimiter.
    """
    first = next((line for line in lines if line.strip()), "")
    if named := re.fullmatch(r"sep=(.)", first.rstrip("\r\n"), re.IGNORECASE):
        delimiter, first = named[1], next(lines, "")
    else:
        delimiter = max(",;\t|", key=first.count)
    form = _Form(delimiter, delimiter + " " in first)
    cells = next(_csv_cells(chain([first], lines), form), [])
    if isinstance(cells, str):
        raise csv.Error(f"its first row: {cells}")
    return cells, form


def _csv_rows(path: Path) -> Iterator[tuple[int, dict[str, str] | str]]:
    """The cells that are not empty."""
    with _text(path) as lines:
        names, form = _header(lines)
        for number, cells in enumerate(_csv_cells(lines, form, len(names)), start=1):
            if isinstance(cells, str):
                yield number, cells
            else:
                yield number, {name: cell for name, cell in zip(names, cells, strict=False) if cell}


def _csv_cells(lines: Iterator[str], form: _Form, most: int = sys.maxsize) -> Iterator[list[str] | str]:
    """The cells of each row, or why it cannot be read. ``most`` is how many cells a row may have.

    A row that is badly quoted ends with its first line, so that a quote which is never closed leaves
    the lines after it.
    """
    csv.field_size_limit(sys.maxsize)
    again: deque[str] = deque()  # lines that a row took which was none

    def of_one_row(taken: list[str]) -> Iterator[str]:
        size = 0
        while size <= LIMITS.text_bytes:
            line = again.popleft() if again else next(lines, None)
            if line is None:
                return
            taken.append(line)
            size += len(line)
            yield line.replace("\0", REPLACED)

    while True:
        taken: list[str] = []
        try:
            reader = csv.reader(
                of_one_row(taken), delimiter=form.delimiter, skipinitialspace=form.spaced, strict=True
            )
            cells = next(reader, None)
        except csv.Error as error:
            again.extendleft(reversed(taken[1:]))
            yield f"it is badly quoted: {error}"
            continue
        if cells is None:
            return
        if len(cells) > most:
            again.extendleft(reversed(taken[1:]))
            yield "it has more cells than the header (quote cells with commas)"
        elif cells:
            yield cells


@contextmanager
def _text(path: Path) -> Iterator[Iterator[str]]:
    """The lines of a text of any encoding; UnicodeError if it is none."""
    with path.open("rb") as file:
        beginning = file.read(LIMITS.text_bytes)
        if len(beginning) == LIMITS.text_bytes:
            beginning = beginning[: beginning.rfind(b"\n") + 1] or beginning
        found = codec_of(beginning)
        if found is None:
            raise UnicodeError
        encoding, mark = found
        file.seek(mark)
        with io.TextIOWrapper(file, encoding=encoding, errors="replace", newline="") as lines:
            yield lines


def _typed_csv_rows(path: Path, is_part: Callable[[str], bool]) -> Rows:
    """Two passes: the first finds the one type that fits all cells of a column."""
    types: dict[str, list[Callable[[str], Any]]] = {}
    for _, row in _csv_rows(path):
        if isinstance(row, str):
            continue
        for name, cell in row.items():
            known = types.get(name, [_list] if is_part(name) else [_integer, _number, _truth, _list])
            types[name] = [parse for parse in known if _fits(parse, cell)]
    parsers = {name: (fitting or [str])[0] for name, fitting in types.items()}
    for number, row in _csv_rows(path):
        if isinstance(row, str):
            yield number, row
        else:
            yield number, {name: parsers[name](cell) for name, cell in row.items()}


def _fits(parse: Callable[[str], Any], cell: str) -> bool:
    try:
        parse(cell)
    except ValueError:
        return False
    return True


def _integer(cell: str) -> int:
    if not re.fullmatch(r"-?(0|[1-9][0-9]*)", cell):  # 007 is a name, not a number
        raise ValueError(cell)
    return int(cell)


def _number(cell: str) -> float:
    if not re.fullmatch(r"-?(0|[1-9][0-9]*)(\.[0-9]+)?([eE][+-]?[0-9]+)?", cell):
        raise ValueError(cell)
    if math.isinf(number := float(cell)):  # longer than a number can be: it stays text
        raise ValueError(cell)
    return number


def _truth(cell: str) -> bool:
    if cell.lower() not in ("true", "false"):
        raise ValueError(cell)
    return cell.lower() == "true"


def _list(cell: str) -> list[Any]:
    value = json.loads(cell) if cell.startswith("[") else None
    if not isinstance(value, list):
        raise ValueError(cell)
    return value


def _parquet_rows(path: Path) -> Rows:
    """Rows as plain values. A group of rows that is damaged is one problem; the others are read."""
    with pq.ParquetFile(path) as file:
        names = file.schema_arrow.names
        number = 0
        for group in range(file.num_row_groups):
            end = number + file.metadata.row_group(group).num_rows
            try:
                for batch in file.iter_batches(batch_size=_BATCH, row_groups=[group]):
                    for row in zip(*map(values, batch.columns), strict=True):
                        number += 1
                        yield number, dict(zip(names, row, strict=True))
            except (OSError, pa.ArrowException) as error:
                reason = str(error).partition("\n")[0]
                yield number + 1, f"the rows up to {end} cannot be read: {reason}"
                number = end
