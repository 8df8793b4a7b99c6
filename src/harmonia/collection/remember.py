"""Remembering of files: records, codes, store. Incremental, resumable, and in bounded memory."""

from __future__ import annotations

import hashlib
import os
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from tqdm import tqdm

from harmonia.collection.encoder_set import EncoderSet
from harmonia.collection.file_tracking import FILE_FACTS, FileTracker, coded_parts
from harmonia.collection.namespaces import owned
from harmonia.collection.prefetch import Produced, look_ahead
from harmonia.data import Problem, gather
from harmonia.modalities import LIMITS, MODALITIES, Limits
from harmonia.modalities.metadata import metadata_of
from harmonia.modalities.text import pieces
from harmonia.store import FileState, Store, digest_file, media_path, put_media
from harmonia.store.media import FOLDER as MEDIA
from harmonia.types import HarmoniaError, Part, Record, Signal

# Signals in one encoding batch, and the maximum number of decoded results that wait for it.
BATCH = 64
DEPTH = 128
# Records, or seconds, after which a commit is made.
COMMIT_RECORDS, COMMIT_SECONDS = 256, 10.0
# Whose metadata counts first.
METADATA_ORDER = ("image", "video", "audio", "text")
OUTSIDE = "the file is outside of the folders that may be read"


@dataclass(frozen=True, slots=True)
class Report:
    """The result of one run. ``gone`` are remembered files that no longer exist.

    ``ignored`` counts the files of kinds that are not read, ``kinds`` by their lower-case suffixes;
    ``left_out`` counts files and folders by the keys of `harmonia.data.left_out.REASONS`.
    """

    remembered: int
    already: int
    problems: tuple[Problem, ...]
    gone: tuple[str, ...]
    ignored: int
    stopped: bool
    kinds: Mapping[str, int] = field(default_factory=dict)
    left_out: Mapping[str, int] = field(default_factory=dict)


@dataclass(slots=True)
class _Growing:
    """A record in progress: its files, and the parts that are encoded so far."""

    record: Record
    files: list[FileState]
    parts: list[Part] = field(default_factory=list)
    reason: str = ""


@dataclass(frozen=True, slots=True)
class _Known:
    """A record that the store holds already, with nothing to encode."""

    record: Record
    files: list[FileState]


Watch = Callable[[int, int], bool]
"""Called after each record with the number of records read and their total; False stops the run."""


@dataclass(frozen=True, slots=True)
class _Broken:
    """Content that could not be read, so that its copies are reported too."""

    digest: str
    problem: Problem


_Found = _Growing | _Known | _Broken | Problem | tuple[_Growing, Part, Signal | None]


