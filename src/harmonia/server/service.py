"""The service behind all routes: the memory, batched recalls, and thread pools for heavy work."""

from __future__ import annotations

import asyncio
import logging
import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, TypeVar

from fastapi import Depends, Request
from prometheus_client import CollectorRegistry
from starlette.requests import HTTPConnection

from harmonia.collection.collection import Memory
from harmonia.collection.cues import Query, RecallOptions, decode
from harmonia.collection.dates import Dates
from harmonia.collection.encoder_set import FILE_NAME
from harmonia.collection.json_output import HERE, View
from harmonia.collection.recall import NOTHING
from harmonia.collection.remember import Report
from harmonia.generators import Saved
from harmonia.server.batching import Batcher
from harmonia.server.errors import ApiError, for_clients, missing_model
from harmonia.server.jobs import Job, Jobs
from harmonia.server.keys import OWNER, Key
from harmonia.server.namespaces import PerNamespace
from harmonia.server.settings import Settings
from harmonia.server.uploaded_files import UploadedFiles
from harmonia.server.uploaded_records import NewRecord, StoredRecord, clear_temporary_folders, create
from harmonia.tasks.imagine import SHIPPED, load
from harmonia.types import Code, HarmoniaError, Recollection, Signal

log = logging.getLogger("harmonia.server")

T = TypeVar("T")

REMEMBER = "remember"
"""The kind of jobs that clients start."""
SERVER_FOLDER = ".server"
"""The folder inside the memory for the server's own files."""
POLL_SECONDS, POLL_BACKOFF = 1.0, 4.0
"""Seconds between two checks for changes by other processes; the wait is at least ``POLL_BACKOFF`` times the
duration of the last load."""


@dataclass(frozen=True, slots=True, eq=False)
class PendingRecall:
    """A recall waiting for its batch: the decoded query and the options."""

    query: Query
    options: RecallOptions


