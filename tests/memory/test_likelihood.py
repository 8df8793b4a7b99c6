"""Likelihood ratios against the densities they are ratios of."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from torch.distributions import MultivariateNormal

from harmonia.memory import Given, HarmonicMemory
from harmonia.memory.likelihood import LikelihoodRatio, RatioFrame
from harmonia.memory.matrix import Centering

seeds = st.integers(0, 10_000)


def pairs(seed: int, n: int, d: int, noise: float = 0.4) -> tuple[Tensor, Tensor]:
    """Raw unit cues and codes (n, d) of the same records."""
    g = torch.Generator().manual_seed(seed)
    shape = torch.randn(d, d, generator=g, dtype=torch.float64)
    y = torch.randn(n, d, generator=g, dtype=torch.float64) @ shape + 0.5
    cues, codes = (y + noise * torch.randn(n, d, generator=g, dtype=torch.float64) for _ in range(2))
    return torch.nn.functional.normalize(cues, dim=-1), torch.nn.functional.normalize(codes, dim=-1)


def model(c: Tensor, x: Tensor, ridge: float = 1.0) -> RatioFrame:
    """The frame of codes ``x`` with the model of their own cues ``c``."""
    frame = Centering.fit(x)
    codes = frame.transform(x)
    ratio = LikelihoodRatio.within(codes, frame.transform_cue(c) - codes, ridge=ridge)
    return RatioFrame.over(frame, {"a": ratio})


@settings(max_examples=15, deadline=None)
@given(seed=seeds, d=st.integers(2, 7), ridge=st.sampled_from([0.0, 0.3, 1.0, 5.0]))
def test_within_a_modality_it_is_the_ratio_of_densities(seed: int, d: int, ridge: float) -> None:
    c, x = pairs(seed, 200, d)
    frame = model(c, x, ridge)
    ratio = frame.ratios["a"]
    cue, code = frame.transform_cue(c)[:4], Centering.transform(frame, x)[:5]
    found = frame.query(cue, "a") @ frame.transform(x[:5]).T + ratio.level(cue)[:, None]
    if len(ratio.correlation) < d:
        return  # directions without any share between records are left out, and have no covariance to invert
    back = torch.linalg.inv(ratio.basis)
    total, between = back.T @ back, back.T @ torch.diag(ratio.correlation) @ back
    both = torch.cat([torch.cat([total, between], 1), torch.cat([between, total], 1)])
    zero = torch.zeros(2 * d, dtype=torch.float64)
    for i in range(4):
        for j in range(5):
            u, v = cue[i] - ratio.cue_mean, code[j] - ratio.mean
            expected = MultivariateNormal(zero, both).log_prob(torch.cat([u, v]))
            for one in (u, v):
                expected = expected - MultivariateNormal(zero[:d], total).log_prob(one)
            assert found[i, j] == pytest.approx(float(expected), abs=1e-6)


@settings(max_examples=15, deadline=None)
@given(seed=seeds)
def test_between_modalities_it_is_the_ratio_of_densities(seed: int) -> None:
    g = torch.Generator().manual_seed(seed)
    c = torch.randn(300, 3, generator=g, dtype=torch.float64)
    x = c @ torch.randn(3, 5, generator=g, dtype=torch.float64)
    x = x + torch.randn(300, 5, generator=g, dtype=torch.float64)
    ratio = LikelihoodRatio.between(c, x, torch.arange(300))
    found = ratio.query(c[:3]) @ x[:4].T + ratio.own(x[:4]) + ratio.level(c[:3])[:, None]
    for i in range(3):
        u = (c[i] - ratio.cue_mean) @ ratio.cue_basis
        for j in range(4):
            v = (x[j] - ratio.mean) @ ratio.basis
            expected = torch.zeros((), dtype=torch.float64)
            for r, a, b in zip(ratio.correlation, u, v, strict=True):
                joint = torch.eye(2, dtype=torch.float64) * (1 - r) + r
                zero = torch.zeros(2, dtype=torch.float64)
                expected = expected + MultivariateNormal(zero, joint).log_prob(torch.stack([a, b]))
                expected = expected + 0.5 * (a**2 + b**2) + math.log(2 * math.pi)
            assert found[i, j] == pytest.approx(float(expected), abs=1e-8)


def test_the_pull_is_the_gradient_by_the_cue() -> None:
    c, x = pairs(1, 100, 6)
    frame = model(c, x)
    cue = frame.transform_cue(c)[:3].requires_grad_()
    codes = frame.transform(x)[:3]
    (frame.query(cue, "a") * codes).sum().backward()
    assert cue.grad is not None and torch.allclose(frame.pull(codes, "a"), cue.grad)


@pytest.mark.parametrize("precision", ["float32", "float16", "int8"])
def test_a_recall_is_the_softmax_of_the_ratios(precision: str) -> None:
    c, x = (one.float() for one in pairs(2, 300, 24, noise=1.0))
    frame = model(c, x)
    memory = HarmonicMemory({"a": x}, frames={"a": frame}, precision=precision)  # type: ignore[arg-type]
    found = memory.recall([Given("a", c[:40])], beta=1.0, k=300)
    cue = frame.transform_cue(c[:40])
    exact = frame.query(cue, "a") @ frame.transform(x).T + frame.ratios["a"].level(cue)[:, None]
    near = {"float32": 1e-4, "float16": 0.05, "int8": 1e-3}[precision]
    assert torch.allclose(found.scores, exact.gather(1, found.slots), atol=near * float(exact.abs().max()))
    if precision == "float32":
        assert torch.allclose(found.p, torch.softmax(exact, dim=1).gather(1, found.slots), atol=1e-3)
    sure = found.p[:, 0] > 0.999
    raw = torch.nn.functional.normalize(x[found.slots[:, 0]], dim=-1)
    assert torch.allclose(found.codes["a"][sure], raw[sure], atol=0.02)


@settings(max_examples=20, deadline=None)
@given(seed=seeds, trust=st.sampled_from([0.1, 1.0, 20.0]))
def test_the_energy_never_rises(seed: int, trust: float) -> None:
    c, x = pairs(seed, 80, 8, noise=1.5)
    memory = HarmonicMemory({"a": x}, frames={"a": model(c, x)})
    found = memory.recall([Given("a", c[:10], trust=trust)], steps=20)
    assert (found.energies.diff(dim=0) <= 1e-9).all()
    assert found.steps.max() > 0


def test_a_cue_of_another_kind_asks_only_records_without_its_own() -> None:
    g = torch.Generator().manual_seed(3)
    words = torch.randn(200, 6, generator=g, dtype=torch.float64)
    images = words @ torch.randn(6, 10, generator=g, dtype=torch.float64)
    images = images + 0.3 * torch.randn(200, 10, generator=g, dtype=torch.float64)
    frames = {"text": Centering.fit(words), "image": Centering.fit(images)}
    ratio = LikelihoodRatio.between(
        frames["text"].transform_cue(words), frames["image"].transform(images), torch.arange(200)
    )
    from harmonia.memory import Layout

    held = torch.arange(200) < 150
    layout = Layout.aligned({"text": held, "image": torch.ones(200, dtype=torch.bool)})
    memory = HarmonicMemory(
        {"text": words, "image": images}, layout,
        frames={"text": frames["text"], "image": RatioFrame.over(frames["image"], {"text": ratio})},
    )  # fmt: skip
    found = memory.recall([Given("image", words[150:], origin="text", without="text")], k=50)
    assert (found.slots[:, :50] >= 150).all()
    assert (found.slots[:, 0] == torch.arange(150, 200)).double().mean() > 0.5
    assert set(found.codes) == {"text", "image"}
    assert set(memory.matrices) == {"text", "image"}  # the view is of that recall alone


@pytest.mark.parametrize("n", [1, 2, 3])
def test_few_pairs_are_finite(n: int) -> None:
    c, x = pairs(4, n, 5)
    frame = model(c, x)
    cue = frame.transform_cue(c)
    found = frame.query(cue, "a") @ frame.transform(x).T + frame.ratios["a"].level(cue)[:, None]
    assert found.isfinite().all()
    with pytest.raises(ValueError, match="needs a pair"):
        LikelihoodRatio.within(frame.transform(x)[:, :5], x[:0])
