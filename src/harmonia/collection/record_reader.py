"""Reading of records in worker threads: what they are, what their files say, and their decoded parts."""

from __future__ import annotations

import hashlib
import threading
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from harmonia.collection.file_tracking import FileTracker, coded_parts
from harmonia.collection.namespaces import owned
from harmonia.data import Problem
from harmonia.modalities import MODALITIES, Limits
from harmonia.modalities.metadata import metadata_of
from harmonia.modalities.text import pieces
from harmonia.store import FileState, Store, digest_file, media_path, put_media
from harmonia.store.media import FOLDER as MEDIA
from harmonia.types import HarmoniaError, Part, Record, Signal

# Whose metadata counts first.
METADATA_ORDER = ("image", "video", "audio", "text")
OUTSIDE = "the file is outside of the folders that may be read"


@dataclass(slots=True)
class GrowingRecord:
    """A record in progress: its files, and the parts that are encoded so far."""

    record: Record
    files: list[FileState]
    parts: list[Part] = field(default_factory=list)
    reason: str = ""


@dataclass(frozen=True, slots=True)
class KnownRecord:
    """A record that the store holds already, with nothing to encode."""

    record: Record
    files: list[FileState]


@dataclass(frozen=True, slots=True)
class BrokenContent:
    """Content that could not be read, so that its copies are reported too."""

    digest: str
    problem: Problem


Found = GrowingRecord | KnownRecord | BrokenContent | Problem | tuple[GrowingRecord, Part, Signal | None]
"""What reading a record gives, piece by piece. A part without a signal has its codes already."""


