"""Copies of media files inside a store, named by their content.

A copy lies at ``media/ab/<sha256><suffix>`` under the store's root, where ``ab`` are the first two
digits of its SHA-256: a file is never copied twice, and a copy that has its name is complete.
"""

from __future__ import annotations

import hashlib
import io
import os
import re
import tempfile
import time
from collections.abc import Collection
from pathlib import Path

from harmonia.store.atomic import TEMPORARY
from harmonia.types import HarmoniaError

FOLDER = "media"
_NAME = re.compile(r"[0-9a-f]{64}(\.[a-z0-9]{1,10})?")
_SUFFIX = re.compile(r"\.[a-z0-9]{1,10}")
_BLOCK = 1 << 20


def digest_file(path: str | Path) -> str:
    """SHA-256 of a file's bytes in hexadecimal, read block by block."""
    try:
        with _open_regular(Path(path)) as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
        raise HarmoniaError(f"cannot read {path}: {error.strerror or error}") from error


def media_path(digest: str, suffix: str) -> str:
    """Where a copy lies, relative to the store's root. ``suffix`` begins with a dot or is empty."""
    suffix = suffix.lower()
    return f"{FOLDER}/{digest[:2]}/{digest}{suffix if _SUFFIX.fullmatch(suffix) else ''}"


def put_media(root: str | Path, path: str | Path, digest: str = "") -> tuple[str, str]:
    """Copy a file into the store at ``root``; returns (path relative to the root, digest).

    ``digest`` saves a reading, if it is known. A symbolic link is followed: its content is copied.
    A copy that is there already is kept.
    """
    path = Path(path)
    digest = digest or digest_file(path)
    relative = media_path(digest, path.suffix)
    target = Path(root) / relative
    try:
        if _complete(target, path.stat().st_size):
            os.utime(target)  # young again: `garbage` spares it until its record is committed
        else:
            target.parent.mkdir(parents=True, exist_ok=True)
            _copy(path, target, digest)
    except OSError as error:
        raise HarmoniaError(f"cannot copy {path} to {target}: {error.strerror or error}") from error
    return relative, digest


def garbage(
    root: str | Path,
    keep: Collection[str],
    forgotten: Collection[str] = (),
    older_than: float = 3600.0,
) -> int:
    """Delete copies whose relative path is not in ``keep``; returns how many.

    Copies younger than ``older_than`` seconds stay, as their record may not be committed yet, unless
    they are among ``forgotten``: those of records just removed. Only names that `put_media` makes
    are touched, and no link is followed.
    """
    limit, count = time.time() - older_than, 0
    for path in (Path(root) / FOLDER).glob("??/*"):
        ours = _NAME.fullmatch(path.name) or path.name.startswith(TEMPORARY)
        if not ours or path.is_symlink() or path.parent.is_symlink():
            continue
        relative = path.relative_to(root).as_posix()
        if relative in keep or (relative not in forgotten and path.stat().st_mtime > limit):
            continue
        path.unlink(missing_ok=True)
        count += 1
    return count


def _complete(target: Path, size: int) -> bool:
    """Whether a copy is there, of the right size and not a link to somewhere else."""
    return target.is_file() and not target.is_symlink() and target.stat().st_size == size


def _open_regular(path: Path) -> io.BufferedReader:
    """Open a file for reading, never a folder, pipe or device."""
    if not path.is_file():
        raise HarmoniaError(f"{path} is not a file: check the path")
    return path.open("rb")


def _copy(source: Path, target: Path, digest: str) -> None:
    """Copy so that ``target`` is there with exactly the digest's content, or not at all."""
    handle, name = tempfile.mkstemp(dir=target.parent, prefix=TEMPORARY)
    temporary = Path(name)
    try:
        sha = hashlib.sha256()
        with os.fdopen(handle, "wb") as out, _open_regular(source) as file:
            while block := file.read(_BLOCK):
                sha.update(block)
                out.write(block)
            out.flush()
            os.fsync(out.fileno())
        if sha.hexdigest() != digest:
            raise HarmoniaError(f"{source} changed while it was copied: try again")
        temporary.chmod(0o644)
        temporary.replace(target)
    finally:
        temporary.unlink(missing_ok=True)
