"""Models of likelihoods, fitted by a memory to what it holds: nothing has to be labelled.

Cues whose record is known are made from the records themselves: their other parts (captions of a photo),
damaged copies of their files, and words of their texts. They say how far a cue lies from the code of its
record, how texts and images of one record go together, how sure a score is, and, with their records hidden,
how cues score that match nothing. Every number is scored on records that the model has not seen: the records
are split in two halves, and each half is scored by the model of the other.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from harmonia.collection.encoder_set import EncoderSet
from harmonia.collection.question_words import meant
from harmonia.collection.word_index import WordIndex
from harmonia.encoders.base import Bridge
from harmonia.encoders.descriptors.text import tokens
from harmonia.memory.learning import conditional_logit
from harmonia.memory.likelihood import LikelihoodRatio
from harmonia.memory.match_test import DUPLICATE, NullScores, null_table, rank
from harmonia.memory.matrix import Centering
from harmonia.store.protocol import CodeTable

# Pairs of a cue and its record that are needed for a model within a modality, and between modalities.
MIN_WITHIN, MIN_BETWEEN = 12, 60
# Cues of one kind that are scored, and rivals that each is scored against.
MAX_QUERIES, MAX_RIVALS = 768, 4096
# Regularisations of models between modalities, of which the best is taken, and how many nats one must gain.
RIDGES, LEAST_GAIN = (0.3, 1.0, 3.0, 10.0), 0.02
# Cues that separate all records perfectly would make a weight infinite.
MOST_WEIGHT = 4.0
# A cue that lies nearer to a code than this is that very code.
SAME_CODE = 0.05
# Text cues are told apart by how many words they have that say something, up to this many.
MOST_WORDS = 6
WORDS = "words"
"""What stands for the index of words beside the encoders of texts."""

Index = NDArray[np.int64]
Link = tuple[str, str]
"""The matrix whose codes are scored, and the one whose kind of codes the cues are."""


@dataclass(frozen=True, slots=True, eq=False)
class Cues:
    """Cues whose record is known: ``record`` (m,) rows of records, ``codes`` by encoder (m, d).

    ``words`` (m,) are those of texts, ``kind`` (m,) the sort of each cue; ``copied`` says that the cue is a
    part of its record as it is, which must not find itself.
    """

    record: Index
    codes: Mapping[str, NDArray[np.float32]]
    words: Sequence[str] = ()
    kind: Sequence[str] = ()
    copied: bool = False


@dataclass(frozen=True, slots=True, eq=False)
class Likelihoods:
    """Fitted models: ``ratios`` by link, the weight of the word index beside text codes, and null scores."""

    ratios: Mapping[Link, LikelihoodRatio] = field(default_factory=dict)
    words: float = 0.0
    null_scores: NullScores = field(default_factory=dict)

    def of(self, key: str) -> dict[str, LikelihoodRatio]:
        """The models for the codes of the matrix ``key``, by the matrix of the cues' kind."""
        return {of: ratio for (to, of), ratio in self.ratios.items() if to == key}


def kind_of_words(words: str) -> str:
    """The sort of a text cue: how many words it has that say something."""
    count = min(len(meant(tokens(words)) or tokens(words)), MOST_WORDS)
    return f"{count} words" if words.strip() else ""


def keywords(text: str, count: int, rng: np.random.Generator) -> str:
    """At most ``count`` of the words of a text that say something, in any order."""
    said = meant(tokens(text)) or tokens(text)
    return " ".join(rng.permutation(said)[:count])


