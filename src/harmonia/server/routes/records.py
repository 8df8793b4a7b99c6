"""Records: create, list, read, change metadata, forget."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Annotated, Any, Literal

from fastapi import APIRouter, File, Form, Query, Request, UploadFile
from fastapi.responses import JSONResponse
from pydantic import BeforeValidator, TypeAdapter, ValidationError

from harmonia.collection.dates import by_date
from harmonia.collection.json_output import View, record_json
from harmonia.server import filters
from harmonia.server.errors import ApiError, not_found
from harmonia.server.forms import FILES, FormRoute, parse_json
from harmonia.server.keys import Key
from harmonia.server.schemas.filters import Filter
from harmonia.server.schemas.memory import RecordByPath, UpdateRecordRequest
from harmonia.server.service import SERVER_FOLDER, Service, ServiceDep, check_unbound, key_of, view_of
from harmonia.server.uploaded_records import (
    NewRecord,
    StoredRecord,
    checked_metadata,
    file_type,
    plain_name,
    save_upload,
    temporary_folder,
    text_part,
)
from harmonia.store import digest_file
from harmonia.types import HarmoniaError, Part, Record

router = APIRouter(prefix="/v1/memory/records", tags=["memory"])

Order = Literal["asc", "desc"]
WhereParam = Annotated[str | None, Query(max_length=4000)]
FiltersParam = Annotated[str | None, Query(alias="filters", max_length=20_000)]

FORM = {
    "requestBody": {
        "content": {
            "multipart/form-data": {
                "schema": {
                    "type": "object",
                    "properties": {
                        "files": {"type": "array", "items": {"type": "string", "format": "binary"}},
                        "text": {"type": "string"},
                        "metadata": {"type": "string", "description": "a JSON object"},
                        "separate": {"type": "boolean", "default": False},
                    },
                }
            }
        }
    }
}


async def create_form(
    request: Request,
    service: ServiceDep,
    files: Annotated[list[UploadFile], File()] = [],  # noqa: B006 (FastAPI copies it)
    text: Annotated[str | None, Form()] = None,
    metadata: Annotated[str, Form()] = "{}",
    separate: Annotated[bool, Form(), BeforeValidator(lambda v: False if v in ("", "null") else v)] = False,
) -> JSONResponse:
    """Remember uploaded files and text: as one record, or with ``separate`` one record per file."""
    fields = parse_json(metadata or "{}", "metadata")
    fields = {} if fields is None else fields
    if not isinstance(fields, dict):
        raise ApiError(400, "metadata must be a JSON object", param="metadata")
    fields = checked_metadata(fields)
    if len(files) > FILES:
        raise ApiError(400, f"at most {FILES} files per request: start a job for more", param="files")
    words = [text_part(text)] if text is not None else []
    with ExitStack() as stack:
        folder = await service.work(
            lambda: stack.enter_context(temporary_folder(service.settings.memory / SERVER_FOLDER))
        )
        if separate:
            return await _create_each(service, files, words, fields, folder, request)
        parts = [await _save(service, file, folder) for file in files]
        names = {"name": plain_name(files[0].filename or "")} if files else {}
        stored = await _store(service, [*parts, *words], names | fields, key_of(request))
    return JSONResponse(_record_json(stored, view_of(request)), 201 if stored.created else 200)


router.add_api_route(
    "", create_form, methods=["POST"], route_class_override=FormRoute, include_in_schema=False
)


@router.post("", status_code=201, openapi_extra=FORM, responses={200: {"description": "It was there"}})
async def create_by_path(body: RecordByPath, request: Request, service: ServiceDep) -> JSONResponse:
    """Remember a copy of a file on the server's machine, within the allowed folders."""
    check_unbound(request, "to remember by path")
    fields = checked_metadata(body.metadata)
    words = [text_part(body.text)] if body.text is not None else []

    def part() -> Part:
        path = service.allowed_path(body.path)
        if not path.is_file():
            raise ApiError(400, "the path is not a file: start a job for a folder", param="path")
        return Part(file_type(path).modality, path=str(path), digest=digest_file(path))

    file_part = await service.work(part)
    names = {"name": Path(file_part.path or "").stem}
    stored = await _store(service, [file_part, *words], names | fields, key_of(request))
    return JSONResponse(_record_json(stored, view_of(request)), 201 if stored.created else 200)


