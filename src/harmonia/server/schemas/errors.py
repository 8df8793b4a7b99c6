"""What an error looks like, for the OpenAPI document."""

from __future__ import annotations

from typing import Any

from pydantic import BaseModel


class ErrorDetail(BaseModel):
    """What to do, the kind of error, the field that is wrong, and a code for programs."""

    message: str
    type: str
    param: str | None
    code: str | None


class ErrorBody(BaseModel):
    """The one error body."""

    error: ErrorDetail


Responses = dict[int | str, dict[str, Any]]

REFUSALS: Responses = {
    "4XX": {"model": ErrorBody, "description": "The request cannot be answered: the message says why."},
    503: {"model": ErrorBody, "description": "Too much is waiting: try again later."},
}
"""What every route may answer instead."""
LACKS: Responses = {
    501: {"model": ErrorBody, "description": "Its model is not here: the message says what brings it."}
}
"""What routes may answer that need a model of their own."""
