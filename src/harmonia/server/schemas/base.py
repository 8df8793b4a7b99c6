"""The base of request bodies: null means that a field is not given, and types are what they say."""

from __future__ import annotations

from typing import Annotated, Any, get_args

from pydantic import BaseModel, ConfigDict, Field, model_validator
from pydantic.fields import FieldInfo

Seed = Annotated[int, Field(ge=-(2**63), lt=2**63)]
"""The seed of a generator: any 64-bit integer."""


def _takes_null(field: FieldInfo) -> bool:
    return field.is_required() or type(None) in get_args(field.annotation)


def _document_nulls(schema: dict[str, Any], model: type[BaseModel]) -> None:
    """Say in the JSON schema that a field with a default may be null."""
    for name, field in model.model_fields.items():
        key = field.alias or name
        shown = schema.get("properties", {}).get(key)
        if shown is None or _takes_null(field):
            continue
        about = {k: shown.pop(k) for k in ("title", "default", "description") if k in shown}
        schema["properties"][key] = {"anyOf": [shown, {"type": "null"}], **about}


class Body(BaseModel):
    """A request body, or a part of one. In a field with a default, null is the default."""

    model_config = ConfigDict(strict=True, json_schema_extra=_document_nulls)

    @model_validator(mode="before")
    @classmethod
    def _null_is_not_given(cls, given: Any) -> Any:
        if not isinstance(given, dict):
            return given
        null = {field.alias or name for name, field in cls.model_fields.items() if not _takes_null(field)}
        return {name: value for name, value in given.items() if value is not None or name not in null}


class Strict(Body):
    """A body that refuses unknown fields."""

    model_config = ConfigDict(extra="forbid")
