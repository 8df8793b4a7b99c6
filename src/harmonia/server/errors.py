"""Errors in OpenAI's format: ``{"error": {"message", "type", "param", "code"}}``."""

from __future__ import annotations

import logging
import re
from collections.abc import Mapping, Sequence
from typing import Any

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from starlette.exceptions import HTTPException
from starlette.routing import Match, Mount
from starlette.types import Scope

from harmonia.types import HarmoniaError

_RAISE = re.compile(r",? or raise Limits\.\w+")
"""Advice for callers of the Python API, which no client of the server can follow."""

log = logging.getLogger("harmonia.server")

METHODS = ("GET", "POST", "PUT", "PATCH", "DELETE")
"""The methods of routes; HEAD is answered as GET, and OPTIONS everywhere."""

TYPES = {401: "authentication_error", 403: "permission_error", 404: "not_found_error",
         429: "rate_limit_error", 501: "not_implemented_error", 503: "overloaded_error"}  # fmt: skip


class ApiError(HTTPException):
    """An error response. ``message`` says what is wrong and what to do; ``param`` names the invalid field.

    It is an HTTPException, so that FastAPI does not catch it while it reads a body.
    """

    def __init__(
        self,
        status: int,
        message: str,
        *,
        code: str | None = None,
        param: str | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> None:
        super().__init__(status, message, dict(headers or {}))
        self.status, self.message, self.code, self.param = status, message, code, param


def missing_model(task: str, hint: str) -> ApiError:
    """The error for a task without a model; ``hint`` says how to get one.

    OpenAI's clients retry after any 5xx unless a header tells them not to.
    """
    return ApiError(
        501,
        f"{task} needs a model that is not available: {hint}",
        code="model_not_available",
        headers={"x-should-retry": "false"},
    )


def not_found(what: str, name: str) -> ApiError:
    """The error for an unknown id."""
    return ApiError(404, f"unknown {what} {name!r}", code=f"{what.replace(' ', '_')}_not_found")


def for_clients(message: str) -> str:
    """A message without the advice for callers of the Python API."""
    return _RAISE.sub("", message)


def body(status: int, message: str, code: str | None = None, param: str | None = None) -> dict[str, Any]:
    """The error body."""
    kind = TYPES.get(status, "server_error" if status >= 500 else "invalid_request_error")
    return {"error": {"message": for_clients(message), "type": kind, "param": param, "code": code}}


def response(error: ApiError) -> JSONResponse:
    """An error as a response."""
    content = body(error.status, error.message, error.code, error.param)
    return JSONResponse(content, error.status, headers=error.headers)


def install(app: FastAPI) -> None:
    """Install handlers that give every failure the error body."""
    app.add_exception_handler(ApiError, _api_error)
    app.add_exception_handler(HarmoniaError, _harmonia_error)
    app.add_exception_handler(RequestValidationError, _invalid)
    app.add_exception_handler(HTTPException, _http_error)


async def _api_error(request: Request, error: Exception) -> JSONResponse:
    assert isinstance(error, ApiError)
    return response(error)


async def _harmonia_error(request: Request, error: Exception) -> JSONResponse:
    message = request.app.state.service.without_paths(str(error))
    return JSONResponse(body(400, message), 400)


async def _invalid(request: Request, error: Exception) -> JSONResponse:
    """The first validation error. The invalid value is not echoed."""
    assert isinstance(error, RequestValidationError)
    invalid = refusal(error.errors()[0], error.body)
    return JSONResponse(body(400, invalid.message, invalid.code, invalid.param), 400)


def refusal(detail: Mapping[str, Any], given: Any, start: int = 1) -> ApiError:
    """One validation error of pydantic as a 400. Its "loc" is a path in ``given`` from ``start`` on."""
    param = field_path(detail["loc"][start:], given)
    reason = str(detail["msg"]).removeprefix("Value error, ")
    if "UploadFile" in reason:
        reason = "send a file, with a file name"
    return ApiError(400, f"{param or 'the body'}: {reason}", code="invalid_value", param=param or None)


def field_path(loc: Sequence[str | int], given: Any) -> str:
    """The path of a field as OpenAI's API writes it, such as ``input.1``.

    pydantic's path also has the names of the types that it tried; those are left out.
    """
    path: list[str] = []
    whole = given
    for depth, part in enumerate(loc):
        inside = isinstance(given, Mapping) if isinstance(part, str) else isinstance(given, list)
        there = inside and (part in given if isinstance(given, Mapping) else int(part) < len(given))
        if there:
            given = given[part]
        if there or (depth == len(loc) - 1 and inside) or whole is None:
            path.append(str(part))
    return ".".join(path)


async def _http_error(request: Request, error: Exception) -> JSONResponse:
    assert isinstance(error, HTTPException)
    headers = dict(error.headers or {})
    if error.status_code == 405:
        headers["Allow"] = ", ".join(allowed_methods(request.app, request.scope))
    return JSONResponse(body(error.status_code, str(error.detail)), error.status_code, headers=headers)


def allowed_methods(app: FastAPI, scope: Mapping[str, Any]) -> list[str]:
    """The methods that a path has over all routes; none for an unknown path."""
    whole = {**scope, "root_path": scope.get("app_root_path", scope.get("root_path", ""))}
    found = [method for method in METHODS if _serves(app, {**whole, "method": method})]
    if "GET" in found:
        found.insert(1, "HEAD")
    return [*found, "OPTIONS"] if found else []


def _serves(app: FastAPI, scope: dict[str, Any]) -> bool:
    for route in app.router.routes:
        if route.matches(scope)[0] is Match.FULL:
            # a mounted folder answers every method, but its files have only one
            return scope["method"] == "GET" or not isinstance(route, Mount)
    return False


def crash(scope: Scope, error: Exception) -> JSONResponse:
    """The response to an internal error: the log has the traceback, the client does not."""
    route = getattr(scope.get("route"), "path", "other")
    log.error("failed", extra={"facts": {"route": route}}, exc_info=error)
    return JSONResponse(body(500, "internal server error: see the log of the server", "internal_error"), 500)
