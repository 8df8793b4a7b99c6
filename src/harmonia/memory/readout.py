"""From a distribution over slots back to codes: the gradient of the slot term.

A slot with several moments passes its probability to the best of them; equally good ones (five
captions when only the photo was given) share it, which is a subgradient of the maximum.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from harmonia.memory.layout import Layout
from harmonia.memory.scan import Query, scan_blocks

# Moments gathered at once.
CHUNK = 32_768
# Scores closer than this are the same moment seen twice, up to rounding.
TIE = 1e-6


@dataclass(frozen=True, slots=True, eq=False)
class Readout:
    """``codes[key]`` (Q, d): sum of p * part (not normalised). ``moment`` (Q, k): each slot's best one."""

    codes: dict[str, Tensor]
    moment: Tensor


def read_top(
    layout: Layout,
    matrices: Mapping[str, Tensor],
    queries: Sequence[Query],
    slots: Tensor,
    p: Tensor,
) -> Readout:
    """Readout of all ``matrices`` from the kept slots ``(Q, k)`` with probabilities ``p`` (Q, k)."""
    rows, k = slots.shape
    out = {key: p.new_zeros(rows, codes.shape[1]) for key, codes in matrices.items()}
    best = torch.full((rows * k,), -1, dtype=torch.long)
    for pair, moment in _moments_of(layout, slots):
        scores = _scores_of(layout, queries, pair // k, moment)
        pairs, group = torch.unique_consecutive(pair, return_inverse=True)
        top = scores.new_full((pairs.shape[0],), -torch.inf)
        top.scatter_reduce_(0, group, scores, "amax")
        tied = scores >= top[group] - TIE * (1 + top[group].abs())
        count = scores.new_zeros(pairs.shape[0]).index_add_(0, group, tied.to(scores.dtype))
        first = torch.full_like(pairs, layout.slot.shape[0])
        first.scatter_reduce_(0, group[tied], moment[tied], "amin")
        best[pairs] = first
        weight = (p.reshape(-1)[pair] * tied / count[group])[:, None]
        for key, codes in matrices.items():
            part = layout.parts[key][moment]
            has = part >= 0
            out[key].index_add_(0, (pair // k)[has], codes[part[has]] * weight[has])
    return Readout(out, best.reshape(rows, k))


def read_all(
    layout: Layout,
    matrices: Mapping[str, Tensor],
    queries: Sequence[Query],
    beta: Tensor,
    logsumexp: Tensor,
    mask: Tensor | None,
) -> dict[str, Tensor]:
    """Softmax readout of all ``matrices`` from every slot, with no truncation: a second pass."""
    rows = queries[0].cue.shape[0]
    out = {key: queries[0].cue.new_zeros(rows, codes.shape[1]) for key, codes in matrices.items()}
    for block in scan_blocks(layout, queries, mask):
        p = torch.exp(block.scores * beta[:, None] - logsumexp[:, None])
        if block.group is not None:
            tied = block.moment_scores >= (block.scores - TIE * (1 + block.scores.abs()))[:, block.group]
            count = torch.zeros_like(p).index_add_(1, block.group, tied.to(p.dtype))
            p = (p / count.clamp(min=1))[:, block.group] * tied
        for key, codes in matrices.items():
            part = layout.parts[key][block.first : block.last]
            has = part >= 0
            out[key] += p[:, has] @ codes[part[has]]
    return out


def part_scores(layout: Layout, query: Query, moment: Tensor) -> tuple[Tensor, Tensor]:
    """The part (Q, k) that each moment (Q, k) has for a query (-1: none), and its score (Q, k)."""
    part = torch.where(moment >= 0, layout.parts[query.key][moment.clamp(min=0)], -1)
    scores = (query.codes[part.clamp(min=0)] @ query.cue[:, :, None])[..., 0]
    return part, torch.where(part >= 0, scores, query.absent[:, None])


def _moments_of(layout: Layout, slots: Tensor) -> Iterator[tuple[Tensor, Tensor]]:
    """Pairs (position in the flattened slots, moment), a slot's moments together, in chunks."""
    flat = slots.reshape(-1).contiguous()
    first = torch.searchsorted(layout.slot, flat)
    count = torch.searchsorted(layout.slot, flat, right=True) - first
    count = count.masked_fill(flat < 0, 0)
    chunk = torch.div(count.cumsum(0), CHUNK, rounding_mode="floor")
    for c in range(int(chunk[-1]) + 1 if chunk.numel() else 0):
        pairs = (chunk == c).nonzero()[:, 0]
        pair = pairs.repeat_interleave(count[pairs])
        if pair.numel() == 0:
            continue
        offset = torch.arange(pair.shape[0]) - (count[pairs].cumsum(0) - count[pairs]).repeat_interleave(
            count[pairs]
        )
        yield pair, first[pair] + offset


def _scores_of(layout: Layout, queries: Sequence[Query], row: Tensor, moment: Tensor) -> Tensor:
    total = queries[0].cue.new_zeros(moment.shape[0])
    for query in queries:
        part = layout.parts[query.key][moment]
        scores = (query.codes[part.clamp(min=0)] * query.cue[row]).sum(dim=-1)
        total += torch.where(part >= 0, scores, query.absent[row])
    return total
