"""OpenAI's files: upload, list, read, delete."""

from __future__ import annotations

from dataclasses import asdict
from typing import Annotated, Any, Literal

from fastapi import APIRouter, Depends, Form, Query, UploadFile
from fastapi.responses import Response

from harmonia.server.errors import ApiError, not_found
from harmonia.server.file_response import SENT, Sent
from harmonia.server.openai import pagination
from harmonia.server.service import Service, service
from harmonia.server.uploaded_files import File, record_id

router = APIRouter(prefix="/v1/files", tags=["openai"])

At = Annotated[Service, Depends(service)]
Purpose = Literal["assistants", "batch", "fine-tune", "vision", "user_data", "evals"]


@router.post("")
async def upload(
    at: At,
    file: UploadFile,
    purpose: Annotated[Purpose, Form()],
    expires: Annotated[str | None, Form(alias="expires_after[anchor]")] = None,
) -> dict[str, Any]:
    """Keep a file, to be attached to a vector store. The same content again is the same file."""
    if expires is not None:
        raise ApiError(400, "files stay until they are deleted: leave it out", param="expires_after")
    return file_json(await at.work(lambda: at.files.add(file.file, file.filename or "", purpose)))


@router.get("")
async def list_files(
    at: At,
    limit: Annotated[int, Query(ge=1, le=10_000)] = 10_000,
    order: Literal["asc", "desc"] = "desc",
    after: Annotated[str | None, Query(max_length=100)] = None,
    purpose: Annotated[str | None, Query(max_length=100)] = None,
) -> dict[str, Any]:
    """Files, newest first."""
    every = {file.id: file for file in at.files.all() if purpose in (None, file.purpose)}
    ids, more = pagination.page(list(every), limit, order, after)
    return pagination.listed([file_json(every[one]) for one in ids], more)


@router.get("/{file_id}")
async def read(file_id: str, at: At) -> dict[str, Any]:
    """What is known of a file."""
    return file_json(at.files.get(file_id))


@router.get("/{file_id}/content", response_class=Response, responses=SENT)
async def content(file_id: str, at: At) -> Sent:
    """The file itself."""
    file = at.files.get(file_id)
    path = at.files.path(file)
    if not path.is_file():
        raise not_found("file", file_id)
    return Sent(path, media_type=file.mime, filename=file.filename)


@router.delete("/{file_id}")
async def delete(file_id: str, at: At) -> dict[str, Any]:
    """Delete a file and, as OpenAI does, remove it from every vector store: the memory forgets it."""
    file = at.files.get(file_id)
    await at.work(lambda: at.files.remove(file))
    await at.write(lambda: at.stores.forget(record_id(file.id)))
    return {"id": file_id, "object": "file", "deleted": True}


def file_json(file: File) -> dict[str, Any]:
    """A file as OpenAI's clients read it."""
    shown = {k: v for k, v in asdict(file).items() if k not in ("suffix", "mime", "modality")}
    return {"object": "file", **shown, "status": "processed", "expires_at": None, "status_details": None}
