"""The numerics of alpha-entmax and alpha-normmax: plain tensors in and out, no gradients.

Both are p = u / sum(u) with ``u_i = [scale s_i - tau]_+ ^ (1 / (alpha - 1))`` and a threshold tau that makes
the norm of u of some ``order`` one: order 1 is entmax (Peters, Niculae and Martins 2019), order alpha is
normmax (Blondel, Martins and Niculae 2020). With z = scale (s - max s) and tau = t - 1 the entries
``x = 1 + z - t`` lie in [0, 1], t = 0 is one-hot, and t solves |x|_q = 1 for q = order / (alpha - 1).

Adding slots only raises t, and so does lowering q. Hence the threshold of any few of the slots bounds that
of all, and what lies below it has no mass: long rows are cut to a few candidates in one pass over them.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

Number = float | Tensor
"""A number, or one for each row (R, 1)."""

CHUNK = 64
"""Slots whose maximum stands for them while candidates are looked for."""
FEW = 256
"""About so many maxima of maxima bound the threshold: few enough not to be worth a second thread."""
LONG = 2048
"""Rows longer than this are cut to their candidates first."""
SHORT = 128
"""Rows up to this length are solved by sorting, where there is a formula."""
STEPS = 64
"""At most so many steps of Newton's method; fewer than ten are usual."""
BLOCK = 1 << 17
"""Entries that are solved together where nothing can be left out: few enough to stay in the cache."""


@dataclass(frozen=True, slots=True, eq=False)
class Candidates:
    """The slots of each row that may have mass: ``scores`` (R, m), -inf where a row has fewer.

    Candidate ``scores.flatten()[cell]`` is entry ``place`` of the flattened rows (None: m = n, all are kept).
    """

    scores: Tensor
    n: int
    cell: Tensor | None = None
    place: Tensor | None = None

    def spread(self, p: Tensor) -> Tensor:
        """The rows (R, n) whose candidates are ``p`` (R, m); all else is zero."""
        if self.cell is None or self.place is None:
            return p
        out = p.new_zeros(p.shape[0], self.n)
        out.view(-1)[self.place] = p.reshape(-1)[self.cell]
        return out


