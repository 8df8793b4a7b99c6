"""The dense energy: each term against its formula, its gradient and the scan, in float64."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from harmonia.memory import energy as energy_module
from harmonia.memory.energy import Couplings, Cue, Energy, Slots, extreme_eigenvalues, slot_energy
from harmonia.memory.entropies import Entropy, Norm, Shannon, Subsets, Tsallis
from harmonia.memory.lagrangians import Ball, Identity, Lagrangian, LayerNorm, Power, Softmax, Sphere, Tanh
from harmonia.memory.moment_scores import MatrixQuery
from harmonia.memory.record_layout import Layout

ENTROPIES: list[Entropy] = [Shannon(), Tsallis(1.5), Tsallis(2.0), Norm(2.0), Norm(5.0), Subsets(2)]
LAGRANGIANS: list[Lagrangian] = [
    Identity(), Sphere(), Ball(), LayerNorm(eps=0.1), Softmax(), Softmax(4.0), Power(), Power(3), Tanh(),
]  # fmt: skip
SIZES = (5, 4)
SLOTS = 9
CUES = 3
seeds = st.integers(0, 2**31 - 1)


def draws(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def normal(generator: torch.Generator, *shape: int) -> Tensor:
    return torch.randn(*shape, generator=generator, dtype=torch.float64)


def random_slots(generator: torch.Generator, entropy: Entropy, beta: float) -> Slots:
    """Nine slots, some without a modality, weights for each cue, one of them against."""
    return Slots(
        tuple(normal(generator, SLOTS, d) for d in SIZES),
        entropy,
        beta * torch.tensor([0.5, 1.0, 2.0], dtype=torch.float64),
        weights=(torch.tensor([1.0, 0.3, -0.5], dtype=torch.float64), 0.7),
        presence=tuple(torch.rand(SLOTS, generator=generator) < 0.8 for _ in SIZES),
        bias=normal(generator, SLOTS),
    )


def random_couplings(generator: torch.Generator) -> Couplings:
    """Blocks that are not symmetric, of all three kinds: diagonal, both orders, one alone."""
    a, b, c = normal(generator, 5, 5), normal(generator, 5, 4), normal(generator, 4, 5)
    return Couplings({(0, 0): a, (0, 1): b, (1, 0): c}, {1: normal(generator, 4)})


def random_cue(generator: torch.Generator) -> Cue:
    kappa = (torch.tensor([0.0, 0.7, math.inf], dtype=torch.float64), 1.5)
    return Cue(tuple(normal(generator, CUES, d) for d in SIZES), kappa)


@pytest.mark.parametrize("entropy", ENTROPIES, ids=str)
@pytest.mark.parametrize("lagrangian", LAGRANGIANS, ids=str)
@given(seed=seeds, beta=st.floats(0.1, 20))
@settings(max_examples=5, deadline=None)
def test_pull_is_the_gradient_by_autograd(
    entropy: Entropy, lagrangian: Lagrangian, seed: int, beta: float
) -> None:
    generator = draws(seed)
    energy = Energy(
        (lagrangian, lagrangian),
        random_slots(generator, entropy, beta),
        random_couplings(generator),
        random_cue(generator),
    )
    x = tuple(normal(generator, CUES, d) for d in SIZES)
    g = tuple(lagrangian.activation(z).requires_grad_() for z in x)
    gradient = torch.autograd.grad(energy(g).sum(), g)
    own = torch.autograd.grad(sum(lagrangian.conjugate(code).sum() for code in g), g)
    for whole, alone, pull in zip(gradient, own, energy.pull(g), strict=True):
        assert torch.allclose(whole, alone - pull, atol=1e-8)


@pytest.mark.parametrize("lagrangian", LAGRANGIANS, ids=str)
def test_the_energy_rests_where_the_preactivation_is_the_pull(lagrangian: Lagrangian) -> None:
    """With a field alone the minimum is the activation of the field, and E there is -L(a)."""
    field = normal(draws(1), 4)
    energy = Energy((lagrangian,), couplings=Couplings({}, {0: field}))
    g = (lagrangian.activation(field),)
    assert torch.equal(energy.pull(g)[0], field)
    assert torch.allclose(energy(g), -lagrangian.value(field))


def test_an_energy_may_have_no_terms() -> None:
    g = (normal(draws(2), CUES, 4),)
    assert torch.equal(Energy((Identity(),))(g), 0.5 * (g[0] ** 2).sum(-1))
    assert torch.equal(Energy((Identity(),)).pull(g)[0], torch.zeros(CUES, 4, dtype=torch.float64))


# --- slots -----------------------------------------------------------------------------------------


def test_slot_scores_are_their_formula() -> None:
    generator = draws(3)
    slots = random_slots(generator, Shannon(), 3.0)
    g = tuple(normal(generator, CUES, d) for d in SIZES)
    assert slots.weights is not None and slots.presence is not None and slots.bias is not None
    for q in range(CUES):
        for n in range(SLOTS):
            score = slots.bias[n].clone()
            for m, weight in enumerate((slots.weights[0][q], 0.7)):  # type: ignore[index]
                if slots.presence[m][n]:
                    score += weight * (slots.patterns[m][n] @ g[m][q])
            assert torch.allclose(slots.scores(g)[q, n], score)


def test_modern_hopfield_energy() -> None:
    """-lse(beta, X g) + |g|^2 / 2 of Ramsauer et al. 2021."""
    generator = draws(4)
    patterns, g = normal(generator, SLOTS, 5), normal(generator, CUES, 5)
    energy = Energy((Identity(),), Slots((patterns,), Shannon(), 3.0))
    expected = -torch.logsumexp(3.0 * g @ patterns.T, -1) / 3.0 + 0.5 * (g**2).sum(-1)
    assert torch.allclose(energy((g,)), expected)


def test_a_slot_can_be_left_out() -> None:
    generator = draws(5)
    patterns, g = normal(generator, SLOTS, 5), (normal(generator, CUES, 5),)
    bias = torch.zeros(SLOTS, dtype=torch.float64)
    bias[2] = -math.inf
    rest = torch.arange(SLOTS) != 2
    for entropy in ENTROPIES:
        some, without = Slots((patterns,), entropy, 2.0, bias=bias), Slots((patterns[rest],), entropy, 2.0)
        assert torch.allclose(some.value(g), without.value(g))
        assert torch.allclose(some.pull(g)[0], without.pull(g)[0])
        assert (some.p(g)[:, 2] == 0).all()


def test_the_scan_has_the_same_energy() -> None:
    """One part per record and modality, a constant where a record has none."""
    generator = draws(6)
    has = {"a": torch.arange(SLOTS) % 3 != 0, "b": torch.arange(SLOTS) % 4 != 1}
    rows = {key: normal(generator, SLOTS, 5) for key in has}
    g = {key: normal(generator, CUES, 5) for key in has}
    weight, absent = {"a": 0.8, "b": 1.3}, {"a": 0.2, "b": -0.1}
    bias = torch.zeros(SLOTS, dtype=torch.float64)
    for key, mask in has.items():
        bias += torch.where(mask, 0.0, absent[key])
    layout = Layout.aligned(has)
    queries = [
        MatrixQuery(
            key, rows[key], g[key] * weight[key], torch.full((CUES,), absent[key], dtype=torch.float64)
        )
        for key in has
    ]
    beta = torch.tensor([0.5, 2.0, 9.0], dtype=torch.float64)
    slots = Slots(tuple(rows.values()), Tsallis(1.5), beta, (0.8, 1.3), tuple(has.values()), bias)
    scanned = slot_energy(layout.view(("a", "b")), queries, beta, Tsallis(1.5))
    assert torch.allclose(slots.value(tuple(g.values())), scanned)


# --- couplings -------------------------------------------------------------------------------------


def test_the_matrix_is_minus_the_hessian() -> None:
    couplings = random_couplings(draws(7))
    point = normal(draws(8), 9)
    hessian = torch.autograd.functional.hessian(
        lambda g: couplings.value((g[:5], g[5:])), point, vectorize=True
    )
    h = couplings.matrix()
    assert torch.equal(h, h.T)
    assert torch.allclose(h, -hessian)
    assert torch.equal(couplings.matrix([1]), h[5:, 5:])
    assert torch.equal(couplings.matrix([1, 0])[:4, 4:], h[5:, :5])
    values = torch.linalg.eigvals(h).real
    assert couplings.extremes() == pytest.approx((float(values.min()), float(values.max())))


def test_one_block_stands_for_both_orders() -> None:
    block = normal(draws(9), 5, 4)
    g = tuple(normal(draws(10), CUES, d) for d in SIZES)
    alone = Couplings({(0, 1): block})
    both = Couplings({(0, 1): block, (1, 0): block.T})
    assert torch.allclose(alone.value(g), -(g[0] @ block * g[1]).sum(-1))
    assert torch.allclose(alone.value(g), both.value(g))
    assert torch.allclose(alone.matrix(), both.matrix())


def test_a_known_spectrum_is_not_computed_again() -> None:
    couplings = random_couplings(draws(11))
    assert couplings.measured().extremes() == couplings.extremes()
    assert Couplings(couplings.blocks, spectrum=(-7.0, 7.0)).extremes() == (-7.0, 7.0)
    assert Couplings({}, {0: normal(draws(12), 5)}).extremes() == (0.0, 0.0)


@given(seed=seeds, shift=st.floats(-3, 3))
@settings(max_examples=20, deadline=None)
def test_bounds_of_a_large_spectrum_lie_outside_it(seed: int, shift: float) -> None:
    h = normal(draws(seed), 12, 12)
    h = h + h.T + shift * torch.eye(12, dtype=torch.float64)
    exact = extreme_eigenvalues(h)
    limit, energy_module.EXACT = energy_module.EXACT, 4
    try:
        bound = extreme_eigenvalues(h)
    finally:
        energy_module.EXACT = limit
    assert bound[0] <= exact[0] < exact[1] <= bound[1]
    assert bound[1] - bound[0] < 8 * (exact[1] - exact[0])


@given(seed=seeds)
@settings(max_examples=20, deadline=None)
def test_curvature_makes_the_rest_concave(seed: int) -> None:
    """The Hessian of all but the Lagrangians, less delta, has no positive eigenvalue."""
    generator = draws(seed)
    couplings, cue = random_couplings(generator), random_cue(generator)
    delta = Energy((Identity(), Identity()), couplings=couplings, cue=cue).curvature()
    first, second = (torch.as_tensor(d, dtype=torch.float64) for d in delta)
    assert first[2] == 0
    for q, kappa in enumerate((0.0, 0.7)):
        bend = [kappa - first[q]] * 5 + [1.5 - second] * 4
        assert first[q] >= 0 and second >= 0
        assert torch.linalg.eigvalsh(torch.diag(torch.stack(bend)) - couplings.matrix())[-1] < 1e-9
    exact = Energy((Identity(), Identity()), couplings=couplings).curvature()
    assert exact == pytest.approx((-couplings.extremes()[0],) * 2)


# --- cue -------------------------------------------------------------------------------------------


def test_clamped_codes_are_the_cues_and_missing_ones_do_not_count() -> None:
    cue = random_cue(draws(13))
    g = tuple(normal(draws(14), CUES, d) for d in SIZES)
    clamped = cue.clamp(g)
    assert torch.equal(clamped[0][2], cue.codes[0][2])
    assert torch.equal(clamped[0][:2], g[0][:2]) and torch.equal(clamped[1], g[1])
    second = 0.75 * ((g[1] - cue.codes[1]) ** 2).sum(-1)
    first = 0.35 * ((g[0][1] - cue.codes[0][1]) ** 2).sum(-1)
    assert torch.allclose(cue.value(g), second + torch.stack([0 * first, first, 0 * first]))
    assert (cue.pull(g)[0][[0, 2]] == 0).all()


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_the_energy_keeps_its_dtype(dtype: torch.dtype) -> None:
    generator = draws(15)
    g = tuple(normal(generator, CUES, d).to(dtype) for d in SIZES)
    patterns = tuple(normal(generator, SLOTS, d).to(dtype) for d in SIZES)
    couplings = Couplings({(0, 1): normal(generator, 5, 4).to(dtype)})
    energy = Energy(
        (Identity(), Sphere()), Slots(patterns, Shannon(), 2.0), couplings, Cue(g, (1.0, math.inf))
    )
    assert energy((g[0], energy.activate(g)[1].mul(0.5))).dtype == dtype
    assert all(pull.dtype == dtype for pull in energy.pull(g))
    assert energy.curvature()[0] == pytest.approx(1.0 - extreme_eigenvalues(couplings.matrix())[0])
