"""Background jobs that remember files: persistent, with progress that clients can follow."""

from __future__ import annotations

import asyncio
import json
import logging
import threading
import time
import uuid
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from harmonia.collection.collection import Memory
from harmonia.collection.remember import Report
from harmonia.data.left_out import compiled
from harmonia.modalities import LIMITS
from harmonia.server.errors import ApiError
from harmonia.store.atomic import write_atomically
from harmonia.types import HarmoniaError

log = logging.getLogger("harmonia.server")

ENDED = ("completed", "failed", "stopped")
MAX_PROBLEMS, MAX_JOBS, MAX_WAITING = 1000, 500, 100
"""Most problems that a job lists, most stored jobs of a namespace, and most waiting jobs."""
SAVE_SECONDS, POLL_SECONDS, PING_SECONDS = 1.0, 0.1, 15.0
"""Intervals of saving progress, of polling for it, and of keep-alive messages."""


@dataclass(slots=True)
class Job:
    """The paths to remember, without what matches ``exclude``, and the progress. ``note`` is data of the
    submitter.

    ``state`` is queued, running, completed, failed or stopped; ``done`` of ``total`` records are read.
    ``problems`` lists file names with reasons. A job of the memory's owner may read files ``anywhere``, and
    reports paths, records whose files are ``gone``, the number of ``ignored`` files of other types, their
    ``kinds``, and what was ``left_out`` by reason. Its records belong to its ``namespace``.
    ``revision`` increases with every change.
    """

    id: str
    kind: str
    paths: list[str]
    copy: bool = False
    whole: bool = False
    note: dict[str, Any] = field(default_factory=dict)
    exclude: list[str] = field(default_factory=list)
    state: str = "queued"
    created: float = field(default_factory=time.time)
    ended: float | None = None
    done: int = 0
    total: int = 0
    remembered: int = 0
    already: int = 0
    problems: list[dict[str, str]] = field(default_factory=list)
    anywhere: bool = False
    gone: list[str] = field(default_factory=list)
    ignored: int = 0
    kinds: dict[str, int] = field(default_factory=dict)
    left_out: dict[str, int] = field(default_factory=dict)
    message: str | None = None
    revision: int = 0
    namespace: str | None = None


Callback = Callable[[Job, Report], None]


