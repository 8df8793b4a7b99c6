"""Lessons: cues that a memory's own records give, and the memory to ask them of.

No part may find itself, so a part that serves as a cue is taken out of the memory that is asked. There
are three kinds of lesson:

* one part of a modality of which the record holds several, asked of a memory without that part;
* such parts of two modalities, bound together;
* one part of a modality, asked of a memory that holds nothing of that modality: only the other
  modalities can answer, through a shared space or a coupling.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from copy import copy
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
from harmonia.store import Codes, CodeTable
from harmonia.types import MODALITIES, Code, Cue

# Answers looked at: a record behind them counts as not found.
LOOKED_AT = 100
# Cues of one kind: no fewer say anything, and more say little more.
FEWEST_CUES, MOST_CUES = 10, 1000
# What a right record is given at least, so that one surprise does not decide a mean logarithm.
LEAST_P = 1e-4

FIGURES = ("first", "reciprocal", "p")

Index = NDArray[np.int64]


@dataclass(frozen=True, slots=True, eq=False)
class Answers:
    """How well Q cues were answered, all ``(Q,)``.

    Whether the right record came ``first``, its ``reciprocal`` rank (0: not found), its probability ``p``.
    ``guess`` says that nothing could answer.
    """

    first: NDArray[np.float64]
    reciprocal: NDArray[np.float64]
    p: NDArray[np.float64]
    guess: bool = False

    @classmethod
    def guessed(cls, cues: int, records: int) -> Answers:
        """What a guess among so many records is right by, in the mean."""
        looked_at = min(LOOKED_AT, records)
        reciprocal = sum(1.0 / rank for rank in range(1, looked_at + 1)) / records
        first, found, p = (np.full(cues, value) for value in (1.0 / records, reciprocal, 1.0 / records))
        return cls(first, found, p, guess=True)

    @classmethod
    def joined(cls, parts: Sequence[Answers]) -> Answers:
        """The answers to several groups of cues, one after the other."""
        first, reciprocal, p = (np.concatenate([getattr(part, name) for part in parts]) for name in FIGURES)
        return cls(first, reciprocal, p)

    def where(self, chosen: NDArray[np.bool_], other: Answers) -> Answers:
        """These answers where ``chosen`` (Q,), else the others."""
        first, reciprocal, p = (
            np.where(chosen, getattr(self, name), getattr(other, name)) for name in FIGURES
        )
        return Answers(first, reciprocal, p)

    @property
    def log_p(self) -> NDArray[np.float64]:
        """The logarithm of the right record's probability."""
        return np.log(np.maximum(self.p, LEAST_P))


@dataclass(frozen=True, slots=True, eq=False)
class Lesson:
    """Q cues of one kind. ``record`` (Q,) are the rows they mean, ``parts[modality]`` (Q,) the numbers of
    their parts.

    ``whole`` says that the memory asked holds nothing of the cue's modality.
    """

    model: EncoderSet
    table: CodeTable
    record: Index
    parts: Mapping[str, Index]
    whole: bool = False

    @property
    def name(self) -> str:
        """What tables call this kind of cue."""
        return " + ".join(self.parts) + (", found by the rest" if self.whole else "")

    def memory(self) -> HarmonicMemory | None:
        """The memory to ask: without the parts that serve as cues."""
        encoders = {}
        for encoder in self.model.encoders:
            codes = self.table.encoders[encoder.name]
            part = self.parts.get(encoder.modality)
            if part is not None:
                keep = ~np.isin(piece_keys(codes.record, codes.part), piece_keys(self.record, part))
                codes = rows_of(codes, keep & (not self.whole))
            encoders[encoder.name] = codes
        return build_memory(self.model, replace(self.table, encoders=encoders))

    def codes(self, encoder: Encoder, rows: Index) -> NDArray[np.float32]:
        """The codes ``(Q, d)`` of some of the cues, of an encoder of one of their modalities."""
        codes = self.table.encoders[encoder.name]
        wanted = piece_keys(self.record[rows], self.parts[encoder.modality][rows])
        return codes.codes[np.searchsorted(piece_keys(codes.record, codes.part), wanted)]

    def given(
        self, memory: HarmonicMemory, learned: Calibration, rows: Index, *, bridge: bool = False
    ) -> list[Given]:
        """What some of the cues say to each matrix; with ``bridge`` to those that bridge modalities."""
        cues = [
            Cue(encoder.modality, Code(encoder.modality, self.codes(encoder, rows), encoder.space))
            for encoder in self.model.encoders
            if encoder.modality in self.parts
        ]
        if bridge:
            return [g for question in bridged(self.model, memory, cues) for g in question]
        return [g for given in learned.given(self.model, memory, cues) for g in given]

    def ask(self, memory: HarmonicMemory | None, learned: Calibration, rows: Index) -> Answers:
        """Recall by some of the cues with these constants; where nothing can answer, by a guess.

        As in :func:`harmonia.collection.recall.recall`, bridges answer where the rest abstains.
        """
        found = Answers.guessed(len(rows), len(self.table.record_ids))
        if memory is None:
            return found
        learned.apply(memory, self.table.record_ids)
        asked = np.ones(len(rows), dtype=bool)
        for bridge in (False, True):
            given = self.given(memory, learned, rows, bridge=bridge)
            if given:
                beta = None if bridge else learned.beta(memory, given)
                settled = narrowed(memory, given).recall(given, k=LOOKED_AT, steps=0, beta=beta)
                known = (settled.p[:, 0] > settled.nothing).numpy()
                found = self._answers(settled, rows).where(asked & (known | found.guess), found)
                asked = asked & ~known
        return found

    def _answers(self, settled: Settled, rows: Index) -> Answers:
        right = settled.slots[:, :LOOKED_AT] == self.slots(rows)[:, None]
        reciprocal = (right / torch.arange(1, right.shape[1] + 1)).sum(dim=1)
        p = (settled.p[:, :LOOKED_AT] * right).sum(dim=1)
        return Answers(right[:, 0].double().numpy(), reciprocal.double().numpy(), p.double().numpy())

    def slots(self, rows: Index) -> Tensor:
        """The slots that some of the cues mean."""
        return torch.from_numpy(self.record[rows])


