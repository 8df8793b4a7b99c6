"""The contrastive family: InfoNCE, sigmoid, InfoLOOB, CLOOB and Fenchel-Young, as identities in float64."""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import partial
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from harmonia.memory import Norm, Shannon, Subsets, Tsallis
from harmonia.objectives import cloob, hfy_loss, hopfield_retrieve, info_loob, info_nce, margin, sigmoid_loss
from harmonia.types import HarmoniaError

Loss = Callable[..., Tensor]
seeds = st.integers(0, 2**31 - 1)

ALL: dict[str, Loss] = {
    "info_nce": info_nce,
    "sigmoid": partial(sigmoid_loss, bias=-1.0),
    "info_loob": info_loob,
    "one_way_loob": partial(info_loob, symmetric=False),
    "cloob": partial(cloob, beta=4.0),
    "hfy_entmax": partial(hfy_loss, entropy=Tsallis(1.5)),
    "hfy_normmax": partial(hfy_loss, entropy=Norm(2.0)),
}
losses = pytest.mark.parametrize("loss", ALL.values(), ids=ALL.keys())


def unit_rows(seed: int, *shape: int) -> Tensor:
    rows = torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    return F.normalize(rows, dim=-1)


def two(seed: int, n: int = 7, d: int = 4) -> tuple[Tensor, Tensor]:
    return unit_rows(seed, n, d), unit_rows(seed + 1, n, d)


def value_and_gradients(
    loss: Callable[[Tensor, Tensor, Tensor], Tensor], x: Tensor, y: Tensor
) -> list[Tensor]:
    leaves = [x.clone().requires_grad_(), y.clone().requires_grad_(), x.new_tensor(5.0).requires_grad_()]
    value = loss(*leaves)
    return [value.detach(), *torch.autograd.grad(value, leaves)]


def matrix(ids: list[int], others: list[int]) -> Tensor:
    return torch.tensor(ids)[:, None] == torch.tensor(others)


@given(seed=seeds, scale=st.sampled_from([1.0, 14.0, 100.0]))
@settings(max_examples=15, deadline=None)
def test_info_nce_is_the_loss_of_clip(seed: int, scale: float) -> None:
    modeling_clip = pytest.importorskip("transformers.models.clip.modeling_clip")
    x, y = two(seed)
    expected = modeling_clip.image_text_contrastive_loss(scale * y @ x.T)
    assert torch.allclose(info_nce(x, y, scale), expected, rtol=1e-10)


def test_info_nce_of_two_rows_by_hand() -> None:
    eye = torch.eye(2, dtype=torch.float64)
    assert info_nce(eye, eye, 3.0).item() == pytest.approx(math.log(1 + math.exp(-3.0)))
    assert info_nce(eye, eye.flip(0), 3.0).item() == pytest.approx(math.log(1 + math.exp(3.0)))
    assert info_loob(eye, eye, 3.0).item() == pytest.approx(-3.0)
    assert sigmoid_loss(eye, eye, 3.0, -1.0).item() == pytest.approx(
        math.log(1 + math.exp(-2.0)) + math.log(1 + math.exp(-1.0))
    )


def test_several_partners_are_a_cross_entropy_with_even_targets() -> None:
    x, y = unit_rows(0, 4, 5), unit_rows(1, 6, 5)
    records = ([0, 1, 2, 9], [0, 0, 1, 1, 1, 2])
    p = matrix(*records)
    scores = 6.0 * x @ y.T
    # Row 3 of x has no partner: it is a negative for the columns and nothing else.
    rows = F.cross_entropy(scores[:3], p[:3] / p[:3].sum(1, keepdim=True).double())
    columns = F.cross_entropy(scores.T, p.T / p.T.sum(1, keepdim=True).double())
    ids = (torch.tensor(records[0]), torch.tensor(records[1]))
    assert torch.allclose(info_nce(x, y, 6.0, positives=ids), 0.5 * (rows + columns))
    by_hand = scores.logsumexp(1)[:3].mean() - torch.stack([scores[i][p[i]].mean() for i in range(3)]).mean()
    assert torch.allclose(rows, by_hand)


@losses
def test_all_ways_to_say_who_belongs_together_agree(loss: Loss) -> None:
    x, y = two(3)
    same = torch.arange(7) // 2
    got = [
        value_and_gradients(partial(loss, positives=p), x, y)
        for p in (same, (same, same), same[:, None] == same)
    ]
    for other in got[1:]:
        torch.testing.assert_close(other, got[0])
    one_each = [
        value_and_gradients(partial(loss, positives=p), x, y)
        for p in (None, 10 - torch.arange(7), torch.eye(7, dtype=torch.bool))
    ]
    for other in one_each[1:]:
        torch.testing.assert_close(other, one_each[0])
    assert not torch.allclose(got[0][0], one_each[0][0])


