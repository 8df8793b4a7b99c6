"""Remembering in the background: jobs that survive the process, with progress that can be watched."""

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

from harmonia.collection.collection import Collection
from harmonia.collection.remember import Report
from harmonia.server.errors import ApiError
from harmonia.store.atomic import write_atomically
from harmonia.types import HarmoniaError

log = logging.getLogger("harmonia.server")

ENDED = ("completed", "failed", "stopped")
PROBLEMS, KEPT, WAITING = 1000, 500, 100
"""Most problems that a job lists; most jobs that are kept, and that wait."""
SAVE_SECONDS, LOOK_SECONDS, PING_SECONDS = 1.0, 0.1, 15.0
"""How often progress is written down, watchers look for it, and a silent stream shows that it lives."""


@dataclass(slots=True)
class Job:
    """What is to be remembered, and how far it is. ``note`` is what its submitter has to know later.

    ``state`` is queued, running, completed, failed or stopped; ``done`` of ``total`` records are read.
    ``problems`` are file names with the reason. A job of the memory's owner may read files ``anywhere``; to
    the owner it tells paths, those that are ``gone``, and how many files of other types it ``ignored``.
    ``revision`` grows with every change.
    """

    id: str
    kind: str
    paths: list[str]
    copy: bool = False
    whole: bool = False
    note: dict[str, Any] = field(default_factory=dict)
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
    message: str | None = None
    revision: int = 0


Callback = Callable[[Job, Report], None]


class Jobs:
    """The jobs of one memory, run one after the other in a thread of their own.

    Each is a file in ``folder``: one that the end of the process interrupted goes on at the next ``start``;
    what was committed is not read again. ``open`` gives the memory to the thread, ``within`` are the folders
    that files may lie in, ``without_paths`` removes paths from a message; ``changed`` is called before a job
    completes.
    """

    def __init__(
        self,
        folder: Path,
        open: Callable[[], Collection],
        within: Sequence[Path],
        without_paths: Callable[[str], str] = str,
        changed: Callable[[], None] = lambda: None,
    ) -> None:
        self.folder, self.open, self.within, self.without_paths = folder, open, within, without_paths
        self.changed = changed
        self.thread = ThreadPoolExecutor(1, "jobs")
        self.jobs: dict[str, Job] = {}
        self.ending = threading.Event()
        self._then: dict[str, Callback] = {}
        self._unwanted: set[str] = set()
        self._saved = 0.0
        self._lock = threading.Lock()

    def after(self, kind: str, then: Callback) -> None:
        """Have ``then`` called, in the jobs' thread, when a job of this kind has read its files (if it was
        cancelled, those that it came to).

        The job completes after it: a process that dies meanwhile does both again. Register before ``start``.
        """
        self._then[kind] = then

    def start(self) -> None:
        """Read the jobs that there are, and go on with those that have not ended."""
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
        """Let the job that runs commit what it has; it goes on at the next start."""
        self.ending.set()
        await asyncio.to_thread(self.thread.shutdown, cancel_futures=True)

    def all(self) -> list[Job]:
        """Every job, oldest first."""
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
    ) -> Job:
        """Begin to remember files, folders and manifests; the job, which is on disk already.

        ``copy`` keeps copies of the media inside the memory, ``whole`` leaves out records that are partly
        broken. ``then`` is ``after(kind, then)``. ApiError 503 if too many wait. The paths have to be allowed
        ones.
        """
        if then is not None:
            self.after(kind, then)
        files, note_copy = [str(path) for path in paths], dict(note or {})
        job = Job(f"job-{uuid.uuid4().hex}", kind, files, copy, whole, note_copy, anywhere=anywhere)
        with self._lock:
            if sum(job.state not in ENDED for job in self.jobs.values()) >= WAITING:
                raise ApiError(
                    503, "too many jobs are waiting: try again later", headers={"Retry-After": "30"}
                )
            self._forget_old()
            self.jobs[job.id] = job
        self._save(job)
        self.thread.submit(self._run, job)
        return job

    def cancel(self, job: Job) -> None:
        """Stop a job after the record that it is at; what it has is kept."""
        with self._lock:
            if job.state in ENDED:
                return
            self._unwanted.add(job.id)
            if job.state == "queued":
                self._end(job, "stopped")

    def update_note(self, job: Job, note: Mapping[str, Any]) -> None:
        """Change what the submitter of a job has to know later."""
        job.note = dict(note)
        self._save(job)

    async def watch(self, job: Job, seen: int, alive: Callable[[], bool]) -> AsyncIterator[Job | None]:
        """The job whenever it has changed since revision ``seen``, until it ends; None shows life."""
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
            await asyncio.sleep(LOOK_SECONDS)

    def _run(self, job: Job) -> None:
        """In the jobs' thread."""
        with self._lock:
            if job.state in ENDED or self.ending.is_set():
                return
            job.state = "running"
        self._save(job)

        def watch(done: int, total: int) -> bool:
            job.done, job.total = done, total
            self._progress(job)
            return job.id not in self._unwanted and not self.ending.is_set()

        try:
            report = self.open().remember(
                job.paths,
                copy=job.copy,
                whole=job.whole,
                within=() if job.anywhere else self.within,
                watch=watch,
            )
            job.remembered += report.remembered
            job.already = report.already
            job.problems = [
                {
                    "name": Path(problem.path).name,
                    "reason": problem.reason if job.anywhere else self.without_paths(problem.reason),
                    **({"path": problem.path} if job.anywhere else {}),
                }
                for problem in report.problems[:PROBLEMS]
            ]
            job.gone, job.ignored = list(report.gone) if job.anywhere else [], report.ignored
            if report.stopped and job.id not in self._unwanted:
                self._save(job)  # the server ends: the job goes on with the next one
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
            job.message = "the server failed; its log says why"
            self._end(job, "failed")

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

    def _forget_old(self) -> None:
        """Keep no more than ``KEPT`` jobs: the oldest that have ended go."""
        ended = [job for job in self.all() if job.state in ENDED]
        for job in ended[: max(0, len(self.jobs) - KEPT + 1)]:
            self.jobs.pop(job.id)
            (self.folder / f"{job.id}.json").unlink(missing_ok=True)
