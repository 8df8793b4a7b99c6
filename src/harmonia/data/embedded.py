"""Media embedded in a table as bytes become files, named by their content."""

from __future__ import annotations

import hashlib
import os
import tempfile
from pathlib import Path

from harmonia.modalities import modality_of

# How the files begin, from the formats' specifications: (offset, bytes, suffixes it may be).
_SIGNATURES: tuple[tuple[int, bytes, tuple[str, ...]], ...] = (
    (0, b"\xff\xd8\xff", (".jpg",)),
    (0, b"\x89PNG\r\n\x1a\n", (".png",)),
    (0, b"GIF8", (".gif",)),
    (8, b"WEBP", (".webp",)),
    (8, b"WAVE", (".wav",)),
    (8, b"AVI ", (".avi",)),
    (0, b"BM", (".bmp",)),
    (0, b"II*\x00", (".tiff",)),
    (0, b"MM\x00*", (".tiff",)),
    (0, b"OggS", (".ogg",)),
    (0, b"fLaC", (".flac",)),
    (0, b"ID3", (".mp3",)),
    (0, b"\xff\xfb", (".mp3",)),
    (0, b"\xff\xf3", (".mp3",)),
    (4, b"ftypheic", (".heic",)),
    (4, b"ftypavif", (".avif",)),
    (4, b"ftyp", (".mp4", ".m4a")),
    (0, b"\x1a\x45\xdf\xa3", (".mkv", ".webm")),
)


def suffix_of(content: bytes, modality: str, name: str | None = None) -> str | None:
    """The suffix that fits embedded bytes: that of the name they came with, else by how they
    begin; None when neither is a kind of file of this modality."""
    candidates = [Path(name).suffix.lower()] if name else []
    for offset, signature, suffixes in _SIGNATURES:
        if content.startswith(signature, offset):
            candidates.extend(suffixes)
    return next((suffix for suffix in candidates if modality_of("x" + suffix) == modality), None)


def extract(content: bytes, suffix: str, folder: Path) -> str:
    """Write bytes to ``folder/ab/abcdef....suffix``, named by their SHA-256; returns the absolute
    path. A file that is there already is kept; after a failure there is none."""
    digest = hashlib.sha256(content).hexdigest()
    path = folder.absolute() / digest[:2] / (digest + suffix)
    # the length tells a file that a crash of the machine has cut
    if not path.exists() or path.stat().st_size != len(content):
        path.parent.mkdir(parents=True, exist_ok=True)
        handle, draft = tempfile.mkstemp(dir=path.parent, prefix=".")
        try:
            with os.fdopen(handle, "wb") as file:
                file.write(content)
            Path(draft).replace(path)
        except BaseException:
            Path(draft).unlink()
            raise
    return str(path)
