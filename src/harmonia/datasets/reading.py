"""Common parts of dataset readers: folders, missing files, checksums, splits, rows as records, embedded
media."""

from __future__ import annotations

import hashlib
import os
import re
import zlib
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, TypeVar

from harmonia.data.embedded import extract, suffix_of
from harmonia.data.records import Problem, absolute, why
from harmonia.data.tables import TABLE_ERRORS, Row, Rows, read_table
from harmonia.datasets.json_stream import json_items
from harmonia.types import HarmoniaError, Part, Record

Records = Iterator[Record | Problem]
"""The output of a reader: an iterator of records, with a Problem for each row that is not valid."""

READ_ERRORS = (*TABLE_ERRORS, ValueError, EOFError, zlib.error)
"""Errors of reading damaged tables, JSON and gzip files."""

T = TypeVar("T")


# --- where the data are


def data_folder() -> Path | None:
    """The folder that holds the datasets, one folder for each: the environment variable HARMONIA_DATA, else
    ``../shared/data`` of the current directory or of this repository, where there is one."""
    if given := os.environ.get("HARMONIA_DATA"):
        folder = absolute(given)
        if not folder.is_dir():
            raise HarmoniaError(
                f"HARMONIA_DATA names {given}, which is not a directory: correct it or unset it"
            )
        return folder
    for start in (Path.cwd(), Path(__file__).parents[3]):
        folder = absolute(start / ".." / "shared" / "data")
        if folder.is_dir():
            return folder
    return None


def dataset_folder(folder: str | Path | None, name: str, dataset: str, how_to_get: str) -> Path:
    """The given folder, or else the folder ``name`` in :func:`data_folder`."""
    home = data_folder() if folder is None else None
    found = absolute(folder) if folder is not None else home / name if home else None
    if found is None or not found.is_dir():
        place = "no folder was given and HARMONIA_DATA is not set" if found is None else f"no folder {found}"
        raise HarmoniaError(f"{dataset} is not here ({place}); {how_to_get}")
    return found


def require(folder: Path, files: Sequence[str], dataset: str, how_to_get: str) -> None:
    """A HarmoniaError when one of the files or folders that a dataset consists of is missing.

    ``how_to_get`` ends the message: the official page, what to load there, its size.
    """
    missing = [name for name in files if not (folder / name).exists()]
    if missing:
        raise HarmoniaError(
            f"{dataset} is not complete in {folder}: no {', no '.join(missing)}; {how_to_get}"
        )


def first_of(folder: Path, names: Iterable[str]) -> Path | None:
    """The first of several names that a file or folder has had in a dataset's releases."""
    return next((folder / name for name in names if (folder / name).exists()), None)


def require_one(folder: Path, names: Sequence[str], dataset: str, how_to_get: str) -> Path:
    """As :func:`first_of`, and as :func:`require` of the first name when there is none."""
    if (found := first_of(folder, names)) is None:
        require(folder, names[:1], dataset, how_to_get)
    return found or folder / names[0]


