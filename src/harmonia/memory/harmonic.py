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
2024 for dense associative memories).

A matrix with a model of likelihoods for a cue (see ``likelihood``) is scored by log-likelihood ratios
instead. They need no scale, being logarithms of odds, and those of several cues add.

Whether anything matches at all is another question, with an answer of its own (see ``match_test``): a memory
may hold many records that match, and the best of records that do not match is best all the same.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from types import MappingProxyType

import torch
from torch import Tensor

from harmonia.memory.capacity import best_beta, cosine_of_noise
from harmonia.memory.entropies import entropy
from harmonia.memory.likelihood import LikelihoodRatio, RatioFrame
from harmonia.memory.match_test import FALSE_RECALL, match_values
from harmonia.memory.record_layout import Layout
from harmonia.memory.settle import Channel, Field, Settled, settle
from harmonia.memory.storage import Storage, on_one_value

# The cue is a code of the modality that it is compared with.
SAME = "same"
# The greatest cosine assumed between a cue and its record: at 1 the best beta is infinite.
MOST_CERTAIN = 0.995
# At least so many of the best records are kept, and compared with each cue by itself.
DEEP = 16


@dataclass(frozen=True, slots=True, eq=False)
class Given:
    """Q raw codes ``(Q, d)`` as cues for the matrix ``key``, with a relative weight and a trust (kappa).

    An infinite ``trust`` clamps the cue; with a finite one retrieval may move away from it.

    ``name`` is what explanations call the cue; codes of one name are views of one cue. ``kind`` says what
    sort of cue it is, for memories that know how unrelated cues of the sort score (``null_scores``).
    ``without`` is a matrix of which a record must have no code, for codes that cross to another modality only
    where there is nothing of their own.
    ``origin`` is the matrix that holds codes of the cue's own modality: a text code that looks for images
    in a shared space is centred on texts, not on images. None if there is no such matrix.
    """

    key: str
    codes: Tensor
    weight: float = 1.0
    trust: float = math.inf
    origin: str | None = SAME
    name: str = ""
    kind: str = ""
    without: str = ""


@dataclass(frozen=True, slots=True, eq=False)
class Scored:
    """A cue that was compared elsewhere, by a word index for example: ``scores`` (Q, slots), and a weight.

    The scores are in units of chance, NaN for a record that has nothing to be compared. They act as an
    external field: retrieval does not move them. ``name`` is what explanations call the cue; ``overlap`` is
    how far the scores correlate, over unrelated records, with those of the :class:`Given` of the same name.
    With ``nats`` the weighted scores are logarithms of odds.
    """

    scores: Tensor
    weight: float = 1.0
    name: str = ""
    overlap: float = 0.0
    nats: bool = False