class Service:
    """Serves one memory.

    Thread pools do the heavy work, so that the event loop never blocks: ``asking`` (recalls and encoding,
    batched over clients), ``writing`` (changes of the memory, one at a time), ``working`` (decoding,
    sampling, previews), ``studying`` (long analyses of the whole memory), and the thread of ``jobs``.

    Recalls read ``collection``, a pinned snapshot that is replaced when the memory changes. A change by this
    process is acknowledged after the replacement, so that the next recall sees it. A change by another
    process is seen within about ``POLL_SECONDS`` plus the time to load it.
    """

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        self.collection = Memory(settings.memory, limits=settings.limits)
        self._state: tuple[int, ...] = ()
        self._renewing = threading.Lock()
        self._watcher: asyncio.Task[None] | None = None
        self.registry = CollectorRegistry()
        self.asking = ThreadPoolExecutor(1, "asking")
        self.writing = ThreadPoolExecutor(1, "writing")
        self.working = ThreadPoolExecutor(2, "working")
        self.studying = ThreadPoolExecutor(1, "studying")
        self._own = threading.local()
        self._loading = threading.Lock()
        self._generator: Saved | None = None
        how = {"size": settings.batch, "delay": settings.delay, "queue": settings.queue}
        self.recalls: Batcher[PendingRecall, Recollection] = Batcher(self._recall, self.asking, **how)  # type: ignore[arg-type]
        self.codes: Batcher[Signal, list[Code]] = Batcher(self._encode, self.asking, **how)  # type: ignore[arg-type]
        self.creates: Batcher[NewRecord, StoredRecord] = Batcher(self._create, self.writing, **how)  # type: ignore[arg-type]
        within = (*settings.roots, settings.memory)
        self.jobs = Jobs(
            settings.memory / SERVER_FOLDER / "jobs", self.writer, within, self.without_paths, self.renew
        )
        self.jobs.after(REMEMBER, self._name)
        self.created_at = _creation_time(settings.memory)
        self.files = PerNamespace(lambda namespace: UploadedFiles(settings.memory / SERVER_FOLDER, namespace))
        self.dates = Dates()
        self.report: tuple[tuple[int, int] | None, dict[str, Any]] = (None, {})
        self.ready = False

    async def start(self) -> None:
        """Load the models and the memory, and start answering."""
        self.recalls.start()
        self.codes.start()
        self.creates.start()
        await self.ask(self._warm)
        await self.work(lambda: clear_temporary_folders(self.settings.memory / SERVER_FOLDER))
        await self.work(self.jobs.start)
        self._watcher = asyncio.create_task(self._watch())
        self.ready = True

    async def stop(self) -> None:
        """Finish accepted work and stop the threads."""
        self.ready = False
        if self._watcher is not None:
            self._watcher.cancel()
        await self.recalls.stop()
        await self.codes.stop()
        await self.creates.stop()
        await self.jobs.stop()
        for pool in (self.writing, self.working, self.studying, self.asking):
            await asyncio.to_thread(pool.shutdown)

    async def ask(self, call: Callable[[], T]) -> T:
        """Run ``call`` in the recall thread, the only reader of ``collection``'s codes."""
        return await asyncio.get_running_loop().run_in_executor(self.asking, call)

    async def write(self, call: Callable[[], T]) -> T:
        """Run a change of the memory after earlier changes, then refresh the snapshot for recalls."""

        def change() -> T:
            try:
                return call()
            finally:
                self.renew()

        return await asyncio.get_running_loop().run_in_executor(self.writing, change)

    async def work(self, call: Callable[[], T]) -> T:
        """Run heavy work that does not read codes; it may read the store."""
        return await asyncio.get_running_loop().run_in_executor(self.working, call)

    async def study(self, call: Callable[[Memory], T]) -> T:
        """Run a long analysis on a collection of its own, so that recalls do not wait for it."""
        return await asyncio.get_running_loop().run_in_executor(self.studying, lambda: call(self.writer()))

    async def recall(self, query: Query, options: RecallOptions) -> Recollection:
        """Recall, batched with other clients' recalls; HarmoniaError if it cannot be answered.

        ``options.where`` has the condition on what the caller may see (``Key.records``).
        """
        if all(item.modality == "text" or isinstance(item.value, tuple) for item in query):
            decoded = decode(query, self.settings.limits)  # text and codes decode at once
        else:
            decoded = await self.work(lambda: decode(query, self.settings.limits))
        return await self.recalls(PendingRecall(decoded, options))

    async def encode(self, signals: Sequence[Signal]) -> list[list[Code]]:
        """The codes of each signal, by every encoder of its modality."""
        return list(await asyncio.gather(*(self.codes(signal) for signal in signals)))

    def generator(self) -> Saved:
        """The image generator, loaded on first use (call it in ``work``); ApiError 501 if there is none."""
        folder = Path(self.settings.generator) if self.settings.generator else SHIPPED
        with self._loading:
            if self._generator is None:
                if not folder.is_dir():
                    raise missing_model(
                        "image generation",
                        "run `harmonia train imagine-mini` and serve with --generator RUN/model",
                    )
                self._generator = load(folder)
            return self._generator

    def writer(self) -> Memory:
        """The calling thread's own Memory, because a Memory is not thread-safe."""
        if not hasattr(self._own, "collection"):
            self._own.collection = Memory(self.settings.memory, limits=self.settings.limits)
        collection: Memory = self._own.collection
        return collection

    def without_paths(self, message: str) -> str:
        """A message for clients, with the paths of the memory and the roots replaced by …."""
        for folder in (self.settings.memory, *self.settings.roots):
            for path in {str(folder.absolute()), str(folder.resolve())} - {"/"}:
                message = message.replace(path, "…")
        return for_clients(message)

    def allowed_path(self, path: str) -> Path:
        """Resolve a client's path; HarmoniaError unless it lies within the allowed roots."""
        try:
            resolved = Path(path).expanduser().resolve()
            allowed = any(resolved.is_relative_to(root.resolve()) for root in self.settings.roots)
            if allowed:
                resolved.exists()  # raises OSError if a name is too long
        except (OSError, ValueError, RuntimeError) as error:
            raise HarmoniaError("invalid path") from error
        if not allowed:
            raise HarmoniaError("the path is outside the allowed folders (see --root)")
        return resolved

    def renew(self) -> None:
        """Replace the snapshot if the memory has changed; recalls use the old one until then."""
        with self._renewing:
            try:
                state = self.collection.state
                if state != self._state:
                    self.collection, self._state = self.collection.pinned(), state
            except HarmoniaError as error:
                log.warning("the memory cannot be read anew", exc_info=error)

    async def _watch(self) -> None:
        """Refresh after changes by other processes."""
        while True:
            begun = time.monotonic()
            await asyncio.to_thread(self.renew)
            await asyncio.sleep(max(POLL_SECONDS, POLL_BACKOFF * (time.monotonic() - begun)))

    def _warm(self) -> None:
        self.renew()
        encoders = self.collection.encoders
        encoders.load_all()
        encoders.encode([Signal("text", "warm")])  # some encoders compile on first use

    def _encode(self, signals: Sequence[Signal]) -> Sequence[list[Code] | Exception]:
        return self.collection.encoders.encode(signals)

    def _name(self, job: Job, report: Report) -> None:
        """Set the names of records of uploaded files to the clients' file names."""
        names: dict[str, str] = job.note.get("names", {})
        if names:
            self.writer().store.describe({record_id: {"name": name} for record_id, name in names.items()})

    def _create(self, several: Sequence[NewRecord]) -> Sequence[StoredRecord | Exception]:
        results = create(self.writer(), several)
        self.renew()
        return results

    def _recall(self, pending: Sequence[PendingRecall]) -> Sequence[Recollection | Exception]:
        """Recalls with equal options run as one batch."""
        groups: dict[RecallOptions, list[int]] = {}
        for i, recall in enumerate(pending):
            groups.setdefault(recall.options, []).append(i)
        results: dict[int, Recollection | Exception] = {}
        collection = self.collection
        for options, members in groups.items():
            try:
                answers = collection.recall_many([pending[i].query for i in members], options)
            except HarmoniaError as error:
                # an empty memory matches nothing, which is an answer
                empty = not collection.exists or not collection.store.ids()
                results |= dict.fromkeys(members, NOTHING if empty else error)
                continue
            results |= dict(zip(members, answers, strict=True))
        return [results[i] for i in range(len(pending))]


