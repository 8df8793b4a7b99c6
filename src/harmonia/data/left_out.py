"""What a walk over folders leaves out: by patterns, and by default what no one wants to remember."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

from harmonia.data.records import Problem, why
from harmonia.imports import lazy
from harmonia.modalities.text_encoding import decode
from harmonia.types import HarmoniaError

IGNORE_FILE = ".harmoniaignore"
"""Patterns of the folder that it lies in and of those below, in the syntax of gitignore."""

EXPORT_MARK = ".harmonia-export"
"""A folder that holds a file of this name was written by ``harmonia export``: its media are copies."""

SHEET_MARK = "Harmonia contact sheet"
"""What the first text chunk of a contact sheet (PNG) says."""

SYSTEM = (
    "@eadir", "@recycle", "#recycle", "#snapshot", ".thumbnails", "thumbnails", "thumbs", "@__thumb",
    ".@__thumb",
    "synophoto_thumb_*", "*.lrdata", "thumbs.db", "ehthumbs*.db", "desktop.ini",
    ".ds_store", "._*", "__macosx", ".appledouble", ".spotlight-v100", ".fseventsd", ".trash*", "trash",
    "$recycle.bin", "recycler", "system volume information", "lost+found", "lost.dir",
    ".git", ".svn", ".hg", "node_modules", "__pycache__",
)  # fmt: skip
"""Names of thumbnails, rubbish bins and files of systems and programs, in lower case."""

REASONS = {
    "system": "thumbnails and system files left out; name them to remember them",
    "hidden": "hidden files and folders left out; name them to remember them",
    "harmonia": "memories, exports and contact sheets of Harmonia left out",
    "exclude": "left out by --exclude",
    "harmoniaignore": f"left out by {IGNORE_FILE}",
    "special": "pipes, sockets and devices left out",
}
"""Why files and folders are left out, each as the end of a sentence that begins with their number."""

WAYS_IN = {
    "name tables to remember their rows": (".csv", ".tsv", ".jsonl", ".ndjson", ".json", ".parquet"),
    "save documents as .txt or .md": (
        ".pdf", ".doc", ".docx", ".odt", ".rtf", ".html", ".htm", ".epub", ".pages", ".tex", ".pptx", ".xlsx",
    ),
    "unpack archives": (".zip", ".tar", ".gz", ".tgz", ".bz2", ".xz", ".7z", ".rar", ".zst"),
    "export drawings as .png": (".svg", ".psd", ".xcf", ".ai", ".eps", ".kra", ".clip"),
    "add the suffix of their format": ("",),
}  # fmt: skip
"""How files of kinds that are not read get in, each for the lower-case suffixes that it helps."""


@dataclass(frozen=True, slots=True)
class Rules:
    """The patterns that hold in a folder: ``--exclude``, then the ignore files from the top down to it.

    The last pattern that matches decides, as in git; ``!pattern`` takes what would be left out by default.
    """

    top: Path
    exclude: Any = None
    files: tuple[tuple[Path, Any], ...] = ()

    def below(self, folder: Path) -> Rules | Problem:
        """These rules and those of the ignore file in a folder; a Problem if it cannot be read."""
        path = folder / IGNORE_FILE
        try:
            text = decode(path.read_bytes())
        except OSError as error:
            return Problem(str(path), f"this file cannot be read: {why(error)}")
        if text is None:
            return Problem(str(path), "this is not text; save it as UTF-8")
        try:
            return replace(self, files=(*self.files, (folder, compiled(text.splitlines()))))
        except HarmoniaError as error:
            return Problem(str(path), str(error))

    def reason(self, path: Path, *, is_folder: bool) -> str:
        """Why a path is left out, a key of `REASONS`; empty if it is taken."""
        named = [(self.top, self.exclude, "exclude")] if self.exclude is not None else []
        named += [(folder, spec, "harmoniaignore") for folder, spec in reversed(self.files)]
        for folder, spec, name in named:
            within = path.relative_to(folder).as_posix() + ("/" if is_folder else "")
            found = spec.check_file(within).include
            if found is not None:
                return name if found else ""
        if any(fnmatchcase(path.name.lower(), pattern) for pattern in SYSTEM):
            return "system"
        return "hidden" if path.name.startswith(".") else ""


def is_sheet(path: Path) -> bool:
    """Whether a file is a contact sheet of Harmonia; only the head of PNG files is read."""
    if path.suffix.lower() != ".png":
        return False
    try:
        with path.open("rb") as file:
            return SHEET_MARK.encode() in file.read(128)
    except OSError:  # whoever decodes it reports the reason
        return False


def compiled(patterns: Sequence[str]) -> Any:
    """Patterns in the syntax of gitignore; HarmoniaError for one that is none."""
    try:
        # pathspec takes c/** for the folder c, too; git only for what is in it
        inside = [re.sub(r"/\*\*(/?)\s*$", r"/**/*\1", pattern) for pattern in patterns]
        return lazy("pathspec:GitIgnoreSpec").from_lines(inside)
    except ValueError as error:
        raise HarmoniaError(f"{error}: patterns have the syntax of gitignore") from None
