"""Self-retrieval: held-out parts of the records as queries, and the memory without them.

A part that serves as a query is removed from the memory that answers it, so that it cannot retrieve itself.
There are three kinds of query:

* one part of a modality of which the record holds several, without that part in the memory;
* such parts of two modalities, as one query of two cues;
* one part of a modality, without that whole modality in the memory: only other modalities can answer it,
  through a shared space or a coupling (cross-modal retrieval).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields, replace
from itertools import combinations

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from harmonia.collection.calibration import Calibration
from harmonia.collection.encoder_set import EncoderSet
from harmonia.collection.matrices import bridged, build_memory
from harmonia.encoders import Bridge
from harmonia.encoders.base import Encoder
from harmonia.memory import Given, HarmonicMemory, Settled
from harmonia.memory.match_test import FALSE_RECALL
from harmonia.store import Codes, CodeTable
from harmonia.types import MODALITIES, Code, Cue

# Ranks that are scored: the right record below them counts as not retrieved.
CUTOFF = 100
# Queries of one kind: fewer are not evaluated, and of more a sample is.
MIN_QUERIES, MAX_QUERIES = 10, 1000
# The least probability in a mean logarithm, so that one query does not decide it.
MIN_PROBABILITY = 1e-4

FIELDS = ("first", "reciprocal", "p")

Index = NDArray[np.int64]


@dataclass(frozen=True, slots=True, eq=False)
class QueryScores:
    """The scores of Q queries, all ``(Q,)``.

    ``first`` is 1 if the right record ranks first, ``reciprocal`` its reciprocal rank (0: not retrieved),
    ``p`` its probability. ``chance`` marks scores of a random ranking, for queries that no matrix can answer.
    """

    first: NDArray[np.float64]
    reciprocal: NDArray[np.float64]
    p: NDArray[np.float64]
    chance: bool = False

    @classmethod
    def of_chance(cls, queries: int, records: int) -> QueryScores:
        """The expected scores of a random ranking of so many records."""
        mrr = sum(1.0 / rank for rank in range(1, min(CUTOFF, records) + 1)) / records
        first, reciprocal, p = (np.full(queries, value) for value in (1.0 / records, mrr, 1.0 / records))
        return cls(first, reciprocal, p, chance=True)

    @classmethod
    def joined(cls, parts: Sequence[QueryScores]) -> QueryScores:
        """The scores of several groups of queries, one after the other."""
        first, reciprocal, p = (np.concatenate([getattr(part, name) for part in parts]) for name in FIELDS)
        return cls(first, reciprocal, p)

    def where(self, chosen: NDArray[np.bool_], other: QueryScores) -> QueryScores:
        """These scores where ``chosen`` (Q,) is true, else the others."""
        first, reciprocal, p = (
            np.where(chosen, getattr(self, name), getattr(other, name)) for name in FIELDS
        )
        return QueryScores(first, reciprocal, p)

    @property
    def log_p(self) -> NDArray[np.float64]:
        """The logarithm of the right record's probability."""
        return np.log(np.maximum(self.p, MIN_PROBABILITY))


