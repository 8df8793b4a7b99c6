"""Moments: which belong to a slot, the score of each, and the readout of their codes.

The readout is the mean of the stored codes under the distribution over slots, the gradient of the slot term.
A slot with several moments passes its probability to the best of them; equally good ones (five captions
when only the photo was given) share it, which is a subgradient of the maximum.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from harmonia.memory.matrix import Matrix
from harmonia.memory.record_layout import Layout

if TYPE_CHECKING:
    from harmonia.memory.scan import Block

# Scores that differ by less, relatively, count as equal: they differ by rounding.
TIE = 1e-6
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


@dataclass(frozen=True, slots=True, eq=False)
class Readout:
    """``codes[key]`` (Q, d): sum of p * part (not normalised). ``moment`` (Q, k): each slot's best one."""

    codes: dict[str, Tensor]
    moment: Tensor


def read_top(
    layout: Layout,
    matrices: Mapping[str, Matrix | Tensor],
    queries: Sequence[MatrixQuery],
    slots: Tensor,
    p: Tensor,
) -> Readout:
    """Readout of all ``matrices`` from the kept slots ``(Q, k)`` with probabilities ``p`` (Q, k)."""
    rows, k = slots.shape
    out = {key: p.new_zeros(rows, codes.shape[1]) for key, codes in matrices.items()}
    best = torch.full((rows * k,), -1, dtype=torch.long, device=p.device)
    for pair, moment in moments_of(layout, slots):
        if layout.single:
            best[pair] = moment
            _add(out, layout, matrices, pair // k, moment, p.reshape(-1)[pair])
            continue
        scores = scores_of(layout, queries, pair // k, moment)
        pairs, group = torch.unique_consecutive(pair, return_inverse=True)
        top = best_of(scores, group, len(pairs))
        tied = scores >= top[group] - TIE * (1 + top[group].abs())
        count = scores.new_zeros(pairs.shape[0]).index_add_(0, group, tied.to(scores.dtype))
        first = torch.full_like(pairs, layout.slot.shape[0])
        first.scatter_reduce_(0, group[tied], moment[tied], "amin")
        best[pairs] = first
        _add(out, layout, matrices, pair // k, moment, p.reshape(-1)[pair] * tied / count[group])
    return Readout(out, best.reshape(rows, k))


def _add(
    out: dict[str, Tensor],
    layout: Layout,
    matrices: Mapping[str, Matrix | Tensor],
    row: Tensor,
    moment: Tensor,
    weight: Tensor,
) -> None:
    """Add weight * part to the rows, without reading moments of negligible weight."""
    # Smaller weights vanish in rounding.
    some = weight > 1e-3 * torch.finfo(weight.dtype).eps
    row, moment, weight = row[some], moment[some], weight[some]
    for key, codes in matrices.items():
        part = layout.parts[key][moment]
        has = part >= 0
        out[key].index_add_(0, row[has], codes[part[has]] * weight[has, None])


def read_all(
    blocks: Iterable[Block],
    layout: Layout,
    matrices: Mapping[str, Matrix | Tensor],
    queries: Sequence[MatrixQuery],
    beta: Tensor,
    shift: Tensor,
) -> tuple[dict[str, Tensor], Tensor]:
    """The sums over every slot of e^{beta s - shift} code, of all ``matrices``, and of the weights (Q,).

    ``blocks`` are those of a scan of the queries. With the log-sum-exp as ``shift`` it is the softmax
    readout, with no truncation.
    """
    rows = queries[0].cue.shape[0]
    out = {key: queries[0].cue.new_zeros(rows, codes.shape[1]) for key, codes in matrices.items()}
    total = torch.zeros_like(beta)
    for block in blocks:
        p = (block.scores * beta).sub_(shift).clamp_(min=-80.0).exp_()
        total += p.sum(dim=0)
        if block.group is not None:
            tied = block.moment_scores >= (block.scores - TIE * (1 + block.scores.abs()))[block.group]
            count = torch.zeros_like(p).index_add_(0, block.group, tied.to(p.dtype))
            p = (p / count.clamp(min=1))[block.group] * tied
        for key, codes in matrices.items():
            part = layout.parts[key][block.first : block.last]
            has = part >= 0
            every = key in layout.in_order
            rows_of = slice(block.first, block.last) if every else part[has]
            out[key] += (p if every else p[has]).T @ codes[rows_of]
    return out, total


def part_scores(layout: Layout, query: MatrixQuery, moment: Tensor) -> tuple[Tensor, Tensor]:
    """The part (Q, k) that each moment (Q, k) has for a query (-1: none), and its score (Q, k)."""
    part = torch.where(moment >= 0, layout.parts[query.key][moment.clamp(min=0)], -1)
    codes = query.codes[part.clamp(min=0).reshape(-1)].reshape(*part.shape, -1)
    scores = torch.bmm(codes, query.cue[:, :, None])[..., 0]
    return part, torch.where(part >= 0, scores, query.absent[:, None])
