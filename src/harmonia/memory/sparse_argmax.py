"""Sparse argmaxes: their differentiation, through the support alone, and the projection on k-subsets.

The projection is that on {0 <= p <= 1, sum p = k}, plain tensors, no gradients: SparseMAP over the subsets of
size k (Niculae et al. 2018), and p = clip(s - tau, 0, 1). With s measured from the k-th best, tau lies in
[-1, 0]: at -1 the k best are whole, at 0 at most k - 1 are.
"""

from __future__ import annotations

from typing import Any, Protocol

import torch
from torch import Tensor

from harmonia.memory import entmax
from harmonia.memory.entmax import candidates, finite, in_blocks


class Sparse(Protocol):
    """What is needed of an entropy: numbers in and out, without gradients."""

    def omega(self, p: Tensor, dim: int = -1) -> Tensor:
        """Omega(p), without the axis ``dim``."""
        ...

    def lower_bound(self, scores: Tensor) -> Tensor:
        """The score (R, 1) from which on downwards there is no mass, from ``scores`` (R, c) of each row."""
        ...

    def weights(self, scores: Tensor) -> Tensor:
        """The argmax for candidates (R, m)."""
        ...

    def pull(self, p: Tensor, v: Tensor) -> Tensor:
        """J v with J the Jacobian of the argmax at p."""
        ...


class Argmax(torch.autograd.Function):
    """p (..., n) of scores (..., n)."""

    @staticmethod
    def forward(scores: Tensor, entropy: Sparse) -> Tensor:
        """Solve among the candidates of each row."""
        if scores.shape[-1] == 0:
            return torch.zeros_like(scores)
        found = candidates(scores.reshape(-1, scores.shape[-1]), entropy.lower_bound)
        return found.spread(entropy.weights(found.scores)).view(scores.shape)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Tensor, Sparse], output: Tensor) -> None:
        """Keep the argmax."""
        ctx.entropy = inputs[1]
        ctx.save_for_backward(output)

    @staticmethod
    def backward(ctx: Any, *grad: Tensor) -> tuple[Tensor, None]:
        """The Jacobian of the argmax, on its support."""
        return ctx.entropy.pull(ctx.saved_tensors[0], grad[0]), None

    @staticmethod
    def vmap(info: Any, dims: tuple[int, None], scores: Tensor, entropy: Sparse) -> tuple[Tensor, int]:
        """One more axis of rows."""
        return Argmax.apply(scores.movedim(dims[0], 0), entropy), 0  # type: ignore[no-untyped-call]


class RowEntmax(torch.autograd.Function):
    """alpha-entmax (..., n) of scores (..., n) with an alpha (..., 1) of each row's own."""

    @staticmethod
    def forward(ctx: Any, scores: Tensor, alpha: Tensor) -> Tensor:
        """Solve among the candidates of each row."""
        if not scores.numel():
            ctx.save_for_backward(scores, alpha)
            return torch.zeros_like(scores)
        rows, each = scores.reshape(-1, scores.shape[-1]), alpha.reshape(-1, 1)
        found = candidates(rows, lambda some: entmax.lower_bound(some, each - 1.0, 1.0 / (each - 1.0)))
        p = found.spread(entmax.weights_by_row(found.scores, each)).view(scores.shape)
        ctx.save_for_backward(p, alpha)
        return p

    @staticmethod
    def backward(ctx: Any, *grad: Tensor) -> tuple[Tensor | None, Tensor | None]:
        """The Jacobian of the argmax, on its support."""
        p, alpha = ctx.saved_tensors
        slope = None
        if ctx.needs_input_grad[1]:
            each = entmax.slope_in_alpha(p.reshape(-1, p.shape[-1]), alpha.reshape(-1, 1)).view(p.shape)
            slope = (each * grad[0]).sum(dim=-1, keepdim=True).to(alpha)
        return entmax_pull(p, grad[0], alpha), slope


