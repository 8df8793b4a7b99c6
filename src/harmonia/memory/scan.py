"""One exact pass over all slots: scores, log-sum-exp and the best k.

Scores are computed in blocks that stay in the cache; nothing of size (cues x slots) is kept, so
memory stays bounded for any number of slots. Where a rough copy of the codes is held, it is scanned
first; whatever its error cannot rule out is scored again in full precision, so the best k are the same.
If the slots behind them are provably without weight, so is the log-sum-exp, and no second pass is made.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from harmonia.memory.matrix import Matrix, Rough
from harmonia.memory.moment_scores import MatrixQuery, slot_scores
from harmonia.memory.record_layout import Layout

# Scores of one block, in bytes: about the share of the cache one core has for itself.
BLOCK_BYTES = 8 << 20
# Shorter blocks would spend their time in calls.
LEAST_BLOCK = 1024
# Moments looked at to guess how high the best k score.
SAMPLE = 4096
# Scores whose maximum is looked at before each of them.
GROUP = 4
# Weight of the slots behind the best k, relative to all, below which the log-sum-exp may leave them out.
NEGLIGIBLE = 1e-7


@dataclass(frozen=True, slots=True, eq=False)
class Scan:
    """``scores`` and ``slots`` (Q, k), best first; ``logsumexp`` (Q,) of beta * score over all slots."""

    scores: Tensor
    slots: Tensor
    logsumexp: Tensor


@dataclass(frozen=True, slots=True, eq=False)
class Block:
    """Moments [first, last): their scores (B, Q), and the maximum per slot (S, Q) of ``slots`` (S,).

    ``group`` (B,) is the slot's row of each moment; None where every slot has one moment.
    """

    first: int
    last: int
    moment_scores: Tensor
    scores: Tensor
    slots: Tensor
    group: Tensor | None


def scan_top(
    view: Layout,
    queries: Sequence[MatrixQuery],
    k: int,
    beta: Tensor,
    mask: Tensor | None = None,
    total: bool = True,
) -> Scan:
    """Scores s = sum over the queries, the maximum over each slot's moments.

    ``beta`` is ``(Q,)``. ``mask`` (slots,) is added to the scores: -inf leaves a slot out. Slots that
    no query can see are left out as well. Fewer than k slots: the rest are -inf with slot -1. Without
    ``total`` the log-sum-exp may be NaN where it would take a pass of its own.
    """
    k = min(k, view.slots)
    least = _guess(view, queries, k, mask)
    if not bool(least.isneginf().any()) and any(_rough(query) for query in queries):
        scores, slots = _rough_top(view, queries, k, mask, least)
        whole = torch.logsumexp(scores * beta[:, None], dim=-1)
        behind = math.log(max(view.slots - k, 1)) + beta * scores[:, -1]
        if k < view.slots and bool((behind > whole + math.log(NEGLIGIBLE)).any()):
            whole = _full_logsumexp(view, queries, beta, mask) if total else whole * math.nan
        return Scan(scores, slots, whole)
    hits = _Hits(len(beta))
    whole = torch.full_like(beta, -torch.inf)
    for block in scan_blocks(view, queries, mask):
        hits.add(block.scores, block.slots, least, k)
        whole = torch.logaddexp(whole, _logsumexp(block.scores, beta))
    scores, slots = hits.ranked(k)
    if bool((scores[:, -1] < least).any()):
        # The guess was too high for some cue: now the k-th best of a first look is a sure lower bound.
        scores, slots = _again(view, queries, k, mask)
    return Scan(scores, slots, whole)


def _full_logsumexp(
    view: Layout, queries: Sequence[MatrixQuery], beta: Tensor, mask: Tensor | None
) -> Tensor:
    total = torch.full_like(beta, -torch.inf)
    for block in scan_blocks(view, queries, mask):
        total = torch.logaddexp(total, _logsumexp(block.scores, beta))
    return total


def _again(
    view: Layout, queries: Sequence[MatrixQuery], k: int, mask: Tensor | None
) -> tuple[Tensor, Tensor]:
    """The best k with no guess: the best of each block, merged."""
    hits = _Hits(len(queries[0].cue))
    lowest = torch.full_like(queries[0].cue[:, 0], -torch.inf)
    for block in scan_blocks(view, queries, mask):
        hits.add(block.scores, block.slots, lowest, k)
    return hits.ranked(k)


def _rough_top(
    view: Layout, queries: Sequence[MatrixQuery], k: int, mask: Tensor | None, least: Tensor
) -> tuple[Tensor, Tensor]:
    """The exact best k ``(Q, k)``: all that a rough score cannot rule out, scored again."""
    margin, rounding = _doubt(queries)
    for _ in range(3):
        hits = _Hits(len(least))
        for block in scan_blocks(view, queries, mask, rough=True):
            hits.add(block.scores, block.slots, least)
        rough, slots = hits.padded(k)
        kth = rough.topk(k, dim=-1, sorted=False).values.amin(dim=-1)
        # All that may be among the best k; below it a rough score is too low even with its error.
        needed = kth - margin - 3.0 * rounding * (kth.abs() + margin)
        if bool((needed >= least).all()):
            break
        least = torch.where(needed >= least, least, needed)
    else:
        return _again(view, queries, k, mask)
    row, column = (rough >= needed[:, None]).nonzero(as_tuple=True)
    slot = slots[row, column]
    scores = slot_scores(view, queries, row, slot)
    exact = torch.full_like(rough, -torch.inf)
    exact[row, column] = scores if mask is None else scores + mask[slot]
    return _best(exact, slots, k)


def _guess(view: Layout, queries: Sequence[MatrixQuery], k: int, mask: Tensor | None) -> Tensor:
    """A score (Q,) that some more than k slots should pass, from an even sample; -inf if there are few."""
    cue, moments = queries[0].cue, view.slot.shape[0]
    lowest = torch.full_like(cue[:, 0], -torch.inf)
    if moments < 4 * SAMPLE or (len(cue) == 1 and not any(_rough(query) for query in queries)):
        return lowest
    stride = moments // SAMPLE
    total = torch.zeros_like(cue[:0])
    for query in queries:
        part = view.parts[query.key][::stride]
        part, codes = part.clamp(min=0), query.codes
        near = codes.glance(part) if isinstance(codes, Matrix) else codes[part]
        scores = torch.where(
            (view.parts[query.key][::stride] >= 0)[:, None], near @ query.cue.T, query.absent
        )
        total = scores if not len(total) else total + scores
    if mask is not None:
        total = total + mask[view.slot[::stride], None]
    expected = k / stride
    rank = math.ceil(expected + 5 * math.sqrt(expected) + 5)
    return total.T.contiguous().topk(rank).values[:, -1] if rank < len(total) else lowest


class _Hits:
    """Pairs (cue, slot) with their scores, gathered block by block."""

    def __init__(self, rows: int) -> None:
        self.rows = rows
        self.parts: list[tuple[Tensor, Tensor, Tensor]] = []

    def add(self, scores: Tensor, slots: Tensor, least: Tensor, best: int | None = None) -> None:
        """Of scores ``(S, Q)`` those of at least ``least`` (Q,), or the ``best`` of each cue.

        ``best`` is used where there is no lower bound to go by.
        """
        if best is not None and bool(least.isneginf().any()):
            top, at = scores.T.topk(min(best, len(scores)), dim=-1)
            row = torch.arange(self.rows, device=at.device)[:, None].expand_as(at)
            self.extend(row.reshape(-1), slots[at.reshape(-1)], top.reshape(-1))
            return
        # Never -inf, so that a slot left out does not pass.
        floor = least.clamp(min=torch.finfo(torch.bfloat16).min / 2).to(scores.dtype)
        # The maxima of groups first: few groups pass, and the others are not looked at again.
        whole = len(scores) - len(scores) % GROUP if self.rows >= GROUP else 0
        group, row = (scores[:whole].view(-1, GROUP, self.rows).amax(dim=1) >= floor).nonzero(as_tuple=True)
        at = (group[:, None] * GROUP + torch.arange(GROUP, device=group.device)).reshape(-1)
        row = row.repeat_interleave(GROUP)
        rest, rest_row = (scores[whole:] >= floor).nonzero(as_tuple=True)
        at, row = torch.cat([at, rest + whole]), torch.cat([row, rest_row])
        score = scores.reshape(-1)[at * self.rows + row]
        keep = score >= floor[row]
        self.extend(row[keep], slots[at[keep]], score[keep].to(least.dtype))

    def extend(self, row: Tensor, slot: Tensor, score: Tensor) -> None:
        """Pairs that are known."""
        self.parts.append((row, slot, score))

    def ranked(self, k: int) -> tuple[Tensor, Tensor]:
        """Scores and slots ``(Q, k)``, best first; -inf and -1 where there are fewer."""
        return _best(*self.padded(k), k)

    def padded(self, least: int) -> tuple[Tensor, Tensor]:
        """Scores and slots ``(Q, W)``, W at least ``least``, by slot; -inf and -1 behind."""
        row, slot, score = self._all()
        count = torch.bincount(row, minlength=self.rows)
        order = row.argsort(stable=True)
        row = row[order]
        column = torch.arange(len(row), device=row.device) - (count.cumsum(0) - count)[row]
        width = max(least, int(count.max()) if len(row) else 0)
        scores = score.new_full((self.rows, width), -torch.inf)
        slots = torch.full((self.rows, width), -1, dtype=torch.long, device=row.device)
        scores[row, column], slots[row, column] = score[order], slot[order]
        return scores, slots

    def _all(self) -> tuple[Tensor, Tensor, Tensor]:
        if len(self.parts) > 1:
            row, slot, score = zip(*self.parts, strict=True)
            self.parts = [(torch.cat(row), torch.cat(slot), torch.cat(score))]
        return self.parts[0]


def _best(scores: Tensor, slots: Tensor, k: int) -> tuple[Tensor, Tensor]:
    best, pick = scores.topk(k, dim=-1)
    return best, slots.gather(-1, pick).masked_fill(best.isneginf(), -1)


def scan_blocks(
    view: Layout, queries: Sequence[MatrixQuery], mask: Tensor | None = None, rough: bool = False
) -> Iterator[Block]:
    """The scores of all moments, block by block; the moments of one slot stay in one block."""
    rows, itemsize = queries[0].cue.shape[0], queries[0].cue.dtype.itemsize
    sides = [_Side(query, _rough(query) if rough else None) for query in queries]
    for first, last in _cuts(view, rows * itemsize):
        scores = _sum_scores(view, sides, first, last)
        slots = view.slot[first:last]
        if view.single:
            if mask is not None:
                scores = scores + mask[slots, None]
            yield Block(first, last, scores, scores, slots, None)
        else:
            kept, group = torch.unique_consecutive(slots, return_inverse=True)
            top = scores.new_full((len(kept), rows), -torch.inf)
            top.scatter_reduce_(0, group[:, None].expand_as(scores), scores, "amax")
            if mask is not None:
                top, scores = top + mask[kept, None], scores + mask[slots, None]
            yield Block(first, last, scores, top, kept, group)


class _Side:
    """One query's products with a run of its matrix, rough or in full precision."""

    def __init__(self, query: MatrixQuery, rough: Rough | None) -> None:
        self.query, self.rough = query, rough
        if rough is not None:
            self.cue, self.scale, _ = rough.cue(query.cue)

    def products(self, first: int, last: int) -> Tensor:
        """Inner products ``(B, Q)``."""
        if self.rough is not None:
            return self.rough.products(self.cue, self.scale, first, last)
        cue = self.query.cue
        # A second column spares one cue the matrix-vector kernel, which uses one thread only.
        columns = cue if len(cue) > 1 else cue.repeat(2, 1)
        return (self.query.codes[first:last] @ columns.T)[:, : len(cue)]