class Jobs:
    """The jobs of one memory, run one at a time in their own thread.

    Each job is a file in ``folder``: an interrupted job continues at the next ``start`` and skips committed
    files. ``open_memory`` returns the thread's collection, ``within`` lists the allowed folders,
    ``without_paths`` removes paths from a message; ``changed`` is called before a job completes.
    """

    def __init__(
        self,
        folder: Path,
        open_memory: Callable[[], Memory],
        within: Sequence[Path],
        without_paths: Callable[[str], str] = str,
        changed: Callable[[], None] = lambda: None,
    ) -> None:
        self.folder, self.open_memory = folder, open_memory
        self.within, self.without_paths = within, without_paths
        self.changed = changed
        self.thread = ThreadPoolExecutor(1, "jobs")
        self.jobs: dict[str, Job] = {}
        self.ending = threading.Event()
        self._then: dict[str, Callback] = {}
        self._unwanted: set[str] = set()
        self._saved = 0.0
        self._lock = threading.Lock()

    def after(self, kind: str, then: Callback) -> None:
        """Register a callback, run in the jobs' thread after a job of this kind has read its files (all of
        them, or those read before it was cancelled).

        The job completes after the callback: if the process dies meanwhile, both run again. Call this before
        ``start``.
        """
        self._then[kind] = then

    def start(self) -> None:
        """Load the stored jobs, and continue those that have not ended."""
        for file in self.folder.glob("*.json"):
            try:
                job = Job(**json.loads(file.read_text(encoding="utf-8")))
            except (OSError, ValueError, TypeError):
                log.warning("a job cannot be read", extra={"facts": {"job": file.stem}})
                continue
            self.jobs[job.id] = job
        for job in self.all():
            if job.state not in ENDED:
                self.thread.submit(self._run, job)

    async def stop(self) -> None:
        """Let the running job commit what it has read; it continues at the next start."""
        self.ending.set()
        await asyncio.to_thread(self.thread.shutdown, cancel_futures=True)

    def all(self) -> list[Job]:
        """All jobs, oldest first."""
        return sorted(self.jobs.values(), key=lambda job: (job.created, job.id))

    def submit(
        self,
        kind: str,
        paths: Sequence[str | Path],
        then: Callback | None = None,
        *,
        copy: bool = False,
        whole: bool = False,
        note: Mapping[str, Any] | None = None,
        anywhere: bool = False,
        namespace: str | None = None,
        exclude: Sequence[str] = (),
    ) -> Job:
        """Start a job that remembers files, folders and manifests; returns it after it was saved.

        ``copy`` stores copies of the media inside the memory, ``whole`` skips records with an invalid part;
        ``exclude`` are patterns of gitignore. ``then`` is ``after(kind, then)``. ApiError 503 if too many
        jobs wait, HarmoniaError for a wrong pattern. The caller has checked that the paths are allowed.
        """
        if then is not None:
            self.after(kind, then)
        if exclude:
            compiled(exclude)
        files, note_copy = [str(path) for path in paths], dict(note or {})
        job = Job(
            f"job-{uuid.uuid4().hex}", kind, files, copy, whole, note_copy, list(exclude), anywhere=anywhere
        )
        job.namespace = namespace
        with self._lock:
            if sum(job.state not in ENDED for job in self.jobs.values()) >= MAX_WAITING:
                raise ApiError(503, "too many waiting jobs: try again later", headers={"Retry-After": "30"})
            self._forget_old(namespace)
            self.jobs[job.id] = job
        self._save(job)
        self.thread.submit(self._run, job)
        return job

    def cancel(self, job: Job) -> None:
        """Stop a job after its current record; records remembered so far stay."""
        with self._lock:
            if job.state in ENDED:
                return
            self._unwanted.add(job.id)
            if job.state == "queued":
                self._end(job, "stopped")

    def update_note(self, job: Job, note: Mapping[str, Any]) -> None:
        """Replace the note of a job."""
        job.note = dict(note)
        self._save(job)

    async def watch(self, job: Job, seen: int, alive: Callable[[], bool]) -> AsyncIterator[Job | None]:
        """Yield the job after each change since revision ``seen`` until it ends; None is a keep-alive."""
        quiet, state = time.monotonic(), None
        while alive():
            if job.revision != seen or (state is not None and job.state != state):
                seen, state, quiet = job.revision, job.state, time.monotonic()
                yield job
            elif job.state in ENDED:
                return
            if time.monotonic() - quiet > PING_SECONDS:
                quiet = time.monotonic()
                yield None
            await asyncio.sleep(POLL_SECONDS)

    def _run(self, job: Job) -> None:
        """Run a job, in the jobs' thread."""
        with self._lock:
            if job.state in ENDED or self.ending.is_set():
                return
            job.state = "running"
        self._save(job)

        def watch(done: int, total: int) -> bool:
            job.done, job.total = done, total
            self._progress(job)
            return job.id not in self._unwanted and not self.ending.is_set()

        memory = self.open_memory()
        usual = memory.limits
        try:
            memory.limits = LIMITS if job.anywhere else usual
            report = memory.remember(
                job.paths,
                copy=job.copy,
                whole=job.whole,
                within=() if job.anywhere else self.within,
                watch=watch,
                namespace=job.namespace,
                exclude=job.exclude,
            )
            job.remembered += report.remembered
            job.already = report.already
            job.problems = [
                {
                    "name": Path(problem.path).name,
                    "reason": problem.reason if job.anywhere else self.without_paths(problem.reason),
                    **({"path": problem.path} if job.anywhere else {}),
                }
                for problem in report.problems[:MAX_PROBLEMS]
            ]
            job.gone, job.ignored = list(report.gone) if job.anywhere else [], report.ignored
            job.kinds, job.left_out = dict(report.kinds), dict(report.left_out)
            if report.stopped and job.id not in self._unwanted:
                self._save(job)  # the server stops: the job continues at the next start
                return
            if job.kind in self._then:
                self._then[job.kind](job, report)
            self.changed()
            self._end(job, "stopped" if report.stopped else "completed")
        except HarmoniaError as error:
            job.message = self.without_paths(str(error))
            self._end(job, "failed")
        except Exception as error:
            log.error("a job failed", extra={"facts": {"job": job.id}}, exc_info=error)
            job.message = "internal server error: see the log of the server"
            self._end(job, "failed")
        finally:
            memory.limits = usual

    def _end(self, job: Job, state: str) -> None:
        job.ended, job.state = time.time(), state
        self._unwanted.discard(job.id)
        self._save(job)

    def _progress(self, job: Job) -> None:
        job.revision += 1
        if time.monotonic() - self._saved > SAVE_SECONDS:
            self._save(job)

    def _save(self, job: Job) -> None:
        job.revision += 1
        self._saved = time.monotonic()
        self.folder.mkdir(parents=True, exist_ok=True)
        write_atomically(self.folder / f"{job.id}.json", json.dumps(asdict(job)))

    def _forget_old(self, namespace: str | None) -> None:
        """Store no more than ``MAX_JOBS`` jobs of a namespace: delete the oldest ended ones."""
        own = [job for job in self.all() if job.namespace == namespace]
        ended = [job for job in own if job.state in ENDED]
        for job in ended[: max(0, len(own) - MAX_JOBS + 1)]:
            self.jobs.pop(job.id)
            (self.folder / f"{job.id}.json").unlink(missing_ok=True)
