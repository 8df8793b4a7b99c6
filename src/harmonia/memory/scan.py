"""The exact blocked scan of all slots: scores, log-sum-exp and the best k.

Scores are computed in blocks that fit in the cache; nothing of size (cues x slots) is kept, so memory is
bounded for any number of slots. Where a quantised copy of the codes exists it is scanned first, and every
slot that its error bound cannot rule out is scored again in full precision, so the best k are the same. If
the other slots provably have negligible weight, the log-sum-exp is that of the best k, without another pass.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from harmonia.memory.matrix import Matrix, QuantisedCopy
from harmonia.memory.moment_scores import MatrixQuery, slot_scores
from harmonia.memory.record_layout import Layout

# Bytes of the scores of one block: about one core's share of the cache.
BLOCK_BYTES = 8 << 20
# Moments in a block at least: shorter blocks are dominated by call overhead.
LEAST_BLOCK = 1024
# Moments sampled to estimate the score of the k-th best slot.
SAMPLE = 4096
# Scores that are compared with the threshold by their maximum first.
GROUP = 4
# Relative weight of the slots outside the best k below which the log-sum-exp may omit them.
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

    ``beta`` is ``(Q,)``. ``mask`` (slots,) or (slots, Q) is added to the scores: -inf excludes a slot. Slots
    without a part in any of the matrices are excluded as well. With fewer than k slots the rest are -inf with
    slot -1.
    Without ``total`` the log-sum-exp may be NaN where it would take a pass of its own.
    """
    k, mask = min(k, view.slots), _by_cue(mask)
    least = _estimated_threshold(view, queries, k, mask)
    if not bool(least.isneginf().any()) and any(_quantised(query) for query in queries):
        scores, slots = _quantised_top(view, queries, k, mask, least)
        whole = torch.logsumexp(scores * beta[:, None], dim=-1)
        behind = math.log(max(view.slots - k, 1)) + beta * scores[:, -1]
        if k < view.slots and bool((behind > whole + math.log(NEGLIGIBLE)).any()):
            whole = _full_logsumexp(view, queries, beta, mask) if total else whole * math.nan
        return Scan(scores, slots, whole)
    found = _Candidates(len(beta))
    whole = torch.full_like(beta, -torch.inf)
    for block in scan_blocks(view, queries, mask):
        found.add(block.scores, block.slots, least, k)
        whole = torch.logaddexp(whole, _logsumexp(block.scores, beta))
    scores, slots = found.ranked(k)
    if bool((scores[:, -1] < least).any()):
        # The estimated threshold was too high for some cue: scan again without one.
        scores, slots = _exhaustive_top(view, queries, k, mask)
    return Scan(scores, slots, whole)


def _full_logsumexp(
    view: Layout, queries: Sequence[MatrixQuery], beta: Tensor, mask: Tensor | None
) -> Tensor:
    total = torch.full_like(beta, -torch.inf)
    for block in scan_blocks(view, queries, mask):
        total = torch.logaddexp(total, _logsumexp(block.scores, beta))
    return total


def _exhaustive_top(
    view: Layout, queries: Sequence[MatrixQuery], k: int, mask: Tensor | None
) -> tuple[Tensor, Tensor]:
    """The best k without a threshold: the best of each block, merged."""
    found = _Candidates(len(queries[0].cue))
    lowest = torch.full_like(queries[0].cue[:, 0], -torch.inf)
    for block in scan_blocks(view, queries, mask):
        found.add(block.scores, block.slots, lowest, k)
    return found.ranked(k)


def _quantised_top(
    view: Layout, queries: Sequence[MatrixQuery], k: int, mask: Tensor | None, least: Tensor
) -> tuple[Tensor, Tensor]:
    """The exact best k ``(Q, k)``: every slot that the quantised scores cannot rule out is scored again."""
    margin, rounding = _error_margin(queries)
    for _ in range(3):
        found = _Candidates(len(least))
        for block in scan_blocks(view, queries, mask, quantised=True):
            found.add(block.scores, block.slots, least)
        quantised, slots = found.padded(k)
        kth = quantised.topk(k, dim=-1, sorted=False).values.amin(dim=-1)
        # A slot below this cannot be among the best k, whatever its quantisation error.
        needed = kth - margin - 3.0 * rounding * (kth.abs() + margin)
        if bool((needed >= least).all()):
            break
        least = torch.where(needed >= least, least, needed)
    else:
        return _exhaustive_top(view, queries, k, mask)
    row, column = (quantised >= needed[:, None]).nonzero(as_tuple=True)
    slot = slots[row, column]
    scores = slot_scores(view, queries, row, slot)
    exact = torch.full_like(quantised, -torch.inf)
    exact[row, column] = scores if mask is None else scores + mask.expand(-1, len(least))[slot, row]
    return _best(exact, slots, k)


