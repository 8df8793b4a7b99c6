"""Entropies over the slots, their conjugates and regularised argmax, Fenchel-Young losses.

For a convex Omega on a polytope, the regularised argmax is y(s) = argmax_p <p, s> - Omega(p) and the
conjugate Omega*(s) = max_p <p, s> - Omega(p); y is the gradient of Omega*.

* Shannon: Omega(p) = sum p log p, so y = softmax and Omega* = log-sum-exp.
* Tsallis: Omega(p) = (sum p^alpha - 1) / (alpha (alpha - 1)), so y = alpha-entmax; alpha = 2 is sparsemax.
* Norm: Omega(p) = |p|_alpha - 1, so y = alpha-normmax, whose support shares its mass more evenly.
* Subsets: Omega(p) = |p|^2 / 2 on the hull of the indicators of k-subsets: SparseMAP with a budget.

Absent entries have a score of -inf or a mask of False. A row with none present has p = 0 and a conjugate
of -inf. Half precision is computed in float32.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol, cast

import torch
from torch import Tensor

from harmonia.memory.entmax import CappedSimplex, Entmax, Normmax, power


class Entropy(Protocol):
    """A regulariser of the slot distribution, over the axis ``dim`` of scores."""

    def argmax(self, scores: Tensor, dim: int = -1, mask: Tensor | None = None) -> Tensor:
        """The regularised argmax, of the shape of ``scores``; ``mask`` is broadcast, False = absent."""
        ...

    def conjugate(self, scores: Tensor, dim: int = -1, mask: Tensor | None = None) -> Tensor:
        """Omega*(scores), without the axis ``dim``; its gradient is the argmax."""
        ...

    def omega(self, p: Tensor, dim: int = -1) -> Tensor:
        """Omega(p), without the axis ``dim``."""
        ...


@dataclass(frozen=True, slots=True)
class Shannon:
    """Negative Shannon entropy: softmax and log-sum-exp."""

    def argmax(self, scores: Tensor, dim: int = -1, mask: Tensor | None = None) -> Tensor:
        """Softmax."""
        return _apply(_softmax, scores, dim, mask)

    def conjugate(self, scores: Tensor, dim: int = -1, mask: Tensor | None = None) -> Tensor:
        """Log-sum-exp."""
        s = _last(scores, dim, mask)
        some = s.amax(dim=-1) > -torch.inf
        # logsumexp of a row of -inf has a gradient of NaN.
        safe = torch.where(some[..., None], s, 0.0)
        return torch.where(some, torch.logsumexp(safe, dim=-1), -torch.inf).to(scores.dtype)

    def omega(self, p: Tensor, dim: int = -1) -> Tensor:
        """sum p log p."""
        total: Tensor = torch.special.xlogy(p, p).sum(dim=dim)
        return total


@dataclass(frozen=True, slots=True)
class Tsallis:
    """Negative Tsallis entropy with ``alpha`` > 1: alpha-entmax, sparse and one-hot when sure.

    The argmax is one-hot exactly when the best score leads by at least 1 / (alpha - 1).
    """

    alpha: float = 1.5

    def __post_init__(self) -> None:
        _check(self.alpha)

    def argmax(self, scores: Tensor, dim: int = -1, mask: Tensor | None = None) -> Tensor:
        """alpha-entmax: ``[(alpha-1) s - tau]_+ ^ (1/(alpha-1))`` (Peters, Niculae and Martins 2019)."""
        return _apply(lambda s: cast(Tensor, Entmax.apply(s, self.alpha)), scores, dim, mask)  # type: ignore[no-untyped-call]

    def conjugate(self, scores: Tensor, dim: int = -1, mask: Tensor | None = None) -> Tensor:
        """<p, s> - Omega(p) at the argmax p."""
        return _conjugate(self, scores, dim, mask)

    def omega(self, p: Tensor, dim: int = -1) -> Tensor:
        """(sum p^alpha - 1) / (alpha (alpha - 1))."""
        return (power(p, self.alpha).sum(dim=dim) - 1.0) / (self.alpha * (self.alpha - 1.0))


@dataclass(frozen=True, slots=True)
class Norm:
    """The ``alpha``-norm of p, alpha > 1: normmax (Blondel, Martins and Niculae 2020).

    The argmax is one-hot exactly when the best score leads by at least 1, whatever alpha.
    """

    alpha: float = 2.0

    def __post_init__(self) -> None:
        _check(self.alpha)

    def argmax(self, scores: Tensor, dim: int = -1, mask: Tensor | None = None) -> Tensor:
        """alpha-normmax."""
        return _apply(lambda s: cast(Tensor, Normmax.apply(s, self.alpha)), scores, dim, mask)  # type: ignore[no-untyped-call]

    def conjugate(self, scores: Tensor, dim: int = -1, mask: Tensor | None = None) -> Tensor:
        """<p, s> - Omega(p) at the argmax p."""
        return _conjugate(self, scores, dim, mask)

    def omega(self, p: Tensor, dim: int = -1) -> Tensor:
        """|p|_alpha - 1."""
        return power(power(p, self.alpha).sum(dim=dim), 1.0 / self.alpha) - 1.0


@dataclass(frozen=True, slots=True)
class Subsets:
    """k slots at once: p in [0, 1]^n with sum ``k`` (Niculae et al. 2018, SparseMAP, with a budget).

    The argmax is the k best, each with p = 1, exactly when the k-th leads the next by at least 1. Where
    no more than k are present, all of them have p = 1.
    """

    k: int

    def __post_init__(self) -> None:
        if self.k < 1:
            raise ValueError(f"k must be at least 1 (got {self.k})")

    def argmax(self, scores: Tensor, dim: int = -1, mask: Tensor | None = None) -> Tensor:
        """The Euclidean projection of the scores on {0 <= p <= 1, sum p = k}."""
        return _apply(lambda s: cast(Tensor, CappedSimplex.apply(s, self.k)), scores, dim, mask)  # type: ignore[no-untyped-call]

    def conjugate(self, scores: Tensor, dim: int = -1, mask: Tensor | None = None) -> Tensor:
        """<p, s> - Omega(p) at the argmax p."""
        return _conjugate(self, scores, dim, mask)

    def omega(self, p: Tensor, dim: int = -1) -> Tensor:
        """|p|^2 / 2."""
        return 0.5 * (p**2).sum(dim=dim)


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

    Never negative, and zero exactly where y is the argmax of s; the gradient in s is argmax(s) - y. Shannon
    with one-hot targets is the cross-entropy.
    """
    wide = _wide(scores)
    inner = torch.where(target > 0, target * torch.where(target > 0, wide, 0.0), 0.0).sum(dim=dim)
    return (entropy.conjugate(wide, dim) + entropy.omega(target.to(wide.dtype), dim) - inner).to(scores.dtype)