@dataclass(frozen=True, slots=True, eq=False)
class HeldOutQueries:
    """Q queries of one kind, each from one record.

    ``record`` (Q,) are the rows of the records in ``table``, ``parts[modality]`` (Q,) the numbers of the
    parts that serve as cues. ``cross_modal`` removes the whole modality of the cue from the memory, not just
    the part.
    """

    model: EncoderSet
    table: CodeTable
    record: Index
    parts: Mapping[str, Index]
    cross_modal: bool = False

    @property
    def name(self) -> str:
        """The name of this kind of query in tables."""
        return " + ".join(self.parts) + (" -> other modalities" if self.cross_modal else "")

    def memory(self) -> HarmonicMemory | None:
        """The memory without the parts that serve as cues; None if nothing is left."""
        encoders = {}
        for encoder in self.model.encoders:
            codes = self.table.encoders[encoder.name]
            part = self.parts.get(encoder.modality)
            if part is not None:
                keep = ~np.isin(part_keys(codes.record, codes.part), part_keys(self.record, part))
                codes = rows_of(codes, keep & (not self.cross_modal))
            encoders[encoder.name] = codes
        return build_memory(self.model, replace(self.table, encoders=encoders))

    def codes(self, encoder: Encoder, rows: Index) -> NDArray[np.float32]:
        """The codes ``(Q, d)`` of the queries ``rows``, by an encoder of one of their modalities."""
        codes = self.table.encoders[encoder.name]
        wanted = part_keys(self.record[rows], self.parts[encoder.modality][rows])
        return codes.codes[np.searchsorted(part_keys(codes.record, codes.part), wanted)]

    def given(
        self, memory: HarmonicMemory, calibration: Calibration, rows: Index, *, bridge: bool = False
    ) -> list[Given]:
        """The cues of the queries ``rows`` for each matrix; ``bridge`` for those of bridge encoders only."""
        cues = [
            Cue(encoder.modality, Code(encoder.modality, self.codes(encoder, rows), encoder.space))
            for encoder in self.model.encoders
            if encoder.modality in self.parts
        ]
        if bridge:
            return [g for cue in bridged(self.model, memory, cues) for g in cue]
        return [g for cue in calibration.given(self.model, memory, cues) for g in cue]

    def score(self, memory: HarmonicMemory | None, calibration: Calibration, rows: Index) -> QueryScores:
        """The scores of recall by the queries ``rows`` with a calibration; chance if no matrix can answer.

        As in :func:`harmonia.collection.recall.recall`, bridge encoders answer where the others abstain.
        """
        scores = QueryScores.of_chance(len(rows), len(self.table.record_ids))
        if memory is None:
            return scores
        calibration.apply(memory, self.table.record_ids)
        pending = np.ones(len(rows), dtype=bool)
        for bridge in (False, True):
            given = self.given(memory, calibration, rows, bridge=bridge)
            if given:
                beta = None if bridge else calibration.beta(memory, given)
                narrow = memory.narrowed(sorted({g.key for g in given}))
                settled = narrow.recall(given, k=CUTOFF, steps=0, beta=beta)
                answered = (settled.nothing <= FALSE_RECALL).numpy()
                scores = self._scores(settled, rows).where(pending & (answered | scores.chance), scores)
                pending = pending & ~answered
        return scores

    def _scores(self, settled: Settled, rows: Index) -> QueryScores:
        right = settled.slots[:, :CUTOFF] == self.slots(rows)[:, None]
        reciprocal = (right / torch.arange(1, right.shape[1] + 1)).sum(dim=1)
        p = (settled.p[:, :CUTOFF] * right).sum(dim=1)
        return QueryScores(right[:, 0].double().numpy(), reciprocal.double().numpy(), p.double().numpy())

    def slots(self, rows: Index) -> Tensor:
        """The slots of the right records of the queries ``rows``."""
        return torch.from_numpy(self.record[rows])


def held_out_queries(model: EncoderSet, table: CodeTable, rng: np.random.Generator) -> list[HeldOutQueries]:
    """The queries of every kind for which there are enough records; a record gives one query to a kind."""
    held = {m: own for m in MODALITIES if len((own := _parts(model, table, m))[0])}
    # One draw for each record, whatever the modality: the image and the sound of one moment stay together.
    draw = rng.random(len(table.record_ids))
    several = {m: _choose(*own, draw, least=2) for m, own in held.items()}
    kinds: list[HeldOutQueries] = []
    for modalities in [(m,) for m in several] + list(combinations(several, 2)):
        records = several[modalities[0]][0]
        for modality in modalities[1:]:
            records = np.intersect1d(records, several[modality][0])
        parts = {m: several[m][1][np.searchsorted(several[m][0], records)] for m in modalities}
        kinds.append(_sample(HeldOutQueries(model, table, records, parts), rng))
    for modality, own in held.items():
        records, part = _choose(*own, draw, least=1)
        others = [o for o in held if o != modality]
        rest = np.unique(np.concatenate([held[o][0] for o in others])) if others else records[:0]
        both = np.isin(records, rest)
        queries = HeldOutQueries(model, table, records[both], {modality: part[both]}, cross_modal=True)
        kinds.append(_sample(queries, rng))
    return [queries for queries in kinds if len(queries.record) >= MIN_QUERIES]