def _estimated_threshold(view: Layout, queries: Sequence[MatrixQuery], k: int, mask: Tensor | None) -> Tensor:
    """A score (Q,) that slightly more than k slots should exceed, from an even sample; -inf for few slots."""
    cue, moments = queries[0].cue, view.slot.shape[0]
    lowest = torch.full_like(cue[:, 0], -torch.inf)
    if moments < 4 * SAMPLE or (len(cue) == 1 and not any(_quantised(query) for query in queries)):
        return lowest
    stride = moments // SAMPLE
    total = torch.zeros_like(cue[:0])
    for query in queries:
        part = view.parts[query.key][::stride]
        part, codes = part.clamp(min=0), query.codes
        near = codes.approximate(part) if isinstance(codes, Matrix) else codes[part]
        scores = torch.where(
            (view.parts[query.key][::stride] >= 0)[:, None], near @ query.cue.T, query.absent
        )
        total = scores if not len(total) else total + scores
    if mask is not None:
        total = total + mask[view.slot[::stride]]
    expected = k / stride
    rank = math.ceil(expected + 5 * math.sqrt(expected) + 5)
    return total.T.contiguous().topk(rank).values[:, -1] if rank < len(total) else lowest


class _Candidates:
    """Candidate pairs (cue, slot) with their scores, collected block by block."""

    def __init__(self, rows: int) -> None:
        self.rows = rows
        self.parts: list[tuple[Tensor, Tensor, Tensor]] = []

    def add(self, scores: Tensor, slots: Tensor, least: Tensor, best: int | None = None) -> None:
        """Add those of the scores ``(S, Q)`` that are at least ``least`` (Q,), or the ``best`` of each cue.

        ``best`` is used where ``least`` is -inf.
        """
        if best is not None and bool(least.isneginf().any()):
            top, at = scores.T.topk(min(best, len(scores)), dim=-1)
            row = torch.arange(self.rows, device=at.device)[:, None].expand_as(at)
            self.extend(row.reshape(-1), slots[at.reshape(-1)], top.reshape(-1))
            return
        # Never -inf, so that an excluded slot does not pass.
        floor = least.clamp(min=torch.finfo(torch.bfloat16).min / 2).to(scores.dtype)
        # Compare the maxima of groups first: only the few groups that pass are compared in full.
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
        """Add pairs with known scores."""
        self.parts.append((row, slot, score))

    def ranked(self, k: int) -> tuple[Tensor, Tensor]:
        """Scores and slots ``(Q, k)``, best first; -inf and -1 where there are fewer."""
        return _best(*self.padded(k), k)

    def padded(self, least: int) -> tuple[Tensor, Tensor]:
        """Scores and slots ``(Q, W)``, W at least ``least``, by slot, padded with -inf and -1."""
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
    view: Layout, queries: Sequence[MatrixQuery], mask: Tensor | None = None, quantised: bool = False
) -> Iterator[Block]:
    """The scores of all moments, block by block; the moments of one slot stay in one block."""
    rows, itemsize, mask = queries[0].cue.shape[0], queries[0].cue.dtype.itemsize, _by_cue(mask)
    scans = [_QueryScan(query, _quantised(query) if quantised else None) for query in queries]
    for first, last in _block_ranges(view, rows * itemsize):
        scores = _sum_scores(view, scans, first, last)
        slots = view.slot[first:last]
        if view.single:
            if mask is not None:
                scores = scores + mask[slots]
            yield Block(first, last, scores, scores, slots, None)
        else:
            kept, group = torch.unique_consecutive(slots, return_inverse=True)
            top = scores.new_full((len(kept), rows), -torch.inf)
            top.scatter_reduce_(0, group[:, None].expand_as(scores), scores, "amax")
            if mask is not None:
                top, scores = top + mask[kept], scores + mask[slots]
            yield Block(first, last, scores, top, kept, group)