def remember(
    store: Store,
    root: Path,
    model: EncoderSet,
    paths: Sequence[str | Path | Record],
    *,
    copy: bool = False,
    whole: bool = False,
    within: Sequence[Path] = (),
    progress: bool = False,
    threads: int | None = None,
    limits: Limits = LIMITS,
    watch: Watch | None = None,
    exclude: Sequence[str] = (),
    namespace: str | None = None,
) -> Report:
    """Add every record found under ``paths`` to a store.

    The id of a record is the digest of its parts' content, so equal content is one record, and a second run
    encodes only what is new or changed. A file that cannot be read is reported, and the run continues. Ctrl-C
    commits what is done and returns a report with ``stopped`` set; the next run continues from there.

    Args:
        store: the store to add to.
        root: the folder of the memory.
        model: the encoders.
        paths: files, folders and manifests; a Record (without id and codes) is added as it is.
        copy: keep content-addressed copies of the media inside the memory.
        whole: skip a record if any of its parts cannot be read.
        within: read only files inside of these folders, with links resolved; empty allows all.
        progress: show a progress bar.
        threads: number of decoding threads (default: cores + 1, at most 8).
        limits: bounds on what is decoded of one file.
        watch: called after each record; False stops the run like Ctrl-C.
        exclude: patterns, as in gitignore, of files and folders to leave out of the folders given.
        namespace: the namespace that the records belong to; equal content in another is another record.
    """
    root = root.absolute()
    ignored: Counter[str] = Counter()
    left_out: Counter[str] = Counter()
    given = [path for path in paths if not isinstance(path, Record)]
    found = list(
        gather(
            given, extract_to=root / MEDIA, ignored=ignored, exclude=exclude, left_out=left_out, memory=root
        )
    )
    allowed = tuple(folder.resolve() for folder in within)
    run = _Run(store, root, model, copy, limits, whole, allowed, namespace)
    run.problems += [item for item in found if isinstance(item, Problem)]
    records = [item for item in (*paths, *found) if isinstance(item, Record)]
    stopped, read = False, 0
    threads = threads or min(8, (os.cpu_count() or 1) + 1)
    bar = tqdm(total=len(records), unit="rec", desc="remembering", delay=1.0, disable=not progress)
    try:
        with bar:
            for result in look_ahead(records, run.produce, threads, DEPTH):
                run.take(result)
                if result.value is None:
                    bar.update()
                    read += 1
                    if watch is not None and not watch(read, len(records)):
                        stopped = True
                        break
    except KeyboardInterrupt:
        stopped = True
    run.finish(stopped)
    gone = () if stopped else run.gone(given)
    return Report(
        run.remembered, run.already, tuple(run.problems), gone, ignored.total(), stopped,
        _most_first(ignored), _most_first(left_out),
    )  # fmt: skip


def _most_first(counts: Counter[str]) -> dict[str, int]:
    return dict(sorted(counts.items(), key=lambda item: (-item[1], item[0])))


