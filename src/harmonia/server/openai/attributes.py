"""The metadata of a record as the attributes of a vector store file."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from harmonia.collection.json_output import PRIVATE
from harmonia.server.errors import ApiError
from harmonia.server.uploaded_records import checked_metadata
from harmonia.types import Record

KEY = "vector_stores"
"""The metadata key that lists the vector stores of a record, except the memory's own."""
RESERVED = (*PRIVATE, KEY, "generated")
"""Metadata keys that clients may not set: paths, stores and the mark of generated media."""
FACTS = (*RESERVED, "name", "modified")
"""Metadata keys that an update keeps unless it names them."""


def attributes_of(record: Record) -> dict[str, Any]:
    """The attributes of a record: its metadata that are strings, numbers or booleans."""
    return {
        key: value
        for key, value in record.metadata.items()
        if key not in (*PRIVATE, KEY) and isinstance(value, str | int | float)
    }


def checked_attributes(attributes: Mapping[str, Any] | None) -> dict[str, Any]:
    """Attributes as metadata; ApiError 400 for a reserved key."""
    if reserved := set(attributes or {}) & set(RESERVED):
        raise ApiError(400, f"the attribute {min(reserved)!r} is reserved: rename it", param="attributes")
    return checked_metadata(attributes or {})


def stores_of(record: Record) -> list[str]:
    """The ids of the vector stores of a record."""
    stores = record.metadata.get(KEY)
    return list(stores) if isinstance(stores, list) else []


def size_of(record: Record, root: Path) -> int:
    """The size of a record in bytes: its media files and inline text."""
    total = sum(len((part.text or "").encode()) for part in record.parts if not part.path)
    for path in {part.path for part in record.parts if part.path}:
        try:
            total += (root / path).stat().st_size
        except OSError:
            continue  # the file was moved: it takes no space
    return total