def _by_cue(mask: Tensor | None) -> Tensor | None:
    """A mask as (slots, 1 or Q)."""
    return mask[:, None] if mask is not None and mask.ndim == 1 else mask


class _QueryScan:
    """One query's products with consecutive rows of its matrix, quantised or in full precision."""

    def __init__(self, query: MatrixQuery, quantised: QuantisedCopy | None) -> None:
        self.query, self.quantised = query, quantised
        if quantised is not None:
            self.cue, self.scale, _ = quantised.cue(query.cue)

    def products(self, first: int, last: int) -> Tensor:
        """Inner products ``(B, Q)``."""
        if self.quantised is not None:
            return self.quantised.products(self.cue, self.scale, first, last)
        cue = self.query.cue
        # A second column avoids the matrix-vector kernel, which uses one thread only.
        columns = cue if len(cue) > 1 else cue.repeat(2, 1)
        return (self.query.codes[first:last] @ columns.T)[:, : len(cue)]


def _quantised(query: MatrixQuery) -> QuantisedCopy | None:
    return query.codes.quantised(len(query.cue)) if isinstance(query.codes, Matrix) else None


def _error_margin(queries: Sequence[MatrixQuery]) -> tuple[Tensor, float]:
    """The score difference (Q,) up to which quantised scores may misorder two slots, and their rounding."""
    total, rounding = torch.zeros_like(queries[0].cue[:, 0]), 0.0
    for query in queries:
        quantised = _quantised(query)
        if quantised is None:
            continue
        total += 2.0 * quantised.cue(query.cue)[2]
        if len(queries) == 1:
            rounding = quantised.rounding
        else:
            total += 2.0 * quantised.rounding * quantised.length * query.cue.norm(dim=-1)
    return total, rounding


def _sum_scores(view: Layout, scans: Sequence[_QueryScan], first: int, last: int) -> Tensor:
    total: Tensor | None = None
    for scan in scans:
        if scan.query.key in view.in_order:
            scores = scan.products(first, last)
        else:
            scores = _gathered_scores(scan, view.parts[scan.query.key][first:last])
        total = scores if total is None else total.to(scan.query.cue.dtype) + scores
    assert total is not None, "a scan needs at least one query"
    return total


def _gathered_scores(scan: _QueryScan, parts: Tensor) -> Tensor:
    present, absent = (parts >= 0)[:, None], scan.query.absent
    if not bool(present.any()):
        return absent.expand(len(parts), -1).clone()
    low, high = int(parts[parts >= 0].min()), int(parts.max()) + 1
    if high - low <= 2 * len(parts):
        # Parts are sorted by record, so a block's parts are nearly one run of the matrix.
        scores = scan.products(low, high)[(parts - low).clamp(min=0)]
    else:
        scores = scan.query.codes[parts.clamp(min=0)] @ scan.query.cue.T
    return torch.where(present, scores.to(absent.dtype), absent)


def _block_ranges(view: Layout, bytes_per_moment: int) -> list[tuple[int, int]]:
    slot, moments = view.slot, view.slot.shape[0]
    cuts = list(range(0, moments, max(LEAST_BLOCK, BLOCK_BYTES // bytes_per_moment)))
    if not view.single:
        cuts = sorted({int(torch.searchsorted(slot, slot[cut])) for cut in cuts})
    return list(zip(cuts, [*cuts[1:], moments], strict=True))


def _logsumexp(scores: Tensor, beta: Tensor) -> Tensor:
    """log sum exp(beta * score) ``(Q,)`` of ``(S, Q)``."""
    shift = (scores.amax(dim=0) * beta).nan_to_num(neginf=0.0)
    # exp(-80) relative to the best is negligible; denormal numbers would take ten times as long.
    return (scores * beta).sub_(shift).clamp_(min=-80.0).exp_().sum(dim=0).log() + shift
