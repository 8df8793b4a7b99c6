"""The date of a record: when it was taken, else when its file was modified, else when it was added."""

from __future__ import annotations

import re
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

from harmonia.store.protocol import Store

KEYS = ("taken", "modified")
"""Metadata that date a record; the first that holds a date counts."""
_DATE = re.compile(r"[0-9]{4}-(0[1-9]|1[0-2])(-(0[1-9]|[12][0-9]|3[01])([T ].*)?)?", re.DOTALL)


def date_of(metadata: Mapping[str, Any], created: float) -> str:
    """The date of a record as ISO 8601 text. Dates are ordered as text, so a month comes before its days.

    ``created`` is when the record was added (Unix seconds). A value that is no date is passed over.
    """
    for key in KEYS:
        value = metadata.get(key)
        if isinstance(value, str) and _DATE.fullmatch(value):
            return value
    try:
        return datetime.fromtimestamp(created, UTC).isoformat(timespec="seconds")
    except (OverflowError, OSError, ValueError):
        return datetime.fromtimestamp(0, UTC).isoformat(timespec="seconds")


class Dates:
    """The dates of all records of a store, read again when its records have changed."""

    def __init__(self) -> None:
        self._read: tuple[int, dict[str, str]] = (-1, {})

    def of(self, store: Store) -> Mapping[str, str]:
        """The date of every record, by id."""
        version = store.version()[0]
        if self._read[0] != version:
            metadata = store.metadata()
            dates = {one: date_of(metadata.get(one, {}), time) for one, time in store.created().items()}
            self._read = version, dates
        return self._read[1]


def by_date(
    created: Mapping[str, float], dates: Mapping[str, str], *, newest_first: bool = False
) -> list[str]:
    """Ids by date; those of one date by when they were added.

    ``created`` has the ids, oldest first. An id without a date was added a moment ago: it is left out.
    """
    dated = [one for one in created if one in dates]
    found = sorted(dated, key=dates.__getitem__)
    return found[::-1] if newest_first else found
