"""Frechet distance between two sets of features, its value for infinitely many samples, and an interval.

Heusel et al. 2017: the distance between two Gaussians with the moments of the sets,

    d^2 = |m1 - m2|^2 + tr(S1) + tr(S2) - 2 tr((S1 S2)^(1/2)).

The last term is the sum of the singular values of R1^T R2, with S = R R^T. Nothing is squared on the way, so
that covariances of low rank (fewer samples than features, dead features) lose no digits, where the square
root of the product S1 S2 becomes complex.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from harmonia.metrics.scores import check_codes
from harmonia.metrics.significance import Interval, pivotal
from harmonia.types import HarmoniaError


@dataclass(frozen=True, slots=True, eq=False)
class Moments:
    """Mean (d,) and covariance (d, d), float64, of ``n`` rows."""

    mean: Tensor
    covariance: Tensor
    n: int


def moments(x: Tensor, weights: Tensor | None = None) -> Moments:
    """Of rows x (n, d), n >= 2; ``weights`` (n,) counts a row several times, or not at all."""
    check_codes(x, "features", least=2)
    x = x.double()
    w = torch.ones(len(x), dtype=torch.float64) if weights is None else weights.double()
    n = float(w.sum())
    mean = w @ x / n
    centred = (x - mean) * w.sqrt()[:, None]
    return Moments(mean, centred.T @ centred / (n - 1), round(n))


def frechet(a: Moments, b: Moments) -> float:
    """The squared Frechet (2-Wasserstein) distance between the Gaussians of two sets of moments."""
    if a.mean.shape != b.mean.shape:
        raise HarmoniaError(
            f"features of width {len(a.mean)} and {len(b.mean)} cannot be compared: use one network for both"
        )
    cross = torch.linalg.svdvals(_root(a.covariance).T @ _root(b.covariance)).sum()
    apart = (a.mean - b.mean).square().sum()
    # rounding may leave equal sets a hair below zero
    return max(0.0, float(apart + a.covariance.trace() + b.covariance.trace() - 2 * cross))


def frechet_distance(x: Tensor, y: Tensor) -> float:
    """The Frechet distance of features x (n, d) and y (m, d), by their moments.

    It is biased upwards by about 1 / n + 1 / m times a number that depends on the network: quote n, and use
    ``frechet_at_infinity`` to compare sets of different sizes.
    """
    return frechet(moments(x), moments(y))


def frechet_at_infinity(
    x: Tensor, real: Tensor | Moments, *, points: int = 15, least: float = 0.1, seed: int = 0
) -> float:
    """The Frechet distance that infinitely many samples would have (Chong and Forsyth 2020).

    The distances of random subsets of x (n, d), of ``points`` sizes from ``least`` n to n, lie on a line in
    1 / size; it is read off where that is 0. The bias of ``real`` stays: its moments are the reference, which
    is the same for all systems.
    """
    check_codes(x, "features", least=2)
    if points < 2 or not 0 < least < 1:
        raise HarmoniaError(f"a line needs points >= 2 and 0 < least < 1, got {points} and {least}")
    reference = moments(real) if isinstance(real, Tensor) else real
    generator = torch.Generator().manual_seed(seed)
    sizes = torch.linspace(max(2.0, least * len(x)), len(x), points).round().long()
    values = [
        frechet(moments(x[torch.randperm(len(x), generator=generator)[:size]]), reference)
        for size in sizes.tolist()
    ]
    design = torch.stack([1 / sizes.double(), torch.ones(points, dtype=torch.float64)], dim=1)
    line = torch.linalg.lstsq(design, torch.tensor(values, dtype=torch.float64)[:, None]).solution
    return float(line[1])


def frechet_interval(
    x: Tensor, real: Tensor | Moments, *, level: float = 0.95, draws: int = 200, seed: int = 0
) -> Interval:
    """The unbiased Frechet distance of features x (n, d) to ``real``, and its interval by the bootstrap.

    Pivotal (Efron and Tibshirani 1993): the distance of resampled sets stands to that of x as the latter to
    the true one, with twice the bias, which is why percentiles of the resampled distances would not hold it.
    """
    reference = moments(real) if isinstance(real, Tensor) else real
    return pivotal(lambda w: frechet(moments(x, w), reference), len(x), level=level, draws=draws, seed=seed)


def _root(covariance: Tensor) -> Tensor:
    """R with R R^T = covariance; eigenvalues within rounding of zero are zero."""
    values, vectors = torch.linalg.eigh(covariance)
    least = values[-1].clamp_min(0) * len(values) * torch.finfo(values.dtype).eps
    root: Tensor = vectors * torch.where(values > least, values, 0.0).sqrt()
    return root
