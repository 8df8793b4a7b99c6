"""Where a memory holds its records: one value that edits replace while recalls in other threads go on."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from copy import copy
from dataclasses import replace
from functools import wraps
from threading import Lock, RLock
from typing import Any, Concatenate, Generic, ParamSpec, Self, TypeVar, overload

import torch
import torch.distributed as dist
from torch import Tensor

from harmonia.memory.match_test import NullScores
from harmonia.memory.matrix import Centering, Matrix, Precision
from harmonia.memory.record_layout import Layout
from harmonia.memory.records import Records, checked_codes
from harmonia.memory.shards import Shards

T = TypeVar("T")
P = ParamSpec("P")
S = TypeVar("S", bound="Storage")


class _Stored(Generic[T]):
    """An attribute of the memory's records: read from the present value, set by swapping in a changed one."""

    def __set_name__(self, owner: type, name: str) -> None:
        self.name = name

    @overload
    def __get__(self, memory: None, owner: type) -> _Stored[T]: ...

    @overload
    def __get__(self, memory: Storage, owner: type) -> T: ...

    def __get__(self, memory: Storage | None, owner: type) -> _Stored[T] | T:
        if memory is None:
            return self
        value: T = getattr(memory.records, self.name)
        return value

    def __set__(self, memory: Storage, value: T) -> None:
        change: dict[str, Any] = {self.name: value}
        memory.edit(lambda records: replace(records, **change))


def on_one_value(method: Callable[Concatenate[S, P], T]) -> Callable[Concatenate[S, P], T]:
    """A method that reads the records as they are when it starts, whatever is edited meanwhile."""

    @wraps(method)
    def run(memory: S, /, *args: P.args, **options: P.kwargs) -> T:
        return method(memory.snapshot(), *args, **options)

    return run


