"""Remembering of files: records, codes, store. Incremental, resumable, and in bounded memory."""

from __future__ import annotations

import os
import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from tqdm import tqdm

from harmonia.collection.encoder_set import EncoderSet
from harmonia.collection.file_tracking import FILE_FACTS, FileTracker
from harmonia.collection.prefetch import Produced, look_ahead
from harmonia.collection.record_reader import (
    BrokenContent,
    Found,
    GrowingRecord,
    KnownRecord,
    RecordReader,
    reason_of,
)
from harmonia.data import Problem, gather
from harmonia.modalities import LIMITS, Limits
from harmonia.store import FileState, Store
from harmonia.store.media import FOLDER as MEDIA
from harmonia.types import Part, Record, Signal

# Signals in one encoding batch, and the maximum number of decoded results that wait for it.
BATCH = 64
DEPTH = 128
# Records, or seconds, after which a commit is made.
COMMIT_RECORDS, COMMIT_SECONDS = 256, 10.0


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


Watch = Callable[[int, int], bool]
"""Called after each record with the number of records read and their total; False stops the run."""


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
    known, files = store.metadata(), store.files()
    tracker = FileTracker(store, root, files, dict(known))
    reader = RecordReader(
        store, root, tracker, known, copy=copy, limits=limits, whole=whole,
        within=tuple(folder.resolve() for folder in within), namespace=namespace,
    )  # fmt: skip
    run = _Run(store, model, tracker, known, files, copy=copy, whole=whole)
    run.problems += [item for item in found if isinstance(item, Problem)]
    records = [item for item in (*paths, *found) if isinstance(item, Record)]
    stopped, read = False, 0
    threads = threads or min(8, (os.cpu_count() or 1) + 1)
    bar = tqdm(total=len(records), unit="rec", desc="remembering", delay=1.0, disable=not progress)
    try:
        with bar:
            for result in look_ahead(records, reader.read, threads, DEPTH):
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
    """The consumer of what one run reads: it encodes, commits, and follows what is held already."""

    def __init__(
        self,
        store: Store,
        model: EncoderSet,
        tracker: FileTracker,
        known: Mapping[str, Mapping[str, Any]],
        files: Mapping[str, FileState],
        *,
        copy: bool,
        whole: bool,
    ) -> None:
        self.store, self.model, self.copy, self.whole = store, model, copy, whole
        self._tracker, self._known, self._files = tracker, known, files
        self.problems: list[Problem] = []
        self.remembered = self.already = 0
        self._broken: dict[str, str] = {}
        self._pending: list[tuple[GrowingRecord, Part, Signal]] = []
        self._open: dict[int, GrowingRecord] = {}
        self._done: list[GrowingRecord] = []
        self._twins: list[KnownRecord] = []
        self._failed: dict[str, str] = {}
        self._touched: list[FileState] = []
        self._described: dict[str, dict[str, Any]] = {}
        self._committed = time.monotonic()
        self._writer = ThreadPoolExecutor(max_workers=1)
        self._writing: Future[int] | None = None

    def take(self, result: Produced[Record, Found]) -> None:
        """Take one prefetched result; encode and commit when there are enough."""
        match result.value:
            case Problem() as problem:
                self.problems.append(problem)
            case BrokenContent(digest, problem):
                self.problems.append(problem)
                self._broken[digest] = problem.reason
                self._open[id(result.item)].reason = problem.reason
            case KnownRecord() as known:
                self._twins.append(known)
            case GrowingRecord() as growing:
                self._open[id(result.item)] = growing
            case (growing, part, None):
                growing.parts.append(part)
            case (growing, part, signal):
                self._pending.append((growing, part, signal))
                if len(self._pending) >= BATCH:
                    self._encode()
            case None:
                self._end(result)

    def _end(self, result: Produced[Record, Found]) -> None:
        if result.error is not None:
            first = result.item.parts[0].path or "inline text"
            self.problems.append(Problem(first, reason_of(result.error)))
        growing = self._open.pop(id(result.item), None)
        if growing is not None:
            self._done.append(growing)
        late = time.monotonic() - self._committed > COMMIT_SECONDS
        if self._done and (late or len(self._done) >= COMMIT_RECORDS):
            self._encode()
            self._commit()

    def _renew(self, known: KnownRecord) -> None:
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
        held, facts = self._known[known.record.id], known.record.metadata
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

    def _lost(self, growing: GrowingRecord) -> bool:
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
