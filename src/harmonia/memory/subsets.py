"""The numerics of k-subsets: the projection on {0 <= p <= 1, sum p = k}, plain tensors, no gradients.

It is SparseMAP over the subsets of size k (Niculae et al. 2018), and p = clip(s - tau, 0, 1). With s measured
from the k-th best, tau lies in [-1, 0]: at -1 the k best are whole, at 0 at most k - 1 are.
"""

from __future__ import annotations

import torch
from torch import Tensor

from harmonia.memory.entmax import finite, in_blocks


def project(scores: Tensor, k: int) -> Tensor:
    """p for ``scores`` (R, m); where no more than k are present (above -inf), all of them get 1."""
    if scores.shape[1] <= k:
        return (scores != -torch.inf).to(scores.dtype)

    def solve(block: Tensor) -> Tensor:
        kth = _kth(block, k)
        p = ((block - finite(kth)) - _threshold(block, kth, k)).clamp_(0.0, 1.0)
        return torch.where(kth == -torch.inf, (block != -torch.inf).to(p.dtype), p)

    return in_blocks(solve, scores)


def lower_bound(scores: Tensor, k: int) -> Tensor:
    """The score (R, 1) from which on downwards there is no mass, in ``scores`` (R, c) or more of the row."""
    kth = _kth(scores, min(k, scores.shape[1]))
    # Of few scores the k-th best may not be there: then nothing is ruled out.
    if scores.shape[1] <= k:
        return torch.full_like(kth, -torch.inf)
    slack = torch.finfo(scores.dtype).eps * (32.0 + 4.0 * finite(kth).abs())
    return torch.where(kth == -torch.inf, kth, finite(kth) + _threshold(scores, kth, k) - slack)


def _kth(scores: Tensor, k: int) -> Tensor:
    return scores.topk(k, dim=-1).values[:, -1:]


def _threshold(scores: Tensor, kth: Tensor, k: int) -> Tensor:
    """tau - kth (R, 1), in [-1, 0], exactly: the mass is linear between the 2 m points where it bends.

    From tau = s - 1 on a slot is no longer whole (the mass falls faster), from tau = s on it has none.
    """
    s = (scores - finite(kth)).clamp_(-1.0, 1.0)
    bends, order = torch.cat([s - 1.0, s], dim=1).clamp_(-1.0, 0.0).sort(dim=-1)
    slope = torch.where(order < s.shape[1], -1.0, 1.0).to(s.dtype).cumsum(dim=-1)
    start = (s + 1.0).clamp_(0.0, 1.0).sum(dim=-1, keepdim=True)
    fall = (slope[:, :-1] * bends.diff(dim=-1)).cumsum(dim=-1)
    mass = torch.cat([start, start + fall], dim=1)
    at = ((mass >= k).sum(dim=-1, keepdim=True) - 1).clamp_(min=0)
    t = bends.gather(-1, at)
    steep = slope.gather(-1, at)
    t = torch.where(steep < 0, t + (mass.gather(-1, at) - k) / -steep.clamp(max=-1.0), t)
    # The sums along the bends have rounded. Whole slots are counted: next to many, the rest keeps its digits.
    for _ in range(2):
        p = s - t
        between = (p > 0) & (p < 1)
        free, whole = between.sum(dim=-1, keepdim=True), (p >= 1).sum(dim=-1, keepdim=True)
        excess = torch.where(between, p, 0.0).sum(dim=-1, keepdim=True) + (whole - k)
        t = torch.where(free > 0, t + excess / free.clamp(min=1), t)
    return t
