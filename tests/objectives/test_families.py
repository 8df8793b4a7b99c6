"""Ranking, energy, regularising and consistency losses, as identities in float64."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from harmonia.objectives import (
    alignment,
    audio_visual,
    bounded_harmonic_loss,
    covariance,
    cross_correlation,
    cross_covariance,
    energy_loob,
    energy_margin,
    energy_nce,
    image_text_matching,
    info_loob,
    info_nce,
    siamese,
    triplet,
    uniformity,
    variance,
)
from harmonia.types import HarmoniaError

seeds = st.integers(0, 2**31 - 1)


def draw(seed: int, *shape: int) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def unit_rows(seed: int, *shape: int) -> Tensor:
    return F.normalize(draw(seed, *shape), dim=-1)


def leaf(*shape: int, seed: int = 0) -> Tensor:
    return draw(seed, *shape).requires_grad_()


# Ranking


def test_siamese_by_hand() -> None:
    x = torch.tensor([[0.0, 0.0], [0.0, 0.0], [1.0, 1.0]])
    y = torch.tensor([[3.0, 4.0], [0.6, 0.8], [1.0, 1.0]])
    told = siamese(x, y, torch.tensor([True, False, False]), margin=1.5)
    assert told.item() == pytest.approx((12.5 + 0.5 * 0.5**2 + 0.5 * 1.5**2) / 3)
    assert siamese(x, y, torch.tensor([False, False, True]), margin=1.0).item() == pytest.approx(0.0)


def test_siamese_has_a_gradient_where_rows_are_equal() -> None:
    x = torch.ones(2, 3, requires_grad=True)
    siamese(x, torch.ones(2, 3), torch.tensor([True, False]), 1.0).backward()
    assert x.grad is not None and x.grad.isfinite().all()


@pytest.mark.parametrize(
    ("distance", "expected"),
    [("euclidean", 0.2 + 1 - 2**0.5), ("squared", 0.2 + 1 - 2), ("cosine", 0.2 + 1 - 2)],
)
def test_triplet_distances(distance: Any, expected: float) -> None:
    one = torch.tensor([[1.0, 0.0]])
    near, far = {"cosine": ([[0.0, 2.0]], [[-3.0, 0.0]])}.get(distance, ([[1.0, 1.0]], [[2.0, 1.0]]))
    got = triplet(one, torch.tensor(near), torch.tensor(far), 0.2, distance=distance)
    assert got.item() == pytest.approx(max(0.0, expected), abs=1e-6)
    swapped = triplet(one, torch.tensor(far), torch.tensor(near), 0.2, distance=distance)
    assert swapped.item() == pytest.approx(0.4 - expected, abs=1e-6)


@pytest.mark.parametrize("distance", ["euclidean", "squared", "cosine"])
def test_hard_triplets_are_the_worst_of_all(distance: Any) -> None:
    x, y, pool = (unit_rows(s, n, 4) for s, n in ((0, 5), (1, 5), (2, 8)))
    same = torch.arange(5)[:, None] == torch.arange(8) // 2
    same[4] = True
    every = [
        max(triplet(x[i : i + 1], y[i : i + 1], pool[j : j + 1], 0.3, distance=distance)
            for j in range(8) if not same[i, j])
        for i in range(4)
    ]  # fmt: skip
    got = triplet(x, y, pool, 0.3, distance=distance, hard=True, same=same)
    assert torch.allclose(got, torch.stack(every).mean()), "the fifth anchor has no negative and is left out"


@pytest.mark.parametrize("negatives", ["hardest", "all"])
def test_matching_is_the_sum_over_partners_written_out(negatives: Any) -> None:
    x, y = unit_rows(0, 4, 3), unit_rows(1, 5, 3)
    p = torch.tensor([0, 1, 2, 7])[:, None] == torch.tensor([0, 0, 1, 2, 8])
    s = x @ y.T
    total, count = torch.zeros(()).double(), 0
    for i, j in itertools.product(range(4), range(5)):
        if p[i, j]:
            row = [F.relu(0.4 + s[i, k] - s[i, j]) for k in range(5) if not p[i, k]]
            column = [F.relu(0.4 + s[k, j] - s[i, j]) for k in range(4) if not p[k, j]]
            total += (max(row) + max(column)) if negatives == "hardest" else (sum(row) + sum(column))
            count += 1
    assert torch.allclose(image_text_matching(x, y, 0.4, negatives, p), total / count)
    assert image_text_matching(torch.eye(3), torch.eye(3), 0.9, negatives).item() == 0.0


def test_matching_with_the_hardest_is_the_limit_of_loob() -> None:
    x, y = unit_rows(2, 6, 3), unit_rows(3, 6, 3)
    # A margin so large that nothing is cut off, taken away again.
    hardest = image_text_matching(x, y, 10.0) - 20.0
    assert torch.allclose(2 * info_loob(x, y, 1e5) / 1e5, hardest, atol=1e-4)


# Energies


@given(seed=seeds)
@settings(max_examples=15, deadline=None)
def test_energies_of_dot_products_give_info_nce(seed: int) -> None:
    x, y = unit_rows(seed, 6, 4), unit_rows(seed + 1, 6, 4)
    energies, target = -x @ y.T, torch.arange(6)
    nce = 0.5 * (energy_nce(energies, target, 7.0) + energy_nce(energies.T, target, 7.0))
    assert torch.allclose(nce, info_nce(x, y, 7.0))
    loob = 0.5 * (energy_loob(energies, target, 7.0) + energy_loob(energies.T, target, 7.0))
    assert torch.allclose(loob, info_loob(x, y, 7.0))


@given(seed=seeds, shift=st.sampled_from([-1e6, -3.0, 1e4]))
@settings(max_examples=15, deadline=None)
def test_a_lower_energy_for_everything_earns_nothing(seed: int, shift: float) -> None:
    energies, target, cosines = draw(seed, 5, 4), torch.tensor([0, 1, 2, 3, 0]), draw(seed, 5, 3).tanh()
    moved = energies + shift * (1 + torch.arange(5.0).double())[:, None]
    for loss in (
        lambda e: energy_margin(e[:, 0], e[:, 1:], 1.0),
        lambda e: energy_nce(e, target, 2.0),
        lambda e: energy_loob(e, target, 2.0),
        lambda e: bounded_harmonic_loss(e, target, cosines),
    ):
        assert torch.allclose(loss(moved), loss(energies), rtol=1e-7)
    assert bounded_harmonic_loss(moved, target, cosines) >= 0


def test_the_harmonic_loss_is_its_three_terms() -> None:
    energies, target, cosines = draw(0, 4, 3), torch.tensor([2, 0, 1, 1]), draw(1, 4, 2).tanh()
    positive = energies[torch.arange(4), target]
    negative = torch.stack([energies[i][torch.arange(3) != target[i]] for i in range(4)])
    expected = (
        2.0 * energy_margin(positive, negative, 0.7)
        + 3.0 * (1 - cosines).mean()
        + 5.0 * F.cross_entropy(-4.0 * energies, target)
    )
    got = bounded_harmonic_loss(energies, target, cosines, alpha=2, beta=3, gamma=5, margin=0.7, scale=4.0)
    assert torch.allclose(got, expected)
    perfect = torch.full((4, 3), 100.0).scatter(1, target[:, None], -100.0)
    assert bounded_harmonic_loss(perfect, target, torch.ones(4, 2)).item() == pytest.approx(0.0)


def test_margins_by_hand() -> None:
    positive, negative = torch.tensor([0.0, 1.0]), torch.tensor([[0.5, 2.0], [1.0, -1.0]])
    assert energy_margin(positive, negative, 1.0).item() == pytest.approx((0.25 + 2.0) / 2)
    assert energy_margin(positive, negative, 1.0, hardest=True).item() == pytest.approx((0.5 + 3.0) / 2)


@pytest.mark.parametrize("hardest", [False, True])
def test_what_is_masked_is_as_if_it_were_not_there(hardest: bool) -> None:
    energies, target = draw(3, 4, 5), torch.tensor([0, 1, 2, 0])
    mask = torch.ones(4, 5, dtype=torch.bool)
    mask[:, 3:] = False
    wild = energies.masked_fill(~mask, 1e8)
    kept = energies[:, :3]
    assert torch.equal(energy_nce(wild, target, 2.0, mask=mask), energy_nce(kept, target, 2.0))
    assert torch.equal(energy_loob(wild, target, 2.0, mask=mask), energy_loob(kept, target, 2.0))
    own = energies[:, 4]
    whole = energy_margin(own, wild, 1.0, hardest=hardest, mask=mask)
    assert torch.allclose(whole, energy_margin(own, kept, 1.0, hardest=hardest))
    # The third record lacks the modality: its cue takes no part, and it is no one's rival.
    mask[:, 2] = False
    rest = torch.tensor([0, 1, 3])
    cosines, present = (
        draw(4, 4, 2).tanh(),
        torch.tensor([[True, True]] * 2 + [[False, False]] + [[True, True]]),
    )
    got = bounded_harmonic_loss(wild, target, cosines, mask=mask, present=present)
    assert torch.allclose(got, bounded_harmonic_loss(energies[rest, :2], target[rest], cosines[rest]))


# Regularisers


@given(seed=seeds)
@settings(max_examples=10, deadline=None)
def test_variance_and_covariance_are_those_of_numpy(seed: int) -> None:
    x, y = draw(seed, 9, 4), draw(seed + 1, 9, 3)
    c = torch.cov(x.T)
    deviation = (c.diagonal() + 1e-4).sqrt()
    assert torch.allclose(variance(x, 1.2), (1.2 - deviation).clamp(min=0).mean())
    assert torch.allclose(covariance(x), (c**2).sum() / 4 - (c.diagonal() ** 2).sum() / 4)
    both = torch.cov(torch.cat([x, y], dim=1).T, correction=0)
    assert torch.allclose(cross_covariance(x, y), 0.5 * (both[:4, 4:] ** 2).sum())


def test_collapse_costs_all_the_variance_and_has_a_gradient() -> None:
    x = torch.ones(6, 3, dtype=torch.float64, requires_grad=True)
    assert variance(x).item() == pytest.approx(1 - 1e-2)
    assert covariance(x).item() == 0.0
    spread = torch.tensor([[1.0, 1.0], [1.0, -1.0], [-1.0, 1.0], [-1.0, -1.0]])
    assert variance(spread).item() == 0.0 and covariance(spread).item() == 0.0
    repeated = spread[:, :1].repeat(1, 2)
    assert covariance(repeated).item() == pytest.approx((4 / 3) ** 2)


@given(seed=seeds)
@settings(max_examples=10, deadline=None)
def test_cross_correlation_is_that_of_the_features(seed: int) -> None:
    x, y = draw(seed, 9, 4), draw(seed + 1, 9, 4)
    c = torch.corrcoef(torch.cat([x, y], dim=1).T)[:4, 4:]
    expected = ((1 - c.diagonal()) ** 2).sum() + 0.1 * ((c**2).sum() - (c.diagonal() ** 2).sum())
    assert torch.allclose(cross_correlation(x, y, 0.1), expected)
    assert torch.allclose(cross_correlation(3 * x + 1, y * torch.arange(1.0, 5.0), 0.1), expected)


def test_a_feature_that_does_not_vary_has_no_correlation() -> None:
    x = torch.cat([draw(0, 8, 1), torch.full((8, 1), 0.3, dtype=torch.float64)], dim=1).requires_grad_()
    value = cross_correlation(x, x.detach(), 1.0)
    value.backward()
    assert value.item() == pytest.approx(1.0, abs=1e-6)
    assert x.grad is not None and x.grad.isfinite().all()


@given(seed=seeds)
@settings(max_examples=10, deadline=None)
def test_alignment_and_uniformity(seed: int) -> None:
    x, y = unit_rows(seed, 7, 3), unit_rows(seed + 1, 7, 3)
    assert torch.allclose(alignment(x, y), 2 - 2 * (x * y).sum(1).mean())
    pairs = [(-3.0 * (x[i] - x[j]).square().sum()).exp() for i, j in itertools.combinations(range(7), 2)]
    assert torch.allclose(uniformity(x, 3.0), torch.stack(pairs).mean().log())
    assert -8 <= uniformity(x) <= 0


def test_the_ends_of_uniformity() -> None:
    one = torch.ones(5, 3).double() / 3**0.5
    assert uniformity(one).item() == pytest.approx(0.0, abs=1e-12)
    assert uniformity(torch.tensor([[1.0, 0.0], [-1.0, 0.0]])).item() == pytest.approx(-8.0)


# Consistency


@given(seed=seeds)
@settings(max_examples=10, deadline=None)
def test_even_weights_are_info_nce_over_all_moments(seed: int) -> None:
    audio, video = unit_rows(seed, 3, 4, 5), unit_rows(seed + 1, 3, 4, 5)
    assert torch.allclose(
        audio_visual(audio, video, 6.0), info_nce(audio.flatten(0, 1), video.flatten(0, 1), 6.0)
    )
    there = torch.rand(3, 4, generator=torch.Generator().manual_seed(seed)) < 0.8
    there[0, :2] = True
    wild = audio.masked_fill(~there[..., None], 1e4)
    assert torch.allclose(
        audio_visual(wild, video, 6.0, mask=there), info_nce(audio[there], video[there], 6.0)
    )


def test_weights_of_moments_written_out() -> None:
    audio, video = unit_rows(0, 2, 3, 4), unit_rows(1, 2, 3, 4)
    got = audio_visual(audio, video, 5.0, same_clip=0.3, other_clips=0.6, gap=1)
    total = torch.zeros(()).double()
    moments = list(itertools.product(range(2), range(3)))
    for one in moments:
        for a, v in ((audio, video), (video, audio)):
            sums = 0.0
            for other in moments:
                near = abs(one[1] - other[1]) <= 1
                weight = 1.0 if one == other else 0.6 if one[0] != other[0] else 0.0 if near else 0.3
                sums = sums + weight * (5.0 * a[one] @ v[other]).exp()
            total += (sums.log() - 5.0 * a[one] @ v[one]) / 12
    assert torch.allclose(got, total)


def test_out_of_step_costs_only_where_the_clip_itself_counts() -> None:
    codes = torch.eye(12, dtype=torch.float64).reshape(3, 4, 12)
    late = codes.roll(1, dims=1)
    assert audio_visual(codes, codes, 20.0) < 0.01
    assert audio_visual(codes, late, 20.0) > 19.0
    assert audio_visual(codes, late, 20.0, same_clip=0.0).item() == pytest.approx(math.log(9))


# All


Scalar = Callable[..., Tensor]
SAME = torch.tensor([True, False, True, False])
POOL = torch.eye(4, dtype=torch.bool)
TARGET = torch.tensor([0, 1, 2, 0])
SMOOTH: dict[str, tuple[Scalar, tuple[tuple[int, ...], ...]]] = {
    "siamese": (lambda x, y: siamese(x, y, SAME, 2.0), ((4, 3), (4, 3))),
    "triplet": (lambda a, p, n: triplet(a, p, n, 1.0, distance="squared"), ((4, 3),) * 3),
    "hard triplet": (lambda a, p: triplet(a, p, p, 1.0, hard=True, same=POOL), ((4, 3),) * 2),
    "matching": (lambda x, y: image_text_matching(x, y, 0.3), ((4, 3),) * 2),
    "matching all": (lambda x, y: image_text_matching(x, y, 0.3, "all"), ((4, 3),) * 2),
    "energy_margin": (lambda p, n: energy_margin(p, n, 1.0), ((4,), (4, 3))),
    "energy_nce": (lambda e, b: energy_nce(e, TARGET, b), ((4, 3), ())),
    "energy_loob": (lambda e, b: energy_loob(e, TARGET, b), ((4, 3), ())),
    "harmonic": (lambda e, c: bounded_harmonic_loss(e, TARGET, c), ((4, 3), (4, 2))),
    "variance": (lambda x: variance(x, 2.0), ((4, 3),)),
    "covariance": (covariance, ((4, 3),)),
    "cross_covariance": (cross_covariance, ((4, 3), (4, 2))),
    "cross_correlation": (cross_correlation, ((4, 3), (4, 3))),
    "uniformity": (uniformity, ((4, 3),)),
    "alignment": (alignment, ((4, 3), (4, 3))),
    "audio_visual": (lambda a, v, s: audio_visual(a, v, s, same_clip=0.5), ((2, 3, 2), (2, 3, 2), ())),
}


@pytest.mark.parametrize("name", SMOOTH)
def test_gradients_half_precision_and_order(name: str) -> None:
    loss, shapes = SMOOTH[name]
    inputs = tuple(leaf(*shape, seed=i) if shape else torch.tensor(1.5).double().requires_grad_()
                   for i, shape in enumerate(shapes))  # fmt: skip
    assert torch.autograd.gradcheck(loss, inputs)
    for dtype in (torch.float16, torch.bfloat16):
        half = [t.detach().to(dtype).requires_grad_() for t in inputs]
        value = loss(*half)
        value.backward()
        assert value.dtype == torch.float32
        assert torch.allclose(value, loss(*(t.detach().float() for t in half)), rtol=1e-6)
        assert all(t.grad is not None and t.grad.dtype == dtype for t in half)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        cast = loss(*(t.detach().float() for t in inputs))
    assert torch.allclose(cast, loss(*(t.detach().float() for t in inputs)), rtol=1e-6)


X, TWO = draw(0, 4, 3), torch.tensor([[True, False]] * 2)
BAD: list[tuple[Callable[[], Tensor], str]] = [
    (lambda: siamese(X, X[:3], SAME, 1.0), "must have the same shape"),
    (lambda: siamese(X, X, SAME[:2], 1.0), "same must have"),
    (lambda: siamese(X, X, SAME.long(), 1.0), "bool"),
    (lambda: siamese(X[:0], X[:0], SAME[:0], 1.0), "at least 1"),
    (lambda: siamese(X, X, SAME, -1.0), "negative"),
    (lambda: triplet(X, X, X[:2], 1.0), "must have the same shape"),
    (lambda: triplet(X, X, X, 1.0, hard=True), "needs same"),
    (lambda: triplet(X, X, X, 1.0, same=POOL), "hard=True"),
    (lambda: triplet(X, X, X, 1.0, hard=True, same=POOL | True), "no anchor"),
    (lambda: triplet(X, X, X, 1.0, distance="city"), "euclidean, squared or cosine"),  # type: ignore[arg-type]
    (lambda: image_text_matching(X[:1], X[:1], 0.2), "at least two"),
    (lambda: image_text_matching(X, X[:2], 0.2), "say which belong"),
    (lambda: image_text_matching(X, X, 0.2, "some"), "hardest or all"),  # type: ignore[arg-type]
    (lambda: image_text_matching(X, X, 0.2, positives=POOL & False), "partners"),
    (lambda: energy_margin(X[:, 0], X[:3], 1.0), "positive must have"),
    (lambda: energy_margin(X[:, 0], X[:, :0], 1.0), "at least"),
    (lambda: energy_margin(X[:2, 0], X[:2, :2], 1.0, mask=TWO & False), "no row"),
    (lambda: energy_margin(X[:2, 0], X[:2, :2], 1.0, mask=TWO.long()), "bool"),
    (lambda: energy_nce(X, TARGET[:2], 1.0), "target must have"),
    (lambda: energy_nce(X, TARGET + 2, 1.0), "outside"),
    (lambda: energy_nce(X, TARGET.double(), 1.0), "integers"),
    (lambda: energy_nce(X[:, :1], TARGET * 0, 1.0), "2 columns"),
    (lambda: energy_nce(X[:0], TARGET[:0], 1.0), "with a row"),
    (lambda: energy_loob(X[:2, :2], TARGET[:2] * 0, 1.0, mask=TWO), "no row"),
    (lambda: bounded_harmonic_loss(X, TARGET, X[:3]), "cosines must have"),
    (lambda: bounded_harmonic_loss(X, TARGET, X, alpha=-1.0), "alpha"),
    (lambda: bounded_harmonic_loss(X, TARGET, X, present=torch.zeros(4, 3).bool()), "no row"),
    (lambda: variance(X[:1]), "at least 2"),
    (lambda: covariance(X[:1]), "at least 2"),
    (lambda: cross_correlation(X, X[:, :2]), "must have the same shape"),
    (lambda: cross_covariance(X, X[:3]), "every record"),
    (lambda: uniformity(X[:1]), "at least 2"),
    (lambda: alignment(X, X[:3]), "must have the same shape"),
    (lambda: alignment(X[0], X[0]), "rows"),
    (lambda: audio_visual(X, X, 1.0), "clips, times"),
    (lambda: audio_visual(X[None], X[None, :3], 1.0), "must have the same shape"),
    (lambda: audio_visual(X[None, :1], X[None, :1], 1.0), "no moment"),
    (lambda: audio_visual(X[None], X[None], 1.0, same_clip=0.0), "no moment"),
    (lambda: audio_visual(X[None], X[None], 1.0, mask=SAME[None] & False), "no moment"),
    (lambda: audio_visual(X[None], X[None], 1.0, mask=SAME), "mask must have"),
]


@pytest.mark.parametrize(("call", "told"), BAD, ids=[f"{i}" for i in range(len(BAD))])
def test_bad_input_says_what_is_wrong(call: Callable[[], Tensor], told: str) -> None:
    with pytest.raises(HarmoniaError, match=told) as caught:
        call()
    assert "\n" not in str(caught.value)