class RecordReader:
    """Reads the records of one run; ``read`` may be called from several threads.

    ``known`` are the ids and metadata of the records that the store holds; what is read is added. The other
    arguments are those of :func:`harmonia.collection.remember.remember`.
    """

    def __init__(
        self,
        store: Store,
        root: Path,
        tracker: FileTracker,
        known: dict[str, dict[str, Any]],
        *,
        copy: bool,
        limits: Limits,
        whole: bool,
        within: tuple[Path, ...],
        namespace: str | None,
    ) -> None:
        self._store, self._root, self._tracker, self._known = store, root, tracker, known
        self._copy, self._limits, self._whole = copy, limits, whole
        self._within, self._namespace = within, namespace
        self._taken: set[str] = set()
        self._lock = threading.Lock()

    def read(self, record: Record) -> Iterator[Found]:
        """Identify a record and decode its parts, window by window."""
        parts, files = [], []
        source = record.metadata.get("path")
        if source and not self._allowed(Path(source)):
            yield Problem(source, OUTSIDE)
            return
        for part in record.parts:
            try:
                digest, state = self._identify(part)
            except (OSError, HarmoniaError) as error:
                yield Problem(part.path or "inline text", reason_of(error))
                continue
            parts.append(replace(part, digest=digest))
            files += [state] if state else []
        if not parts or (self._whole and len(parts) < len(record.parts)):
            return
        identity = identity_of(parts, self._namespace)
        record = Record(identity, tuple(parts), owned(record.metadata, self._namespace))
        files = [replace(state, record_id=identity) for state in files]
        with self._lock:
            fresh, first = identity not in self._known, identity not in self._taken
            self._taken.add(identity)
            if fresh:
                self._known[identity] = dict(record.metadata)
        todo = parts
        if fresh:
            facts = self._facts_of(parts) | dict(record.metadata)
            record = replace(record, metadata=owned(facts, self._namespace))
        else:
            yield KnownRecord(record, files)
            passing = {part.path for part in parts} - {state.path for state in files}
            todo = self._tracker.lacking(identity, parts, passing) if first else []
        if not todo:
            return
        growing = GrowingRecord(record, [])
        yield growing
        for part in todo:
            try:
                for piece, signal in self._reused(part) or self._decode(part):
                    yield growing, piece, signal
                growing.files += [state for state in files if state.path == part.path]
            except (OSError, HarmoniaError) as error:
                yield BrokenContent(part.digest, Problem(part.path or "inline text", reason_of(error)))

    def _facts_of(self, parts: Sequence[Part]) -> dict[str, Any]:
        """What the files of a new record say about themselves; the first part that names a column counts."""
        facts: dict[str, Any] = {}
        for part in sorted(parts, key=lambda part: METADATA_ORDER.index(part.modality)):
            if part.path is not None:
                found = metadata_of(Path(part.path), part.modality, self._limits, allowed=self._allowed)
                facts = found | facts
        return facts

    def _reused(self, part: Part) -> list[tuple[Part, Signal | None]]:
        """What an earlier run made of the same content, with its codes; empty if nothing."""
        if part.path is None:
            return []
        for identity in sorted(self._tracker.read.get(part.digest, ())):
            found = coded_parts(self._store, identity, part.digest)
            if found:
                self._copied(part)
                return [(replace(piece, path=self._kept_path(part)), None) for piece in found]
        return []

    def _identify(self, part: Part) -> tuple[str, FileState | None]:
        """The digest of a part's content; that of an unchanged file is reused."""
        if part.path is None:
            return hashlib.sha256((part.text or "").encode()).hexdigest(), None
        path = Path(part.path)
        if not self._allowed(path):
            raise HarmoniaError(OUTSIDE)
        stat = path.stat()
        digest = self._tracker.known_digest(part.path, stat) or digest_file(path)
        self._tracker.contents[part.path] = digest
        # A temporary file inside the memory gets no state, since it will not exist in the next run.
        passing = path.is_relative_to(self._root) and not self._kept(path)
        return digest, None if passing else FileState(part.path, stat.st_size, stat.st_mtime_ns, digest, "")

    def _allowed(self, path: Path) -> bool:
        return not self._within or any(path.resolve().is_relative_to(folder) for folder in self._within)

    def _kept(self, path: Path) -> bool:
        """Whether a file lies in the media folder of the memory."""
        return path.is_relative_to(self._root / MEDIA)

    def _kept_path(self, part: Part) -> str:
        """The path that a part of a file keeps: relative inside of the memory, so that that can move."""
        assert part.path is not None
        path = Path(part.path)
        if self._kept(path):
            return str(path.relative_to(self._root))
        return media_path(part.digest, path.suffix) if self._copy else part.path

    def _copied(self, part: Part) -> None:
        """Copy the file of a part into the memory, where copies are wanted."""
        if self._copy and part.path is not None and not self._kept(Path(part.path)):
            put_media(self._root, Path(part.path), part.digest)

    def _decode(self, part: Part) -> Iterator[tuple[Part, Signal]]:
        if part.path is None:
            for signal in pieces(part.text or "", limits=self._limits):
                yield replace(part, text=signal.text, start=signal.start, end=signal.end), signal
            return
        kept, caption = self._kept_path(part), None
        for signal in MODALITIES[part.modality].windows(Path(part.path), limits=self._limits):
            # the content decides: a video without a picture is a recording
            piece = replace(part, modality=signal.modality, path=kept, start=signal.start, end=signal.end)
            if signal.modality == "text":
                piece = replace(piece, text=signal.text)
            yield piece, signal
            if signal.sound is not None:
                yield replace(piece, modality="audio"), signal.sound
            caption = caption or signal.caption
        if caption:
            yield Part("text", path=kept, text=caption, digest=part.digest), Signal("text", caption)
        self._copied(part)


def identity_of(parts: Sequence[Part], namespace: str | None = None) -> str:
    """The id of a record: a digest of the digests of its parts, independent of their order.

    In a ``namespace`` it is another, which does not tell what the id of the same content is elsewhere.
    """
    lines = sorted(f"{part.modality} {part.digest}" for part in parts)
    if namespace is not None:
        lines.append(f"namespace {namespace}")
    return hashlib.sha256("\n".join(lines).encode()).hexdigest()[:32]


def reason_of(error: Exception) -> str:
    """What an error says, for a report."""
    if isinstance(error, HarmoniaError):
        return str(error)
    if isinstance(error, OSError):
        return (error.strerror or str(error)).lower()
    return f"{type(error).__name__}: {error}"
