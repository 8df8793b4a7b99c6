"""Confidence intervals (bootstrap, jackknife) and a paired permutation test of two systems."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from harmonia.types import HarmoniaError

Values = Tensor | Sequence[float] | NDArray[Any]
BATCH = 64


@dataclass(frozen=True, slots=True)
class Interval:
    """A mean, and the interval that holds the true one with probability ``level``."""

    mean: float
    low: float
    high: float
    level: float


def bootstrap(
    values: Values, seed: int = 0, *, groups: Values | None = None, level: float = 0.95, draws: int = 2000
) -> Interval:
    """The percentile interval of the mean of ``values`` (n,), one for each query; NaN is left out.

    Queries that belong together (the five captions of one photo) are not independent: name the record of each
    in ``groups`` (n,), and whole records are drawn (cluster bootstrap; Efron and Tibshirani 1993). Too narrow
    for less than some twenty values: of three seeds quote all three.
    """
    if not 0 < level < 1 or draws < 1:
        raise HarmoniaError(f"a bootstrap needs 0 < level < 1 and draws >= 1, got {level} and {draws}")
    sums, counts = _by_group(_array(values), groups)
    mean = float(sums.sum() / counts.sum())
    if len(sums) == 1:
        raise HarmoniaError("an interval needs two values, or two groups of them, at least")
    rng = np.random.default_rng(seed)
    means: list[float] = []
    for start in range(0, draws, BATCH):
        drawn = rng.integers(0, len(sums), (min(BATCH, draws - start), len(sums)))
        means.extend(sums[drawn].sum(axis=1) / counts[drawn].sum(axis=1))
    low, high = np.quantile(means, [(1 - level) / 2, (1 + level) / 2])
    return Interval(mean, float(low), float(high), level)


def pivotal(
    statistic: Callable[[Tensor], float], n: int, *, level: float = 0.95, draws: int = 200, seed: int = 0
) -> Interval:
    """The pivotal bootstrap of a statistic of n rows: a function of how often (n,) each row counts."""
    if not 0 < level < 1 or draws < 2:
        raise HarmoniaError(f"a bootstrap needs 0 < level < 1 and draws >= 2, got {level} and {draws}")
    generator = torch.Generator().manual_seed(seed)
    found = statistic(torch.ones(n))
    again = torch.tensor(
        [
            statistic(torch.randint(n, (n,), generator=generator).bincount(minlength=n).double())
            for _ in range(draws)
        ],
        dtype=torch.float64,
    )
    tail = (1 - level) / 2
    least, most = again.quantile(torch.tensor([tail, 1 - tail], dtype=torch.float64)).tolist()
    return Interval(2 * found - float(again.mean()), 2 * found - most, 2 * found - least, level)


def jackknife(value: float, without: Values, *, level: float = 0.95, beside: float = 0.0) -> Interval:
    """The interval of a statistic of n rows that is no mean, by leaving out each row once.

    Resampling with replacement does not do for what looks at neighbours: a row that is drawn twice is its own
    nearest one (Abadie and Imbens 2008). The jackknife's variance is on the average at least the true one
    (Efron and Stein 1981), so the interval is rather too wide.

    Args:
        value: of all rows.
        without: (n,) the statistic without each of them.
        level: how likely the interval holds what the statistic is on the average.
        beside: variance of ``value`` that does not come from the rows.
    """
    found = _array(without)
    n = len(found)
    if not 0 < level < 1 or n < 2:
        raise HarmoniaError(f"a jackknife needs 0 < level < 1 and two rows at least, got {level} and {n}")
    variance = (n - 1) * float(found.var()) + beside
    half = student_t(level, n - 1) * variance**0.5
    return Interval(value, value - half, value + half, level)


def student_t(level: float, freedom: int) -> float:
    """The t for which Student's variable of ``freedom`` degrees lies within -t and t with chance ``level``.

    By bisection of the closed form of that chance (Abramowitz and Stegun 1964, 26.7.3 and 26.7.4).
    """
    steps = np.arange(2 + freedom % 2, freedom - 1, 2, dtype=np.float64)
    low, high = 0.0, math.pi / 2
    for _ in range(60):
        angle = (low + high) / 2
        sine, cosine = math.sin(angle), math.cos(angle)
        series = sine * (1 + np.cumprod((1 - 1 / steps) * cosine**2).sum())
        if freedom % 2:
            series = 2 / math.pi * (angle + (series * cosine if freedom > 1 else 0))
        low, high = (angle, high) if series < level else (low, angle)
    return math.tan(low) * math.sqrt(freedom)


def paired_test(
    a: Values, b: Values, seed: int = 0, *, groups: Values | None = None, draws: int = 9999
) -> float:
    """Two-sided p-value of a and b (n,), values of the same queries, having one mean: sign-flip permutation
    test.

    Under the hypothesis a and b could be swapped for any query, or for any of the ``groups`` as a whole.
    Drawn at random, the test includes what was observed, so p is at least 1 / (draws + 1) (Phipson and Smyth
    2010). Queries that are NaN in either are left out.

    scipy.stats.permutation_test does the same forty times slower, as it may not know that signs suffice.
    """
    first, second = _array(a), _array(b)
    if len(first) != len(second):
        raise HarmoniaError(f"a pair needs the same queries in both, got {len(first)} and {len(second)}")
    if draws < 1:
        raise HarmoniaError(f"a test needs one draw at least, got {draws}")
    difference, _ = _by_group(first - second, groups)
    rng = np.random.default_rng(seed)
    # Rounding must not make a draw that equals the observed one look smaller.
    observed = abs(difference.sum()) - 1e-12 * np.abs(difference).sum()
    extreme = 1
    for start in range(0, draws, BATCH):
        signs = rng.integers(0, 2, (min(BATCH, draws - start), len(difference))) * 2 - 1
        extreme += int((np.abs(signs @ difference) >= observed).sum())
    return extreme / (draws + 1)


def _array(values: Values) -> NDArray[np.float64]:
    out = np.asarray(values.detach().cpu() if isinstance(values, Tensor) else values, dtype=np.float64)
    if out.ndim != 1:
        raise HarmoniaError(f"give one value for each query, got an array of shape {out.shape}")
    return out


def _by_group(
    values: NDArray[np.float64], groups: Values | None
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Sum and number of the values of each group, without those that are NaN."""
    names = np.arange(len(values)) if groups is None else _array(groups)
    if len(names) != len(values):
        raise HarmoniaError(f"{len(values)} values need as many groups, got {len(names)}")
    there = ~np.isnan(values)
    if not there.any():
        raise HarmoniaError("there is no value: all queries were left out")
    _, group = np.unique(names[there], return_inverse=True)
    sums: NDArray[np.float64] = np.bincount(group, weights=values[there]).astype(np.float64)
    return sums, np.bincount(group).astype(np.float64)
