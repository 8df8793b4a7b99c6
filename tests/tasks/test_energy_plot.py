"""The slice of the energy that is plotted."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from harmonia.memory.diagnostics import Slots
from harmonia.tasks.energy_plot import landscape, settling_path


def unit(seed: int, *shape: int) -> Tensor:
    rows = torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    return torch.nn.functional.normalize(rows, dim=-1)


def slots(codes: Tensor, beta: float) -> Slots:
    return Slots((codes,), (beta,), torch.arange(len(codes)), len(codes), len(codes))


def test_the_landscape_is_the_energy_on_the_sphere() -> None:
    codes = unit(0, 60, 10)
    cue = torch.nn.functional.normalize(codes[5] + 0.6 * unit(1, 10), dim=-1)
    held = slots(codes, 14.0)
    path = settling_path(held, cue, 0.2, steps=20)
    near = codes[(codes @ path[-1]).topk(6).indices]
    found = landscape(held, near, path, beta=4.0, grid=21)
    exact = -(14.0 * path @ codes.T).logsumexp(-1) / 4
    assert torch.allclose(found.path_energy, exact)
    # Settling descends the energy of slots and cue together.
    total = found.path_energy + 0.5 * 0.2 * 14.0 / 4.0 * ((path - cue) ** 2).sum(-1)
    assert (total.diff() <= 1e-9).all() and len(path) > 2
    # All points lie within the grid, and energies there are of unit codes, so never below the best score.
    points = torch.cat([found.memories, found.path])
    assert (points[:, 0] > found.x[0]).all() and (points[:, 0] < found.x[-1]).all()
    assert float(found.energy.min()) >= -(14.0 + math.log(61)) / 4
    # With two memories and a path between them the slice holds all of it, and so is exact.
    between = torch.stack([codes[0], torch.nn.functional.normalize(codes[0] + codes[1], dim=-1)])
    whole = landscape(held, codes[:2], between, beta=4.0)
    assert torch.allclose(whole.nearness, torch.ones(2, dtype=torch.float64))


def test_a_clamped_cue_goes_to_its_readout() -> None:
    codes = unit(0, 30, 10)
    path = settling_path(slots(codes, 9.0), codes[3], math.inf)
    p = torch.softmax(9.0 * codes @ codes[3], dim=-1)
    assert torch.allclose(path[1], torch.nn.functional.normalize(p @ codes, dim=-1)) and len(path) == 2