class Conjugate(torch.autograd.Function):
    """Omega* (...) and p (..., n) of scores (..., n); p is the gradient, and has one itself."""

    @staticmethod
    def forward(scores: Tensor, entropy: Sparse) -> tuple[Tensor, Tensor]:
        """Solve among the candidates of each row."""
        if scores.shape[-1] == 0:
            return scores.new_full(scores.shape[:-1], -torch.inf), torch.zeros_like(scores)
        found = candidates(scores.reshape(-1, scores.shape[-1]), entropy.lower_bound)
        p = entropy.weights(found.scores)
        best = found.scores.amax(dim=-1, keepdim=True)
        # Measured from the best: the sum of p is 1 (or k), which may be large when multiplied by it.
        behind = (found.scores - entmax.finite(best)).masked_fill(p == 0, 0.0)
        value = (p * behind).sum(dim=-1) - entropy.omega(p) + best[:, 0] * p.sum(dim=-1).clamp(min=0.5)
        return value.view(scores.shape[:-1]), found.spread(p).view(scores.shape)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Tensor, Sparse], output: tuple[Tensor, Tensor]) -> None:
        """Keep the argmax."""
        ctx.entropy = inputs[1]
        ctx.save_for_backward(output[1])
        ctx.set_materialize_grads(False)

    @staticmethod
    def backward(ctx: Any, *grad: Tensor | None) -> tuple[Tensor | None, None]:
        """The Jacobian of the argmax, on its support."""
        (p,) = ctx.saved_tensors
        value = None if grad[0] is None else grad[0][..., None] * p
        moved = None if grad[1] is None else ctx.entropy.pull(p, grad[1])
        return value if moved is None else moved if value is None else value + moved, None

    @staticmethod
    def vmap(
        info: Any, dims: tuple[int, None], scores: Tensor, entropy: Sparse
    ) -> tuple[tuple[Tensor, Tensor], tuple[int, int]]:
        """One more axis of rows."""
        return Conjugate.apply(scores.movedim(dims[0], 0), entropy), (0, 0)  # type: ignore[no-untyped-call]


def entmax_pull(p: Tensor, v: Tensor, alpha: float | Tensor) -> Tensor:
    """J v for alpha-entmax: J = diag(g) - g g^T / sum g with g = p^(2 - alpha) on the support."""
    g = steepness(p, alpha)
    total = g.sum(dim=-1, keepdim=True)
    if not isinstance(alpha, Tensor) and alpha <= 2.0:
        return g * (v - (g * v).sum(dim=-1, keepdim=True) / total.clamp(min=0.5))
    # g has no bound: measure v from where g is largest, whose own entry follows from the sum 0.
    most = g.argmax(dim=-1, keepdim=True)
    away = v - v.gather(-1, most)
    moved = g * (away - (g / total.clamp(min=0.5) * away).sum(dim=-1, keepdim=True))
    moved = moved.scatter(-1, most, 0.0)
    return moved.scatter(-1, most, -moved.sum(dim=-1, keepdim=True))


def positive(p: Tensor) -> Tensor:
    """p, but 1 where it is not positive: logarithms and powers stay finite, and so do their gradients."""
    return torch.where(p > 0, p, 1.0)


def steepness(p: Tensor, alpha: float | Tensor) -> Tensor:
    """p^(2 - alpha) on the support, else 0; for alpha > 2 cut to what can still be summed."""
    if not isinstance(alpha, Tensor) and alpha == 2.0:
        return (p > 0).to(p.dtype)
    steep = positive(p) ** (2.0 - alpha)
    return torch.where(p > 0, steep.clamp(max=torch.finfo(p.dtype).max ** 0.5), 0.0)


def project_on_subsets(scores: Tensor, k: int) -> Tensor:
    """p for ``scores`` (R, m); where no more than k are present (above -inf), all of them get 1."""
    if scores.shape[1] <= k:
        return (scores != -torch.inf).to(scores.dtype)

    def solve(block: Tensor) -> Tensor:
        kth = _kth(block, k)
        p = ((block - finite(kth)) - _threshold(block, kth, k)).clamp_(0.0, 1.0)
        return torch.where(kth == -torch.inf, (block != -torch.inf).to(p.dtype), p)

    return in_blocks(solve, scores)


def subset_bound(scores: Tensor, k: int) -> Tensor:
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
