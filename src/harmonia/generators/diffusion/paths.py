"""Gaussian paths between data and noise: x_t = alpha(t) x0 + sigma(t) eps, with data at t = 0, noise at t =
1.

Every diffusion and flow model here has a :class:`GaussianPath` and one of four :data:`PARAMETERISATIONS` of
the network's output. ``prediction`` turns any output into estimates of x0 and eps, which samplers use.
(Kingma et al. 2021, "Variational diffusion models"; Lipman et al. 2023, "Flow matching".)
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from dataclasses import dataclass
from functools import cache, lru_cache
from typing import TypeVar

import torch
from torch import Tensor

from harmonia.types import HarmoniaError

N = TypeVar("N", float, Tensor)

FLOOR = 1e-5
"""Lower bound of alpha and sigma as divisors."""


@dataclass(frozen=True, slots=True, eq=False)
class Prediction:
    """A network's estimates of the data and the noise in x_t, both of its shape; x_t is their mix."""

    x0: Tensor
    epsilon: Tensor


@dataclass(frozen=True, slots=True)
class Point:
    """The coefficients of a path at one time, in double precision."""

    t: float
    alpha: float
    sigma: float
    d_alpha: float
    d_sigma: float


class GaussianPath(ABC):
    """The coefficients of data and noise at each time. Times are tensors of any shape."""

    sigma_data: float = 1.0
    """The standard deviation of the data that the "v" parameterisation and ``scale`` assume."""

    @abstractmethod
    def alpha(self, t: Tensor) -> Tensor:
        """The coefficient of the data."""

    @abstractmethod
    def sigma(self, t: Tensor) -> Tensor:
        """The coefficient of the noise."""

    @abstractmethod
    def d_alpha(self, t: Tensor) -> Tensor:
        """Derivative of ``alpha`` by t."""

    @abstractmethod
    def d_sigma(self, t: Tensor) -> Tensor:
        """Derivative of ``sigma`` by t."""

    def times(self, steps: int, start: float = 1.0) -> Tensor:
        """The times of a sampler, float64 (steps + 1,), from ``start`` down to 0, in the spacing of the
        path."""
        _at_least_one(steps)
        return torch.linspace(start, 0.0, steps + 1, dtype=torch.float64)

    def draw(self, n: int) -> Tensor:
        """Random training times, float32 (n,), as is customary for the path; from torch's global
        generator."""
        return torch.rand(n)

    def at(self, t: float) -> Point:
        """The path at one time; cached for samplers."""
        return _at(self, t)

    def mix(self, x0: Tensor, eps: Tensor, t: Tensor) -> Tensor:
        """x_t of data and noise of one shape (n, ...), at one time t () or at a time for each row, t (n,)."""
        t = _like(t, x0)
        return self.alpha(t) * x0 + self.sigma(t) * eps

    def scale(self, t: Tensor) -> Tensor:
        """1 / the standard deviation of x_t, the input scaling of EDM (c_in)."""
        return (self.alpha(t) ** 2 * self.sigma_data**2 + self.sigma(t) ** 2) ** -0.5

    def snr(self, t: Tensor) -> Tensor:
        """The signal-to-noise ratio alpha^2 / sigma^2, with sigma at least ``FLOOR``."""
        return (self.alpha(t) / self.sigma(t).clamp_min(FLOOR)) ** 2


class VariancePreserving(GaussianPath):
    """alpha^2 + sigma^2 = 1: DDPM, as a chain of T steps (Ho et al. 2020) and at all times in between.

    Step k = 0 .. T - 1 of the chain is at the time (k + 1) / T, where alpha^2 is abar_k = prod (1 - beta_i);
    in between, log alpha is linear. ``times`` are steps of the chain in the "trailing" spacing (Lin et al.
    2024, "Common diffusion noise schedules and sample steps are flawed").
    """

    T: int

    @abstractmethod
    def betas(self) -> Tensor:
        """The variance of each step of the chain, float64 (T,)."""

    def alpha(self, t: Tensor) -> Tensor:
        """Square root of abar."""
        return (0.5 * self._log(t)[0]).exp().to(t.dtype)

    def sigma(self, t: Tensor) -> Tensor:
        """Square root of 1 - abar."""
        return (-torch.expm1(self._log(t)[0])).sqrt().to(t.dtype)

    def d_alpha(self, t: Tensor) -> Tensor:
        """Derivative of ``alpha`` by t; at a step of the chain, that of the piece that ends there."""
        value, slope = self._log(t)
        return (0.5 * slope * (0.5 * value).exp()).to(t.dtype)

    def d_sigma(self, t: Tensor) -> Tensor:
        """Derivative of ``sigma`` by t; sigma is at least ``FLOOR``, so it is finite at 0."""
        return -self.alpha(t) * self.d_alpha(t) / self.sigma(t).clamp_min(FLOOR)

    def times(self, steps: int, start: float = 1.0) -> Tensor:
        """Times of the chain, evenly spaced, down to 0, float64 (steps + 1,)."""
        if steps > round(start * self.T):
            raise HarmoniaError(
                f"{steps} steps are more than the {round(start * self.T)} of the chain: give fewer"
            )
        return (super().times(steps, start) * self.T).round() / self.T

    def draw(self, n: int) -> Tensor:
        """Uniform random steps of the chain, float32 (n,)."""
        return torch.randint(1, self.T + 1, (n,)) / self.T

    def _log(self, t: Tensor) -> tuple[Tensor, Tensor]:
        """log abar and its derivative, float64."""
        table = _log_abar(self).to(t.device)
        place = t.double().clamp(0, 1) * self.T
        end = place.ceil().long().clamp_min(1)
        step = table[end] - table[end - 1]
        return table[end] + (place - end) * step, step * self.T