def _rough(query: MatrixQuery) -> Rough | None:
    return query.codes.rough(len(query.cue)) if isinstance(query.codes, Matrix) else None


def _doubt(queries: Sequence[MatrixQuery]) -> tuple[Tensor, float]:
    """By how much (Q,) rough scores may put two slots in the wrong order, and the rounding after that."""
    total, rounding = torch.zeros_like(queries[0].cue[:, 0]), 0.0
    for query in queries:
        rough = _rough(query)
        if rough is None:
            continue
        total += 2.0 * rough.cue(query.cue)[2]
        if len(queries) == 1:
            rounding = rough.rounding
        else:
            total += 2.0 * rough.rounding * rough.length * query.cue.norm(dim=-1)
    return total, rounding


def _sum_scores(view: Layout, sides: Sequence[_Side], first: int, last: int) -> Tensor:
    total: Tensor | None = None
    for side in sides:
        if side.query.key in view.in_order:
            scores = side.products(first, last)
        else:
            scores = _gathered(side, view.parts[side.query.key][first:last])
        total = scores if total is None else total.to(side.query.cue.dtype) + scores
    assert total is not None, "a scan needs at least one query"
    return total


def _gathered(side: _Side, parts: Tensor) -> Tensor:
    present, absent = (parts >= 0)[:, None], side.query.absent
    if not bool(present.any()):
        return absent.expand(len(parts), -1).clone()
    low, high = int(parts[parts >= 0].min()), int(parts.max()) + 1
    if high - low <= 2 * len(parts):
        # Parts are sorted by record, so a block's parts are nearly one run of the matrix.
        scores = side.products(low, high)[(parts - low).clamp(min=0)]
    else:
        scores = side.query.codes[parts.clamp(min=0)] @ side.query.cue.T
    return torch.where(present, scores.to(absent.dtype), absent)


def _cuts(view: Layout, bytes_per_moment: int) -> list[tuple[int, int]]:
    slot, moments = view.slot, view.slot.shape[0]
    cuts = list(range(0, moments, max(LEAST_BLOCK, BLOCK_BYTES // bytes_per_moment)))
    if not view.single:
        cuts = sorted({int(torch.searchsorted(slot, slot[cut])) for cut in cuts})
    return list(zip(cuts, [*cuts[1:], moments], strict=True))


def _logsumexp(scores: Tensor, beta: Tensor) -> Tensor:
    """log sum exp(beta * score) ``(Q,)`` of ``(S, Q)``."""
    shift = (scores.amax(dim=0) * beta).nan_to_num(neginf=0.0)
    # exp(-80) of the best is nothing in any precision; denormal numbers would take ten times as long.
    return (scores * beta).sub_(shift).clamp_(min=-80.0).exp_().sum(dim=0).log() + shift
