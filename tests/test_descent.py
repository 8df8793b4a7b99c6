"""The dense descent: downhill by whatever term, differentiable, and its known special cases."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from harmonia.memory.descent import descend
from harmonia.memory.energy import Couplings, Cue, Energy, Slots
from harmonia.memory.entropies import Entropy, Norm, Shannon, Subsets, Tsallis
from harmonia.memory.lagrangians import Ball, Identity, Lagrangian, LayerNorm, Power, Softmax, Sphere, Tanh

ENTROPIES: list[Entropy] = [Shannon(), Tsallis(1.5), Tsallis(2.0), Norm(2.0), Norm(5.0), Subsets(2)]
LAGRANGIANS: list[Lagrangian] = [
    Identity(), Sphere(), Ball(), LayerNorm(eps=0.1), Softmax(), Power(), Tanh(),
]  # fmt: skip
SIZES, SLOTS, CUES = (5, 4), 9, 4
seeds = st.integers(0, 2**31 - 1)


def normal(generator: torch.Generator, *shape: int) -> Tensor:
    return torch.randn(*shape, generator=generator, dtype=torch.float64)


def unit(generator: torch.Generator, *shape: int) -> Tensor:
    return torch.nn.functional.normalize(normal(generator, *shape), dim=-1)


def couplings(generator: torch.Generator, kind: str) -> Couplings | None:
    """None, indefinite, or negative; scaled so that the identity has a lower bound."""
    if kind == "none":
        return None
    a, b, c = normal(generator, 5, 5), normal(generator, 5, 4), normal(generator, 4, 4)
    found = Couplings({(0, 0): a, (0, 1): b, (1, 1): c}, {0: normal(generator, 5)})
    least, greatest = found.extremes()
    if kind == "negative":
        shift = greatest + 0.1
        blocks = {**found.blocks}
        for m, d in enumerate(SIZES):
            blocks[m, m] = blocks[m, m] - shift * torch.eye(d, dtype=torch.float64)
        return Couplings(blocks, found.fields)
    scale = 0.8 / max(greatest, -least)
    return Couplings({pair: scale * block for pair, block in found.blocks.items()}, found.fields)


def energy(seed: int, entropy: Entropy, lagrangian: Lagrangian, coupling: str, beta: float) -> Energy:
    generator = torch.Generator().manual_seed(seed)
    patterns = tuple(unit(generator, SLOTS, d) for d in SIZES)
    presence = tuple(torch.rand(SLOTS, generator=generator) < 0.8 for _ in SIZES)
    slots = Slots(patterns, entropy, beta, (1.0, 0.7), presence, normal(generator, SLOTS))
    return Energy((lagrangian, lagrangian), slots=slots, couplings=couplings(generator, coupling))


def starts(seed: int) -> tuple[Tensor, ...]:
    generator = torch.Generator().manual_seed(seed + 1)
    return tuple(2 * normal(generator, CUES, d) for d in SIZES)


def rises(trace: Tensor) -> Tensor:
    return trace.diff(dim=0) > 1e-9 * (1 + trace.abs().max())


@pytest.mark.parametrize("coupling", ["none", "indefinite", "negative"])
@pytest.mark.parametrize("lagrangian", LAGRANGIANS, ids=str)
@pytest.mark.parametrize("entropy", ENTROPIES, ids=str)
@given(seed=seeds, beta=st.sampled_from([0.1, 1.0, 10.0, 100.0]))
@settings(max_examples=4, deadline=None)
def test_the_energy_never_rises(
    entropy: Entropy, lagrangian: Lagrangian, coupling: str, seed: int, beta: float
) -> None:
    found = descend(energy(seed, entropy, lagrangian, coupling, beta), starts(seed), steps=12, trace=True)
    assert not rises(found.energies).any()
    assert (found.energies[-1] < found.energies[0]).any()


@pytest.mark.parametrize("coupling", ["none", "negative"])
@given(seed=seeds, beta=st.sampled_from([0.1, 10.0, 100.0]))
@settings(max_examples=10, deadline=None)
def test_euler_goes_down_at_0_99_of_its_bound(coupling: str, seed: int, beta: float) -> None:
    e = energy(seed, Shannon(), Identity(), coupling, beta)
    least = 0.0 if e.couplings is None else e.couplings.extremes()[0]
    bound = 2 / (1 - min(0.0, least))
    found = descend(e, starts(seed), method="euler", step_size=0.99 * bound, steps=25, trace=True)
    assert not rises(found.energies).any()
    with pytest.raises(ValueError, match="step_size must be above 0 and at most"):
        descend(e, starts(seed), method="euler", step_size=1.01 * bound)


def test_euler_rises_above_its_bound() -> None:
    """Along the eigenvector of the least eigenvalue, without slots: the bound is sharp."""
    generator = torch.Generator().manual_seed(0)
    a = normal(generator, 5, 5)
    h = -(a @ a.T)
    values, vectors = torch.linalg.eigh(h)
    e = Energy((Identity(),), couplings=Couplings({(0, 0): h}))
    bound = 2 / (1 - float(values[0]))
    start = (vectors[:, :1].T,)
    below = descend(e, start, method="euler", step_size=0.99 * bound, steps=20, trace=True)
    above = descend(e, start, method="euler", step_size=1.05 * bound, steps=20, trace=True, unsafe=True)
    assert not rises(below.energies).any()
    assert rises(above.energies).all()


@pytest.mark.parametrize("coupling", ["none", "indefinite", "negative"])
@given(seed=seeds)
@settings(max_examples=10, deadline=None)
def test_the_identity_falls_by_at_least_its_curvature_times_the_step(coupling: str, seed: int) -> None:
    e = energy(seed, Tsallis(1.5), Identity(), coupling, 5.0)
    delta = max(float(torch.as_tensor(d).max()) for d in e.curvature())
    found = descend(e, starts(seed), steps=8, tolerance=0.0, trace=True)
    assert found.trace is not None
    moved = torch.stack([torch.cat(g, -1) for g in found.trace]).diff(dim=0).square().sum(-1)
    least = sum(
        (1 + float(torch.as_tensor(d).max()))
        / 2
        * torch.stack([g[m] for g in found.trace]).diff(dim=0).square().sum(-1)
        for m, d in enumerate(e.curvature())
    )
    fall = -found.energies.diff(dim=0)
    assert (fall >= least - 1e-9).all()
    assert (least <= (1 + delta) / 2 * moved + 1e-12).all()


@pytest.mark.parametrize("method", ["cccp", "euler"])
def test_momentum_is_dropped_where_it_would_go_up(method: str) -> None:
    e = energy(3, Shannon(), Sphere(), "indefinite", 20.0)
    plain = descend(e, starts(3), method=method, steps=40, trace=True)  # type: ignore[arg-type]
    found = descend(e, starts(3), method=method, steps=40, momentum=0.8, trace=True)  # type: ignore[arg-type]
    assert not rises(found.energies).any()
    assert not torch.equal(found.energies[1:5], plain.energies[1:5])


def test_clamped_codes_stay_and_missing_ones_are_filled() -> None:
    generator = torch.Generator().manual_seed(1)
    patterns = tuple(unit(generator, SLOTS, d) for d in SIZES)
    given_code = patterns[0][:CUES]
    cue = Cue((given_code, torch.zeros(CUES, 4, dtype=torch.float64)), (math.inf, 0.0))
    e = Energy((Sphere(), Sphere()), slots=Slots(patterns, Shannon(), 30.0), cue=cue)
    found = descend(e, (given_code, torch.zeros(CUES, 4, dtype=torch.float64)))
    assert torch.equal(found.codes[0], given_code)
    assert ((found.codes[1] * patterns[1][:CUES]).sum(-1) > 0.99).all()


@pytest.mark.parametrize("lagrangian", [Identity(), Sphere(), Tanh()], ids=str)
def test_an_answer_does_not_depend_on_its_batch(lagrangian: Lagrangian) -> None:
    e = energy(5, Tsallis(1.5), lagrangian, "indefinite", 8.0)
    together = descend(e, starts(5), steps=30)
    for q in range(CUES):
        alone = descend(e, tuple(x[q : q + 1] for x in starts(5)), steps=30)
        for m in range(2):
            assert torch.allclose(alone.codes[m][0], together.codes[m][q], atol=1e-9)
        assert alone.steps[0] == together.steps[q]


def test_below_the_contraction_bound_there_is_one_fixed_point() -> None:
    generator = torch.Generator().manual_seed(2)
    patterns = unit(generator, 20, 6)
    diameter = float(torch.cdist(patterns, patterns).max())
    beta = 0.9 / (diameter / 2) ** 2
    start = (3 * normal(generator, 50, 6),)
    one = descend(
        Energy((Identity(),), slots=Slots((patterns,), Shannon(), beta)), start, steps=500, tolerance=1e-12
    )
    assert (one.codes[0] - one.codes[0][:1]).abs().max() < 1e-8
    many = descend(Energy((Identity(),), slots=Slots((patterns,), Shannon(), 60 * beta)), start, steps=500)
    assert (many.codes[0] - many.codes[0][:1]).abs().max() > 0.1


# --- differentiable --------------------------------------------------------------------------------


@pytest.mark.parametrize("lagrangian", [Identity(), Sphere(), LayerNorm(eps=0.1)], ids=str)
def test_implicit_gradients_are_those_of_the_unrolled_descent(lagrangian: Lagrangian) -> None:
    generator = torch.Generator().manual_seed(7)
    leaves = {
        "patterns": unit(generator, SLOTS, 5),
        "coupling": 0.2 * normal(generator, 5, 5),
        "cue": unit(generator, CUES, 5),
    }
    weight = normal(generator, CUES, 5)

    def loss(implicit: bool, **tensors: Tensor) -> Tensor:
        e = Energy(
            (lagrangian,),
            slots=Slots((tensors["patterns"],), Shannon(), 1.5),
            couplings=Couplings({(0, 0): tensors["coupling"] - 0.8 * torch.eye(5, dtype=torch.float64)}),
            cue=Cue(
                (tensors["cue"],),
                (0.5 if lagrangian.convexity > 0 or isinstance(lagrangian, Sphere) else 0.0,),
            ),
        )
        found = descend(e, (tensors["cue"].detach(),), steps=400, tolerance=1e-13, implicit=implicit)
        assert found.converged.all()
        return (found.codes[0] * weight).sum()

    gradients = []
    for implicit in (False, True):
        tensors = {name: leaf.clone().requires_grad_() for name, leaf in leaves.items()}
        gradients.append(torch.autograd.grad(loss(implicit, **tensors), list(tensors.values())))
    for one, other in zip(*gradients, strict=True):
        assert one.abs().max() > 1e-4
        assert torch.allclose(one, other, atol=1e-5)


def test_it_runs_under_vmap_and_compiles_into_one_graph() -> None:
    e = energy(9, Shannon(), Sphere(), "indefinite", 5.0)
    assert e.couplings is not None
    e = replace(e, couplings=e.couplings.measured())

    def settle(*x: Tensor) -> tuple[Tensor, ...]:
        return descend(e, x, steps=5, tolerance=0.0).codes

    wanted = settle(*starts(9))
    for found in (
        torch.func.vmap(settle)(*starts(9)),
        torch.compile(settle, backend="eager", fullgraph=True)(*starts(9)),
    ):
        for one, other in zip(found, wanted, strict=True):
            assert torch.allclose(one, other, atol=1e-12)


# --- special cases ---------------------------------------------------------------------------------


def test_without_slots_it_is_ridge_regression() -> None:
    linear_model = pytest.importorskip("sklearn.linear_model")
    generator = torch.Generator().manual_seed(11)
    x, y, new = normal(generator, 40, 5), normal(generator, 40, 4), normal(generator, CUES, 5)
    fitted = linear_model.Ridge(alpha=0.5, fit_intercept=False).fit(x.numpy(), y.numpy())
    block = torch.from_numpy(fitted.coef_)
    cue = Cue((new, torch.zeros(CUES, 4, dtype=torch.float64)), (math.inf, 0.0))
    e = Energy((Identity(), Identity()), couplings=Couplings({(1, 0): block}), cue=cue)
    found = descend(e, (new, torch.zeros(CUES, 4, dtype=torch.float64)), steps=500, tolerance=1e-12)
    assert torch.allclose(found.codes[1], torch.from_numpy(fitted.predict(new.numpy())), atol=1e-6)


def test_one_step_with_one_modality_is_attention() -> None:
    generator = torch.Generator().manual_seed(12)
    keys, queries = normal(generator, 30, 8), normal(generator, 6, 8)
    e = Energy((Identity(),), slots=Slots((keys,), Shannon(), 0.7))
    found = descend(e, (queries,), steps=1, tolerance=0.0)
    wanted = torch.nn.functional.scaled_dot_product_attention(
        queries[None], keys[None], keys[None], scale=0.7
    )[0]
    assert torch.allclose(found.codes[0], wanted, atol=1e-5)


def test_one_step_over_the_batch_is_cloob_retrieval() -> None:
    """Fuerst et al. 2022: U_x = softmax(beta X X^T) X, U_y = softmax(beta Y X^T) X, and so on, normalised."""
    generator = torch.Generator().manual_seed(13)
    x, y, beta = unit(generator, 12, 6), unit(generator, 12, 6), 8.0
    for stored, asked in ((x, x), (x, y), (y, x), (y, y)):
        e = Energy((Sphere(),), slots=Slots((stored,), Shannon(), beta))
        found = descend(e, (asked,), steps=1, tolerance=0.0).codes[0]
        wanted = torch.nn.functional.normalize(torch.softmax(beta * asked @ stored.T, -1) @ stored, dim=-1)
        assert torch.allclose(found, wanted, atol=1e-9)


# --- what cannot be ---------------------------------------------------------------------------------


def test_an_energy_without_a_lower_bound_is_refused() -> None:
    e = Energy((Identity(),), couplings=Couplings({(0, 0): 1.5 * torch.eye(3, dtype=torch.float64)}))
    with pytest.raises(ValueError, match="no lower bound"):
        descend(e, (torch.ones(1, 3, dtype=torch.float64),))
    descend(replace(e, lagrangians=(Sphere(),)), (torch.ones(1, 3, dtype=torch.float64),))


def test_wrong_arguments_say_why() -> None:
    e = energy(0, Shannon(), Identity(), "none", 1.0)
    for options, message in (
        ({"momentum": 1.0}, "momentum must be"),
        ({"method": "newton"}, "cccp"),
        ({"step_size": 0.1}, "euler"),
    ):
        with pytest.raises(ValueError, match=message):
            descend(e, starts(0), **options)  # type: ignore[arg-type]
