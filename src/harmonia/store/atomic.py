"""Small files written completely or not at all."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path

from harmonia.types import HarmoniaError

TEMPORARY = ".tmp-"
"""How names of files begin that are being written."""


def write_atomically(path: Path, text: str) -> None:
    """Write UTF-8 text so that ``path`` holds the old or the new content, whatever happens."""
    try:
        handle, name = tempfile.mkstemp(dir=path.parent, prefix=TEMPORARY)
        temporary = Path(name)
        try:
            with os.fdopen(handle, "w", encoding="utf-8") as file:
                file.write(text)
                file.flush()
                os.fsync(file.fileno())
            temporary.chmod(0o644)
            temporary.replace(path)
        finally:
            temporary.unlink(missing_ok=True)
    except OSError as error:
        raise HarmoniaError(f"cannot write {path}: {error.strerror or error}") from error
