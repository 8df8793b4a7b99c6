"""Hubs, attractors, basins and room on memories whose weaknesses are known by construction."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from harmonia.memory import HarmonicMemory, Layout
from harmonia.memory import diagnostics as diagnostics_module
from harmonia.memory.capacity import probability
from harmonia.memory.diagnostics import (
    Slots,
    attractors,
    diagnose,
    effective_dimension,
    hubness,
    read,
    records_that_fit,
    room,
    slots_of,
)


def unit(seed: int, *shape: int) -> Tensor:
    rows = torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    return torch.nn.functional.normalize(rows, dim=-1)


def plain(codes: Tensor) -> HarmonicMemory:
    return HarmonicMemory({"x": codes}, centre=False)


def slots(codes: Tensor, beta: float) -> Slots:
    return Slots((codes,), (beta,), torch.arange(len(codes)), len(codes), len(codes))


def test_reading_is_the_softmax(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(diagnostics_module, "BLOCK", 7)
    one, two, g, h = unit(0, 40, 6), unit(1, 40, 5), unit(2, 9, 6), unit(3, 9, 5)
    found = read(Slots((one, two), (8.0, 3.0), torch.arange(40), 40, 40), [g, h])
    scores = 8.0 * g @ one.T + 3.0 * h @ two.T
    p = torch.softmax(scores, dim=-1)
    assert torch.equal(found.best, p.argmax(-1))
    assert torch.allclose(found.p, p.amax(-1))
    assert torch.allclose(found.effective, 1 / (p**2).sum(-1))
    assert torch.allclose(found.logsumexp, scores.logsumexp(-1))
    assert torch.allclose(found.means[1], p @ two)


def test_a_planted_hub_is_found() -> None:
    codes = unit(0, 300, 100)
    even = hubness(plain(codes), "x", k=5)
    assert int(even.counts.sum()) == 300 * 5 and even.probes == 300
    # One record near the middle of a cone answers every cue of it.
    cone = torch.nn.functional.normalize(codes + 1.2 * codes[0], dim=-1)
    cone[0] = codes[0]
    hubs = hubness(plain(cone), "x", k=5)
    assert hubs.top[0] == 0 and hubs.counts[0] > 250
    assert hubs.skewness > 3 * even.skewness and hubs.skewness > 5 * hubs.chance
    centred = hubness(HarmonicMemory({"x": cone}), "x", k=5)
    assert centred.counts.max() < 0.5 * hubs.counts.max()


def test_looking_is_not_use_and_the_deleted_are_not_seen() -> None:
    memory = HarmonicMemory({"x": unit(0, 50, 8)})
    memory.delete(torch.tensor([3, 4]))
    before = memory.used.clone()
    found = diagnose(memory, "x", starts=8)
    assert torch.equal(memory.used, before)
    assert found.records == found.parts == 48 and found.sampled == 48
    assert found.hubs.counts[3] == 0 and not set(found.hubs.top.tolist()) & {3, 4}


@pytest.mark.parametrize(("beta", "kind"), [(60.0, "memory"), (6.0, "mixture"), (0.5, "spurious")])
def test_rest_points_are_told_apart(beta: float, kind: str) -> None:
    """40 memories in 10 tight clusters of 4: found one by one, by cluster, or not at all as beta falls."""
    centres = torch.eye(10, dtype=torch.float64).repeat_interleave(4, dim=0)
    away = torch.eye(40, dtype=torch.float64)
    codes = torch.nn.functional.normalize(torch.cat([centres, 0.5 * away], dim=1), dim=-1)
    found = attractors(slots(codes, beta), starts=40, generator=torch.Generator().manual_seed(0))
    assert found.memory + found.mixture + found.spurious + found.moving == found.starts == 40
    assert getattr(found, kind) >= 38
    assert (found.distinct > 10) == (kind == "memory")


def test_several_matrices_settle_together() -> None:
    codes = {"a": unit(0, 30, 12), "b": unit(1, 30, 9)}
    present = {"a": torch.ones(30, dtype=torch.bool), "b": torch.arange(30) < 25}
    memory = HarmonicMemory(codes, Layout.aligned(present))
    both = slots_of(memory, ["a", "b"])
    assert both.records == 30 and not both.matrices[1][torch.arange(25, 30)].any()
    found = attractors(both, starts=20, generator=torch.Generator().manual_seed(0))
    assert found.moving == 0 and found.memory + found.mixture + found.spurious == 20


def test_effective_dimension() -> None:
    assert effective_dimension(plain(unit(0, 5000, 16)), "x") == pytest.approx(16, rel=0.05)
    flat = torch.nn.functional.pad(unit(0, 5000, 4), (0, 60))
    assert effective_dimension(plain(flat), "x") == pytest.approx(4, rel=0.05)


def test_records_that_fit_solves_its_equation() -> None:
    for d, cosine in ((30.0, 0.6), (12.5, 0.8)):
        fits = records_that_fit(d, cosine)
        beta = math.sqrt(2 * d * math.log(fits))
        assert probability(fits, beta, d, cosine) == pytest.approx(0.5, abs=0.01)
    assert records_that_fit(512.0, 0.95) > 1e100
    assert records_that_fit(100.0, 0.0) <= 1


def test_room_measures_what_is_recalled() -> None:
    memory = plain(unit(0, 400, 16))
    easy, hard = (
        room(memory, "x", noise, generator=torch.Generator().manual_seed(0)) for noise in (0.05, 4.0)
    )
    assert easy.recalled > 0.98 and hard.recalled < 0.6
    assert easy.fits > hard.fits and hard.more == max(0.0, hard.fits - 400)


def test_a_large_memory_is_sampled_and_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(diagnostics_module, "SLOTS", 100)
    found = diagnose(plain(unit(0, 350, 12)), "x", sample=40, probes=30, starts=8)
    assert (found.parts, found.slots, found.sampled, found.hubs.probes) == (350, 100, 40, 30)


@pytest.mark.parametrize("records", [1, 2])
def test_tiny_memories(records: int) -> None:
    found = diagnose(plain(unit(0, records, 8)), "x", starts=4)
    assert found.hubs.k == records - 1 and found.attractors.memory + found.attractors.mixture == 4
