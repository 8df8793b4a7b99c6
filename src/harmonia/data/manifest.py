"""A manifest: a table whose rows are records. :func:`read_manifest` says what its columns mean."""

from __future__ import annotations

import json
import math
import re
import stat
from collections.abc import Iterator, Sequence
from contextlib import suppress
from datetime import date, time, timedelta
from decimal import Decimal
from functools import cache
from pathlib import Path
from typing import Any

from harmonia.data.embedded import extract, suffix_of
from harmonia.data.records import Problem, absolute, file_facts, file_part, why
from harmonia.data.tables import TABLE_ERRORS, Row, read_table
from harmonia.modalities import modality_of
from harmonia.types import MODALITIES, HarmoniaError, Part, Record

MANIFEST_SUFFIXES = (".jsonl", ".csv", ".parquet")

COLUMNS = {
    "file_name": "file",
    "path": "file",
    "caption": "text",
    "captions": "text",
    "note": "text",
    "transcript": "text",
    "photo": "image",
    "picture": "image",
    "jpeg": "image",
    "jpg": "image",
    "png": "image",
    "sound": "audio",
    "wav": "audio",
    "mp3": "audio",
    "flac": "audio",
    "ogg": "audio",
    "mp4": "video",
}
"""Column names understood besides the modalities themselves, and what they hold. ``file`` is a path
whose suffix tells the modality. Case does not count."""


@cache
def column_holds(column: str) -> str | None:
    """What a column holds: a modality, ``file``, or None for metadata.

    A modality may stand in the plural (``images``) or be followed by ``_path`` or ``_file``
    (``audio_file``); :data:`COLUMNS` has the other names.
    """
    name = column.strip().lower()
    if named := re.fullmatch(rf"({'|'.join(MODALITIES)})(s|_path|_file)?", name):
        return "file" if named[2] in ("_path", "_file") else named[1]
    return COLUMNS.get(name)


def read_manifest(path: str | Path, *, extract_to: str | Path | None = None) -> Iterator[Record | Problem]:
    """Stream the records of a ``.jsonl``, ``.csv`` or ``.parquet`` manifest.

    A column of parts (:func:`column_holds`) holds, in each row, one value or a list of them:

    * the path of a file, relative to the manifest's folder; the file's suffix tells its modality;
    * text itself, in a text column, unless it names a text file that exists;
    * embedded media: bytes, or a struct of ``bytes`` and ``path`` as Hugging Face writes them. They
      become files in ``extract_to``, named by their content; without it a HarmoniaError is raised.

    Every other column is metadata: numbers, truth values, strings and lists keep their type, dates
    become ISO strings, objects JSON; bytes, empty cells and numbers that are not finite are left
    out. ``tags`` may be a list or separated by commas. A row without a file of its own has the
    manifest's path as ``path``.

    A row that cannot be read, names a missing file or has no part is a Problem; the others go on.
    """
    manifest = absolute(path)
    folder = Path(extract_to) if extract_to is not None else None
    try:
        columns, rows = read_table(manifest, lambda column: column_holds(column) is not None)
        if not any(map(column_holds, columns)):
            yield Problem(str(manifest), _no_parts(columns))
            return
        for number, row in rows:
            try:
                if isinstance(row, str):
                    raise ValueError(row)
                found: Record | Problem = row_record(row, manifest, folder)
            except ValueError as error:
                found = Problem(str(manifest), f"row {number}: {error}")
            yield found
    except TABLE_ERRORS as error:
        yield Problem(str(manifest), f"this manifest cannot be read: {_reason(error)}")


def _no_parts(columns: Sequence[str]) -> str:
    found = ", ".join(filter(None, columns[:20])) or "none"
    accepted = ", ".join([*MODALITIES, *COLUMNS])
    return f"no column holds parts of records: found {found}; name one of them {accepted}"


def _reason(error: Exception) -> str:
    if isinstance(error, UnicodeError):
        return "it is not text, or its encoding is not known; save it as UTF-8"
    return why(error) if isinstance(error, OSError) else str(error).partition("\n")[0]