@router.get("")
async def list_records(
    request: Request,
    service: ServiceDep,
    limit: Annotated[int, Query(ge=1, le=1000)] = 20,
    after: str | None = None,
    order: Order = "desc",
    where: WhereParam = None,
    filters_: FiltersParam = None,
    sort: Literal["created", "date"] = "created",
) -> dict[str, Any]:
    """List records, newest first; ``after`` is the ``last_id`` of the previous page.

    They are sorted by when they were added, or by ``date``, which each then has: when it was taken, else
    modified, else added.
    """
    condition = filters.condition_of(where, parse_filters(filters_), key=key_of(request))

    def read() -> tuple[list[Record], bool, Mapping[str, str]]:
        if not service.collection.exists:
            return [], False, {}
        store = service.collection.store
        created = store.created(condition)
        dates = service.dates.of(store) if sort == "date" else {}
        if sort == "date":
            ids = by_date(created, dates, newest_first=order == "desc")
        else:
            ids = list(created) if order == "asc" else list(created)[::-1]
        # nothing comes after an id that is not in the list, as with OpenAI
        begin = 0 if after is None else ids.index(after) + 1 if after in ids else len(ids)
        return store.records(ids[begin : begin + limit]), len(ids) > begin + limit, dates

    records, more, dates = await service.work(read)
    return {
        "object": "list",
        "data": [
            record_json(record, view_of(request)) | ({"date": dates[record.id]} if dates else {})
            for record in records
        ],
        "first_id": records[0].id if records else None,
        "last_id": records[-1].id if records else None,
        "has_more": more,
    }


@router.get("/{record_id}")
async def read(record_id: str, request: Request, service: ServiceDep) -> dict[str, Any]:
    """Read one record with all its parts."""
    record = await service.work(lambda: _find_record(service, record_id, key_of(request)))
    return record_json(record, view_of(request))


@router.patch("/{record_id}")
async def describe(
    record_id: str, body: UpdateRecordRequest, request: Request, service: ServiceDep
) -> dict[str, Any]:
    """Change the metadata of a record, key by key."""
    fields = checked_metadata(body.metadata)
    await service.work(lambda: _find_record(service, record_id, key_of(request)))
    await service.write(lambda: service.writer().store.describe({record_id: fields}))
    record = await service.work(lambda: _find_record(service, record_id, key_of(request)))
    return record_json(record, view_of(request))


@router.delete("/{record_id}")
async def forget(record_id: str, request: Request, service: ServiceDep) -> dict[str, Any]:
    """Forget a record: its parts, and its media copies that no other record uses."""
    await service.work(lambda: _find_record(service, record_id, key_of(request)))
    await service.write(lambda: service.writer().forget([record_id]))
    return {"id": record_id, "object": "memory.record.deleted", "deleted": True}


def _find_record(service: Service, record_id: str, key: Key) -> Record:
    """A record that the caller may see; ApiError 404 if there is none."""
    records = service.collection.store.records([record_id]) if service.collection.exists else []
    if not records or not key.sees(records[0]):
        raise not_found("record", record_id)
    return records[0]


def _record_json(stored: StoredRecord, view: View) -> dict[str, Any]:
    return {**record_json(stored.record, view), "created": stored.created}


async def _save(service: Service, upload: UploadFile, folder: Path) -> Part:
    return await service.work(lambda: save_upload(upload.file, upload.filename or "", folder))


async def _store(service: Service, parts: Sequence[Part], metadata: dict[str, Any], key: Key) -> StoredRecord:
    if not parts:
        raise ApiError(400, "nothing to remember: send files or text", param="files")
    return await service.creates(NewRecord(tuple(parts), metadata, key.namespace))


async def _create_each(
    service: Service,
    files: Sequence[UploadFile],
    words: Sequence[Part],
    fields: dict[str, Any],
    folder: Path,
    request: Request,
) -> JSONResponse:
    """One record per file; invalid files are listed with the reason, and the others are stored."""
    data, problems = [], []
    for file in files:
        name = plain_name(file.filename or "")
        try:
            part = await _save(service, file, folder)
            stored = await _store(service, [part, *words], {"name": name} | fields, key_of(request))
            data.append(_record_json(stored, view_of(request)))
        except (ApiError, HarmoniaError) as error:
            problems.append(
                {"name": name, "reason": service.without_paths(getattr(error, "message", str(error)))}
            )
    if not data:
        reason = problems[0]["reason"] if problems else "nothing to remember: send files"
        raise ApiError(400, reason, code="unsupported_media", param="files")
    return JSONResponse({"object": "list", "data": data, "problems": problems}, 201)


def parse_filters(text: str | None) -> Filter | None:
    """The filters of a query parameter; ApiError 400 for what is none."""
    given = parse_json(text, "filters") if text else None
    if given is None:
        return None
    try:
        parsed: Filter = TypeAdapter(Filter).validate_python(given)
    except ValidationError as error:
        raise ApiError(400, f"filters: {error.errors()[0]['msg']}", param="filters") from None
    return parsed
