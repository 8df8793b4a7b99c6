"""The harmonic memory: several modalities, shared slots, cues of any subset.

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
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import NormalDist

import torch
from torch import Tensor

from harmonia.memory.settle import Channel, Field, Settled, queries_of, settle
from harmonia.memory.entropies import entropy
from harmonia.memory.frame import Frame
from harmonia.memory.layout import Layout
from harmonia.memory.scan import scan_top

# How often an unrelated cue may be answered all the same.
FALSE_RECALL = 0.2
# A cue's own modality is the matrix it looks in.
SAME = "same"
# The rank, in a large memory, at which a cue's scores tell what chance gives.
DEEP = 16


@dataclass(frozen=True, slots=True, eq=False)
class Given:
    """Q raw codes ``(Q, d)`` given as cues for the matrix ``key``, with the user's weight and trust.

    ``origin`` is the matrix that holds codes of the cue's own modality: a text code that looks for images
    in a shared space is centred on texts, not on images. None if there is no such matrix.
    """

    key: str
    codes: Tensor
    weight: float = 1.0
    trust: float = math.inf
    origin: str | None = SAME


class HarmonicMemory:
    """Slots shared by all modalities, over raw unit codes.

    ``codes[key]`` is ``(P, d)`` float; a key is one modality in one encoder's space. ``layout`` says which
    rows make up which record; without it row n of every matrix belongs to record n.

    ``frames`` and ``population`` serve a memory that holds only candidates out of many more records: the
    frames of a fair sample, and how many records there are in all.
    """

    def __init__(
        self,
        codes: Mapping[str, Tensor],
        layout: Layout | None = None,
        *,
        centre: bool = True,
        frames: Mapping[str, Frame] | None = None,
        population: int | None = None,
    ) -> None:
        if not codes:
            raise ValueError("a memory needs at least one matrix of codes")
        self.layout = layout or Layout.aligned(
            {key: torch.ones(c.shape[0], dtype=torch.bool) for key, c in codes.items()}
        )
        fitted = frames or {}
        self.frames = {k: fitted.get(k) or Frame.fit(c, centre=centre) for k, c in codes.items()}
        self.population = population
        self.matrices = {key: self.frames[key].enter(c) for key, c in codes.items()}
        self._views: dict[tuple[str, ...], Layout] = {}

    @property
    def slots(self) -> int:
        """How many records are held."""
        return self.layout.slots

    def beta(self, slots: int) -> float:
        """The critical inverse temperature for this many slots, in units of chance."""
        return math.sqrt(2.0 * math.log(max(slots, 2)))

    def recall(
        self,
        cues: Sequence[Given],
        *,
        k: int = 10,
        steps: int = 8,
        alpha: float = 1.0,
        beta: float | None = None,
        allowed: Tensor | None = None,
        tail_tolerance: float = 1e-6,
    ) -> Settled:
        """Settle Q cues, bound together; ``allowed`` (slots,) bool restricts the records.

        ``alpha`` chooses the slot distribution: 1 softmax, greater alpha-entmax. ``beta`` is in units of
        chance. The settled codes come back raw, as the encoders would have made them.
        """
        if not cues:
            raise ValueError("recall needs at least one cue")
        view = self._view(tuple(sorted({cue.key for cue in cues})))
        seen = len(view.visible) if allowed is None else int(allowed[view.visible].sum())
        beta = beta or self.beta(self.population or seen)
        channels = self._channels(cues, beta)
        rows, dtype = channels[0].cue.shape[0], channels[0].cue.dtype
        temperature = torch.full((rows,), beta, dtype=dtype)
        mask = None
        if allowed is not None:
            mask = torch.zeros(self.slots, dtype=dtype).masked_fill_(~allowed, -math.inf)
        k = min(max(k, DEEP), self.slots)
        queries = queries_of(self.matrices, channels, [channel.cue for channel in channels])
        found = scan_top(view, queries, k, temperature, mask)
        field = Field(
            layout=self.layout, view=view, matrices=self.matrices, beta=temperature,
            entropy=entropy(alpha), null=self._null(found.scores, seen), mask=mask, k=k,
            tail_tolerance=tail_tolerance,
        )  # fmt: skip
        settled = settle(field, channels, steps=steps, found=found)
        for key, code in settled.codes.items():
            present = code.abs().sum(dim=-1, keepdim=True) > 0
            settled.codes[key] = torch.where(present, self.frames[key].leave(code), 0.0)
        return settled

    def _channels(self, cues: Sequence[Given], beta: float) -> list[Channel]:
        total = math.sqrt(sum(cue.weight**2 for cue in cues)) or 1.0
        channels = []
        for cue in cues:
            frame = self.frames[cue.key]
            codes = cue.codes.to(frame.mean.dtype)
            if cue.origin is None:
                code = torch.nn.functional.normalize(codes, dim=-1)
            else:
                code = self.frames[cue.key if cue.origin == SAME else cue.origin].enter_cue(codes)
            share = cue.weight / total
            weight = share / frame.spread(code)
            # A record without the modality scores what a record drawn at random would on log-average.
            absent = torch.full_like(weight, 0.5 * beta * share**2 if share > 0 else 0.0)
            trust = torch.full_like(weight, cue.trust)
            channels.append(Channel(cue.key, code, weight, trust, absent))
        return channels

    def _view(self, keys: tuple[str, ...]) -> Layout:
        if keys not in self._views:
            self._views[keys] = self.layout.view(keys)
        return self._views[keys]

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
