"""A two-dimensional slice of the energy near one cue, on the sphere, for plots.

The plane holds the two directions in which the cue, the path of its settling and the memories near it
differ most. A point (a, b) of it is the vector  origin + a e_1 + b e_2  in code space, scaled onto the unit
sphere, and the energy drawn there is that of this code, with all slots in the sum. A memory is drawn where
it falls when projected onto the plane at right angles. It need not lie on the slice: ``nearness`` is its
cosine with the code drawn at its place, and where that is far below 1 its valley is deeper than it looks.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from harmonia.memory.diagnostics import Slots, read

# Room left around the points, as a share of their extent.
MARGIN = 0.25
# A state that moves less than this has come to rest.
REST = 1e-4


@dataclass(frozen=True, slots=True, eq=False)
class Landscape:
    """Energies ``(G, G)``, row by ``y`` (G,) and column by ``x`` (G,), and points ``(.., 2)`` of the plane.

    ``memories`` (K, 2) and ``path`` (T, 2), from the cue to where it settled, have the energies ``depth``
    (K,) and ``path_energy`` (T,) of the codes themselves, and ``nearness`` (K,), ``path_nearness`` (T,).
    """

    x: Tensor
    y: Tensor
    energy: Tensor
    memories: Tensor
    depth: Tensor
    nearness: Tensor
    path: Tensor
    path_energy: Tensor
    path_nearness: Tensor


def landscape(slots: Slots, near: Tensor, path: Tensor, *, beta: float, grid: int = 81) -> Landscape:
    """The slice around the codes ``near`` (K, d) and a ``path`` (T, d), for ``slots`` of one matrix.

    ``beta`` is in units of chance, and so is the energy, that of softmax:
    -(1/beta) log sum_n e^{beta s_n}, every part a slot of its own; the pull of the cue is
    not in it.
    """
    points = torch.cat([path, near])
    origin = points.mean(dim=0)
    axes = torch.linalg.svd(points - origin, full_matrices=False).Vh[:2]
    flat = (points - origin) @ axes.T
    x, y = _range(flat[:, 0], grid), _range(flat[:, 1], grid)
    plane = torch.stack(torch.meshgrid(x, y, indexing="xy"), dim=-1).reshape(-1, 2)

    def code_at(place: Tensor) -> Tensor:
        return torch.nn.functional.normalize(origin + place @ axes, dim=-1)

    def energy(states: Tensor) -> Tensor:
        total = read(slots, [states]).logsumexp
        return -total / beta

    own, nearness, steps = energy(points), (code_at(flat) * points).sum(dim=-1), len(path)
    return Landscape(
        x=x, y=y, energy=energy(code_at(plane)).reshape(grid, grid),
        memories=flat[steps:], depth=own[steps:], nearness=nearness[steps:],
        path=flat[:steps], path_energy=own[:steps], path_nearness=nearness[:steps],
    )  # fmt: skip


def settling_path(slots: Slots, cue: Tensor, trust: float, *, steps: int = 8) -> Tensor:
    """The states ``(T, d)`` of one unit ``cue`` (d,) as it settles in one matrix, the cue first.

    A clamped cue (infinite ``trust``) does not move: its readout, scaled to unit length, comes second.
    """
    path = [cue]
    for _ in range(1 if math.isinf(trust) else steps):
        found = read(slots, [path[-1][None]])
        pull = found.means[0][0]
        if math.isfinite(trust):
            pull = pull + trust * cue
        path.append(torch.nn.functional.normalize(pull, dim=-1))
        if float((path[-1] - path[-2]).norm()) < REST:
            break
    return torch.stack(path)


def _range(values: Tensor, grid: int) -> Tensor:
    low, high = float(values.min()), float(values.max())
    margin = MARGIN * max(high - low, 0.1)
    return torch.linspace(low - margin, high + margin, grid, dtype=values.dtype, device=values.device)