def sampled(ids: Sequence[str]) -> Sequence[str] | None:
    """The ids of an even sample; None where all are used."""
    step = -(-len(ids) // MAX_RIVALS)
    return sorted(ids)[::step] if step > 1 else None


def fit_likelihoods(
    encoders: EncoderSet,
    table: CodeTable,
    cues: Mapping[str, Sequence[Cues]],
    index: WordIndex | None,
    seed: int = 0,
    step: Callable[[], object] = lambda: None,
) -> Likelihoods:
    """Fit the models of every modality and between modalities, where there is enough to fit them on.

    ``cues[modality]`` are cues whose record is known; ``index`` is over the words of the records without the
    texts that serve as cues as they are. ``step`` is called as work proceeds.
    """
    fitting = _Fitting(encoders, table, index, np.random.default_rng(seed))
    ratios: dict[Link, LikelihoodRatio] = {}
    null: dict[tuple[tuple[str, ...], str], Tensor] = {}
    weight = 0.0
    for modality, several in cues.items():
        keys = fitting.keys(modality)
        found = fitting.within(keys, several)
        if found is not None:
            ratios |= found[0]
            weight = found[1] if modality == "text" else weight
            null |= found[2]
        step()
        for other in fitting.modalities:
            if other == modality:
                continue
            for to in fitting.keys(other):
                for of in keys:
                    link = fitting.between(to, of, several)
                    if link is not None:
                        ratios[to, of] = link[0]
                        null |= link[1]
            step()
    return Likelihoods(ratios, weight, null)


class _Fitting:
    def __init__(
        self, encoders: EncoderSet, table: CodeTable, index: WordIndex | None, rng: np.random.Generator
    ) -> None:
        self.encoders, self.table, self.index, self.rng = encoders, table, index, rng
        self.records = len(table.record_ids)
        self.half = rng.permutation(np.arange(self.records) % 2)
        self.own = [e for e in encoders.own.encoders if len(table.encoders[e.name].record)]
        self.modalities = list(dict.fromkeys(e.modality for e in self.own))
        self.centring = {e.name: Centering.fit(self.raw(e.name)) for e in self.own}

    def raw(self, key: str) -> Tensor:
        return torch.from_numpy(self.table.encoders[key].codes)

    def record(self, key: str) -> Tensor:
        return torch.from_numpy(self.table.encoders[key].record)

    def keys(self, modality: str) -> list[str]:
        return [e.name for e in self.own if e.modality == modality and not isinstance(e, Bridge)]

    def stored(self, key: str) -> Tensor:
        return self.centring[key].transform(self.raw(key))

    def centred(self, key: str, cues: Cues) -> Tensor:
        return self.centring[key].transform_cue(torch.from_numpy(cues.codes[key]))

    # --- within a modality

    def within(
        self, keys: Sequence[str], several: Sequence[Cues]
    ) -> tuple[dict[Link, LikelihoodRatio], float, dict[tuple[tuple[str, ...], str], Tensor]] | None:
        """The models of one modality's encoders, the weight of the word index, and the null scores."""
        halves: dict[str, list[LikelihoodRatio]] = {}
        whole: dict[str, LikelihoodRatio] = {}
        for key in keys:
            x, apart, of = self.stored(key), *self._apart(key, several)
            if len(apart) < MIN_WITHIN or len(set(of.tolist())) < MIN_WITHIN // 2:
                continue
            if both := self._halves(key, x, apart, of):
                halves[key], whole[key] = both, LikelihoodRatio.within(x, apart)
        if not whole:
            return None
        views = [*whole, *([WORDS] if self.index is not None and several and several[0].words else [])]
        every = [self._score(views, halves, cues) for cues in several]
        scored = [one for one in every if one is not None]
        weights = _weights([one for one in scored if one.right.any()], len(views))
        if weights is None:
            return None
        ratios = {
            (key, key): replace(model, scale=max(weight, 1e-3))
            for (key, model), weight in zip(whole.items(), weights, strict=False)
        }
        null: dict[tuple[tuple[str, ...], str], Tensor] = {}
        by_kind: dict[str, list[tuple[Tensor, Tensor]]] = {}
        coded = torch.tensor(weights[: len(whole)])
        for one in scored:
            total = (one.scores[..., : len(whole)] * coded).sum(dim=-1)
            columns = torch.stack([total, *one.scores[..., len(whole) :].unbind(dim=-1)], dim=-1)
            for kind in set(one.kind):
                chosen = torch.tensor([k == kind for k in one.kind])
                by_kind.setdefault(kind, []).append((columns[chosen], (one.held & ~one.hidden)[chosen]))
        for kind, parts in by_kind.items():
            scores, held = (torch.cat(several) for several in zip(*parts, strict=True))
            null[tuple(sorted(whole)), kind] = null_table(scores, held)
        return ratios, weights[-1] if views[-1] == WORDS else 0.0, null

    def _halves(self, key: str, x: Tensor, apart: Tensor, of: Tensor) -> list[LikelihoodRatio]:
        """The models of either half of the records; none where a half has too few."""
        held = torch.from_numpy(self.half[self.table.encoders[key].record])
        side = torch.from_numpy(self.half)[of]
        if min(int((t == n).sum()) for t in (held, side) for n in range(2)) < 2:
            return []
        return [LikelihoodRatio.within(x[held == n], apart[side == n]) for n in range(2)]

    def _apart(self, key: str, several: Sequence[Cues]) -> tuple[Tensor, Tensor]:
        """How far cues lie from the codes of their records (m, d), and their records (m,)."""
        x, record = self.stored(key), self.record(key)
        apart, of, kinds = [], [], []
        for cues in several:
            if key not in cues.codes:
                continue
            c, mine = self.centred(key, cues), torch.from_numpy(cues.record)
            first = torch.searchsorted(record, mine)
            count = torch.searchsorted(record, mine, right=True) - first
            for offset in range(min(int(count.max()) if len(count) else 0, 5)):
                there = count > offset
                difference = c[there] - x[(first + offset)[there]]
                new = (
                    difference.norm(dim=-1) > SAME_CODE if cues.copied else torch.ones(len(difference)).bool()
                )
                apart.append(difference[new])
                of.append(mine[there][new])
                kinds.append(cues)
        # Other parts of a record are what a model is of; words torn from a text say less of it than they.
        parts = [n for n, cues in enumerate(kinds) if cues.copied]
        if sum(len(apart[n]) for n in parts) >= MIN_WITHIN:
            chosen = [n for n, cues in enumerate(kinds) if cues.copied or not cues.words]
            apart, of = [apart[n] for n in chosen], [of[n] for n in chosen]
        if not apart:
            return x[:0], record[:0]
        return torch.cat(apart), torch.cat(of)

    def _score(
        self, views: Sequence[str], halves: Mapping[str, list[LikelihoodRatio]], cues: Cues
    ) -> _Scored | None:
        """The scores of some of the cues by each view, each half of the records by the model of the other."""
        keys = [key for key in halves if key in cues.codes]
        if len(keys) < len(halves):
            return None
        some = self.rng.permutation(len(cues.record))[:MAX_QUERIES]
        mine = torch.from_numpy(cues.record[some])
        out = torch.full((len(some), self.records, len(views)), -math.inf)
        copy = torch.zeros(len(some), self.records, dtype=torch.bool)
        for column, key in enumerate(halves):
            x, record = self.stored(key), self.record(key)
            c = self.centred(key, cues)[some]
            ratios = torch.empty(len(some), len(x))
            for side in range(2):
                rows = torch.from_numpy(self.half[cues.record[some]] == side)
                model = halves[key][1 - side]
                ratios[rows] = model.query(c[rows]) @ x.T + model.own(x) + model.level(c[rows])[:, None]
            if cues.copied:
                ratios[(c @ x.T > 1 - SAME_CODE**2 / 2) & (record[None] == mine[:, None])] = -math.inf
            out[:, :, column].scatter_reduce_(1, record.expand(len(some), -1), ratios, "amax")
            near = torch.zeros(len(some), self.records).scatter_reduce_(
                1, record.expand(len(some), -1), c @ x.T, "amax"
            )
            copy |= near > DUPLICATE
        words = [cues.words[i] for i in some] if cues.words else []
        if views[-1] == WORDS:
            assert self.index is not None
            out[:, :, -1] = torch.from_numpy(np.stack([self.index.evidence(one) for one in words]))
        if words and self.index is not None:
            copy |= torch.from_numpy(np.stack([self.index.holds_all(one) for one in words]))
        held = out[..., : len(halves)].isfinite().all(dim=-1)
        right = torch.zeros(len(some), self.records, dtype=torch.bool)
        right[torch.arange(len(some)), mine] = True
        kind = [cues.kind[i] if cues.kind else "" for i in some]
        return _Scored(out, held, right & held, copy | right, kind)

    # --- between modalities

    def between(
        self, to: str, of: str, several: Sequence[Cues]
    ) -> tuple[LikelihoodRatio, dict[tuple[tuple[str, ...], str], Tensor]] | None:
        """The model of cues of one modality for codes of another, and its null scores."""
        x, record = self.stored(to), self.record(to)
        codes, own, words, kind = [], [], [], []
        for cues in several:
            if of in cues.codes:
                there = np.isin(cues.record, self.table.encoders[to].record)
                codes.append(self.centred(of, cues)[torch.from_numpy(there)])
                own.append(torch.from_numpy(cues.record[there]))
                words += [w for w, keep in zip(cues.words, there, strict=False) if keep]
                kinds_of = cues.kind or [""] * len(there)
                kind += [k for k, keep in zip(kinds_of, there, strict=True) if keep]
        if not codes:
            return None
        mine = torch.cat(own)
        if len(mine) < MIN_BETWEEN or 2 * len(set(mine.tolist())) < MIN_BETWEEN:
            return None
        c, row = torch.cat(codes), torch.searchsorted(record, mine)
        side = torch.from_numpy(self.half)
        best: tuple[float, float, float] | None = None
        for ridge in RIDGES:
            tried = self._crossed(c, x, record, mine, row, side, ridge)
            if tried is None:
                return None
            found = _scale(*tried)
            if found is not None and (best is None or found[1] > best[1]):
                best = found[0], found[1], ridge
        if best is None:
            return None
        scale, _, ridge = best
        model = LikelihoodRatio.between(c, x, row, cue_ridge=ridge, ridge=3 * ridge)
        return replace(model, scale=scale), self._crossed_null(
            (to, of), c, x, record, mine, row, side, ridge, scale, words, kind
        )

    def _crossed(
        self, c: Tensor, x: Tensor, record: Tensor, mine: Tensor, row: Tensor, side: Tensor, ridge: float
    ) -> tuple[list[Tensor], list[Tensor]] | None:
        """The scores of either half of the cues, by the model of the other half, and which are right."""
        scores, rights = [], []
        for held in range(2):
            fit, ask = side[mine] != held, (side[mine] == held).nonzero()[:, 0]
            rest = side[record] != held
            if int(fit.sum()) < MIN_BETWEEN // 4 or not len(ask):
                return None
            place = torch.cumsum(rest, 0) - 1
            model = LikelihoodRatio.between(
                c[fit], x[rest], place[row[fit]], cue_ridge=ridge, ridge=3 * ridge
            )
            ask = ask[:: max(1, -(-len(ask) // MAX_QUERIES))]
            rivals = (~rest).nonzero()[:, 0]
            own = model.own(x[rivals]) + model.level(c[ask])[:, None]
            scores.append(model.query(c[ask]) @ x[rivals].T + own)
            rights.append(record[rivals][None] == mine[ask][:, None])
        return scores, rights

    def _crossed_null(
        self,
        link: Link,
        c: Tensor,
        x: Tensor,
        record: Tensor,
        mine: Tensor,
        row: Tensor,
        side: Tensor,
        ridge: float,
        scale: float,
        words: Sequence[str],
        kind: Sequence[str],
    ) -> dict[tuple[tuple[str, ...], str], Tensor]:
        """How cues score in the half that the model has not seen, with all that match them hidden."""
        tried = self._crossed(c, x, record, mine, row, side, ridge)
        assert tried is not None
        by_kind: dict[str, list[Tensor]] = {}
        for held, (scores, right) in enumerate(zip(*tried, strict=True)):
            ask = (side[mine] == held).nonzero()[:, 0]
            ask = ask[:: max(1, -(-len(ask) // MAX_QUERIES))]
            hidden = right.clone()
            if words and self.index is not None:
                said = np.stack([self.index.holds_all(words[int(i)]) for i in ask])
                hidden |= torch.from_numpy(said)[:, record[side[record] == held]]
            top = (scores * scale).masked_fill(hidden, -math.inf).amax(dim=-1)
            names = [kind[int(i)] for i in ask]
            for name in set(names):
                by_kind.setdefault(name, []).append(top[torch.tensor([one == name for one in names])])
        null: dict[tuple[tuple[str, ...], str], Tensor] = {}
        for name, parts in by_kind.items():
            found = torch.cat(parts)
            found = found[found.isfinite()]
            null[(f"{link[0]}, without {link[1]}",), name] = torch.stack([found, rank(found, found)], dim=1)
        return null


@dataclass(frozen=True, slots=True, eq=False)
class _Scored:
    """``scores`` (q, records, views), which of them are ``held``, ``right``, ``hidden`` (q, records)."""

    scores: Tensor
    held: Tensor
    right: Tensor
    hidden: Tensor
    kind: Sequence[str]


def _weights(several: Sequence[_Scored], views: int) -> list[float] | None:
    """The weights of the views under which the right records are most probable; None if they say nothing."""
    if not several:
        return None
    scores, left = [], []
    for one in several:
        asked = one.right.any(dim=1)
        s, held, right = one.scores[asked], one.held[asked], one.right[asked]
        total = s.nan_to_num(neginf=-1e4).sum(dim=-1).masked_fill(~held | right, -math.inf)
        rivals = total.topk(min(64, total.shape[1] - 1), dim=1).indices
        own = right.long().argmax(dim=1, keepdim=True)
        chosen = torch.cat([own, rivals], dim=1)
        scores.append(s.gather(1, chosen[..., None].expand(-1, -1, views)).nan_to_num(neginf=-1e4))
        left.append(~held.gather(1, chosen))
    fitted = conditional_logit(torch.cat(scores).double(), torch.cat(left))
    return [min(float(weight), MOST_WEIGHT) for weight in fitted]


def _scale(scores: Sequence[Tensor], rights: Sequence[Tensor]) -> tuple[float, float] | None:
    """The scale in (0, 1] under which the right codes are most probable, and by how many nats more than by
    chance; None where chance does as well.
    """

    def gain(scale: float) -> float:
        total, count = 0.0, 0
        for s, right in zip(scores, rights, strict=True):
            p = torch.log_softmax(scale * s, dim=1).masked_fill(~right, -math.inf).logsumexp(dim=1)
            base = torch.log(right.sum(dim=1) / right.shape[1])
            total += float((p - base)[base.isfinite()].sum())
            count += int(base.isfinite().sum())
        return total / max(count, 1)

    best = max((2.0 ** (-n / 2) for n in range(13)), key=gain)
    return (best, gain(best)) if gain(best) > LEAST_GAIN else None
