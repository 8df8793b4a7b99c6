"""Training of the harmonic network: every part of a record is a cue for the whole record.

The memory is the batch, its slots are the records. xi_nm is the normalised mean of the parts of record n in
modality m, without the parts that are cues, and r_nm tells whether there are any. A cue c of one modality is
clamped, and the state descends the energy of ``harmonia.memory`` on the sphere,

    E(g) = -(1/beta) log sum_n exp(beta s_n(g)) - 1/2 g^T H g - a^T g,  s_n(g) = sum_m r_nm <xi_nm, g_m> + b_n

with the couplings W_mn between the modalities (initially or always the identity) in H, and the field of the
cue, a_m = W_mc c, in a. The state starts at this field. The loss is InfoNCE or InfoLOOB on the energies of
the slots, -s_n; it is bounded, unlike a loss that only lowers the energy of the right record. Slots are
compared in one modality at a time, so that parts may be missing: a caption learns from other captions of its
record as well as from its image, and a record with one modality contributes, too.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from harmonia.memory import Couplings, Cue, Energy, Slots, descend, entropy
from harmonia.memory.lagrangians import Sphere
from harmonia.objectives import energy_loob, energy_nce, gather, offset
from harmonia.objectives.global_batch import sum_over_ranks, world
from harmonia.training.record_arrays import Batch, Views
from harmonia.types import HarmoniaError

State = dict[str, Tensor]
"""A code (n, d) of unit length for each modality."""
Presence = Mapping[str, Tensor]
"""For each modality, the mask of the slots that have it, bool (N,)."""


class Harmonic(nn.Module):
    """The couplings, the slot bias and the loss of a harmonic network over codes of width ``dim``.

    ``pairs`` are the coupled modalities. For ``within``, ``whole``, ``steps``, ``loob``, ``couplings`` and
    ``bias`` see `AlignmentConfig`. The inverse temperature beta is an argument of the calls.
    """

    def __init__(
        self,
        names: Sequence[str],
        pairs: Sequence[tuple[str, str]],
        dim: int,
        *,
        within: float = 1.0,
        whole: float = 0.0,
        steps: int = 0,
        loob: bool = False,
        couplings: bool = False,
        bias: bool = False,
    ) -> None:
        super().__init__()
        self.names, self.pairs, self.dim = tuple(names), tuple(pairs), dim
        self.within, self.whole, self.steps = within, whole, steps
        self.nce = energy_loob if loob else energy_nce
        self.couplings = nn.ParameterDict()
        if couplings:
            self.couplings.update({_key(a, b): nn.Parameter(torch.eye(dim)) for a, b in self.pairs})
        self.bias = nn.ParameterDict()
        if bias:
            self.bias.update({name: nn.Parameter(torch.zeros(dim)) for name in self.names})

    def forward(self, codes: Batch, beta: Tensor | float) -> Tensor:
        """The loss of a batch of codes; each pair of modalities has the same weight.

        For each modality it is the mean over rounds (the first parts of all records, the second, ...) of the
        mean over the cues of a round. With several processes it is the loss of all their parts together.
        """
        one = next(iter(codes.values()))
        size = _most(size_of(codes), one.record.device)
        terms = []
        for name in self.names:
            view = codes.get(name) or _nothing(self.dim, one)
            rounds = list(_rounds(view.record))
            most = _most(len(rounds), view.record.device)
            for number in range(most):
                rows = rounds[number] if number < len(rounds) else view.record[:0]
                cue = Views(view.inputs[rows], view.record[rows])
                slots, present = self._slots(codes, size, name, cue)
                for compared, weight in self._comparisons(name):
                    loss = self._loss(name, cue, slots, present, compared, offset(size), beta)
                    if loss is not None:
                        terms.append(weight / most * loss)
        if not terms:
            raise HarmoniaError("no record of this batch has two parts: there is nothing to align")
        return torch.stack(terms).sum()

    def settle(
        self, cue: Mapping[str, Tensor], slots: State, present: Presence, beta: Tensor | float, steps: int
    ) -> State:
        """The state after ``steps`` of descent from clamped codes ``cue`` (n, d) in a memory of slots (N, d).

        A missing modality starts at its field. The state has every modality that is in the cue or coupled to
        it.
        """
        fields = {m: self._field(m, cue) for m in self.names if m not in cue}
        known = {m: field for m, field in fields.items() if field is not None}
        state = {m: F.normalize(field, dim=-1) for m, field in known.items()} | dict(cue)
        if not steps:
            return state
        order = list(state)
        some = next(iter(cue.values()))
        patterns, there = [], []
        for m in order:
            patterns.append(
                slots[m] if m in slots else some.new_zeros(len(next(iter(slots.values()))), self.dim)
            )
            there.append(present[m] if m in slots else patterns[-1].new_zeros(len(patterns[-1])).bool())
        energy = Energy(
            (Sphere(),) * len(order),
            Slots(
                tuple(patterns),
                entropy(1.0),
                beta,
                presence=tuple(there),
                bias=self._slot_bias(slots, present),
            ),
            self._couplings([m for m in order if m in known], order, known),
            Cue(tuple(state.values()), [float("inf") if m in cue else 0.0 for m in order]),
        )
        found = descend(energy, tuple(state.values()), steps=steps, tolerance=0.0)
        return dict(zip(order, found.codes, strict=True))

    def scores(self, state: State, slots: State, present: Presence) -> Tensor:
        """Scores s (n, N) of slots in a state; a modality that either lacks is skipped."""
        total = None
        for m in slots:
            if m in state:
                part = (state[m] @ slots[m].mT).masked_fill(~present[m], 0.0)
                total = part if total is None else total + part
        if total is None:
            raise HarmoniaError(
                f"slots of {', '.join(slots)} and a state of {', '.join(state)} have no modality in common"
            )
        bias = self._slot_bias(slots, present)
        return total if bias is None else total + bias

    def _field(self, name: str, cue: Mapping[str, Tensor]) -> Tensor | None:
        """The field of the cue on a modality, sum_c W_mc c; None if it is coupled to no cue."""
        parts = []
        for other, code in cue.items():
            if (name, other) in self.pairs:
                weight = self.couplings[_key(name, other)] if len(self.couplings) else None
                parts.append(code if weight is None else code @ weight.mT)
            elif (other, name) in self.pairs:
                weight = self.couplings[_key(other, name)] if len(self.couplings) else None
                parts.append(code if weight is None else code @ weight)
        return torch.stack(parts).sum(dim=0) if parts else None

    def _couplings(
        self, free: Sequence[str], order: Sequence[str], fields: Mapping[str, Tensor]
    ) -> Couplings:
        """H between the free modalities, and the fields of the clamped ones."""
        eye = next(iter(fields.values())).new_ones(self.dim).diag() if fields else None
        blocks = {}
        for a, b in self.pairs:
            if a in free and b in free and eye is not None:
                block = self.couplings[_key(a, b)] if len(self.couplings) else eye
                blocks[order.index(a), order.index(b)] = block
        return Couplings(blocks, {order.index(m): field for m, field in fields.items()})

    def _slot_bias(self, slots: State, present: Presence) -> Tensor | None:
        if not len(self.bias):
            return None
        parts = [torch.where(present[m], code @ self.bias[m], 0.0) for m, code in slots.items()]
        return torch.stack(parts).sum(dim=0)

    def _comparisons(self, name: str) -> Iterator[tuple[tuple[str, ...], float]]:
        """The modalities of slots that cues of modality ``name`` are compared with, with their weights."""
        others = [b if a == name else a for a, b in self.pairs if name in (a, b)]
        for other in others:
            yield (other,), 0.5 / len(self.pairs)
        if self.within:
            yield (name,), self.within / len(self.pairs)
        if self.whole:
            yield (name, *others), self.whole / len(self.pairs)

    def _slots(self, codes: Batch, size: int, name: str, cue: Views) -> tuple[State, dict[str, Tensor]]:
        """For each modality, the mean (N, d) of the records' parts without the cues, and the mask of
        slots."""
        slots, present = {}, {}
        zero = 0.0 * next(iter(codes.values())).inputs.sum()
        for m in self.names:
            total, count = zero.expand(size, self.dim), cue.inputs.new_zeros(size)
            if m in codes:
                total = total.index_add(0, codes[m].record, codes[m].inputs)
                count = count.index_add(0, codes[m].record, torch.ones_like(codes[m].inputs[:, 0]))
            if m == name:
                total = total.index_add(0, cue.record, -cue.inputs)
                count = count.index_add(0, cue.record, -torch.ones_like(cue.inputs[:, 0]))
            there = count > 0.5
            # the difference of equal sums is not exactly zero, and its direction is meaningless
            slots[m] = gather(F.normalize(torch.where(there[:, None], total, 0.0), dim=-1))
            present[m] = gather(there.to(total.dtype)) > 0.5
        return slots, present

    def _loss(
        self,
        name: str,
        cue: Views,
        slots: State,
        present: Presence,
        compared: Sequence[str],
        start: int,
        beta: Tensor | float,
    ) -> Tensor | None:
        """The loss of cues of modality ``name`` against slots of the modalities ``compared``, if there are
        any."""
        there = torch.stack([present[m] for m in compared]).any(dim=0)
        target = cue.record + start
        valid = there[target].sum()
        everywhere = sum_over_ranks(valid)
        if not everywhere or int(there.sum()) < 2:
            return None
        if not valid:
            return 0.0 * torch.stack([slots[m].sum() for m in compared]).sum()
        kept, has = {m: slots[m] for m in compared}, {m: present[m] for m in compared}
        state = self.settle({name: cue.inputs}, kept, has, beta, self.steps)
        energies = -self.scores(state, kept, has)
        loss = self.nce(energies, target, beta, mask=there.expand(len(cue.record), -1))
        return valid * world() / everywhere * loss


def size_of(codes: Batch) -> int:
    """The number of records of a batch."""
    return 1 + max((int(view.record.max()) for view in codes.values() if len(view.record)), default=-1)


def _key(a: str, b: str) -> str:
    return f"{a}|{b}"


def _nothing(dim: int, like: Views) -> Views:
    return Views(like.inputs.new_zeros(0, dim), like.record[:0])


def _rounds(record: Tensor) -> Iterator[Tensor]:
    """Rows of the first parts of all records, of the second parts, and so on; parts are sorted by record."""
    if not len(record):
        return
    number = torch.arange(len(record), device=record.device)
    start = torch.ones_like(record, dtype=torch.bool)
    start[1:] = record[1:] != record[:-1]
    place = number - torch.where(start, number, 0).cummax(dim=0).values
    for turn in range(int(place.max()) + 1):
        yield (place == turn).nonzero()[:, 0]


def _most(rounds: int, device: torch.device) -> int:
    """The greatest number of rounds of any process: all have to take part in every gather."""
    if world() == 1:
        return rounds
    most = torch.tensor([rounds], device=device)
    torch.distributed.all_reduce(most, op=torch.distributed.ReduceOp.MAX)
    return int(most)
