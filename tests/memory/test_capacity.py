"""The capacity formula: its series against SciPy, its inverses, and its prediction against simulation."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import optimize, special

from harmonia.memory import capacity as c

sizes = st.floats(1.5, 600.0)
cosines = st.floats(0.05, 0.97)


@given(beta=st.floats(0.01, 400.0), d=sizes)
@settings(max_examples=40, deadline=None)
def test_the_series_is_scipys(beta: float, d: float) -> None:
    # log of 0F1 by way of the scaled Bessel function, where that does not underflow
    nu = d / 2 - 1
    scaled = special.ive(nu, beta)
    if scaled > 1e-280:
        log = special.gammaln(d / 2) + nu * math.log(2 / beta) + math.log(scaled) + beta
        assert c.log_mean_weight(beta, d) == pytest.approx(log, rel=1e-9, abs=1e-9)
        ratio = special.ive(nu + 1, beta) / scaled
        assert c.mean_cosine(beta, d) == pytest.approx(ratio, rel=1e-9, abs=1e-12)


@pytest.mark.parametrize(("beta", "d"), [(1e-3, 1e6), (5e4, 3.0), (1e5, 1e5), (1e6, 768.0)])
def test_the_series_holds_at_any_size(beta: float, d: float) -> None:
    """Bounds of the ratio I_{d/2} / I_{d/2-1} by Amos 1974; and the integral lies between the slopes."""
    upper = beta / (d / 2 - 0.5 + math.sqrt((d / 2 - 0.5) ** 2 + beta**2))
    lower = beta / (d / 2 - 0.5 + math.sqrt((d / 2 + 0.5) ** 2 + beta**2))
    assert lower * (1 - 1e-9) <= c.mean_cosine(beta, d) <= upper * (1 + 1e-9)
    rise = (c.log_mean_weight(beta, d) - c.log_mean_weight(beta / 2, d)) / (beta / 2)
    assert c.mean_cosine(beta / 2, d) - 1e-12 <= rise <= c.mean_cosine(beta, d) + 1e-12


@given(d=st.floats(2.0, 300.0), cosine=cosines)
@settings(max_examples=20, deadline=None)
def test_the_best_beta_is_best(d: float, cosine: float) -> None:
    best = c.best_beta(d, cosine)
    assert c.mean_cosine(best, d) == pytest.approx(cosine, rel=1e-6)
    around = optimize.minimize_scalar(
        lambda b: -c.log_half_capacity(b, d, cosine), bounds=(0.2 * best, 5 * best), method="bounded"
    )
    assert c.log_half_capacity(best, d, cosine) >= -around.fun - 1e-9


@given(slots=st.floats(2, 1e9), d=st.floats(4.0, 300.0), cosine=cosines, target=st.floats(0.1, 0.9))
@settings(max_examples=20, deadline=None)
def test_the_inverses_invert(slots: float, d: float, cosine: float, target: float) -> None:
    beta = c.beta_for(slots, d, cosine, target)
    reached = c.probability(slots, beta, d, cosine)
    best = c.probability(slots, c.best_beta(d, cosine), d, cosine)
    without = 1.0 / (1.0 + slots)
    assert reached == pytest.approx(min(max(target, without), best), abs=1e-6)
    if best > target:
        assert c.log_capacity(d, cosine, target) >= math.log(slots) - 1e-9
    weakest = c.weakest_cue(slots, d, target)
    assert c.probability(slots, c.best_beta(d, weakest), d, weakest) >= target - 1e-6
    assert max(c.weakest_cue(slots, d, target, beta=3.0), 0.0) >= weakest - 1e-6


def test_capacity_is_the_last_number_that_fits() -> None:
    most = c.capacity(40.0, 0.6, 0.8, beta=15.0)
    assert most == int(most)
    assert c.probability(most, 15.0, 40.0, 0.6) >= 0.8 > c.probability(most + 1, 15.0, 40.0, 0.6)
    assert c.capacity(512.0, 1.0) == math.inf
    assert c.capacity(40.0, -0.2) == 1.0
    with pytest.raises(ValueError, match="between 0 and 1"):
        c.capacity(40.0, 0.6, 1.0)


def test_curves_are_probabilities() -> None:
    grid = c.curves([10, 1000], [0.3, 0.6, 0.9], 30.0, beta=12.0)
    for row, slots in enumerate((10, 1000)):
        for column, cosine in enumerate((0.3, 0.6, 0.9)):
            assert float(grid[row, column]) == pytest.approx(c.probability(slots, 12.0, 30.0, cosine))
    assert (c.curves([10, 1000], [0.3, 0.6], 30.0) >= c.curves([10, 1000], [0.3, 0.6], 30.0, beta=12.0)).all()


def simulated(slots: int, beta: float, d: int, cosine: float, draws: int) -> float:
    """Mean probability of the right slot; by symmetry the cue may be the first axis."""
    generator = torch.Generator().manual_seed(0)
    total = 0.0
    for _ in range(draws):
        others = torch.randn(slots, d, generator=generator, dtype=torch.float64)
        score = beta * others[:, 0] / others.norm(dim=-1)
        total += float(torch.sigmoid(beta * cosine - torch.logsumexp(score, 0)))
    return total / draws


@pytest.mark.parametrize(
    ("slots", "beta", "d", "cosine"), [(200, 8.0, 64, 0.7), (500, 10.0, 128, 0.7), (1000, 6.0, 32, 0.95)]
)
def test_prediction_agrees_with_simulation(slots: int, beta: float, d: int, cosine: float) -> None:
    # where very many slots make up the sum: N (1 - A^2)^(d/2) >> 1
    assert slots * (1 - c.mean_cosine(beta, d) ** 2) ** (d / 2) > 100
    predicted = c.probability(slots, beta, d, cosine)
    assert 0.1 < predicted < 0.8
    assert simulated(slots, beta, d, cosine, 200) == pytest.approx(predicted, abs=0.01)


def test_prediction_is_a_lower_bound_where_few_slots_count() -> None:
    """At the best beta and N near N_half the system is at the edge of freezing: more is recalled."""
    d, cosine = 20, 0.7
    beta = c.best_beta(d, cosine)
    slots = int(c.capacity(d, cosine))
    assert simulated(slots, beta, d, cosine, 300) > c.probability(slots, beta, d, cosine) + 0.02


def test_cosine_of_noise() -> None:
    generator = torch.Generator().manual_seed(1)
    slot = torch.nn.functional.normalize(torch.randn(20_000, generator=generator, dtype=torch.float64), dim=0)
    for variance in (0.1, 1.0):
        noise = torch.randn(20_000, generator=generator, dtype=torch.float64) * variance**0.5
        cue = slot * 20_000**0.5 + noise
        measured = float(torch.nn.functional.cosine_similarity(cue, slot, dim=0))
        assert measured == pytest.approx(c.cosine_of_noise(variance), abs=0.01)
