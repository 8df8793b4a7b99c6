"""The harmonic memory: records of several modalities, retrieved from cues of any subset of them.

Scores are in units of chance. A cue c meets the stored codes with cosines whose root mean square is
sigma_c (read off the second moment of what is held), and its weight is

    w_c = u_c / (sigma_c |u|)        u_c: how far the user lets the cue count

so that a record unrelated to the cues scores as a standard normal variable, whatever the encoders, and
cues of different modalities can be added. Among N unrelated records the best then scores about
sqrt(2 ln N), and with

    beta = sqrt(2 ln N)

the softmax gives a record half of the probability exactly when it rises above that: chance and evidence
are in balance (the random energy model at its critical temperature, Derrida 1981; Lucibello and Mezard
2024 for dense associative memories). A null slot with the score that chance rarely exceeds takes the
probability that nothing matches.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from statistics import NormalDist
from types import MappingProxyType

import torch
import torch.distributed as dist
from torch import Tensor

from harmonia.memory import updates
from harmonia.memory.capacity import best_beta, cosine_of_noise
from harmonia.memory.entropies import entropy
from harmonia.memory.matrix import Centering, Matrix, Precision
from harmonia.memory.record_layout import Layout
from harmonia.memory.settle import Channel, Field, Settled, queries_of, settle
from harmonia.memory.shards import Shards

# The rate at which an unrelated cue is answered all the same (false alarms).
FALSE_RECALL = 0.2
# The cue is a code of the modality that it is compared with.
SAME = "same"
# The greatest cosine assumed between a cue and its record: at 1 the best beta is infinite.
MOST_CERTAIN = 0.995
# The rank, in a large memory, at which a cue's scores are compared with those of chance.
DEEP = 16


@dataclass(frozen=True, slots=True, eq=False)
class Given:
    """Q raw codes ``(Q, d)`` as cues for the matrix ``key``, with a relative weight and a trust (kappa).

    An infinite ``trust`` clamps the cue; with a finite one retrieval may move away from it.

    ``name`` is what explanations call the cue.
    ``origin`` is the matrix that holds codes of the cue's own modality: a text code that looks for images
    in a shared space is centred on texts, not on images. None if there is no such matrix.
    """

    key: str
    codes: Tensor
    weight: float = 1.0
    trust: float = math.inf
    origin: str | None = SAME
    name: str = ""


@dataclass(frozen=True, slots=True, eq=False)
class Scored:
    """A cue that was compared elsewhere, by a word index for example: ``scores`` (Q, slots), and a weight.

    The scores are in units of chance, NaN for a record that has nothing to be compared. They act as an
    external field: retrieval does not move them. ``name`` is what explanations call the cue; ``overlap`` is
    how far the scores correlate, over unrelated records, with those of the :class:`Given` of the same name.
    """

    scores: Tensor
    weight: float = 1.0
    name: str = ""
    overlap: float = 0.0


class HarmonicMemory:
    """An associative memory of records whose modalities are retrieved jointly, over raw unit codes.

    ``codes[key]`` is ``(P, d)``; a key is one modality in one encoder's space. ``layout`` says which rows
    make up which record; without it row n of every matrix belongs to record n.

    ``centre`` says which codes have their mean subtracted: all (True), none (False), or those of the keys
    given. Do not centre codes in which a zero means that nothing was seen (see :class:`Centering`).
    ``precision`` and ``device`` say how and where codes are held (see :class:`Matrix`); codes may be
    memory-mapped. ``frames`` (the centring of a fair sample) and ``population`` (the number of all records)
    serve a memory that holds only the candidates of a search. With a process ``group`` each rank gives its
    own records, and every recall is a collective call (see :class:`Shards`).

    Learned parameters (see ``learning``) that every recall uses: ``trusts[key]``, the weight of a cue for
    this matrix; ``couplings[(to, of)]`` (d_to, d_of), linear maps between modalities; ``bias`` (slots,), in
    units of chance. Statistics (see ``consolidation``): ``count`` (slots,), how many records a slot stands
    for; ``used`` (slots,), how often it came first; ``born`` (slots,), when it was inserted.

    Raises ValueError without any codes, or for int8 codes on a device other than the CPU.
    """

    def __init__(
        self,
        codes: Mapping[str, Tensor],
        layout: Layout | None = None,
        *,
        centre: bool | Collection[str] = True,
        frames: Mapping[str, Centering] | None = None,
        population: int | None = None,
        precision: Precision = "float32",
        device: str | torch.device = "cpu",
        group: dist.ProcessGroup | None = None,
    ) -> None:
        if not codes:
            raise ValueError("a memory needs at least one matrix of codes")
        self.device = torch.device(device)
        if layout is None:
            layout = Layout.aligned({key: torch.ones(len(c), dtype=torch.bool) for key, c in codes.items()})
        self.layout = layout.to(self.device)
        self.shards: Shards | None = None
        if group is not None:
            lengths = {"": len(layout.slot), **{key: len(c) for key, c in codes.items()}}
            self.shards = Shards(group, layout.slots, lengths)
        if precision == "int8" and self.device.type != "cpu":
            raise ValueError(f"int8 codes are scanned on the CPU (got device {self.device}): use float16")
        self.precision, self.fixed = precision, frames is not None
        self.centre, self.population = centre, population
        given = frames or {}
        # In the order of names: with shards, fitting is a collective call.
        self.frames = {k: given.get(k) or self._fit(k, codes[k]) for k in sorted(codes)}
        if self.device.type != "cpu":
            self.frames = {k: frame.to(self.device) for k, frame in self.frames.items()}
        self.matrices = {k: Matrix(c, self.frames[k], precision) for k, c in codes.items()}
        self.trusts: dict[str, float] = {}
        self.couplings: dict[tuple[str, str], Tensor] = {}
        dtype = next(iter(self.frames.values())).mean.dtype
        self.bias = torch.zeros(self.slots, dtype=dtype, device=self.device)
        self.count = torch.ones_like(self.bias)
        self.used = torch.zeros_like(self.bias)
        self.born = torch.zeros(self.slots, dtype=torch.long, device=self.device)
        self.alive = torch.ones(self.slots, dtype=torch.bool, device=self.device)
        self.drift = 0
        self._views: dict[tuple[str, ...], Layout] = {}

    @property
    def slots(self) -> int:
        """How many records are held, the deleted ones included (of this rank, if sharded)."""
        return self.layout.slots

    @property
    def held(self) -> int:
        """How many records are held and not deleted, on all ranks."""
        alive = int(self.alive.sum())
        return alive if self.shards is None else int(self.shards.sum(torch.tensor([alive])))

    def is_centred(self, key: str) -> bool:
        """Whether the mean is subtracted from the codes of the matrix ``key``."""
        return self.centre if isinstance(self.centre, bool) else key in self.centre

    def beta(self, slots: int) -> float:
        """The critical inverse temperature for this many slots, in units of chance."""
        return math.sqrt(2.0 * math.log(max(slots, 2)))

    def recall(
        self,
        cues: Sequence[Given],
        *,
        scored: Sequence[Scored] = (),
        k: int = 10,
        steps: int = 8,
        alpha: float = 1.0,
        beta: float | None = None,
        noise: float | None = None,
        free: Mapping[str, float] | None = None,
        allowed: Tensor | None = None,
        tail_tolerance: float = 1e-6,
    ) -> Settled:
        """Retrieve with Q cues, all modalities jointly; at least the ``k`` best slots are returned.

        ``steps`` bounds the number of updates; clamped cues (infinite trust) take none. ``alpha`` chooses the
        distribution over slots: 1 is softmax, greater is alpha-entmax. ``beta`` is the inverse temperature in
        units of chance; by default the critical one, or the best one for cues with additive noise of
        variance ``noise`` per number (on codes scaled by sqrt d). ``free`` gives weights to modalities that
        have no cue but are updated as well, starting at zero. ``scored`` are cues that were compared
        elsewhere, on this rank's records if sharded; they add to the scores of the ``cues``, of which there
        is at least one. ``allowed`` (slots,) bool restricts the records. Slots are left out of the readout
        only if their probability is below ``tail_tolerance``.

        The recalled codes are raw, in the encoders' own spaces. Raises ValueError without a cue.
        """
        if not cues:
            raise ValueError("recall needs at least one cue")
        view = self.view(tuple(sorted({cue.key for cue in cues} | set(free or {}))))
        able = self._able(allowed)
        seen = len(view.visible) if able is None else int(able[view.visible].sum())
        seen = seen if self.shards is None else int(self.shards.sum(torch.tensor([seen])))
        if beta is None:
            critical = self.beta(self.population or seen)
            beta = critical if noise is None else self.beta_of_noise(cues, noise)
        channels = self.channels(cues, free or {}, beta, scored)
        temperature = torch.full_like(channels[0].weight, beta)
        field = Field(
            layout=self.layout, view=view, matrices=self.matrices, beta=temperature,
            entropy=entropy(alpha), null=temperature,
            mask=self._mask(able, beta, self.external_fields(cues, scored, free or {}, beta)),
            k=min(max(k, DEEP), self.shards.total if self.shards else self.slots),
            tail_tolerance=tail_tolerance, couplings=self.couplings, shards=self.shards,
        )  # fmt: skip
        found = field.scan(queries_of(self.matrices, channels, [c.cue for c in channels]), field.k)
        level = sum(
            (self.frames[c.key].level(c.cue) * c.weight for c in channels), torch.zeros_like(temperature)
        )
        field = replace(field, null=self._null(found.scores - level[:, None], seen) + level)
        settled = settle(field, channels, steps=steps, found=found)
        for key, code in settled.codes.items():
            present = code.abs().sum(dim=-1, keepdim=True) > 0
            settled.codes[key] = torch.where(present, self.frames[key].inverse_transform(code), 0.0)
        self._count_use(settled)
        return settled

    def insert(self, codes: Mapping[str, Tensor], present: Mapping[str, Tensor] | None = None) -> Tensor:
        """Add records while running (see :func:`harmonia.memory.updates.insert`); returns their slots."""
        return updates.insert(self, codes, present)

    def delete(self, slots: Tensor) -> None:
        """Delete these slots: no recall returns them."""
        updates.delete(self, slots)

    def update(self, slot: int, codes: Mapping[str, Tensor]) -> None:
        """Replace a record's codes of some modalities."""
        updates.update(self, slot, codes)

    def clear_views(self) -> None:
        """Drop the cached views of the layout; call it after the layout has changed."""
        self._views.clear()

    def chance(self, key: str, codes: Tensor | None = None) -> Tensor:
        """Root mean square cosine that chance gives: of centred ``codes`` (Q, d), or of what is held."""
        frame = self.frames[key]
        return frame.spread(codes) if codes is not None else frame.chance()[None]

    def _able(self, allowed: Tensor | None) -> Tensor | None:
        """Which slots may be recalled (slots,) bool; None for all."""
        if allowed is not None:
            return self.alive & allowed.to(self.device)
        return None if bool(self.alive.all()) else self.alive

    def _mask(self, able: Tensor | None, beta: float, fields: Sequence[Tensor]) -> Tensor | None:
        """The addend of the scores (slots,), or (slots, Q) with external fields (Q, slots): bias, log count,
        the fields, -inf for excluded slots; None if it is zero.
        """
        if able is None and not fields and not bool(self.bias.any()) and bool((self.count == 1).all()):
            return None
        mask = self.bias + self.count.log() / beta
        if fields:
            mask, able = (
                mask[:, None] + torch.stack(tuple(fields)).sum(dim=0).T,
                None if able is None else able[:, None],
            )
        return mask if able is None else mask.masked_fill(~able, -math.inf)

    def external_fields(
        self,
        cues: Sequence[Given],
        scored: Sequence[Scored],
        free: Mapping[str, float] = MappingProxyType({}),
        beta: float = 0.0,
    ) -> list[Tensor]:
        """What each cue that was ``scored`` elsewhere adds to the slots' scores, (Q, slots)."""
        total = self._norm(cues, scored, free)
        shares = [one.weight / total for one in scored]
        absent = [0.5 * beta * share**2 if share > 0 else 0.0 for share in shares]
        return [
            (one.scores.to(self.bias) * share).nan_to_num(nan=none)
            for one, share, none in zip(scored, shares, absent, strict=True)
        ]

    def _norm(self, cues: Sequence[Given], scored: Sequence[Scored], free: Mapping[str, float]) -> float:
        """The standard deviation of the weighted sum of all scores, each in units of chance."""
        own = [(cue.name, cue.weight * self.trusts.get(cue.key, 1.0)) for cue in cues]
        square = sum(w**2 for w in (*(w for _, w in own), *(one.weight for one in scored), *free.values()))
        square += sum(2 * s.overlap * s.weight * w for s in scored for name, w in own if name == s.name)
        return math.sqrt(square) or 1.0

    def _fit(self, key: str, codes: Tensor) -> Centering:
        codes = codes.to(self.device) if self.precision != "int8" else codes
        if self.shards is not None:
            return self.shards.frame(codes, centre=self.is_centred(key))
        return Centering.fit(codes, centre=self.is_centred(key))

    def beta_of_noise(self, cues: Sequence[Given], noise: float) -> float:
        """The best beta of each cue by the capacity formula, taken along the weights of the cues."""
        weights = [cue.weight * self.trusts.get(cue.key, 1.0) for cue in cues]
        total = math.sqrt(sum(w**2 for w in weights)) or 1.0
        beta = 0.0
        for cue, weight in zip(cues, weights, strict=True):
            chance = float(self.chance(cue.key))
            best = best_beta(1.0 / chance**2, min(cosine_of_noise(noise), MOST_CERTAIN))
            beta += abs(weight) / total * best * chance
        return beta

    def channels(
        self,
        cues: Sequence[Given],
        free: Mapping[str, float] = MappingProxyType({}),
        beta: float = 0.0,
        scored: Sequence[Scored] = (),
    ) -> list[Channel]:
        """The cues and the ``free`` modalities, in units of chance; absent parts score by ``beta``."""
        weights = [cue.weight * self.trusts.get(cue.key, 1.0) for cue in cues]
        total = self._norm(cues, scored, free)
        channels = []
        for cue, own in zip(cues, weights, strict=True):
            frame = self.frames[cue.key]
            codes = cue.codes.to(frame.mean)
            if cue.origin is None:
                code = torch.nn.functional.normalize(codes, dim=-1)
            else:
                code = self.frames[cue.key if cue.origin == SAME else cue.origin].transform_cue(codes)
            share = own / total
            weight = share / frame.spread(code)
            # A record without the modality scores what a record drawn at random would on log-average.
            absent = frame.level(code) * weight + (0.5 * beta * share**2 if share > 0 else 0.0)
            trust = torch.full_like(weight, cue.trust)
            channels.append(Channel(cue.key, code, weight, trust, absent))
        one = channels[0].weight
        for key, own in free.items():
            width = self.matrices[key].shape[1]
            weight = (own / total / self.chance(key)).expand_as(one)
            none = torch.zeros_like(one)
            channels.append(Channel(key, one.new_zeros(len(one), width), weight, none, none))
        return channels

    def view(self, keys: tuple[str, ...]) -> Layout:
        """The layout as seen by some of the matrices."""
        if keys not in self._views:
            self._views[keys] = self.layout.view(keys)
        return self._views[keys]

    def _count_use(self, settled: Settled) -> None:
        best = settled.slots[:, 0]
        best = best if self.shards is None else self.shards.own(best)
        best = best[(best >= 0) & (settled.p[:, 0] > settled.nothing)]
        self.used.index_add_(0, best, torch.ones_like(best, dtype=self.used.dtype))

    def _null(self, scores: Tensor, seen: int) -> Tensor:
        """The score ``(Q,)`` that the best of the records exceeds in one of five unrelated recalls.

        ``scores`` (Q, k) are the best of ``seen`` records. A normal tail, widened by how heavy the upper
        tail of the cue's own scores is. That is read below the very best, so that the records that do
        match hardly move it, and not at all where the records were picked for being near.
        """
        normal = _normal_quantile(1.0 - FALSE_RECALL / max(2, self.population or seen))
        rank = max(2, min(DEEP, seen // 10))
        if self.population is not None or seen < 2 * rank or rank > scores.shape[1]:
            return torch.full_like(scores[:, 0], normal)
        level = scores[:, rank - 1] / _normal_quantile(1.0 - (rank - 0.5) / seen)
        return level.clamp(min=1.0) * normal


def _normal_quantile(level: float) -> float:
    return NormalDist().inv_cdf(level)
