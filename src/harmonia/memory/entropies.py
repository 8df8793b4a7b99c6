"""Entropies over the slots, their conjugates and regularised argmax.

For a convex Omega on the simplex, the regularised argmax is y(s) = argmax_p <p, s> - Omega(p) and the
conjugate Omega*(s) = max_p <p, s> - Omega(p); y is the gradient of Omega*.

* Shannon: Omega(p) = sum p log p, so y = softmax and Omega* = log-sum-exp.
* Tsallis: Omega(p) = (sum p^alpha - 1) / (alpha (alpha - 1)), so y = alpha-entmax
  (Peters, Niculae and Martins 2019, "Sparse sequence-to-sequence models"); alpha = 2 is sparsemax.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor


class Entropy(Protocol):
    """A regulariser of the slot distribution. Scores are ``(..., n)``; -inf marks an absent slot."""

    def argmax(self, scores: Tensor) -> Tensor:
        """The regularised argmax, ``(..., n)``, rows on the simplex."""
        ...

    def conjugate(self, scores: Tensor) -> Tensor:
        """Omega*(scores), ``(...)``."""
        ...


@dataclass(frozen=True, slots=True)
class Shannon:
    """Negative Shannon entropy: softmax and log-sum-exp."""

    def argmax(self, scores: Tensor) -> Tensor:
        """Softmax over the last axis."""
        return torch.softmax(scores, dim=-1)

    def conjugate(self, scores: Tensor) -> Tensor:
        """Log-sum-exp over the last axis."""
        return torch.logsumexp(scores, dim=-1)


@dataclass(frozen=True, slots=True)
class Tsallis:
    """Negative Tsallis entropy with ``alpha`` > 1: alpha-entmax, sparse and one-hot when sure.

    The argmax is one-hot exactly when the best score leads by at least 1 / (alpha - 1).
    """

    alpha: float = 1.5

    def __post_init__(self) -> None:
        if not self.alpha > 1.0:
            raise ValueError(f"alpha must be greater than 1 (got {self.alpha}); 1 is Shannon()")

    def argmax(self, scores: Tensor) -> Tensor:
        """alpha-entmax over the last axis: ``[(alpha-1) s - tau]_+ ^ (1/(alpha-1))``."""
        z = scores * (self.alpha - 1.0)
        # The threshold lies in [-1, 0), so what is below -2 (or absent) may as well be -2.
        z = (z - z.amax(dim=-1, keepdim=True)).clamp(min=-2.0)
        exponent = 1.0 / (self.alpha - 1.0)
        p = (z - self._threshold(z)[..., None]).clamp(min=0.0) ** exponent
        return p / p.sum(dim=-1, keepdim=True)

    def conjugate(self, scores: Tensor) -> Tensor:
        """<p, s> - Omega(p) at the argmax p; absent slots (-inf) contribute nothing."""
        p = self.argmax(scores)
        inner = torch.where(p > 0, p * scores, 0.0).sum(dim=-1)
        omega = ((p**self.alpha).sum(dim=-1) - 1.0) / (self.alpha * (self.alpha - 1.0))
        return inner - omega

    def _threshold(self, z: Tensor) -> Tensor:
        """tau such that the argmax sums to one, for ``z`` whose largest entry is 0."""
        if self.alpha == 2.0:
            return _threshold_sparsemax(z)
        if self.alpha == 1.5:
            return _threshold_entmax15(z)
        return self._threshold_bisect(z)

    def _threshold_bisect(self, z: Tensor) -> Tensor:
        # The mass falls from >= 1 at tau = -1 to 0 at tau = 0.
        exponent = 1.0 / (self.alpha - 1.0)
        low = torch.full(z.shape[:-1], -1.0, dtype=z.dtype, device=z.device)
        width = 1.0
        for _ in range(50 if z.dtype == torch.float64 else 26):
            width *= 0.5
            middle = low + width
            mass = ((z - middle[..., None]).clamp(min=0.0) ** exponent).sum(dim=-1)
            low = torch.where(mass >= 1.0, middle, low)
        return low


def _threshold_sparsemax(z: Tensor) -> Tensor:
    """Exact, by sorting (Martins and Astudillo 2016)."""
    ordered = z.sort(dim=-1, descending=True).values
    rank = torch.arange(1, z.shape[-1] + 1, dtype=z.dtype, device=z.device)
    tau = (ordered.cumsum(dim=-1) - 1.0) / rank
    return _last_in_support(tau, ordered)


def _threshold_entmax15(z: Tensor) -> Tensor:
    """Exact, by sorting (Peters et al. 2019, algorithm 2)."""
    ordered = z.sort(dim=-1, descending=True).values
    rank = torch.arange(1, z.shape[-1] + 1, dtype=z.dtype, device=z.device)
    mean = ordered.cumsum(dim=-1) / rank
    variance = (ordered**2).cumsum(dim=-1) / rank - mean**2
    tau = mean - ((1.0 / rank - variance).clamp(min=0.0)).sqrt()
    return _last_in_support(tau, ordered)


def _last_in_support(tau: Tensor, ordered: Tensor) -> Tensor:
    support = (tau <= ordered).sum(dim=-1, keepdim=True).clamp(min=1)
    return tau.gather(-1, support - 1)[..., 0]


def entropy(alpha: float) -> Entropy:
    """The entropy whose argmax is alpha-entmax: 1 is softmax, 2 sparsemax."""
    return Shannon() if alpha == 1.0 else Tsallis(alpha)
