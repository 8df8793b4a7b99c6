"""Export of records as a manifest that `remember` reads."""

from __future__ import annotations

import json
import os
import shutil
import tempfile
from pathlib import Path
from typing import Any

from harmonia.data.left_out import EXPORT_MARK
from harmonia.data.manifest import column_holds
from harmonia.store import Store, Where
from harmonia.types import HarmoniaError, Record


def export(store: Store, root: Path, target: Path, *, where: Where | None = None) -> int:
    """Write records to ``target``: a ``.jsonl`` manifest, or a new folder with the manifest and the media.

    Returns the number of records. The target is written atomically. HarmoniaError if it exists, or if a file
    to copy is missing.
    """
    if target.exists():
        raise HarmoniaError(f"{target} exists already: choose a new name")
    records = store.records(where=where)
    target.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=target.parent, prefix=".export-") as name:
        work = Path(name)
        alone = target.suffix == ".jsonl"
        with (work / "manifest.jsonl").open("w", encoding="utf-8") as lines:
            for record in records:
                row = _row(record, root, None if alone else work)
                lines.write(json.dumps(row, ensure_ascii=False, default=str) + "\n")
        if alone:
            (work / "manifest.jsonl").replace(target)
        else:
            (work / "all").mkdir()
            (work / "all" / EXPORT_MARK).write_text(
                "Written by `harmonia export`: `harmonia remember` takes this folder only if it is named.\n"
            )
            for item in (work / "manifest.jsonl", work / "media"):
                if item.exists():
                    item.rename(work / "all" / item.name)
            (work / "all").rename(target)
    return len(records)


def _row(record: Record, root: Path, copy_to: Path | None) -> dict[str, Any]:
    """A manifest row: the metadata, the files by modality, and the texts without a file."""
    # `path` would be read as one more file, and names the original if media are copied.
    row: dict[str, Any] = {key: value for key, value in record.metadata.items() if column_holds(key) is None}
    files: dict[str, str] = {}
    texts = []
    for part in record.parts:
        if part.path is None:
            texts.append(part.text or "")
        else:
            # The first part of a file has the file's own modality; its audio and caption follow.
            files.setdefault(part.path, part.modality)
    for path, modality in files.items():
        row.setdefault(modality, []).append(_placed(root / path, copy_to))
    if texts:
        row.setdefault("text", []).extend(dict.fromkeys(texts))
    # a list of metadata stays one, since filters tell a list from a text
    alone = {key for key in row if column_holds(key) and isinstance(row[key], list) and len(row[key]) == 1}
    return {key: value[0] if key in alone else value for key, value in row.items()}


def _placed(path: Path, copy_to: Path | None) -> str:
    if copy_to is None:
        return os.path.abspath(path)  # noqa: PTH100
    if not path.is_file():
        raise HarmoniaError(
            f"{path} does not exist: export to a .jsonl, or run `harmonia forget --gone` first"
        )
    folder = copy_to / "media"
    folder.mkdir(exist_ok=True)
    place = folder / path.name
    number = 1
    while place.exists():
        number += 1
        place = folder / f"{path.stem}-{number}{path.suffix}"
    shutil.copy2(path, place)
    return f"media/{place.name}"
