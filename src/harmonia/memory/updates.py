"""Insert, delete and update records of a running memory.

The centring (mean and second moment) follows the stored codes: once a tenth of the records have been inserted
or deleted it is fitted again, so that a stream of small edits costs O(d) numbers each on average and the
memory stays within a few percent of one built from scratch. ``refit`` makes them equal.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from harmonia.memory.matrix import Centering, Matrix
from harmonia.memory.record_layout import Layout

if TYPE_CHECKING:
    from harmonia.memory.harmonic import HarmonicMemory

# Share of the records that may change before the centring is fitted again.
DRIFT = 0.1


def insert(
    memory: HarmonicMemory, codes: Mapping[str, Tensor], present: Mapping[str, Tensor] | None = None
) -> Tensor:
    """Add n records of raw codes ``codes[key]`` (n, d); returns their slots ``(n,)``.

    ``present[key]`` (n,) bool says which of them have the modality (default: all). A key that the memory
    does not know is a new modality.
    """
    _one_process(memory)
    count = {len(c) for c in codes.values()}
    if len(count) != 1 or 0 in count:
        raise ValueError(
            f"insert needs the same number of rows, at least one, in every modality (got {count})"
        )
    n = count.pop()
    new = torch.arange(memory.slots, memory.slots + n, device=memory.device)
    parts = {}
    for key in {**memory.layout.parts, **codes}:
        old = memory.layout.parts.get(key)
        if old is None:
            old = torch.full_like(memory.layout.slot, -1)
        added = torch.full_like(new, -1)
        if key in codes:
            has = torch.ones(n, dtype=torch.bool) if present is None or key not in present else present[key]
            has = has.to(memory.device).bool()
            added[has] = _append(memory, key, codes[key].to(memory.device)[has])
        parts[key] = torch.cat([old, added])
    memory.layout = Layout(memory.slots + n, torch.cat([memory.layout.slot, new]), parts)
    for name, fill in (("bias", 0.0), ("count", 1.0), ("used", 0.0), ("alive", True)):
        old = getattr(memory, name)
        setattr(memory, name, torch.cat([old, old.new_full((n,), fill)]))
    memory.born = torch.cat([memory.born, memory.born.new_full((n,), int(memory.born.max()) + 1)])
    _changed(memory, n)
    return new


def delete(memory: HarmonicMemory, slots: Tensor) -> None:
    """Delete these slots: no recall returns them. :func:`compact` frees their room."""
    _one_process(memory)
    slots = slots.to(memory.device)
    gone = int(memory.alive[slots].sum())
    memory.alive[slots] = False
    _changed(memory, gone)


def update(memory: HarmonicMemory, slot: int, codes: Mapping[str, Tensor]) -> None:
    """Replace a record's raw codes ``(d,)`` of some modalities, or add those it lacked.

    Raises ValueError for a record of several moments, or a modality that no record has.
    """
    _one_process(memory)
    moments = (memory.layout.slot == slot).nonzero()[:, 0]
    if len(moments) != 1:
        raise ValueError(
            f"slot {slot} has {len(moments)} moments: only a record of one can be updated; insert it again"
        )
    for key, code in codes.items():
        if key not in memory.matrices:
            raise ValueError(f"no record has the modality {key!r}: insert one that has it first")
        parts = memory.layout.parts[key]
        row = parts[moments]
        if int(row) >= 0 and int((parts == row).sum()) == 1:
            memory.matrices[key].replace(row, code.to(memory.device)[None])
        else:
            parts[moments] = _append(memory, key, code.to(memory.device)[None])
    memory.layout = Layout(memory.slots, memory.layout.slot, memory.layout.parts)
    _changed(memory, 1)


def compact(memory: HarmonicMemory) -> Tensor:
    """Free the room of deleted records; returns the old slot (slots,) of each new one."""
    _one_process(memory)
    kept = memory.alive.nonzero()[:, 0]
    if not len(kept):
        raise ValueError("every record is deleted: build a new memory")
    new_slot = torch.full((memory.slots,), -1, dtype=torch.long, device=memory.device)
    new_slot[kept] = torch.arange(len(kept), device=memory.device)
    moments = memory.alive[memory.layout.slot]
    parts = {}
    for key, index in memory.layout.parts.items():
        index = index[moments]
        rows, place = torch.unique(index[index >= 0], return_inverse=True)
        parts[key] = index.clone()
        parts[key][index >= 0] = place
        raw = memory.matrices[key].raw()[rows]
        memory.matrices[key] = Matrix(raw, memory.frames[key], memory.precision)
    memory.layout = Layout(len(kept), new_slot[memory.layout.slot[moments]], parts)
    for name in ("bias", "count", "used", "born", "alive"):
        setattr(memory, name, getattr(memory, name)[kept])
    _changed(memory, 0)
    return kept


def refit(memory: HarmonicMemory) -> None:
    """Fit the centring to the records stored now, and transform all codes again."""
    memory.drift = 0
    for key, matrix in memory.matrices.items():
        parts = memory.layout.parts[key][memory.alive[memory.layout.slot]]
        rows = torch.unique(parts[parts >= 0])
        if len(rows):
            raw = matrix.raw()
            memory.frames[key] = Centering.fit(raw[rows], centre=memory.is_centred(key))
            memory.matrices[key] = Matrix(raw, memory.frames[key], memory.precision)


def _append(memory: HarmonicMemory, key: str, raw: Tensor) -> Tensor:
    """Rows of the matrix ``key`` that now hold the raw codes."""
    if key not in memory.matrices:
        memory.frames[key] = Centering.fit(raw, centre=memory.is_centred(key))
        memory.matrices[key] = Matrix(raw[:0], memory.frames[key], memory.precision)
    matrix = memory.matrices[key]
    if raw.shape[-1] != matrix.shape[1]:
        raise ValueError(f"codes of {key} must have {matrix.shape[1]} dimensions (got {raw.shape[-1]})")
    first = matrix.shape[0]
    matrix.append(raw)
    return torch.arange(first, first + len(raw), device=memory.device)


def _changed(memory: HarmonicMemory, records: int) -> None:
    memory.clear_views()
    memory.drift += records
    if not memory.fixed and memory.drift > max(1.0, DRIFT * int(memory.alive.sum())):
        refit(memory)


def _one_process(memory: HarmonicMemory) -> None:
    if memory.shards is not None:
        raise ValueError("a memory spread over ranks cannot be edited: build it again from the edited codes")
