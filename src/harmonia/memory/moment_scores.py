"""Scores of given slots, without a scan: the moments of a slot, and the score of each."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from harmonia.memory.matrix import Matrix
from harmonia.memory.record_layout import Layout

# Moments gathered at once.
CHUNK = 32_768


@dataclass(frozen=True, slots=True, eq=False)
class MatrixQuery:
    """Weighted cues against one matrix: ``codes`` (P, d), ``cue`` (Q, d) already times its weight.

    ``absent`` (Q,) is the score of a moment that has no part in this matrix.
    """

    key: str
    codes: Matrix | Tensor
    cue: Tensor
    absent: Tensor


def moments_of(layout: Layout, slots: Tensor) -> Iterator[tuple[Tensor, Tensor]]:
    """Yield pairs (position in the flattened ``slots``, moment) in chunks; a slot's moments stay together.

    A slot of -1 has no moments.
    """
    flat = slots.reshape(-1).contiguous()
    if layout.single and len(layout.slot) == layout.slots:
        held = flat >= 0
        for pair in torch.split(torch.arange(len(flat), device=flat.device)[held], CHUNK):
            yield pair, flat[pair]
        return
    first = torch.searchsorted(layout.slot, flat)
    count = torch.searchsorted(layout.slot, flat, right=True) - first
    count = count.masked_fill(flat < 0, 0)
    chunk = torch.div(count.cumsum(0), CHUNK, rounding_mode="floor")
    for c in range(int(chunk[-1]) + 1 if chunk.numel() else 0):
        pairs = (chunk == c).nonzero()[:, 0]
        pair = pairs.repeat_interleave(count[pairs])
        if pair.numel() == 0:
            continue
        before = (count[pairs].cumsum(0) - count[pairs]).repeat_interleave(count[pairs])
        yield pair, first[pair] + torch.arange(pair.shape[0], device=flat.device) - before


def scores_of(layout: Layout, queries: Sequence[MatrixQuery], row: Tensor, moment: Tensor) -> Tensor:
    """The score of each pair (cue ``row``, ``moment``), all ``(n,)``."""
    total = queries[0].cue.new_zeros(moment.shape[0])
    for query in queries:
        part = layout.parts[query.key][moment]
        scores = _inner(query, row, part.clamp(min=0))
        total += torch.where(part >= 0, scores, query.absent[row])
    return total


def _inner(query: MatrixQuery, row: Tensor, part: Tensor) -> Tensor:
    """Inner products of pairs (cue, part); consecutive pairs of one cue are one batched product."""
    cues, run, count = torch.unique_consecutive(row, return_inverse=True, return_counts=True)
    width = int(count.max()) if len(count) else 0
    if len(cues) * width > 2 * len(row):
        return (query.codes[part] * query.cue[row]).sum(dim=-1)
    column = torch.arange(len(row), device=row.device) - (count.cumsum(0) - count)[run]
    padded = part.new_zeros(len(cues), width)
    padded[run, column] = part
    codes = query.codes[padded.reshape(-1)].reshape(len(cues), width, -1)
    return torch.bmm(codes, query.cue[cues][:, :, None])[run, column, 0]


def best_of(values: Tensor, group: Tensor, groups: int) -> Tensor:
    """The maximum of each group, ``(groups,)``."""
    return values.new_full((groups,), -torch.inf).scatter_reduce_(0, group, values, "amax")


def slot_scores(layout: Layout, queries: Sequence[MatrixQuery], row: Tensor, slot: Tensor) -> Tensor:
    """The score of each pair (cue ``row``, ``slot``), all ``(n,)``: the best of the slot's moments."""
    out = queries[0].cue.new_full(slot.shape, -torch.inf)
    for pair, moment in moments_of(layout, slot):
        scores = scores_of(layout, queries, row[pair], moment)
        out = torch.maximum(out, best_of(scores, pair, slot.shape[0]))
    return out
