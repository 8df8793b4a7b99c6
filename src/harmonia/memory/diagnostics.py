"""Diagnostics of a memory: hubs, spurious attractors, certified basins, and remaining capacity.

All functions examine one matrix ``key`` of a :class:`HarmonicMemory`; for a plain matrix of unit codes X use
``HarmonicMemory({"x": X}, centre=False)``. Basins and attractors treat every part as a slot of its own,
without the learned bias and couplings. Of more than ``SLOTS`` parts an even sample of that size is examined,
and the results give its size. Diagnostics do not count as use.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from harmonia.memory.capacity import cosine_of_noise, log_mean_weight
from harmonia.memory.certificates import Basins, Rows, basins
from harmonia.memory.harmonic import Given, HarmonicMemory
from harmonia.memory.record_layout import Layout

__all__ = [
    "Attractors",
    "Diagnosis",
    "Hubness",
    "Room",
    "attractors",
    "diagnose",
    "effective_dimension",
    "hubness",
    "records_that_fit",
    "room",
    "slots_of",
]

# Parts examined at most.
SLOTS = 131_072
# Slots scored at once.
BLOCK = 8192
# Cues recalled at once.
BATCH = 128
# Slots in the random mixture of a start state.
MIXED = 64
# A fixed point is a stored record if one slot has at least this probability and this cosine,
SURE, CLOSE = 0.5, 0.9
# and a mixture if its effective number of slots is at most this.
FEW = 16.0
# The cue noises, as variances, that ``diagnose`` tries.
NOISES = (0.1, 0.3, 0.5, 1.0)


@dataclass(frozen=True, slots=True, eq=False)
class Slots:
    """Parts of one or several modalities as slots: ``matrices`` of M rows each, ``record`` (M,).

    ``betas`` are inverse temperatures per matrix, for cosines. ``total`` slots and ``records`` are all that
    the memory holds of these modalities, sampled or not.
    """

    matrices: tuple[Rows, ...]
    betas: tuple[float, ...]
    record: Tensor
    total: int
    records: int


@dataclass(frozen=True, slots=True, eq=False)
class Read:
    """The softmax over all slots for Q codes: best slot, its p, 1 / sum p^2, log-sum-exp, mean codes."""

    best: Tensor
    p: Tensor
    effective: Tensor
    logsumexp: Tensor
    means: tuple[Tensor, ...]


@dataclass(frozen=True, slots=True, eq=False)
class Hubness:
    """How often each record ``(slots,)`` is among the ``k`` answers of ``probes`` cues not its own.

    ``skewness`` of these counts is that of Radovanovic et al. 2010; ``chance`` is what it would be if
    answers were drawn at random. ``top`` are the records answered most often, most often first.
    """

    counts: Tensor
    k: int
    probes: int
    skewness: float
    chance: float
    top: Tensor


@dataclass(frozen=True, slots=True)
class Attractors:
    """The fixed points of ``starts`` random states, as counts; ``distinct``: different stored records.

    ``memory``: one slot. ``mixture``: a few. ``spurious``: many. ``moving``: not yet converged.
    """

    starts: int
    memory: int
    mixture: int
    spurious: int
    moving: int
    distinct: int


@dataclass(frozen=True, slots=True)
class Room:
    """Recall and capacity at cue noise of variance ``noise`` (cosine ``cosine``).

    ``recalled`` is measured: the share of noisy cues whose record comes first. ``fits`` is the formula of
    :mod:`harmonia.memory.capacity` for random codes of the effective dimension, ``more`` what is left.
    """

    noise: float
    cosine: float
    recalled: float
    fits: float
    more: float


@dataclass(frozen=True, slots=True, eq=False)
class Diagnosis:
    """The diagnosis of one matrix. ``beta`` is in units of chance, ``cosine_beta`` the same for cosines.

    ``basins`` are of ``sampled`` parts; the ``slots`` they compete with are all ``parts``, or an even sample.
    """

    records: int
    parts: int
    slots: int
    dim: int
    effective_dim: float
    beta: float
    cosine_beta: float
    basins: Basins
    hubs: Hubness
    attractors: Attractors
    room: tuple[Room, ...]

    @property
    def sampled(self) -> int:
        """How many parts the basins are of."""
        return len(self.basins.radius)


def diagnose(
    memory: HarmonicMemory,
    key: str,
    *,
    noises: Sequence[float] = NOISES,
    sample: int = 256,
    probes: int = 1024,
    starts: int = 64,
    seed: int = 0,
) -> Diagnosis:
    """Diagnose one matrix: ``sample`` parts for basins and noise, ``probes`` for hubs, random ``starts``."""
    memory, generator = memory.snapshot(counts=False), torch.Generator().manual_seed(seed)
    slots = slots_of(memory, [key])
    rows = _even(len(slots.record), sample)
    return Diagnosis(
        records=slots.records,
        parts=slots.total,
        slots=len(slots.record),
        dim=memory.matrices[key].shape[1],
        effective_dim=effective_dimension(memory, key),
        beta=memory.beta(slots.records),
        cosine_beta=slots.betas[0],
        basins=basins(slots.matrices[0], rows, slots.betas[0]),
        hubs=hubness(memory, key, probes=probes),
        attractors=attractors(slots, starts=starts, generator=generator),
        room=tuple(room(memory, key, noise, sample=sample, generator=generator) for noise in noises),
    )


def slots_of(memory: HarmonicMemory, keys: Sequence[str]) -> Slots:
    """The distinct moments of some matrices as slots; a missing part is a row of zeros."""
    memory = memory.snapshot(counts=False)
    view, live = _live(memory, keys)
    rows = live[_even(len(live), SLOTS)]
    records = memory.population or int(memory.alive[view.visible].sum())
    beta = memory.beta(records) / math.sqrt(len(keys))
    matrices: list[Rows] = []
    for key in keys:
        part, matrix = view.parts[key][rows], memory.matrices[key]
        if len(part) == matrix.shape[0] and bool((part.cpu() == torch.arange(len(part))).all()):
            matrices.append(matrix)
        else:
            codes = matrix[part.clamp(min=0)]
            matrices.append(codes * (part >= 0).to(codes)[:, None])
    betas = tuple(beta * math.sqrt(effective_dimension(memory, key)) for key in keys)
    return Slots(tuple(matrices), betas, view.slot[rows], len(live), records)


def effective_dimension(memory: HarmonicMemory, key: str) -> float:
    """1 / sigma^2, where sigma is the root mean square cosine between the codes held.

    It is (tr C)^2 / tr(C^2) of the second moment C; a tiny memory has at most as many dimensions as codes.
    """
    return 1.0 / max(float(memory.chance(key)) ** 2, 1e-8)


def read(slots: Slots, states: Sequence[Tensor]) -> Read:
    """One exact pass over all slots, block by block, for codes ``(Q, d)`` per matrix."""
    top = states[0].new_full((len(states[0]),), -torch.inf)
    total, square = torch.zeros_like(top), torch.zeros_like(top)
    best = torch.zeros_like(top, dtype=torch.long)
    means = [torch.zeros_like(state) for state in states]
    for first in range(0, len(slots.record), BLOCK):
        blocks = [matrix[first : first + BLOCK] for matrix in slots.matrices]
        scores = torch.zeros(1, dtype=top.dtype, device=top.device)
        for beta, state, block in zip(slots.betas, states, blocks, strict=True):
            scores = scores + beta * (state @ block.T)
        peak, column = scores.max(dim=-1)
        best = torch.where(peak > top, first + column, best)
        old, top = top, torch.maximum(top, peak)
        fade, weights = torch.exp(old - top), torch.exp(scores - top[:, None])
        total = total * fade + weights.sum(dim=-1)
        square = square * fade**2 + (weights**2).sum(dim=-1)
        means = [m * fade[:, None] + weights @ block for m, block in zip(means, blocks, strict=True)]
    means = [mean / total[:, None] for mean in means]
    return Read(best, 1.0 / total, total**2 / square, top + total.log(), tuple(means))


def attractors(
    slots: Slots,
    *,
    starts: int = 64,
    steps: int = 200,
    tolerance: float = 1e-4,
    generator: torch.Generator | None = None,
) -> Attractors:
    """Iterate random states g <- unit(X^T softmax(beta X g)) and classify their fixed points.

    A state is a random mixture of stored codes, drawn anew for every matrix. This is the memory's own
    step with no trust in the cue.
    """
    states = [_random_states(matrix, starts, generator) for matrix in slots.matrices]
    moving = torch.ones(starts, dtype=torch.bool)
    for _ in range(steps):
        rows = moving.nonzero()[:, 0]
        if not len(rows):
            break
        found = read(slots, [state[rows] for state in states])
        change = torch.zeros_like(found.p)
        for state, mean in zip(states, found.means, strict=True):
            new = torch.nn.functional.normalize(mean, dim=-1)
            change = torch.maximum(change, (new - state[rows]).norm(dim=-1))
            state[rows] = new
        moving[rows] = (change >= tolerance).to(moving.device)
    return _classify(slots, states, moving)


def hubness(memory: HarmonicMemory, key: str, *, k: int = 10, probes: int = 1024) -> Hubness:
    """Recall by stored codes themselves, evenly sampled, and count which other records answer."""
    memory = memory.snapshot(counts=False)
    view, live = _live(memory, [key])
    rows = live[_even(len(live), probes)]
    visible = view.visible[memory.alive[view.visible]].cpu()
    k = min(k, len(visible) - 1)
    counts = torch.zeros(memory.slots, dtype=torch.long)
    for some in torch.split(rows, BATCH) if k > 0 else ():
        found, own = _answers(memory, key, view, some, k + 1)
        others = (found >= 0) & (found != own[:, None])
        # A cue whose own record is not among the answers has one answer more than is asked for.
        others &= others.cumsum(dim=-1) <= k
        counts += torch.bincount(found[others], minlength=memory.slots)
    seen = counts[visible].double()
    top = visible[seen.argsort(descending=True, stable=True)]
    rate = k / max(len(visible) - 1, 1)
    # A count is binomial by chance; where everything answers, all counts are alike.
    chance = (1.0 - 2.0 * rate) / math.sqrt(len(rows) * rate * (1.0 - rate)) if 0.0 < rate < 1.0 else 0.0
    return Hubness(counts, k, len(rows), _skewness(seen), chance, top)


def room(
    memory: HarmonicMemory,
    key: str,
    noise: float,
    *,
    sample: int = 256,
    generator: torch.Generator | None = None,
) -> Room:
    """What is recalled at a cue noise, and how many records would be with probability one half."""
    memory = memory.snapshot(counts=False)
    view, live = _live(memory, [key])
    rows = live[_even(len(live), sample)]
    right = 0
    for some in torch.split(rows, BATCH):
        found, own = _answers(memory, key, view, some, 1, noise, generator)
        right += int((found[:, 0] == own).sum())
    cosine = cosine_of_noise(noise)
    fits = records_that_fit(effective_dimension(memory, key), cosine)
    records = memory.population or int(memory.alive[view.visible].sum())
    return Room(noise, cosine, right / len(rows), fits, max(0.0, fits - records))


def records_that_fit(d: float, cosine: float) -> float:
    """The most records of which one has probability one half, at the memory's own beta; may be infinite.

    In units of chance beta = sqrt(2 ln N), so for cosines b = sqrt(2 d ln N), and p = 1/2 where
    b c - log M_d(b) = ln N = b^2 / (2 d). The left side less the right is concave in b and 0 at b = 0, so
    there is one more root, and it lies below 2 d c.
    """
    low, high = 0.0, 2.0 * d * max(cosine, 0.0)
    for _ in range(60):
        middle = 0.5 * (low + high)
        enough = middle * cosine - log_mean_weight(middle, d) >= middle**2 / (2.0 * d)
        low, high = (middle, high) if enough else (low, middle)
    log = low**2 / (2.0 * d)
    return math.inf if log > 709.0 else float(math.floor(math.exp(log)))


def _live(memory: HarmonicMemory, keys: Sequence[str]) -> tuple[Layout, Tensor]:
    """The layout as the matrices see it, and its moments that are not of deleted records."""
    for key in keys:
        memory.records.matrix(key)
    view = memory.view(tuple(keys))
    if not bool(memory.alive[view.slot].any()):
        raise ValueError(f"no record has a part in {', '.join(keys)}: there is nothing to examine")
    return view, memory.alive[view.slot].nonzero()[:, 0].cpu()


def _answers(
    memory: HarmonicMemory,
    key: str,
    view: Layout,
    moments: Tensor,
    k: int,
    noise: float = 0.0,
    generator: torch.Generator | None = None,
) -> tuple[Tensor, Tensor]:
    """The ``k`` records (Q, k) recalled by the codes of some moments, made noisy, and their own (Q,)."""
    codes = memory.matrices[key][view.parts[key][moments]]
    if noise > 0:
        normal = torch.randn(codes.shape, generator=generator, dtype=codes.dtype).to(codes.device)
        codes = codes + normal * math.sqrt(noise / codes.shape[1])
    found = memory.recall([Given(key, codes, origin=None)], k=k).slots[:, :k]
    return found.cpu(), view.slot[moments].cpu()


def _classify(slots: Slots, states: Sequence[Tensor], moving: Tensor) -> Attractors:
    found = read(slots, states)
    moving = moving.to(found.p.device)
    close = torch.ones_like(moving)
    for matrix, state in zip(slots.matrices, states, strict=True):
        close &= (matrix[found.best] * state).sum(dim=-1) >= CLOSE
    memory = ~moving & close & (found.p >= SURE)
    mixture = ~moving & ~memory & (found.effective <= FEW)
    return Attractors(
        starts=len(moving),
        memory=int(memory.sum()),
        mixture=int(mixture.sum()),
        spurious=int((~moving & ~memory & ~mixture).sum()),
        moving=int(moving.sum()),
        distinct=len(set(found.best[memory].tolist())),
    )


def _random_states(matrix: Rows, starts: int, generator: torch.Generator | None) -> Tensor:
    rows = torch.randint(matrix.shape[0], (starts, MIXED), generator=generator)
    codes = matrix[rows.reshape(-1)].reshape(starts, MIXED, -1)
    weights = torch.randn(starts, 1, MIXED, generator=generator, dtype=codes.dtype).to(codes.device)
    return torch.nn.functional.normalize((weights @ codes)[:, 0], dim=-1)


def _even(total: int, most: int) -> Tensor:
    """At most ``most`` row numbers below ``total``, evenly spread."""
    if total <= most:
        return torch.arange(total)
    return torch.linspace(0, total - 1, most, dtype=torch.float64).round().long()


def _skewness(counts: Tensor) -> float:
    centred = counts - counts.mean()
    variance = float((centred**2).mean())
    return float((centred**3).mean()) / variance**1.5 if variance > 0 else 0.0