def _softmax(s: Tensor) -> Tensor:
    some = s.amax(dim=-1, keepdim=True) > -torch.inf
    return torch.where(some, torch.softmax(torch.where(some, s, 0.0), dim=-1), 0.0)


def _apply(function: Callable[[Tensor], Tensor], scores: Tensor, dim: int, mask: Tensor | None) -> Tensor:
    return function(_last(scores, dim, mask)).movedim(-1, dim).to(scores.dtype)


def _conjugate(entropy: Entropy, scores: Tensor, dim: int, mask: Tensor | None) -> Tensor:
    s = _last(scores, dim, mask)
    p = entropy.argmax(s)
    inner = (p * torch.where(s > -torch.inf, s, 0.0)).sum(dim=-1)
    value = torch.where(s.amax(dim=-1) > -torch.inf, inner - entropy.omega(p), -torch.inf)
    return value.to(scores.dtype)


def _last(scores: Tensor, dim: int, mask: Tensor | None) -> Tensor:
    s = _wide(scores)
    if mask is not None:
        s = s.masked_fill(~mask, -torch.inf)
    return s.movedim(dim, -1)


def _wide(scores: Tensor) -> Tensor:
    return scores.float() if scores.dtype in (torch.float16, torch.bfloat16) else scores


def _check(alpha: float) -> None:
    if not alpha > 1.0:
        raise ValueError(f"alpha must be greater than 1 (got {alpha}); 1 is Shannon()")
