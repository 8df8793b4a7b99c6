"""Uploaded records: saved to temporary files, type-checked, and remembered in batches."""

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

from harmonia.collection.collection import Memory
from harmonia.collection.namespaces import NAMESPACE
from harmonia.collection.record_reader import identity_of
from harmonia.server.errors import ApiError
from harmonia.server.formats import HEAD, Kind, kind_of
from harmonia.store.values import column_name
from harmonia.types import Part, Record

FOLDER = "incoming"
"""The folder of uploads until they are remembered."""
MAX_KEYS, MAX_BYTES = 64, 64 * 2**10
"""Most keys, and most bytes as JSON, of one record's metadata."""
BLOCK = 2**20


@dataclass(frozen=True, slots=True, eq=False)
class NewRecord:
    """A record to create: parts with digests and temporary files, metadata, and its namespace."""

    parts: tuple[Part, ...]
    metadata: Mapping[str, Any]
    namespace: str | None


@dataclass(frozen=True, slots=True, eq=False)
class StoredRecord:
    """A committed record; ``created`` is False if the same content was stored already."""

    record: Record
    created: bool


@contextmanager
def temporary_folder(own: Path) -> Iterator[Path]:
    """A temporary folder for uploads, removed on exit."""
    folder = own / FOLDER / uuid.uuid4().hex
    folder.mkdir(parents=True)
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def clear_temporary_folders(own: Path) -> None:
    """Remove the temporary folders of a process that died."""
    shutil.rmtree(own / FOLDER, ignore_errors=True)


def save_upload(file: BinaryIO, name: str, folder: Path) -> Part:
    """Save an upload in ``folder`` with the suffix of its type; ApiError 400 for an unknown format."""
    kind = kind_of(file.read(HEAD), name)
    if kind is None:
        raise unknown_format(name)
    file.seek(0)
    path = folder / uuid.uuid4().hex / (plain_name(name) + kind.suffix)
    path.parent.mkdir()
    return Part(kind.modality, path=str(path), digest=write_upload(file, path))


def write_upload(file: BinaryIO, path: Path) -> str:
    """Write an upload to ``path`` in blocks; returns its SHA-256 in hexadecimal."""
    digest = hashlib.sha256()
    with path.open("wb") as out:
        while block := file.read(BLOCK):
            digest.update(block)
            out.write(block)
    return digest.hexdigest()


def file_type(path: Path) -> Kind:
    """The type of a file on this machine; ApiError 400 if it is unknown or the file cannot be read."""
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
    """The error for a file of an unknown format."""
    return ApiError(
        400, f"{plain_name(name)} has an unknown format: send an image, audio, video or text file",
        param="files", code="unsupported_media",
    )  # fmt: skip


def text_part(text: str) -> Part:
    """A text as a part of a record."""
    if not text.strip():
        raise ApiError(400, "the text is empty: leave it out", param="text")
    return Part("text", text=text, digest=hashlib.sha256(encode_utf8(text, "text")).hexdigest())


def plain_name(name: str) -> str:
    """The stem of a client's file name, reduced to letters, digits and a few signs."""
    stem = PurePosixPath(name.replace("\\", "/")).stem
    # 60 letters are at most 240 bytes, and a file name has at most 255
    return "".join(c if c.isalnum() or c in " -_()" else "_" for c in stem)[:60].strip() or "file"


def checked_metadata(metadata: Mapping[str, Any]) -> dict[str, Any]:
    """Validate metadata; ApiError 400 if JSON cannot represent it, it is too large, or names a namespace."""
    try:
        size = len(encode_utf8(json.dumps(metadata, ensure_ascii=False, allow_nan=False), "metadata"))
    except (ValueError, RecursionError):
        raise ApiError(400, "metadata is not valid JSON", param="metadata") from None
    if size > MAX_BYTES or len(metadata) > MAX_KEYS or any(not key or len(key) > 200 for key in metadata):
        raise ApiError(
            400, f"metadata may have at most {MAX_KEYS} keys and {MAX_BYTES:,} bytes", param="metadata"
        )
    if taken := next((key for key in metadata if column_name(key) == NAMESPACE), None):
        raise ApiError(400, f"the metadata key {taken!r} is reserved: rename it", param="metadata")
    return dict(metadata)


def encode_utf8(text: str, param: str) -> bytes:
    """Encode text as UTF-8; ApiError 400 for lone surrogates."""
    try:
        return text.encode()
    except UnicodeEncodeError:
        raise ApiError(400, f"{param} is not valid Unicode", param=param) from None


def create(collection: Memory, several: Sequence[NewRecord]) -> Sequence[StoredRecord | Exception]:
    """Remember records, each whole or not at all; an invalid one yields its ApiError.

    Those of one namespace are one commit.
    """
    found: dict[int, StoredRecord | Exception] = {}
    for namespace in dict.fromkeys(one.namespace for one in several):
        members = [i for i, one in enumerate(several) if one.namespace == namespace]
        try:
            stored = _create(collection, [several[i] for i in members], namespace)
        except Exception as error:  # what the others have stored is acknowledged all the same
            stored = [error] * len(members)
        found |= dict(zip(members, stored, strict=True))
    return [found[i] for i in range(len(several))]


def _create(
    collection: Memory, several: Sequence[NewRecord], namespace: str | None
) -> Sequence[StoredRecord | Exception]:
    ids = [identity_of(one.parts, namespace) for one in several]
    before = {record.id for record in collection.store.records(ids)} if collection.exists else set()
    records = [Record("", one.parts, one.metadata) for one in several]
    report = collection.remember(
        records, copy=True, whole=True, threads=2, namespace=namespace, calibrate=False
    )
    reasons = {problem.path: problem.reason for problem in report.problems}
    there = {record.id: record for record in collection.store.records(ids)}
    found: list[StoredRecord | Exception] = []
    for record_id, one in zip(ids, several, strict=True):
        reason = next((reasons[part.path] for part in one.parts if part.path in reasons), None)
        if record_id in there and reason is None:
            found.append(StoredRecord(there[record_id], record_id not in before))
        else:
            message = reason or "the record cannot be remembered"
            found.append(ApiError(400, message, code="unsupported_media", param="files"))
    return found
