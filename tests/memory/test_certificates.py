"""Certificates are never below the truth, over random draws in float64."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from harmonia.memory.certificates import (
    SPHERE_DIAMETER,
    basins,
    contraction_bound,
    error_bound,
    has_single_fixed_point,
    local_contraction,
    retrieval_bound,
    tail_bound,
)

seeds = st.integers(0, 2**31 - 1)
betas = st.floats(0.2, 40.0)
quick = settings(max_examples=25, deadline=None)


def unit(generator: torch.Generator, *shape: int) -> Tensor:
    rows = torch.randn(*shape, generator=generator, dtype=torch.float64)
    return torch.nn.functional.normalize(rows, dim=-1)


def draw(seed: int, slots: int = 30, d: int = 6) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    codes = unit(generator, slots, d)
    cues = torch.nn.functional.normalize(codes[:10] + 0.7 * unit(generator, 10, d), dim=-1)
    return codes, cues


def readout(codes: Tensor, beta: float, g: Tensor) -> Tensor:
    return torch.softmax(beta * g @ codes.T, dim=-1) @ codes


@given(seed=seeds, beta=betas, k=st.integers(1, 30))
@quick
def test_tail_and_error_bounds_hold(seed: int, beta: float, k: int) -> None:
    codes, cues = draw(seed)
    scores, order = (cues @ codes.T).sort(dim=-1, descending=True)
    p = torch.softmax(beta * scores, dim=-1)
    bound = tail_bound(scores[:, :k], torch.full((10,), beta, dtype=torch.float64), 30)
    tail = p[:, k:].sum(dim=-1)
    assert (bound >= tail - 1e-12).all()
    assert (bound <= 1).all()
    kept = p[:, :k] / p[:, :k].sum(dim=-1, keepdim=True)
    short = (kept[..., None] * codes[order[:, :k]]).sum(dim=1)
    error = (short - readout(codes, beta, cues)).norm(dim=-1)
    assert (error_bound(bound) >= error - 1e-12).all()


def test_tail_bound_is_tight_where_all_the_rest_score_alike_and_does_not_overflow() -> None:
    scores = torch.tensor([[0.9, 0.2, 0.2, 0.2]], dtype=torch.float64)
    beta = torch.tensor([5.0], dtype=torch.float64)
    p = torch.softmax(5.0 * scores, dim=-1)
    assert tail_bound(scores[:, :2], beta, 4) == pytest.approx(float(p[0, 2:].sum()))
    assert tail_bound(scores, beta, 4) == 0
    assert tail_bound(scores[:, :2] * 1e4, beta, 10**9) == 0


@given(seed=seeds, beta=betas)
@quick
def test_contraction_bounds_hold(seed: int, beta: float) -> None:
    codes, cues = draw(seed)
    p = torch.softmax(beta * cues @ codes.T, dim=-1)
    jacobian = torch.func.vmap(torch.func.jacrev(lambda g: readout(codes, beta, g)))(cues)
    true = torch.linalg.matrix_norm(jacobian, ord=2)
    assert torch.allclose(local_contraction(codes, p, beta), true, rtol=1e-6, atol=1e-9)
    likeliest, slot = p.max(dim=-1)
    assert (contraction_bound(likeliest, beta) >= true - 1e-9).all()
    distance = (readout(codes, beta, cues) - codes[slot]).norm(dim=-1)
    assert (retrieval_bound(likeliest) >= distance - 1e-12).all()


@given(seed=seeds)
@quick
def test_one_fixed_point_below_the_threshold(seed: int) -> None:
    codes, cues = draw(seed)
    diameter = float(torch.cdist(codes, codes).max())
    beta = 0.95 / (0.5 * diameter) ** 2
    assert has_single_fixed_point(beta, diameter) and not has_single_fixed_point(1.1 * beta, diameter)
    assert has_single_fixed_point(0.99) and not has_single_fixed_point(1.0)
    for _ in range(2000):
        cues = readout(codes, beta, cues)
    assert (cues - cues[0]).norm(dim=-1).max() < 1e-6


@given(seed=seeds, beta=st.floats(5.0, 60.0), d=st.integers(3, 24))
@quick
def test_every_start_in_a_certified_basin_ends_at_one_point_near_the_memory(
    seed: int, beta: float, d: int
) -> None:
    codes, _ = draw(seed, slots=25, d=d)
    found = basins(codes, torch.arange(25), beta)
    assert ((found.radius > found.drift) == found.certified).all()
    generator = torch.Generator().manual_seed(seed + 1)
    for i in found.certified.nonzero()[:, 0].tolist():
        radius, drift = float(found.radius[i]), float(found.drift[i])
        # on the sphere, at distances up to the radius itself
        away = unit(generator, 12, d)
        away = torch.nn.functional.normalize(away - (away @ codes[i])[:, None] * codes[i], dim=-1)
        chord = radius * torch.linspace(0, 1, 12, dtype=torch.float64)[:, None]
        angle = 2 * torch.asin(0.5 * chord)
        sphere = torch.cos(angle) * codes[i] + torch.sin(angle) * away
        flat = codes[i] + chord * unit(generator, 12, d)
        for _ in range(300):
            sphere = torch.nn.functional.normalize(readout(codes, beta, sphere), dim=-1)
            flat = readout(codes, beta, flat)
        for states in (sphere, flat):
            assert (states - codes[i]).norm(dim=-1).max() <= drift + 1e-9
            assert (states - states[0]).norm(dim=-1).max() < 1e-7


def test_basins_are_of_use() -> None:
    """Not only sound: far apart memories have wide basins, twins have none of their own."""
    apart = basins(torch.eye(20, dtype=torch.float64), torch.arange(20), 12.0)
    assert apart.certified.all() and (apart.radius > 0.25).all()
    assert torch.allclose(apart.separation, torch.ones(20, dtype=torch.float64))
    p = 1.0 / (1.0 + 19.0 * math.exp(-12.0))
    assert torch.allclose(apart.confidence, torch.full((20,), p, dtype=torch.float64))
    assert torch.allclose(apart.contraction, torch.full((20,), 12.0 * 2.0 * (1 - p), dtype=torch.float64))
    close = torch.nn.functional.normalize(torch.tensor([[1.0, 0.0], [1.0, 0.3], [-1.0, 0.0]]), dim=-1)
    twins = basins(close, torch.arange(3), 10.0)
    assert twins.certified.tolist() == [False, False, True]
    alone = basins(close[:1], torch.arange(1), 10.0)
    assert alone.certified.all() and alone.drift < 1e-6


def test_basins_exceed_the_published_radius() -> None:
    """Ramsauer et al. 2020: 1 / (beta N M) where Delta >= 2 / (beta N) + log(2 (N-1) N beta M^2) / beta."""
    generator = torch.Generator().manual_seed(3)
    codes, beta, slots = unit(generator, 60, 48), 30.0, 60
    found = basins(codes, torch.arange(slots), beta)
    well = found.separation >= 2 / (beta * slots) + math.log(2 * (slots - 1) * slots * beta) / beta
    assert well.sum() > 10
    assert (found.radius[well] > 10 / (beta * slots)).all()


def test_diameter_is_that_of_the_sphere() -> None:
    assert SPHERE_DIAMETER == 2.0
