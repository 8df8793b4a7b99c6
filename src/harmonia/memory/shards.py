"""Sharding of slots over the ranks of ``torch.distributed``: each scans its own, results merge exactly.

Every rank has whole records, calls recall with the same cues, and gets the same answer: that of one process
with all of them. Slots, moments and parts are numbered through the ranks in their order.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

import torch
import torch.distributed as dist
from torch import Tensor

from harmonia.memory.matrix import PRIOR_COUNT, Centering
from harmonia.memory.moment_scores import MatrixQuery
from harmonia.memory.record_layout import Layout
from harmonia.memory.scan import Scan, scan_top


class Shards:
    """One rank's view of the others. ``lengths`` are its own numbers of rows by key, "" for moments."""

    def __init__(self, group: dist.ProcessGroup, slots: int, lengths: Mapping[str, int]) -> None:
        self.group = group
        self.offset, self.total = self._place(slots)
        self.slots = slots
        self.first = {key: self._place(length)[0] for key, length in sorted(lengths.items())}

    def scan(
        self, view: Layout, queries: Sequence[MatrixQuery], k: int, beta: Tensor, mask: Tensor | None
    ) -> Scan:
        """The best k of all ranks, and the log-sum-exp over all of them."""
        mine = scan_top(view, queries, k, beta, mask)
        k = min(k, self.total)
        room = (0, k - mine.scores.shape[1])
        scores = torch.nn.functional.pad(mine.scores, room, value=-torch.inf)
        slots = torch.where(mine.slots >= 0, mine.slots + self.offset, -1)
        slots = torch.nn.functional.pad(slots, room, value=-1)
        all_scores, all_slots = torch.cat(self._gather(scores), -1), torch.cat(self._gather(slots), -1)
        best, pick = all_scores.topk(k, dim=-1)
        total = torch.logsumexp(torch.stack(self._gather(mine.logsumexp)), dim=0)
        return Scan(best, all_slots.gather(-1, pick), total)

    def own(self, slots: Tensor) -> Tensor:
        """This rank's numbers of the slots it holds; -1 for the others."""
        mine = (slots >= self.offset) & (slots < self.offset + self.slots)
        return torch.where(mine, slots - self.offset, -1)

    def rows(self, key: str, own: Tensor) -> Tensor:
        """Row numbers that count through the ranks, from this rank's own (-1: not here)."""
        return self.sum(torch.where(own >= 0, own + self.first[key] + 1, 0)) - 1

    def sum(self, value: Tensor) -> Tensor:
        """The sum over the ranks."""
        total = value.clone()
        dist.all_reduce(total, group=self.group)
        return total

    def sums(self, values: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """The sum of each; by name, so that all ranks take them in one order."""
        return {key: self.sum(values[key]) for key in sorted(values)}

    def frame(self, codes: Tensor, *, centre: bool = True) -> Centering:
        """The centring of all ranks' codes ``(n, d)`` together."""
        codes = codes if codes.dtype == torch.float64 else codes.float()
        count = self.sum(codes.new_tensor([float(len(codes))]))
        mean = self.sum(codes.sum(dim=0)) / (count + PRIOR_COUNT)
        own = Centering.of(mean, codes, centre=centre)
        return replace(own, moment=self.sum(own.moment * len(codes)) / count)

    def _gather(self, value: Tensor) -> list[Tensor]:
        out = [torch.empty_like(value) for _ in range(dist.get_world_size(self.group))]
        dist.all_gather(out, value.contiguous(), group=self.group)
        return out

    def _place(self, count: int) -> tuple[int, int]:
        counts = torch.cat(self._gather(torch.tensor([count])))
        return int(counts[: dist.get_rank(self.group)].sum()), int(counts.sum())
