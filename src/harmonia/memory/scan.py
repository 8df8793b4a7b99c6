"""One exact pass over all slots: scores, log-sum-exp and the best k.

Scores are computed in blocks that stay in the cache; nothing of size (cues x slots) is kept, so
memory stays bounded for any number of slots.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from harmonia.memory.layout import Layout

# Scores of one block, in bytes: about the share of the cache one core has for itself.
BLOCK_BYTES = 4 << 20
# Shorter blocks would spend their time in calls.
LEAST_BLOCK = 1024


@dataclass(frozen=True, slots=True, eq=False)
class Query:
    """Weighted cues against one matrix: ``codes`` (P, d), ``cue`` (Q, d) already times its weight.

    ``absent`` (Q,) is the score of a moment that has no part in this matrix.
    """

    key: str
    codes: Tensor
    cue: Tensor
    absent: Tensor


@dataclass(frozen=True, slots=True, eq=False)
class Scan:
    """``scores`` and ``slots`` (Q, k), best first; ``logsumexp`` (Q,) of beta * score over all slots."""

    scores: Tensor
    slots: Tensor
    logsumexp: Tensor


@dataclass(frozen=True, slots=True, eq=False)
class Block:
    """Moments [first, last): their scores (Q, B), and the maximum per slot (Q, S) of ``slots`` (S,).

    ``group`` (B,) is the slot's column of each moment; None where every slot has one moment.
    """

    first: int
    last: int
    moment_scores: Tensor
    scores: Tensor
    slots: Tensor
    group: Tensor | None


def scan_top(
    view: Layout, queries: Sequence[Query], k: int, beta: Tensor, mask: Tensor | None = None
) -> Scan:
    """Scores s = sum over the queries, the maximum over each slot's moments.

    ``beta`` is ``(Q,)``. ``mask`` (slots,) is added to the scores: -inf leaves a slot out. Slots that
    no query can see are left out as well. Fewer than k slots: the rest are -inf with slot -1.
    """
    cue = queries[0].cue
    best = cue.new_full((cue.shape[0], min(k, view.slots)), -torch.inf)
    where = torch.full(best.shape, -1, dtype=torch.long)
    total = cue.new_full((cue.shape[0],), -torch.inf)
    for block in scan_blocks(view, queries, mask):
        best, where = _merge(best, where, block.scores, block.slots)
        total = torch.logaddexp(total, _logsumexp(block.scores, beta, best[:, 0]))
    return Scan(best, where.masked_fill(best.isneginf(), -1), total)


def scan_blocks(view: Layout, queries: Sequence[Query], mask: Tensor | None = None) -> Iterator[Block]:
    """The scores of all moments, block by block; the moments of one slot stay in one block."""
    rows, itemsize = queries[0].cue.shape[0], queries[0].cue.dtype.itemsize
    for first, last in _cuts(view, rows * itemsize):
        scores = _sum_scores(view, queries, first, last)
        slots = view.slot[first:last]
        if view.single:
            if mask is not None:
                scores = scores + mask[slots]
            yield Block(first, last, scores, scores, slots, None)
        else:
            kept, group = torch.unique_consecutive(slots, return_inverse=True)
            top = scores.new_full((rows, kept.shape[0]), -torch.inf)
            top.scatter_reduce_(1, group.expand_as(scores), scores, "amax")
            if mask is not None:
                top, scores = top + mask[kept], scores + mask[slots]
            yield Block(first, last, scores, top, kept, group)


def _sum_scores(view: Layout, queries: Sequence[Query], first: int, last: int) -> Tensor:
    total: Tensor | None = None
    for query in queries:
        if query.key in view.in_order:
            scores = _products(query.cue, query.codes[first:last])
        else:
            scores = _gathered(query, view.parts[query.key][first:last])
        total = scores if total is None else total.add_(scores)
    assert total is not None, "a scan needs at least one query"
    return total


def _products(cue: Tensor, codes: Tensor) -> Tensor:
    """Inner products ``(Q, B)``, in the order of operands that the matrix kernels are fast at.

    Codes first is 1.5 times as fast for 64 cues; a second column spares one cue the matrix-vector kernel,
    which uses one thread only (measured on x86 with MKL).
    """
    columns = cue if cue.shape[0] > 1 else cue.repeat(2, 1)
    return (codes @ columns.T)[:, : cue.shape[0]].T.contiguous()


def _gathered(query: Query, parts: Tensor) -> Tensor:
    present = parts >= 0
    if not bool(present.any()):
        return query.absent[:, None].expand(-1, parts.shape[0]).clone()
    low, high = int(parts[present].min()), int(parts.max()) + 1
    if high - low <= 2 * parts.shape[0]:
        # Parts are sorted by record, so a block's parts are nearly one run of the matrix.
        scores = _products(query.cue, query.codes[low:high])[:, (parts - low).clamp(min=0)]
    else:
        scores = query.cue @ query.codes[parts.clamp(min=0)].T
    return torch.where(present, scores, query.absent[:, None])


def _cuts(view: Layout, bytes_per_moment: int) -> list[tuple[int, int]]:
    slot, moments = view.slot, view.slot.shape[0]
    cuts = list(range(0, moments, max(LEAST_BLOCK, BLOCK_BYTES // bytes_per_moment)))
    if not view.single:
        cuts = sorted({int(torch.searchsorted(slot, slot[cut])) for cut in cuts})
    return list(zip(cuts, [*cuts[1:], moments], strict=True))


def _logsumexp(scores: Tensor, beta: Tensor, top: Tensor) -> Tensor:
    """log sum exp(beta * score), overwriting the scores; ``top`` is at least their maximum."""
    shift = (top * beta).nan_to_num(neginf=0.0)
    # exp(-80) of the best is nothing in any precision; denormal numbers would take ten times as long.
    scores.mul_(beta[:, None]).sub_(shift[:, None]).clamp_(min=-80.0)
    return scores.exp_().sum(dim=-1).log() + shift


def _merge(best: Tensor, where: Tensor, scores: Tensor, slots: Tensor) -> tuple[Tensor, Tensor]:
    k = best.shape[1]
    if scores.shape[1] > k:
        scores, column = scores.topk(k, dim=-1)
        slots = slots[column]
    else:
        slots = slots.expand_as(scores)
    scores, pick = torch.cat([best, scores], dim=-1).topk(k, dim=-1)
    return scores, torch.cat([where, slots], dim=-1).gather(-1, pick)