@losses
@pytest.mark.parametrize("chunk", [1, 3, 7, 50])
@pytest.mark.parametrize("positives", [None, torch.arange(7) // 2], ids=["one", "several"])
def test_chunks_change_nothing(loss: Loss, chunk: int, positives: Tensor | None) -> None:
    x, y = two(4)
    whole = value_and_gradients(partial(loss, positives=positives), x, y)
    parts = value_and_gradients(partial(loss, positives=positives, chunk=chunk), x, y)
    torch.testing.assert_close(parts, whole)


@losses
@pytest.mark.parametrize("chunk", [None, 2])
def test_gradients_are_those_of_the_value(loss: Loss, chunk: int | None) -> None:
    x, y = unit_rows(5, 4, 3).requires_grad_(), unit_rows(6, 5, 3).requires_grad_()
    scale = torch.tensor(2.0, dtype=torch.float64, requires_grad=True)
    ids = (torch.tensor([0, 1, 2, 2]), torch.tensor([0, 0, 1, 2, 5]))
    assert torch.autograd.gradcheck(lambda *a: loss(*a, positives=ids, chunk=chunk), (x, y, scale))


def test_the_bias_of_the_sigmoid_and_the_beta_of_cloob_learn() -> None:
    x, y = two(8, n=4)
    number = torch.tensor(1.5, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(lambda b: sigmoid_loss(x, y, 2.0, b, chunk=3), (number,))
    assert torch.autograd.gradcheck(lambda b: cloob(x, y, 2.0, b), (number,))


class Largest(TorchDispatchMode):
    """Notes the size of the largest tensor that any operation makes, in the backward too."""

    numel = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        out = func(*args, **(kwargs or {}))
        self.numel = max([self.numel, *(t.numel() for t in tree_leaves(out) if isinstance(t, Tensor))])
        return out


@losses
def test_memory_is_that_of_one_chunk(loss: Loss) -> None:
    n, d, chunk = 512, 8, 16
    x, y = (unit_rows(s, n, d).requires_grad_() for s in (0, 1))
    saved = []
    with torch.autograd.graph.saved_tensors_hooks(lambda t: saved.append(t.numel()) or t, lambda t: t):
        with Largest() as made:
            value = loss(x, y, 5.0, chunk=chunk, positives=torch.arange(n) // 2)
        kept = max(saved)
        with Largest() as made_back:
            value.backward()
    assert kept <= n * n // chunk, "what waits for the backward is the rows and their results"
    # The CPU's attention keeps nothing but works in float tensors of its own; entmax sorts candidates.
    assert max(made.numel, made_back.numel) <= 2 * chunk * n
    with Largest() as whole:
        loss(x, y, 5.0)
    assert whole.numel >= n * n


@losses
@given(seed=seeds)
@settings(max_examples=8, deadline=None)
def test_the_order_of_the_batch_does_not_matter(loss: Loss, seed: int) -> None:
    x, y = two(seed)
    order = torch.randperm(7, generator=torch.Generator().manual_seed(seed))
    ids = torch.arange(7) // 3
    assert torch.allclose(loss(x, y, 6.0, positives=ids), loss(x[order], y[order], 6.0, positives=ids[order]))
    if loss is not ALL["one_way_loob"]:
        assert torch.allclose(loss(x, y, 6.0), loss(y, x, 6.0)), "no direction is preferred"


@given(seed=seeds, scale=st.sampled_from([1.0, 10.0, 50.0]))
@settings(max_examples=25, deadline=None)
def test_lower_bounds(seed: int, scale: float) -> None:
    x, y = two(seed)
    ids = torch.arange(7) // 2
    for positives in (None, ids):
        assert info_nce(x, y, scale, positives=positives) >= 0
        assert sigmoid_loss(x, y, scale, -5.0, positives=positives) >= 0
        for omega in (Shannon(), Tsallis(1.5), Tsallis(2.0), Norm(2.0)):
            assert hfy_loss(x, y, scale, entropy=omega, positives=positives) >= -1e-9
    assert info_loob(x, y, scale) >= math.log(6) - 2 * scale
    # above it by -log(1 - p) with p the share of the own pair: at 50 it may be less than a rounding of both
    shares = torch.stack([(scale * x @ y.T).softmax(1), (scale * y @ x.T).softmax(1)])
    p = shares.diagonal(dim1=1, dim2=2)
    rest = shares.masked_fill(torch.eye(7, dtype=torch.bool), 0).sum(2)  # 1 - p, exact where p is near 1
    apart = torch.where(p < 0.5, -torch.log1p(-p), -rest.log()).mean()
    assert apart > 0
    assert torch.allclose(info_nce(x, y, scale) - info_loob(x, y, scale), apart, rtol=1e-9, atol=1e-12)


def test_without_an_answer_the_loss_is_that_of_chance() -> None:
    same = torch.ones(9, 1, dtype=torch.float64)
    assert info_nce(same, same, 30.0).item() == pytest.approx(math.log(9))
    assert info_loob(same, same, 30.0).item() == pytest.approx(math.log(8))
    assert info_nce(same, same, 0.0, positives=torch.arange(9) // 3).item() == pytest.approx(math.log(9))


def test_the_sigmoid_loss_is_the_one_of_its_paper() -> None:
    x, y = two(11)
    labels = 2 * torch.eye(7, dtype=torch.float64) - 1
    expected = -F.logsigmoid(labels * (10.0 * x @ y.T - 10.0)).sum() / 7
    assert torch.allclose(sigmoid_loss(x, y, 10.0, -10.0), expected)


@given(seed=seeds, beta=st.sampled_from([0.5, 8.0]))
@settings(max_examples=10, deadline=None)
def test_cloob_is_the_formula_of_the_design(seed: int, beta: float) -> None:
    x, y = two(seed)

    def retrieved(state: Tensor, stored: Tensor) -> Tensor:
        return F.normalize(torch.softmax(beta * state @ stored.T, dim=1) @ stored, dim=1)

    def loob(a: Tensor, b: Tensor) -> Tensor:
        s = 30.0 * a @ b.T
        rest = torch.stack([s[i][torch.arange(7) != i].exp().sum().log() for i in range(7)])
        return (rest - s.diagonal()).mean()

    u_x, u_y, v_x, v_y = retrieved(x, x), retrieved(y, x), retrieved(x, y), retrieved(y, y)
    assert torch.allclose(cloob(x, y, 30.0, beta), loob(u_x, u_y) + loob(v_y, v_x))
    assert torch.allclose(hopfield_retrieve(y, x, beta), u_y)
    assert torch.allclose(info_loob(x, y, 30.0), 0.5 * (loob(x, y) + loob(y, x)))
    assert torch.allclose(info_loob(x, y, 30.0, symmetric=False), loob(x, y))


def test_a_sharp_retrieval_gives_the_rows_back() -> None:
    x = torch.eye(5, dtype=torch.float64)
    assert torch.allclose(hopfield_retrieve(x, x, 200.0), x)
    y = unit_rows(2, 5, 5)
    assert cloob(x, x, 9.0, 500.0).item() == pytest.approx(2 * (math.log(4) - 9.0))
    # Each row of y then reads the row of x nearest to it, and the other way round.
    read_x, read_y = x[(y @ x.T).argmax(1)], y[(x @ y.T).argmax(1)]
    expected = info_loob(x, read_x, 9.0, symmetric=False) + info_loob(y, read_y, 9.0, symmetric=False)
    assert torch.allclose(cloob(x, y, 9.0, 5000.0), expected)


def test_rows_with_nothing_but_partners_take_no_part_in_loob() -> None:
    x, y = unit_rows(0, 3, 4), unit_rows(1, 3, 4)
    p = torch.tensor([[True, True, True], [False, True, False], [False, False, True]])
    scores = 4.0 * x @ y.T
    rows = [scores[i][~p[i]].logsumexp(0) - scores[i][p[i]].mean() for i in (1, 2)]
    got = value_and_gradients(partial(info_loob, positives=p, symmetric=False), x, y)
    assert torch.allclose(info_loob(x, y, 4.0, positives=p, symmetric=False), torch.stack(rows).mean())
    with pytest.raises(HarmoniaError, match="every other"):
        info_loob(x, y, 4.0, positives=torch.zeros(3).long())
    assert got[1][0].eq(0).all() and all(g.isfinite().all() for g in got)


@given(seed=seeds, scale=st.sampled_from([1.0, 20.0]))
@settings(max_examples=10, deadline=None)
def test_fenchel_young_with_shannon_is_info_nce(seed: int, scale: float) -> None:
    x, y = two(seed)
    assert torch.allclose(hfy_loss(x, y, scale, entropy=Shannon()), info_nce(x, y, scale))
    ids = torch.arange(7) // 2
    less = sum(math.log(c) for c in (2, 2, 2, 2, 2, 2, 1)) / 7
    expected = info_nce(x, y, scale, positives=ids) - less
    assert torch.allclose(hfy_loss(x, y, scale, entropy=Shannon(), positives=ids), expected)


@pytest.mark.parametrize(
    "omega", [Tsallis(1.3), Tsallis(1.5), Tsallis(2.0), Norm(2.0), Norm(5.0), Subsets(1)], ids=str
)
def test_from_its_margin_on_a_row_costs_nothing(omega: Any) -> None:
    eye = torch.eye(6, dtype=torch.float64)
    lead = margin(omega)

    def just(factor: float) -> list[Tensor]:
        # value_and_gradients gives a scale of 5.
        return value_and_gradients(
            lambda x, y, scale: hfy_loss(x, y, scale / 5 * factor * lead, entropy=omega), eye, eye
        )

    at, below = just(1.0 + 1e-9), just(0.9)
    assert abs(at[0].item()) < 1e-12
    assert all(g.abs().max() < 1e-6 for g in at[1:])
    assert below[0] > 1e-6
    assert margin(Shannon()) == math.inf and hfy_loss(eye, eye, 20.0, entropy=Shannon()) > 0


def test_subsets_want_as_many_partners() -> None:
    ids = torch.arange(6) // 2
    x = torch.eye(3, dtype=torch.float64)[ids]
    assert hfy_loss(x, x, 1.0, entropy=Subsets(2), positives=ids).item() == pytest.approx(0.0, abs=1e-12)
    assert hfy_loss(x, x.roll(1, 0), 1.0, entropy=Subsets(2), positives=ids) > 0.1
    with pytest.raises(HarmoniaError, match="2 partners"):
        hfy_loss(x, x, 1.0, entropy=Subsets(2))


@losses
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_is_computed_in_float32(loss: Loss, dtype: torch.dtype) -> None:
    x, y = (t.to(dtype).requires_grad_() for t in two(12))
    value = loss(x, y, torch.tensor(50.0, dtype=dtype))
    assert value.dtype == torch.float32
    assert torch.allclose(value, loss(x.float(), y.float(), 50.0), rtol=1e-6)
    value.backward()
    assert x.grad is not None and x.grad.dtype == dtype and x.grad.isfinite().all()


@losses
@pytest.mark.parametrize("chunk", [None, 3])
def test_autocast_does_not_reach_the_scores(loss: Loss, chunk: int | None) -> None:
    x, y = (t.float() for t in two(13))
    plain = value_and_gradients(partial(loss, chunk=chunk), x, y)

    def cast(*leaves: Tensor) -> Tensor:
        with torch.autocast("cpu", dtype=torch.bfloat16):
            return loss(*leaves, chunk=chunk)

    torch.testing.assert_close(value_and_gradients(cast, x, y), plain)


@losses
def test_bad_input_says_what_is_wrong(loss: Loss) -> None:
    x, y = two(14)
    cases: list[tuple[tuple[Any, ...], dict[str, Any], str]] = [
        ((x[:0], y[:0], 1.0), {}, "at least 1"),
        ((x, y[:, :3], 1.0), {}, "width"),
        ((x, y[:5], 1.0), {}, "say which belong together"),
        ((x[0], y[0], 1.0), {}, r"\(n, d\)"),
        ((x.long(), y.long(), 1.0), {}, "real numbers"),
        ((x, y, torch.ones(7).double()), {}, "one number"),
        ((x, y, -1.0), {}, "negative"),
        ((x, y, 1.0), {"positives": torch.arange(6)}, "integer for each"),
        ((x, y, 1.0), {"positives": torch.ones(7)}, "integer for each"),
        ((x, y, 1.0), {"positives": torch.eye(6).bool()}, "shape"),
        ((x, y, 1.0), {"positives": torch.zeros(7, 7).bool()}, "no row of x has a partner"),
        ((x, y, 1.0), {"chunk": 0}, "chunk"),
    ]
    for args, named, told in cases:
        with pytest.raises(HarmoniaError, match=told) as caught:
            loss(*args, **named)
        assert "\n" not in str(caught.value)


def test_one_row() -> None:
    x, y = two(15, n=1)
    for name in ("info_nce", "info_loob", "cloob", "hfy_entmax"):
        with pytest.raises(HarmoniaError, match="at least two"):
            ALL[name](x, y, 1.0)
    expected = F.softplus(-(2.0 * (x * y).sum() + 1.0))
    assert torch.allclose(sigmoid_loss(x, y, 2.0, 1.0), expected)
    # One photo with three captions: the captions have nothing to be told by, the photo has the others.
    record = (torch.tensor([0]), torch.tensor([0, 1, 2]))
    assert info_nce(x, unit_rows(1, 3, 4), 1.0, positives=record) > 0
