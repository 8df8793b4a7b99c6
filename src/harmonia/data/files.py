"""Which files make one record: a file alone, files of one stem side by side, a row of a manifest."""

from __future__ import annotations

import os
import stat
import unicodedata
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

from harmonia.data.left_out import EXPORT_MARK, IGNORE_FILE, Rules, compiled, is_sheet
from harmonia.data.manifest import MANIFEST_SUFFIXES, read_manifest
from harmonia.data.records import Problem, absolute, file_record, is_writable_text, why
from harmonia.modalities import modality_of, sidecars
from harmonia.modalities.subtitles import is_subtitles
from harmonia.types import Record

MANIFEST_STEMS = ("metadata", "manifest")
"""A manifest of this name describes the folder it lies in; others are read only when given."""


def gather(
    paths: Sequence[str | Path],
    *,
    extract_to: str | Path | None = None,
    ignored: Counter[str] | None = None,
    exclude: Sequence[str] = (),
    left_out: Counter[str] | None = None,
    memory: Path | None = None,
) -> Iterator[Record | Problem]:
    """Find the records in files, folders and manifests; what cannot be one comes as a Problem.

    * A media file is a record. Files with one stem in one folder (``dog.jpg``, ``dog.txt``,
      ``dog.wav``) are one record together.
    * A ``.jsonl``, ``.csv`` or ``.parquet`` file that is given is a manifest (see
      :func:`harmonia.data.manifest.read_manifest`). In a folder, ``metadata.*`` and ``manifest.*``
      are manifests of that folder; files that no row names are records as usual. Other tables in
      folders are ignored.
    * Folders are walked in sorted order, links included, every real folder once. Left out are
      ``exclude`` (patterns as in gitignore), what ``.harmoniaignore`` files name, hidden and system
      files, thumbnails, and Harmonia's own stores and exports. What ``paths`` names is always taken.

    Records have no id, digests or codes yet, and of media files only the heads of PNG files are read.
    Paths are absolute, with links as the user named them. Media embedded in a manifest are written
    into ``extract_to``.
    ``ignored`` counts the files of other kinds by lower-case suffix, sidecar files of media aside,
    ``left_out`` files and folders by the keys of :data:`harmonia.data.left_out.REASONS`. HarmoniaError
    for a wrong pattern. ``memory``, the folder that they will be remembered in, is passed over where it lies
    below the folders given. Manifests come first, then folders, then single files; a file that a manifest
    or its folder brought does not come again.
    """
    excluded = compiled(exclude) if exclude else None
    out: Counter[str] = Counter() if left_out is None else left_out
    folders, manifests, files, problems = _sort(paths)
    yield from problems
    loose = dict.fromkeys(files)
    visited: set[tuple[int, int]] = set()
    if memory is not None and memory.is_dir() and (own := _place(memory)) not in map(_place, folders):
        visited.add(own)
    walks = (_walk(Rules(folder, excluded), visited, out) for folder in folders)
    for found in _manifests_and_folders(manifests, walks, extract_to, ignored):
        if isinstance(found, Record):
            for path in _paths(found):
                loose.pop(path, None)
        yield found
    by_folder: dict[Path, list[Path]] = {}
    for path in loose:
        by_folder.setdefault(path.parent, []).append(path)
    for siblings in by_folder.values():
        yield from _group(siblings)


def _sort(
    paths: Iterable[str | Path],
) -> tuple[list[Path], list[Path], list[Path], list[Problem]]:
    """Folders, manifests, media files and problems among the paths that the user gave."""
    folders, manifests, files, problems = [], [], [], []
    for given in paths:
        try:
            # Path("") is the current folder; nobody who gives an empty name means that
            mode = os.stat(given).st_mode  # noqa: PTH116
        except FileNotFoundError:
            problems.append(Problem(_shown(given), "there is no such file or folder"))
            continue
        except (OSError, ValueError) as error:
            reason = why(error) if isinstance(error, OSError) else "this cannot be a path"
            problems.append(Problem(_shown(given), reason))
            continue
        path = absolute(given)
        if reason := _refusal(path, mode):
            problems.append(Problem(_shown(path), reason))
        elif stat.S_ISDIR(mode):
            folders.append(path)
        elif path.suffix.lower() in MANIFEST_SUFFIXES:
            manifests.append(path)
        else:
            files.append(path)
    return folders, manifests, files, problems


def _refusal(path: Path, mode: int) -> str:
    """Why a path that the user gave cannot be read, empty when it can."""
    if not is_writable_text(str(path)):
        return "the name is not valid UTF-8; rename it"
    if stat.S_ISDIR(mode):
        return "this is a Harmonia store; give the media themselves" if _is_store(path.name) else ""
    if not stat.S_ISREG(mode):
        return "this is neither a file nor a folder"
    if path.suffix.lower() not in MANIFEST_SUFFIXES and modality_of(path) is None:
        return f"{path.suffix or 'a file without suffix'} is not a kind of file Harmonia reads"
    return ""


def _manifests_and_folders(
    manifests: Sequence[Path],
    walks: Iterable[Iterator[list[Path] | Problem]],
    extract_to: str | Path | None,
    ignored: Counter[str] | None,
) -> Iterator[Record | Problem]:
    claimed: set[Path] = set()  # files that a manifest's row has taken, and manifests already read
    for path in dict.fromkeys(manifests):
        yield from _claim(path, extract_to, claimed)
    for walk in walks:
        for found in walk:
            if isinstance(found, Problem):
                yield found
                continue
            for path in found:
                if _describes_folder(path) and path not in claimed:
                    yield from _claim(path, extract_to, claimed)
            media = [path for path in found if path not in claimed and _is_media(path)]
            if ignored is not None:
                others = set(found) - set(media) - claimed
                if any(path.suffix.lower() in sidecars.SUFFIXES for path in others):
                    others -= {beside for path in media for beside in sidecars.sidecars_of(path)}
                ignored.update(path.suffix.lower() for path in others)
            yield from _group(media)


