"""Samplers: DDPM (ancestral), DDIM, Euler, Heun and DPM-Solver++.

All follow dx = x0 d(alpha) + eps d(sigma), the probability flow of a Gaussian path, or the chain with the
same marginals. Written in x0 and eps, no step divides by a vanishing alpha or sigma.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import pairwise

import torch
from torch import Tensor

from harmonia.generators.base import Watch
from harmonia.generators.diffusion.paths import GaussianPath, Point, Prediction
from harmonia.types import HarmoniaError

Predict = Callable[[Tensor, Tensor], Prediction]
"""From x (n, ...) and one time for all rows, a tensor () of its type and device, to a prediction."""


@dataclass(frozen=True, slots=True, eq=False)
class Track:
    """The times of a run, as tensors () for the network, and the coefficients of the path there."""

    times: tuple[Tensor, ...]
    points: tuple[Point, ...]


class Sampler(ABC):
    """A method of sampling; a frozen dataclass of its settings."""

    def run(
        self,
        predict: Predict,
        path: GaussianPath,
        noise: Tensor,
        steps: int,
        *,
        start: float = 1.0,
        begin: Tensor | None = None,
        generator: torch.Generator | None = None,
        watch: Watch | None = None,
    ) -> Tensor:
        """Samples of the shape, type and device of ``noise``, which is standard normal (n, ...).

        Args:
            predict: the network, with any guidance.
            path: that the network was trained on.
            noise: the initial samples, scaled to the spread of the path at ``start``.
            steps: number of steps; the times are ``path.times(steps, start)``.
            start: the time to start at. Less than 1 with ``begin``, data that is mixed with the noise and so
                keeps its coarse features (SDEdit; Meng et al. 2022).
            begin: (n, ...) or None.
            generator: of the noise that a stochastic sampler adds, on the CPU.
            watch: called after each step with the x0 estimate of the step.
        """
        if not 0 < start <= 1 or (begin is None and start != 1):
            raise HarmoniaError(f"start must be in (0, 1], and 1 without samples to begin from, not {start}")
        times = path.times(steps, start).to(noise.dtype)
        points = tuple(path.at(t) for t in times.tolist())
        track = Track(times.to(noise.device).unbind(), points)
        x = noise / path.scale(times[0]) if begin is None else path.mix(begin.to(noise), noise, times[0])
        for step, (ahead, x0) in enumerate(self.walk(predict, x, track, generator), 1):
            x = ahead
            if watch is not None:
                watch(step, steps, x0)
        return x

    @abstractmethod
    def walk(
        self, predict: Predict, x: Tensor, track: Track, generator: torch.Generator | None
    ) -> Iterator[tuple[Tensor, Tensor]]:
        """Yields the new x and the x0 estimate after each step."""


@dataclass(frozen=True)
class Ancestral(Sampler):
    """The reverse chain of DDPM (Ho et al. 2020): a draw from q(x_s | x_t, x0) for the predicted x0.

    With one step of the chain and x0 written by epsilon this is
    x_{t-1} = (x_t - beta_t / sqrt(1 - abar_t) eps) / sqrt(1 - beta_t) + sigma_t z, where
    sigma_t^2 = beta_t (1 - abar_{t-1}) / (1 - abar_t).
    """

    def walk(
        self, predict: Predict, x: Tensor, track: Track, generator: torch.Generator | None
    ) -> Iterator[tuple[Tensor, Tensor]]:
        """Yields the posterior mean plus noise of the posterior's variance."""
        for t, (a, b) in zip(track.times, pairwise(track.points), strict=False):
            x0 = predict(x, t).x0
            own = a.alpha / b.alpha * (b.sigma / a.sigma) ** 2
            x = _noised(torch.add(x0 * (b.alpha - a.alpha * own), x, alpha=own), _posterior(a, b), generator)
            yield x, x0


@dataclass(frozen=True)
class DDIM(Sampler):
    """alpha_s x0 + sqrt(sigma_s^2 - d^2) eps + d z (Song et al. 2021); d is eta times that of ``Ancestral``.

    ``eta`` 0 is deterministic and the first-order method for every path; 1 is the reverse chain.
    """

    eta: float = 0.0

    def walk(
        self, predict: Predict, x: Tensor, track: Track, generator: torch.Generator | None
    ) -> Iterator[tuple[Tensor, Tensor]]:
        """Yields the mix of x0 and noise at the next time."""
        for t, (a, b) in zip(track.times, pairwise(track.points), strict=False):
            p, d = predict(x, t), self.eta * _posterior(a, b)
            x = torch.add(p.x0 * b.alpha, p.epsilon, alpha=max(b.sigma**2 - d**2, 0.0) ** 0.5)
            x = _noised(x, d, generator)
            yield x, p.x0


