"""The numerics of sparse argmaxes: thresholds, their gradients, and long rows.

Both alpha-entmax and normmax are  p proportional to (z - tau)_+^a  where tau solves  sum (z - tau)_+^e = 1:

* alpha-entmax: z = (alpha - 1) s, e = a = 1/(alpha - 1)   (Peters, Niculae and Martins 2019)
* alpha-normmax: z = s, e = alpha/(alpha - 1), a = 1/(alpha - 1)   (Blondel, Martins and Niculae 2020)

For e = 1 and e = 2 tau is exact, by sorting; else by bisection. tau >= max z - 1, so what lies further
below the maximum has no mass. Long rows are reduced to what can have mass before anything is sorted.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

# Rows longer than this are reduced first.
LONG = 4096
# Entries whose maximum is looked at before each of them, and how many maxima bound the threshold.
GROUP = 32
FEW = 128
# Below this width of the support, exponents are so large that single precision would not do.
STEEP = 16.0


def sparse(scores: Tensor, scale: float, e: float, a: float) -> Tensor:
    """p (..., n), proportional to (z - tau)_+^a with z = scale * scores and sum (z - tau)_+^e = 1.

    Entries of -inf get 0; so does a row without a finite entry.
    """
    rows = scores.reshape(-1, scores.shape[-1])
    found = _reduce(rows, scale, e)
    if found is None:
        return _normalised(power(_solve(scores * scale, e), a))
    row, column, place, width = found
    short = rows.new_full((len(rows), width), -torch.inf)
    short[row, place] = rows[row, column] * scale
    out = torch.zeros_like(rows)
    out[row, column] = _normalised(power(_solve(short, e), a))[row, place]
    return out.reshape(scores.shape)


def _normalised(p: Tensor) -> Tensor:
    return p / p.sum(dim=-1, keepdim=True).clamp(min=1e-30)


def _reduce(scores: Tensor, scale: float, e: float) -> tuple[Tensor, Tensor, Tensor, int] | None:
    """(row, column, place in its row, width) of the entries that can have mass; None if they are many.

    The threshold of some of a row's entries is never above that of all: some of the group maxima give a
    bound below which nothing has mass.
    """
    rows, n = scores.shape
    if n <= LONG:
        return None
    whole = n - n % GROUP
    groups, rest = scores[:, :whole].reshape(rows, -1, GROUP).amax(dim=-1), scores[:, whole:]
    few = min(FEW, groups.shape[1])
    best = groups[:, : groups.shape[1] // few * few].reshape(rows, few, -1).amax(dim=-1) * scale
    # tau of these, on the scale of the scores; inf where a row has no finite entry.
    tau = best.amax(dim=-1) - _solve(best, e).amax(dim=-1)
    floor = (tau / scale).nan_to_num(nan=torch.inf, neginf=torch.inf)[:, None]
    # Rounding may have moved tau up.
    floor = floor - 1e-5 * floor.abs() - 1e-6
    row, group = (groups >= floor).nonzero(as_tuple=True)
    if len(row) * GROUP > n * rows // 8:
        return None
    members = scores[:, :whole].reshape(rows, -1, GROUP)[row, group]
    within, member = (members >= floor[row]).nonzero(as_tuple=True)
    row, column = row[within], group[within] * GROUP + member
    if whole < n:
        rest_row, rest_column = (rest >= floor).nonzero(as_tuple=True)
        row, column = torch.cat([row, rest_row]), torch.cat([column, rest_column + whole])
        order = row.argsort(stable=True)
        row, column = row[order], column[order]
    count = torch.bincount(row, minlength=rows)
    place = torch.arange(len(row), device=scores.device) - (count.cumsum(0) - count)[row]
    return row, column, place, max(1, int(count.max()))


def _solve(z: Tensor, e: float) -> Tensor:
    """(z - tau)_+ for ``z`` (..., n) with tau such that sum (z - tau)_+^e = 1; 0 for entries of -inf."""
    top = z.amax(dim=-1, keepdim=True)
    some = top > -torch.inf
    # What is absent, or lies 2 below the best, can have no mass; a finite number keeps sums finite.
    shifted = (z - torch.where(some, top, 0.0)).clamp(min=-2.0)
    tau = _exact(shifted, e) if e in (1.0, 2.0) else _bisect(shifted, e)
    return torch.where(some, (shifted - tau[..., None]).clamp(min=0.0), 0.0)


def _exact(z: Tensor, e: float) -> Tensor:
    """By sorting; ``z`` has its maximum at 0."""
    ordered = z.sort(dim=-1, descending=True).values
    rank = torch.arange(1, z.shape[-1] + 1, dtype=z.dtype, device=z.device)
    if e == 1.0:
        tau = (ordered.cumsum(dim=-1) - 1.0) / rank
    else:
        mean = ordered.cumsum(dim=-1) / rank
        # sum of (z - mean)^2 over the first entries
        spread = (ordered**2).cumsum(dim=-1) - rank * mean**2
        tau = mean - ((1.0 - spread).clamp(min=0.0) / rank).sqrt()
    support = (tau <= ordered).sum(dim=-1, keepdim=True).clamp(min=1)
    return tau.gather(-1, support - 1)[..., 0]


def _bisect(z: Tensor, e: float) -> Tensor:
    """The mass falls from >= 1 at tau = -1 to 0 at tau = 0; ``z`` has its maximum at 0."""
    wide = z.double() if e > STEEP else z
    low = torch.full(wide.shape[:-1], -1.0, dtype=wide.dtype, device=z.device)
    width = 1.0
    for _ in range(56 if wide.dtype == torch.float64 else 28):
        width *= 0.5
        middle = low + width
        mass = ((wide - middle[..., None]).clamp(min=0.0) ** e).sum(dim=-1)
        low = torch.where(mass >= 1.0, middle, low)
    return low.to(z.dtype)


def power(x: Tensor, exponent: float) -> Tensor:
    """x^exponent where x > 0, else 0: also in the gradient, whatever the exponent."""
    some = x > 0
    return torch.where(some, torch.where(some, x, 1.0) ** exponent, 0.0)


class Entmax(torch.autograd.Function):
    """alpha-entmax over the last axis, differentiated through its support."""

    @staticmethod
    def forward(scores: Tensor, alpha: float) -> Tensor:
        """``p`` (..., n)."""
        a = 1.0 / (alpha - 1.0)
        wide = scores.double() if a > STEEP else scores
        return sparse(wide, alpha - 1.0, a, a).to(scores.dtype)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Tensor, float], output: Tensor) -> None:
        """Keep p."""
        ctx.alpha = inputs[1]
        ctx.save_for_backward(output)

    @staticmethod
    def backward(ctx: Any, *grad: Tensor) -> tuple[Tensor, None]:
        """J = diag(g) - g g^T / sum g with g = p^(2 - alpha) on the support."""
        (p,) = ctx.saved_tensors
        g = power(p, 2.0 - ctx.alpha)
        v = grad[0] * g
        total = g.sum(dim=-1, keepdim=True).clamp(min=1e-30)
        return v - g * (v.sum(dim=-1, keepdim=True) / total), None

    @staticmethod
    def vmap(info: Any, dims: tuple[int | None, None], scores: Tensor, alpha: float) -> tuple[Tensor, int]:
        """A further batch axis, in front."""
        return Entmax.apply(scores.movedim(dims[0] or 0, 0), alpha), 0  # type: ignore[no-untyped-call]


class Normmax(torch.autograd.Function):
    """alpha-normmax over the last axis, differentiated through its support."""

    @staticmethod
    def forward(scores: Tensor, alpha: float) -> Tensor:
        """``p`` (..., n)."""
        return sparse(scores, 1.0, alpha / (alpha - 1.0), 1.0 / (alpha - 1.0))

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Tensor, float], output: Tensor) -> None:
        """Keep p."""
        ctx.alpha = inputs[1]
        ctx.save_for_backward(output)

    @staticmethod
    def backward(ctx: Any, *grad: Tensor) -> tuple[Tensor, None]:
        """Implicit: with q = p / |p|, dq = h (ds - <p, ds>), h = q^(2 - alpha) / (alpha - 1)."""
        (p,), alpha = ctx.saved_tensors, ctx.alpha
        norm = power(power(p, alpha).sum(dim=-1, keepdim=True), 1.0 / alpha)
        h = power(p, 2.0 - alpha) * power(norm, alpha - 1.0) / (alpha - 1.0)
        v = (grad[0] - (grad[0] * p).sum(dim=-1, keepdim=True)) * h
        return v - p * v.sum(dim=-1, keepdim=True), None

    @staticmethod
    def vmap(info: Any, dims: tuple[int | None, None], scores: Tensor, alpha: float) -> tuple[Tensor, int]:
        """A further batch axis, in front."""
        return Normmax.apply(scores.movedim(dims[0] or 0, 0), alpha), 0  # type: ignore[no-untyped-call]


class CappedSimplex(torch.autograd.Function):
    """Euclidean projection on {0 <= p <= 1, sum p = k} over the last axis."""

    @staticmethod
    def forward(scores: Tensor, k: int) -> Tensor:
        """``p`` (..., n); fewer than k finite entries: all of them 1."""
        present = scores > -torch.inf
        enough = present.sum(dim=-1, keepdim=True) > k
        # Only differences of at most 1 around the k-th best decide; far entries are cut to keep sums finite.
        kth = scores.topk(min(k, scores.shape[-1]), dim=-1).values[..., -1:]
        s = (scores - torch.where(kth > -torch.inf, kth, 0.0)).clamp(-2.0 - k, 2.0 + k)
        low, high = torch.full_like(kth, -1.0), torch.full_like(kth, 1.0)
        low, high = low * (2.0 + k), high * (2.0 + k)
        for _ in range(64 if s.dtype == torch.float64 else 36):
            middle = 0.5 * (low + high)
            heavy = (s - middle).clamp(0.0, 1.0).sum(dim=-1, keepdim=True) >= k
            low, high = torch.where(heavy, middle, low), torch.where(heavy, high, middle)
        p = (s - low).clamp(0.0, 1.0)
        between = (p > 0) & (p < 1)
        # Exact on the set that bisection has found.
        count = between.sum(dim=-1, keepdim=True)
        ones = (p >= 1).sum(dim=-1, keepdim=True)
        tau = (torch.where(between, s, 0.0).sum(dim=-1, keepdim=True) + ones - k) / count.clamp(min=1)
        p = torch.where(count > 0, (s - tau).clamp(0.0, 1.0), p)
        return torch.where(enough, p, present.to(p.dtype)) * present

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Tensor, int], output: Tensor) -> None:
        """Keep which entries lie strictly between 0 and 1."""
        ctx.save_for_backward(output)

    @staticmethod
    def backward(ctx: Any, *grad: Tensor) -> tuple[Tensor, None]:
        """The identity, centred, on the entries strictly between 0 and 1."""
        (p,) = ctx.saved_tensors
        between = ((p > 0) & (p < 1)).to(grad[0].dtype)
        v = grad[0] * between
        mean = v.sum(dim=-1, keepdim=True) / between.sum(dim=-1, keepdim=True).clamp(min=1.0)
        return v - between * mean, None

    @staticmethod
    def vmap(info: Any, dims: tuple[int | None, None], scores: Tensor, k: int) -> tuple[Tensor, int]:
        """A further batch axis, in front."""
        return CappedSimplex.apply(scores.movedim(dims[0] or 0, 0), k), 0  # type: ignore[no-untyped-call]
