"""The layout of records: which parts of several modalities form one moment.

A record may hold many parts of one modality: the windows of a long video, five captions of a photo.
A *moment* takes at most one part of each modality: windows with the same start go together, parts
without a time (a caption, a photo) go with every window, and several of them are alternatives. A
record's score is the maximum over its moments. Being a maximum of linear functions it is convex, so
everything proved for one part per modality still holds (see ``settle``).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

Index = NDArray[np.int64]


@dataclass(frozen=True, eq=False)
class Layout:
    """``slot`` (M,): the record of each moment, ascending. ``parts[key]`` (M,): its part, -1 if none."""

    slots: int
    slot: Tensor
    parts: Mapping[str, Tensor]

    @cached_property
    def visible(self) -> Tensor:
        """The records that have a moment, ascending."""
        distinct: Tensor = torch.unique_consecutive(self.slot)
        return distinct

    @cached_property
    def single(self) -> bool:
        """Whether no record has several moments."""
        return len(self.visible) == len(self.slot)

    @cached_property
    def in_order(self) -> frozenset[str]:
        """The matrices whose row n is moment n's part, so that their scores need no regrouping."""
        rows = torch.arange(len(self.slot), device=self.slot.device)
        return frozenset(key for key, part in self.parts.items() if bool((part == rows).all()))

    def to(self, device: torch.device) -> Layout:
        """The same layout on a device."""
        return Layout(self.slots, self.slot.to(device), {k: p.to(device) for k, p in self.parts.items()})

    def check(self, lengths: Mapping[str, int]) -> None:
        """ValueError unless this is a layout of matrices with so many rows."""
        if set(self.parts) != set(lengths):
            raise ValueError(f"the layout is of {sorted(self.parts)}, the codes are of {sorted(lengths)}")
        slot = self.slot
        if len(slot) and (int(slot[0]) < 0 or int(slot[-1]) >= self.slots or bool((slot.diff() < 0).any())):
            raise ValueError(f"moments must ascend through the slots 0 to {self.slots - 1}")
        for key, part in self.parts.items():
            if part.shape != slot.shape:
                raise ValueError(f"the layout has {len(slot)} moments, but {len(part)} parts of {key}")
            if len(part) and not -1 <= int(part.min()) <= int(part.max()) < lengths[key]:
                raise ValueError(
                    f"the layout names parts of {key} that there are no codes of ({lengths[key]})"
                )

    @classmethod
    def aligned(cls, presence: Mapping[str, Tensor]) -> Layout:
        """One moment per record: row n of every matrix belongs to record n where the mask is true."""
        slots = next(iter(presence.values())).shape[0]
        rows = torch.arange(slots)
        parts = {key: torch.where(mask.bool().cpu(), rows, -1) for key, mask in presence.items()}
        return cls(slots, rows, parts)

    @classmethod
    def of_parts(
        cls, slots: int, record: Mapping[str, Index], start: Mapping[str, NDArray[np.float64]]
    ) -> Layout:
        """From each matrix's parts: the record of every part (ascending) and its start (NaN: no time).

        Timed parts of one record are joined when they start together.
        """
        slot, parts = _timeline(slots, record, start)
        for key in record:
            untimed = np.flatnonzero(np.isnan(start[key]))
            slot, parts = _multiply(key, slot, parts, record[key][untimed], untimed)
        return cls(slots, torch.from_numpy(slot), {key: torch.from_numpy(p) for key, p in parts.items()})

    def view(self, keys: Sequence[str]) -> Layout:
        """The distinct moments of some of the matrices; moments without a part in them are dropped."""
        chosen = tuple(keys)
        if chosen not in self._views:
            self._views[chosen] = self._view(chosen)
        return self._views[chosen]

    @cached_property
    def _views(self) -> dict[tuple[str, ...], Layout]:
        return {}

    def _view(self, keys: tuple[str, ...]) -> Layout:
        columns = [self.parts[key].cpu().numpy() for key in keys]
        stacked = np.stack([self.slot.cpu().numpy(), *columns])
        stacked = stacked[:, (stacked[1:] >= 0).any(axis=0)]
        if stacked.shape[1] > 1:
            order = np.lexsort(stacked[::-1])
            stacked = stacked[:, order]
            fresh = np.concatenate([[True], (stacked[:, 1:] != stacked[:, :-1]).any(axis=0)])
            stacked = stacked[:, fresh]
        slot = torch.from_numpy(np.ascontiguousarray(stacked[0]))
        parts = {k: torch.from_numpy(np.ascontiguousarray(stacked[i + 1])) for i, k in enumerate(keys)}
        return Layout(self.slots, slot, parts).to(self.slot.device)


def _timeline(
    slots: int, record: Mapping[str, Index], start: Mapping[str, NDArray[np.float64]]
) -> tuple[Index, dict[str, Index]]:
    """One moment per distinct (record, start), and one for every record without timed parts.

    A second part of the same modality at the same time (two audio files of one record) is a moment
    of its own.
    """
    rows = {key: np.flatnonzero(~np.isnan(start[key])) for key in record}
    owner = np.concatenate([record[key][rows[key]] for key in record])
    time = np.concatenate([start[key][rows[key]] for key in record])
    copy = np.concatenate([_copies(record[key][r], start[key][r]) for key, r in rows.items()])
    rest = np.setdiff1d(np.arange(slots), owner)
    owner = np.concatenate([owner, rest]).astype(np.int64)
    time = np.concatenate([time, np.zeros(len(rest))])
    copy = np.concatenate([copy, np.zeros(len(rest), dtype=np.int64)])

    order = np.lexsort((copy, time, owner))
    fresh = np.ones(len(order), dtype=bool)
    for column in (owner, time, copy):
        fresh[1:] &= column[order][1:] == column[order][:-1]
    fresh[1:] = ~fresh[1:]
    moment = np.empty(len(order), dtype=np.int64)
    moment[order] = np.cumsum(fresh) - 1

    parts: dict[str, Index] = {}
    offset = 0
    for key, r in rows.items():
        parts[key] = np.full(int(fresh.sum()), -1)
        parts[key][moment[offset : offset + len(r)]] = r
        offset += len(r)
    return owner[order][fresh], parts


def _copies(owner: Index, time: NDArray[np.float64]) -> Index:
    """How many earlier rows have the same owner and time."""
    order = np.lexsort((time, owner))
    same = (np.diff(owner[order]) == 0) & (np.diff(time[order]) == 0)
    position = np.arange(len(order))
    head = np.maximum.accumulate(np.where(np.concatenate([[False], same]), 0, position))
    copies = np.empty(len(order), dtype=np.int64)
    copies[order] = position - head
    return copies


def _multiply(
    key: str, slot: Index, parts: dict[str, Index], owner: Index, rows: Index
) -> tuple[Index, dict[str, Index]]:
    """Give every moment each of its record's untimed parts of one modality: alternatives multiply."""
    first = np.searchsorted(owner, slot)
    count = np.searchsorted(owner, slot, side="right") - first
    free = parts[key] < 0
    count = np.where(free, count, 0)
    times = np.maximum(count, 1)
    if (times > 1).any():
        position = np.arange(times.sum()) - np.repeat(np.cumsum(times) - times, times)
        slot, first, count = (np.repeat(a, times) for a in (slot, first, count))
        parts = {k: np.repeat(p, times) for k, p in parts.items()}
    else:
        position = np.zeros(len(slot), dtype=np.int64)
    has = count > 0
    parts[key][has] = rows[first[has] + position[has]]
    return slot, parts