@dataclass(frozen=True)
class VPLinear(VariancePreserving):
    """beta from ``first`` to ``last`` in even steps (Ho et al. 2020), for T = 1000; scaled for other T."""

    T: int = 1000
    first: float = 1e-4
    last: float = 0.02

    def betas(self) -> Tensor:
        """The variance of each step, float64 (T,)."""
        scale = 1000 / self.T
        return torch.linspace(self.first * scale, self.last * scale, self.T, dtype=torch.float64)


@dataclass(frozen=True)
class VPCosine(VariancePreserving):
    """abar = cos^2(pi/2 (t + s) / (1 + s)) over its value at 0, s = 0.008 (Nichol and Dhariwal 2021).

    beta is at most 0.999, so alpha stays above 0: about 5e-5 at t = 1.
    """

    T: int = 1000

    def betas(self) -> Tensor:
        """The variance of each step, float64 (T,)."""
        t = torch.arange(self.T + 1, dtype=torch.float64) / self.T
        abar = ((t + 0.008) / 1.008 * math.pi / 2).cos() ** 2
        return (1 - abar[1:] / abar[:-1]).clamp_max(0.999)


@dataclass(frozen=True)
class CondOT(GaussianPath):
    """alpha = 1 - t, sigma = t: straight lines, rectified flow (Liu et al. 2023, Lipman et al. 2023)."""

    def alpha(self, t: Tensor) -> Tensor:
        """1 - t."""
        return 1 - t

    def sigma(self, t: Tensor) -> Tensor:
        """t."""
        return t

    def d_alpha(self, t: Tensor) -> Tensor:
        """-1."""
        return -torch.ones_like(t)

    def d_sigma(self, t: Tensor) -> Tensor:
        """1."""
        return torch.ones_like(t)


@dataclass(frozen=True)
class EDM(GaussianPath):
    """alpha = 1, sigma = sigma_max t^rho: the variance-exploding path of EDM (Karras et al. 2022).

    Even steps of t are Karras's spacing of sigma; samplers go down to ``sigma_min`` and then to 0.

    Preconditioning is that of the paper when a network is given ``scale(t) * x_t`` and puts out "v", which is
    then -F: D = c_skip x - c_out v, with c_skip = sd^2 / (sigma^2 + sd^2) and
    c_out = sigma sd / sqrt(sigma^2 + sd^2), sd = ``sigma_data``.
    """

    sigma_min: float = 0.002
    sigma_max: float = 80.0
    rho: float = 7.0
    sigma_data: float = 0.5

    def alpha(self, t: Tensor) -> Tensor:
        """1."""
        return torch.ones_like(t)

    def sigma(self, t: Tensor) -> Tensor:
        """sigma_max t^rho."""
        return self.sigma_max * t**self.rho

    def d_alpha(self, t: Tensor) -> Tensor:
        """0."""
        return torch.zeros_like(t)

    def d_sigma(self, t: Tensor) -> Tensor:
        """sigma_max rho t^(rho - 1)."""
        return self.sigma_max * self.rho * t ** (self.rho - 1)

    @property
    def least(self) -> float:
        """The time of ``sigma_min``."""
        return float((self.sigma_min / self.sigma_max) ** (1 / self.rho))

    def times(self, steps: int, start: float = 1.0) -> Tensor:
        """Even from ``start`` down to the time of ``sigma_min``, or half of it where it begins below that,
        then 0: float64 (steps + 1,)."""
        _at_least_one(steps)
        last = self.least if start > self.least else start / 2
        return torch.cat([torch.linspace(start, last, steps, dtype=torch.float64), torch.zeros(1)])

    def draw(self, n: int) -> Tensor:
        """Times of log-normal sigma, ln sigma ~ N(-1.2, 1.2^2), as in the paper: float32 (n,)."""
        sigma = (torch.randn(n) * 1.2 - 1.2).exp()
        return (sigma / self.sigma_max).pow(1 / self.rho).clamp(self.least, 1)


PATHS: dict[str, GaussianPath] = {
    "vp-linear": VPLinear(),
    "vp-cosine": VPCosine(),
    "cond-ot": CondOT(),
    "edm": EDM(),
}

