"""Entropies: argmax, conjugate and losses as identities, and equality with the entmax package."""

from __future__ import annotations

import math
from itertools import pairwise

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from harmonia.memory import entmax as entmax_module
from harmonia.memory.entropies import (
    Entropy,
    Norm,
    Shannon,
    Subsets,
    Tsallis,
    entropy,
    fenchel_young,
)

peer = pytest.importorskip("entmax")

ALL: list[Entropy] = [
    Shannon(), Tsallis(1.2), Tsallis(1.5), Tsallis(2.0), Tsallis(3.0), Norm(1.5), Norm(2.0), Norm(5.0),
    Subsets(1), Subsets(3),
]  # fmt: skip
seeds = st.integers(0, 2**31 - 1)


def draw(seed: int, *shape: int, scale: float = 2.0) -> torch.Tensor:
    return scale * torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def total(omega: Entropy) -> int:
    return omega.k if isinstance(omega, Subsets) else 1


@pytest.mark.parametrize("omega", ALL, ids=str)
@given(seed=seeds, scale=st.sampled_from([0.1, 1.0, 8.0]))
@settings(max_examples=15, deadline=None)
def test_the_argmax_is_the_gradient_of_the_conjugate(omega: Entropy, seed: int, scale: float) -> None:
    scores = draw(seed, 3, 9, scale=scale).requires_grad_()
    (gradient,) = torch.autograd.grad(omega.conjugate(scores).sum(), scores)
    p = omega.argmax(scores)
    assert torch.allclose(gradient, p, atol=1e-7)
    assert torch.allclose(p.sum(-1), torch.full((3,), float(total(omega)), dtype=torch.float64))
    assert ((p >= 0) & (p <= 1 + 1e-12)).all()
    attained = (p * scores).sum(-1) - omega.omega(p)
    assert torch.allclose(attained, omega.conjugate(scores), atol=1e-9)


@pytest.mark.parametrize("omega", ALL, ids=str)
@given(seed=seeds)
@settings(max_examples=15, deadline=None)
def test_nothing_feasible_does_better(omega: Entropy, seed: int) -> None:
    scores = draw(seed, 9)
    best = omega.conjugate(scores)
    other = omega.argmax(draw(seed + 1, 50, 9))
    assert ((other * scores).sum(-1) - omega.omega(other) <= best + 1e-9).all()


@pytest.mark.parametrize("omega", ALL, ids=str)
def test_gradients_through_the_support(omega: Entropy) -> None:
    scores = draw(0, 4, 7, scale=1.0).requires_grad_()
    assert torch.autograd.gradcheck(omega.argmax, (scores,), eps=1e-7, atol=1e-5)
    assert torch.autograd.gradcheck(omega.conjugate, (scores,), eps=1e-7, atol=1e-5)
    assert torch.autograd.gradgradcheck(omega.conjugate, (scores,), eps=1e-7, atol=1e-4)
    assert torch.autograd.gradgradcheck(omega.argmax, (scores,), eps=1e-7, atol=1e-4)


@pytest.mark.parametrize("alpha", [1.3, 1.5, 2.0, 3.0])
def test_entmax_is_one_hot_exactly_from_its_threshold(alpha: float) -> None:
    lead = 1.0 / (alpha - 1.0)
    assert Tsallis(alpha).argmax(torch.tensor([lead + 1e-9, 0.0, -1.0]).double())[1] < 1e-12
    assert Tsallis(alpha).argmax(torch.tensor([lead - 1e-2, 0.0, -1.0]).double())[1] > 1e-12


@pytest.mark.parametrize("alpha", [1.5, 2.0, 5.0])
def test_normmax_is_one_hot_exactly_from_a_lead_of_one(alpha: float) -> None:
    assert Norm(alpha).argmax(torch.tensor([1.0 + 1e-9, 0.0, -1.0]).double())[1] < 1e-2 ** (alpha - 1)
    assert Norm(alpha).argmax(torch.tensor([1.0 + 1e-9, 0.0, -1.0]).double())[2] == 0
    assert Norm(alpha).argmax(torch.tensor([0.99, 0.0, -1.0]).double())[1] > 1e-5


