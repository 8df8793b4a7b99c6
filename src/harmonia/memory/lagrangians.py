"""Lagrangians: convex functions of a modality's pre-activation x whose gradient is its activation g.

L(x) and its conjugate L*(g) = sup_x <g, x> - L(x) belong together: g = L'(x) exactly where
L(x) + L*(g) = <g, x>, and L* is the energy that a modality pays for its code by itself (Krotov and
Hopfield 2021, "Large associative memory problem in neurobiology and machine learning").

``convexity`` is the modulus mu of strong convexity of L*, that is, L' is 1/mu-Lipschitz; 0 where there is
none. It follows from the other parameters and is never given: a wrong one would let a descent go uphill.
Everything acts on the last axis. L* is +inf outside its domain, up to ``TOLERANCE``.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import ClassVar, Protocol

import torch
from torch import Tensor

__all__ = [
    "Ball",
    "Identity",
    "Lagrangian",
    "LayerNorm",
    "Power",
    "Softmax",
    "Sphere",
    "Tanh",
]

# How far outside its domain a code may lie by rounding.
TOLERANCE = 1e-5


class Lagrangian(Protocol):
    """L, its gradient and its conjugate."""

    @property
    def convexity(self) -> float:
        """The modulus of strong convexity of the conjugate in the l2 norm; 0 if it has none."""
        ...

    def value(self, x: Tensor) -> Tensor:
        """L(x), ``(..., d)`` to ``(...)``."""
        ...

    def activation(self, x: Tensor) -> Tensor:
        """The gradient of L, ``(..., d)``."""
        ...

    def conjugate(self, g: Tensor) -> Tensor:
        """L*(g), ``(..., d)`` to ``(...)``."""
        ...


@dataclass(frozen=True, slots=True)
class Identity:
    """L = |x|^2 / 2, g = x."""

    convexity: ClassVar[float] = 1.0

    def value(self, x: Tensor) -> Tensor:
        """|x|^2 / 2."""
        return 0.5 * (x**2).sum(dim=-1)

    def activation(self, x: Tensor) -> Tensor:
        """The vector itself."""
        return x

    def conjugate(self, g: Tensor) -> Tensor:
        """|g|^2 / 2."""
        return 0.5 * (g**2).sum(dim=-1)


@dataclass(frozen=True, slots=True)
class Sphere:
    """L = |x|, g = x / |x| (0 at 0): codes of unit length."""

    convexity: ClassVar[float] = 0.0

    def value(self, x: Tensor) -> Tensor:
        """|x|."""
        length: Tensor = torch.linalg.vector_norm(x, dim=-1)
        return length

    def activation(self, x: Tensor) -> Tensor:
        """x / |x|; 0 at 0, and so is its gradient there."""
        square = (x**2).sum(dim=-1, keepdim=True)
        some = square > 0
        return torch.where(some, x * torch.where(some, square, 1.0).rsqrt(), 0.0)

    def conjugate(self, g: Tensor) -> Tensor:
        """0 in the unit ball, with a gradient of 0."""
        square = (g**2).sum(dim=-1)
        return _within(0.0 * square, square <= (1 + TOLERANCE) ** 2)


@dataclass(frozen=True, slots=True)
class Ball:
    """L = |x|^2 / 2 within ``radius``, linear beyond; g is the projection onto the ball."""

    radius: float = 1.0
    convexity: ClassVar[float] = 1.0

    def __post_init__(self) -> None:
        _check_positive("radius", self.radius)

    def value(self, x: Tensor) -> Tensor:
        """The Huber function of |x|."""
        square = (x**2).sum(dim=-1)
        far = square > self.radius**2
        length = torch.where(far, square, 1.0).sqrt()
        return torch.where(far, self.radius * length - 0.5 * self.radius**2, 0.5 * square)

    def activation(self, x: Tensor) -> Tensor:
        """x, cut to the radius."""
        square = (x**2).sum(dim=-1, keepdim=True)
        far = square > self.radius**2
        return x * torch.where(far, self.radius * torch.where(far, square, 1.0).rsqrt(), 1.0)

    def conjugate(self, g: Tensor) -> Tensor:
        """|g|^2 / 2 in the ball."""
        length = torch.linalg.vector_norm(g, dim=-1)
        return _within(0.5 * (g**2).sum(dim=-1), length <= self.radius * (1 + TOLERANCE))


@dataclass(frozen=True, slots=True)
class LayerNorm:
    """L = gamma d sqrt(var(x) + eps), g = gamma (x - mean) / sqrt(var + eps) (Ba, Kiros and Hinton 2016)."""

    gamma: float = 1.0
    eps: float = 1e-5

    def __post_init__(self) -> None:
        _check_positive("gamma", self.gamma)
        _check_positive("eps", self.eps)

    @property
    def convexity(self) -> float:
        """sqrt(eps) / gamma: the activation is steepest where the variance is zero."""
        return math.sqrt(self.eps) / self.gamma

    def value(self, x: Tensor) -> Tensor:
        """gamma d sqrt(var + eps)."""
        return self.gamma * x.shape[-1] * (x.var(dim=-1, correction=0) + self.eps).sqrt()

    def activation(self, x: Tensor) -> Tensor:
        """Layer normalisation with a scalar gain."""
        return self.gamma * torch.nn.functional.layer_norm(x, x.shape[-1:], eps=self.eps)

    def conjugate(self, g: Tensor) -> Tensor:
        """-sqrt(d eps) sqrt(gamma^2 d - |g|^2) for g of mean 0 with |g| <= gamma sqrt(d).

        L = gamma sqrt(d) sqrt(|x'|^2 + d eps) of the centred x', and the conjugate of a sqrt(t^2 + b^2) is
        -b sqrt(a^2 - s^2).
        """
        d = g.shape[-1]
        room = self.gamma**2 * d - (g**2).sum(dim=-1)
        size = self.gamma * math.sqrt(d)
        inside = (room >= -TOLERANCE * size**2) & (g.mean(dim=-1).abs() <= TOLERANCE * size)
        return _within(-math.sqrt(d * self.eps) * room.clamp(min=0.0).sqrt(), inside)


@dataclass(frozen=True, slots=True)
class Softmax:
    """L = log sum exp(beta x) / beta, g = softmax(beta x)."""

    beta: float = 1.0

    def __post_init__(self) -> None:
        _check_positive("beta", self.beta)

    @property
    def convexity(self) -> float:
        """2 / beta: no eigenvalue of diag(p) - p p^T exceeds 1/2."""
        return 2.0 / self.beta

    def value(self, x: Tensor) -> Tensor:
        """log sum exp(beta x) / beta."""
        return torch.logsumexp(self.beta * x, dim=-1) / self.beta

    def activation(self, x: Tensor) -> Tensor:
        """softmax(beta x)."""
        return torch.softmax(self.beta * x, dim=-1)

    def conjugate(self, g: Tensor) -> Tensor:
        """sum g log g / beta on the simplex."""
        inside = (g >= -TOLERANCE).all(dim=-1) & ((g.sum(dim=-1) - 1.0).abs() <= TOLERANCE * g.shape[-1])
        held = g.clamp(min=0.0)
        return _within(torch.special.xlogy(held, held).sum(dim=-1) / self.beta, inside)


@dataclass(frozen=True, slots=True)
class Power:
    """L = sum relu(x)^n / n, n >= 2, g = relu(x)^(n-1); n = 2 is the rectified linear unit."""

    n: int = 2

    def __post_init__(self) -> None:
        if not 2 <= self.n < math.inf:
            raise ValueError(f"the power must be at least 2 and finite (got {self.n})")

    @property
    def convexity(self) -> float:
        """1 for n = 2; beyond that the activation grows without bound on its slope."""
        return 1.0 if self.n == 2 else 0.0

    def value(self, x: Tensor) -> Tensor:
        """sum relu(x)^n / n."""
        return (x.clamp(min=0.0) ** self.n).sum(dim=-1) / self.n

    def activation(self, x: Tensor) -> Tensor:
        """relu(x)^(n-1)."""
        return x.clamp(min=0.0) ** (self.n - 1)

    def conjugate(self, g: Tensor) -> Tensor:
        """sum g^q / q with q = n / (n - 1), for g >= 0."""
        q = self.n / (self.n - 1)
        some = g > 0
        terms = torch.where(some, torch.where(some, g, 1.0) ** q, 0.0)
        return _within(terms.sum(dim=-1) / q, (g >= -TOLERANCE).all(dim=-1))


@dataclass(frozen=True, slots=True)
class Tanh:
    """L = sum log cosh(gain x) / gain, g = tanh(gain x)."""

    gain: float = 1.0

    def __post_init__(self) -> None:
        _check_positive("gain", self.gain)

    @property
    def convexity(self) -> float:
        """1 / gain: the activation is steepest at zero."""
        return 1.0 / self.gain

    def value(self, x: Tensor) -> Tensor:
        """sum log cosh(gain x) / gain, without overflow."""
        size = self.gain * x.abs()
        log_cosh = size + torch.nn.functional.softplus(-2.0 * size) - math.log(2.0)
        return log_cosh.sum(dim=-1) / self.gain

    def activation(self, x: Tensor) -> Tensor:
        """tanh(gain x)."""
        return torch.tanh(self.gain * x)

    def conjugate(self, g: Tensor) -> Tensor:
        """sum of ((1+g) log(1+g) + (1-g) log(1-g)) / (2 gain) for |g| <= 1."""
        inside = (g.abs() <= 1 + TOLERANCE).all(dim=-1)
        up, down = (1 + g).clamp(min=0.0), (1 - g).clamp(min=0.0)
        total = (torch.special.xlogy(up, up) + torch.special.xlogy(down, down)).sum(dim=-1)
        return _within(total / (2.0 * self.gain), inside)


def _within(value: Tensor, inside: Tensor) -> Tensor:
    return torch.where(inside, value, torch.inf)


def _check_positive(name: str, value: float) -> None:
    if not 0.0 < value < math.inf:
        raise ValueError(f"{name} must be positive and finite (got {value})")
