"""Records as arrays, from which training batches are drawn."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from harmonia.types import HarmoniaError

Augment = Callable[[Tensor, torch.Generator], Tensor]
"""Inputs (n, ...) -> inputs of the same shape, drawn from the generator."""


@dataclass(frozen=True, slots=True, eq=False)
class Views:
    """Parts of one modality: ``inputs`` (n, ...), as prepared by a tower, and the ``record`` of each, int64
    (n,).

    A record may have several rows; a record without a row lacks the modality.
    """

    inputs: Tensor
    record: Tensor

    def to(self, device: torch.device | str) -> Views:
        """The same on another device."""
        return Views(self.inputs.to(device, non_blocking=True), self.record.to(device, non_blocking=True))


Batch = dict[str, Views]


class Pairs:
    """A dataset of records whose parts are arrays; a batch has some parts of each of its records.

    Args:
        parts: the parts by modality, ``record`` counted from 0 to ``records`` - 1. Records may have any
            number of parts of a modality, also none.
        records: the number of records; by default that of the parts.
        augment: augmentation of the inputs of each modality.
        per_record: the number of random parts of one modality and record in a batch; a number, or one for
            each modality.
        drop: the probability of dropping a modality of a record in a batch, to train with missing parts. At
            least one is kept.

    `batch` is a pure function of the indices and the generator, which makes training resume exactly.
    """

    def __init__(
        self,
        parts: Mapping[str, Views],
        *,
        records: int | None = None,
        augment: Mapping[str, Augment] | None = None,
        per_record: int | Mapping[str, int] = 1,
        drop: float = 0.0,
    ) -> None:
        if not parts or any(len(view.record) != len(view.inputs) for view in parts.values()):
            raise HarmoniaError("give the parts of one modality at least, and a record for each of them")
        if not 0.0 <= drop < 1.0:
            raise HarmoniaError(f"drop must be at least 0 and less than 1 (got {drop})")
        if any(len(view.record) and int(view.record.min()) < 0 for view in parts.values()):
            raise HarmoniaError("records are counted from 0: a part names a negative one")
        take = {
            name: per_record if isinstance(per_record, int) else per_record.get(name, 0) for name in parts
        }
        if short := [name for name, number in take.items() if number < 1]:
            raise HarmoniaError(f"a batch takes at least 1 part of a record: raise it for {', '.join(short)}")
        most = max(int(view.record.max()) + 1 if len(view.record) else 0 for view in parts.values())
        self._records = most if records is None else records
        if self._records < most or not self._records:
            raise HarmoniaError(
                f"the parts name {most} records, but there are {self._records}: check the ids"
            )
        self.parts = {name: _grouped(view) for name, view in parts.items()}
        self._count = {
            name: torch.bincount(view.record, minlength=self._records) for name, view in self.parts.items()
        }
        self._start = {name: count.cumsum(0) - count for name, count in self._count.items()}
        self._augment = dict(augment or {})
        self._take = take
        self._drop = drop

    def __len__(self) -> int:
        """The number of records."""
        return self._records

    def batch(self, indices: Tensor, generator: torch.Generator) -> Batch:
        """Parts of the records ``indices`` (B,), which become records 0 to B - 1 of the batch."""
        kept = self._kept(indices, generator)
        found: Batch = {}
        for i, name in enumerate(self.parts):
            rows, record = self._rows(name, indices, kept[:, i], generator)
            if not len(rows):
                continue
            inputs = self.parts[name].inputs[rows]
            if name in self._augment:
                inputs = self._augment[name](inputs, generator)
            found[name] = Views(inputs, record)
        return found

    def _kept(self, indices: Tensor, generator: torch.Generator) -> Tensor:
        """The mask of kept modalities, bool (B, M), with at least one for each record."""
        has = torch.stack([self._count[name][indices] > 0 for name in self.parts], dim=1)
        if not self._drop:
            return has
        luck = torch.rand(has.shape, generator=generator).masked_fill(~has, -1.0)
        kept = luck >= self._drop
        kept[torch.arange(len(indices)), luck.argmax(dim=1)] = True
        return kept & has

    def _rows(
        self, name: str, indices: Tensor, kept: Tensor, generator: torch.Generator
    ) -> tuple[Tensor, Tensor]:
        """Rows of the parts drawn, and the record of the batch each belongs to."""
        count = self._count[name][indices] * kept
        most = int(count.max())
        if not most:
            return indices[:0], indices[:0]
        luck = torch.rand(len(indices), most, generator=generator)
        luck = luck.masked_fill(torch.arange(most) >= count[:, None], 2.0)
        chosen = luck.argsort(dim=1)[:, : self._take[name]]
        there = chosen < count[:, None]
        rows = (self._start[name][indices][:, None] + chosen)[there]
        record = torch.arange(len(indices))[:, None].expand_as(chosen)[there]
        return rows, record


def _grouped(view: Views) -> Views:
    """The parts sorted by record."""
    order = view.record.argsort(stable=True)
    if bool((order[1:] > order[:-1]).all()):
        return view
    return Views(view.inputs[order], view.record[order])
