"""Removal of records, and look-up of records by id and by file."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Sequence
from datetime import timedelta
from pathlib import Path

from harmonia.collection.file_tracking import settle_copies
from harmonia.store import Store, Where, digest_file, garbage
from harmonia.types import HarmoniaError, Record

PREVIEWS = ".cache/previews"
"""The folder of preview images inside the memory, named by digest."""


def find(store: Store, ids: Sequence[str]) -> list[Record]:
    """Records by id or by a unique prefix of it; HarmoniaError for a prefix of no record or of several."""
    known = sorted(store.ids())
    found = []
    for prefix in ids:
        matches = [known_id for known_id in known if known_id.startswith(prefix)] if prefix else []
        if len(matches) != 1:
            reason = "no record has" if not matches else f"{len(matches)} records have"
            raise HarmoniaError(f"{reason} an id that begins with {prefix!r}: `harmonia recall` shows ids")
        found += matches
    return store.records(found)


def forget(
    store: Store, root: Path, ids: Sequence[str], *, where: Where | None = None, gone: bool = False
) -> tuple[Record, ...]:
    """Remove records by id, by a filter on the metadata, or whose files are all missing, and return them."""
    if not ids and where is None and not gone:
        raise HarmoniaError("nothing to forget: give ids, --where or --gone")
    wanted = {record.id: record for record in find(store, ids)}
    if where is not None:
        wanted |= {record.id: record for record in store.records(where=where)}
    if gone:
        states = list(store.files().values())
        missing = [state for state in states if not Path(state.path).is_file()]
        lost = {s.record_id for s in states} - {s.record_id for s in set(states) - set(missing)}
        wanted |= {record.id: record for record in store.records(sorted(lost))}
        settle_copies(store, missing, states)
    store.remove(wanted)
    lost_media = {part.path for record in wanted.values() for part in record.parts if part.path}
    if any(not Path(path).is_absolute() for path in lost_media):
        kept = {part.path for record in store.records() for part in record.parts if part.path}
        garbage(root, kept, forgotten=lost_media)
    for digest in {part.digest for record in wanted.values() for part in record.parts}:
        for preview in (root / PREVIEWS).glob(f"{digest}-*"):
            preview.unlink(missing_ok=True)
    # Compact at once, so that forgotten records are also removed from the disk.
    store.compact(timedelta(0))
    return tuple(wanted.values())


def records_of(store: Store, cues: Iterable[object]) -> set[str]:
    """Ids of the records that hold any of the cue files, given by path or as bytes."""
    cues = list(cues)
    digests = {digest_file(Path(v)) for v in cues if isinstance(v, str | Path) and _is_file(v)}
    digests |= {hashlib.sha256(v).hexdigest() for v in cues if isinstance(v, bytes)}
    if not digests:
        return set()
    return {state.record_id for state in store.files().values() if state.digest in digests}


def _is_file(value: str | Path) -> bool:
    try:
        return Path(value).is_file()
    except (OSError, ValueError):
        return False