def _claim(manifest: Path, extract_to: str | Path | None, claimed: set[Path]) -> Iterator[Record | Problem]:
    """Read a manifest and note it and the files it names as taken."""
    claimed.add(manifest)
    for found in read_manifest(manifest, extract_to=extract_to):
        if isinstance(found, Record):
            claimed.update(_paths(found))
        yield found


def _walk(
    top: Rules, visited: set[tuple[int, int]], left_out: Counter[str]
) -> Iterator[list[Path] | Problem]:
    """The sorted files of every folder from the top down. Real folders come before linked ones, so
    that a folder reached both ways keeps its own name."""
    waiting: list[tuple[Path, Rules]] = [(top.top, top)]
    linked: list[tuple[Path, Rules]] = []
    while waiting or linked:
        folder, rules = waiting.pop() if waiting else linked.pop(0)
        try:
            if (place := _place(folder)) in visited:
                continue
            visited.add(place)
            with os.scandir(folder) as listing:
                entries = sorted(listing, key=lambda entry: entry.name)
        except OSError as error:
            yield Problem(str(folder), f"this folder cannot be read: {why(error)}")
            continue
        names = {entry.name: entry for entry in entries}
        if EXPORT_MARK in names and folder != top.top:
            left_out["harmonia"] += 1
            continue
        if (patterns := names.get(IGNORE_FILE)) and _kind(patterns) == "file":
            extended = rules.below(folder)
            if isinstance(extended, Problem):
                yield extended
            else:
                rules = extended
        files: list[Path] = []
        below: list[tuple[Path, Rules]] = []
        for entry in entries:
            kind = _kind(entry)
            if entry.name in (IGNORE_FILE, EXPORT_MARK):
                continue
            if kind == "folder" and _place(Path(entry)) in visited:
                continue
            if reason := _left_out(entry, kind, rules):
                left_out[reason] += 1
            elif isinstance(kind, Problem):
                yield kind
            elif kind == "folder":
                (linked if entry.is_symlink() else below).append((Path(entry), rules))
            elif kind == "file":
                files.append(Path(entry))
        waiting.extend(reversed(below))
        yield files


def _place(folder: Path) -> tuple[int, int]:
    state = folder.stat()
    return state.st_dev, state.st_ino


def _left_out(entry: os.DirEntry[str], kind: str | Problem, rules: Rules) -> str:
    """Why an entry of a folder is left out, empty if it is not."""
    if (kind == "folder" and _is_store(entry.name)) or (kind == "file" and is_sheet(Path(entry))):
        return "harmonia"
    return rules.reason(Path(entry), is_folder=kind == "folder") or (kind == "special" and "special") or ""


def _kind(entry: os.DirEntry[str]) -> str | Problem:
    """``file``, ``folder``, or ``special`` for pipes, sockets and devices, which are never opened."""
    if not is_writable_text(entry.name):
        return Problem(_shown(entry.path), "the name is not valid UTF-8; rename it")
    try:
        if entry.is_dir():
            return "folder"
        if entry.is_file():
            return "file"
        if entry.is_symlink() and not Path(entry).exists():
            return Problem(entry.path, "this link leads nowhere")
    except OSError as error:
        return Problem(entry.path, why(error))
    return "special"


def _group(paths: Iterable[Path]) -> Iterator[Record | Problem]:
    """One record for every stem among the media files of one folder, sorted by stem."""
    by_stem: dict[str, dict[Path, float]] = {}
    timed: set[str] = set()
    # subtitles come last: the video names the record, and takes those of movie.en.srt beside movie.mp4
    for path in sorted(paths, key=lambda one: (is_subtitles(one), one)):
        # one system writes an accent as its own character, another joined to the letter
        stem = unicodedata.normalize("NFC", path.stem)
        if is_subtitles(path):
            stem = _subtitled(stem, timed)
        elif modality_of(path) in ("audio", "video"):
            timed.add(stem)
        try:
            by_stem.setdefault(stem, {})[path] = path.stat().st_mtime
        except OSError as error:
            yield Problem(str(path), f"this file cannot be read: {why(error)}")
    for _, siblings in sorted(by_stem.items()):
        if siblings:
            yield file_record(list(siblings), next(iter(siblings.values())))


def _subtitled(stem: str, timed: set[str]) -> str:
    """The stem of the sound or video that subtitles belong to: ``movie`` for ``movie.en.forced``."""
    shorter = stem
    while shorter not in timed and "." in shorter:
        shorter = shorter.rpartition(".")[0]
    return shorter if shorter in timed else stem


def _paths(record: Record) -> Iterator[Path]:
    return (Path(part.path) for part in record.parts if part.path)


def _is_media(path: Path) -> bool:
    return path.suffix.lower() not in MANIFEST_SUFFIXES and modality_of(path) is not None


def _describes_folder(path: Path) -> bool:
    return path.stem.lower() in MANIFEST_STEMS and path.suffix.lower() in MANIFEST_SUFFIXES


def _is_store(name: str) -> bool:
    return name.endswith(".harmonia")


def _shown(path: str | Path) -> str:
    """A path that can be printed, whatever bytes its name has."""
    return str(path).encode("utf-8", "replace").decode()
