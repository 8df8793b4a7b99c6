"""recall: encode -> settle -> search. The whole from a part."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from numpy.typing import NDArray

from harmonia.collection.cues import Query, RecallOptions, encode
from harmonia.collection.encoder_set import EncoderSet
from harmonia.collection.likelihoods import kind_of_words
from harmonia.collection.matrices import bridged, crossing, given_by
from harmonia.memory.harmonic import Given, HarmonicMemory, Scored
from harmonia.memory.likelihood import RatioFrame
from harmonia.memory.match_test import FALSE_RECALL
from harmonia.memory.settle import Settled
from harmonia.store.protocol import CodeTable
from harmonia.types import Certificate, Code, HarmoniaError, Match, Part, Recalled, Recollection, Record

if TYPE_CHECKING:
    from harmonia.collection.calibration import Calibration
    from harmonia.collection.word_index import WordIndex

# Correlation of a caption's BM25 scores with its cosines, over 1,000 other photos' captions (Flickr8k dev).
WORDS_OVERLAP = 0.75
# How far which words are shared counts against how they are spelled: it finds the record more often.
WORDS_WEIGHT = 2.0

Fetch = Callable[[Sequence[str]], Sequence[Record]]
"""Reads records by id from the store."""


@dataclass(frozen=True, slots=True, eq=False)
class Question:
    """What cues ask, to be settled together: of matrices, and of the words of the records."""

    given: Sequence[Given]
    words: Sequence[Scored] = ()


_CERTAIN = Certificate(
    energies=(0.0,), tail_mass=0.0, error_bound=0.0, nothing=1.0, steps=0, converged=True, beta=0.0,
    contraction=0.0,
)  # fmt: skip
NOTHING = Recollection((), {}, _CERTAIN, abstained=True)
"""The answer where a condition leaves no record: nothing matches, for certain."""


@dataclass(frozen=True, slots=True, eq=False)
class Snapshot:
    """What is recalled from: the encoders, the codes of one state of the store, the memory over them, and the
    words of its records, made when they are asked for.
    """

    encoders: EncoderSet
    table: CodeTable
    memory: HarmonicMemory
    fetch: Fetch
    calibration: Calibration | None
    words: Callable[[], WordIndex] | None = None
    words_weight: float = 0.0

    @property
    def has_likelihoods(self) -> bool:
        """Whether any matrix is scored by log-likelihood ratios."""
        return any(isinstance(frame, RatioFrame) for frame in self.memory.frames.values())


def recall_many(
    snapshot: Snapshot,
    queries: Sequence[Query],
    options: RecallOptions,
    allowed: NDArray[np.bool_] | None = None,
) -> list[Recollection | HarmoniaError]:
    """Settle the cues of each query together and return its most probable records with their evidence.

    ``queries`` are decoded; ``allowed`` (records,) restricts the records. Queries with the same kinds of cues
    settle in one batch, and records are read once. What is wrong with one query (nothing remembered can be
    compared with it) is its answer, and the others have theirs.

    Where the encoders of each modality find nothing, those that bridge modalities are asked, one modality
    after the other (see :func:`harmonia.collection.matrices.bridged`), for records that have nothing of the
    cues' own kind. The surest of their answers counts if it is more than chance, or if nothing else can be
    compared with the cues.
    """
    encoders, memory = snapshot.encoders, snapshot.memory
    # Likelihoods say all that trust, beta and couplings say, and how much a cue of this kind can say.
    calibration = None if snapshot.has_likelihoods else snapshot.calibration
    mask = None if allowed is None else torch.from_numpy(allowed)
    ask = _Batch(snapshot, options)
    cues = encode(encoders.own, queries)
    betas = [options.beta] * len(queries)
    if calibration is None:
        given = [[g for cue in several for g in given_by(encoders, memory, cue)] for several in cues]
    else:
        given = [
            [g for some in calibration.given(encoders, memory, several) for g in some] for several in cues
        ]
        if options.beta is None and options.noise is None:
            betas = [calibration.beta(memory, q) if q else None for q in given]
    given = [_with_kinds(query, several) for query, several in zip(queries, given, strict=True)]
    crossed = [[g for cue in several for g in crossing(encoders, memory, cue)] for several in cues]
    questions = [
        _with_words(snapshot, query, several, _with_kinds(query, others))
        for query, several, others in zip(queries, given, crossed, strict=True)
    ]
    found: list[Recollection | None] = ask.all(questions, betas, [mask] * len(questions))
    for q, answer in _by_bridges(ask, queries, questions, found, mask).items():
        own = found[q]
        if own is None or not own.records or not answer.abstained:
            found[q] = answer
    return [answer or _incomparable(snapshot, query) for answer, query in zip(found, queries, strict=True)]


def _with_kinds(query: Query, given: Sequence[Given]) -> list[Given]:
    kinds = {item.name: kind_of_words(item.words) for item in query}
    return [replace(g, kind=kinds.get(g.name, "")) for g in given]


def _with_words(
    snapshot: Snapshot, query: Query, given: Sequence[Given], crossed: Sequence[Given] = ()
) -> Question:
    """What the cues ask, with the words of each text scored by how rare they are in the memory.

    The words are one more view of their cue, which counts as much as before. Beside a cue of another
    modality, words count as far as they say anything: "what is this?" says nothing about a picture.
    """
    texts = {item.name: item for item in query if item.words.strip()}
    if snapshot.words is None or not texts or not given:
        return Question([*given, *crossed])
    index, memory = snapshot.words(), snapshot.memory
    ratios = {g.name for g in given if memory.model_of(g) is not None}
    shown = {item.name for item in query if item.weight > 0} - texts.keys()
    beside = any(g.name in shown for g in given)
    scored: list[Scored] = []
    scale: dict[str, float] = {}
    for name, item in texts.items():
        views = math.sqrt(
            sum((g.weight * memory.trusts.get(g.key, 1.0)) ** 2 for g in given if g.name == name)
        )
        if not views:
            continue
        scale[name] = index.informs(item.words) if beside else 1.0
        if name in ratios:
            weight = item.weight * snapshot.words_weight * scale[name]
            scored.append(Scored(torch.from_numpy(index.evidence(item.words))[None], weight, name, nats=True))
        elif (scores := index.in_units_of_chance(item.words)) is not None:
            # one more view of the cue, which counts as much as before
            scale[name] /= math.hypot(1.0, WORDS_WEIGHT)
            weight = math.copysign(WORDS_WEIGHT * views * scale[name], item.weight)
            scored.append(Scored(torch.from_numpy(scores)[None], weight, name, WORDS_OVERLAP))
    given = [*given, *crossed]
    return Question([replace(g, weight=g.weight * scale.get(g.name, 1.0)) for g in given], scored)


def _by_bridges(
    ask: _Batch,
    queries: Sequence[Query],
    questions: Sequence[Question],
    found: Sequence[Recollection | None],
    mask: torch.Tensor | None,
) -> dict[int, Recollection]:
    """The surest answer of a bridge to each query that has found nothing, by the query's number."""
    encoders, memory = ask.snapshot.encoders, ask.snapshot.memory
    lost = [q for q, answer in enumerate(found) if answer is None or answer.abstained]
    free = {q: _without(ask.snapshot, questions[q]) for q in lost}
    free = {q: without if mask is None else without & mask for q, without in free.items()}
    lost = [q for q in lost if free[q].any()]
    bridges = [
        (q, Question(question))
        for q, cues in zip(lost, encode(encoders.bridges, [queries[q] for q in lost]), strict=True)
        for question in bridged(encoders, memory, cues)
    ]
    answers = ask.all(
        [question for _, question in bridges],
        [ask.options.beta] * len(bridges),
        [free[q] for q, _ in bridges],
    )
    surest: dict[int, Recollection] = {}
    for (q, _), answer in zip(bridges, answers, strict=True):
        if answer is not None and (q not in surest or _sure(answer) < _sure(surest[q])):
            surest[q] = answer
    return surest


