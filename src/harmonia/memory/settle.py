"""Iterative retrieval ("settling"): descend the energy from each cue until it converges.

The step is the concave-convex procedure (Yuille and Rangarajan 2003). The slot term is concave (a
convex non-decreasing conjugate of a maximum of linear scores), so it is replaced by its tangent. What
is left is linear in each channel, also with couplings between the channels; one channel after the other
is set to its minimum over the ball,

    g_c <- normalise(w_c X_c^T p + kappa_c c_c + sum_n lambda W_cn g_n)

and the energy never rises. A converged cue is no longer updated, so its answer does not depend on
its batch. ``descent`` has the same descent for any Lagrangian, dense and differentiable.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

import torch
from torch import Tensor

from harmonia.memory.certificates import contraction_bound, error_bound
from harmonia.memory.energy import cue_term
from harmonia.memory.entropies import Entropy, Shannon
from harmonia.memory.matrix import Matrix
from harmonia.memory.moment_scores import MatrixQuery, part_scores, read_all, read_top
from harmonia.memory.record_layout import Layout
from harmonia.memory.scan import Scan, scan_blocks, scan_top
from harmonia.memory.shards import Shards


@dataclass(frozen=True, slots=True, eq=False)
class Channel:
    """Q cues against the matrix ``key``: ``cue`` (Q, d) unit; ``weight``, ``trust``, ``absent`` (Q,).

    An infinite ``trust`` clamps the cue; a finite one is kappa in units of the weight. A missing modality
    starts at zero with a trust of 0. ``origin`` is the matrix that holds codes of the cue's own kind. A
    modality without a channel has no score and is only read out.
    """

    key: str
    cue: Tensor
    weight: Tensor
    trust: Tensor
    absent: Tensor
    origin: str = ""


@dataclass(frozen=True, slots=True, eq=False)
class Settled:
    """The result of a recall with Q cues.

    ``slots``, ``scores``, ``p``, ``moment`` are (Q, k), best first (slot -1: none). ``tail`` (Q,) is the
    probability outside them, ``bound`` (Q,) the error bound of the readout, ``contraction`` (Q,) a bound on
    the Jacobian of the step (below 1: locally a single fixed point), ``beta`` (Q,) the inverse temperature.
    ``energies`` (T + 1, Q) are constant once a cue has converged; ``steps`` and ``converged`` are (Q,).
    ``codes[key]`` (Q, d) are the recalled unit codes (zero where no kept record has the modality). ``match``
    (Q, k) is the p-value that a slot matches no cue, and ``nothing`` (Q,) that none does (1 where no test
    was made, see ``match_test``). For each channel: ``state`` (Q, d), the ``part`` (Q, k) of the best moment
    (-1: absent), and the term that it ``adds`` (Q, k) to the score.
    """

    slots: Tensor
    scores: Tensor
    p: Tensor
    moment: Tensor
    tail: Tensor
    bound: Tensor
    contraction: Tensor
    beta: Tensor
    energies: Tensor
    steps: Tensor
    converged: Tensor
    codes: dict[str, Tensor]
    state: tuple[Tensor, ...]
    part: tuple[Tensor, ...]
    adds: tuple[Tensor, ...]
    match: Tensor
    nothing: Tensor


@dataclass(frozen=True, slots=True, eq=False)
class Field:
    """What stays fixed during a retrieval: stored codes, temperature, entropy, masks, couplings.

    ``couplings[(to, of)]`` is lambda W (d_to, d_of); with both orders given they are transposes.
    """

    layout: Layout
    view: Layout
    matrices: Mapping[str, Matrix | Tensor]
    beta: Tensor
    entropy: Entropy
    mask: Tensor | None
    k: int
    tail_tolerance: float
    couplings: Mapping[tuple[str, str], Tensor] = field(default_factory=dict)
    shards: Shards | None = None
    reads: Sequence[str] | None = None

    @property
    def readable(self) -> Mapping[str, Matrix | Tensor]:
        """The matrices that are read out: all, or those of ``reads``."""
        return self.matrices if self.reads is None else {key: self.matrices[key] for key in self.reads}

    @property
    def total(self) -> int:
        """How many slots there are in all."""
        return self.shards.total if self.shards else self.view.slots

    def scan(self, queries: Sequence[MatrixQuery], k: int) -> Scan:
        """The best ``k`` of all slots, on all ranks."""
        if self.shards is None:
            return scan_top(self.view, queries, k, self.beta, self.mask)
        return self.shards.scan(self.view, queries, k, self.beta, self.mask)

    def coupled(self, key: str, channels: Sequence[Channel], state: Sequence[Tensor]) -> Tensor | float:
        """The pull of the other channels on ``key`` through the couplings, (Q, d)."""
        total: Tensor | float = 0.0
        for channel, g in zip(channels, state, strict=True):
            block = self.couplings.get((key, channel.key))
            if block is not None and channel.key != key:
                total = total + g @ block.T
        return total

    def rows(self, active: Tensor) -> Field:
        """The same field for some of the cues."""
        mask = self.mask if self.mask is None or self.mask.ndim == 1 else self.mask[:, active]
        return replace(self, beta=self.beta[active], mask=mask)


@dataclass(frozen=True, slots=True, eq=False)
class _SlotDistribution:
    found: Scan
    p: Tensor
    tail: Tensor
    conjugate: Tensor


def settle(
    field: Field,
    channels: Sequence[Channel],
    steps: int = 8,
    tolerance: float = 1e-5,
    found: Scan | None = None,
) -> Settled:
    """Retrieve: descend from the cues for at most ``steps`` steps, or until no code moves by ``tolerance``.

    ``found`` is the scan of the cues, if the caller has it already.
    """
    rows = field.beta.shape[0]
    state = [channel.cue.clone() for channel in channels]
    free = torch.stack([channel.trust.isfinite() for channel in channels]).any(dim=0)
    slots = _slot_distribution(field, queries_of(field.matrices, channels, state), found)
    energies = [_energy(field, channels, state, slots)]
    taken = torch.zeros(rows, dtype=torch.long, device=field.beta.device)
    resting = ~free
    for _ in range(steps):
        active = (~resting).nonzero()[:, 0]
        if active.numel() == 0:
            break
        some = [_take(channel, active) for channel in channels]
        part = field.rows(active)
        moved = _step(part, some, [g[active] for g in state], _take_distribution(slots, active))
        change = field.beta.new_zeros(active.numel())
        for g, new in zip(state, moved, strict=True):
            change = torch.maximum(change, (new - g[active]).norm(dim=-1))
            g[active] = new
        slots = _put_distribution(
            slots, active, _slot_distribution(part, queries_of(part.matrices, some, moved))
        )
        energies.append(_energy(field, channels, state, slots))
        taken[active] += 1
        resting[active] = change < tolerance
    return _result(field, channels, state, slots, energies, taken, resting)


def queries_of(
    matrices: Mapping[str, Matrix | Tensor], channels: Sequence[Channel], state: Sequence[Tensor]
) -> list[MatrixQuery]:
    """The codes ``state`` as queries of their matrices, with the channels' weights."""
    return [
        MatrixQuery(c.key, matrices[c.key], _compared(matrices[c.key], c, g) * c.weight[:, None], c.absent)
        for c, g in zip(channels, state, strict=True)
    ]


