"""OpenAI's files endpoints: upload, list, read, delete."""

from __future__ import annotations

from dataclasses import asdict
from typing import Annotated, Any, Literal

from fastapi import APIRouter, Form, Query, UploadFile
from fastapi.responses import Response

from harmonia.server.errors import ApiError, not_found
from harmonia.server.file_response import FILE_RESPONSES, MediaResponse
from harmonia.server.openai import pagination
from harmonia.server.openai.pagination import Cursor, Order
from harmonia.server.openai.routes.vector_stores import VectorStoresDep
from harmonia.server.service import FilesDep, ServiceDep
from harmonia.server.uploaded_files import UploadedFile, record_id

router = APIRouter(prefix="/v1/files", tags=["openai"])

Purpose = Literal["assistants", "batch", "fine-tune", "vision", "user_data", "evals"]


@router.post("")
async def upload(
    service: ServiceDep,
    files: FilesDep,
    file: UploadFile,
    purpose: Annotated[Purpose, Form()],
    anchor: Annotated[Literal["created_at"] | None, Form(alias="expires_after[anchor]")] = None,
    seconds: Annotated[int | None, Form(alias="expires_after[seconds]", ge=3600, le=2_592_000)] = None,
) -> dict[str, Any]:
    """Store a file, to attach to a vector store. The same content again is the same file."""
    if (anchor is None) != (seconds is None):
        raise ApiError(400, "expires_after takes both anchor and seconds", param="expires_after")
    name = file.filename or ""
    return file_json(await service.work(lambda: files.add(file.file, name, purpose, seconds)))


@router.get("")
async def list_files(
    uploaded: FilesDep,
    limit: Annotated[int, Query(ge=0, le=10_000)] = 10_000,
    order: Order = "desc",
    after: Cursor = None,
    purpose: Annotated[str | None, Query(max_length=100)] = None,
) -> dict[str, Any]:
    """List the files, newest first."""
    files = {file.id: file for file in uploaded.all() if purpose in (None, file.purpose)}
    ids, more = pagination.page(list(files), limit, order, after)
    return pagination.list_json([file_json(files[file_id]) for file_id in ids], more)


@router.get("/{file_id}")
async def read(file_id: str, files: FilesDep) -> dict[str, Any]:
    """Read the description of a file."""
    return file_json(files.get(file_id))


@router.get("/{file_id}/content", response_class=Response, responses=FILE_RESPONSES)
async def content(file_id: str, files: FilesDep) -> MediaResponse:
    """Download the content of a file."""
    file = files.get(file_id)
    path = files.path(file)
    if not path.is_file():
        raise not_found("file", file_id)
    return MediaResponse(path, media_type=file.mime, filename=file.filename)


@router.delete("/{file_id}")
async def delete(
    file_id: str, service: ServiceDep, files: FilesDep, stores: VectorStoresDep
) -> dict[str, Any]:
    """Delete a file and, as OpenAI does, remove it from all vector stores: its record is forgotten."""
    file = files.get(file_id)
    await service.work(lambda: files.remove(file))
    await service.write(lambda: stores.forget(record_id(file.id)))
    return {"id": file_id, "object": "file", "deleted": True}


def file_json(file: UploadedFile) -> dict[str, Any]:
    """A file in OpenAI's format."""
    shown = {k: v for k, v in asdict(file).items() if k not in ("suffix", "mime", "modality")}
    return {"object": "file", **shown, "status": "processed", "status_details": None}