def candidates(scores: Tensor, bound: Callable[[Tensor], Tensor]) -> Candidates:
    """The slots of ``scores`` (R, n) that may have mass.

    ``bound`` (R, c) -> (R, 1) takes some of the scores of each row; what is not above it has no mass.
    """
    rows, n = scores.shape
    if n <= LONG or rows == 0:
        return Candidates(scores, n)
    scores = scores.contiguous()
    whole = n - n % CHUNK
    chunks, rest = scores[:, :whole].view(rows, -1, CHUNK), scores[:, whole:]
    maxima = chunks.amax(dim=-1)
    size = max(1, maxima.shape[1] // FEW)
    some = maxima[:, : maxima.shape[1] // size * size].reshape(rows, -1, size).amax(dim=-1)
    floor = bound(some)
    # "Not at most" instead of "above" keeps NaN, to be seen in the result.
    chosen = ~(maxima <= floor)
    if 4 * int(chosen.sum()) < maxima.numel():
        row, chunk = chosen.nonzero(as_tuple=True)
        found = chunks[row, chunk]
        hit, offset = (~(found <= floor[row])).nonzero(as_tuple=True)
        row, column, value = row[hit], chunk[hit] * CHUNK + offset, found[hit, offset]
    else:
        above = ~(scores[:, :whole] <= floor)
        if 4 * int(above.sum()) > scores.numel():
            return Candidates(scores, n)
        row, column = above.nonzero(as_tuple=True)
        value = scores[row, column]
    count = torch.bincount(row, minlength=rows)
    width = int(count.max())
    position = torch.arange(len(row), device=row.device) - (count.cumsum(0) - count)[row]
    # The last entries of a row fill no chunk and are always kept.
    kept = torch.cat([scores.new_full((rows, width), -torch.inf), rest], dim=1)
    cells = torch.arange(kept.numel(), device=row.device).view_as(kept)
    places = torch.arange(rows, device=row.device)[:, None] * n + torch.arange(whole, n, device=row.device)
    cell, place = cells[row, position], row * n + column
    kept.view(-1)[cell] = value
    return Candidates(
        kept, n, torch.cat([cell, cells[:, width:].flatten()]), torch.cat([place, places.flatten()])
    )


def lower_bound(scores: Tensor, scale: Number, q: Number) -> Tensor:
    """The score (R, 1) from which on downwards there is no mass, in ``scores`` (R, c) or more of the row."""
    best = finite(scores.amax(dim=-1, keepdim=True))
    t = threshold((scores - best) * scale, q.clamp(min=1.0) if isinstance(q, Tensor) else max(q, 1.0))
    # Rounding may have raised it by a little.
    slack = torch.finfo(scores.dtype).eps * (32.0 / scale + 4.0 * best.abs())
    return best + (t - 1.0) / scale - slack


def weights(scores: Tensor, alpha: float, order: float, scale: float) -> Tensor:
    """p for ``scores`` (R, m); zero where a score is -inf, and everywhere if all scores of a row are."""

    def solve(block: Tensor) -> Tensor:
        best = finite(block.amax(dim=-1, keepdim=True))
        if alpha <= 2.0:
            u = _wide((block - best) * scale, alpha, order)
        else:
            u = _steep(block, best, alpha, order, scale)
        return u.div_(u.sum(dim=-1, keepdim=True).clamp_(min=torch.finfo(u.dtype).tiny))

    return in_blocks(solve, scores)


def weights_by_row(scores: Tensor, alpha: Tensor) -> Tensor:
    """alpha-entmax of ``scores`` (R, m) with an alpha > 1 of each row's own, (R, 1)."""
    best = finite(scores.amax(dim=-1, keepdim=True))
    u = torch.zeros_like(scores)
    steep = alpha[:, 0] > 2.0
    for some in ((~steep).nonzero()[:, 0], steep.nonzero()[:, 0]):
        row, top, own = scores[some], best[some], alpha[some]
        scale = own - 1.0
        if len(some):
            any_steep = bool(steep[some[0]])
            u[some] = _steep(row, top, own, 1.0, scale) if any_steep else _wide((row - top) * scale, own, 1.0)
    return u.div_(u.sum(dim=-1, keepdim=True).clamp_(min=torch.finfo(u.dtype).tiny))


def slope_in_alpha(p: Tensor, alpha: Tensor) -> Tensor:
    """dp / dalpha (R, n) of alpha-entmax ``p`` (R, n) with alpha (R, 1) > 1, in float64.

    With r = alpha - 1 and l = log p on the support, r dp/dalpha = p / r - p l - w (1 / r - <p, l>), where w
    is p^(1 - r), scaled to sum 1 (Correia, Niculae and Martins 2019, "Adaptively sparse transformers"). For a
    small r, p and w are nearly equal: their difference is taken from expm1(-r l), and the limit at r = 0 is
    p (<p, l^2> - l^2) / 2.
    """
    p, r = p.double(), alpha.double() - 1.0
    held = p > 0
    log = torch.where(held, p, 1.0).log()
    mean = (p * log).sum(dim=-1, keepdim=True)
    w = torch.softmax(((1.0 - r) * log).masked_fill(~held, -torch.inf), dim=-1).masked_fill(~held, 0.0)
    large = (p / r - p * log - w * (1.0 / r - mean)) / r
    fall = torch.expm1(-r.clamp(max=0.5) * log)
    away = (p * fall).sum(dim=-1, keepdim=True)
    small = ((away - fall) / (r * (1.0 + away)) - log + (1.0 + fall) / (1.0 + away) * mean) / r
    square = log * log
    limit = 0.5 * ((p * square).sum(dim=-1, keepdim=True) - square)
    return torch.where(r > 0.5, large, p * torch.where(r > 1e-6, small, limit))


def in_blocks(solve: Callable[[Tensor], Tensor], scores: Tensor) -> Tensor:
    """``solve(scores)`` row by row; on a CPU a few rows at a time where they would not fit into its cache."""
    if scores.device.type != "cpu" or scores.numel() <= BLOCK:
        return solve(scores)
    step = max(1, BLOCK // scores.shape[1])
    return torch.cat([solve(block) for block in torch.split(scores, step)])


def finite(best: Tensor) -> Tensor:
    """The maximum of each row, but zero for a row without any slot."""
    return best.masked_fill(best == -torch.inf, 0.0)


def _wide(z: Tensor, alpha: Number, order: float) -> Tensor:
    """u for alpha <= 2, where an error of t is not magnified."""
    exponent = 1.0 / (alpha - 1.0)
    return _power(z, threshold(z, order * exponent), exponent)


def _power(z: Tensor, t: Tensor, exponent: Number) -> Tensor:
    """[1 + z - t]_+ ^ exponent, to full precision also where the exponent is large (alpha near 1)."""
    below = (z - t).clamp_(min=-1.0)
    if isinstance(exponent, Tensor):
        return torch.where(below > -1.0, (below.log1p() * exponent).exp(), 0.0)
    if exponent == 0.0:
        return (below > -1.0).to(z.dtype)
    if exponent == 1.0:
        return below.add_(1.0)
    if exponent == 2.0:
        return below.add_(1.0).square_()
    return below.log1p_().mul_(exponent).exp_()


def threshold(z: Tensor, q: Number) -> Tensor:
    """The root t (R, 1) of |[1 + z - t]_+|_q = 1 for q >= 1 and rows ``z`` (R, m) whose maximum is 0."""
    if not isinstance(q, Tensor) and q in (1.0, 2.0) and z.shape[1] <= SHORT:
        t = _by_sorting(z, q)
        # The running sums have rounded.
        for _ in range(2):
            t = _newton(z, t, q).clamp_(0.0, 1.0)
        return t
    t = torch.zeros_like(z[:, :1])
    for _ in range(STEPS):
        moved = torch.maximum(t, _newton(z, t, q))
        if _all_rest(moved == t):
            break
        t = moved
    return t


def _by_sorting(z: Tensor, q: float) -> Tensor:
    """The root if the k best are the support, for every k, of which the last that contains its k-th is right.

    q = 1: Held, Wolfe and Crowder 1974; q = 2: Peters, Niculae and Martins 2019, algorithm 2.
    """
    x = z.sort(dim=-1, descending=True).values.clamp_(min=-1.0).add_(1.0)
    rank = torch.arange(1, z.shape[1] + 1, dtype=z.dtype, device=z.device)
    mean = x.cumsum(dim=-1) / rank
    if q == 1.0:
        t = mean - 1.0 / rank
    else:
        variance = (x * x).cumsum(dim=-1) / rank - mean * mean
        t = mean - (1.0 / rank - variance).clamp_(min=0.0).sqrt_()
    last = (t <= x).sum(dim=-1, keepdim=True).clamp(min=1) - 1
    return t.gather(-1, last)


def _newton(z: Tensor, t: Tensor, q: Number) -> Tensor:
    """A step of Newton's method on |x|_q = 1.

    The norm is convex and falls with t, so from the left no step passes the root; it is nearly linear, so the
    steps are few (one for equal entries, at any q). For q = 1 it is Michelot's method (1986).
    """
    slope = _power(z, t, q - 1.0)
    each = isinstance(q, Tensor)
    x = slope if not each and q == 2.0 else (z - t).clamp_(min=-1.0).add_(1.0)
    tiny = torch.finfo(z.dtype).tiny
    total = (slope * x if each or q > 1.0 else x).sum(dim=-1, keepdim=True).clamp_(min=tiny)
    falling = slope.sum(dim=-1, keepdim=True).clamp_(min=tiny)
    # (|x| - 1) / -(d|x|/dt), written with the sums of x^q and x^(q-1).
    return t - torch.expm1(total.log() / -q) * total / falling


def _all_rest(rests: Tensor) -> bool:
    """Whether no row moves any more; a compiled graph cannot ask, and makes all the steps."""
    return not torch.compiler.is_compiling() and bool(rests.all())


def _steep(scores: Tensor, best: Tensor, alpha: Number, order: float, scale: Number) -> Tensor:
    """u for alpha > 2, where u rises so steeply at the threshold that t would not be precise enough.

    The unknown is v, the least u of the support: u_i = (d_i + v^r)^(1/r) with r = alpha - 1 and d_i the lead
    over the last slot of the support. |u|_order is convex in v; Newton's method comes from above.
    """
    r = alpha - 1.0
    # By the difference: next to a large score 1 / scale would vanish in rounding. NaN is kept, to be seen.
    some = ~((best - scores) * scale >= 1.0)
    raised = scores.masked_fill(~some, -torch.inf)
    size, last = _support(raised, scale, order / r)
    inside = some & ~(raised < last)
    a = torch.where(inside, raised - last, 0.0).mul_(scale).pow_(1.0 / r)
    v = size.pow(-1.0 / order)
    tiny = torch.finfo(v.dtype).tiny
    for _ in range(STEPS):
        u = _hypot(a, v, r).mul_(inside)
        rise = torch.where(inside, (v / u) ** (r - 1.0) * u ** (order - 1.0), 0.0).sum(dim=-1, keepdim=True)
        norm = (u**order).sum(dim=-1, keepdim=True) ** (1.0 / order)
        moved = (v - (norm - 1.0) * norm ** (order - 1.0) / rise.clamp_(min=tiny)).clamp_(min=tiny)
        moved = torch.minimum(v, moved)
        if _all_rest(moved == v):
            break
        v = moved
    return u


def _hypot(a: Tensor, v: Tensor, r: Number) -> Tensor:
    """(a^r + v^r)^(1/r) without underflow, for v > 0."""
    large, small = torch.maximum(a, v), torch.minimum(a, v)
    return (small / large).pow_(r).log1p_().div_(r).exp_().mul_(large)


def _support(scores: Tensor, scale: Number, q: Number) -> tuple[Tensor, Tensor]:
    """How many slots have mass and the score of the last of them, both (R, 1), by binary search.

    Slot k has mass iff the slots before it, measured from it, have not yet used up the norm.
    """
    ordered = scores.sort(dim=-1, descending=True).values
    low = torch.zeros_like(scores[:, :1], dtype=torch.long)
    high = torch.full_like(low, scores.shape[-1])
    for _ in range(scores.shape[-1].bit_length()):
        # low has mass, high has none; once they are neighbours nothing moves.
        middle = (low + high) // 2
        lead = (ordered - ordered.gather(-1, middle)).mul_(scale).clamp_(min=0.0)
        has_mass = lead.pow_(q).sum(dim=-1, keepdim=True) < 1.0
        low, high = torch.where(has_mass, middle, low), torch.where(has_mass, high, middle)
    last = ordered.gather(-1, low)
    return (ordered >= last).sum(dim=-1, keepdim=True).to(scores.dtype), last