def lessons(model: EncoderSet, table: CodeTable, rng: np.random.Generator) -> list[Lesson]:
    """Every kind of lesson for which there are enough records; each record gives one cue to a kind."""
    held = {m: pieces for m in MODALITIES if len((pieces := _pieces(model, table, m))[0])}
    # One draw per record, whatever the modality: the picture and the sound of one moment go together.
    draw = rng.random(len(table.record_ids))
    several = {m: _choose(*pieces, draw, least=2) for m, pieces in held.items()}
    found: list[Lesson] = []
    for modalities in [(m,) for m in several] + list(combinations(several, 2)):
        records = several[modalities[0]][0]
        for modality in modalities[1:]:
            records = np.intersect1d(records, several[modality][0])
        parts = {m: several[m][1][np.searchsorted(several[m][0], records)] for m in modalities}
        found.append(_some(Lesson(model, table, records, parts), rng))
    for modality, pieces in held.items():
        records, part = _choose(*pieces, draw, least=1)
        others = [o for o in held if o != modality]
        rest = np.unique(np.concatenate([held[o][0] for o in others])) if others else records[:0]
        both = np.isin(records, rest)
        lesson = Lesson(model, table, records[both], {modality: part[both]}, whole=True)
        found.append(_some(lesson, rng))
    return [lesson for lesson in found if len(lesson.record) >= FEWEST_CUES]


def any_part(model: EncoderSet, table: CodeTable, rng: np.random.Generator) -> list[Lesson]:
    """For every modality, one part of each record that has any: cues to ask of other records."""
    draw = rng.random(len(table.record_ids))
    found = []
    for modality in MODALITIES:
        records, part = _choose(*_pieces(model, table, modality), draw, least=1)
        if len(records):
            found.append(_some(Lesson(model, table, records, {modality: part}), rng))
    return found


def restricted(model: EncoderSet, table: CodeTable, keep: NDArray[np.bool_]) -> CodeTable:
    """The same rows of records, but only those in ``keep`` (N,) have parts."""
    encoders = {e.name: table.encoders[e.name] for e in model.encoders}
    return replace(
        table, encoders={name: rows_of(codes, keep[codes.record]) for name, codes in encoders.items()}
    )


def narrowed(memory: HarmonicMemory, given: Sequence[Given]) -> HarmonicMemory:
    """The same memory with only the matrices that the cues ask: what is not asked is not read out either."""
    keys = tuple(sorted({g.key for g in given}))
    narrow = copy(memory)
    narrow.layout = memory.view(keys)
    narrow.matrices = {key: memory.matrices[key] for key in keys}
    narrow._views = {}
    return narrow


def rows_of(codes: Codes, keep: NDArray[np.bool_]) -> Codes:
    """Some of the codes."""
    return Codes(*(getattr(codes, f.name)[keep] for f in fields(codes)))


def piece_keys(record: Index, part: Index) -> Index:
    """One number for each part, ascending as the codes of a table are."""
    keys: Index = (record << 24) | part
    return keys


def multipart(model: EncoderSet, table: CodeTable) -> int:
    """How many records have more than one part."""
    pieces = [_pieces(model, table, m)[0] for m in MODALITIES]
    return int((np.bincount(np.concatenate(pieces), minlength=1) > 1).sum())


def _pieces(model: EncoderSet, table: CodeTable, modality: str) -> tuple[Index, Index]:
    """Record and number of every part of a modality that all its encoders have a code of."""
    keys: Index | None = None
    for encoder in model.encoders:
        if encoder.modality == modality:
            codes = table.encoders[encoder.name]
            own = piece_keys(codes.record, codes.part)
            keys = own if keys is None else np.intersect1d(keys, own)
    keys = np.empty(0, dtype=np.int64) if keys is None else keys
    return keys >> 24, keys & 0xFFFFFF


def _choose(record: Index, part: Index, draw: NDArray[np.float64], least: int) -> tuple[Index, Index]:
    """The records with at least so many parts, ascending, and for each one of its parts."""
    distinct, first, count = np.unique(record, return_index=True, return_counts=True)
    enough = count >= least
    distinct, first, count = distinct[enough], first[enough], count[enough]
    return distinct, part[first + (draw[distinct] * count).astype(np.int64)]


def _some(lesson: Lesson, rng: np.random.Generator) -> Lesson:
    """At most ``MOST_CUES`` of the cues, drawn at random."""
    if len(lesson.record) <= MOST_CUES:
        return lesson
    rows = np.sort(rng.choice(len(lesson.record), MOST_CUES, replace=False))
    return replace(lesson, record=lesson.record[rows], parts={m: p[rows] for m, p in lesson.parts.items()})


def spokesman(model: EncoderSet, table: CodeTable, modality: str) -> str | None:
    """The encoder that stands for a modality in couplings: the first that compares within it."""
    names = [e.name for e in model.encoders if e.modality == modality and not isinstance(e, Bridge)]
    return next((name for name in names if len(table.encoders[name].record)), None)


def by_fold(lesson: Lesson, folds: Index) -> Sequence[Index]:
    """The rows of the lesson's cues in each fold of the records ``folds`` (N,)."""
    return [np.flatnonzero(folds[lesson.record] == fold) for fold in range(int(folds.max()) + 1)]
