"""Jobs: remember many files in the background, with progress."""

from __future__ import annotations

import json
import re
from collections.abc import AsyncIterator
from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Any

from fastapi import APIRouter, Header, Query, Request
from fastapi.responses import StreamingResponse

from harmonia.server.errors import not_found
from harmonia.server.jobs import ENDED, Job
from harmonia.server.keys import OWNER, Key
from harmonia.server.schemas.memory import JobRequest
from harmonia.server.service import REMEMBER, FilesDep, Service, ServiceDep, check_unbound, key_of
from harmonia.server.uploaded_files import record_id
from harmonia.server.uploaded_records import plain_name

router = APIRouter(prefix="/v1/memory/jobs", tags=["memory"])

EVENTS = {200: {"content": {"text/event-stream": {"schema": {"type": "string"}}}}}


@router.post("", status_code=202)
async def submit(
    body: JobRequest, request: Request, service: ServiceDep, uploaded: FilesDep
) -> dict[str, Any]:
    """Start a job that remembers paths within the allowed folders, or uploaded files."""
    owner, namespace = key_of(request) is OWNER, key_of(request).namespace
    if body.paths:
        check_unbound(request, "to remember by path")

    def begin() -> Job:
        if body.paths:
            paths = [Path(path) if owner else service.allowed_path(path) for path in body.paths]
            return service.jobs.submit(REMEMBER, paths, copy=body.copy_, anywhere=owner, exclude=body.exclude)
        files = [uploaded.get(file_id) for file_id in body.files]
        names = {record_id(file.id): plain_name(file.filename) for file in files}
        return service.jobs.submit(
            REMEMBER, [uploaded.path(file) for file in files], copy=True, note={"names": names},
            namespace=namespace,
        )  # fmt: skip

    return job_json(await service.work(begin), service, request)


@router.get("")
async def list_jobs(
    service: ServiceDep,
    request: Request,
    limit: Annotated[int, Query(ge=1, le=100)] = 20,
    after: str | None = None,
) -> dict[str, Any]:
    """List the jobs, newest first."""
    jobs = [job for job in reversed(service.jobs.all()) if _is_listed(job, key_of(request))]
    ids = [job.id for job in jobs]
    # nothing comes after an id that is not in the list, as with OpenAI
    begin = 0 if after is None else ids.index(after) + 1 if after in ids else len(ids)
    page = jobs[begin : begin + limit]
    return {
        "object": "list",
        "data": [job_json(job, service, request) for job in page],
        "first_id": page[0].id if page else None,
        "last_id": page[-1].id if page else None,
        "has_more": len(jobs) > begin + limit,
    }


@router.get("/{job_id}")
async def read(job_id: str, service: ServiceDep, request: Request) -> dict[str, Any]:
    """Read the state, progress and problems of a job."""
    return job_json(_find_job(service, job_id, key_of(request)), service, request)


@router.get("/{job_id}/events", response_class=StreamingResponse, responses=EVENTS)  # type: ignore[arg-type]
async def events(
    job_id: str, request: Request, service: ServiceDep, last_event_id: Annotated[str | None, Header()] = None
) -> StreamingResponse:
    """Stream a job as server-sent events until it ends; Last-Event-ID resumes a stream."""
    job = _find_job(service, job_id, key_of(request))
    seen = int(last_event_id) if last_event_id and re.fullmatch("[0-9]{1,15}", last_event_id) else -1

    async def stream() -> AsyncIterator[str]:
        async for now in service.jobs.watch(job, seen, lambda: service.ready):
            if now is None:
                yield ": waiting\n\n"
                continue
            name = now.state if now.state in ENDED else "progress"
            data = json.dumps(job_json(now, service, request))
            yield f"event: {name}\nid: {now.revision}\ndata: {data}\n\n"

    return StreamingResponse(stream(), media_type="text/event-stream")


@router.delete("/{job_id}")
async def cancel(job_id: str, service: ServiceDep, request: Request) -> dict[str, Any]:
    """Stop a job; records remembered so far stay."""
    job = _find_job(service, job_id, key_of(request))
    await service.work(lambda: service.jobs.cancel(job))
    return job_json(job, service, request)


def job_json(job: Job, service: Service, request: Request) -> dict[str, Any]:
    """A job as JSON, without internal fields; only the memory's owner sees where its files lie."""
    hidden = {"paths", "note", "copy", "whole", "kind", "anywhere", "namespace", "exclude"}
    shown = {k: v for k, v in asdict(job).items() if k not in hidden}
    if request.state.key is not OWNER:
        shown["gone"] = []
        shown["problems"] = [
            {
                "name": problem["name"],
                "reason": service.without_paths(problem["reason"].replace(problem.get("path", "\0"), "…")),
            }
            for problem in job.problems
        ]
        if job.anywhere and job.message:
            shown["message"] = "the job failed: its owner can see why"
    return {"object": "memory.job", **shown}


def _is_listed(job: Job, key: Key) -> bool:
    return job.kind == REMEMBER and key.owns(job.namespace)


def _find_job(service: Service, job_id: str, key: Key) -> Job:
    job = service.jobs.jobs.get(job_id)
    if job is None or not _is_listed(job, key):
        raise not_found("job", job_id)
    return job
