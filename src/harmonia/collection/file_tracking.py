"""Files that moved, were renamed, copied or deleted: what a run saw, against what the store remembers."""

from __future__ import annotations

import os
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from harmonia.collection.namespaces import NAMESPACE
from harmonia.store import FileState, Store, media_path, put_media
from harmonia.types import Code, Part, Record

FILE_FACTS = ("path", "name", "folder", "modified")
"""Metadata that say where a file is; they follow it."""


class FileTracker:
    """The files of one run. ``before`` and ``metadata`` are what the store held when it began."""

    def __init__(
        self,
        store: Store,
        root: Path,
        before: Mapping[str, FileState],
        metadata: Mapping[str, Mapping[str, Any]],
    ) -> None:
        self.store, self.root, self.before, self.metadata = store, root, before, metadata
        self.read: dict[str, set[str]] = defaultdict(set)
        """Ids of the records that a content that was read belongs to, by digest."""
        self._states: dict[str, list[FileState]] = defaultdict(list)
        looks: dict[tuple[int, int], set[str]] = defaultdict(set)
        for state in before.values():
            self.read[state.digest].add(state.record_id)
            self._states[state.record_id].append(state)
            looks[state.size, state.mtime_ns].add(state.digest)
        self._alike = {look for look, digests in looks.items() if len(digests) > 1}
        self.contents: dict[str, str] = {}
        """The digest of every file that the run looked at, also of those that cannot be decoded."""
        self._found: dict[str, list[Record]] = defaultdict(list)
        self._owners: dict[str, set[str]] = defaultdict(set)
        self._now: dict[str, set[str]] = defaultdict(set)

    def known_digest(self, path: str, stat: os.stat_result) -> str | None:
        """The digest of a file that has not changed; None for one to read.

        Two files of one size and time may have swapped their names, so these are read.
        """
        state, look = self.before.get(path), (stat.st_size, stat.st_mtime_ns)
        if state is None or (state.size, state.mtime_ns) != look or look in self._alike:
            return None
        return state.digest

    def lacking(self, identity: str, parts: Sequence[Part], passing: set[str | None]) -> list[Part]:
        """Parts of a stored record that could not be read until now. ``passing``: paths without a state."""
        held = {state.digest for state in self._states.get(identity, ())}
        doubtful = [part for part in parts if part.path is not None and part.digest not in held]
        if not doubtful:
            return []
        stored = {part.digest for record in self.store.records([identity]) for part in record.parts}
        return [
            part
            for part in doubtful
            if part.digest not in stored or not (part.path in passing or part.digest in self.read)
        ]

    def see(self, record: Record, files: Sequence[FileState]) -> None:
        """Note a record that the run found, with the states of its readable files."""
        self._found[record.id].append(record)
        for part in record.parts:
            if part.path is not None:
                self._owners[part.path].add(record.id)
        for state in files:
            self._now[state.digest].add(record.id)

    def follow(
        self, touched: Sequence[FileState], described: Mapping[str, Mapping[str, Any]], copy: bool
    ) -> None:
        """Write where files are now; states of empty places go last, so that a kill loses none."""
        moved = {i: self._facts(i) for i in self._found if i in self.metadata and not self._stands(i)}
        asked = [i for i in self._found if i in self.metadata and (copy or i in moved or self._lost(i))]
        paths: dict[str, dict[str, str]] = {}
        for record in self.store.records(asked):
            if found := self._places(record, copy):
                paths[record.id] = found
        metadata = {i: {**described.get(i, {}), **moved.get(i, {})} for i in {*described, *moved}}
        lost = [state.path for i in self._found for state in self._lost(i)]
        # what stands there now and cannot be decoded has no state of its own
        empty = [path for path in lost if not _exists(path) or not self._owners.get(path)]
        self.store.relocate(paths, metadata, touched)
        if empty:
            self.store.forget_files(empty)

    def replaced(self) -> set[str]:
        """Records whose content went on in others, by a file that changed, joined or left its pair."""
        over = set()
        for identity, states in self._states.items():
            if identity not in self._found and self._is_over(identity, states):
                over.add(identity)
        # A run that was killed may have left records that no file leads to any more.
        bare = [
            i
            for i, facts in self.metadata.items()
            if i not in self._states and i not in self._found and self._taken(str(facts.get("path")), i)
        ]
        over |= {r.id for r in self.store.records(bare) if all(part.path is not None for part in r.parts)}
        # The same file in another namespace is another record, which goes on there.
        seen = {_namespace(found.metadata) for several in self._found.values() for found in several}
        over = {i for i in over if _namespace(self.metadata.get(i, {})) in seen}
        if not over:
            return over
        return over & set(self.store.ids())

    def gone(self, roots: Sequence[str]) -> tuple[str, ...]:
        """Remembered files under ``roots`` whose content is nowhere that the run saw."""
        return tuple(
            path
            for path, state in sorted(self.store.files().items())
            if any(path == root or path.startswith(root.rstrip(os.sep) + os.sep) for root in roots)
            and state.digest not in self._now
            and not _exists(path)
        )

    def _taken(self, path: str, identity: str) -> bool:
        """Whether the file at a path belongs to other records now."""
        owners = self._owners.get(path)
        return bool(owners) and identity not in (owners or ())

    def _holds(self, path: str, identity: str) -> bool:
        if owners := self._owners.get(path):
            return identity in owners
        # a file of other content, which cannot be decoded, may stand there now
        there = self.contents.get(path)
        return _exists(path) and (
            there is None or there in {s.digest for s in self._states.get(identity, ())}
        )

    def _stands(self, identity: str) -> bool:
        """Whether the path in a record's metadata is still its own."""
        path = self.metadata[identity].get("path")
        found = [record.metadata.get("path") for record in self._found[identity]]
        return path in found or (isinstance(path, str) and self._holds(path, identity))

    def _facts(self, identity: str) -> dict[str, Any]:
        record = min(self._found[identity], key=lambda found: str(found.metadata.get("path")))
        return {key: record.metadata[key] for key in FILE_FACTS if key in record.metadata}

    def _lost(self, identity: str) -> list[FileState]:
        """States of a record that was found, whose place is empty or another's; the content is elsewhere."""
        return [
            state
            for state in self._states.get(identity, ())
            if identity in self._now.get(state.digest, ()) and not self._holds(state.path, identity)
        ]

    def _places(self, record: Record, copy: bool) -> dict[str, str]:
        """New paths of a record's parts, by digest."""
        found = sorted(self._found[record.id], key=lambda one: str(one.metadata.get("path")))
        now = {p.digest: p.path for one in reversed(found) for p in one.parts if p.path is not None}
        places: dict[str, str] = {}
        for part in record.parts:
            path = now.get(part.digest)
            if part.path is None or path is None or part.digest in places:
                continue
            inside = Path(path).is_relative_to(self.root)
            if copy and not inside:
                put_media(self.root, path, part.digest)
                if Path(part.path).is_absolute():
                    places[part.digest] = media_path(part.digest, Path(path).suffix)
            elif Path(part.path).is_absolute() and not inside and not self._holds(part.path, record.id):
                places[part.digest] = path
        return places

    def _is_over(self, identity: str, states: Sequence[FileState]) -> bool:
        fresh = self._found.keys() - self.metadata.keys()
        if all(
            self._taken(s.path, identity) or (s.digest in self._now and not _exists(s.path)) for s in states
        ):
            return True
        # A caption that was deleted or edited does not keep a record whose media went on in a new one.
        from harmonia.modalities import modality_of  # it loads every decoder, and a recall needs none

        media = [s for s in states if modality_of(s.path) != "text"]
        return (
            bool(media)
            and all(
                (self._now.get(s.digest, set()) & fresh)
                and (self._taken(s.path, identity) or not _exists(s.path))
                for s in media
            )
            and not any(_exists(s.path) and not self._taken(s.path, identity) for s in states)
        )


