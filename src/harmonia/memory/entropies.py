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
from typing import Protocol, cast

import torch
from torch import Tensor

from harmonia.memory import entmax
from harmonia.memory.sparse_argmax import (
    Argmax,
    Conjugate,
    RowEntmax,
    entmax_pull,
    positive,
    project_on_subsets,
    steepness,
    subset_bound,
)


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
        return (p * positive(p).log()).sum(dim=dim)


class Sparse(ABC):
    """An entropy whose argmax is sparse, differentiated through its support."""

    __slots__ = ()

    def argmax(self, scores: Tensor, dim: int = -1, mask: Tensor | None = None) -> Tensor:
        """The regularised argmax; see the class."""
        p = cast(Tensor, Argmax.apply(_last(scores, dim, mask), self))  # type: ignore[no-untyped-call]
        return p.movedim(-1, dim).to(scores.dtype)

    def conjugate(self, scores: Tensor, dim: int = -1, mask: Tensor | None = None) -> Tensor:
        """<p, s> - Omega(p) at the argmax p."""
        value, _ = Conjugate.apply(_last(scores, dim, mask), self)  # type: ignore[no-untyped-call]
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
class Tsallis(Sparse):
    """Negative Tsallis entropy with ``alpha`` > 1: alpha-entmax, sparse, and one-hot for a clear lead.

    p = ``[(alpha-1) s - tau]_+ ^ (1/(alpha-1))`` (Peters, Niculae and Martins 2019). It is one-hot exactly
    when the best score leads by at least 1 / (alpha - 1).

    A tensor ``alpha``, broadcast to the scores with an axis of one at ``dim``, gives each row (or head) its
    own and can be learned: the argmax and the conjugate have a gradient in it (Correia et al. 2019).
    """

    alpha: float | Tensor = 1.5

    def __post_init__(self) -> None:
        _check(self.alpha)

    def argmax(self, scores: Tensor, dim: int = -1, mask: Tensor | None = None) -> Tensor:
        """alpha-entmax."""
        if not isinstance(self.alpha, Tensor):
            return Sparse.argmax(self, scores, dim, mask)
        s = _last(scores, dim, mask)
        p = cast(Tensor, RowEntmax.apply(s, self._rows(s, dim)))  # type: ignore[no-untyped-call]
        return p.movedim(-1, dim).to(scores.dtype)

    def conjugate(self, scores: Tensor, dim: int = -1, mask: Tensor | None = None) -> Tensor:
        """<p, s> - Omega(p) at the argmax p; the gradient in alpha is that of -Omega, p being the best."""
        if not isinstance(self.alpha, Tensor):
            return Sparse.conjugate(self, scores, dim, mask)
        s = _last(scores, dim, mask)
        alpha = self._rows(s, dim)
        p = Tsallis(alpha).argmax(s).detach()
        best = entmax.finite(s.detach().amax(dim=-1, keepdim=True))
        none = (s == -torch.inf).all(dim=-1)
        behind = (p * (s - best).masked_fill(p == 0, 0.0)).sum(dim=-1)
        value = behind - Tsallis(alpha).omega(p) + best.squeeze(-1)
        return value.masked_fill(none, -torch.inf).to(scores.dtype)

    def _rows(self, scores: Tensor, dim: int) -> Tensor:
        """The tensor alpha as (..., 1) for scores (..., n) whose axis ``dim`` was moved last."""
        alpha = cast(Tensor, self.alpha).to(scores)
        if dim not in (-1, scores.ndim - 1) and alpha.ndim >= scores.ndim:
            alpha = alpha.movedim(dim, -1)
        if alpha.ndim and alpha.shape[-1] != 1:
            raise ValueError(f"alpha needs one entry at the axis of the slots (got {tuple(alpha.shape)})")
        return alpha.expand(*scores.shape[:-1], 1)

    def omega(self, p: Tensor, dim: int = -1) -> Tensor:
        """(sum p^alpha - 1) / (alpha (alpha - 1)), as sum p (p^(alpha-1) - 1): precise for alpha near 1."""
        r = self.alpha - 1.0
        if isinstance(r, Tensor):
            return (p * torch.expm1(r * positive(p).log()) / (self.alpha * r)).sum(dim=dim)
        return (p * torch.expm1(r * positive(p).log())).sum(dim=dim) / (self.alpha * r)

    def lower_bound(self, scores: Tensor) -> Tensor:
        """tau of the scores given."""
        return entmax.lower_bound(scores, self.alpha - 1.0, 1.0 / (self.alpha - 1.0))

    def weights(self, scores: Tensor) -> Tensor:
        """alpha-entmax."""
        if isinstance(self.alpha, Tensor):
            return entmax.weights_by_row(scores, self.alpha)
        return entmax.weights(scores, self.alpha, order=1.0, scale=self.alpha - 1.0)

    def pull(self, p: Tensor, v: Tensor) -> Tensor:
        """J = diag(g) - g g^T / sum g with g = p^(2 - alpha) on the support."""
        return entmax_pull(p, v, self.alpha)


@dataclass(frozen=True, slots=True)
class Norm(Sparse):
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
        moved = steepness(p, self.alpha) * (v - (p * v).sum(dim=-1, keepdim=True))
        # u = p / |p|: the powers of |p| are taken out of both sums.
        length = (self.omega(p)[..., None] + 1.0) ** (self.alpha - 1.0)
        return (moved - p * moved.sum(dim=-1, keepdim=True)) * length / (self.alpha - 1.0)


@dataclass(frozen=True, slots=True)
class Subsets(Sparse):
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
        return subset_bound(scores, self.k)

    def weights(self, scores: Tensor) -> Tensor:
        """The projection."""
        return project_on_subsets(scores, self.k)

    def pull(self, p: Tensor, v: Tensor) -> Tensor:
        """The identity, centred, on the entries strictly between 0 and 1."""
        free = ((p > 0) & (p < 1)).to(v.dtype)
        mean = (free * v).sum(dim=-1, keepdim=True) / free.sum(dim=-1, keepdim=True).clamp(min=1.0)
        return free * (v - mean)


def entropy(alpha: float) -> Entropy:
    """The entropy whose argmax is alpha-entmax: 1 is softmax, 2 sparsemax."""
    return Shannon() if alpha == 1.0 else Tsallis(alpha)


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


def _last(scores: Tensor, dim: int, mask: Tensor | None) -> Tensor:
    s = _wide(scores)
    if mask is not None:
        s = s.masked_fill(~mask, -torch.inf)
    return s.movedim(dim, -1)


def _wide(scores: Tensor) -> Tensor:
    return scores.float() if scores.dtype in (torch.float16, torch.bfloat16) else scores


def _check(alpha: float | Tensor) -> None:
    if not (bool((alpha > 1.0).all()) if isinstance(alpha, Tensor) else alpha > 1.0):
        raise ValueError(f"alpha must be greater than 1 (got {alpha}); 1 is Shannon()")