def one_part_each(model: EncoderSet, table: CodeTable, rng: np.random.Generator) -> list[HeldOutQueries]:
    """For every modality, one part of each record that has any: probes for hubs among the other records."""
    draw = rng.random(len(table.record_ids))
    kinds = []
    for modality in MODALITIES:
        records, part = _choose(*_parts(model, table, modality), draw, least=1)
        if len(records):
            kinds.append(_sample(HeldOutQueries(model, table, records, {modality: part}), rng))
    return kinds


def restricted(model: EncoderSet, table: CodeTable, keep: NDArray[np.bool_]) -> CodeTable:
    """The same table without the parts of records outside of ``keep`` (N,); their rows stay."""
    encoders = {e.name: table.encoders[e.name] for e in model.encoders}
    return replace(
        table, encoders={name: rows_of(codes, keep[codes.record]) for name, codes in encoders.items()}
    )


def rows_of(codes: Codes, keep: NDArray[np.bool_]) -> Codes:
    """The codes where ``keep`` is true."""
    return Codes(*(getattr(codes, f.name)[keep] for f in fields(codes)))


def part_keys(record: Index, part: Index) -> Index:
    """One number for each part, in the order of the codes of a table."""
    keys: Index = (record << 24) | part
    return keys


def count_multipart(model: EncoderSet, table: CodeTable) -> int:
    """The number of records with more than one part."""
    records = [_parts(model, table, m)[0] for m in MODALITIES]
    return int((np.bincount(np.concatenate(records), minlength=1) > 1).sum())


def _parts(model: EncoderSet, table: CodeTable, modality: str) -> tuple[Index, Index]:
    """Record and number of every part of a modality that has a code by each of its encoders."""
    keys: Index | None = None
    for encoder in model.encoders:
        if encoder.modality == modality:
            codes = table.encoders[encoder.name]
            own = part_keys(codes.record, codes.part)
            keys = own if keys is None else np.intersect1d(keys, own)
    keys = np.empty(0, dtype=np.int64) if keys is None else keys
    return keys >> 24, keys & 0xFFFFFF


def _choose(record: Index, part: Index, draw: NDArray[np.float64], least: int) -> tuple[Index, Index]:
    """The records with ``least`` parts or more, ascending, and one part of each, by ``draw`` in [0, 1)."""
    distinct, first, count = np.unique(record, return_index=True, return_counts=True)
    enough = count >= least
    distinct, first, count = distinct[enough], first[enough], count[enough]
    return distinct, part[first + (draw[distinct] * count).astype(np.int64)]


def _sample(queries: HeldOutQueries, rng: np.random.Generator) -> HeldOutQueries:
    """A random sample of at most ``MAX_QUERIES`` of the queries."""
    if len(queries.record) <= MAX_QUERIES:
        return queries
    rows = np.sort(rng.choice(len(queries.record), MAX_QUERIES, replace=False))
    parts = {modality: numbers[rows] for modality, numbers in queries.parts.items()}
    return replace(queries, record=queries.record[rows], parts=parts)


def primary_encoder(model: EncoderSet, table: CodeTable, modality: str) -> str | None:
    """The encoder that represents a modality in couplings: the first with codes that is not a bridge."""
    names = [e.name for e in model.encoders if e.modality == modality and not isinstance(e, Bridge)]
    return next((name for name in names if len(table.encoders[name].record)), None)


def by_fold(queries: HeldOutQueries, folds: Index) -> Sequence[Index]:
    """The rows of the queries in each fold; ``folds`` (N,) is the fold of each record."""
    return [np.flatnonzero(folds[queries.record] == fold) for fold in range(int(folds.max()) + 1)]
