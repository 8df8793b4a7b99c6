"""Bodies sent as JSON or as a form with files: two routes of one path, selected by content type."""

from __future__ import annotations

import json
from collections.abc import Awaitable, Callable, Mapping
from typing import Any, TypeVar

from fastapi import APIRouter, Request
from fastapi.exceptions import RequestValidationError
from fastapi.routing import APIRoute
from pydantic import BaseModel, ValidationError
from starlette.datastructures import UploadFile
from starlette.routing import Match
from starlette.types import Scope

from harmonia.server.bodies import check_json
from harmonia.server.errors import ApiError
from harmonia.server.service import Service, ServiceDep

M = TypeVar("M", bound=BaseModel)

FILES = 64
"""Most files, and most other fields, of one form."""


class FormRoute(APIRoute):
    """A route for ``multipart/form-data`` only; register it before that for JSON."""

    def matches(self, scope: Scope) -> tuple[Match, Scope]:
        """Match only multipart forms."""
        headers: Mapping[bytes, bytes] = dict(scope.get("headers", ()))
        if not headers.get(b"content-type", b"").lower().startswith(b"multipart/form-data"):
            return Match.NONE, {}
        return super().matches(scope)


async def read_form(request: Request, model: type[M]) -> tuple[M, dict[str, bytes]]:
    """The JSON of the form's field ``request``, validated, and the form's files by field name."""
    async with request.form(max_files=FILES, max_fields=FILES, max_part_size=4 * 2**20) as form:
        request_json = form.get("request")
        if not isinstance(request_json, str):
            raise ApiError(400, "the form has no field 'request' with the JSON body", param="request")
        files = {
            name: await upload.read() for name, upload in form.multi_items() if isinstance(upload, UploadFile)
        }
    return parse_body(request_json, model), files


def parse_body(text: str, model: type[M]) -> M:
    """Validate JSON text; errors are the same as for a JSON body."""
    return validate_body(parse_json(text, "request"), model)


def validate_body(value: Any, model: type[M], *, strict: bool | None = None) -> M:
    """Validate a value; errors are the same as for a JSON body. ``strict`` false: text may say a number."""
    try:
        return model.model_validate(value, strict=strict)
    except ValidationError as error:
        errors = [
            {**detail, "loc": ("body", *detail["loc"])} for detail in error.errors(include_context=False)
        ]
        raise RequestValidationError(errors, body=value) from None


def parse_json(text: str, param: str) -> Any:
    """Parse JSON text; ApiError 400 if it is invalid."""
    check_json(text)
    try:
        return json.loads(text)
    except (ValueError, RecursionError):
        raise ApiError(400, f"{param} is not valid JSON", param=param) from None


def form_openapi(model: type[BaseModel]) -> dict[str, Any]:
    """The OpenAPI description of the form variant of ``model`` (``openapi_extra``)."""
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


def add_query_route(
    router: APIRouter,
    path: str,
    model: type[M],
    answer: Callable[[Service, M, Mapping[str, bytes], Request], Awaitable[Any]],
    **options: Any,
) -> None:
    """Add a POST route whose body is ``model``, as JSON, or as a form with media as files beside it.

    ``answer`` is given the service, the body, the files by name, and the request; its name and docstring are
    those of the route. ``options`` go to ``add_api_route``.
    """

    async def from_form(request: Request, service: ServiceDep) -> Any:
        body, files = await read_form(request, model)
        return await answer(service, body, files, request)

    async def from_json(body: Any, request: Request, service: ServiceDep) -> Any:
        return await answer(service, body, {}, request)

    from_json.__annotations__["body"] = model
    router.add_api_route(
        path, from_form, methods=["POST"], route_class_override=FormRoute, include_in_schema=False
    )
    router.add_api_route(
        path,
        from_json,
        methods=["POST"],
        name=answer.__name__,
        description=answer.__doc__,
        openapi_extra=form_openapi(model),
        **options,
    )
