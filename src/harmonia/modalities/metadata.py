"""What a file says about itself, by the names of docs/metadata.md: one reader for every kind of file."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from harmonia.modalities import front_matter, photo_metadata, recording_tags
from harmonia.modalities.limits import LIMITS, Limits
from harmonia.modalities.metadata_values import Facts, words, year
from harmonia.modalities.sidecars import facts_beside

_READERS: dict[str, Callable[[Path, Limits], Facts]] = {
    "image": photo_metadata.facts_of,
    "audio": recording_tags.facts_of,
    "video": recording_tags.facts_of,
}


def metadata_of(
    path: Path,
    modality: str,
    limits: Limits = LIMITS,
    *,
    allowed: Callable[[Path], bool] = lambda path: True,
) -> Facts:
    """The metadata of a file and of the sidecar files beside it that are ``allowed`` to be read.

    An XMP file beside it, which people edit, counts more than the file; Google Takeout's fills what both
    leave open. A value that is broken, absurd or too long is left out; nothing is raised for a damaged file,
    which decoding reports.
    """
    if modality == "text":
        return _attempted(front_matter.facts_of, path, limits)
    own = _attempted(_READERS[modality], path, limits)
    edited, exported = facts_beside(path, allowed)
    scanned = edited.pop("created", None)
    found = exported | own | edited
    if "taken" not in found and scanned:
        found["taken"] = scanned
    for name in ("keywords", "people"):
        if several := words(word for facts in (edited, own, exported) for word in facts.get(name, ())):
            found[name] = several
    if "year" not in found and (taken := year(found.get("taken"))):
        found["year"] = taken
    return found


def _attempted(reader: Callable[[Path, Limits], Facts], path: Path, limits: Limits) -> Facts:
    # libraries raise nearly anything for damaged files; a file is never lost for its metadata
    try:
        return reader(path, limits)
    except Exception:
        return {}