PARAMETERISATIONS = ("epsilon", "x0", "v", "velocity")
"""What a network can output; see ``target``."""


def target(kind: str, path: GaussianPath, x0: Tensor, eps: Tensor, t: Tensor) -> Tensor:
    """The target of a network of this kind at x_t, of the shape of x0 (n, ...); t is () or (n,).

    ``epsilon``   the noise (Ho et al. 2020); does not determine x0 where alpha is 0
    ``x0``        the data; does not determine the noise where sigma is 0
    ``v``         x_t rotated by a quarter, (alpha sd eps - sigma x0 / sd) / sqrt(alpha^2 sd^2 + sigma^2) with
                  sd = path.sigma_data: alpha eps - sigma x0 on a variance-preserving path (Salimans and Ho
                  2022), -F on EDM; of variance 1, and it determines both at every time
    ``velocity``  dx_t / dt = alpha' x0 + sigma' eps: eps - x0 on CondOT (flow matching)
    """
    _known(kind)
    if kind == "epsilon":
        return eps
    if kind == "x0":
        return x0
    t = _like(t, x0)
    if kind == "velocity":
        return path.d_alpha(t) * x0 + path.d_sigma(t) * eps
    sd = path.sigma_data
    return (path.alpha(t) * sd * eps - path.sigma(t) / sd * x0) * path.scale(t)


def prediction(kind: str, path: GaussianPath, output: Tensor, x_t: Tensor, t: Tensor) -> Prediction:
    """Estimates of data and noise from a network's output of a kind; t is () or (n,).

    "v" and "velocity" (on CondOT) involve no small divisor; "epsilon" and "x0" divide by alpha and sigma,
    which are at least ``FLOOR``. To convert between kinds: ``target(other, path, p.x0, p.epsilon, t)`` of the
    prediction p.
    """
    _known(kind)
    if t.dim() == 0:  # numbers, once per time: a sampler's step is then a handful of tensor operations
        p = path.at(float(t))
        return _ends(kind, output, x_t, p.alpha, p.sigma, p.d_alpha, p.d_sigma, path.sigma_data)
    t = _like(t, x_t)
    slopes = (path.d_alpha(t), path.d_sigma(t)) if kind == "velocity" else (t, t)
    return _ends(kind, output, x_t, path.alpha(t), path.sigma(t), *slopes, path.sigma_data)


def _ends(
    kind: str, output: Tensor, x: Tensor, alpha: N, sigma: N, d_alpha: N, d_sigma: N, sd: float
) -> Prediction:
    """Solve x = alpha x0 + sigma eps for x0 and eps, given the output; coefficients are numbers or rows."""
    if kind == "epsilon":
        share = 1 / _floor(alpha)
        return Prediction(_sum(x, share, output, -sigma * share), output)
    if kind == "x0":
        share = 1 / _floor(sigma)
        return Prediction(output, _sum(x, share, output, -alpha * share))
    if kind == "v":
        share = 1 / (alpha**2 * sd**2 + sigma**2)
        turn = sd * share**0.5
        x0 = _sum(x, alpha * sd**2 * share, output, -sigma * turn)
        return Prediction(x0, _sum(x, sigma * share, output, alpha * turn))
    share = 1 / _floor(alpha * d_sigma - sigma * d_alpha)
    x0 = _sum(x, d_sigma * share, output, -sigma * share)
    return Prediction(x0, _sum(x, -d_alpha * share, output, alpha * share))


def _sum(x: Tensor, a: N, y: Tensor, b: N) -> Tensor:
    """a x + b y, in as few passes as it takes."""
    if isinstance(a, Tensor):
        return a * x + b * y
    return torch.add(x if a == 1 else x * a, y, alpha=b)


def _floor(value: N) -> N:
    return value.clamp_min(FLOOR) if isinstance(value, Tensor) else max(value, FLOOR)


def _known(kind: str) -> None:
    if kind not in PARAMETERISATIONS:
        raise HarmoniaError(
            f"there is no parameterisation {kind!r}: choose from {', '.join(PARAMETERISATIONS)}"
        )


def _at_least_one(steps: int) -> None:
    if steps < 1:
        raise HarmoniaError(f"steps must be at least 1, not {steps}")


def _like(t: Tensor, x: Tensor) -> Tensor:
    """Times with the trailing dimensions of x, for broadcasting."""
    return t.to(x).view(-1, *([1] * (x.dim() - 1))) if t.dim() else t.to(x)


@cache
def _log_abar(path: VariancePreserving) -> Tensor:
    """log abar at the times 0, 1/T .. 1."""
    return torch.cat([torch.zeros(1, dtype=torch.float64), torch.log1p(-path.betas()).cumsum(0)])


@lru_cache(4096)
def _at(path: GaussianPath, t: float) -> Point:
    time = torch.tensor(t, dtype=torch.float64)
    parts = (path.alpha(time), path.sigma(time), path.d_alpha(time), path.d_sigma(time))
    return Point(t, *(float(part) for part in parts))
