"""Expected values of ranking metrics under random order of ties.

McSherry and Najork 2008. All that is needed of a ranking is, for each positive, how many items score above it
and how many tie with it, and the same among the positives.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from harmonia.types import HarmoniaError


@dataclass(frozen=True, slots=True, eq=False)
class Places:
    """Where the positives of b queries stand, (b, P) integers, from the lowest to the highest score.

    ``above``: items with a higher score. ``tied``: items with that score, itself included.
    ``positives_above`` and ``positives_tied``: the same, among the query's positives. ``count`` (b,): its
    positives; the columns from there on are filling.
    """

    above: Tensor
    tied: Tensor
    positives_above: Tensor
    positives_tied: Tensor
    count: Tensor

    @property
    def real(self) -> Tensor:
        """Which columns are positives, bool (b, P)."""
        return torch.arange(self.above.shape[1], device=self.count.device) < self.count[:, None]


def places(scores: Tensor, relevant: Tensor) -> Places:
    """Where the positives stand: scores (b, N), relevant bool (b, N); O(N log P) for each query."""
    scores = scores.float() if scores.dtype in (torch.float16, torch.bfloat16) else scores
    if bool(scores.isnan().any()) or bool((scores == torch.inf).any()):
        raise HarmoniaError("scores must be numbers, or minus infinity for an item that is barred")
    count = relevant.sum(dim=1)
    width = int(count.max()) if len(count) else 0
    rows, columns = relevant.nonzero(as_tuple=True)
    slot = torch.arange(len(rows), device=rows.device) - (count.cumsum(0) - count)[rows]
    value = scores.new_full((len(scores), width), torch.inf)
    value[rows, slot] = scores[rows, columns]
    value = value.sort(dim=1).values
    above, reached = (_exceeding(value, scores, equal) for equal in (False, True))
    above_own, reached_own = (
        count[:, None] - torch.searchsorted(value, value, right=right) for right in (True, False)
    )
    return Places(above, reached - above, above_own, reached_own - above_own, count)


def query_values_of_block(places: Places, items: int, ks: Sequence[int]) -> dict[str, Tensor]:
    """The figures of each query, float64 (b,) on the CPU, NaN where it has no positives."""
    real, count = places.real, places.count
    weight = real / places.tied.clamp(min=1).double()
    number = torch.arange(1, items + 1, device=count.device, dtype=torch.float64)
    harmonic, discount = _running(1.0 / number), _running(1.0 / torch.log2(1.0 + number))
    first = _First(places)
    out: dict[str, Tensor] = {}
    for k in ks:
        found = (_within(places, k) * weight).sum(dim=1)
        out[f"recall@{k}"] = first.hit(k)
        out[f"set_recall@{k}"] = found / count
        out[f"precision@{k}"] = found / k
        out[f"ndcg@{k}"] = _ndcg(places, weight, discount, k)
    out["ndcg"] = _ndcg(places, weight, discount, items)
    out["map"] = _average_precision(places, weight, harmonic, places.tied)
    out["map@r"] = _average_precision(places, weight, harmonic, _within(places, count[:, None]))
    out["mrr"] = first.reciprocal_rank()
    out["rank"] = first.rank()
    return {name: value.masked_fill(count == 0, torch.nan).cpu() for name, value in out.items()}


class _First:
    """The first positive: of the best group of tied scores that holds one, where all above are negatives."""

    def __init__(self, places: Places) -> None:
        best = (places.count - 1).clamp(min=0)[:, None]
        if not places.above.shape[1]:  # no query of the block has a positive
            self.above = self.tied = self.positives = torch.ones_like(places.count)
            return
        self.above = places.above.gather(1, best)[:, 0]
        self.tied = places.tied.gather(1, best)[:, 0]
        self.positives = places.positives_tied.gather(1, best)[:, 0]

    def rank(self) -> Tensor:
        """The expected smallest of p places drawn from t is (t + 1) / (p + 1)."""
        return self.above + (self.tied + 1).double() / (self.positives + 1)

    def hit(self, k: int) -> Tensor:
        """1 less the probability that the m places of the group which lie within k hold no positive."""
        m = (k - self.above).clamp(min=0).minimum(self.tied)
        drawn = torch.arange(k, device=m.device)
        miss = _missing(self.tied[:, None], self.positives[:, None], drawn)
        return 1.0 - torch.where(drawn < m[:, None], miss, 1.0).prod(dim=1)

    def reciprocal_rank(self) -> Tensor:
        """Sum over r of P(the first of p positives among t is at r) / (above + r)."""
        out = 1.0 / (self.above + 1).double()
        mixed = self.tied > self.positives
        groups = torch.stack([self.above, self.tied, self.positives], dim=1)[mixed]
        distinct, which = torch.unique(groups, dim=0, return_inverse=True)
        means = out.new_empty(len(distinct))
        for i, (above, tied, positives) in enumerate(distinct.tolist()):
            r = torch.arange(tied - positives + 1, device=out.device)
            later = _missing(torch.tensor(tied, device=out.device), positives, r).cumprod(dim=0)
            here = torch.cat([later.new_ones(1), later[:-1]]) - later
            means[i] = (here / (above + 1 + r)).sum()
        out[mixed] = means[which]
        return out


def _missing(tied: Tensor, positives: Tensor | int, drawn: Tensor) -> Tensor:
    """The probability that the next of ``tied`` is no positive, after ``drawn`` that were none."""
    return (tied - positives - drawn).clamp(min=0).double() / (tied - drawn).clamp(min=1)


def _within(places: Places, k: Tensor | int) -> Tensor:
    """How many places of each positive's group of ties lie within the k best, (b, P)."""
    return (k - places.above).clamp(min=0).minimum(places.tied)


def _ndcg(places: Places, weight: Tensor, discount: Tensor, k: int) -> Tensor:
    """Every positive has the mean discount of its group's places; ``discount`` is its running sum."""
    k = min(k, len(discount) - 1)
    low = places.above.clamp(max=k)
    gain = (discount[low + _within(places, k)] - discount[low]) * weight
    return gain.sum(dim=1) / discount[places.count.clamp(min=1, max=k)]


def _average_precision(places: Places, weight: Tensor, harmonic: Tensor, m: Tensor) -> Tensor:
    """Sum of the precisions at the positives on the first m places of their groups, over all positives.

    A positive at place r of t, of which p are positives, has a + 1 + (r - 1)(p - 1)/(t - 1) positives up to
    its own on average, at rank g + r; its place is any of the t alike. ``harmonic`` is the running sum of
    1/n.
    """
    g, a = places.above, places.positives_above
    inverse = harmonic[g + m] - harmonic[g]
    others = (places.positives_tied - 1).double() / (places.tied - 1).clamp(min=1)
    total = (a + 1) * inverse + others * (m - (g + 1) * inverse)
    return (total * weight).sum(dim=1) / places.count.clamp(min=1)


def _running(terms: Tensor) -> Tensor:
    """0 and the running sums, (n + 1,)."""
    return torch.cat([terms.new_zeros(1), terms.cumsum(0)])


def _exceeding(value: Tensor, scores: Tensor, equal: bool) -> Tensor:
    """How many scores (b, N) exceed, or ``equal``, each of the sorted values (b, P)."""
    if not value.shape[1]:
        return value.long()
    bins = value.shape[1] + 1
    below = torch.searchsorted(value, scores.contiguous(), right=equal)
    below += bins * torch.arange(len(scores), device=scores.device)[:, None]
    counts = torch.bincount(below.flatten(), minlength=bins * len(scores)).view(-1, bins)
    return counts.flip(1).cumsum(dim=1).flip(1)[:, 1:]