class HarmonicMemory(Storage):
    """An associative memory of records whose modalities are retrieved jointly, over raw unit codes.

    ``codes[key]`` is ``(P, d)``; a key is one modality in one encoder's space. ``layout`` says which rows
    make up which record; without it row n of every matrix belongs to record n.

    ``centre`` says which codes have their mean subtracted: all (True), none (False), or those of the keys
    given. Do not centre codes in which a zero means that nothing was seen (see :class:`Centering`).
    ``precision`` and ``device`` say how and where codes are held (see :class:`Matrix`); codes may be
    memory-mapped. ``frames`` (the centring of a fair sample) and ``population`` (the number of all records)
    serve a memory that holds only the candidates of a search. With a process ``group`` each rank gives its
    own records, and every recall is a collective call (see :class:`Shards`).

    What is stored is one value, ``records`` (see :class:`~.records.Records`), with learned parameters that
    every recall uses (see ``learning``; ``trusts``, ``couplings``, ``bias``) and statistics (see
    ``consolidation``; ``count``, ``used``, ``born``, ``alive``). An edit swaps in the next value, so recalls
    in other threads see all of it or nothing.

    Raises ValueError without any codes, for codes that are not finite numbers (P, d), or for int8 codes on a
    device other than the CPU.
    """

    def beta(self, slots: int) -> float:
        """The critical inverse temperature for this many slots, in units of chance."""
        return math.sqrt(2.0 * math.log(max(slots, 2)))

    @on_one_value
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

        The recalled codes are raw, in the encoders' own spaces. A cue of zeros says nothing: with a finite
        trust its modality counts as missing. Raises ValueError without a cue, for cues that are not finite
        numbers (Q, d) of the matrix they are for, and for options out of their range.
        """
        self._check(cues, scored, free or {}, allowed)
        check_options(k=k, steps=steps, alpha=alpha, beta=beta, noise=noise, tail_tolerance=tail_tolerance)
        real = frozenset(self.matrices)
        cues = [self._crossing(cue) for cue in cues]
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
            entropy=entropy(alpha),
            mask=self._mask(able, beta, self.external_fields(cues, scored, free or {}, beta)),
            k=min(max(k, DEEP), self.shards.total if self.shards else self.slots),
            tail_tolerance=tail_tolerance, couplings=self.couplings, shards=self.shards,
            reads=tuple(key for key in self.matrices if key in real),
        )  # fmt: skip
        settled = settle(field, channels, steps=steps)
        levels = [self._level(channel) for channel in channels]
        match = match_values(self, cues, scored, settled.slots, self.population or seen)
        settled = replace(
            settled,
            scores=settled.scores + torch.stack(levels).sum(dim=0)[:, None],
            adds=tuple(adds + level[:, None] for adds, level in zip(settled.adds, levels, strict=True)),
            match=match,
            nothing=match.amin(dim=-1),
        )
        for key, code in settled.codes.items():
            present = code.abs().sum(dim=-1, keepdim=True) > 0
            settled.codes[key] = torch.where(present, self.frames[key].inverse_transform(code), 0.0)
        self._count_use(settled)
        return settled

    def chance(self, key: str, codes: Tensor | None = None) -> Tensor:
        """Root mean square cosine that chance gives: of centred ``codes`` (Q, d), or of what is held."""
        frame = self.frames[key]
        return frame.spread(codes) if codes is not None else frame.chance()[None]

    def _check(
        self,
        cues: Sequence[Given],
        scored: Sequence[Scored],
        free: Mapping[str, float],
        allowed: Tensor | None,
    ) -> None:
        """ValueError for the first thing with which nothing can be recalled."""
        if not cues:
            raise ValueError("recall needs at least one cue")
        rows = len(cues[0].codes)
        for cue in cues:
            self.records.matrix(cue.key)
            # Codes of another kind are compared by a model of likelihoods.
            own = cue.key if self.model_of(cue) is None else _origin(cue)
            if len(self.records.checked(own, cue.codes)) != rows or not rows:
                raise ValueError(f"cues need the same number of rows, at least one (got {len(cue.codes)})")
            if cue.origin is not None and cue.origin != SAME:
                self.records.matrix(cue.origin)
            if not math.isfinite(cue.weight) or not cue.trust >= 0:
                raise ValueError(
                    f"a cue needs a finite weight and a trust of 0 or more (got {cue.weight}, {cue.trust})"
                )
        for key, weight in free.items():
            self.records.matrix(key)
            if not math.isfinite(weight):
                raise ValueError(f"the weight of {key} must be finite (got {weight})")
        for one in scored:
            shape = (rows, self.slots)
            if (
                one.scores.shape != shape
                or bool((one.scores == math.inf).any())
                or not math.isfinite(one.weight)
            ):
                raise ValueError(f"scores must be {shape}, below infinity, with a finite weight")
        if allowed is not None and allowed.shape != (self.slots,):
            raise ValueError(f"allowed needs one bool per slot ({self.slots}, got {tuple(allowed.shape)})")
        for key in {cue.key for cue in cues}:
            # Of ranks, one may have none.
            if self.shards is None and not bool((self.layout.parts[key] >= 0).any()):
                raise ValueError(f"no record has a part in {key!r}: ask for another modality")

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
        shares = [one.weight / (beta or 1.0) if one.nats else one.weight / total for one in scored]
        absent = [
            0.5 * beta * share**2 if share > 0 and not one.nats else 0.0
            for one, share in zip(scored, shares, strict=True)
        ]
        return [
            (one.scores.to(self.bias) * share).nan_to_num(nan=none)
            for one, share, none in zip(scored, shares, absent, strict=True)
        ]

    def _norm(self, cues: Sequence[Given], scored: Sequence[Scored], free: Mapping[str, float]) -> float:
        """The standard deviation of the weighted sum of the scores that are in units of chance."""
        own = [
            (cue.name, cue.weight * self.trusts.get(cue.key, 1.0))
            for cue in cues
            if self.model_of(cue) is None
        ]
        scored = [one for one in scored if not one.nats]
        square = sum(w**2 for w in (*(w for _, w in own), *(one.weight for one in scored), *free.values()))
        square += sum(2 * s.overlap * s.weight * w for s in scored for name, w in own if name == s.name)
        return math.sqrt(square) or 1.0

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
        total = self._norm(cues, scored, free)
        channels = []
        for cue in cues:
            frame, code, model = self.frames[cue.key], self.code_of(cue), self.model_of(cue)
            blank = (code * code).sum(dim=-1) < 0.5
            if model is not None:
                # In nats; of a record without the modality nothing is known, and the ratio is 1.
                weight = torch.full_like(code[:, 0], cue.weight * model.scale / (beta or 1.0))
                absent = -model.level(code) * weight
            else:
                share = cue.weight * self.trusts.get(cue.key, 1.0) / total
                weight = share / torch.where(blank, frame.chance(), frame.spread(code))
                # A record without the modality scores what a record drawn at random would on log-average.
                absent = frame.level(code) * weight + (0.5 * beta * share**2 if share > 0 else 0.0)
            # A cue of zeros is none: there is nothing to hold on to, and the modality is missing.
            trust = torch.full_like(weight, cue.trust)
            trust = torch.where(blank & trust.isfinite(), 0.0, trust)
            channels.append(Channel(cue.key, code, weight, trust, absent, _origin(cue)))
        one = channels[0].weight
        for key, own in free.items():
            width = len(self.frames[key].mean)
            weight = (own / total / self.chance(key)).expand_as(one)
            none = torch.zeros_like(one)
            channels.append(Channel(key, one.new_zeros(len(one), width), weight, none, none))
        return channels

    def code_of(self, cue: Given) -> Tensor:
        """The centred unit code (Q, d) of a cue."""
        origin = _origin(cue)
        frame = self.frames[origin] if origin in self.frames else self.frames[cue.key]
        codes = cue.codes.to(frame.mean)
        code = (
            torch.nn.functional.normalize(codes, dim=-1) if cue.origin is None else frame.transform_cue(codes)
        )
        # What is far smaller than a unit comes out shorter than one; what is next to nothing is zero.
        length = code.norm(dim=-1, keepdim=True)
        return torch.where(length < 1e-6, 0.0, code / length.clamp(min=1e-6))

    def model_of(self, cue: Given) -> LikelihoodRatio | None:
        """The model of likelihoods of a cue and the codes that it asks; None where they are compared by
        cosine.
        """
        frame = self.frames[cue.key]
        return frame.ratios.get(_origin(cue)) if isinstance(frame, RatioFrame) else None

    def similarity(self, cue: Given, rows: Tensor, state: Tensor) -> Tensor:
        """The cosines (k,) of a state (d,) of a cue with rows (k,) of its matrix.

        Codes of different kinds are compared in their canonical directions, each as far as it counts.
        """
        stored = self.frames[cue.key].centred(self.matrices[cue.key][rows])
        model = self.model_of(cue)
        if model is None or _origin(cue) == cue.key:
            return stored @ state
        size = model.gain.sqrt()
        seen = ((state - model.cue_mean) @ model.cue_basis) * size
        held = ((stored - model.mean) @ model.basis) * size
        return torch.nn.functional.normalize(held, dim=-1) @ torch.nn.functional.normalize(seen, dim=-1)

    def _level(self, channel: Channel) -> Tensor:
        """What the cue of a channel adds to every log-likelihood ratio, (Q,)."""
        frame = self.frames[channel.key]
        model = frame.ratios.get(channel.origin) if isinstance(frame, RatioFrame) else None
        return (
            torch.zeros_like(channel.weight) if model is None else model.level(channel.cue) * channel.weight
        )

    def _crossing(self, cue: Given) -> Given:
        """The cue, asking only records without codes of its own modality; the memory, a snapshot, gains a
        view.
        """
        if not cue.without:
            return cue
        key = f"{cue.key}, without {cue.without}"
        if key not in self.matrices:
            records = self.records
            part, own = (records.layout.parts[name] for name in (cue.key, cue.without))
            parts = {**records.layout.parts, key: torch.where(own >= 0, -1, part)}
            self.records = replace(
                records,
                layout=Layout(records.layout.slots, records.layout.slot, parts),
                matrices={**records.matrices, key: records.matrices[cue.key]},
                frames={**records.frames, key: records.frames[cue.key]},
            )
        return replace(cue, key=key, origin=_origin(cue) or None)

    def _count_use(self, settled: Settled) -> None:
        best = settled.slots[:, 0]
        best = best if self.shards is None else self.shards.own(best)
        best = best[(best >= 0) & (settled.nothing <= FALSE_RECALL)]
        self.count_use(best)


def check_options(
    *, k: int, steps: int, alpha: float, beta: float | None, noise: float | None, tail_tolerance: float
) -> None:
    """ValueError for an option of a recall that is out of its range."""
    if k < 1 or steps < 0:
        raise ValueError(f"k must be at least 1 and steps at least 0 (got {k} and {steps})")
    if not 1.0 <= alpha < math.inf:
        raise ValueError(f"alpha must be at least 1 and finite (got {alpha})")
    if beta is not None and not 0.0 < beta < math.inf:
        raise ValueError(f"beta must be positive and finite (got {beta})")
    if noise is not None and not 0.0 <= noise < math.inf:
        raise ValueError(f"noise must be at least 0 and finite (got {noise})")
    if not tail_tolerance >= 0.0:
        raise ValueError(f"tail_tolerance must be at least 0 (got {tail_tolerance})")


def _origin(cue: Given) -> str:
    """The matrix that holds codes of the cue's own kind; empty where there is none."""
    return cue.key if cue.origin == SAME else cue.origin or ""