def _compared(matrix: Matrix | Tensor, channel: Channel, state: Tensor) -> Tensor:
    """A state as it is multiplied with the stored codes; a missing one, of zeros, is compared with none."""
    if not isinstance(matrix, Matrix):
        return state
    return matrix.frame.query(state, channel.origin) * (state != 0).any(dim=-1, keepdim=True)


def _pull(matrix: Matrix | Tensor, channel: Channel, read: Tensor) -> Tensor:
    """The gradient of the scores by the state, from the mean of the stored codes."""
    return matrix.frame.pull(read, channel.origin) if isinstance(matrix, Matrix) else read


def _codes(matrix: Matrix | Tensor, read: Tensor) -> Tensor:
    """The centred codes in stored ones."""
    return matrix.frame.centred(read) if isinstance(matrix, Matrix) else read


def _slot_distribution(
    field: Field, queries: Sequence[MatrixQuery], found: Scan | None = None
) -> _SlotDistribution:
    """The slot distribution: exact for softmax by the log-sum-exp, for entmax by proof of support."""
    k = field.k
    while True:
        found = found or field.scan(queries, k)
        scores = found.scores * field.beta[:, None]
        if isinstance(field.entropy, Shannon):
            # Where no slot may be recalled all scores are -inf, and there is nothing to be read out.
            total = found.logsumexp.nan_to_num(neginf=0.0)
            p = torch.exp(scores - total[:, None])
            tail = torch.where(found.logsumexp.isneginf(), 0.0, 1.0 - p.sum(dim=-1)).clamp(min=0.0)
            return _SlotDistribution(found, p, tail, total)
        none = scores[:, :1].isneginf()
        scores = torch.where(none, 0.0, scores)
        p = torch.where(none, 0.0, field.entropy.argmax(scores))
        # The last kept slot has no mass, so no slot behind it can have any: the result is exact.
        if found.scores.shape[1] >= field.total or bool((p[:, -1] == 0).all()):
            return _SlotDistribution(found, p, torch.zeros_like(p[:, 0]), field.entropy.conjugate(scores))
        k, found = 4 * k, None


