"""Lagrangians: gradient = activation, and the conjugate that belongs to it."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from harmonia.memory.lagrangians import (
    Ball,
    Identity,
    Lagrangian,
    LayerNorm,
    Power,
    Softmax,
    Sphere,
    Tanh,
)

ALL: list[Lagrangian] = [
    Identity(), Sphere(), Ball(0.7), LayerNorm(1.3, 1e-2), LayerNorm(), Softmax(), Softmax(5.0),
    Power(), Power(4), Tanh(), Tanh(5.0), Tanh(0.3),
]  # fmt: skip
seeds = st.integers(0, 2**31 - 1)


def draw(seed: int, *shape: int, scale: float = 1.5) -> torch.Tensor:
    return scale * torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


@pytest.mark.parametrize("lagrangian", ALL, ids=str)
@given(seed=seeds)
@settings(max_examples=20, deadline=None)
def test_the_gradient_is_the_activation(lagrangian: Lagrangian, seed: int) -> None:
    x = draw(seed, 4, 6).requires_grad_()
    (gradient,) = torch.autograd.grad(lagrangian.value(x).sum(), x)
    assert torch.allclose(gradient, lagrangian.activation(x), atol=1e-9)


@pytest.mark.parametrize("lagrangian", ALL, ids=str)
@given(seed=seeds)
@settings(max_examples=20, deadline=None)
def test_the_conjugate_touches_at_the_activation_and_only_there(lagrangian: Lagrangian, seed: int) -> None:
    x, y = draw(seed, 5, 6), draw(seed + 1, 5, 6)
    g, other = lagrangian.activation(x), lagrangian.activation(y)
    gap = lagrangian.value(x) + lagrangian.conjugate(g) - (x * g).sum(-1)
    assert torch.allclose(gap, torch.zeros(5, dtype=torch.float64), atol=1e-8)
    assert (lagrangian.value(x) + lagrangian.conjugate(other) - (x * other).sum(-1) >= -1e-9).all()


@pytest.mark.parametrize("lagrangian", [one for one in ALL if one.convexity > 0], ids=str)
@given(seed=seeds)
@settings(max_examples=20, deadline=None)
def test_the_convexity_is_that_of_the_conjugate(lagrangian: Lagrangian, seed: int) -> None:
    """L' is 1/mu-Lipschitz."""
    for scale in (1e-4, 0.1, 3.0):
        x = draw(seed, 5, 6, scale=scale)
        y = x + draw(seed + 1, 5, 6, scale=0.1 * scale)
        slope = (lagrangian.activation(x) - lagrangian.activation(y)).norm(dim=-1) / (x - y).norm(dim=-1)
        assert (slope <= (1 + 1e-9) / lagrangian.convexity).all()


@pytest.mark.parametrize(
    ("lagrangian", "outside"),
    [
        (Sphere(), [1.0, 1.0]),
        (Ball(0.5), [0.5, 0.3]),
        (LayerNorm(), [1.0, 0.5]),
        (Softmax(), [0.5, 0.6]),
        (Power(), [-0.1, 1.0]),
        (Tanh(), [1.1, 0.0]),
    ],
    ids=str,
)
def test_outside_its_domain_the_conjugate_is_infinite(lagrangian: Lagrangian, outside: list[float]) -> None:
    assert lagrangian.conjugate(torch.tensor(outside)) == torch.inf


@pytest.mark.parametrize("lagrangian", ALL, ids=str)
def test_zero_and_huge_inputs_give_numbers(lagrangian: Lagrangian) -> None:
    for x in (torch.zeros(2, 3), torch.full((2, 3), 1e4), -torch.full((2, 3), 1e4)):
        x = x.requires_grad_()
        value, g = lagrangian.value(x), lagrangian.activation(x)
        (gradient,) = torch.autograd.grad(g.sum(), x)
        assert torch.isfinite(value).all() and torch.isfinite(g).all() and torch.isfinite(gradient).all()


def test_a_power_below_two_is_refused() -> None:
    with pytest.raises(ValueError, match="at least 2"):
        Power(1)


@pytest.mark.parametrize("kind", [Identity, Sphere, Ball, LayerNorm, Softmax, Power, Tanh])
def test_the_convexity_follows_and_is_never_given(kind: type) -> None:
    with pytest.raises(TypeError, match="convexity"):
        kind(convexity=2.0)
    for one in (kind(), *([] if kind in (Identity, Sphere) else [kind(3.0)])):
        with pytest.raises((AttributeError, TypeError)):
            one.convexity = 2.0


@pytest.mark.parametrize("kind", [Ball, LayerNorm, Softmax, Power, Tanh])
@pytest.mark.parametrize("value", [0.0, -1.0, math.nan, math.inf])
def test_parameters_that_give_no_convex_function_are_refused(kind: type, value: float) -> None:
    with pytest.raises(ValueError, match="got"):
        kind(value)
