"""recall: encode -> settle -> search. The whole from a part."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import torch

from harmonia.memory import Given, HarmonicMemory, Settled
from harmonia.model import Model
from harmonia.store import CodeTable
from harmonia.tasks.learned import Learned
from harmonia.types import Certificate, Code, Cue, HarmoniaError, Match, Part, Recalled, Recollection, Record

Fetch = Callable[[Sequence[str]], Sequence[Record]]


def recall(
    model: Model,
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
    learned: Learned | None = None,
) -> Recollection:
    """Settle the cues together and return the ``k`` most probable records with their evidence.

    ``allowed`` (records,) bool restricts the records; ``alpha``, ``beta``, ``noise`` and ``steps`` are those
    of :meth:`harmonia.memory.HarmonicMemory.recall`. ``fetch`` reads records by id from the store.
    ``learned`` are the constants that the memory was given (see :func:`harmonia.tasks.learn.learn`).

    Where the encoders of each modality find nothing, those that bridge modalities are asked, one modality
    after the other (see :meth:`harmonia.model.Model.bridges`), for records that have nothing of the cues'
    own kind. The surest of their answers counts if it is more than chance, or if nothing else can be compared
    with the cues.
    """
    if k < 1:
        raise HarmoniaError(f"the number of records must be at least 1 (got {k})")
    learned = learned or Learned()

    def ask(
        question: Sequence[tuple[Cue, Given]], beta: float | None, allowed: torch.Tensor | None
    ) -> Recollection:
        given, names = [channel for _, channel in question], [cue.name for cue, _ in question]
        settled = memory.recall(given, k=k, steps=steps, alpha=alpha, beta=beta, noise=noise, allowed=allowed)
        slots = [slot for slot in settled.slots[0, :k].tolist() if slot >= 0]
        records = fetch([table.record_ids[slot] for slot in slots])
        evidence = _Evidence(model, memory, table, given, names, settled)
        recalled = tuple(evidence.recalled(column, record) for column, record in enumerate(records))
        nothing = float(settled.nothing[0])
        best = recalled[0].probability if recalled else 0.0
        return Recollection(recalled, _codes(model, settled), _certificate(memory, settled), nothing >= best)

    said = learned.given(model, memory, cues)
    own = [(cue, channel) for cue, channels in zip(cues, said, strict=True) for channel in channels]
    found = None
    if own:
        learnt = (
            learned.beta(memory, [channel for _, channel in own]) if beta is None and noise is None else beta
        )
        found = ask(own, learnt, allowed)
    if found is None or found.abstained:
        without = _without(model, table, [channel for _, channel in own])
        without = without if allowed is None else without & allowed
        questions = model.bridges(memory, cues) if without.any() else []
        answers = [ask(question, beta, without) for question in questions]
        surest = min(answers, key=lambda a: (a.abstained, a.certificate.nothing), default=None)
        if surest is not None and (found is None or not surest.abstained):
            found = surest
    if found is None:
        what = " or ".join(sorted({cue.name for cue in cues}))
        held = " and ".join(sorted({e.modality for e in model.encoders if e.name in memory.matrices}))
        raise HarmoniaError(f"nothing remembered can be compared with a cue of {what}: only {held} is held")
    return found


def _without(model: Model, table: CodeTable, given: Sequence[Given]) -> torch.Tensor:
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
        model: Model,
        memory: HarmonicMemory,
        table: CodeTable,
        given: Sequence[Given],
        names: Sequence[str],
        settled: Settled,
    ) -> None:
        self.model, self.memory, self.table = model, memory, table
        self.given, self.names, self.settled = given, names, settled

    def recalled(self, column: int, record: Record) -> Recalled:
        adds: dict[str, float] = dict.fromkeys(self.names, 0.0)
        matches: dict[str, Match] = {}
        for channel, name in enumerate(self.names):
            adds[name] += float(self.settled.adds[channel][0, column])
            match = self._match(channel, column, record)
            if match and (name not in matches or match.similarity > matches[name].similarity):
                matches[name] = match
        total = sum(abs(value) for value in adds.values()) or 1.0
        return Recalled(
            rank=column + 1,
            record=record,
            probability=float(self.settled.p[0, column]),
            score=float(self.settled.scores[0, column]),
            shares={name: value / total for name, value in adds.items()},
            matches=matches,
            moment=self._moment(column, record),
        )

    def _match(self, channel: int, column: int, record: Record) -> Match | None:
        row = int(self.settled.part[channel][0, column])
        if row < 0:
            return None
        key = self.given[channel].key
        similarity = float(self.memory.matrices[key][row] @ self.settled.state[channel][0])
        return Match(record.parts[int(self.table.encoders[key].part[row])], similarity)

    def _moment(self, column: int, record: Record) -> tuple[Part, ...]:
        moment = int(self.settled.moment[0, column])
        if moment < 0:
            return ()
        ordinals = set()
        for key, index in self.memory.layout.parts.items():
            row = int(index[moment])
            if row >= 0:
                ordinals.add(int(self.table.encoders[key].part[row]))
        return tuple(record.parts[ordinal] for ordinal in sorted(ordinals))


def _codes(model: Model, settled: Settled) -> Mapping[str, Code]:
    """The settled code of every encoder that any of the kept records has a part for."""
    codes = {}
    for encoder in model.encoders:
        code = settled.codes.get(encoder.name)
        if code is not None and bool(code[0].any()):
            codes[encoder.name] = Code(encoder.modality, code[0].numpy(), encoder.space)
    return codes


def _certificate(memory: HarmonicMemory, settled: Settled) -> Certificate:
    steps = int(settled.steps[0])
    return Certificate(
        energies=tuple(settled.energies[: steps + 1, 0].tolist()),
        tail_mass=float(settled.tail[0]),
        error_bound=float(settled.bound[0]),
        nothing=float(settled.nothing[0]),
        steps=steps,
        converged=bool(settled.converged[0]),
        beta=float(settled.beta[0]),
        contraction=float(settled.contraction[0]),
        candidates=None if memory.population is None else memory.slots,
    )