def cache_folder() -> Path:
    """Where media that datasets embed in tables become files: the environment variable HARMONIA_CACHE, else
    ``harmonia`` in the user's cache folder. It may be deleted at any time."""
    if given := os.environ.get("HARMONIA_CACHE"):
        return absolute(given)
    return absolute(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "harmonia"


# --- checksums

_SUM_FILES = ("SHA256SUMS", "SHA256SUMS.txt", "sha256sums.txt", "MD5SUMS", "md5sums.txt", "MD5SUMS.txt")
_ALGORITHMS = {32: "md5", 64: "sha256"}  # told by the number of hexadecimal digits


def verify(
    folder: Path, files: Iterable[str], published: Mapping[str, str] | None = None
) -> tuple[list[str], list[str]]:
    """Compare files with their checksums; returns the names verified and the names without a checksum.

    A checksum (MD5 or SHA-256, hexadecimal) comes from ``published``, or from a file beside the data:
    ``SHA256SUMS``, ``md5sums.txt`` (lines of checksum and name), ``NAME.md5`` or ``NAME.sha256``. A file
    whose content differs is a HarmoniaError.
    """
    known = _sums_beside(folder) | dict(published or {})
    verified: list[str] = []
    unverified: list[str] = []
    for name in files:
        expected = known.get(name, "").lower() or _sum_of(folder, name)
        if not expected:
            unverified.append(name)
            continue
        algorithm = _ALGORITHMS.get(len(expected))
        if algorithm is None:
            raise HarmoniaError(f"the checksum of {name} is neither MD5 nor SHA-256: {expected}")
        with (folder / name).open("rb") as file:
            found = hashlib.file_digest(file, algorithm).hexdigest()
        if found != expected:
            raise HarmoniaError(f"{folder / name} is damaged: its {algorithm} is {found}; load it again")
        verified.append(name)
    return verified, unverified


def _sums_beside(folder: Path) -> dict[str, str]:
    sums: dict[str, str] = {}
    for path in (folder / name for name in _SUM_FILES):
        if path.is_file():
            for line in path.read_text(encoding="utf-8").splitlines():
                if found := re.fullmatch(r"([0-9a-fA-F]{32}|[0-9a-fA-F]{64})\s+\*?(?:\./)?(.+?)\s*", line):
                    sums.setdefault(found[2], found[1])
    return sums


def _sum_of(folder: Path, name: str) -> str:
    path = first_of(folder, (f"{name}.sha256", f"{name}.md5"))
    return (path.read_text(encoding="utf-8").split() or [""])[0].lower() if path else ""


# --- splits


def split_filter(split: str) -> Callable[[str], bool]:
    """Whether a row's split is wanted. ``split`` is a name, several joined by ``+``, or ``all``; ``dev`` and
    ``validation`` are ``val``."""
    wanted = {split_name(name) for name in split.split("+")}
    return lambda name: "all" in wanted or split_name(name) in wanted


def split_name(name: str) -> str:
    """The name under which records have their split."""
    name = name.strip().lower()
    return "val" if name in ("dev", "valid", "validation") else name


def last_tenth(ids: Iterable[T], key: Callable[[T], Any] | None = None) -> set[T]:
    """The last tenth of the ids in order: the development part of a dataset that publishes none."""
    ordered = sorted(set(ids), key=key)  # type: ignore[type-var, arg-type]
    return set(ordered[len(ordered) * 9 // 10 :])


def require_split(split: str, known: Iterable[str], dataset: str) -> None:
    """A HarmoniaError if a dataset does not have a split (``all`` is always valid)."""
    names = [split_name(name) for name in known]
    for name in split.split("+"):
        if split_name(name) not in (*names, "all"):
            raise HarmoniaError(
                f"{dataset} has no split {name.strip()!r} here; name one of {', '.join(names)}, all"
            )


# --- rows and records


def rows_to_records(path: Path, rows: Rows, make: Callable[[Row], Record | None]) -> Records:
    """The record that ``make`` returns for each row; None skips a row.

    A row that is an error message, or for which ``make`` raises a ValueError, gives a Problem, and reading
    goes on. The rest of a damaged file is one Problem.
    """
    rows = iter(rows)
    while True:
        try:
            number, row = next(rows)
        except StopIteration:
            return
        except READ_ERRORS as error:
            yield Problem(str(path), f"this file cannot be read on: {reason_of(error)}")
            return
        try:
            if isinstance(row, str):
                raise ValueError(row)
            found: Record | Problem | None = make(row)
        except ValueError as error:
            found = Problem(str(path), f"row {number}: {reason_of(error)}")
        if found is not None:
            yield found


def reason_of(error: Exception) -> str:
    """Why reading has failed, in one line."""
    if isinstance(error, UnicodeError):
        return "it is not UTF-8, or holds half a character"
    return why(error) if isinstance(error, OSError) else str(error).partition("\n")[0]


def table_rows(path: Path) -> Rows:
    """The rows of a ``.csv`` (cells stay text), ``.jsonl`` or ``.parquet`` file."""
    yield from read_table(path, lambda column: True)[1]


def json_rows(path: Path, key: str | None = None) -> Rows:
    """The objects in a JSON file's array (see :func:`~harmonia.datasets.json_stream.json_items`)."""
    for number, item in enumerate(json_items(path, key), start=1):
        yield number, item if isinstance(item, dict) else "this is not a JSON object {...}"


def text_lines(path: Path) -> Iterator[tuple[int, str]]:
    """The lines of a text file that are not empty, with their numbers."""
    with path.open(encoding="utf-8-sig") as file:
        for number, line in enumerate(file, start=1):
            if line := line.strip():
                yield number, line


def listed(path: Path) -> list[str]:
    """The lines of a short list, such as the names in a split."""
    try:
        return [line for _, line in text_lines(path)]
    except (OSError, UnicodeError) as error:
        raise HarmoniaError(f"{path} cannot be read: {reason_of(error)}; load it again") from error


def need(row: Row, name: str, kind: type[T]) -> T:
    """A value of a row; a ValueError when it is missing, of another type or an empty text."""
    value = row.get(name)
    if isinstance(value, str):
        value = _whole(value)
    if not isinstance(value, kind) or value == "" or (isinstance(value, bool) and kind is not bool):
        found = "missing" if value is None or value == "" else f"a {type(value).__name__}"
        raise ValueError(f"its {name} is {found}")
    return value


def _whole(text: str) -> str:
    text.encode()  # JSON may hold half a character, which no store can; the UnicodeError is a ValueError
    return text.strip()


def texts(values: Any, name: str = "captions") -> list[str]:
    """Several texts, cleaned of white space around them; a ValueError when there is none."""
    found = [_whole(value) for value in values or () if isinstance(value, str) and value.strip()]
    if not found:
        raise ValueError(f"it has no {name}")
    return found


# --- records and parts


def dataset_record(dataset: str, split: str, name: str, parts: Iterable[Part], **facts: Any) -> Record:
    """The record of a row. Its metadata: dataset, split, name, the path of its first file, and ``facts`` that
    are not None. As everywhere in this package, it has no id, digests or codes yet."""
    parts = tuple(parts)
    metadata = {"dataset": dataset, "split": split, "name": name}
    if path := next((part.path for part in parts if part.path), None):
        metadata["path"] = path
    return Record("", parts, metadata | {key: value for key, value in facts.items() if value is not None})


def media_part(modality: str, path: Path) -> Part:
    """The part that a dataset's media file is; a ValueError when the file is missing."""
    try:
        found = path.is_file()
    except OSError as error:
        raise ValueError(f"{path} cannot be read: {why(error)}") from error
    if not found:
        raise ValueError(f"there is no file {path}")
    return Part(modality, path=str(path))


def embedded_part(modality: str, content: Any, name: str | None = None) -> Part:
    """The part that bytes in a table are: a file in :func:`cache_folder`, named by its content."""
    if not isinstance(content, bytes) or not content:
        raise ValueError(f"its {modality} has no bytes")
    suffix = suffix_of(content, modality, name)
    if suffix is None:
        raise ValueError(f"its bytes are no known kind of {modality} file")
    folder = cache_folder() / "media"
    try:
        return Part(modality, path=extract(content, suffix, folder))
    except OSError as error:
        raise HarmoniaError(
            f"cannot write into {folder}: {why(error)}; make room or set HARMONIA_CACHE to another folder"
        ) from error


def embedded_parts(modality: str, table: Path, key: str, column: str) -> dict[Any, Part]:
    """The files that a table embeds in ``column``, by ``key``. Rows that hold none are left out, so that the
    rows of another table which name them become Problems."""
    parts = {}
    try:
        for _, row in table_rows(table):
            if not isinstance(row, str):
                with suppress(ValueError):
                    parts[row.get(key)] = embedded_part(modality, row.get(column))
    except TABLE_ERRORS as error:
        raise HarmoniaError(f"{table} cannot be read: {reason_of(error)}; load it again") from error
    return parts


def text_parts(values: Iterable[str]) -> tuple[Part, ...]:
    """A part for each text."""
    return tuple(Part("text", text=value) for value in values)
