"""Certificates: proved bounds on truncated sums, single steps, and basins of attraction.

Throughout, p is the softmax of beta <x_j, g> over the codes x_j, T(g) = sum_j p_j x_j is the readout, and
the memory's step without trust in the cue is g <- T(g) / |T(g)|. Bounds hold in exact arithmetic; what is
computed is float64 wherever a bound is at stake.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor

__all__ = [
    "Basins",
    "basins",
    "contraction_bound",
    "error_bound",
    "has_single_fixed_point",
    "local_contraction",
    "retrieval_bound",
    "tail_bound",
]

SPHERE_DIAMETER = 2.0
# Distances between unit codes are counted in so many bins, rounded outwards.
BINS = 2048
# Halvings of an interval of radii: far below the width of a bin.
HALVINGS = 32
# Codes whose distances are counted at once.
BLOCK = 8192


class Rows(Protocol):
    """Unit codes ``(P, d)`` that are read by rows: a tensor, or what holds them in another form."""

    @property
    def shape(self) -> torch.Size:
        """``(P, d)``."""
        ...

    def __getitem__(self, rows: slice | Tensor, /) -> Tensor:
        """The codes of some rows."""
        ...


def error_bound(tail_mass: Tensor, diameter: float = SPHERE_DIAMETER) -> Tensor:
    """The greatest error of a readout that leaves out ``tail_mass`` of the slot distribution.

    Leaving out mass t and renormalising moves a convex combination of points by at most t times the
    diameter of the set they come from. Unit codes have diameter at most 2.
    """
    return tail_mass * diameter


def tail_bound(scores: Tensor, beta: Tensor, slots: int) -> Tensor:
    """The most probability ``(Q,)`` outside the k best of ``slots``, where no log-sum-exp of all is known.

    ``scores`` (Q, k), best first; ``beta`` (Q,). None of the others scores above the last, so their sum
    is at most (slots - k) e^{beta s_k}, and t / (kept + t) rises with t.
    """
    rest = slots - scores.shape[-1]
    if rest <= 0:
        return torch.zeros_like(beta)
    kept = torch.exp(beta[..., None] * (scores - scores[..., -1:])).sum(dim=-1)
    return rest / (kept + rest)


def retrieval_bound(p: Tensor, diameter: float = SPHERE_DIAMETER) -> Tensor:
    """How far T(g) is from a memory that has probability ``p``: (1 - p) times the diameter."""
    return (1.0 - p) * diameter


def contraction_bound(p: Tensor, beta: Tensor | float, diameter: float = SPHERE_DIAMETER) -> Tensor:
    """A bound on the norm of the Jacobian of T where some memory has probability ``p``.

    J = beta Cov_p(x). The covariance about the mean is at most that about a memory x_i, whose norm is at
    most (1 - p_i) diam^2, and at most (diam / 2)^2 (Popoviciu). Below 1 the step contracts there.
    """
    return beta * diameter**2 * (1.0 - p).clamp(max=0.25)


def local_contraction(codes: Tensor, p: Tensor, beta: Tensor | float) -> Tensor:
    """The norm of the Jacobian of T itself, ``(Q,)``: beta times the greatest eigenvalue of Cov_p(x).

    ``codes`` (Q, k, d) or (k, d) are those that have probability ``p`` (Q, k), summing to 1; found by
    way of their (k, k) Gram matrix. A tail of mass t that is left out adds at most beta t diam^2.
    """
    mean = p[..., None, :] @ codes
    scaled = p.clamp(min=0.0).sqrt()[..., None] * (codes - mean)
    greatest: Tensor = torch.linalg.eigvalsh(scaled @ scaled.mT)[..., -1]
    return beta * greatest.clamp(min=0.0)


def has_single_fixed_point(beta: float, diameter: float = SPHERE_DIAMETER) -> bool:
    """Whether T provably has a single fixed point, so that all cues converge to it.

    beta (diam / 2)^2 < 1 makes T a contraction of the convex hull of the codes, everywhere.
    """
    return beta * (0.5 * diameter) ** 2 < 1.0


@dataclass(frozen=True, slots=True, eq=False)
class Basins:
    """Certified basins of R memories, each field ``(R,)`` float64.

    From within ``radius`` of the memory settling converges to one point, at most ``drift`` away from the
    memory: 0 and infinity where nothing is certified. ``separation`` is Delta_i, ``confidence`` the
    memory's own probability p_i when it is itself the cue, and ``contraction`` the bound
    beta sum_j p_j |x_j - x_i|^2 on the Jacobian of T there.
    """

    radius: Tensor
    drift: Tensor
    separation: Tensor
    confidence: Tensor
    contraction: Tensor

    @property
    def certified(self) -> Tensor:
        """Which memories have a basin, ``(R,)`` bool."""
        return self.radius > 0


def basins(codes: Rows, rows: Tensor, beta: float) -> Basins:
    """Certified basins of the memories ``rows`` (R,) among all unit ``codes`` (P, d).

    Ramsauer et al. 2020 (theorems 4 and 5) go by the separation Delta_i = x_i.x_i - max_j x_i.x_j alone.
    Here every distance d_j = |x_i - x_j| is used, which certifies far larger balls; the least of them is
    the separation, Delta_i = min d_j^2 / 2. Sketch of the proof. For |g - x_i| <= r

        <g, x_i - x_j> >= d_j^2 / 2 - r d_j        so        p_j <= a_j = exp(-beta (d_j^2 / 2 - r d_j))

    and so |T(g) - x_i| <= sum_j p_j d_j <= m(r) = sum_j d_j a_j, and |J(g)| <= beta sum_j p_j d_j^2 <=
    beta sum_j d_j^2 a_j = m'(r). Scaling a point within m < 1 of x_i to the sphere leaves it within
    c(m) = sqrt(2 - 2 sqrt(1 - m^2)) of x_i. So the scalar map r <- h(r) = c(m(r)) bounds the distances
    of the iterates. h is convex and increasing; where it lies below the diagonal, between ``drift`` and
    ``radius``, distances shrink to ``drift``; and where m'(r) / (1 - m(r)) < 1 at ``drift``, the step on
    the sphere contracts in a ball that every iterate enters, so there is one limit (Banach). Both
    conditions are checked. As c(m) >= m, the same holds for the step g <- T(g) that is not scaled.
    """
    found = _distances(codes, rows, beta)
    bound = _Majorant(beta, found.count)
    zero = torch.zeros_like(found.nearest)
    top = torch.full_like(zero, math.sqrt(2.0))
    turn = _bisect(lambda r: bound.step_slope(r) < 1.0, zero, top)[0]
    radius = _bisect(lambda r: bound.step(r) < r, turn, top)[0]
    drift = _bisect(lambda r: bound.step(r) >= r, zero, turn)[1]
    certified = (bound.step(turn) < turn) & (bound.slope(drift) < 1.0 - bound.readout(drift))
    return Basins(
        radius=torch.where(certified, radius, 0.0),
        drift=torch.where(certified, drift, torch.inf),
        separation=0.5 * found.nearest**2,
        confidence=1.0 / (1.0 + found.weight),
        contraction=beta * found.second / (1.0 + found.weight),
    )


class _Majorant:
    """The functions of a radius ``(R,)`` in the proof above, over binned distances: m, m', h and h'."""

    def __init__(self, beta: float, count: Tensor) -> None:
        edges = torch.linspace(0.0, SPHERE_DIAMETER, BINS + 1, dtype=count.dtype, device=count.device)
        self.beta, self.count, self.low, self.high = beta, count, edges[:-1], edges[1:]

    def readout(self, radius: Tensor) -> Tensor:
        """m(r): how far the readout can be from the memory."""
        return self._sum(radius, self.high)

    def slope(self, radius: Tensor) -> Tensor:
        """m'(r), which also bounds the Jacobian of the readout."""
        return self.beta * self._sum(radius, self.high**2)

    def step(self, radius: Tensor) -> Tensor:
        """h(r) = c(m(r)): how far the next code on the sphere can be; sqrt(2) stands for anything more."""
        m = self.readout(radius).clamp(max=1.0)
        return m * torch.sqrt(2.0 / (1.0 + torch.sqrt(1.0 - m**2)))

    def step_slope(self, radius: Tensor) -> Tensor:
        """h'(r), infinite where the readout may be at the centre."""
        root = torch.sqrt(1.0 - self.readout(radius).clamp(max=1.0) ** 2)
        return self.slope(radius) * torch.sqrt(0.5 * (1.0 + root)) / root

    def _sum(self, radius: Tensor, factor: Tensor) -> Tensor:
        # Beyond e^500 the bound says nothing anyway, and infinity times an empty bin would be no number.
        exponent = self.beta * (radius[:, None] * self.high - 0.5 * self.low**2)
        return (self.count * factor * torch.exp(exponent.clamp(max=500.0))).sum(dim=-1)