class Storage:
    """The records of a memory, and edits of them; the arguments are those of `HarmonicMemory`.

    ``records`` is the present value. An edit makes the next one and swaps it in whole, so a recall in another
    thread sees all of an edit or nothing, and a refused one changes nothing.
    """

    layout = _Stored[Layout]()
    frames = _Stored[Mapping[str, Centering]]()
    matrices = _Stored[Mapping[str, Matrix]]()
    trusts = _Stored[Mapping[str, float]]()
    couplings = _Stored[Mapping[tuple[str, str], Tensor]]()
    bias = _Stored[Tensor]()
    count = _Stored[Tensor]()
    used = _Stored[Tensor]()
    born = _Stored[Tensor]()
    alive = _Stored[Tensor]()

    def __init__(
        self,
        codes: Mapping[str, Tensor],
        layout: Layout | None = None,
        *,
        centre: bool | Collection[str] = True,
        frames: Mapping[str, Centering] | None = None,
        population: int | None = None,
        precision: Precision = "float32",
        device: str | torch.device = "cpu",
        group: dist.ProcessGroup | None = None,
    ) -> None:
        if not codes:
            raise ValueError("a memory needs at least one matrix of codes")
        for key, raw in codes.items():
            if not len(checked_codes(key, raw)) and group is None:
                raise ValueError(f"there are no codes of {key}: leave this modality out")
        self.device, self.population = torch.device(device), population
        if precision == "int8" and self.device.type != "cpu":
            raise ValueError(f"int8 codes are scanned on the CPU (got device {self.device}): use float16")
        if layout is None:
            layout = Layout.aligned({key: torch.ones(len(c), dtype=torch.bool) for key, c in codes.items()})
        layout.check({key: len(c) for key, c in codes.items()})
        self.shards: Shards | None = None
        if group is not None:
            lengths = {"": len(layout.slot), **{key: len(c) for key, c in codes.items()}}
            self.shards = Shards(group, layout.slots, lengths)
        centred = centre if isinstance(centre, bool) else frozenset(centre)

        def fit(key: str) -> Centering:
            own = codes[key].to(self.device) if precision != "int8" else codes[key]
            chosen = centred if isinstance(centred, bool) else key in centred
            return (Centering.fit if self.shards is None else self.shards.frame)(own, centre=chosen)

        given = frames or {}
        # In the order of names: with shards, fitting is a collective call.
        fitted = {key: given.get(key) or fit(key) for key in sorted(codes)}
        if self.device.type != "cpu":
            fitted = {key: frame.to(self.device) for key, frame in fitted.items()}
        self.records = Records.of(
            codes, layout.to(self.device), fitted, centre=centred, precision=precision, fixed=bool(frames)
        )
        self._editing, self._counting = RLock(), Lock()
        self.null_scores: NullScores = {}
        self.own_nulls: dict[tuple[tuple[str, str], ...], tuple[tuple[object, ...], Tensor]] = {}
        # Where recalls count as use: the memory itself, or the one that this is a snapshot of.
        self._origin = self

    @property
    def slots(self) -> int:
        """How many records are held, the deleted ones included (of this rank, if sharded)."""
        return self.layout.slots

    @property
    def held(self) -> int:
        """How many records are held and not deleted, on all ranks."""
        alive = int(self.alive.sum())
        return alive if self.shards is None else int(self.shards.sum(torch.tensor([alive])))

    def snapshot(self, *, counts: bool = True) -> Self:
        """The memory with the records of now: edits of one do not reach the other.

        Its recalls count as use here as well, unless not ``counts``.
        """
        still = copy(self)
        if not counts:
            still.records = replace(self.records, used=self.used.clone())
            still._origin = still
        return still

    def narrowed(self, keys: Sequence[str]) -> Self:
        """A snapshot, not counted, with only the matrices ``keys``: nothing is read out of the others."""
        still = self.snapshot(counts=False)
        still.records = still.records.narrowed(keys)
        return still

    def edit(self, change: Callable[[Records], Records]) -> Records:
        """Swap in what ``change`` makes of the records, and return it; if it raises, nothing is changed.

        Recalls go on meanwhile. An answer that came while slots were numbered anew does not count as use.
        """
        with self._editing:
            if self._origin is not self:
                # A snapshot that is edited goes its own way.
                self.records, self._origin = replace(self.records, used=self.used.clone()), self
            old = self.records
            new = change(old)
            same = new.layout is old.layout and new.matrices is old.matrices and new.alive is old.alive
            if self.shards is not None and not same:
                raise ValueError(
                    "a memory spread over ranks cannot be edited: build it again from the edited codes"
                )
            with self._counting:
                if new.compacted == old.compacted and new.slots > old.slots:
                    new.used[: old.slots] = old.used
                self.records = new
            return new

    def count_use(self, slots: Tensor) -> None:
        """Count each of these slots (n,) of a recall as used once more."""
        origin = self._origin
        with origin._counting:
            now = origin.records
            if now.compacted == self.records.compacted:
                now.used.index_add_(0, slots, torch.ones_like(slots, dtype=now.used.dtype))

    def __getstate__(self) -> dict[str, Any]:
        """All but the locks, of which a copy has its own."""
        return {name: value for name, value in vars(self).items() if name not in ("_editing", "_counting")}

    def __setstate__(self, state: dict[str, Any]) -> None:
        """The attributes of a copy."""
        vars(self).update(state, _editing=RLock(), _counting=Lock())

    def insert(self, codes: Mapping[str, Tensor], present: Mapping[str, Tensor] | None = None) -> Tensor:
        """Add n records while running (see :meth:`~.records.Records.insert`); returns their slots (n,)."""
        n = 0

        def add(records: Records) -> Records:
            nonlocal n
            new = records.insert(codes, present)
            n = new.slots - records.slots
            return new

        last = self.edit(add).slots
        return torch.arange(last - n, last, device=self.device)

    def delete(self, slots: Tensor | Sequence[int]) -> None:
        """Delete these slots: no recall returns them. ``compact`` frees their room."""
        self.edit(lambda records: records.delete(slots))

    def update(self, slot: int, codes: Mapping[str, Tensor]) -> None:
        """Replace a record's codes of some modalities (see :meth:`~.records.Records.update`)."""
        self.edit(lambda records: records.update(slot, codes))

    def view(self, keys: tuple[str, ...]) -> Layout:
        """The layout as seen by some of the matrices."""
        return self.layout.view(keys)
