"""Uploaded files, stored by content until they are deleted."""

from __future__ import annotations

import json
import logging
import threading
import time
from dataclasses import asdict, dataclass, replace
from pathlib import Path, PurePosixPath
from typing import BinaryIO

from harmonia.collection.record_reader import identity_of
from harmonia.server.errors import ApiError, not_found
from harmonia.server.formats import HEAD, kind_of
from harmonia.server.namespaces import folder_of
from harmonia.server.uploaded_records import temporary_folder, write_upload
from harmonia.store.atomic import write_atomically
from harmonia.types import Part

log = logging.getLogger("harmonia.server")

PREFIX = "file-"


@dataclass(frozen=True, slots=True)
class UploadedFile:
    """An uploaded file. Its id is derived from the id of its record, hence from its content.

    ``suffix`` and ``mime`` follow from its first bytes; ``modality`` is None for an unsupported type.
    """

    id: str
    filename: str
    purpose: str
    bytes: int
    created_at: int
    suffix: str
    mime: str
    modality: str | None
    expires_at: int | None = None

    @property
    def expired(self) -> bool:
        """Whether its time is over."""
        return self.expires_at is not None and self.expires_at <= time.time()


class UploadedFiles:
    """The uploaded files of one memory, or of a ``namespace`` of it.

    Each is its content and a JSON file, which is written last. ``own`` is the server's own folder.
    """

    def __init__(self, own: Path, namespace: str | None = None) -> None:
        self.own, self.namespace, self.folder = own, namespace, folder_of(own, namespace) / "files"
        self._lock = threading.Lock()
        self._files = {file.id: file for file in map(_read, self.folder.glob("*.json")) if file}

    def add(self, content: BinaryIO, name: str, purpose: str, seconds: int | None = None) -> UploadedFile:
        """Store an upload, for so many ``seconds`` or for ever; the same content again is the same file.

        It then has its new name, purpose and time.
        """
        head = content.read(HEAD)
        if not head:
            raise ApiError(400, "the file is empty", param="file", code="empty_file")
        content.seek(0)
        kind = kind_of(head, name)
        with temporary_folder(self.own) as folder:
            draft = folder / "file"
            part = Part(kind.modality if kind else "", digest=write_upload(content, draft))
            file = UploadedFile(
                file_id(identity_of([part], self.namespace)),
                shown_name(name), purpose, draft.stat().st_size, int(time.time()),
                kind.suffix if kind else "", kind.mime if kind else "application/octet-stream",
                kind.modality if kind else None,
                None if seconds is None else int(time.time()) + seconds,
            )  # fmt: skip
            with self._lock:
                if before := self._files.get(file.id):
                    file = replace(file, created_at=before.created_at)
                self.folder.mkdir(parents=True, exist_ok=True)
                draft.replace(self.path(file))
                write_atomically(self._note(file), json.dumps(asdict(file)))
                self._files[file.id] = file
        return file

    def find(self, file_id: str) -> UploadedFile | None:
        """The file of an id, or None. A file whose time is over is deleted; its record stays."""
        file = self._files.get(file_id)
        if file is not None and file.expired:
            self.remove(file)
            return None
        return file

    def get(self, file_id: str) -> UploadedFile:
        """The file of an id; ApiError 404 if there is none."""
        file = self.find(file_id)
        if file is None:
            raise not_found("file", file_id)
        return file

    def all(self) -> list[UploadedFile]:
        """All files, oldest first."""
        for file in [file for file in list(self._files.values()) if file.expired]:
            self.remove(file)
        return sorted(self._files.values(), key=lambda file: (file.created_at, file.id))

    def path(self, file: UploadedFile) -> Path:
        """The path of the content."""
        return self.folder / (file.id + file.suffix)

    def remove(self, file: UploadedFile) -> None:
        """Delete a file."""
        with self._lock:
            self._files.pop(file.id, None)
            self._note(file).unlink(missing_ok=True)
            self.path(file).unlink(missing_ok=True)

    def _note(self, file: UploadedFile) -> Path:
        return self.folder / f"{file.id}.json"


def file_id(record_id: str) -> str:
    """The file id of a record id."""
    return PREFIX + record_id


def record_id(file_id: str) -> str:
    """The record id of a file id."""
    return file_id.removeprefix(PREFIX)


def shown_name(name: str) -> str:
    """A client's file name without folders and unprintable characters."""
    last = PurePosixPath(name.replace("\\", "/")).name
    return "".join(c for c in last if c.isprintable())[:200] or "file"


def _read(note: Path) -> UploadedFile | None:
    try:
        return UploadedFile(**json.loads(note.read_text(encoding="utf-8")))
    except (OSError, ValueError, TypeError):
        log.warning("a file's note cannot be read", extra={"facts": {"file": note.stem}})
        return None
