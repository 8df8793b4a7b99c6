"""Bodies that come as JSON or as a form with files: two routes of one path, told apart by content type."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any, TypeVar

from fastapi import Request
from fastapi.exceptions import RequestValidationError
from fastapi.routing import APIRoute
from pydantic import BaseModel, ValidationError
from starlette.datastructures import UploadFile
from starlette.routing import Match
from starlette.types import Scope

from harmonia.server.errors import ApiError

M = TypeVar("M", bound=BaseModel)

FILES = 64
"""Most files, and most other fields, of one form."""


class FormRoute(APIRoute):
    """A route for ``multipart/form-data`` only; register it before that for JSON."""

    def matches(self, scope: Scope) -> tuple[Match, Scope]:
        """No match for any other content type."""
        headers: Mapping[bytes, bytes] = dict(scope.get("headers", ()))
        if not headers.get(b"content-type", b"").lower().startswith(b"multipart/form-data"):
            return Match.NONE, {}
        return super().matches(scope)


async def read_form(request: Request, model: type[M]) -> tuple[M, dict[str, bytes]]:
    """The field ``request`` of a form, which is JSON, and the form's files by the name of their field."""
    async with request.form(max_files=FILES, max_fields=FILES, max_part_size=4 * 2**20) as form:
        said = form.get("request")
        if not isinstance(said, str):
            raise ApiError(400, "the form has no field 'request' with the JSON of it", param="request")
        files = {name: await one.read() for name, one in form.multi_items() if isinstance(one, UploadFile)}
    return parse_body(said, model), files


def parse_body(text: str, model: type[M]) -> M:
    """JSON text as a model; the same error as for a JSON body."""
    return validate_body(parse_json(text, "request"), model)


def validate_body(value: Any, model: type[M]) -> M:
    """A value as a model; the same error as for a JSON body."""
    try:
        return model.model_validate(value)
    except ValidationError as error:
        found = [{**one, "loc": ("body", *one["loc"])} for one in error.errors(include_context=False)]
        raise RequestValidationError(found) from None


def parse_json(text: str, param: str) -> Any:
    """The value of JSON text; ApiError 400 if it is none."""
    try:
        return json.loads(text)
    except (ValueError, RecursionError):
        raise ApiError(400, f"{param} is no JSON", param=param) from None


def form_openapi(model: type[BaseModel]) -> dict[str, Any]:
    """What OpenAPI is to say of the form beside the JSON of ``model`` (``openapi_extra``)."""
    schema = {
        "type": "object",
        "required": ["request"],
        "properties": {
            "request": {"type": "string", "description": f"the JSON of {model.__name__}"},
        },
        "additionalProperties": {"type": "string", "format": "binary"},
        "description": "media are files of any field name, which a cue names as cid:NAME",
    }
    return {"requestBody": {"content": {"multipart/form-data": {"schema": schema}}}}