def row_record(row: Row, manifest: Path, extract_to: Path | None) -> Record:
    """The record of one row; a ValueError says what is wrong with it."""
    parts: list[Part] = []
    facts: dict[str, Any] = {}
    for column, holds, item in _items(row):
        content, name = _unpack(item)
        if isinstance(content, bytes):
            parts.append(_embedded(content, column, holds, name, extract_to))
            if name:
                facts.setdefault("name", Path(name).stem)
        elif isinstance(content, str) and holds == "text":
            parts.append(_text(content, manifest))
        elif isinstance(content, str):
            path, modified = _file(content, manifest)
            parts.append(file_part(path))
            if "path" not in facts:
                facts |= file_facts(path, modified)
        elif holds == "text" and isinstance(content, int | float):
            parts.append(Part("text", text=str(content)))
        else:
            raise ValueError(f"column {column} holds a {type(content).__name__}, not {holds}")
    if not parts:
        raise ValueError("it has no part: every column of parts is empty")
    facts.setdefault("path", str(manifest))
    return Record("", tuple(parts), facts | row_metadata(row))


def _items(row: Row) -> Iterator[tuple[str, str, Any]]:
    """(column, what it holds, value) for every value in the row that is, or names, a part."""
    for column, value in row.items():
        if holds := column_holds(column):
            for item in value if isinstance(value, list) else [value]:
                if not _is_empty(item):
                    yield column, holds, item


def _is_empty(value: Any) -> bool:
    match value:
        case None | b"" | {"bytes": None, "path": None}:
            return True
        case str():
            return not value.strip()
        case float():
            return not math.isfinite(value)
    return False


def _unpack(item: Any) -> tuple[Any, str | None]:
    """The bytes of Hugging Face's struct and the name they came with, or its path alone."""
    match item:
        case {"bytes": bytes(content), "path": name}:
            return content, name
        case {"bytes": None, "path": str(name)}:
            return name, None
    return item, None


def _file(value: str, manifest: Path) -> tuple[Path, float]:
    """The file that a manifest names, and when it was changed."""
    path = absolute(manifest.parent / value)
    try:
        state = path.stat()
    except (OSError, ValueError):
        raise ValueError(f"there is no file {value}") from None
    if not stat.S_ISREG(state.st_mode):
        raise ValueError(f"{value} is not a file")
    return path, state.st_mtime


def _text(value: str, manifest: Path) -> Part:
    """A text, or the text file of that name."""
    if modality_of(value) == "text":
        path = absolute(manifest.parent / value)
        with suppress(OSError):  # a long text is no file name
            if path.is_file():
                return Part("text", path=str(path))
    return Part("text", text=value)


def _embedded(content: bytes, column: str, holds: str, name: str | None, extract_to: Path | None) -> Part:
    if holds not in MODALITIES or holds == "text":
        raise ValueError(f"column {column} holds bytes; call it image, audio or video")
    suffix = suffix_of(content, holds, name)
    if suffix is None:
        raise ValueError(f"the bytes in column {column} are no known kind of {holds} file")
    if extract_to is None:
        raise HarmoniaError(f"column {column} holds embedded media; say with extract_to where to write them")
    try:
        return Part(holds, path=extract(content, suffix, extract_to))
    except OSError as error:
        raise HarmoniaError(
            f"cannot write embedded media into {extract_to}: {why(error)}; make room or choose another folder"
        ) from error


def row_metadata(row: Row) -> dict[str, Any]:
    """The columns that are no parts, as plain values."""
    metadata = {}
    for column, value in row.items():
        if column_holds(column) or not column:
            continue
        if column == "tags" and isinstance(value, str):
            value = [tag.strip() for tag in value.split(",") if tag.strip()]
        plain = plain_value(value)
        if plain is not None and plain != "":
            metadata[column] = plain
    return metadata


def plain_value(value: Any) -> Any:
    """A value that JSON can hold, None where there is none; objects as JSON text."""
    try:
        plain = _plain(value)
        if isinstance(plain, list):
            plain = [_text_of(item) if isinstance(item, dict) else item for item in plain]
        return _text_of(plain) if isinstance(plain, dict) else plain
    except RecursionError:  # nested deeper than any reader of it could follow
        return None


def _text_of(value: dict[str, Any]) -> str:
    return json.dumps(value, ensure_ascii=False)


def _plain(value: Any) -> Any:
    match value:
        case bool() | int() | str():
            return value
        case float() | Decimal():
            return float(value) if math.isfinite(value) else None
        case date() | time():
            return value.isoformat()
        case timedelta():
            return value.total_seconds()
        case list() | tuple():
            return [plain for item in value if (plain := _plain(item)) is not None]
        case dict():
            return {str(key): _plain(item) for key, item in value.items()}
    return None