def _creation_time(memory: Path) -> int:
    """The creation time of a memory, or now (Unix seconds)."""
    note = memory / FILE_NAME
    return int(note.stat().st_mtime if note.is_file() else time.time())


async def get_service(request: Request) -> Service:
    """The service of the app that a request came to (``Depends(get_service)``)."""
    service: Service = request.app.state.service
    return service


ServiceDep = Annotated[Service, Depends(get_service)]
"""The parameter type by which a route gets the service."""


def key_of(request: HTTPConnection) -> Key:
    """The key of the caller, which says what they may see and change."""
    key: Key = request.state.key
    return key


def view_of(request: Request) -> View:
    """The view of records that the caller gets."""
    key = key_of(request)
    return HERE if key is OWNER else View(private=key.may("admin"), served=True)


def check_unbound(request: Request, what: str) -> None:
    """ApiError 403 for a key of a namespace: ``what`` is of the whole memory or machine."""
    if key_of(request).namespace is not None:
        raise ApiError(403, f"{what} takes a key without a namespace", code="insufficient_scope")


async def get_files(request: Request, service: ServiceDep) -> UploadedFiles:
    """The uploaded files of the caller's namespace (``Depends(get_files)``)."""
    return service.files.of(key_of(request).namespace)


FilesDep = Annotated[UploadedFiles, Depends(get_files)]
"""The parameter type by which a route gets the uploaded files."""
