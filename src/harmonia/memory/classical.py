"""Classical Hopfield networks and dense associative memories: binary units, polynomial energies.

* `ClassicalHopfield`: E(x) = -x^T W x / 2 (Hopfield 1982). The Hebbian rule holds about 0.138 d random
  patterns (Amit, Gutfreund and Sompolinsky 1985), the projection rule any d - 1 independent ones, with ever
  smaller basins (Personnaz, Guyon and Dreyfus 1985; Kanter and Sompolinsky 1987).
* `DenseHopfield`: E(x) = -sum_mu F(<xi_mu, x>), F(x) = relu(x)^n or x^n. About d^(n-1) patterns (Krotov and
  Hopfield 2016, "Dense associative memory for pattern recognition").
* `SphericalHopfield`: the same energy for real vectors of unit length (Krotov and Hopfield 2021, "Large
  associative memory problem in neurobiology and machine learning", model C).

Patterns are (N, d), cues (..., d). The binary networks recall states of +1 and -1 from cues in [-1, 1], where
0 means not known; a unit that nothing drives stays as it is.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Literal

import torch
from torch import Tensor


@dataclass(frozen=True, slots=True, eq=False)
class Recalled:
    """The result of a recall: ``states`` (..., d), and for each cue how it converged.

    ``steps`` (...,): updates of all units. ``settled`` (...,): at a fixed point. ``cycling`` (...,): in a
    cycle of two states, of which ``states`` is one. Neither: the limit of steps came first.
    """

    states: Tensor
    steps: Tensor
    settled: Tensor
    cycling: Tensor


@dataclass(frozen=True, slots=True, eq=False)
class ClassicalHopfield:
    """Hopfield's network of 1982 with symmetric ``weights`` (d, d); made by `hebbian` or `projection`."""

    weights: Tensor
    rule: Literal["hebbian", "projection"]
    zero_diagonal: bool = True

    @classmethod
    def hebbian(cls, patterns: Tensor, *, zero_diagonal: bool = True) -> ClassicalHopfield:
        """W = sum xi xi^T / d. Real patterns count by their size; recalled are signs."""
        xi = _patterns(patterns)
        return cls(_weights(xi.mT @ xi / xi.shape[1], zero_diagonal), "hebbian", zero_diagonal)

    @classmethod
    def projection(cls, patterns: Tensor, *, zero_diagonal: bool = True) -> ClassicalHopfield:
        """W = X^+ X, the projection onto the span of the patterns: independent ones are fixed points."""
        xi = _patterns(patterns)
        # Through the smaller Gram matrix, which is far quicker than a pseudo-inverse.
        size, turn = torch.linalg.eigh(xi @ xi.mT)
        some = size > size.amax() * len(xi) * torch.finfo(xi.dtype).eps
        basis = xi.mT @ turn[:, some] / size[some].sqrt()
        return cls(_weights(basis @ basis.mT, zero_diagonal), "projection", zero_diagonal)

    def insert(self, patterns: Tensor) -> ClassicalHopfield:
        """The network that also holds ``patterns``, equal to storing all at once (Hebbian rule only)."""
        if self.rule != "hebbian":
            raise ValueError("only the Hebbian rule adds patterns one by one: store all of them anew")
        xi = _patterns(patterns, self.weights.shape[0]).to(self.weights)
        return replace(self, weights=self.weights + _weights(xi.mT @ xi / xi.shape[1], self.zero_diagonal))

    def energy(self, states: Tensor) -> Tensor:
        """-x^T W x / 2, (...,)."""
        x = _cues(states, self.weights)
        return -0.5 * ((x @ self.weights) * x).sum(dim=-1)

    def recall(self, cues: Tensor, *, steps: int = 100, synchronous: bool = False, seed: int = 0) -> Recalled:
        """Run until nothing changes, at most ``steps`` updates of all units.

        Asynchronous: one unit after the other, in an order drawn anew each time from ``seed``; the energy
        never rises. Synchronous: all at once, which ends in a fixed point or in a cycle of two (Goles,
        Fogelman and Pellegrin 1985); with the diagonal kept W is positive and the energy never rises.
        """
        x = _cues(cues, self.weights)
        if synchronous:
            return _run(lambda x: _drive(x @ self.weights, x, self._rounding()), x, steps)
        return _run(_in_random_order(self._sweep, seed), x, steps)

    def _sweep(self, x: Tensor, order: list[int]) -> Tensor:
        x, field, rounding = x.clone(), x @ self.weights, self._rounding()
        for i in order:
            new = _drive(field[..., i], x[..., i], rounding)
            field = torch.addcmul(field, (new - x[..., i])[..., None], self.weights[i])
            x[..., i] = new
        return x

    def _rounding(self) -> Tensor:
        return len(self.weights) * torch.finfo(self.weights.dtype).eps * self.weights.abs().max()


@dataclass(frozen=True, slots=True, eq=False)
class _Polynomial(ABC):
    """``patterns`` (N, d) and F, the power ``n`` >= 2 of the overlap, ``rectified`` or not."""

    patterns: Tensor
    n: int = 3
    rectified: bool = True

    def __post_init__(self) -> None:
        if self.n < 2:
            raise ValueError(f"the power n must be at least 2 (got {self.n})")
        _patterns(self.patterns)

    def energy(self, states: Tensor) -> Tensor:
        """-sum_mu F(overlap of pattern mu with the state), (...,)."""
        units = self._units()
        return -self._f(_cues(states, units) @ units.mT).sum(dim=-1)

    def _f(self, x: Tensor) -> Tensor:
        return (x.clamp(min=0.0) if self.rectified else x) ** self.n

    @abstractmethod
    def _units(self) -> Tensor:
        """Patterns scaled so that the overlap of a pattern with itself is one: F does not overflow."""
        ...


