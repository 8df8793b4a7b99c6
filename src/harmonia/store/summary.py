"""The counts of a store, kept beside its tables, so that they can be told without opening them.

They hold as long as every table has the same versions as when they were counted.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

from harmonia.store.atomic import write_atomically
from harmonia.types import HarmoniaError

FILE_NAME = "summary.json"
Stamp = dict[str, list[str]]


def stamp_of(root: Path) -> Stamp:
    """The versions that each table has on disk: every commit adds one."""
    folders = sorted(root.glob("*.lance/_versions"))
    return {f.parent.name: sorted(file.name for file in f.glob("*.manifest")) for f in folders}


def read_summary(root: Path) -> dict[str, Any] | None:
    """The counts, if they were taken of the tables as they are now."""
    try:
        found = json.loads((root / FILE_NAME).read_text(encoding="utf-8"))
        return dict(found["counts"]) if found["stamp"] == stamp_of(root) else None
    except (OSError, ValueError, KeyError, TypeError):
        return None


def write_summary(root: Path, stamp: Stamp, counts: Mapping[str, Any]) -> None:
    """Keep the counts that were taken since ``stamp``; nothing if the tables have changed meanwhile."""
    if stamp == stamp_of(root):
        with suppress(HarmoniaError):  # a memory that may only be read is counted anew each time
            write_atomically(root / FILE_NAME, json.dumps({"stamp": stamp, "counts": counts}))