def _sure(answer: Recollection) -> tuple[bool, float]:
    return answer.abstained, answer.certificate.nothing


def _incomparable(snapshot: Snapshot, query: Query) -> HarmoniaError:
    what = " or ".join(sorted({item.name for item in query}))
    encoders = snapshot.encoders.encoders
    held = " and ".join(sorted({e.modality for e in encoders if e.name in snapshot.memory.matrices}))
    return HarmoniaError(f"nothing remembered can be compared with a cue of {what}: only {held} is held")


@dataclass(frozen=True, slots=True, eq=False)
class _Batch:
    """Asks the memory several questions at once."""

    snapshot: Snapshot
    options: RecallOptions

    def all(
        self,
        questions: Sequence[Question],
        betas: Sequence[float | None],
        allowed: Sequence[torch.Tensor | None],
    ) -> list[Recollection | None]:
        """An answer to each question; None to one that asks nothing."""
        batches: dict[Any, list[int]] = {}
        for q, question in enumerate(questions):
            if question.given:
                kinds = (
                    *(
                        (g.key, g.weight, g.trust, g.origin, g.codes.shape, g.kind, g.without)
                        for g in question.given
                    ),
                    *((s.name, s.weight, s.nats) for s in question.words),
                )
                mask = allowed[q]
                batches.setdefault((kinds, betas[q], None if mask is None else _bits(mask)), []).append(q)
        settled: dict[int, tuple[Settled, int]] = {}
        for members in batches.values():
            given = [
                replace(channels[0], codes=torch.cat([g.codes for g in channels]))
                for channels in zip(*(questions[q].given for q in members), strict=True)
            ]
            scored = [
                replace(words[0], scores=torch.cat([s.scores for s in words]))
                for words in zip(*(questions[q].words for q in members), strict=True)
            ]
            first, o = members[0], self.options
            whole = self.snapshot.memory.recall(
                given, scored=scored, k=o.k, steps=o.steps, alpha=o.alpha, beta=betas[first], noise=o.noise,
                allowed=allowed[first],
            )  # fmt: skip
            settled |= {q: (whole, row) for row, q in enumerate(members)}
        slots = {q: [s for s in whole.slots[row, : self.options.k].tolist() if s >= 0]
                 for q, (whole, row) in settled.items()}  # fmt: skip
        record_ids = self.snapshot.table.record_ids
        ids = sorted({record_ids[slot] for several in slots.values() for slot in several})
        records = {record.id: record for record in self.snapshot.fetch(ids)} if ids else {}
        return [
            self._answer(questions[q], *settled[q], slots[q], records) if q in settled else None
            for q in range(len(questions))
        ]

    def _answer(
        self,
        question: Question,
        settled: Settled,
        row: int,
        slots: Sequence[int],
        records: Mapping[str, Record],
    ) -> Recollection:
        evidence = _Evidence(self.snapshot, question, settled, row)
        # a record that was removed meanwhile has no answer to give
        there = [
            (column, records.get(self.snapshot.table.record_ids[slot])) for column, slot in enumerate(slots)
        ]
        recalled = tuple(evidence.recalled(column, record) for column, record in there if record)
        certificate = _certificate(self.snapshot.memory, settled, row)
        codes = _codes(self.snapshot.encoders, settled, row)
        return Recollection(recalled, codes, certificate, float(settled.nothing[row]) > FALSE_RECALL)