@dataclass(frozen=True, slots=True, eq=False)
class DenseHopfield(_Polynomial):
    """Dense associative memory on bipolar ``patterns`` (N, d), F(x) = relu(x)^n (or x^n).

    Overlaps are <xi, x> / d. x^2 is the classical network with the Hebbian rule and a zero diagonal.
    """

    def recall(self, cues: Tensor, *, steps: int = 100, seed: int = 0) -> Recalled:
        """Set one unit after the other to the sign of lower energy, in random order, until all rest."""
        return _run(_in_random_order(self._sweep, seed), _cues(cues, self._units()), steps)

    def _units(self) -> Tensor:
        return _patterns(self.patterns) / self.patterns.shape[1]

    def _sweep(self, x: Tensor, order: list[int]) -> Tensor:
        x, units = x.clone(), self._units()
        overlap = x @ units.mT
        for i in order:
            others = overlap - x[..., i, None] * units[:, i]
            up, down = self._f(others + units[:, i]), self._f(others - units[:, i])
            rounding = 8 * torch.finfo(x.dtype).eps * (up.abs() + down.abs()).sum(dim=-1)
            x[..., i] = _drive((up - down).sum(dim=-1), x[..., i], rounding)
            overlap = others + x[..., i, None] * units[:, i]
        return x


@dataclass(frozen=True, slots=True, eq=False)
class SphericalHopfield(_Polynomial):
    """Dense associative memory on the unit sphere: real ``patterns`` (N, d), taken by their direction.

    An update is x <- unit(X^T w) with w = F'(X x) over its sum; on the sphere that sum cancels. Overlaps are
    cosines. The energy never rises, as F is convex: x^n needs an even n.
    """

    def __post_init__(self) -> None:
        # super() does not work in a dataclass with slots.
        _Polynomial.__post_init__(self)
        if not self.rectified and self.n % 2:
            raise ValueError(f"x^n is convex for even n only (got {self.n}): use rectified=True or another n")

    def recall(self, cues: Tensor, *, steps: int = 100, tolerance: float = 1e-6) -> Recalled:
        """Update until a state moves no further than ``tolerance``; one that meets no pattern stays."""
        units = self._units()
        return _run(lambda x: self._step(x, units), _unit(_cues(cues, units)), steps, tolerance, cycles=False)

    def _units(self) -> Tensor:
        return _unit(_patterns(self.patterns))

    def _step(self, x: Tensor, units: Tensor) -> Tensor:
        cosine = x @ units.mT
        cosine = cosine.clamp(min=0.0) if self.rectified else cosine
        # Relative to the largest: a high power of small cosines would underflow.
        largest = cosine.abs().amax(dim=-1, keepdim=True)
        moved = _unit((cosine / torch.where(largest > 0, largest, 1.0)) ** (self.n - 1) @ units)
        return torch.where((moved != 0).any(dim=-1, keepdim=True), moved, x)


def _run(
    step: Callable[[Tensor], Tensor], x: Tensor, steps: int, tolerance: float = 0.0, *, cycles: bool = True
) -> Recalled:
    """Repeat ``step`` until each state rests, or is again what it was two steps before."""
    if steps < 1:
        raise ValueError(f"steps must be at least 1 (got {steps})")
    settled = torch.zeros(x.shape[:-1], dtype=torch.bool, device=x.device)
    cycling, count = settled.clone(), torch.zeros_like(settled, dtype=torch.long)
    before = torch.full_like(x, torch.nan)
    for _ in range(steps):
        running = ~(settled | cycling)
        new = torch.where(running[..., None], step(x), x)
        count = count + running
        settled = settled | (running & (torch.linalg.vector_norm(new - x, dim=-1) <= tolerance))
        if cycles:
            cycling = cycling | (running & ~settled & (new == before).all(dim=-1))
        before, x = x, new
        if bool((settled | cycling).all()):
            break
    return Recalled(x, count, settled, cycling)


def _in_random_order(sweep: Callable[[Tensor, list[int]], Tensor], seed: int) -> Callable[[Tensor], Tensor]:
    """A step that is one sweep over all units. The order is the same for all cues, whatever their batch."""
    generator = torch.Generator().manual_seed(seed)

    def step(x: Tensor) -> Tensor:
        return sweep(x, torch.randperm(x.shape[-1], generator=generator).tolist())

    return step


def _drive(gain: Tensor, x: Tensor, rounding: Tensor) -> Tensor:
    """The sign of ``gain``; ``x`` where it is zero up to rounding, which else would depend on the batch."""
    return torch.where(gain.abs() <= rounding, x, gain.sign())


def _unit(x: Tensor) -> Tensor:
    return torch.nn.functional.normalize(x, dim=-1, eps=math.sqrt(torch.finfo(x.dtype).tiny))


def _weights(weights: Tensor, zero_diagonal: bool) -> Tensor:
    return weights.clone().fill_diagonal_(0.0) if zero_diagonal else weights


def _patterns(patterns: Tensor, d: int | None = None) -> Tensor:
    if patterns.dim() != 2 or 0 in patterns.shape or (d is not None and patterns.shape[1] != d):
        raise ValueError(f"patterns must be (N, {d or 'd'}), at least one (got {tuple(patterns.shape)})")
    return patterns if patterns.is_floating_point() else patterns.to(torch.get_default_dtype())


def _cues(cues: Tensor, like: Tensor) -> Tensor:
    if cues.shape[-1:] != like.shape[-1:]:
        raise ValueError(f"cues must be (..., {like.shape[-1]}) (got {tuple(cues.shape)})")
    return cues.to(like)
