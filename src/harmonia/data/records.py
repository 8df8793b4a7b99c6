"""What the readers of this package share: the problem they report and the facts about a file."""

from __future__ import annotations

import os
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from harmonia.modalities import MODALITIES, modality_of
from harmonia.types import HarmoniaError, Part, Record, Signal


@dataclass(frozen=True, slots=True)
class Problem:
    """Something that could not become a record: where, and in one line why. The others go on."""

    path: str
    reason: str


def absolute(path: str | Path) -> Path:
    """The absolute path without dots; links keep the name the user knows, unlike Path.resolve."""
    return Path(os.path.abspath(path))  # noqa: PTH100


def file_part(path: Path) -> Part:
    """The part that a media file is; its content is not read. A ValueError for an unknown suffix."""
    modality = modality_of(path)
    if modality is None:
        kind = path.suffix or "a name without suffix"
        raise ValueError(f"{kind} is not a kind of file Harmonia reads")
    return Part(modality, path=str(path))


def file_record(paths: Sequence[Path], modified: float) -> Record:
    """The record of media files that belong together; the first one names it."""
    parts = tuple(file_part(path) for path in paths)
    return Record("", parts, file_facts(paths[0], modified))


def file_facts(path: Path, modified: float) -> dict[str, Any]:
    """Metadata of a file: path, stem, its folder's name, and when it changed (from seconds)."""
    facts = {"path": str(path), "name": path.stem, "folder": path.parent.name}
    # a file system may hold times outside the calendar; the file is fine all the same
    with suppress(OverflowError, ValueError, OSError):
        facts["modified"] = datetime.fromtimestamp(modified, UTC).isoformat(timespec="seconds")
    return facts


def why(error: OSError) -> str:
    """The system's reason as part of a sentence, without the path it repeats."""
    return (error.strerror or str(error) or type(error).__name__).lower()


def is_writable_text(text: str) -> bool:
    """Whether a string can be written as UTF-8: file names and JSON may hold lone surrogates."""
    return not any("\ud800" <= character <= "\udfff" for character in text)


def signal_of(part: Part) -> Signal:
    """The signal of a dataset's part: its text, or its file read whole."""
    if part.text is not None:
        return Signal("text", part.text)
    if part.path is None:
        raise HarmoniaError(f"a part of modality {part.modality} has neither text nor file")
    return MODALITIES[part.modality].read(part.path)