def _bits(mask: torch.Tensor) -> bytes:
    return mask.numpy().tobytes()


def _without(snapshot: Snapshot, question: Question) -> torch.Tensor:
    """Which records have no part of the modalities in which cues were given, bool (records,)."""
    modality = {e.name: e.modality for e in snapshot.encoders.encoders}
    asked = {modality[given.key] for given in question.given}
    without = torch.ones(len(snapshot.table.record_ids), dtype=torch.bool)
    for name, codes in snapshot.table.encoders.items():
        if modality[name] in asked:
            without[torch.from_numpy(codes.record)] = False
    return without


class _Evidence:
    """Why each record came: what every cue adds to its score, and by which part."""

    def __init__(self, snapshot: Snapshot, question: Question, settled: Settled, row: int) -> None:
        self.memory, self.table = snapshot.memory, snapshot.table
        self.given, self.words = question.given, question.words
        self.settled, self.row = settled, row

    def recalled(self, column: int, record: Record) -> Recalled:
        adds: dict[str, float] = dict.fromkeys((given.name for given in self.given), 0.0)
        matches: dict[str, Match] = {}
        for channel, name in enumerate(given.name for given in self.given):
            adds[name] += float(self.settled.adds[channel][self.row, column])
            match = self._match(channel, column, record)
            if match and (name not in matches or match.similarity > matches[name].similarity):
                matches[name] = match
        for name, field in self._fields:
            adds[name] += float(field[column])
        total = sum(abs(value) for value in adds.values()) or 1.0
        return Recalled(
            rank=column + 1,
            record=record,
            probability=float(self.settled.p[self.row, column]),
            score=float(self.settled.scores[self.row, column]),
            shares={name: value / total for name, value in adds.items()},
            matches=matches,
            moment=self._moment(column, record),
            p_value=float(self.settled.match[self.row, column]),
            matched=float(self.settled.match[self.row, column]) <= FALSE_RECALL,
        )

    def _match(self, channel: int, column: int, record: Record) -> Match | None:
        row = int(self.settled.part[channel][self.row, column])
        if row < 0:
            return None
        part = int(self.table.encoders[self.given[channel].key].part[row])
        return Match(record.parts[part], float(self._similarity[channel][column]))

    @cached_property
    def _fields(self) -> list[tuple[str, torch.Tensor]]:
        """For each scored cue its name, and what it adds to the scores of the kept records (k,)."""
        beta, kept = float(self.settled.beta[self.row]), self.settled.slots[self.row].clamp(min=0)
        words = [replace(scored, scores=scored.scores[:, kept]) for scored in self.words]
        fields = self.memory.external_fields(self.given, words, beta=beta)
        return [(words.name, field[0]) for words, field in zip(self.words, fields, strict=True)]

    @cached_property
    def _similarity(self) -> list[torch.Tensor]:
        """For each cue the cosines (k,) of its settled code with the best part of each record."""
        return [
            self.memory.similarity(given, part[self.row].clamp(min=0), state[self.row])
            for given, part, state in zip(self.given, self.settled.part, self.settled.state, strict=True)
        ]

    def _moment(self, column: int, record: Record) -> tuple[Part, ...]:
        moment = int(self.settled.moment[self.row, column])
        if moment < 0:
            return ()
        ordinals = set()
        for key, index in self.memory.layout.parts.items():
            row = int(index[moment])
            if row >= 0:
                ordinals.add(int(self.table.encoders[key].part[row]))
        return tuple(record.parts[ordinal] for ordinal in sorted(ordinals))


def _codes(encoders: EncoderSet, settled: Settled, row: int) -> Mapping[str, Code]:
    """The settled code of every encoder that any of the kept records has a part for."""
    codes = {}
    for encoder in encoders.encoders:
        code = settled.codes.get(encoder.name)
        if code is not None and bool(code[row].any()):
            codes[encoder.name] = Code(encoder.modality, code[row].numpy(), encoder.space)
    return codes


def _certificate(memory: HarmonicMemory, settled: Settled, row: int) -> Certificate:
    steps = int(settled.steps[row])
    return Certificate(
        energies=tuple(settled.energies[: steps + 1, row].tolist()),
        tail_mass=float(settled.tail[row]),
        error_bound=float(settled.bound[row]),
        nothing=float(settled.nothing[row]),
        steps=steps,
        converged=bool(settled.converged[row]),
        beta=float(settled.beta[row]),
        contraction=float(settled.contraction[row]),
        candidates=None if memory.population is None else memory.slots,
    )
