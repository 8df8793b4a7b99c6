"""From noise to data in few steps, given what a network takes the ends of x_t to be.

All follow dx = x0 d(alpha) + eps d(sigma), the probability flow of a Gaussian path, or the chain that has the
same marginals. Written by the ends alone, no step divides by a vanishing alpha or sigma.
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
"""Of x (n, ...) and one time for all rows, a tensor () of its type and device: both ends of x."""


@dataclass(frozen=True, slots=True, eq=False)
class Track:
    """The times of a run: as tensors () for the network, and the path there, in numbers."""

    times: tuple[Tensor, ...]
    points: tuple[Point, ...]


class Sampler(ABC):
    """A way from noise to data; a frozen dataclass that holds its settings."""

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
            predict: the network, its output as both ends, with what guidance there is.
            path: that the network was trained on.
            noise: the samples begin as it, scaled to the spread that the path has at ``start``.
            steps: how many; the times are ``path.times(steps, start)``.
            start: the time to begin at: less than 1 with ``begin``, data that is then mixed with the noise
                and so keeps its coarse features (SDEdit; Meng et al. 2022).
            begin: (n, ...) or None.
            generator: of the noise that a stochastic sampler adds, on the CPU.
            watch: told after each step, with the x0 that the step was made from.
        """
        if not 0 < start <= 1 or (begin is None and start != 1):
            raise HarmoniaError(f"start is in (0, 1], and below 1 only with data to begin from, not {start}")
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
        """After each step: the new x, and the x0 that the network took it to lead to."""


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
        """Posterior mean, and noise of the posterior's variance."""
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
        """Go to the mix of both ends at the next time."""
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
        """One evaluation a step."""
        for t, (a, b) in zip(track.times, pairwise(track.points), strict=False):
            p = predict(x, t)
            x = _move(x, p.x0, p.epsilon, a, b)
            yield x, p.x0


@dataclass(frozen=True)
class Heun(Sampler):
    """Euler's step, then again with the mean of the ends before and after it (Karras et al. 2022).

    Second order; two evaluations a step, one for the last, which goes to no noise.
    """

    def walk(
        self, predict: Predict, x: Tensor, track: Track, generator: torch.Generator | None
    ) -> Iterator[tuple[Tensor, Tensor]]:
        """The trapezoid rule."""
        for (t, s), (a, b) in zip(pairwise(track.times), pairwise(track.points), strict=True):
            p = predict(x, t)
            ahead = _move(x, p.x0, p.epsilon, a, b)
            if b.sigma > 0:
                q = predict(ahead, s)
                # half of the way was made by p, the other half is q's
                ahead = _move(torch.lerp(x, ahead, 0.5), q.x0, q.epsilon, a, b, 0.5)
            x = ahead
            yield x, p.x0


@dataclass(frozen=True)
class DPMSolverPP2M(Sampler):
    """DPM-Solver++(2M) (Lu et al. 2022): x0 is carried on in log(alpha / sigma) from the last two estimates.

    Second order at one evaluation a step; the first step, and the last, to no noise, are DDIM's.
    """

    def walk(
        self, predict: Predict, x: Tensor, track: Track, generator: torch.Generator | None
    ) -> Iterator[tuple[Tensor, Tensor]]:
        """One evaluation a step, and the one before it."""
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
    """Standard deviation of q(x_s | x_t, x0), of a later time a and an earlier one b."""
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
