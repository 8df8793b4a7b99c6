"""Entropies over the slots, their conjugates and regularised argmax, Fenchel-Young losses.

For a convex Omega on a polytope, the regularised argmax is y(s) = argmax_p <p, s> - Omega(p) and the
conjugate Omega*(s) = max_p <p, s> - Omega(p); y is the gradient of Omega*.

* Shannon: Omega(p) = sum p log p, so y = softmax and Omega* = log-sum-exp.
* Tsallis: Omega(p) = (sum p^alpha - 1) / (alpha (alpha - 1)), so y = alpha-entmax; alpha = 2 is sparsemax.
* Norm: Omega(p) = |p|_alpha - 1, so y = alpha-normmax, whose support shares its mass more evenly.
* Subsets: Omega(p) = |p|^2 / 2 on the hull of the indicators of k-subsets: SparseMAP with a budget.

Absent entries have a score of -inf or a mask of False. A row with none present has p = 0, a conjugate of
-inf and no gradient. Half precision is computed in float32.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import Any, Protocol, cast

import torch
from torch import Tensor

from harmonia.memory import entmax, subsets
from harmonia.memory.entmax import candidates


class Entropy(Protocol):
    """A regulariser of the slot distribution, over the axis ``dim`` of scores."""

    def argmax(self, scores: Tensor, dim: int = -1, mask: Tensor | None = None) -> Tensor:
        """The regularised argmax, of the shape of ``scores``; ``mask`` is broadcast, False = absent."""
        ...

    def conjugate(self, scores: Tensor, dim: int = -1, mask: Tensor | None = None) -> Tensor:
        """Omega*(scores), without the axis ``dim``; its gradient is the argmax."""
        ...

    def omega(self, p: Tensor, dim: int = -1) -> Tensor:
        """Omega(p) for p in the polytope, without the axis ``dim``."""
        ...


@dataclass(frozen=True, slots=True)
class Shannon:
    """Negative Shannon entropy: softmax and log-sum-exp."""

    def argmax(self, scores: Tensor, dim: int = -1, mask: Tensor | None = None) -> Tensor:
        """Softmax."""
        s = _last(scores, dim, mask)
        none = (s == -torch.inf).all(dim=-1, keepdim=True)
        p = torch.softmax(s.masked_fill(none, 0.0), dim=-1).masked_fill(none, 0.0)
        return p.movedim(-1, dim).to(scores.dtype)

    def conjugate(self, scores: Tensor, dim: int = -1, mask: Tensor | None = None) -> Tensor:
        """Log-sum-exp."""
        s = _last(scores, dim, mask)
        none = (s == -torch.inf).all(dim=-1, keepdim=True)
        value = torch.logsumexp(s.masked_fill(none, 0.0), dim=-1)
        return value.masked_fill(none[..., 0], -torch.inf).to(scores.dtype)

    def omega(self, p: Tensor, dim: int = -1) -> Tensor:
        """sum p log p."""
        return (p * _positive(p).log()).sum(dim=dim)


class _Sparse(ABC):
    """An entropy whose argmax is sparse, differentiated through its support."""

    __slots__ = ()

    def argmax(self, scores: Tensor, dim: int = -1, mask: Tensor | None = None) -> Tensor:
        """The regularised argmax; see the class."""
        p = cast(Tensor, _Argmax.apply(_last(scores, dim, mask), self))  # type: ignore[no-untyped-call]
        return p.movedim(-1, dim).to(scores.dtype)

    def conjugate(self, scores: Tensor, dim: int = -1, mask: Tensor | None = None) -> Tensor:
        """<p, s> - Omega(p) at the argmax p."""
        value, _ = _Conjugate.apply(_last(scores, dim, mask), self)  # type: ignore[no-untyped-call]
        return cast(Tensor, value).to(scores.dtype)

    @abstractmethod
    def omega(self, p: Tensor, dim: int = -1) -> Tensor:
        """Omega(p) for p in the polytope, without the axis ``dim``."""

    @abstractmethod
    def lower_bound(self, scores: Tensor) -> Tensor:
        """The score (R, 1) from which on downwards there is no mass, from ``scores`` (R, c) of each row."""

    @abstractmethod
    def weights(self, scores: Tensor) -> Tensor:
        """The argmax for candidates (R, m), without gradients."""

    @abstractmethod
    def pull(self, p: Tensor, v: Tensor) -> Tensor:
        """J v with J the Jacobian of the argmax at p; J is symmetric, as Omega* has it as its Hessian."""


@dataclass(frozen=True, slots=True)
class Tsallis(_Sparse):
    """Negative Tsallis entropy with ``alpha`` > 1: alpha-entmax, sparse, and one-hot for a clear lead.

    p = ``[(alpha-1) s - tau]_+ ^ (1/(alpha-1))`` (Peters, Niculae and Martins 2019). It is one-hot exactly
    when the best score leads by at least 1 / (alpha - 1).
    """

    alpha: float = 1.5

    def __post_init__(self) -> None:
        _check(self.alpha)

    def omega(self, p: Tensor, dim: int = -1) -> Tensor:
        """(sum p^alpha - 1) / (alpha (alpha - 1)), as sum p (p^(alpha-1) - 1): precise for alpha near 1."""
        r = self.alpha - 1.0
        return (p * torch.expm1(r * _positive(p).log())).sum(dim=dim) / (self.alpha * r)

    def lower_bound(self, scores: Tensor) -> Tensor:
        """tau of the scores given."""
        return entmax.lower_bound(scores, self.alpha - 1.0, 1.0 / (self.alpha - 1.0))

    def weights(self, scores: Tensor) -> Tensor:
        """alpha-entmax."""
        return entmax.weights(scores, self.alpha, order=1.0, scale=self.alpha - 1.0)

    def pull(self, p: Tensor, v: Tensor) -> Tensor:
        """J = diag(g) - g g^T / sum g with g = p^(2 - alpha) on the support."""
        g = _steepness(p, self.alpha)
        total = g.sum(dim=-1, keepdim=True)
        if self.alpha <= 2.0:
            return g * (v - (g * v).sum(dim=-1, keepdim=True) / total.clamp(min=0.5))
        # g has no bound: measure v from where g is largest, whose own entry follows from the sum 0.
        most = g.argmax(dim=-1, keepdim=True)
        away = v - v.gather(-1, most)
        moved = g * (away - (g / total.clamp(min=0.5) * away).sum(dim=-1, keepdim=True))
        moved = moved.scatter(-1, most, 0.0)
        return moved.scatter(-1, most, -moved.sum(dim=-1, keepdim=True))


@dataclass(frozen=True, slots=True)
class Norm(_Sparse):
    """The ``alpha``-norm of p, alpha > 1: normmax (Blondel, Martins and Niculae 2020).

    With u = p / |p|_alpha the optimality conditions are ``s_i - tau = u_i^(alpha-1)`` on the support, so u is
    ``[s - tau]_+ ^ (1/(alpha-1))`` with |u|_alpha = 1, and Omega* = tau + 1. The argmax is one-hot exactly
    when the best score leads by at least 1, whatever alpha.
    """

    alpha: float = 2.0

    def __post_init__(self) -> None:
        _check(self.alpha)

    def omega(self, p: Tensor, dim: int = -1) -> Tensor:
        """|p|_alpha - 1; -1 at p = 0."""
        most = p.detach().amax(dim=dim, keepdim=True)
        ratio = p / torch.where(most > 0, most, 1.0)
        length: Tensor = torch.linalg.vector_norm(ratio, ord=self.alpha, dim=dim)
        return most.squeeze(dim) * length - 1.0

    def lower_bound(self, scores: Tensor) -> Tensor:
        """tau of the scores given."""
        return entmax.lower_bound(scores, 1.0, self.alpha / (self.alpha - 1.0))

    def weights(self, scores: Tensor) -> Tensor:
        """alpha-normmax."""
        return entmax.weights(scores, self.alpha, order=self.alpha, scale=1.0)

    def pull(self, p: Tensor, v: Tensor) -> Tensor:
        """du = u^(2 - alpha) / (alpha - 1) (ds - <p, ds>), and p = u / sum u."""
        moved = _steepness(p, self.alpha) * (v - (p * v).sum(dim=-1, keepdim=True))
        # u = p / |p|: the powers of |p| are taken out of both sums.
        length = (self.omega(p)[..., None] + 1.0) ** (self.alpha - 1.0)
        return (moved - p * moved.sum(dim=-1, keepdim=True)) * length / (self.alpha - 1.0)


@dataclass(frozen=True, slots=True)
class Subsets(_Sparse):
    """k slots at once: p in [0, 1]^n with sum ``k`` (Niculae et al. 2018, SparseMAP, with a budget).

    p is the Euclidean projection of the scores on that polytope: the k best, each with p = 1, exactly when
    the k-th leads the next by at least 1. Where no more than k are present, all of them have p = 1.
    """

    k: int

    def __post_init__(self) -> None:
        if self.k < 1:
            raise ValueError(f"k must be at least 1 (got {self.k})")

    def omega(self, p: Tensor, dim: int = -1) -> Tensor:
        """|p|^2 / 2; k / 2 for a subset, no less than k^2 / 2n."""
        return 0.5 * (p**2).sum(dim=dim)

    def lower_bound(self, scores: Tensor) -> Tensor:
        """tau of the scores given."""
        return subsets.lower_bound(scores, self.k)

    def weights(self, scores: Tensor) -> Tensor:
        """The projection."""
        return subsets.project(scores, self.k)

    def pull(self, p: Tensor, v: Tensor) -> Tensor:
        """The identity, centred, on the entries strictly between 0 and 1."""
        free = ((p > 0) & (p < 1)).to(v.dtype)
        mean = (free * v).sum(dim=-1, keepdim=True) / free.sum(dim=-1, keepdim=True).clamp(min=1.0)
        return free * (v - mean)


def entropy(alpha: float) -> Entropy:
    """The entropy whose argmax is alpha-entmax: 1 is softmax, 2 sparsemax."""
    return Shannon() if alpha == 1.0 else Tsallis(alpha)


def top_argmax(entropy: Entropy, scores: Tensor, total: int) -> tuple[Tensor, Tensor]:
    """The argmax over ``total`` scores from the best of them, ``(..., k)`` sorted, and whether it is exact.

    ``exact`` (...,): the last kept entry has no mass, so none behind it can have any; or all are there.
    """
    p = entropy.argmax(scores)
    return p, (p[..., -1] == 0) | (scores.shape[-1] >= total)


def fenchel_young(entropy: Entropy, scores: Tensor, target: Tensor, dim: int = -1) -> Tensor:
    """L(s, y) = Omega*(s) + Omega(y) - <s, y>, without the axis ``dim`` (Blondel, Martins and Niculae 2020).

    Never negative, and zero exactly where y is the argmax of s; the gradient in s is argmax(s) - y.
    ``target`` y has the shape of ``scores`` and lies in the polytope. Shannon with one-hot targets is the
    cross-entropy.
    """
    s, y = _wide(scores), target.to(_wide(scores).dtype)
    # On the polytope the sum of y is given, so the scores may be shifted: large ones lose no digits.
    s = s - entmax.finite(s.detach().amax(dim=dim, keepdim=True))
    inner = (y * s.masked_fill(y == 0, 0.0)).sum(dim=dim)
    return (entropy.conjugate(s, dim) + entropy.omega(y, dim) - inner).to(scores.dtype)


class _Argmax(torch.autograd.Function):
    """p (..., n) of scores (..., n)."""

    @staticmethod
    def forward(scores: Tensor, entropy: _Sparse) -> Tensor:
        if scores.shape[-1] == 0:
            return torch.zeros_like(scores)
        found = candidates(scores.reshape(-1, scores.shape[-1]), entropy.lower_bound)
        return found.spread(entropy.weights(found.scores)).view(scores.shape)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Tensor, _Sparse], output: Tensor) -> None:
        ctx.entropy = inputs[1]
        ctx.save_for_backward(output)

    @staticmethod
    def backward(ctx: Any, *grad: Tensor) -> tuple[Tensor, None]:
        return ctx.entropy.pull(ctx.saved_tensors[0], grad[0]), None

    @staticmethod
    def vmap(info: Any, dims: tuple[int, None], scores: Tensor, entropy: _Sparse) -> tuple[Tensor, int]:
        return _Argmax.apply(scores.movedim(dims[0], 0), entropy), 0  # type: ignore[no-untyped-call]


class _Conjugate(torch.autograd.Function):
    """Omega* (...) and p (..., n) of scores (..., n); p is the gradient, and has one itself."""

    @staticmethod
    def forward(scores: Tensor, entropy: _Sparse) -> tuple[Tensor, Tensor]:
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
    def setup_context(ctx: Any, inputs: tuple[Tensor, _Sparse], output: tuple[Tensor, Tensor]) -> None:
        ctx.entropy = inputs[1]
        ctx.save_for_backward(output[1])
        ctx.set_materialize_grads(False)

    @staticmethod
    def backward(ctx: Any, *grad: Tensor | None) -> tuple[Tensor | None, None]:
        (p,) = ctx.saved_tensors
        value = None if grad[0] is None else grad[0][..., None] * p
        moved = None if grad[1] is None else ctx.entropy.pull(p, grad[1])
        return value if moved is None else moved if value is None else value + moved, None

    @staticmethod
    def vmap(
        info: Any, dims: tuple[int, None], scores: Tensor, entropy: _Sparse
    ) -> tuple[tuple[Tensor, Tensor], tuple[int, int]]:
        return _Conjugate.apply(scores.movedim(dims[0], 0), entropy), (0, 0)  # type: ignore[no-untyped-call]


def _last(scores: Tensor, dim: int, mask: Tensor | None) -> Tensor:
    s = _wide(scores)
    if mask is not None:
        s = s.masked_fill(~mask, -torch.inf)
    return s.movedim(dim, -1)


def _wide(scores: Tensor) -> Tensor:
    return scores.float() if scores.dtype in (torch.float16, torch.bfloat16) else scores


def _positive(p: Tensor) -> Tensor:
    """p, but 1 where it is not positive: logarithms and powers stay finite, and so do their gradients."""
    return torch.where(p > 0, p, 1.0)


def _steepness(p: Tensor, alpha: float) -> Tensor:
    """p^(2 - alpha) on the support, else 0; for alpha > 2 cut to what can still be summed."""
    if alpha == 2.0:
        return (p > 0).to(p.dtype)
    steep = _positive(p) ** (2.0 - alpha)
    return torch.where(p > 0, steep.clamp(max=torch.finfo(p.dtype).max ** 0.5), 0.0)


def _check(alpha: float) -> None:
    if not alpha > 1.0:
        raise ValueError(f"alpha must be greater than 1 (got {alpha}); 1 is Shannon()")
