"""How many memories fit, by the mean-field formula for random unit slots.

A cue meets its own slot at cosine c and N other slots, uniform on the unit sphere in d dimensions, at
random. Softmax at inverse temperature beta then gives the right slot about

    p = 1 / (1 + N / N_half)        N_half = e^{beta c} / M_d(beta)

where  M_d(beta) = E e^{beta <x, g>} = Gamma(d/2) (2/beta)^{d/2-1} I_{d/2-1}(beta) = 0F1(; d/2; beta^2/4)
is the normaliser of the von Mises-Fisher distribution (Mardia and Jupp 2000, "Directional Statistics",
9.3). It replaces the sum over the other slots by its mean, and 1/(1 + x) is convex, so by Jensen the mean
of p over draws of the slots is never below the formula. It is nearly equal to it while very many of the
slots make up the sum, N (1 - A^2)^{d/2} >> 1 with A = ``mean_cosine(beta, d)``; beyond that (the frozen
phase of the random energy model) a few slots do, and more fits than the formula says.

d need not be whole: codes whose chance cosines have the root mean square sigma behave as if d were
1/sigma^2.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import torch
from torch import Tensor

__all__ = [
    "best_beta",
    "beta_for",
    "capacity",
    "cosine_of_noise",
    "curves",
    "log_capacity",
    "log_half_capacity",
    "log_mean_weight",
    "mean_cosine",
    "probability",
    "weakest_cue",
]

# Halvings of an interval: down to the last bits of a double.
HALVINGS = 60
# Terms of the series kept on each side of the greatest, in standard deviations of their distribution.
DEVIATIONS = 12.0


def log_mean_weight(beta: float, d: float) -> float:
    """log M_d(beta): the logarithm of the mean of e^{beta <x, g>} over the sphere; beta >= 0, d > 0."""
    return 0.0 if beta == 0 else float(torch.logsumexp(_series(beta, d)[1], 0))


def mean_cosine(beta: float, d: float) -> float:
    """A_d(beta) = I_{d/2}(beta) / I_{d/2-1}(beta), the derivative of ``log_mean_weight``."""
    if beta == 0:
        return 0.0
    order, terms = _series(beta, d)
    return float((torch.softmax(terms, 0) * order).sum()) * 2.0 / beta


def log_half_capacity(beta: float, d: float, cosine: float) -> float:
    """log N_half: the number of other slots among which the right one keeps half of the probability."""
    return beta * cosine - log_mean_weight(beta, d)


def probability(slots: float, beta: float, d: float, cosine: float) -> float:
    """The mean-field probability of the right slot among ``slots`` others."""
    if slots <= 0:
        return 1.0
    return _sigmoid(log_half_capacity(beta, d, cosine) - math.log(slots))


def best_beta(d: float, cosine: float) -> float:
    """The beta of the greatest N_half, where A_d(beta) = ``cosine``; 0 for a cosine of 0 or less.

    It is the concentration of the von Mises-Fisher distribution with that mean cosine, and lies within
    c (d - 2) / (1 - c^2) and c d / (1 - c^2) (Hornik and Gruen 2014).
    """
    if cosine <= 0:
        return 0.0
    if cosine >= 1:
        return math.inf
    scale = cosine / (1.0 - cosine**2)
    low, high = scale * max(d - 2.0, 0.0), scale * d
    return _first(lambda beta: mean_cosine(beta, d) >= cosine, low, high)


def beta_for(slots: float, d: float, cosine: float, target: float = 0.5) -> float:
    """The least beta that gives the right slot the probability ``target`` among ``slots`` others.

    Where no beta does, the best one: ``probability`` says what it gives.
    """
    needed = _needed(slots, target)
    best = best_beta(d, cosine)
    if best == 0 or needed <= 0:
        return 0.0
    if math.isinf(best):
        # The cue is the slot itself: any probability is reached, so look as far as needed.
        best = 2.0 * max(needed, 1.0)
        while log_half_capacity(best, d, cosine) < needed:
            best *= 2.0
    if log_half_capacity(best, d, cosine) <= needed:
        return best
    return _first(lambda beta: log_half_capacity(beta, d, cosine) >= needed, 0.0, best)


def log_capacity(d: float, cosine: float, target: float = 0.5, beta: float | None = None) -> float:
    """The logarithm of the most other slots among which the right one keeps the probability ``target``.

    At the given ``beta``, or at the best one.
    """
    beta = best_beta(d, cosine) if beta is None else beta
    if math.isinf(beta):
        return math.inf
    return log_half_capacity(beta, d, cosine) - _logit(target)


def capacity(d: float, cosine: float, target: float = 0.5, beta: float | None = None) -> float:
    """The most other slots, a whole number; ``inf`` beyond the range of a double."""
    log = log_capacity(d, cosine, target, beta)
    return math.inf if log > 709.0 else float(math.floor(math.exp(log)))


def weakest_cue(slots: float, d: float, target: float = 0.5, beta: float | None = None) -> float:
    """The least cosine of a cue that recalls its slot among ``slots`` others with probability ``target``.

    At the given ``beta`` (above 1: no cue does; below 0: any does), or at the best one.
    """
    needed = _needed(slots, target)
    if beta is not None:
        return (needed + log_mean_weight(beta, d)) / beta
    if needed <= 0:
        return 0.0
    return _first(lambda c: log_capacity(d, c, 0.5) >= needed, 0.0, 1.0)


def cosine_of_noise(variance: float) -> float:
    """The cosine of a cue with its slot, for a slot of unit variance per number plus noise N(0, variance).

    That is sqrt(d) x + noise for unit x; the limit of many dimensions.
    """
    return 1.0 / math.sqrt(1.0 + variance)


def curves(slots: Sequence[float], cosines: Sequence[float], d: float, beta: float | None = None) -> Tensor:
    """Probabilities of the right slot, float64 ``(slots, cosines)``; ``beta`` as in ``log_capacity``."""
    # The capacity at which the odds are even is N_half.
    half = torch.tensor([log_capacity(d, c, 0.5, beta) for c in cosines], dtype=torch.float64)
    return torch.sigmoid(half - torch.tensor(slots, dtype=torch.float64).log()[:, None])


def _series(beta: float, d: float) -> tuple[Tensor, Tensor]:
    """Orders k, and logarithms of the terms (beta^2/4)^k / (k! (d/2)(d/2 + 1)..(d/2 + k - 1)) of 0F1.

    All terms are positive, so nothing cancels. As a distribution over k they are narrower than a Poisson
    distribution of the same mode, so a window about the greatest holds all that a double can see.
    """
    half = 0.5 * d
    # The ratio of neighbours passes 1 where (k + 1)(k + d/2) = beta^2/4.
    mode = 0.5 * (math.sqrt((half - 1.0) ** 2 + beta**2) - half - 1.0)
    reach = DEVIATIONS * math.sqrt(max(mode, 0.0)) + 5.0 * DEVIATIONS
    first = max(0, math.floor(mode - reach))
    order = torch.arange(first, math.ceil(max(mode, 0.0) + reach) + 1, dtype=torch.float64)
    terms = torch.lgamma(torch.tensor(half, dtype=torch.float64)) - torch.lgamma(half + order)
    return order, terms - torch.lgamma(order + 1.0) + 2.0 * order * math.log(0.5 * beta)


def _needed(slots: float, target: float) -> float:
    """The log N_half that gives ``target`` among ``slots`` others."""
    return -math.inf if slots <= 0 else math.log(slots) + _logit(target)


def _logit(target: float) -> float:
    if not 0.0 < target < 1.0:
        raise ValueError(f"a probability to reach lies between 0 and 1 (got {target})")
    return math.log(target / (1.0 - target))


def _sigmoid(x: float) -> float:
    return 1.0 / (1.0 + math.exp(-x)) if x >= 0 else math.exp(x) / (1.0 + math.exp(x))


def _first(holds: Callable[[float], bool], low: float, high: float) -> float:
    """Where ``holds`` turns true between ``low`` and ``high``, true from there on; ``high`` if only there."""
    for _ in range(HALVINGS):
        middle = 0.5 * (low + high)
        low, high = (low, middle) if holds(middle) else (middle, high)
    return high