def test_subsets_are_whole_exactly_from_a_lead_of_one() -> None:
    assert Subsets(2).argmax(torch.tensor([3.0, 2.0, 1.0, 0.0]).double()).tolist() == [1, 1, 0, 0]
    p = Subsets(2).argmax(torch.tensor([3.0, 1.9, 1.0, 0.0]).double())
    assert 0 < p[2] < p[1] < 1


@pytest.mark.parametrize("omega", ALL, ids=str)
def test_absent_entries_masks_and_empty_rows(omega: Entropy) -> None:
    scores = draw(1, 3, 6).requires_grad_()
    mask = torch.ones(3, 6, dtype=torch.bool)
    mask[0, 2] = mask[1, 4:] = mask[2] = False
    p = omega.argmax(scores, mask=mask)
    assert (p[~mask] == 0).all()
    assert torch.allclose(p[:2].sum(-1), torch.full((2,), float(total(omega)), dtype=torch.float64))
    kept = scores.detach()[0][mask[0]]
    assert torch.allclose(p[0][mask[0]], omega.argmax(kept))
    value = omega.conjugate(scores, mask=mask)
    assert value[2] == -math.inf and torch.isfinite(value[:2]).all()
    for out in (p.sum(), value[:2].sum() + value[2].clamp(min=-1.0)):
        (gradient,) = torch.autograd.grad(out, scores, retain_graph=True)
        assert torch.isfinite(gradient).all() and (gradient[2] == 0).all()
    infinite = scores.detach().masked_fill(~mask, -math.inf)
    assert torch.allclose(omega.argmax(infinite), p)


@pytest.mark.parametrize("omega", ALL, ids=str)
def test_any_axis(omega: Entropy) -> None:
    scores = draw(2, 3, 5, 4)
    for dim in (0, 1, 2, -2):
        turned = omega.argmax(scores.movedim(dim, -1)).movedim(-1, dim)
        assert torch.allclose(omega.argmax(scores, dim=dim), turned)
        assert torch.allclose(omega.conjugate(scores, dim=dim), omega.conjugate(scores.movedim(dim, -1)))


@pytest.mark.parametrize("omega", ALL, ids=str)
@pytest.mark.parametrize("kind", [torch.float16, torch.bfloat16])
def test_half_precision_gives_numbers(omega: Entropy, kind: torch.dtype) -> None:
    for scale in (1.0, 1e4):
        scores = draw(3, 5, 40, scale=scale).to(kind).requires_grad_()
        p = omega.argmax(scores)
        assert p.dtype == kind
        assert torch.isfinite(p).all() and not torch.isnan(omega.conjugate(scores)).any()
        assert torch.allclose(p.float().sum(-1), torch.full((5,), float(total(omega))), atol=0.05)
        (gradient,) = torch.autograd.grad(p[:, 0].sum(), scores)
        assert torch.isfinite(gradient).all()


@pytest.mark.parametrize("alpha", [1.0001, 1.01, 10.0, 50.0])
@pytest.mark.parametrize("make", [Tsallis, Norm])
def test_extreme_alphas_stay_finite(alpha: float, make: type[Tsallis] | type[Norm]) -> None:
    for kind in (torch.float32, torch.float64):
        p = make(alpha).argmax(draw(4, 6, 50).to(kind))
        assert torch.isfinite(p).all()
        assert torch.allclose(p.sum(-1), torch.ones(6, dtype=kind), atol=1e-5)
    near = Tsallis(1.0001).argmax(draw(4, 6, 50))
    assert torch.allclose(near, torch.softmax(draw(4, 6, 50), -1), atol=1e-3)


