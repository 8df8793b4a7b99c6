"""Whether anything matches: error rates that hold, copies that are no rivals, memories of few records."""

from __future__ import annotations

import math

import pytest
import torch

from harmonia.memory import Given, HarmonicMemory
from harmonia.memory.match_test import (
    FALSE_RECALL,
    any_of,
    best_of_normal,
    null_table,
    p_values,
    rank,
    together,
)


def unit(seed: int, *shape: int) -> torch.Tensor:
    rows = torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    return torch.nn.functional.normalize(rows, dim=-1)


@pytest.mark.parametrize("level", [0.05, 0.1, 0.2])
def test_p_values_hold_whatever_the_distribution(level: float) -> None:
    """Exchangeable scores of a heavy tail: the share of p-values below a level is at most that level."""
    g = torch.Generator().manual_seed(0)
    draws = torch.randn(2000, 256, generator=g).exp() ** 2
    false = [float(p_values(row[:1], row[1:].sort().values, torch.ones(1))) <= level for row in draws]
    share = sum(false) / len(false)
    assert abs(share - level) < 3 * math.sqrt(level * (1 - level) / 2000) + 1 / 256


@pytest.mark.parametrize("level", [0.05, 0.1, 0.2])
def test_several_statistics_together_hold_as_well(level: float) -> None:
    g = torch.Generator().manual_seed(1)
    false = 0
    for _ in range(300):
        common = torch.randn(200, 12, 1, generator=g)
        scores = common + torch.randn(200, 12, 2, generator=g)
        table = null_table(scores[1:], torch.ones(199, 12, dtype=torch.bool))
        p = together(torch.stack([rank(scores[0, :, v], table[:, v]) for v in range(2)], dim=-1)).min()
        below = float((table[:, -1] <= p).sum() + 1) / 200
        false += below <= level
    assert abs(false / 300 - level) < 3 * math.sqrt(level * (1 - level) / 300) + 0.01


@pytest.mark.parametrize("records", range(1, 21))
def test_a_few_records_never_refuse_their_own(records: int) -> None:
    codes = unit(records, records, 32)
    found = HarmonicMemory({"a": codes}).recall([Given("a", codes)])
    assert (found.nothing <= FALSE_RECALL).all()
    assert (found.slots[:, 0] == torch.arange(records)).all()


@pytest.mark.parametrize("copies", [2, 10, 20, 50])
@pytest.mark.parametrize("others", [10, 280])
def test_copies_are_matches_and_no_rivals(copies: int, others: int) -> None:
    one = unit(7, 1, 48)
    near = torch.nn.functional.normalize(one + 0.02 * unit(8, copies, 48), dim=-1)
    memory = HarmonicMemory({"a": torch.cat([near, unit(9, others, 48)])})
    found = memory.recall([Given("a", one)], k=copies)
    assert float(found.nothing) <= FALSE_RECALL
    assert set(found.slots[0, :copies].tolist()) == set(range(copies))
    assert float(found.p[0, :copies].sum()) > 0.9 and bool((found.match[0, :copies] <= FALSE_RECALL).all())


def test_strangers_are_answered_at_the_stated_rate() -> None:
    memory = HarmonicMemory({"a": unit(1, 600, 64)})
    found = memory.recall([Given("a", unit(2, 500, 64))])
    assert float((found.nothing <= 0.2).double().mean()) == pytest.approx(0.2, abs=0.06)
    assert float((found.nothing <= 0.05).double().mean()) == pytest.approx(0.05, abs=0.04)


def test_cues_of_zeros_say_nothing_and_others_count_by_themselves() -> None:
    p = torch.tensor([[0.01, 0.5], [0.01, 0.5], [0.01, 0.5]])
    out = any_of(p, torch.tensor([[False, False], [False, True], [True, True]]))
    assert out.tolist() == pytest.approx([0.02, 0.01, 1.0])


def test_theory_is_the_tail_of_the_best_of_many() -> None:
    g = torch.Generator().manual_seed(3)
    best = torch.randn(20_000, 40, generator=g).amax(dim=1)
    for score in (1.0, 2.0, 3.0):
        assert float(best_of_normal(torch.tensor(score), 40)) == pytest.approx(
            float((best > score).double().mean()), abs=0.015
        )


def test_deleted_records_and_a_condition_leave_a_test() -> None:
    memory = HarmonicMemory({"a": unit(4, 200, 32)})
    memory.delete(range(50))
    found = memory.recall([Given("a", unit(4, 200, 32)[60:70])], allowed=torch.arange(200) > 55)
    assert (found.nothing <= FALSE_RECALL).all()
    gone = memory.recall([Given("a", unit(4, 200, 32)[:10])])
    assert (gone.nothing > FALSE_RECALL).any()