@dataclass(frozen=True)
class Euler(Sampler):
    """x + (alpha_s - alpha_t) x0 + (sigma_s - sigma_t) eps: Euler's steps of the flow in alpha and sigma.

    On CondOT that is x + (s - t) velocity, on EDM Karras's first-order step; where x is the mix of both ends,
    as after ``prediction``, it is DDIM with eta = 0.
    """

    def walk(
        self, predict: Predict, x: Tensor, track: Track, generator: torch.Generator | None
    ) -> Iterator[tuple[Tensor, Tensor]]:
        """Takes one evaluation for each step."""
        for t, (a, b) in zip(track.times, pairwise(track.points), strict=False):
            p = predict(x, t)
            x = _move(x, p.x0, p.epsilon, a, b)
            yield x, p.x0


@dataclass(frozen=True)
class Heun(Sampler):
    """Euler's step, corrected by the mean of the slopes before and after it (Karras et al. 2022).

    Second order with two evaluations for each step, and one for the last, which ends without noise.
    """

    def walk(
        self, predict: Predict, x: Tensor, track: Track, generator: torch.Generator | None
    ) -> Iterator[tuple[Tensor, Tensor]]:
        """Applies the trapezoid rule."""
        for (t, s), (a, b) in zip(pairwise(track.times), pairwise(track.points), strict=True):
            p = predict(x, t)
            ahead = _move(x, p.x0, p.epsilon, a, b)
            if b.sigma > 0:
                q = predict(ahead, s)
                # half of the step is by p, the other half by q
                ahead = _move(torch.lerp(x, ahead, 0.5), q.x0, q.epsilon, a, b, 0.5)
            x = ahead
            yield x, p.x0


@dataclass(frozen=True)
class DPMSolverPP2M(Sampler):
    """DPM-Solver++(2M) (Lu et al. 2022): x0 is extrapolated in log(alpha / sigma) from the last two
    estimates.

    Second order with one evaluation for each step; the first and the last step are those of DDIM.
    """

    def walk(
        self, predict: Predict, x: Tensor, track: Track, generator: torch.Generator | None
    ) -> Iterator[tuple[Tensor, Tensor]]:
        """Combines the evaluation of a step with the one before."""
        last: Tensor | None = None
        weights = _multistep(track.points)
        for t, (a, b), weight in zip(track.times, pairwise(track.points), weights, strict=False):
            x0 = predict(x, t).x0
            own = b.sigma / a.sigma
            ahead = x0 if last is None or weight == 0 else torch.lerp(last, x0, 1 + weight)
            x = torch.add(x * own, ahead, alpha=b.alpha - a.alpha * own)
            last = x0
            yield x, x0


SAMPLERS: dict[str, Sampler] = {
    "ancestral": Ancestral(),
    "ddim": DDIM(),
    "euler": Euler(),
    "heun": Heun(),
    "dpm++2m": DPMSolverPP2M(),
}


def _move(x: Tensor, x0: Tensor, epsilon: Tensor, a: Point, b: Point, share: float = 1.0) -> Tensor:
    if a.alpha != b.alpha:
        x = torch.add(x, x0, alpha=share * (b.alpha - a.alpha))
    return torch.add(x, epsilon, alpha=share * (b.sigma - a.sigma))


def _posterior(a: Point, b: Point) -> float:
    """Standard deviation of q(x_s | x_t, x0), for a later time a and an earlier time b."""
    return float(b.sigma * max(1 - (a.alpha * b.sigma / (b.alpha * a.sigma)) ** 2, 0.0) ** 0.5)


def _noised(x: Tensor, deviation: float, generator: torch.Generator | None) -> Tensor:
    if deviation == 0:
        return x
    z = torch.randn(x.shape, generator=generator, dtype=x.dtype).to(x.device)
    return torch.add(x, z, alpha=deviation)


def _multistep(points: tuple[Point, ...]) -> list[float]:
    """1 / (2 r) of each step, r = the step of log(alpha / sigma) before over this one; 0: first order."""
    weights = [0.0]
    for a, b, c in zip(points, points[1:], points[2:], strict=False):
        if c.sigma == 0 or a.alpha == 0:
            weights.append(0.0)
            continue
        weights.append(_lambda(b, c) / (2 * _lambda(a, b)))
    return weights


def _lambda(a: Point, b: Point) -> float:
    return math.log(b.alpha * a.sigma / (b.sigma * a.alpha))
