"""WebDataset shards as files: finding, reading and writing tar files in which the files of one stem are one
sample. See github.com/webdataset/webdataset for the format."""

from __future__ import annotations

import json
import os
import re
import tarfile
import tempfile
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from importlib import import_module
from itertools import islice
from pathlib import Path
from types import ModuleType
from typing import Any

from harmonia.data.records import absolute, why
from harmonia.types import HarmoniaError, Part, Record

Shards = str | Path | Sequence[str | Path]
"""A tar file, a folder of them, a pattern with braces (``coco-{000000..000059}.tar``), or several."""


def find_shards(shards: Shards, split: str = "all") -> list[Path]:
    """The tar files that are meant, in order; a HarmoniaError when one is missing or there is none."""
    given = [shards] if isinstance(shards, str | Path) else list(shards)
    names = [name for one in given for name in wds("braceexpand").braceexpand(str(one))]
    found: list[Path] = []
    for path in map(absolute, names):
        if path.is_dir():
            found += sorted(path.glob("*.tar"))
        elif path.is_file():
            found.append(path)
        else:
            raise HarmoniaError(f"there is no shard {path}; name tar files that exist, or their folder")
    kept = [path for path in found if split == "all" or split in path.name]
    if not kept:
        named = f" with {split} in its name" if found else ""
        raise HarmoniaError(f"there is no .tar file{named} in {', '.join(names)}")
    return kept


def read_samples(shard: Path) -> Iterator[dict[str, Any]]:
    """The samples of one shard: ``__key__``, and bytes by suffix (all after the first dot of the name, in
    lower case). A HarmoniaError where the shard is damaged, after the samples that are whole."""
    tar = wds("webdataset.tariterators")
    try:
        with shard.open("rb") as file:
            stream = [{"url": str(shard), "stream": file}]
            yield from tar.group_by_keys(_whole(tar.tar_file_expander(stream), shard))
    except OSError as error:
        raise HarmoniaError(f"{shard} cannot be read: {why(error)}") from error
    except (tarfile.TarError, EOFError, ValueError) as error:
        reason = str(error.args[0] if error.args else error).partition(" @ ")[0]
        raise HarmoniaError(f"{shard} is damaged or cut ({reason}); load it again") from error


def _whole(files: Iterable[dict[str, Any]], shard: Path) -> Iterator[dict[str, Any]]:
    """The files, checked before the last sample is given that the archive ends as archives do: tarfile takes
    a file that was cut between two members, or within a header, for a whole one."""
    for file in files:
        if file == {} and shard.suffix == ".tar" and not _ends(shard):
            raise tarfile.ReadError("the end of the archive is missing")
        yield file


def _ends(shard: Path) -> bool:
    """Whether the two blocks of zeros that end an archive are there."""
    with shard.open("rb") as file:
        file.seek(max(0, shard.stat().st_size - 1024))
        return file.read() == bytes(1024)


def write_shards(records: Iterable[Record], pattern: str | Path, size: int = 1000) -> list[Path]:
    """Write records as shards of ``size`` samples; returns their paths.

    ``pattern`` has a place for the number: ``photos-%06d.tar``. A sample has the key ``000000000017``, its
    media files as they are, each text as ``.txt``, and its metadata as ``.json``, without ``path``, which is
    of this machine. Several files of one suffix are numbered: ``000.jpg``, ``001.jpg``. A shard appears
    when it is complete.

    Raises HarmoniaError for a file that cannot be read; the shards before it are whole.
    """
    writer = wds().TarWriter
    pattern = absolute(pattern)
    if not re.fullmatch(r"[^%]*%(0\d+)?d[^%]*\.tar", pattern.name):
        raise HarmoniaError(f"{pattern} names no shards; give a pattern as photos-%06d.tar")
    numbered = enumerate(records)
    written: list[Path] = []
    while chunk := list(islice(numbered, size)):
        shard = pattern.with_name(pattern.name % len(written))
        shard.parent.mkdir(parents=True, exist_ok=True)
        handle, draft = tempfile.mkstemp(dir=shard.parent, prefix=".")
        try:
            with os.fdopen(handle, "wb") as file:
                with writer(file, encoder=False, mtime=0.0) as tar:
                    for number, record in chunk:
                        tar.write({"__key__": f"{number:012d}", **_files(record)})
                file.flush()
                os.fsync(file.fileno())
            Path(draft).chmod(0o644)
            Path(draft).replace(shard)
        except OSError as error:
            raise HarmoniaError(f"cannot write {shard}: {why(error)}") from error
        finally:
            Path(draft).unlink(missing_ok=True)
        written.append(shard)
    return written


def _files(record: Record) -> dict[str, bytes]:
    """The files of a sample: bytes by suffix without its dot."""
    parts = list({part.path or part.text: part for part in record.parts}.values())  # windows share a file
    suffixes = [_suffix(part) for part in parts]
    several = {suffix for suffix, count in Counter(suffixes).items() if count > 1}
    files: dict[str, bytes] = {}
    for number, (part, suffix) in enumerate(zip(parts, suffixes, strict=True)):
        files[f"{number:03d}.{suffix}" if suffix in several else suffix] = _content(part)
    metadata = {name: value for name, value in record.metadata.items() if name != "path"}
    files["json"] = json.dumps(metadata, ensure_ascii=False, default=str).encode()
    return files


def _suffix(part: Part) -> str:
    return Path(part.path).suffix[1:].lower() if part.path else "txt"


def _content(part: Part) -> bytes:
    if part.path is None:
        return (part.text or "").encode()
    try:
        return Path(part.path).read_bytes()
    except OSError as error:
        raise HarmoniaError(f"{part.path} cannot be read: {why(error)}") from error


def wds(module: str = "webdataset") -> ModuleType:
    """The package webdataset or one of its modules; a HarmoniaError where it is not installed."""
    try:
        return import_module(module)
    except ModuleNotFoundError as error:
        raise HarmoniaError("shards need the package webdataset: pip install 'harmonia[train]'") from error
