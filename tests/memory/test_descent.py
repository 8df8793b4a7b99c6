"""Descent: the guarantees of DESIGN.md as identities over random draws in float64."""

from __future__ import annotations

import math
from collections.abc import Callable

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.linear_model import Ridge
from torch import Tensor
from torch.nn.functional import normalize, scaled_dot_product_attention

from harmonia.memory.descent import Descent, descend
from harmonia.memory.energy import Codes, Couplings, Cue, Energy, Slots
from harmonia.memory.entropies import Entropy, Norm, Shannon, Subsets, Tsallis
from harmonia.memory.lagrangians import Ball, Identity, Lagrangian, LayerNorm, Power, Softmax, Sphere, Tanh

ENTROPIES: list[Entropy] = [Shannon(), Tsallis(1.5), Tsallis(2.0), Norm(2.0), Norm(5.0), Subsets(2)]
LAGRANGIANS: list[Lagrangian] = [
    Identity(), Sphere(), Ball(0.8), LayerNorm(eps=0.1), Softmax(4.0), Power(), Tanh(), Tanh(5.0),
]  # fmt: skip
SIZES = (5, 4)
SLOTS = 9
CUES = 3
seeds = st.integers(0, 2**31 - 1)


def draws(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def normal(generator: torch.Generator, *shape: int) -> Tensor:
    return torch.randn(*shape, generator=generator, dtype=torch.float64)


def unit(generator: torch.Generator, *shape: int) -> Tensor:
    return normalize(normal(generator, *shape), dim=-1)


def random_slots(generator: torch.Generator, entropy: Entropy, beta: float) -> Slots:
    return Slots(tuple(unit(generator, SLOTS, d) for d in SIZES), entropy, beta, (1.0, 0.6))


def random_couplings(generator: torch.Generator, low: float, high: float) -> Couplings:
    """All blocks, eigenvalues of H from ``low`` to ``high``."""
    n = sum(SIZES)
    basis = torch.linalg.qr(normal(generator, n, n)).Q
    h = basis * torch.linspace(low, high, n, dtype=torch.float64) @ basis.T
    cut = SIZES[0]
    blocks = {(0, 0): h[:cut, :cut], (0, 1): h[:cut, cut:], (1, 1): h[cut:, cut:]}
    return Couplings(blocks, {0: normal(generator, cut)})


COUPLINGS: dict[str, Callable[[torch.Generator], Couplings | None]] = {
    "none": lambda generator: None,
    "indefinite": lambda generator: random_couplings(generator, -2.0, 0.8),
    "negative": lambda generator: random_couplings(generator, -3.0, -0.2),
}


def start_of(lagrangian: Lagrangian, generator: torch.Generator) -> tuple[Codes, Cue]:
    """A free, a noisy and a clamped cue for the first modality; the second is missing."""
    x = (normal(generator, CUES, SIZES[0]), torch.zeros(CUES, SIZES[1], dtype=torch.float64))
    given_codes = lagrangian.activation(normal(generator, CUES, SIZES[0]))
    kappa = torch.tensor([0.0, 1.3, math.inf], dtype=torch.float64)
    return x, Cue((given_codes, torch.zeros_like(x[1])), (kappa, 0.0))


def rise(found: Descent) -> float:
    return float(found.energies.diff(dim=0).max())


def distance(a: Codes, b: Codes) -> float:
    return max(float((x - y).abs().max()) for x, y in zip(a, b, strict=True))


# --- the energy never rises ------------------------------------------------------------------------


@pytest.mark.parametrize("coupling", COUPLINGS)
@pytest.mark.parametrize("lagrangian", LAGRANGIANS, ids=str)
@given(
    seed=seeds,
    entropy=st.sampled_from(ENTROPIES),
    log_beta=st.floats(-1, 2),
    momentum=st.sampled_from([0.0, 0.9]),
)
@settings(max_examples=12, deadline=None)
def test_energy_never_rises(
    coupling: str, lagrangian: Lagrangian, seed: int, entropy: Entropy, log_beta: float, momentum: float
) -> None:
    generator = draws(seed)
    x, cue = start_of(lagrangian, generator)
    slots, couplings = random_slots(generator, entropy, 10**log_beta), COUPLINGS[coupling](generator)
    energy = Energy((lagrangian, lagrangian), slots, couplings, cue)
    found = descend(energy, x, steps=12, tolerance=0, momentum=momentum, trace=True)
    assert found.energies.shape == (13, CUES) and found.energies.isfinite().all()
    assert rise(found) < 1e-10
    assert torch.equal(found.codes[0][2], cue.codes[0][2])
    # A rectified code may be zero for good.
    if not isinstance(lagrangian, Power):
        assert (found.energies[-1] < found.energies[0]).all()
        assert (found.codes[1] != 0).any(dim=-1).all()


@pytest.mark.parametrize("entropy", ENTROPIES, ids=str)
@given(seed=seeds, log_beta=st.floats(-1, 2), coupling=st.sampled_from(list(COUPLINGS)))
@settings(max_examples=12, deadline=None)
def test_identity_goes_down_by_the_curvature(
    entropy: Entropy, seed: int, log_beta: float, coupling: str
) -> None:
    """E - E' >= (1 + delta)/2 |dg|^2 (DESIGN.md)."""
    generator = draws(seed)
    couplings = COUPLINGS[coupling](generator)
    energy = Energy((Identity(),) * 2, random_slots(generator, entropy, 10**log_beta), couplings)
    delta = energy.curvature()[0]
    assert delta == pytest.approx({"none": 0.0, "indefinite": 2.0, "negative": 3.0}[coupling])
    found = descend(
        energy, tuple(normal(generator, CUES, d) for d in SIZES), steps=8, tolerance=0, trace=True
    )
    assert found.trace is not None and len(found.trace) == 9
    path = torch.stack([torch.cat(g, dim=-1) for g in found.trace])
    drop = -found.energies.diff(dim=0)
    assert (drop >= 0.5 * (1 + delta) * (path.diff(dim=0) ** 2).sum(-1) - 1e-10).all()


@pytest.mark.parametrize("coupling", COUPLINGS)
@given(seed=seeds, entropy=st.sampled_from(ENTROPIES), log_beta=st.floats(-1, 2))
@settings(max_examples=12, deadline=None)
def test_euler_never_rises_below_its_bound(
    coupling: str, seed: int, entropy: Entropy, log_beta: float
) -> None:
    generator = draws(seed)
    couplings = COUPLINGS[coupling](generator)
    least = couplings.extremes()[0] if couplings else 0.0
    energy = Energy((Identity(),) * 2, random_slots(generator, entropy, 10**log_beta), couplings)
    x = tuple(normal(generator, CUES, d) for d in SIZES)
    bound = 2 / (1 - least)
    for step_size in (0.99 * bound, 0.3 * bound, None):
        found = descend(energy, x, method="euler", step_size=step_size, steps=12, tolerance=0, trace=True)
        assert rise(found) < 1e-10


def test_euler_rises_above_its_bound() -> None:
    """So that the tests above could fail: a quadratic, its steepest direction, 5% too far."""
    couplings = random_couplings(draws(0), -3.0, -0.2)
    energy = Energy((Identity(),) * 2, couplings=Couplings(couplings.blocks))
    steepest = torch.linalg.eigh(couplings.matrix()).eigenvectors[:, 0]
    x = (steepest[: SIZES[0]], steepest[SIZES[0] :])

    def run(step_size: float) -> Descent:
        return descend(
            energy, x, method="euler", step_size=step_size, unsafe=True, steps=5, tolerance=0, trace=True
        )

    assert rise(run(0.5 * 0.99)) < 0
    assert rise(run(0.5 * 1.05)) > 0.01
    with pytest.raises(ValueError, match=r"at most 0\.5"):
        descend(energy, x, method="euler", step_size=0.5 * 1.05)


@pytest.mark.parametrize("lagrangian", LAGRANGIANS[1:], ids=str)
@given(seed=seeds, entropy=st.sampled_from(ENTROPIES), share=st.floats(0.05, 0.999))
@settings(max_examples=10, deadline=None)
def test_euler_on_any_lagrangian(lagrangian: Lagrangian, seed: int, entropy: Entropy, share: float) -> None:
    generator = draws(seed)
    x, cue = start_of(lagrangian, generator)
    couplings = random_couplings(generator, -2.0, 0.5)
    energy = Energy((lagrangian,) * 2, random_slots(generator, entropy, 5.0), couplings, cue)
    mu = math.inf if isinstance(lagrangian, Sphere) else lagrangian.convexity
    step_size = share / (1 + 3.3 / mu)
    found = descend(energy, x, method="euler", step_size=step_size, steps=12, tolerance=0, trace=True)
    assert rise(found) < 1e-10


def test_without_the_curvature_the_sphere_would_oscillate() -> None:
    """The plain update g <- v / |v| goes uphill where H has a negative eigenvalue."""
    energy = Energy(
        (Sphere(),), couplings=Couplings({(0, 0): -torch.eye(2).double()}, {0: torch.tensor([0.2, 0])})
    )
    g = torch.tensor([[0.0, 1.0]], dtype=torch.float64)
    plain = normalize(energy.pull((g,))[0], dim=-1)
    assert energy((normalize(energy.pull((plain,))[0], dim=-1),)) > energy((plain,))
    found = descend(energy, (g,), steps=200, tolerance=1e-12)
    assert torch.allclose(found.codes[0], torch.tensor([[1.0, 0.0]], dtype=torch.float64), atol=1e-6)


# --- special cases that are known ------------------------------------------------------------------


def test_one_step_is_attention() -> None:
    generator = draws(1)
    patterns, query = unit(generator, 20, 8), unit(generator, 6, 8)
    for beta in (0.5, 4.0, 30.0):
        energy = Energy((Identity(),), Slots((patterns,), Shannon(), beta))
        attended = scaled_dot_product_attention(query[None], patterns[None], patterns[None], scale=beta)[0]
        assert torch.allclose(descend(energy, (query,), steps=1).codes[0], attended, atol=1e-5)


def test_one_step_is_the_published_retrieval_of_cloob() -> None:
    """U_x, U_y, V_x, V_y of Fuerst et al. 2022, rows of unit length, as in DESIGN.md."""
    generator = draws(2)
    x, y, beta = unit(generator, 12, 6), unit(generator, 12, 6), 8.0

    def retrieved(stored: Tensor, state: Tensor) -> Tensor:
        return descend(Energy((Sphere(),), Slots((stored,), Shannon(), beta)), (state,), steps=1).codes[0]

    published = {
        "U_x": (torch.softmax(beta * x @ x.T, -1) @ x, retrieved(x, x)),
        "U_y": (torch.softmax(beta * y @ x.T, -1) @ x, retrieved(x, y)),
        "V_x": (torch.softmax(beta * x @ y.T, -1) @ y, retrieved(y, x)),
        "V_y": (torch.softmax(beta * y @ y.T, -1) @ y, retrieved(y, y)),
    }
    for formula, ours in published.values():
        assert torch.allclose(normalize(formula, dim=-1), ours, atol=1e-10)


def test_without_slots_it_is_ridge_regression() -> None:
    """W = argmin |A W^T - B|^2 + l |W|^2 as the coupling; the clamped cue predicts the missing modality."""
    generator = draws(3)
    a = normal(generator, 40, 5)
    b = a @ normal(generator, 5, 4) + 0.3 * normal(generator, 40, 4)
    model = Ridge(alpha=0.7, fit_intercept=False).fit(a.numpy(), b.numpy())
    w = torch.linalg.solve(a.T @ a + 0.7 * torch.eye(5, dtype=torch.float64), a.T @ b).T
    new = normal(generator, 6, 5)
    missing = torch.zeros(6, 4, dtype=torch.float64)
    energy = Energy(
        (Identity(),) * 2, couplings=Couplings({(1, 0): w}), cue=Cue((new, missing), (math.inf, 0.0))
    )
    found = descend(energy, (new, missing), steps=400, tolerance=1e-12)
    assert found.converged.all()
    assert torch.allclose(found.codes[1], torch.from_numpy(model.predict(new.numpy())), atol=1e-9)


@given(seed=seeds)
@settings(max_examples=10, deadline=None)
def test_contraction_has_a_single_resting_point(seed: int) -> None:
    """beta (diam/2)^2 < 1 with H = 0."""
    generator = draws(seed)
    patterns = normal(generator, SLOTS, 5)
    diameter = float(torch.cdist(patterns, patterns).max())
    energy = Energy((Identity(),), Slots((patterns,), Shannon(), 0.9 / (diameter / 2) ** 2))
    found = descend(energy, (10 * normal(generator, 30, 5),), steps=2000, tolerance=1e-12)
    assert found.converged.all()
    assert distance(found.codes, (found.codes[0][:1],)) < 1e-8


def test_many_memories_have_many_resting_points() -> None:
    """So that the test above could fail; and each is its memory."""
    patterns = unit(draws(4), SLOTS, 16)
    found = descend(Energy((Sphere(),), Slots((patterns,), Tsallis(1.5), 30.0)), (patterns,))
    assert found.converged.all() and distance(found.codes, (patterns,)) < 1e-9


def test_a_missing_modality_is_filled_from_a_damaged_one() -> None:
    generator = draws(5)
    a, b = unit(generator, 50, 24), unit(generator, 50, 16)
    damaged = normalize(a + 0.7 * unit(generator, 50, 24), dim=-1)
    cue = Cue((damaged, torch.zeros_like(b)), (0.1, 0.0))
    energy = Energy((Sphere(),) * 2, Slots((a, b), Shannon(), 20.0), cue=cue)
    found = descend(energy, cue.codes)
    assert (found.codes[1] * b).sum(-1).min() > 0.99
    assert ((found.codes[0] * a).sum(-1) > (damaged * a).sum(-1)).all()


# --- each cue by itself, under transforms ----------------------------------------------------------


@pytest.mark.parametrize("lagrangian", LAGRANGIANS, ids=str)
@pytest.mark.parametrize("momentum", [0.0, 0.5])
def test_an_answer_does_not_depend_on_its_batch(lagrangian: Lagrangian, momentum: float) -> None:
    generator = draws(6)
    x, cue = start_of(lagrangian, generator)
    slots, couplings = random_slots(generator, Tsallis(1.5), 6.0), random_couplings(generator, -1.0, 0.5)

    def run(rows: slice) -> Descent:
        given_codes = tuple(c[rows] for c in cue.codes)
        kappa = (torch.as_tensor(cue.kappa[0])[rows], 0.0)
        energy = Energy((lagrangian,) * 2, slots, couplings, Cue(given_codes, kappa))
        return descend(energy, tuple(z[rows] for z in x), steps=400, tolerance=1e-4, momentum=momentum)

    together = run(slice(None))
    assert together.steps.unique().numel() > 1
    for q in range(CUES):
        alone = run(slice(q, q + 1))
        assert alone.steps[0] == together.steps[q]
        assert distance(alone.codes, tuple(g[q : q + 1] for g in together.codes)) < 1e-9


def transformed(
    entropy: Entropy, lagrangian: Lagrangian, steps: int = 6
) -> tuple[Callable[..., Codes], tuple[Tensor, ...]]:
    generator = draws(7)
    x, cue = start_of(lagrangian, generator)
    slots = random_slots(generator, entropy, 5.0)
    couplings = random_couplings(generator, -1.0, 0.5).measured()

    def run(first: Tensor, code: Tensor, kappa: Tensor) -> Codes:
        missing = first.new_zeros(*first.shape[:-1], SIZES[1])
        energy = Energy((lagrangian,) * 2, slots, couplings, Cue((code, missing), (kappa, 0.0)))
        return descend(energy, (first, missing), steps=steps, tolerance=0).codes

    return run, (x[0], cue.codes[0], torch.as_tensor(cue.kappa[0]))


@pytest.mark.parametrize("entropy", ENTROPIES, ids=str)
@pytest.mark.parametrize("lagrangian", [Identity(), Sphere(), Softmax()], ids=str)
def test_vmap_over_cues(entropy: Entropy, lagrangian: Lagrangian) -> None:
    run, inputs = transformed(entropy, lagrangian)
    assert distance(torch.func.vmap(run)(*inputs), run(*inputs)) < 1e-12
    jacobian = torch.func.vmap(torch.func.jacrev(lambda *given_: run(*given_)[1]))(*inputs)
    assert jacobian.shape == (CUES, SIZES[1], SIZES[0]) and jacobian.isfinite().all()


def test_compiles_as_one_graph() -> None:
    run, inputs = transformed(Tsallis(1.5), Sphere(), steps=2)
    torch.compiler.reset()
    compiled = torch.compile(run, fullgraph=True, backend="eager")
    assert distance(compiled(*inputs), run(*inputs)) < 1e-12


def test_stops_when_all_rest() -> None:
    patterns = unit(draws(8), SLOTS, 16)
    energy = Energy((Sphere(),), Slots((patterns,), Tsallis(2.0), 50.0))
    found = descend(energy, (patterns,), steps=1000, trace=True)
    assert (found.steps == 1).all() and found.energies.shape == (2, SLOTS)
    assert not descend(energy, (patterns + 0.5,), steps=1).converged.all()


def test_a_code_that_nothing_draws_stays() -> None:
    code = unit(draws(9), CUES, 5)
    energy = Energy((Sphere(),), Slots((unit(draws(10), SLOTS, 5),), Shannon(), 2.0, weights=(0.0,)))
    assert distance(descend(energy, (code,)).codes, (code,)) < 1e-15


# --- gradients -------------------------------------------------------------------------------------


@pytest.mark.parametrize("lagrangian", [Identity(), Sphere(), Tanh()], ids=str)
@pytest.mark.parametrize("entropy", [Shannon(), Tsallis(1.5)], ids=str)
def test_implicit_gradient_is_that_of_a_long_descent(lagrangian: Lagrangian, entropy: Entropy) -> None:
    generator = draws(11)
    x, cue = start_of(lagrangian, generator)
    template = random_couplings(generator, -0.5, 0.4)
    slots = random_slots(generator, entropy, 2.0)
    target = tuple(normal(generator, CUES, d) for d in SIZES)
    parameters = [
        *slots.patterns, *template.blocks.values(), template.fields[0], cue.codes[0],
        torch.as_tensor(cue.kappa[0]),
    ]  # fmt: skip

    def gradients(implicit: bool) -> list[Tensor]:
        leaves = [p.clone().requires_grad_() for p in parameters]
        xi0, xi1, *blocks, field, code, kappa = leaves
        energy = Energy(
            (lagrangian,) * 2,
            Slots((xi0, xi1), entropy, 2.0, (1.0, 0.6)),
            Couplings(dict(zip(template.blocks, blocks, strict=True)), {0: field}),
            Cue((code, cue.codes[1]), (kappa, 0.0)),
        )
        found = descend(energy, x, steps=1500, tolerance=1e-14, implicit=implicit)
        assert found.converged.all()
        loss = sum(((g - t) ** 2).sum() for g, t in zip(found.codes, target, strict=True))
        return list(torch.autograd.grad(loss, leaves))

    for one, other in zip(gradients(False), gradients(True), strict=True):
        assert one.abs().max() > 1e-4
        assert torch.allclose(one, other, atol=1e-5)


def test_memory_of_the_implicit_gradient_does_not_grow() -> None:
    """The tensors that autograd keeps are those of one step, however many were taken."""

    def kept(steps: int, implicit: bool) -> int:
        patterns = unit(draws(12), SLOTS, 5).requires_grad_()
        energy = Energy((Identity(),), Slots((patterns,), Shannon(), 2.0))
        count = 0

        def pack(tensor: Tensor) -> Tensor:
            nonlocal count
            count += tensor.numel()
            return tensor

        with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
            descend(energy, (normal(draws(13), CUES, 5),), steps=steps, tolerance=0, implicit=implicit)
        return count

    assert kept(40, True) == kept(5, True)
    assert kept(40, False) > 5 * kept(5, False)


# --- what it refuses -------------------------------------------------------------------------------


def test_an_energy_without_a_lower_bound_is_refused() -> None:
    x = tuple(normal(draws(14), CUES, d) for d in SIZES)
    couplings = random_couplings(draws(15), -0.5, 1.2)
    with pytest.raises(ValueError, match="no lower bound"):
        descend(Energy((Identity(),) * 2, couplings=couplings), x)
    with pytest.raises(ValueError, match="no lower bound"):
        descend(Energy((Power(),) * 2, couplings=couplings), x)
    # A trusted cue holds it, and so does a sphere.
    held = descend(Energy((Identity(),) * 2, couplings=couplings, cue=Cue(x, (0.3, 0.3))), x, steps=2000)
    assert held.converged.all()
    assert descend(Energy((Sphere(),) * 2, couplings=couplings), x, steps=2000).converged.all()
    clamped = Energy((Identity(),) * 2, couplings=couplings, cue=Cue(x, (math.inf, math.inf)))
    assert distance(descend(clamped, x).codes, x) == 0


def test_a_conjugate_that_is_not_strongly_convex_needs_no_curvature() -> None:
    x = tuple(normal(draws(16), CUES, d).abs() for d in SIZES)
    slots = Slots(tuple(normal(draws(17), SLOTS, d).abs() for d in SIZES), Shannon(), 2.0)
    assert rise(descend(Energy((Power(3),) * 2, slots), x, steps=10, tolerance=0, trace=True)) < 1e-10
    with pytest.raises(ValueError, match="not strongly convex"):
        descend(Energy((Power(3),) * 2, slots, cue=Cue(x, (0.5, 0.0))), x)
    with pytest.raises(ValueError, match="not strongly convex"):
        descend(Energy((Power(3),) * 2, slots, random_couplings(draws(18), -1.0, -0.5)), x)


def test_bad_arguments_are_refused() -> None:
    x = (normal(draws(19), CUES, 5),)
    energy = Energy((Identity(),), Slots((unit(draws(20), SLOTS, 5),), Shannon(), 2.0))
    for arguments, message in (
        ({"momentum": 1.0}, "momentum"),
        ({"step_size": 0.5}, "euler"),
        ({"method": "newton"}, "method"),
        ({"method": "euler", "step_size": 0.0}, "above 0"),
    ):
        with pytest.raises(ValueError, match=message):
            descend(energy, x, **arguments)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="one for each"):
        descend(energy, (*x, *x))


def test_momentum_is_faster() -> None:
    """Ill-conditioned: eigenvalues of 1 - H from 0.02 to 4."""
    energy = Energy((Identity(),) * 2, couplings=random_couplings(draws(21), -3.0, 0.98))
    x = tuple(normal(draws(22), CUES, d) for d in SIZES)
    plain, fast = (descend(energy, x, steps=5000, tolerance=1e-9, momentum=m) for m in (0.0, 0.85))
    assert plain.converged.all() and fast.converged.all()
    assert (2 * fast.steps < plain.steps).all()