@dataclass(frozen=True, slots=True, eq=False)
class _Distances:
    """Of R memories to all others: bin counts ``(R, BINS)``, the least distance, and with the weights
    e^{-beta d^2 / 2} of the softmax at the memory their sum and their sum times d^2, ``(R,)``.
    """

    count: Tensor
    nearest: Tensor
    weight: Tensor
    second: Tensor


def _distances(codes: Rows, rows: Tensor, beta: float) -> _Distances:
    own = codes[rows].double()
    rows = rows.to(own.device)
    count = own.new_zeros(len(rows), BINS)
    nearest = own.new_full((len(rows),), torch.inf)
    weight, second = torch.zeros_like(nearest), torch.zeros_like(nearest)
    for first in range(0, codes.shape[0], BLOCK):
        others = codes[first : first + BLOCK].double()
        squared = (2.0 - 2.0 * own @ others.T).clamp(min=0.0, max=SPHERE_DIAMETER**2)
        is_self = rows[:, None] == torch.arange(first, first + len(others), device=rows.device)
        bins = (squared.sqrt() * (BINS / SPHERE_DIAMETER)).long().clamp(max=BINS - 1)
        count.scatter_add_(1, bins, (~is_self).to(own.dtype))
        factor = torch.exp(-0.5 * beta * squared).masked_fill(is_self, 0.0)
        weight += factor.sum(dim=-1)
        second += (factor * squared).sum(dim=-1)
        nearest = torch.minimum(nearest, squared.masked_fill(is_self, torch.inf).amin(dim=-1).sqrt())
    return _Distances(count, nearest, weight, second)


def _bisect(holds: Callable[[Tensor], Tensor], low: Tensor, high: Tensor) -> tuple[Tensor, Tensor]:
    """The ends of where ``holds`` turns from true (low) to false (high), in each interval."""
    for _ in range(HALVINGS):
        middle = 0.5 * (low + high)
        yes = holds(middle)
        low, high = torch.where(yes, middle, low), torch.where(yes, high, middle)
    return low, high