def _step(
    field: Field, channels: Sequence[Channel], state: Sequence[Tensor], slots: _SlotDistribution
) -> list[Tensor]:
    matrices = {c.key: field.matrices[c.key] for c in channels}
    queries = queries_of(field.matrices, channels, state)
    if bool((slots.tail > field.tail_tolerance).any()):
        blocks = scan_blocks(field.view, queries, field.mask)
        read, _ = read_all(blocks, field.view, matrices, queries, field.beta, slots.conjugate)
    else:
        read = read_top(field.view, matrices, queries, _own_slots(field, slots.found.slots), slots.p).codes
    if field.shards is not None:
        read = field.shards.sums(read)
    moved = list(state)
    for i, c in enumerate(channels):
        kappa = (c.trust * c.weight.abs()).nan_to_num(posinf=0.0)
        pull = _pull(field.matrices[c.key], c, read[c.key]) * c.weight[:, None] + c.cue * kappa[:, None]
        pull = pull + field.coupled(c.key, channels, moved)
        length = pull.norm(dim=-1, keepdim=True)
        new = torch.where(length > 1e-12, pull / length.clamp(min=1e-12), moved[i])
        moved[i] = torch.where(c.trust.isinf()[:, None], moved[i], new)
    return moved


def _own_slots(field: Field, slots: Tensor) -> Tensor:
    return slots if field.shards is None else field.shards.own(slots)


def _energy(
    field: Field, channels: Sequence[Channel], state: Sequence[Tensor], slots: _SlotDistribution
) -> Tensor:
    total = -slots.conjugate / field.beta
    for c, g in zip(channels, state, strict=True):
        total = total + cue_term(g, c.cue, c.trust * c.weight.abs())
        # Each pair of channels is counted twice, once from either side.
        total = total - 0.5 * (g * field.coupled(c.key, channels, state)).sum(dim=-1)
    return total


def _result(
    field: Field,
    channels: Sequence[Channel],
    state: Sequence[Tensor],
    slots: _SlotDistribution,
    energies: Sequence[Tensor],
    taken: Tensor,
    resting: Tensor,
) -> Settled:
    found = slots.found
    queries = queries_of(field.matrices, channels, state)
    read = read_top(field.layout, field.readable, queries, _own_slots(field, found.slots), slots.p)
    moment, codes = read.moment, read.codes
    parts, adds = zip(*(part_scores(field.layout, q, moment) for q in queries), strict=True)
    if field.shards is not None:
        own = field.shards.own(found.slots) >= 0
        codes = field.shards.sums(codes)
        adds = tuple(field.shards.sum(torch.where(own, a, 0.0)) for a in adds)
        parts = tuple(field.shards.rows(q.key, part) for q, part in zip(queries, parts, strict=True))
        moment = field.shards.rows("", moment)
    kept = slots.p.sum(dim=-1).clamp(min=1e-30)
    codes = {
        k: torch.nn.functional.normalize(_codes(field.matrices[k], code) / kept[:, None], dim=-1)
        for k, code in codes.items()
    }
    for c, g in zip(channels, state, strict=True):
        if bool((c.trust == 0).all()):
            codes[c.key] = g
    bound = error_bound(slots.tail / (kept + slots.tail))
    # In the product of the channels' spaces, each stretched by its weight.
    stretch = field.beta * sum((c.weight**2 for c in channels), torch.zeros_like(field.beta))
    contraction = contraction_bound(slots.p.amax(dim=-1), stretch)
    return Settled(
        found.slots, found.scores, slots.p, moment, slots.tail, bound, contraction, field.beta,
        torch.stack(list(energies)), taken, resting, codes, tuple(state), parts, adds,
        torch.ones_like(slots.p), torch.ones_like(slots.tail),
    )  # fmt: skip


def _take(channel: Channel, rows: Tensor) -> Channel:
    return replace(
        channel,
        cue=channel.cue[rows],
        weight=channel.weight[rows],
        trust=channel.trust[rows],
        absent=channel.absent[rows],
    )


def _take_distribution(slots: _SlotDistribution, rows: Tensor) -> _SlotDistribution:
    found = Scan(slots.found.scores[rows], slots.found.slots[rows], slots.found.logsumexp[rows])
    return _SlotDistribution(found, slots.p[rows], slots.tail[rows], slots.conjugate[rows])


def _put_distribution(slots: _SlotDistribution, rows: Tensor, new: _SlotDistribution) -> _SlotDistribution:
    """``slots`` with some rows replaced; the wider of the two numbers of kept slots is used."""
    k = max(slots.p.shape[1], new.p.shape[1])

    def put(old: Tensor, fresh: Tensor, fill: float) -> Tensor:
        if old.ndim == 2:
            old = torch.nn.functional.pad(old, (0, k - old.shape[1]), value=fill)
            fresh = torch.nn.functional.pad(fresh, (0, k - fresh.shape[1]), value=fill)
        else:
            old = old.clone()
        old[rows] = fresh
        return old

    found = Scan(
        put(slots.found.scores, new.found.scores, -torch.inf),
        put(slots.found.slots, new.found.slots, -1),
        put(slots.found.logsumexp, new.found.logsumexp, 0.0),
    )
    return _SlotDistribution(
        found,
        put(slots.p, new.p, 0.0),
        put(slots.tail, new.tail, 0.0),
        put(slots.conjugate, new.conjugate, 0.0),
    )