class _Run:
    """One run. Worker threads call ``produce``; the consumer calls the other methods."""

    def __init__(
        self,
        store: Store,
        root: Path,
        model: EncoderSet,
        copy: bool,
        limits: Limits,
        whole: bool,
        within: tuple[Path, ...],
        namespace: str | None,
    ) -> None:
        self.store, self.root, self.model, self.copy, self.limits = store, root, model, copy, limits
        self.whole, self.within, self.namespace = whole, within, namespace
        self.problems: list[Problem] = []
        self.remembered = self.already = 0
        self._files = store.files()
        self._seen = store.metadata()
        self._tracker = FileTracker(store, root, self._files, dict(self._seen))
        self._taken: set[str] = set()
        self._broken: dict[str, str] = {}
        self._lock = threading.Lock()
        self._pending: list[tuple[_Growing, Part, Signal]] = []
        self._open: dict[int, _Growing] = {}
        self._done: list[_Growing] = []
        self._twins: list[_Known] = []
        self._failed: dict[str, str] = {}
        self._touched: list[FileState] = []
        self._described: dict[str, dict[str, Any]] = {}
        self._committed = time.monotonic()
        self._writer = ThreadPoolExecutor(max_workers=1)
        self._writing: Future[int] | None = None

    # --- in worker threads

    def produce(self, record: Record) -> Iterator[_Found]:
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
                yield Problem(part.path or "inline text", _reason(error))
                continue
            parts.append(replace(part, digest=digest))
            files += [state] if state else []
        if not parts or (self.whole and len(parts) < len(record.parts)):
            return
        identity = identity_of(parts, self.namespace)
        record = Record(identity, tuple(parts), owned(record.metadata, self.namespace))
        files = [replace(state, record_id=identity) for state in files]
        with self._lock:
            fresh, first = identity not in self._seen, identity not in self._taken
            self._taken.add(identity)
            if fresh:
                self._seen[identity] = dict(record.metadata)
        todo = parts
        if fresh:
            facts = self._facts_of(parts) | dict(record.metadata)
            record = replace(record, metadata=owned(facts, self.namespace))
        else:
            yield _Known(record, files)
            passing = {part.path for part in parts} - {state.path for state in files}
            todo = self._tracker.lacking(identity, parts, passing) if first else []
        if not todo:
            return
        growing = _Growing(record, [])
        yield growing
        for part in todo:
            try:
                for piece, signal in self._reused(part) or self._decode(part):
                    yield growing, piece, signal
                growing.files += [state for state in files if state.path == part.path]
            except (OSError, HarmoniaError) as error:
                yield _Broken(part.digest, Problem(part.path or "inline text", _reason(error)))

    def _facts_of(self, parts: Sequence[Part]) -> dict[str, Any]:
        """What the files of a new record say about themselves; the first part that names a column counts."""
        facts: dict[str, Any] = {}
        for part in sorted(parts, key=lambda part: METADATA_ORDER.index(part.modality)):
            if part.path is not None:
                found = metadata_of(Path(part.path), part.modality, self.limits, allowed=self._allowed)
                facts = found | facts
        return facts

    def _reused(self, part: Part) -> list[tuple[Part, Signal | None]]:
        """What an earlier run made of the same content, with its codes; empty if nothing."""
        if part.path is None:
            return []
        for identity in sorted(self._tracker.read.get(part.digest, ())):
            found = coded_parts(self.store, identity, part.digest)
            if found:
                kept = self._place(part)
                return [(replace(piece, path=kept), None) for piece in found]
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
        passing = path.is_relative_to(self.root) and not self._kept(path)
        return digest, None if passing else FileState(part.path, stat.st_size, stat.st_mtime_ns, digest, "")

    def _allowed(self, path: Path) -> bool:
        return not self.within or any(path.resolve().is_relative_to(folder) for folder in self.within)

    def _kept(self, path: Path) -> bool:
        """Whether a file lies in the media folder of the memory."""
        return path.is_relative_to(self.root / MEDIA)

    def _place(self, part: Part) -> str:
        """The path that a part keeps. With ``copy``, the file is copied there."""
        assert part.path is not None
        path = Path(part.path)
        if self._kept(path):
            # Extracted from a manifest into the memory: the path is relative, so that the memory can move.
            return str(path.relative_to(self.root))
        return put_media(self.root, path, part.digest)[0] if self.copy else part.path

    def _decode(self, part: Part) -> Iterator[tuple[Part, Signal]]:
        if part.path is None:
            for signal in pieces(part.text or "", limits=self.limits):
                yield replace(part, text=signal.text, start=signal.start, end=signal.end), signal
            return
        path, kept, module = Path(part.path), part.path, MODALITIES[part.modality]
        inside = self._kept(path)
        if inside:
            # Extracted from a manifest into the memory: the path is relative, so that the memory can move.
            kept = str(path.relative_to(self.root))
        elif self.copy:
            kept = media_path(part.digest, path.suffix)
        caption = None
        for signal in module.windows(path, limits=self.limits):
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
        if self.copy and not inside:
            put_media(self.root, path, part.digest)

    # --- in the consumer

    def take(self, result: Produced[Record, _Found]) -> None:
        """Take one prefetched result; encode and commit when there are enough."""
        match result.value:
            case Problem() as problem:
                self.problems.append(problem)
            case _Broken(digest, problem):
                self.problems.append(problem)
                self._broken[digest] = problem.reason
                self._open[id(result.item)].reason = problem.reason
            case _Known() as known:
                self._twins.append(known)
            case _Growing() as growing:
                self._open[id(result.item)] = growing
            case (growing, part, None):
                growing.parts.append(part)
            case (growing, part, signal):
                self._pending.append((growing, part, signal))
                if len(self._pending) >= BATCH:
                    self._encode()
            case None:
                self._end(result)

    def _end(self, result: Produced[Record, _Found]) -> None:
        if result.error is not None:
            first = result.item.parts[0].path or "inline text"
            self.problems.append(Problem(first, _reason(result.error)))
        growing = self._open.pop(id(result.item), None)
        if growing is not None:
            self._done.append(growing)
        late = time.monotonic() - self._committed > COMMIT_SECONDS
        if self._done and (late or len(self._done) >= COMMIT_RECORDS):
            self._encode()
            self._commit()

    def _renew(self, known: _Known) -> None:
        if known.record.id in self._failed:
            paths = [part.path for part in known.record.parts if part.path]
            self.problems += [Problem(path, self._failed[known.record.id]) for path in paths]
            return
        self.already += 1
        named = {problem.path for problem in self.problems}
        for part in known.record.parts:
            if part.path and part.digest in self._broken and part.path not in named:
                self.problems.append(Problem(part.path, self._broken[part.digest]))
        files = [state for state in known.files if state.digest not in self._broken]
        self._tracker.see(known.record, files)
        self._touched += [state for state in files if self._files.get(state.path) != state]
        held, facts = self._seen[known.record.id], known.record.metadata
        # Where a file is follows it by the tracker; a manifest may have new metadata.
        there = held.get("path") == facts.get("path")
        new = {k: v for k, v in facts.items() if (there or k not in FILE_FACTS) and held.get(k) != v}
        if new:
            self._described[known.record.id] = self._described.get(known.record.id, {}) | new

    def _encode(self) -> None:
        pending, self._pending = self._pending, []
        if not pending:
            return
        codes = self.model.encode([signal for _, _, signal in pending])
        for (growing, part, _), found in zip(pending, codes, strict=True):
            growing.parts += [replace(part, code=code) for code in found]

    def _commit(self) -> None:
        # A stored record whose missing part failed once more is there all the same.
        new = [g for g in self._done if g.record.id not in self._tracker.metadata]
        self._failed |= {g.record.id: g.reason for g in new if self._lost(g)}
        done, self._done = [g for g in self._done if not self._lost(g)], []
        records = [replace(g.record, parts=tuple(g.parts)) for g in done]
        files = [state for g in done for state in g.files]
        self._join()
        if records:
            # The store writes without the GIL, so decoding and encoding continue meanwhile.
            self._writing = self._writer.submit(self.store.add, records, files)
        for growing in done:
            self._tracker.see(growing.record, growing.files)
        self._committed = time.monotonic()

    def _lost(self, growing: _Growing) -> bool:
        return not growing.parts or (self.whole and bool(growing.reason))

    def _join(self) -> None:
        """Wait for the commit in progress and raise its error."""
        writing, self._writing = self._writing, None
        if writing is not None:
            self.remembered += writing.result()

    def finish(self, stopped: bool) -> None:
        """Encode and commit what is complete, follow moved files, and remove records that others replaced."""
        self._encode()
        self._commit()
        self._join()
        # Only now is it known whether the first file of each content could be read.
        for known in self._twins:
            self._renew(known)
        if stopped:
            # What is not seen yet may hold what seems replaced; the next run sees all.
            self._touched = [s for s in self._touched if s.path not in self._files]
            self.store.relocate({}, self._described, self._touched)
            return
        self._tracker.follow(self._touched, self._described, self.copy)
        if replaced := self._tracker.replaced():
            self.store.remove(replaced)

    def gone(self, paths: Sequence[str | Path]) -> tuple[str, ...]:
        """Remembered files under ``paths`` that no longer exist anywhere that the run saw."""
        return self._tracker.gone([os.path.abspath(path) for path in paths])  # noqa: PTH100


def identity_of(parts: Sequence[Part], namespace: str | None = None) -> str:
    """The id of a record: a digest of the digests of its parts, independent of their order.

    In a ``namespace`` it is another, which does not tell what the id of the same content is elsewhere.
    """
    lines = sorted(f"{part.modality} {part.digest}" for part in parts)
    if namespace is not None:
        lines.append(f"namespace {namespace}")
    return hashlib.sha256("\n".join(lines).encode()).hexdigest()[:32]


def _reason(error: Exception) -> str:
    if isinstance(error, HarmoniaError):
        return str(error)
    if isinstance(error, OSError):
        return (error.strerror or str(error)).lower()
    return f"{type(error).__name__}: {error}"
