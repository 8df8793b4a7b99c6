"""What a store is: the calls the rest of the package makes, and the values it speaks.

`harmonia.store.lance.store.LanceStore` is the embedded implementation; a server engine could stand in its
place by keeping these promises. `harmonia.store.engine` chooses one by a store's address.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, Protocol, TypeAlias

import numpy as np
from numpy.typing import NDArray

from harmonia.store.filters import Filter
from harmonia.types import Record

Where: TypeAlias = Filter | str
"""A condition on records: a filter, or its text form."""


@dataclass(frozen=True, slots=True)
class EncoderInfo:
    """An encoder as a store knows it: codes of ``modality`` and ``space`` with ``dim`` numbers."""

    name: str
    modality: str
    space: str
    dim: int


@dataclass(frozen=True, slots=True)
class FileState:
    """A file as it was when it was remembered, so that an unchanged file is not read again.

    Several paths may lead to one record. ``size`` is in bytes, ``mtime_ns`` in nanoseconds
    (at most what 64 bits hold), ``digest`` the SHA-256 of the content in hexadecimal.
    """

    path: str
    size: int
    mtime_ns: int
    digest: str
    record_id: str

    def __post_init__(self) -> None:
        # file systems hold years that 64 bits of nanoseconds do not reach
        object.__setattr__(self, "mtime_ns", max(-(2**63), min(self.mtime_ns, 2**63 - 1)))


@dataclass(frozen=True, slots=True, eq=False)
class Codes:
    """All codes of one encoder, sorted by record and, within it, by part.

    * ``codes``: float32 ``(P, dim)``, contiguous, rows of unit norm
    * ``record``: int64 ``(P,)``, ascending; the row of `CodeTable.record_ids`
    * ``part``: int64 ``(P,)``, the part's position in ``Record.parts`` of that record
    * ``t0``, ``t1``: float64 ``(P,)``, the part's span (seconds; characters for text), NaN if none
    """

    codes: NDArray[np.float32]
    record: NDArray[np.int64]
    part: NDArray[np.int64]
    t0: NDArray[np.float64]
    t1: NDArray[np.float64]


@dataclass(frozen=True, slots=True, eq=False)
class CodeTable:
    """A consistent snapshot of every code, for exact scoring in memory.

    ``record_ids`` is sorted and holds each record once. ``encoders`` has an entry for each encoder
    of the store, empty ones included. ``version`` equals ``store.version()[:2]`` as long as no
    record and no part has changed.
    """

    record_ids: list[str]
    encoders: Mapping[str, Codes]
    version: tuple[int, int]


class Store(Protocol):
    """Records, their parts and codes, and the files they came from.

    Writes are atomic per record and exact under any number of processes: a reader sees a record
    with all the parts it was added with, or not at all. Every failure is a `HarmoniaError`.
    """

    @property
    def encoders(self) -> tuple[EncoderInfo, ...]:
        """The encoders the store was made with; it takes codes of no other."""
        ...

    def discard_empty(self) -> bool:
        """Remove the store from its folder if it holds no record; returns whether it was removed."""
        ...

    def add(self, records: Sequence[Record], files: Sequence[FileState] = ()) -> int:
        """Store records with coded parts, then the files they came from; returns how many are new.

        Adding a record again stores no second one: parts and codes it lacks are added, and its
        metadata is updated key by key. After a failure every record is there with all its parts or
        not at all, and adding again completes it.
        """
        ...

    def describe(self, metadata: Mapping[str, Mapping[str, Any]]) -> int:
        """Update the metadata of records key by key, by id; returns how many of them there are."""
        ...

    def remove(self, ids: Collection[str]) -> int:
        """Forget records, their parts and their files; returns how many there were.

        The bytes stay on disk until compaction: ``compact(keep=timedelta(0))`` clears them now.
        """
        ...

    def touch(self, files: Sequence[FileState]) -> int:
        """Insert or update file states; those of unknown records are left out. Returns the rest."""
        ...

    def relocate(
        self,
        paths: Mapping[str, Mapping[str, str]],
        metadata: Mapping[str, Mapping[str, Any]],
        files: Sequence[FileState],
    ) -> int:
        """Say where files are now: paths of parts by record id and digest, metadata by id, file states.

        No code changes. They are committed in this order, and doing it again completes what was interrupted.
        Unknown records are left out. Returns how many records' parts have another path now.
        """
        ...

    def forget_files(self, paths: Collection[str]) -> int:
        """Forget file states, keeping their records; returns how many there were."""
        ...

    def records(
        self,
        ids: Sequence[str] | None = None,
        where: Where | None = None,
        limit: int | None = None,
        offset: int = 0,
    ) -> list[Record]:
        """Records without codes, in the order of ``ids`` or else oldest first.

        Ids that the store does not have are left out. ``limit`` and ``offset`` count records.
        """
        ...

    def select(self, where: Where | None = None) -> list[str]:
        """Ids of the records that fulfil a filter, oldest first.

        ``where`` is a `harmonia.store.filters.Filter`, or its text form: ``tag = 'beach'``, ``year > 2019``,
        ``array_has(people, 'Ada')``. HarmoniaError, with the columns there are, for a text that cannot be
        understood or names a column that no record has; a Filter is unknown there.
        """
        ...

    def created(self, where: Where | None = None) -> dict[str, float]:
        """When records were added (Unix seconds), by id, oldest first; ``where`` is that of ``select``."""
        ...

    def holding(self, digest: str) -> list[Record]:
        """Records with a part of this content (SHA-256 in hexadecimal), without codes, oldest first."""
        ...

    def ids(self) -> list[str]:
        """The id of every record, sorted."""
        ...

    def metadata(self) -> dict[str, dict[str, Any]]:
        """The metadata of every record, by id."""
        ...

    def texts(self, only: Collection[str] | None = None) -> tuple[list[str], list[str]]:
        """The text of every part that has one, or of those of some records: record ids, and texts."""
        ...

    def files(self) -> dict[str, FileState]:
        """Every known file, by path."""
        ...

    def codes(self, only: Collection[str] | None = None) -> CodeTable:
        """Every code, or those of some records, grouped by encoder."""
        ...

    def version(self) -> tuple[int, int, int]:
        """Counters of records, parts and files; a change by any process moves one of them."""
        ...

    def nearest(
        self,
        encoder: str,
        vector: NDArray[np.float32],
        k: int,
        where: Where | None = None,
        ids: Collection[str] | None = None,
    ) -> tuple[list[str], NDArray[np.float32]]:
        """The ``k`` records with the most similar part, and the cosines, best first.

        Exact without an index; with one, records may be missed but the cosines are exact.
        """
        ...

    def build_index(self) -> None:
        """Make `nearest` sublinear in the number of parts, and approximate.

        For memories that outgrow RAM. Later parts are found too: by a scan until the next compaction adds
        them to the index. Building again makes one index out of its pieces.
        """
        ...

    def compact(self, keep: timedelta = ...) -> None:
        """Merge small fragments; clear what interrupted writes, removals and versions older than
        ``keep`` left behind.
        """
        ...

    def code_bytes(self) -> int:
        """Bytes of all codes in RAM, float32, without counting anything else."""
        ...

    def status(self) -> dict[str, Any]:
        """Counts, sizes in bytes, encoders, columns for filters, and versions."""
        ...
