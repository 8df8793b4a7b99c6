"""Kernel memory: the estimate, its gradient, its error, and sums that can be undone, in float64."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from harmonia.memory.random_features import KernelMemory, Kind, draw_frequencies

KINDS: list[Kind] = ["trigonometric", "positive"]
D = 6
seeds = st.integers(0, 2**31 - 1)


def normal(seed: int, *shape: int) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def sphere(seed: int, *shape: int) -> Tensor:
    return torch.nn.functional.normalize(normal(seed, *shape), dim=-1)


def memory_of(
    codes: Tensor, count: int = 64, beta: float = 1.5, kind: Kind = "trigonometric", seed: int = 0
) -> KernelMemory:
    memory = KernelMemory(
        draw_frequencies(codes.shape[-1], count, seed=seed, dtype=codes.dtype), beta, kind=kind
    )
    memory.insert(codes)
    return memory


def kernel(x: Tensor, y: Tensor, beta: float) -> Tensor:
    return torch.exp(-0.5 * beta * torch.cdist(x, y) ** 2)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("orthogonal", [False, True])
def test_features_estimate_the_kernel_without_bias(kind: Kind, orthogonal: bool) -> None:
    # Short, as the tail of positive features is heavy for long ones.
    x, y, beta = sphere(0, 5, D), 1.2 * sphere(1, 4, D), 0.5
    draws = []
    for seed in range(400):
        memory = KernelMemory(
            draw_frequencies(D, 20, seed=seed, orthogonal=orthogonal, dtype=torch.float64), beta, kind=kind
        )
        draws.append(memory.features(x) @ memory.features(y).T)
    estimates = torch.stack(draws)
    error = estimates.std(dim=0) / math.sqrt(len(draws))
    assert ((estimates.mean(dim=0) - kernel(x, y, beta)).abs() <= 4 * error).all()


@pytest.mark.parametrize("orthogonal", [False, True])
def test_frequencies_are_standard_normal_and_their_seeds(orthogonal: bool) -> None:
    w = draw_frequencies(D, 6001, seed=3, orthogonal=orthogonal, dtype=torch.float64)
    assert torch.equal(w, draw_frequencies(D, 6001, seed=3, orthogonal=orthogonal, dtype=torch.float64))
    assert not torch.equal(w, draw_frequencies(D, 6001, seed=4, orthogonal=orthogonal, dtype=torch.float64))
    assert (w.T @ w / len(w) - torch.eye(D)).abs().max() < 0.1
    assert abs(float((w**4).mean()) - 3.0) < 0.3
    if orthogonal:
        gram = w[:D] @ w[:D].T
        assert (gram - gram.diagonal().diag()).abs().max() < 1e-12


def test_orthogonal_frequencies_err_less() -> None:
    x, y = sphere(0, 8, D), sphere(1, 8, D)
    squares = {False: 0.0, True: 0.0}
    for orthogonal in squares:
        for seed in range(200):
            memory = KernelMemory(
                draw_frequencies(D, 2 * D, seed=seed, orthogonal=orthogonal, dtype=torch.float64), 1.0
            )
            found = memory.features(x) @ memory.features(y).T
            squares[orthogonal] += float(((found - kernel(x, y, 1.0)) ** 2).sum())
    assert squares[True] < 0.8 * squares[False]


@pytest.mark.parametrize("kind", KINDS)
@settings(max_examples=20, deadline=None)
@given(seed=seeds, beta=st.floats(0.1, 3.0))
def test_gradient_is_that_of_the_energy(kind: Kind, seed: int, beta: float) -> None:
    memory = memory_of(normal(seed, 7, D), beta=beta, kind=kind, seed=seed)
    # Some far away, where the sum is below the floor.
    g = (torch.tensor([[0.3], [1.0], [4.0]]) * normal(seed + 1, 3, 2, D).transpose(0, 1)).requires_grad_()
    (wanted,) = torch.autograd.grad(memory.energy(g).sum(), g)
    assert torch.allclose(memory.gradient(g), wanted, rtol=1e-9, atol=1e-12)
    assert (wanted[memory.kernel_sum(g) < memory.floor] == 0).all()


def test_energy_is_flat_below_the_floor_and_nowhere_infinite() -> None:
    memory = memory_of(sphere(0, 50, D), count=32, beta=30.0)
    g = sphere(1, 200, D)
    low = memory.kernel_sum(g) < memory.floor
    assert low.any() and not low.all()
    flat = -math.log(memory.floor) / memory.beta
    assert torch.equal(memory.energy(g)[low], torch.full_like(memory.energy(g)[low], flat))
    assert memory.energy(g)[~low].max() < flat
    rest = memory.descend(g[low])
    assert rest.converged.all() and torch.allclose(rest.codes, g[low])


def test_energy_becomes_the_exact_one_with_many_frequencies() -> None:
    """On the sphere that of attention plus 1, and its step that of attention."""
    codes, g, beta = sphere(0, 10, D), sphere(1, 8, D), 1.0
    for kind in KINDS:
        memory = memory_of(codes, 40_000, beta, kind)
        exact = -torch.logsumexp(beta * g @ codes.T, dim=-1) / beta + 1.0
        assert torch.allclose(memory.energy(g), exact, atol=0.05)
        step = torch.softmax(beta * g @ codes.T, dim=-1) @ codes
        assert torch.allclose(g - memory.gradient(g), step, atol=0.05)


@pytest.mark.parametrize("kind", KINDS)
@settings(max_examples=20, deadline=None)
@given(seed=seeds)
def test_deleting_undoes_inserting_in_any_order(kind: Kind, seed: int) -> None:
    codes, weights = normal(seed, 9, D), normal(seed + 1, 9).exp()
    memory = memory_of(codes, kind=kind)
    total, own = memory.total.clone(), memory.own
    memory.insert(2 * codes, weights)
    order = torch.randperm(9, generator=torch.Generator().manual_seed(seed))
    for i in order:
        memory.delete(2 * codes[i], weights[i])
    scale = float(total.abs().max()) + 1
    assert (memory.total - total).abs().max() <= 1e-12 * scale
    assert memory.count == pytest.approx(9) and memory.own == pytest.approx(own)
    memory.delete(codes[order])
    assert memory.total.abs().max() <= 1e-12 * scale and memory.count == pytest.approx(0)


def test_order_and_portions_do_not_matter_and_single_precision_adds_up() -> None:
    codes = sphere(0, 300, D).float()
    one, other = (KernelMemory(draw_frequencies(D, 50), 2.0) for _ in range(2))
    one.insert(codes)
    for part in codes.flip(0).split(7):
        other.insert(part)
    assert one.total.dtype == torch.float64
    assert torch.allclose(one.total, other.total, atol=1e-5)
    one.delete(codes.flip(0))
    assert one.total.abs().max() < 1e-5


def test_weights_count() -> None:
    codes = sphere(0, 3, D)
    twice = memory_of(torch.cat([codes, codes[:1]]))
    weighted = memory_of(codes[:0])
    weighted.insert(codes, torch.tensor([2.0, 1.0, 1.0]))
    assert torch.allclose(twice.total, weighted.total) and twice.count == weighted.count == 4


def test_error_grows_as_the_root_of_memories_over_frequencies() -> None:
    """sqrt(N / 2 Y) for codes that are unlike each other, at held and unheld places alike."""
    d, beta = 64, 30.0
    for count in (16, 64, 256, 1024):
        codes = sphere(count, count, d)
        places = torch.cat([codes[:16], sphere(7, 16, d)])
        exact = kernel(places, codes, beta).sum(dim=-1)
        for frequencies in (64, 512, 4096):
            squares, said = [], []
            for seed in range(8 if frequencies == 4096 else 24):
                memory = memory_of(codes, frequencies, beta, seed=seed)
                squares.append(((memory.kernel_sum(places) - exact) ** 2).mean())
                said.append((memory.standard_error(places) ** 2).mean())
            law = count / (2 * frequencies)
            assert torch.stack(squares).mean().sqrt() == pytest.approx(math.sqrt(law), rel=0.25)
            assert torch.stack(said).mean().sqrt() == pytest.approx(math.sqrt(law), rel=0.1)


def test_positive_features_err_in_proportion_to_the_kernel() -> None:
    x, y, beta, count = sphere(0, 6, D), sphere(1, 6, D), 0.5, 16
    draws = []
    for seed in range(2000):
        memory = KernelMemory(draw_frequencies(D, count, seed=seed, dtype=x.dtype), beta, kind="positive")
        draws.append(memory.features(x) @ memory.features(y).T)
    relative = torch.stack(draws).std(dim=0) / kernel(x, y, beta)
    square = beta * ((x[:, None] + y) ** 2).sum(dim=-1)
    assert torch.allclose(relative, ((torch.cosh(square) - 1) / count).sqrt(), rtol=0.2)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("on_sphere", [False, True])
@settings(max_examples=20, deadline=None)
@given(seed=seeds, beta=st.sampled_from([0.5, 2.0, 20.0]))
def test_energy_never_rises(kind: Kind, on_sphere: bool, seed: int, beta: float) -> None:
    memory = memory_of(sphere(seed, 12, D), 40, beta, kind, seed)
    start = normal(seed + 1, 2, 3, D)
    rest = memory.descend(start, steps=30, sphere=on_sphere)
    assert rest.energies.shape[1:] == (2, 3) and rest.codes.shape == start.shape
    assert (rest.energies.diff(dim=0) <= 0).all()
    assert torch.allclose(memory.energy(rest.codes), rest.energies[-1])
    if on_sphere:
        assert torch.allclose(rest.codes.norm(dim=-1), torch.ones(2, 3, dtype=torch.float64))


def test_descent_comes_to_rest_at_the_memory_and_cues_do_not_mind_each_other() -> None:
    codes = sphere(0, 4, 32)
    memory = memory_of(codes, 8192, 8.0)
    cues = codes + 0.1 * normal(1, 4, 32)
    rest = memory.descend(cues, steps=200)
    assert rest.converged.all()
    assert (torch.cosine_similarity(rest.codes, codes, dim=-1) > 0.97).all()
    alone = memory.descend(cues[2], steps=200)
    assert torch.allclose(alone.codes, rest.codes[2]) and alone.steps == rest.steps[2]


@pytest.mark.parametrize(
    ("kind", "beta"), [("trigonometric", 2.0), ("trigonometric", 4.0), ("positive", 0.5)]
)
def test_novelty_tells_held_from_unheld_at_low_beta(kind: Kind, beta: float) -> None:
    """Forty codes in 4 clusters: what is like them is old, what is not is new, an average one near 0."""
    centres = sphere(0, 4, 16)
    draws = torch.nn.functional.normalize(centres.repeat(20, 1) + 0.1 * normal(1, 80, 16), dim=-1)
    memory = memory_of(draws[:40], 4096, beta, kind)
    held, alike, strange = memory.novelty(draws[:40]), memory.novelty(draws[40:]), memory.novelty(-draws[40:])
    assert held.max() < strange.min() and alike.max() < strange.min()
    assert abs(float(alike.mean())) < 0.2 / beta
    memory.delete(draws[:40])
    assert memory.novelty(draws[:2]).isinf().all()


def test_size_does_not_change_with_what_is_held() -> None:
    memory = memory_of(sphere(0, 1, D))
    before = memory.nbytes, sum(t.nbytes for t in memory.state().values())
    memory.insert(sphere(1, 5000, D))
    assert (memory.nbytes, sum(t.nbytes for t in memory.state().values())) == before
    assert memory.nbytes == 2 * 64 * 8


@pytest.mark.parametrize("kind", KINDS)
def test_state_brings_the_same_memory_back(kind: Kind) -> None:
    memory, g = memory_of(sphere(0, 9, D), kind=kind), sphere(1, 3, D)
    state = memory.state()
    again = KernelMemory.restore(state)
    memory.insert(g)
    assert all(type(value) is Tensor for value in state.values())
    assert not torch.equal(again.energy(g), memory.energy(g))
    again.insert(g)
    assert torch.equal(again.energy(g), memory.energy(g)) and torch.equal(again.novelty(g), memory.novelty(g))
    assert torch.equal(memory.to("cpu").energy(g), memory.energy(g))
    with pytest.raises(ValueError, match="belong together"):
        KernelMemory.restore({**state, "total": state["total"][:, :3]})


def test_bad_input_changes_nothing() -> None:
    memory, codes = memory_of(sphere(0, 9, D)), sphere(1, 3, D)
    total = memory.total.clone()
    unknown = torch.tensor([1.0, math.nan, 1.0])
    cases = [(codes / 0.0, None), (codes[:, :4], None), (codes, torch.ones(2)), (codes, unknown)]
    for bad, weights in cases:
        with pytest.raises(ValueError):
            memory.insert(bad, weights)
        assert torch.equal(memory.total, total) and memory.count == 9
    w = draw_frequencies(D, 4)
    for call in (
        lambda: KernelMemory(w, 0.0),
        lambda: KernelMemory(w, 1.0, floor=0.0),
        lambda: KernelMemory(w, 1.0, kind="cosine"),  # type: ignore[arg-type]
        lambda: KernelMemory(w[0], 1.0),
        lambda: draw_frequencies(D, 0),
    ):
        with pytest.raises(ValueError):
            call()
