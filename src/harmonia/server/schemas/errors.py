"""The error body, for the OpenAPI document."""

from __future__ import annotations

from typing import Any

from pydantic import BaseModel


class ErrorDetail(BaseModel):
    """The message, the error type, the invalid field, and a code for programs."""

    message: str
    type: str
    param: str | None
    code: str | None


class ErrorBody(BaseModel):
    """The body of every error."""

    error: ErrorDetail


Responses = dict[int | str, dict[str, Any]]

REFUSALS: Responses = {
    "4XX": {"model": ErrorBody, "description": "The request is refused: see the message."},
    503: {"model": ErrorBody, "description": "The server is overloaded: try again later."},
}
"""Error responses of every route."""
NO_MODEL: Responses = {
    501: {"model": ErrorBody, "description": "The model is not available: the message says how to get it."}
}
"""Error responses of routes that need a model."""
