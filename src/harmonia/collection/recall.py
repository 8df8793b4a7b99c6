"""recall: encode -> settle -> search. The whole from a part."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch

from harmonia.collection.calibration import Calibration
from harmonia.collection.encoder_set import EncoderSet
from harmonia.memory import Given, HarmonicMemory, Settled
from harmonia.store import CodeTable
from harmonia.types import Certificate, Code, Cue, HarmoniaError, Match, Part, Recalled, Recollection, Record

Fetch = Callable[[Sequence[str]], Sequence[Record]]
Question = Sequence[tuple[Cue, Given]]
"""What cues say to matrices, to be settled together."""


def recall(
    model: EncoderSet,
    memory: HarmonicMemory,
    table: CodeTable,
    fetch: Fetch,
    cues: Sequence[Cue],
    *,
    k: int = 10,
    allowed: torch.Tensor | None = None,
    steps: int = 8,
    alpha: float = 1.0,
    beta: float | None = None,
    noise: float | None = None,
    learned: Calibration | None = None,
) -> Recollection:
    """Settle the cues together and return the ``k`` most probable records with their evidence.

    ``allowed`` (records,) bool restricts the records; ``alpha``, ``beta``, ``noise`` and ``steps`` are those
    of :meth:`harmonia.memory.HarmonicMemory.recall`. ``fetch`` reads records by id from the store.
    ``learned`` are the constants that the memory was given (see :func:`harmonia.tasks.calibrate.learn`).

    Where the encoders of each modality find nothing, those that bridge modalities are asked, one modality
    after the other (see :meth:`EncoderSet.bridges`), for records that have nothing of the cues'
    own kind. The surest of their answers counts if it is more than chance, or if nothing else can be compared
    with the cues.
    """
    options = Options(k, steps, alpha, beta, noise)
    found = recall_many(model, memory, table, fetch, [cues], options, allowed=allowed, learned=learned)[0]
    if isinstance(found, HarmoniaError):
        raise found
    return found


@dataclass(frozen=True, slots=True)
class Options:
    """How to settle: see :meth:`harmonia.memory.HarmonicMemory.recall`. ``k`` records come back."""

    k: int = 10
    steps: int = 8
    alpha: float = 1.0
    beta: float | None = None
    noise: float | None = None


def recall_many(
    model: EncoderSet,
    memory: HarmonicMemory,
    table: CodeTable,
    fetch: Fetch,
    queries: Sequence[Sequence[Cue]],
    options: Options,
    *,
    allowed: torch.Tensor | None = None,
    learned: Calibration | None = None,
) -> list[Recollection | HarmoniaError]:
    """Several recalls at once, each as :func:`recall` would answer it by itself.

    Queries with the same kinds of cues settle in one batch, and records are read once. What is wrong with one
    query (nothing remembered can be compared with it) is its answer, and the others have theirs.
    """
    if options.k < 1:
        raise HarmoniaError(f"the number of records must be at least 1 (got {options.k})")
    asked = _Asked(model, memory, table, fetch, options)
    learned = learned or Calibration()
    own = []
    for cues in queries:
        said = learned.given(model, memory, cues)
        own.append([(cue, channel) for cue, given in zip(cues, said, strict=True) for channel in given])
    auto = options.beta is None and options.noise is None
    betas = [learned.beta(memory, [g for _, g in pairs]) if auto and pairs else options.beta for pairs in own]
    found: list[Recollection | None] = asked.all(own, betas, [allowed] * len(own))
    lost = [q for q, answer in enumerate(found) if answer is None or answer.abstained]
    bridges: list[tuple[int, Question]] = []
    free = {}
    for q in lost:
        without = _without(model, table, [channel for _, channel in own[q]])
        free[q] = without if allowed is None else without & allowed
        questions = model.bridges(memory, queries[q]) if free[q].any() else []
        bridges += [(q, question) for question in questions]
    answers = asked.all(
        [question for _, question in bridges], [options.beta] * len(bridges), [free[q] for q, _ in bridges]
    )
    surest: dict[int, Recollection] = {}
    for (q, _), answer in zip(bridges, answers, strict=True):
        if answer is not None and (q not in surest or _sure(answer) < _sure(surest[q])):
            surest[q] = answer
    for q, answer in surest.items():
        own_answer = found[q]
        if own_answer is None or not own_answer.records or not answer.abstained:
            found[q] = answer
    return [answer or _incomparable(model, memory, cues) for answer, cues in zip(found, queries, strict=True)]


def _sure(answer: Recollection) -> tuple[bool, float]:
    return answer.abstained, answer.certificate.nothing


def _incomparable(model: EncoderSet, memory: HarmonicMemory, cues: Sequence[Cue]) -> HarmoniaError:
    what = " or ".join(sorted({cue.name for cue in cues}))
    held = " and ".join(sorted({e.modality for e in model.encoders if e.name in memory.matrices}))
    return HarmoniaError(f"nothing remembered can be compared with a cue of {what}: only {held} is held")


@dataclass(frozen=True, slots=True, eq=False)
class _Asked:
    """The memory, asked several questions at once."""

    model: EncoderSet
    memory: HarmonicMemory
    table: CodeTable
    fetch: Fetch
    options: Options

    def all(
        self,
        questions: Sequence[Question],
        betas: Sequence[float | None],
        allowed: Sequence[torch.Tensor | None],
    ) -> list[Recollection | None]:
        """An answer to each question; None to one that says nothing."""
        batches: dict[Any, list[int]] = {}
        for q, question in enumerate(questions):
            if question:
                kinds = tuple((g.key, g.weight, g.trust, g.origin, g.codes.shape) for _, g in question)
                mask = allowed[q]
                batches.setdefault((kinds, betas[q], None if mask is None else _bits(mask)), []).append(q)
        settled: dict[int, tuple[Settled, int]] = {}
        for members in batches.values():
            given = [
                replace(channels[0], codes=torch.cat([g.codes for g in channels]))
                for channels in zip(*([g for _, g in questions[q]] for q in members), strict=True)
            ]
            first, o = members[0], self.options
            whole = self.memory.recall(
                given, k=o.k, steps=o.steps, alpha=o.alpha, beta=betas[first], noise=o.noise,
                allowed=allowed[first],
            )  # fmt: skip
            settled |= {q: (whole, row) for row, q in enumerate(members)}
        slots = {q: [s for s in whole.slots[row, : self.options.k].tolist() if s >= 0]
                 for q, (whole, row) in settled.items()}  # fmt: skip
        ids = sorted({self.table.record_ids[slot] for several in slots.values() for slot in several})
        records = {record.id: record for record in self.fetch(ids)} if ids else {}
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
        given, names = [channel for _, channel in question], [cue.name for cue, _ in question]
        evidence = _Evidence(self.model, self.memory, self.table, given, names, settled, row)
        # a record that was removed meanwhile has no answer to give
        there = [(column, records.get(self.table.record_ids[slot])) for column, slot in enumerate(slots)]
        recalled = tuple(evidence.recalled(column, record) for column, record in there if record)
        nothing = float(settled.nothing[row])
        best = recalled[0].probability if recalled else 0.0
        certificate = _certificate(self.memory, settled, row)
        return Recollection(recalled, _codes(self.model, settled, row), certificate, nothing >= best)


def _bits(mask: torch.Tensor) -> bytes:
    return mask.numpy().tobytes()


def _without(model: EncoderSet, table: CodeTable, given: Sequence[Given]) -> torch.Tensor:
    """Which records have no part of the modalities in which cues were given, bool (records,)."""
    modality = {e.name: e.modality for e in model.encoders}
    asked = {modality[channel.key] for channel in given}
    without = torch.ones(len(table.record_ids), dtype=torch.bool)
    for name, codes in table.encoders.items():
        if modality[name] in asked:
            without[torch.from_numpy(codes.record)] = False
    return without


class _Evidence:
    """Why each record came: what every cue adds to its score, and by which part."""

    def __init__(
        self,
        model: EncoderSet,
        memory: HarmonicMemory,
        table: CodeTable,
        given: Sequence[Given],
        names: Sequence[str],
        settled: Settled,
        row: int,
    ) -> None:
        self.model, self.memory, self.table = model, memory, table
        self.given, self.names, self.settled, self.row = given, names, settled, row

    def recalled(self, column: int, record: Record) -> Recalled:
        adds: dict[str, float] = dict.fromkeys(self.names, 0.0)
        matches: dict[str, Match] = {}
        for channel, name in enumerate(self.names):
            adds[name] += float(self.settled.adds[channel][self.row, column])
            match = self._match(channel, column, record)
            if match and (name not in matches or match.similarity > matches[name].similarity):
                matches[name] = match
        total = sum(abs(value) for value in adds.values()) or 1.0
        return Recalled(
            rank=column + 1,
            record=record,
            probability=float(self.settled.p[self.row, column]),
            score=float(self.settled.scores[self.row, column]),
            shares={name: value / total for name, value in adds.items()},
            matches=matches,
            moment=self._moment(column, record),
        )

    def _match(self, channel: int, column: int, record: Record) -> Match | None:
        row = int(self.settled.part[channel][self.row, column])
        if row < 0:
            return None
        key = self.given[channel].key
        similarity = float(self.memory.matrices[key][row] @ self.settled.state[channel][self.row])
        return Match(record.parts[int(self.table.encoders[key].part[row])], similarity)

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


def _codes(model: EncoderSet, settled: Settled, row: int) -> Mapping[str, Code]:
    """The settled code of every encoder that any of the kept records has a part for."""
    codes = {}
    for encoder in model.encoders:
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