@pytest.mark.parametrize("alpha", [1.0001, 1.01, 1.2, 1.5, 2.0, 2.5, 3.0, 10.0])
@pytest.mark.parametrize("make", [Tsallis, Norm])
@pytest.mark.parametrize("kind", [torch.float32, torch.float64])
def test_the_optimality_conditions_hold_to_rounding(
    make: type[Tsallis] | type[Norm], alpha: float, kind: torch.dtype
) -> None:
    """On the support the slope of Omega is s - tau, off it s <= tau; tau is free of the numerics."""
    r, scores = alpha - 1.0, draw(14, 200, 60, scale=1.0).to(kind)
    p = make(alpha).argmax(scores).double()
    if make is Tsallis:
        slope = torch.expm1(r * p.log()) / r
    else:
        slope = (p / torch.linalg.vector_norm(p, ord=alpha, dim=-1, keepdim=True)) ** r
    tau = torch.where(p > 0, scores.double() - slope, 0.0)
    mean = tau.sum(-1, keepdim=True) / (p > 0).sum(-1, keepdim=True)
    eps = 40 * torch.finfo(kind).eps
    assert torch.allclose(p.sum(-1), torch.ones(200).double(), atol=eps)
    # An error of p changes the slope by about p^(alpha - 2) as much.
    allowed = eps * (1.0 + slope.masked_fill(p == 0, 0.0).abs() + p.clamp(min=1e-3) ** (alpha - 2.0))
    assert (torch.where(p > 0, tau - mean, 0.0).abs() <= 2 * allowed.amax(-1, keepdim=True)).all()
    # What would round to 0 is 0.
    least = torch.finfo(kind).tiny ** r
    below = mean + (least - 1.0) / r if make is Tsallis else mean + least
    assert (torch.where(p == 0, scores - below, -1.0) <= 2 * allowed.amax(-1, keepdim=True)).all()


@pytest.mark.parametrize("omega", [o for o in ALL if not isinstance(o, Shannon)], ids=str)
@given(seed=seeds, exponent=st.integers(0, 100), n=st.sampled_from([2, 9, 3000]))
@settings(max_examples=25, deadline=None)
def test_a_shift_of_large_scores_changes_nothing(omega: Entropy, seed: int, exponent: int, n: int) -> None:
    """Scores so large that the leads at stake are below their rounding: p is that of the leads."""
    size = 2.0**exponent
    # Multiples of the rounding of the scores, so that the leads are exact.
    step = max(0.125, 2.0 * torch.finfo(torch.float32).eps * size)
    leads = step * torch.randint(-12, 1, (3, n), generator=torch.Generator().manual_seed(seed))
    shifted = (leads + size).float()
    p = omega.argmax(shifted)
    assert torch.allclose(p, omega.argmax(leads - leads.amax(-1, keepdim=True)), atol=1e-6)
    expected = torch.full((3,), float(min(total(omega), n)))
    assert torch.allclose(p.sum(-1), expected, atol=1e-5)
    value = omega.conjugate(leads.double()) + size * expected.double()
    assert torch.allclose(omega.conjugate(shifted).double(), value, rtol=1e-6, atol=1e-5)


def test_steep_gradients_stay_finite_in_single_precision() -> None:
    for make in (Tsallis, Norm):
        for alpha in (3.0, 10.0, 50.0):
            scores = draw(15, 500, 20).float().requires_grad_()
            p = make(alpha).argmax(scores)
            (gradient,) = torch.autograd.grad((p * draw(16, 500, 20).float()).sum(), scores)
            assert torch.isfinite(gradient).all()


@pytest.mark.parametrize("omega", ALL, ids=str)
def test_no_slot_at_all_and_no_row_at_all(omega: Entropy) -> None:
    assert omega.argmax(torch.zeros(3, 0)).shape == (3, 0)
    assert (omega.conjugate(torch.zeros(3, 0)) == -math.inf).all()
    for n in (5, 5000):
        assert omega.argmax(torch.zeros(0, n)).shape == (0, n)
        assert omega.conjugate(torch.zeros(0, n)).shape == (0,)


ADVERSARIAL = {
    "random": draw(5, 20, 300),
    "flat": draw(5, 20, 300, scale=1e-3),
    "equal": torch.zeros(3, 300, dtype=torch.float64),
    "ties": draw(6, 20, 300).round(),
    "sorted": torch.linspace(-5, 5, 300, dtype=torch.float64).expand(2, -1).contiguous(),
    "one-hot": 50 * torch.eye(300, dtype=torch.float64)[:4],
    "huge": draw(7, 20, 300, scale=1e6),
}