def settle_copies(store: Store, lost: Sequence[FileState], states: Sequence[FileState]) -> None:
    """Lead records from files that are gone to their other copies, and forget the former."""
    copies = {(s.record_id, s.digest): s.path for s in states if _exists(s.path)}
    leave = [s for s in lost if (s.record_id, s.digest) in copies]
    if not leave:
        return
    paths: dict[str, dict[str, str]] = {}
    metadata: dict[str, dict[str, Any]] = {}
    empty = {s.path: copies[s.record_id, s.digest] for s in leave}
    for record in store.records(list(dict.fromkeys(s.record_id for s in leave))):
        found = {p.digest: empty[p.path] for p in record.parts if p.path in empty}
        if found:
            paths[record.id] = found
        if (path := record.metadata.get("path")) in empty:
            place = Path(empty[str(path)])
            metadata[record.id] = {"path": str(place), "name": place.stem, "folder": place.parent.name}
    store.relocate(paths, metadata, ())
    store.forget_files(list(empty))


def coded_parts(store: Store, identity: str, digest: str) -> list[Part]:
    """The parts of a stored record that were made from one content, with their codes."""
    table = store.codes([identity])
    records = store.records([identity])
    if not records:
        return []
    parts = records[0].parts
    found = []
    for encoder in store.encoders:
        codes = table.encoders[encoder.name]
        for vector, number in zip(codes.codes, codes.part.tolist(), strict=True):
            if parts[number].digest == digest:
                code = Code(encoder.modality, vector, encoder.space)
                found.append((number, replace(parts[number], code=code)))
    return [part for _, part in sorted(found, key=lambda pair: pair[0])]


def _namespace(metadata: Mapping[str, Any]) -> str:
    return str(metadata.get(NAMESPACE, ""))


def _exists(path: str) -> bool:
    return os.path.isfile(path)  # noqa: PTH113
