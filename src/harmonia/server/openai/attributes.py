"""A record's metadata as the attributes of a vector store's file."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from harmonia.collection.json_output import PLACES
from harmonia.server.errors import ApiError
from harmonia.server.uploaded_records import checked_metadata
from harmonia.types import Record

KEY = "vector_stores"
"""The metadata key that lists the stores, other than the memory itself, that a record is in."""
RESERVED = (*PLACES, KEY, "generated")
"""Metadata that no client may set: where a file lies, and what it is marked as."""
FACTS = (*RESERVED, "name", "modified")
"""Metadata that new attributes leave as they are, if they do not name them."""


def attributes_of(record: Record) -> dict[str, Any]:
    """The metadata of a record that are attributes: texts, numbers, true and false."""
    return {
        key: value
        for key, value in record.metadata.items()
        if key not in (*PLACES, KEY) and isinstance(value, str | int | float)
    }


def checked_attributes(said: Mapping[str, Any] | None) -> dict[str, Any]:
    """Attributes as metadata; ApiError 400 for a key that is the memory's own."""
    if ours := set(said or {}) & set(RESERVED):
        raise ApiError(400, f"the attribute {min(ours)!r} is the memory's own: rename it", param="attributes")
    return checked_metadata(said or {})


def stores_of(record: Record) -> list[str]:
    """The ids of the stores that a record is in."""
    held = record.metadata.get(KEY)
    return list(held) if isinstance(held, list) else []


def size_of(record: Record, root: Path) -> int:
    """Bytes of a record's media files, and of its inline text."""
    total = sum(len((part.text or "").encode()) for part in record.parts if not part.path)
    for path in {part.path for part in record.parts if part.path}:
        try:
            total += (root / path).stat().st_size
        except OSError:
            continue  # it was moved: it takes no room here
    return total
