"""Records that clients send: written aside, sniffed, and remembered together with those of others."""

from __future__ import annotations

import hashlib
import json
import shutil
import uuid
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any, BinaryIO

from harmonia.collection.collection import Collection
from harmonia.collection.remember import identity_of
from harmonia.server.errors import ApiError
from harmonia.server.formats import HEAD, Kind, kind_of
from harmonia.types import Part, Record

FOLDER = "incoming"
"""Where uploads lie until they are remembered."""
KEYS, BYTES = 64, 64 * 2**10
"""Most keys, and most bytes as JSON, of one record's metadata."""
BLOCK = 2**20


@dataclass(frozen=True, slots=True, eq=False)
class NewRecord:
    """A record to be: parts with digests, their files still aside, and metadata."""

    parts: tuple[Part, ...]
    metadata: Mapping[str, Any]


@dataclass(frozen=True, slots=True, eq=False)
class StoredRecord:
    """A record that is committed; ``created`` says whether it is new."""

    record: Record
    created: bool


@contextmanager
def temporary_folder(own: Path) -> Iterator[Path]:
    """A folder for uploads; at the end it is gone with all that is in it."""
    folder = own / FOLDER / uuid.uuid4().hex
    folder.mkdir(parents=True)
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def clear_temporary_folders(own: Path) -> None:
    """Remove what a process that died has left aside."""
    shutil.rmtree(own / FOLDER, ignore_errors=True)


def save_upload(file: BinaryIO, name: str, folder: Path) -> Part:
    """Write an upload into ``folder`` with the suffix that fits its bytes; ApiError 400 for no known kind."""
    kind = kind_of(file.read(HEAD), name)
    if kind is None:
        raise unknown_format(name)
    file.seek(0)
    path = folder / uuid.uuid4().hex / (plain_name(name) + kind.suffix)
    path.parent.mkdir()
    return Part(kind.modality, path=str(path), digest=write_upload(file, path))


def write_upload(file: BinaryIO, path: Path) -> str:
    """Write an upload to ``path``, block by block; the SHA-256 of it in hexadecimal."""
    digest = hashlib.sha256()
    with path.open("wb") as out:
        while block := file.read(BLOCK):
            digest.update(block)
            out.write(block)
    return digest.hexdigest()


def file_type(path: Path) -> Kind:
    """The kind of a file on this machine; ApiError 400 if it is none, or cannot be read."""
    try:
        with path.open("rb") as file:
            kind = kind_of(file.read(HEAD), path.name)
    except OSError as error:
        reason = (error.strerror or "it cannot be read").lower()
        raise ApiError(400, f"{path.name}: {reason}", param="path") from error
    if kind is None:
        raise unknown_format(path.name)
    return kind


def unknown_format(name: str) -> ApiError:
    """The answer to a file of no kind that can be remembered."""
    return ApiError(
        400, f"{plain_name(name)} is of no known format: send a picture, a sound, a video or a text",
        param="files", code="unsupported_media",
    )  # fmt: skip


def text_part(text: str) -> Part:
    """Words as a part of a record."""
    if not text.strip():
        raise ApiError(400, "the text is empty: leave it out", param="text")
    return Part("text", text=text, digest=hashlib.sha256(encode_utf8(text, "text")).hexdigest())


def plain_name(name: str) -> str:
    """The stem of a file name as a client gave it, of letters, digits and a few signs."""
    stem = PurePosixPath(name.replace("\\", "/")).stem
    # 60 letters are at most 240 bytes, and a file name has at most 255
    return "".join(c if c.isalnum() or c in " -_()" else "_" for c in stem)[:60].strip() or "file"


def checked_metadata(metadata: Mapping[str, Any]) -> dict[str, Any]:
    """Metadata that can be stored and given back; ApiError 400 otherwise."""
    try:
        size = len(encode_utf8(json.dumps(metadata, ensure_ascii=False, allow_nan=False), "metadata"))
    except (ValueError, RecursionError):
        raise ApiError(400, "metadata has a number that JSON does not know", param="metadata") from None
    if size > BYTES or len(metadata) > KEYS or any(not key or len(key) > 200 for key in metadata):
        raise ApiError(400, f"metadata has at most {KEYS} keys and {BYTES:,} bytes", param="metadata")
    return dict(metadata)


def encode_utf8(text: str, param: str) -> bytes:
    """Text as UTF-8; ApiError 400 for half of a character."""
    try:
        return text.encode()
    except UnicodeEncodeError:
        raise ApiError(400, f"{param} is no valid Unicode", param=param) from None


def create(collection: Collection, several: Sequence[NewRecord]) -> Sequence[StoredRecord | Exception]:
    """Remember records, each whole or not at all, in one commit; in place of a broken one, why."""
    ids = [identity_of(one.parts) for one in several]
    before = {record.id for record in collection.store.records(ids)} if collection.exists else set()
    records = [Record("", one.parts, one.metadata) for one in several]
    report = collection.remember(records, copy=True, whole=True, threads=2)
    reasons = {problem.path: problem.reason for problem in report.problems}
    there = {record.id: record for record in collection.store.records(ids)}
    found: list[StoredRecord | Exception] = []
    for record_id, one in zip(ids, several, strict=True):
        reason = next((reasons[part.path] for part in one.parts if part.path in reasons), None)
        if record_id in there and reason is None:
            found.append(StoredRecord(there[record_id], record_id not in before))
        else:
            message = reason or "nothing of it can be remembered"
            found.append(ApiError(400, message, code="unsupported_media", param="files"))
    return found
