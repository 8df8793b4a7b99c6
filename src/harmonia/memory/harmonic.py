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

import numpy as np
import torch
from torch import Tensor

from harmonia.memory.descent import Channel, Field, Settled, settle
from harmonia.memory.entropies import entropy
from harmonia.memory.frame import Frame
from harmonia.memory.layout import Layout
from harmonia.memory.scan import Query, scan_blocks

# How often an unrelated cue may be answered all the same.
FALSE_RECALL = 0.2
# A cue's own modality is the matrix it looks in.
SAME = "same"
# Moments that are looked at to learn what chance gives.
SAMPLE = 8192


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
        visible = np.unique(view.slot.numpy())
        seen = len(visible) if allowed is None else int(allowed[visible].sum())
        beta = beta or self.beta(self.population or seen)
        channels = self._channels(cues, beta)
        rows, dtype = channels[0].cue.shape[0], channels[0].cue.dtype
        temperature = torch.full((rows,), beta, dtype=dtype)
        mask = None
        if allowed is not None:
            mask = torch.zeros(self.slots, dtype=dtype).masked_fill_(~allowed, -math.inf)
        field = Field(
            layout=self.layout, view=view, matrices=self.matrices,
            beta=temperature, entropy=entropy(alpha),
            null=self._null(view, channels, temperature, mask),
            mask=mask, k=min(max(k, 16), self.slots), tail_tolerance=tail_tolerance,
        )  # fmt: skip
        settled = settle(field, channels, steps=steps)
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

    def _null(self, view: Layout, channels: Sequence[Channel], beta: Tensor, mask: Tensor | None) -> Tensor:
        """The score ``(Q,)`` that the best of the records exceeds in one of five unrelated recalls.

        A normal tail, widened by how heavy the upper tail of the cue's own scores is. A quantile is
        read, not the maximum, so that the records that do match hardly move it.
        """
        if self.population is not None:
            # Candidates were picked for being near: their scores say nothing of chance.
            return torch.full_like(beta, _normal_quantile(1.0 - FALSE_RECALL / max(2, self.population)))
        moments = view.slot.shape[0]
        some = torch.arange(0, moments, max(1, -(-moments // SAMPLE)))
        sample = Layout(view.slots, view.slot[some], {k: part[some] for k, part in view.parts.items()})
        queries = [Query(c.key, self.matrices[c.key], c.cue * c.weight[:, None], c.absent) for c in channels]
        scores = torch.cat([block.scores for block in scan_blocks(sample, queries, mask)], dim=-1)
        seen = int(scores[0].isfinite().sum())
        total = max(2, round(seen * moments / max(len(some), 1)))
        # Leave out a few that may be right, but stay in the upper tail.
        rank = max(2, min(16, seen // 10))
        if seen < 2 * rank:
            return torch.full_like(beta, _normal_quantile(1.0 - FALSE_RECALL / total))
        level = scores.topk(rank, dim=-1).values[:, -1] / _normal_quantile(1.0 - (rank - 0.5) / seen)
        return level.clamp(min=1.0) * _normal_quantile(1.0 - FALSE_RECALL / total)


def _normal_quantile(level: float) -> float:
    return NormalDist().inv_cdf(level)