@pytest.mark.parametrize("name", ADVERSARIAL)
def test_equal_to_the_entmax_package(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Forward and backward, through the short and the long way."""
    for long in (4096, 100):
        monkeypatch.setattr(entmax_module, "LONG", long)
        scores = ADVERSARIAL[name]
        for mine, theirs in [
            (Tsallis(1.5).argmax, peer.entmax15),
            (Tsallis(2.0).argmax, peer.sparsemax),
            (Tsallis(1.3).argmax, lambda s: peer.entmax_bisect(s, alpha=1.3, n_iter=100)),
            (Norm(2.0).argmax, lambda s: peer.normmax_bisect(s, alpha=2, n_iter=100)),
            (Norm(5.0).argmax, lambda s: peer.normmax_bisect(s, alpha=5, n_iter=100)),
        ]:
            x, y = scores.clone().requires_grad_(), scores.clone().requires_grad_()
            p, q = mine(x), theirs(y)
            assert torch.allclose(p, q, atol=1e-6), (mine, (p - q).abs().max())
            direction = draw(8, *scores.shape)
            (one,) = torch.autograd.grad(p, x, direction)
            # The package has no gradient at ties of normmax's bisection better than its own steps.
            (other,) = torch.autograd.grad(q, y, direction)
            if name not in ("ties", "equal"):
                assert torch.allclose(one, other, atol=1e-5), (mine, (one - other).abs().max())


ALPHAS = torch.tensor([1.01, 1.3, 1.5, 2.0, 2.5, 4.0, 1.9, 3.0], dtype=torch.float64)[:, None]


@pytest.mark.parametrize("n", [1, 7, 300, 5000])
def test_each_row_may_have_an_alpha_of_its_own(n: int) -> None:
    scores = draw(20, 8, n)
    p, value = Tsallis(ALPHAS).argmax(scores), Tsallis(ALPHAS).conjugate(scores)
    for row, alpha in enumerate(ALPHAS[:, 0].tolist()):
        assert torch.allclose(p[row], Tsallis(alpha).argmax(scores[row]), atol=1e-9), alpha
        assert torch.allclose(value[row], Tsallis(alpha).conjugate(scores[row]), atol=1e-9), alpha
    assert torch.allclose(p, peer.entmax_bisect(scores, alpha=ALPHAS, n_iter=100), atol=1e-7)
    # Another axis, a mask, an alpha that is broadcast, and half precision.
    assert torch.equal(Tsallis(ALPHAS.T).argmax(scores.T, dim=0), p.T)
    some = torch.arange(n) < max(1, n // 2)
    assert torch.equal(
        Tsallis(ALPHAS).argmax(scores, mask=some),
        Tsallis(ALPHAS).argmax(scores.masked_fill(~some, -math.inf)),
    )
    heads = Tsallis(ALPHAS[:, None]).argmax(scores.expand(8, 8, n).transpose(0, 1))
    assert torch.equal(heads, p[:, None].expand(8, 8, n))
    assert Tsallis(ALPHAS).argmax(scores.bfloat16()).dtype == torch.bfloat16


def test_alpha_can_be_learned() -> None:
    scores, alpha = draw(21, 8, 9).requires_grad_(), ALPHAS.clone().requires_grad_()
    assert torch.autograd.gradcheck(lambda s, a: Tsallis(a).argmax(s), (scores, alpha), atol=1e-6)
    assert torch.autograd.gradcheck(lambda s, a: Tsallis(a).conjugate(s), (scores, alpha), atol=1e-6)
    direction = draw(22, 8, 9)
    mine = torch.autograd.grad((Tsallis(alpha).argmax(scores) * direction).sum(), (scores, alpha))
    theirs = torch.autograd.grad(
        (peer.entmax_bisect(scores, alpha=alpha, n_iter=100) * direction).sum(), (scores, alpha)
    )
    for a, b in zip(mine, theirs, strict=True):
        assert torch.allclose(a, b, atol=1e-5)
    # One alpha for all rows, and alphas so near 1 that the entropy is Shannon's.
    one = torch.tensor(1.4, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(lambda a: Tsallis(a).argmax(scores.detach()), (one,), atol=1e-6)
    p = torch.softmax(scores.detach(), dim=-1)
    square = p.log() ** 2
    limit = 0.5 * p * ((p * square).sum(-1, keepdim=True) - square)
    for r in (1e-9, 1e-7, 1e-5, 1e-3):
        slope = entmax_module.slope_in_alpha(
            Tsallis(1 + r).argmax(scores.detach()), torch.full((8, 1), 1 + r)
        )
        assert torch.allclose(slope, limit, atol=20 * r + 1e-8), r


def test_an_alpha_of_no_row_is_refused() -> None:
    with pytest.raises(ValueError, match="greater than 1"):
        Tsallis(torch.tensor([[1.5], [1.0]]))
    with pytest.raises(ValueError, match="one entry at the axis"):
        Tsallis(torch.full((3,), 1.5)).argmax(torch.zeros(2, 3))


@pytest.mark.parametrize("name", [name for name in ADVERSARIAL if name != "huge"])
@pytest.mark.parametrize("k", [1, 4, 299])
def test_subsets_equal_the_budget_of_the_entmax_package(name: str, k: int) -> None:
    x, y = ADVERSARIAL[name].clone().requires_grad_(), ADVERSARIAL[name].clone().requires_grad_()
    p, wanted = Subsets(k).argmax(x), peer.budget_bisect(y, budget=k, n_iter=100)
    assert torch.allclose(p, wanted, atol=1e-9)
    assert torch.allclose(Subsets(k).argmax(x.float()).double(), wanted, atol=2e-6)
    if name in ("random", "sorted"):
        direction = draw(8, *x.shape)
        (one,), (other,) = torch.autograd.grad(p, x, direction), torch.autograd.grad(wanted, y, direction)
        assert torch.allclose(one, other, atol=1e-6)


@pytest.mark.parametrize("k", [1, 2, 5])
@given(seed=seeds)
@settings(max_examples=20, deadline=None)
def test_subsets_equal_a_slow_search(k: int, seed: int) -> None:
    """Each row by itself, the threshold tried between every two of the points where the mass bends."""
    scores = draw(seed, 4, 9).round(decimals=1)
    scores[0, 3:] = -math.inf
    p = Subsets(k).argmax(scores)
    for row, mine in zip(scores.tolist(), p.tolist(), strict=True):
        present = [s for s in row if s > -math.inf]
        bends = sorted({b for s in present for b in (s, s - 1)})
        wanted = [float(s > -math.inf) for s in row]
        for low, high in pairwise(bends):
            mass_low, mass_high = (sum(min(max(s - b, 0), 1) for s in present) for b in (low, high))
            if len(present) > k and mass_low >= k > mass_high:
                tau = low + (mass_low - k) / (mass_low - mass_high) * (high - low)
                wanted = [min(max(s - tau, 0), 1) for s in row]
        assert mine == pytest.approx(wanted, abs=1e-9)


def test_losses_equal_those_of_the_entmax_package() -> None:
    scores, labels = draw(9, 30, 12), torch.arange(30) % 12
    target = torch.nn.functional.one_hot(labels, 12).double()
    for omega, theirs in [
        (Tsallis(1.5), peer.entmax15_loss),
        (Tsallis(2.0), peer.sparsemax_loss),
        (Tsallis(1.3), lambda s, y: peer.entmax_bisect_loss(s, y, alpha=1.3)),
        (Shannon(), lambda s, y: torch.nn.functional.cross_entropy(s, y, reduction="none")),
    ]:
        x, y = scores.clone().requires_grad_(), scores.clone().requires_grad_()
        mine, wanted = fenchel_young(omega, x, target), theirs(y, labels)
        assert torch.allclose(mine, wanted, atol=1e-6)
        (one,) = torch.autograd.grad(mine.sum(), x)
        (other,) = torch.autograd.grad(wanted.sum(), y)
        assert torch.allclose(one, other, atol=1e-6)


@pytest.mark.parametrize("omega", ALL, ids=str)
@given(seed=seeds)
@settings(max_examples=10, deadline=None)
def test_fenchel_young_losses_are_zero_at_the_argmax_and_positive_elsewhere(
    omega: Entropy, seed: int
) -> None:
    scores = draw(seed, 4, 8)
    p = omega.argmax(scores)
    zero = torch.zeros(4, dtype=torch.float64)
    assert torch.allclose(fenchel_young(omega, scores, p), zero, atol=1e-9)
    other = omega.argmax(draw(seed + 1, 4, 8))
    assert (fenchel_young(omega, scores, other) >= -1e-9).all()


def test_losses_of_large_scores_lose_no_digits() -> None:
    target = torch.nn.functional.one_hot(torch.arange(4), 8).float()
    for omega in (Shannon(), Tsallis(1.5), Norm(2.0)):
        scores = draw(13, 4, 8).float()
        far = fenchel_young(omega, (scores * 64).round() / 64 + 8192, target)
        assert torch.allclose(far, fenchel_young(omega, (scores * 64).round() / 64, target), atol=1e-5)
        for kind in (torch.float16, torch.bfloat16):
            assert torch.isfinite(fenchel_young(omega, 1e4 * scores.to(kind), target.to(kind))).all()


@pytest.mark.parametrize("omega", [one for one in ALL if not isinstance(one, Shannon)], ids=str)
@pytest.mark.parametrize("scale", [0.05, 1.0, 10.0])
def test_long_rows_are_solved_as_short_ones(
    omega: Entropy, scale: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    scores = draw(10, 5, 10_007, scale=scale)
    scores[1, 5000:] = -math.inf
    scores[2] = -math.inf
    scores[3] = scores[3].sort().values
    x, y = scores.clone().requires_grad_(), scores.clone().requires_grad_()
    reduced, value = omega.argmax(x), omega.conjugate(x)
    single = omega.argmax(scores.float())
    monkeypatch.setattr(entmax_module, "LONG", 10**9)
    assert torch.allclose(reduced, omega.argmax(y), atol=1e-9)
    assert torch.allclose(single, omega.argmax(scores.float()), atol=1e-6)
    assert torch.allclose(value, omega.conjugate(y))
    direction = draw(18, 5, 10_007)
    (one,), (other,) = (
        torch.autograd.grad(reduced, x, direction),
        torch.autograd.grad(omega.argmax(y), y, direction),
    )
    assert torch.allclose(one, other, atol=1e-6, rtol=1e-4)


@pytest.mark.parametrize("omega", ALL, ids=str)
def test_not_a_number_is_not_hidden(omega: Entropy) -> None:
    for n in (20, 5000):
        scores = draw(17, 2, n)
        scores[1, 7] = math.nan
        p = omega.argmax(scores)
        assert torch.isnan(p[1]).any() and torch.isfinite(p[0]).all()


@pytest.mark.parametrize("omega", [Tsallis(1.5), Tsallis(2.0), Norm(2.0)], ids=str)
def test_the_best_k_suffice_exactly_where_it_is_said(omega: Entropy) -> None:
    scores = draw(11, 40, 60, scale=1.0) * torch.linspace(0.05, 4.0, 40)[:, None]
    whole = omega.argmax(scores).topk(8).values
    p = omega.argmax(scores.topk(8).values)
    # The last kept slot has no mass, so none behind it can have any.
    exact = p[..., -1] == 0
    assert exact.any() and not exact.all()
    assert torch.allclose(p[exact], whole[exact], atol=1e-9)
    wide = (omega.argmax(scores) > 0).sum(-1) > 8
    assert not exact[wide].any() and wide.any()
    assert ((p - whole).abs().amax(-1)[wide] > 1e-9).all()


@pytest.mark.parametrize("omega", ALL, ids=str)
def test_vmap(omega: Entropy) -> None:
    scores = draw(12, 4, 3, 6)
    assert torch.allclose(torch.func.vmap(omega.argmax)(scores), omega.argmax(scores))
    jacobian = torch.func.vmap(torch.func.jacrev(omega.argmax))(scores[0])
    wanted = torch.stack([torch.autograd.functional.jacobian(omega.argmax, row) for row in scores[0]])
    assert torch.allclose(jacobian, wanted)


def test_what_cannot_be_is_refused() -> None:
    for make in (Tsallis, Norm):
        with pytest.raises(ValueError, match="greater than 1"):
            make(0.9)
    with pytest.raises(ValueError, match="at least 1"):
        Subsets(0)
    assert isinstance(entropy(1.0), Shannon) and isinstance(entropy(1.5), Tsallis)


@pytest.mark.parametrize("omega", [Tsallis(1.5), Norm(5.0), Subsets(3)], ids=str)
def test_compiles_as_one_graph(omega: Entropy) -> None:
    scores = draw(19, 3, 12)
    torch.compiler.reset()
    compiled = torch.compile(omega.conjugate, fullgraph=True, backend="eager")
    assert torch.allclose(compiled(scores), omega.conjugate(scores))
