"""Classical and dense Hopfield networks: fixed points, energies that never rise, cycles, capacity."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from harmonia.memory.classical import ClassicalHopfield, DenseHopfield, SphericalHopfield

seeds = st.integers(0, 2**31 - 1)
quick = settings(max_examples=20, deadline=None)


def bipolar(seed: int, *shape: int) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randint(0, 2, shape, generator=generator).double() * 2 - 1


def unit(seed: int, *shape: int) -> Tensor:
    x = torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    return torch.nn.functional.normalize(x, dim=-1)


def correct(states: Tensor, patterns: Tensor) -> int:
    return int((states == patterns).all(dim=-1).sum())


def networks(seed: int) -> list[ClassicalHopfield | DenseHopfield]:
    xi = bipolar(seed, 5, 24)
    return [
        ClassicalHopfield.hebbian(xi),
        ClassicalHopfield.hebbian(xi, zero_diagonal=False),
        ClassicalHopfield.hebbian(xi + unit(seed, 5, 24)),
        ClassicalHopfield.projection(xi),
        ClassicalHopfield.projection(xi, zero_diagonal=False),
        DenseHopfield(xi, n=2, rectified=False),
        DenseHopfield(xi, n=3),
        DenseHopfield(xi, n=5, rectified=False),
    ]


@given(seed=seeds)
@quick
def test_asynchronous_energy_never_rises(seed: int) -> None:
    cues = bipolar(seed + 1, 7, 24)
    for network in networks(seed):
        traced = [network.energy(cues)]
        traced += [network.energy(network.recall(cues, steps=n, seed=seed).states) for n in range(1, 6)]
        assert (torch.stack(traced).diff(dim=0) <= 1e-12).all()
        end = network.recall(cues, seed=seed)
        assert end.settled.all() and not end.cycling.any()


@given(seed=seeds)
@quick
def test_at_rest_no_single_flip_lowers_the_energy(seed: int) -> None:
    for network in networks(seed):
        if isinstance(network, ClassicalHopfield) and not network.zero_diagonal:
            continue
        rest = network.recall(bipolar(seed + 1, 4, 24), seed=seed).states
        flipped = rest[:, None] * (1 - 2 * torch.eye(24, dtype=torch.float64))
        assert (network.energy(flipped) >= network.energy(rest)[:, None] - 1e-12).all()


def test_two_cycles_are_reported() -> None:
    """Two units that each want the sign of the other."""
    network = ClassicalHopfield(torch.tensor([[0.0, 1.0], [1.0, 0.0]]), "hebbian")
    end = network.recall(torch.tensor([[1.0, -1.0], [1.0, 1.0]]), synchronous=True)
    assert end.cycling.tolist() == [True, False] and end.settled.tolist() == [False, True]
    assert end.steps.tolist() == [2, 1]
    assert network.recall(torch.tensor([1.0, -1.0])).settled


@given(seed=seeds)
@quick
def test_synchronous_recall_ends_and_a_kept_diagonal_never_cycles(seed: int) -> None:
    xi, cues = bipolar(seed, 9, 24), bipolar(seed + 1, 20, 24)
    bare = ClassicalHopfield.hebbian(xi).recall(cues, synchronous=True)
    assert (bare.settled ^ bare.cycling).all()
    kept = ClassicalHopfield.hebbian(xi, zero_diagonal=False)
    end = kept.recall(cues, synchronous=True)
    assert end.settled.all()
    assert (kept.energy(end.states) <= kept.energy(cues) + 1e-12).all()


@given(seed=seeds)
@quick
def test_inserting_is_storing_all_at_once(seed: int) -> None:
    xi = bipolar(seed, 6, 16)
    for zero in (True, False):
        whole = ClassicalHopfield.hebbian(xi, zero_diagonal=zero)
        grown = ClassicalHopfield.hebbian(xi[:2], zero_diagonal=zero).insert(xi[2:5]).insert(xi[5:])
        assert torch.allclose(whole.weights, grown.weights, atol=1e-14)
        assert bool((whole.weights.diagonal() == 0).all()) == zero


@given(seed=seeds)
@quick
def test_the_projection_rule_holds_independent_patterns(seed: int) -> None:
    xi = bipolar(seed, 20, 64)
    network = ClassicalHopfield.projection(xi)
    assert correct(network.recall(xi).states, xi) == 20
    whole = ClassicalHopfield.projection(xi, zero_diagonal=False).weights
    assert torch.allclose(whole @ whole, whole, atol=1e-10) and torch.allclose(xi @ whole, xi, atol=1e-10)


@given(seed=seeds, order=seeds)
@quick
def test_the_square_is_the_hebbian_network(seed: int, order: int) -> None:
    xi, cues = bipolar(seed, 4, 21), bipolar(seed + 1, 6, 21)
    dense = DenseHopfield(xi, n=2, rectified=False).recall(cues, seed=order)
    classical = ClassicalHopfield.hebbian(xi).recall(cues, seed=order)
    assert torch.equal(dense.states, classical.states)


def test_a_cues_answer_does_not_depend_on_its_batch() -> None:
    cues = bipolar(1, 2, 5, 24)
    for network in networks(0):
        together, alone = network.recall(cues, seed=4), network.recall(cues[1, 3], seed=4)
        assert torch.equal(together.states[1, 3], alone.states)
        assert together.steps[1, 3] == alone.steps


def test_capacity() -> None:
    """Hebbian storage breaks at 0.138 d, projection far beyond it, a cubic energy beyond d."""
    d = 128
    few, many = bipolar(0, 8, d), bipolar(1, 32, d)
    assert correct(ClassicalHopfield.hebbian(few).recall(few).states, few) == 8
    assert correct(ClassicalHopfield.hebbian(many).recall(many).states, many) <= 2
    assert correct(ClassicalHopfield.projection(many).recall(many).states, many) == 32
    more = bipolar(2, 2 * d, d)
    damaged = more[:20].clone()
    damaged[:, : d // 10] *= -1
    assert correct(DenseHopfield(more, n=4).recall(damaged).states, more[:20]) == 20


def test_half_of_a_pattern_is_enough() -> None:
    xi = bipolar(3, 6, 128)
    half = xi.clone()
    half[:, 64:] = 0
    for network in (ClassicalHopfield.hebbian(xi), ClassicalHopfield.projection(xi), DenseHopfield(xi)):
        assert correct(network.recall(half).states, xi) == 6


@given(seed=seeds, n=st.sampled_from([2, 3, 4, 12]), rectified=st.booleans())
@quick
def test_spherical_energy_never_rises(seed: int, n: int, rectified: bool) -> None:
    network = SphericalHopfield(3 * unit(seed, 6, 8), n=n, rectified=rectified or n % 2 == 1)
    cues = unit(seed + 1, 9, 8)
    traced = [network.energy(cues)]
    traced += [network.energy(network.recall(cues, steps=s).states) for s in range(1, 8)]
    assert (torch.stack(traced).diff(dim=0) <= 1e-12).all()
    assert torch.allclose(network.recall(cues).states.norm(dim=-1), torch.ones(9, dtype=torch.float64))


def test_spherical_recall_follows_the_gradient_and_finds_the_pattern() -> None:
    xi = unit(0, 40, 32)
    network = SphericalHopfield(xi, n=20)
    cue = torch.nn.functional.normalize(xi + 0.7 * unit(1, 40, 32), dim=-1).requires_grad_()
    (slope,) = torch.autograd.grad(network.energy(cue).sum(), cue)
    step = torch.nn.functional.normalize(-slope, dim=-1)
    assert torch.allclose(network.recall(cue.detach(), steps=1).states, step, atol=1e-12)
    end = network.recall(cue.detach())
    assert end.settled.all() and ((end.states * xi).sum(-1) > 0.999).all()
    away = SphericalHopfield(torch.tensor([[1.0, 0.0]]))
    assert torch.equal(away.recall(torch.tensor([-1.0, 0.0])).states, torch.tensor([-1.0, 0.0]))


def test_high_powers_and_single_precision() -> None:
    xi = bipolar(0, 50, 784).float()
    damaged = xi.clone()
    damaged[:, :200] *= -1
    assert correct(DenseHopfield(xi, n=30).recall(damaged[:3]).states, xi[:3]) == 3
    found = SphericalHopfield(xi, n=30).recall(damaged).states
    assert found.dtype == torch.float32 and (found.sign() == xi).all()
    whole = xi.to(torch.int8)
    assert correct(ClassicalHopfield.hebbian(whole[:5]).recall(whole[:5]).states, xi[:5]) == 5


@pytest.mark.parametrize(
    ("wrong", "says"),
    [
        (lambda: ClassicalHopfield.hebbian(torch.ones(3)), r"patterns must be \(N, d\)"),
        (
            lambda: ClassicalHopfield.projection(torch.eye(3)).insert(torch.ones(1, 3)),
            "only the Hebbian rule",
        ),
        (lambda: ClassicalHopfield.hebbian(torch.eye(3)).insert(torch.ones(1, 4)), r"\(N, 3\)"),
        (
            lambda: ClassicalHopfield.hebbian(torch.eye(3)).recall(torch.ones(4)),
            r"cues must be \(\.\.\., 3\)",
        ),
        (lambda: ClassicalHopfield.hebbian(torch.eye(3)).recall(torch.ones(3), steps=0), "at least 1"),
        (lambda: DenseHopfield(torch.eye(3), n=1), "at least 2"),
        (lambda: SphericalHopfield(torch.eye(3), n=3, rectified=False), "even n only"),
    ],
)
def test_errors_say_what_to_do(wrong: object, says: str) -> None:
    assert callable(wrong)
    with pytest.raises(ValueError, match=says) as error:
        wrong()
    assert "\n" not in str(error.value)
