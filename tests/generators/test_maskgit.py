"""MaskGIT: what is hidden, how it is filled, guidance, learning, saving."""

from __future__ import annotations

import math
from itertools import pairwise
from pathlib import Path

import pytest
import torch
from torch import Tensor

from harmonia.generators import Batch, Condition, ConditionConfig, load_generator, save_generator
from harmonia.generators.autoencoders.autoencoder import VQVAEConfig
from harmonia.generators.tokens.maskgit import MaskGIT, MaskGITConfig, hide, parallel_decode, schedule
from harmonia.types import HarmoniaError

SHAPE = (1, 8, 8)


def made() -> MaskGIT:
    torch.manual_seed(0)
    codec = VQVAEConfig(shape=SHAPE, codes=8, dim=4)
    return MaskGIT(
        MaskGITConfig(shape=SHAPE, codec=codec, condition=ConditionConfig(classes=3), dropout=0.0, steps=3)
    )


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


@pytest.mark.parametrize(("hidden", "steps"), [(49, 1), (49, 8), (49, 49), (49, 200), (5, 3), (1, 4)])
def test_the_schedule_fills_all(hidden: int, steps: int) -> None:
    counts = schedule(hidden, steps)
    assert len(counts) == min(steps, hidden)
    assert counts[-1] == 0
    assert all(after < before for before, after in pairwise([hidden, *counts]))


def test_the_schedule_is_a_cosine() -> None:
    assert schedule(100, 4) == [math.floor(100 * math.cos(math.pi / 8 * i) + 1e-9) for i in (1, 2, 3, 4)]
    with pytest.raises(HarmoniaError, match="steps"):
        schedule(10, 0)


def test_every_place_is_filled_exactly_once() -> None:
    asked: list[Tensor] = []
    draws = seeded()

    def predict(ids: Tensor) -> Tensor:
        asked.append(ids.clone())
        return torch.randn(*ids.shape, 8, generator=draws)

    start = torch.full((5, 20), 8)
    start[1, :7] = 3
    ids = parallel_decode(predict, lambda l: l.argmax(2), start, 8, steps=6, generator=seeded())
    stages = [*asked, ids]
    for before, after in pairwise(stages):
        known = before != 8
        assert torch.equal(before[known], after[known])
    left = [(s == 8).sum(1) for s in stages]
    assert [int(n[0]) for n in left] == [20, *schedule(20, 6)]
    # a row that knew some is filled by the same schedule, from where it is below it
    assert [int(n[1]) for n in left] == [min(13, n) for n in (20, *schedule(20, 6))]
    assert (ids < 8).all()


def test_the_surest_stay() -> None:
    """With no noise, the places are filled in the order of their greatest probability."""
    logits = torch.zeros(1, 4, 3)
    logits[0, :, 1] = torch.tensor([1.0, 4.0, 2.0, 3.0])
    order: list[list[int]] = []

    def predict(ids: Tensor) -> Tensor:
        order.append((ids[0] != 3).nonzero().flatten().tolist())
        return logits

    parallel_decode(predict, lambda l: l.argmax(2), torch.full((1, 4), 3), 3, steps=4, choice=0.0)
    assert order == [[], [1], [1, 3], [1, 2, 3]]


def test_at_least_one_code_is_hidden_and_all_sometimes() -> None:
    torch.manual_seed(0)
    counts = hide(20000, 10).sum(1)
    assert counts.min() == 1 and counts.max() == 10
    # ceil(10 cos(pi / 2 u)) has this mean
    u = (torch.arange(100000) + 0.5) / 100000
    assert abs(counts.double().mean() - (10 * (u * math.pi / 2).cos()).ceil().mean()) < 0.1


def trained(model: MaskGIT, batch: Batch, steps: int) -> None:
    optimizer = torch.optim.AdamW(model.groups()["model"], 3e-3, weight_decay=0.0)
    for step in range(steps):
        torch.manual_seed(step)
        loss = model.losses(batch)["model"]
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()


def test_two_pictures_learned_by_heart_come_back() -> None:
    model = made().eval()
    codes = torch.stack([torch.arange(4).view(2, 2), torch.tensor([[7, 1], [0, 5]])])
    condition = Condition(2, label=torch.tensor([0, 2]))
    many = Batch(codes.repeat(8, 1, 1), condition.rows(torch.arange(2).repeat(8)))
    trained(model, many, 50)
    for steps in (1, 2, None):
        drawn = model.sample_codes(condition, steps=steps, guidance=2.0, generator=seeded(1))
        assert torch.equal(drawn, codes)
    assert torch.equal(
        model.sample(condition, guidance=2.0, generator=seeded()), model.codec.decode_codes(codes)
    )


def test_guidance_one_is_the_condition_alone() -> None:
    """With the same draws, guidance 1 and the limit of guidance towards 1 give the same picture."""
    model = made().double().eval()
    torch.nn.init.normal_(model.prior.head.weight, std=0.3, generator=seeded())
    condition = Condition(4, label=torch.tensor([0, 1, 2, 0]))
    one = model.sample_codes(condition, guidance=1.0, generator=seeded())
    assert torch.equal(one, model.sample_codes(condition, guidance=1 + 1e-9, generator=seeded()))
    assert torch.equal(
        model.sample_codes(condition, guidance=1e-9, generator=seeded()),
        model.sample_codes(condition.without(), generator=seeded()),
    )


def test_steps_are_shown_and_the_seed_decides(tmp_path: Path) -> None:
    model = made().eval()
    condition = Condition(2, label=torch.tensor([0, 1]))
    seen: list[tuple[int, int]] = []
    shapes: list[tuple[int, ...]] = []

    def watch(step: int, steps: int, x: Tensor) -> None:
        seen.append((step, steps))
        shapes.append(tuple(x.shape))

    first = model.sample(condition, generator=seeded(), watch=watch)
    assert seen == [(1, 3), (2, 3), (3, 3)] and set(shapes) == {(2, *SHAPE)}
    save_generator(tmp_path / "model", model)
    again = load_generator(tmp_path / "model").generator.sample(condition, generator=seeded())
    assert torch.equal(first, again)
    assert not torch.equal(
        model.sample_codes(condition, generator=seeded()), model.sample_codes(condition, generator=seeded(1))
    )
