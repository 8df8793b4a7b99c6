"""Fits of the constants of a calibration, each in cross-validation over the records.

Every fit takes the calibrations of all folds and returns them with one constant more. The calibration of a
fold is fitted on the records of the other folds; the last one, behind those of the folds, on all records. A
fit that is not possible returns the reason as a text. The methods are those of
:mod:`harmonia.memory.learning`.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from harmonia.collection.calibration import Calibration, Coupling
from harmonia.collection.encoder_set import EncoderSet
from harmonia.collection.matrices import build_memory
from harmonia.memory import Given, HarmonicMemory, learn_bias, learn_couplings, learn_trusts
from harmonia.memory.moment_scores import slot_scores
from harmonia.memory.settle import queries_of
from harmonia.store import CodeTable
from harmonia.tasks.self_retrieval import (
    HeldOutQueries,
    one_part_each,
    primary_encoder,
    restricted,
)
from harmonia.types import MODALITIES

FOLDS = 5
BIAS_ROUNDS = 4
# Queries of one kind that trust is fitted on: few numbers need few examples.
TRUST_QUERIES = 256

Calibrations = Sequence[Calibration]
"""One calibration for each fold, fitted on the other folds, and one fitted on all records."""
Weighted = tuple[dict[str, float], int]
"""Precisions by matrix or coupling, and the number of queries that they were fitted on."""


@dataclass(frozen=True, eq=False)
class Fitting:
    """The data that every fit uses.

    ``rows[i][fold]`` are the queries of ``queries[i]`` whose record is in the fold ``folds`` (N,);
    ``records`` counts the records of the memory, of which ``table`` may be a sample; ``step`` is called as
    work proceeds.
    """

    encoders: EncoderSet
    table: CodeTable
    records: int
    queries: Sequence[HeldOutQueries]
    folds: NDArray[np.int64]
    rows: Sequence[Sequence[NDArray[np.int64]]]
    rng: np.random.Generator
    step: Callable[[], object]

    # --- trust and beta

    def trust(self, calibrations: Calibrations) -> Calibrations | str:
        """Weight cues in proportion to their precision."""
        fitted = self.precisions(calibrations)
        if any(not calibration.precision for calibration in fitted):
            return "no part is left in any record to compare a cue with"
        if all(len(calibration.precision) == 1 for calibration in fitted):
            return "only one matrix answers, and there is nothing to weigh it against"
        return [replace(calibration, weighed=True) for calibration in fitted]

    def beta(self, calibrations: Calibrations) -> Calibrations | str:
        """Derive beta from the precision of the cues."""
        fitted = calibrations if calibrations[FOLDS].weighed else self.precisions(calibrations)
        if any(not calibration.precision for calibration in fitted):
            return "no part is left in any record to compare a cue with"
        return [replace(calibration, sharp=True) for calibration in fitted]

    def precisions(self, calibrations: Calibrations) -> Calibrations:
        """The precision of each matrix: the mean over the kinds of query that query it."""
        found: list[list[Weighted]] = [[] for _ in calibrations]
        for queries, rows in zip(self.queries, self.rows, strict=True):
            memory = queries.memory()
            for fold in range(len(calibrations)):
                sample = self._examples(rows, fold)
                if memory is None or not len(sample):
                    continue
                given = queries.given(memory, Calibration(), sample)
                if given:
                    found[fold].append((_precision(memory, given, queries.slots(sample)), len(sample)))
            self.step()
        return [replace(c, precision=_mean(parts)) for c, parts in zip(calibrations, found, strict=True)]

    def _examples(self, rows: Sequence[NDArray[np.int64]], fold: int) -> NDArray[np.int64]:
        """A sample of the queries of all folds but one."""
        others = np.concatenate([row for other, row in enumerate(rows) if other != fold])
        return self.rng.permutation(others)[:TRUST_QUERIES]

    # --- couplings

    def couplings(self, calibrations: Calibrations) -> Calibrations | str:
        """Fit ridge regressions between modalities, and the precision of the codes that they predict."""
        maps = [self._regress(fold) for fold in range(FOLDS + 1)]
        if not maps[FOLDS]:
            return "no two modalities are held together often enough"
        # A fold's own regression has not seen the fold: its precision there is not optimistic.
        found: list[list[Weighted]] = [[] for _ in range(FOLDS)]
        for queries, rows in zip(self.queries, self.rows, strict=True):
            memory = queries.memory() if queries.cross_modal else None
            for fold, row in enumerate(rows):
                if memory is not None and len(row):
                    found[fold] += self._coupling_precisions(memory, queries, maps[fold], row)
            self.step()
        fitted = []
        for fold, (calibration, couplings) in enumerate(zip(calibrations, maps, strict=True)):
            precision = _mean([part for other in range(FOLDS) if other != fold for part in found[other]])
            useful = [
                replace(c, precision=precision[_pair(c)])
                for c in couplings
                if precision.get(_pair(c), 0.0) > 0.0
            ]
            fitted.append(replace(calibration, couplings=tuple(useful)))
        return fitted if fitted[FOLDS].couplings else "no modality predicts another"

    def _regress(self, fold: int) -> list[Coupling]:
        """The regressions between modalities on the records outside of a fold, their precision still 0."""
        memory = build_memory(self.encoders, restricted(self.encoders, self.table, self.folds != fold))
        names = {primary_encoder(self.encoders, self.table, m) for m in MODALITIES}
        if memory is None:
            return []
        learn_couplings(memory)
        mean = {key: frame.mean for key, frame in memory.frames.items()}
        pairs = [(to, of) for to, of in memory.couplings if to in names and of in names]
        return [Coupling(of, to, memory.couplings[to, of], mean[of], 0.0) for to, of in pairs]

    def _coupling_precisions(
        self,
        memory: HarmonicMemory,
        queries: HeldOutQueries,
        couplings: Sequence[Coupling],
        rows: NDArray[np.int64],
    ) -> list[Weighted]:
        """The precision of the codes that each coupling predicts from the queries ``rows``."""
        found: list[Weighted] = []
        for encoder in self.encoders.encoders:
            for coupling in couplings if encoder.modality in queries.parts else []:
                if coupling.of == encoder.name and coupling.to in memory.matrices:
                    held = self.table.encoders[coupling.to].record
                    some = rows[np.isin(queries.record[rows], held)]
                    if len(some):
                        codes = coupling.predict(torch.from_numpy(queries.codes(encoder, some)))
                        given = Given(coupling.to, codes, origin=None)
                        precision = _weak_precision(memory, given, queries.slots(some))
                        found.append(({_pair(coupling): precision}, len(some)))
        return found

    # --- slot bias

    def slot_bias(self, calibrations: Calibrations) -> Calibrations | str:
        """Fit a bias against hubs with the cues of other records: each half of the records queries the other.

        So a record that answers its own cue is not taken for a hub, and records without a cue are treated
        alike.
        """
        if len(self.table.record_ids) < self.records:
            return f"not fitted in a memory of more than {len(self.table.record_ids):,} records"
        kinds = one_part_each(self.encoders, self.table, self.rng)
        half = self.rng.permutation(np.arange(self.records) % 2)
        total = np.zeros((len(calibrations), self.records))
        for side in range(2):
            memory = build_memory(self.encoders, restricted(self.encoders, self.table, half == side))
            if memory is None:
                continue
            for fold, calibration in enumerate(calibrations):
                for queries in kinds:
                    other = (half[queries.record] != side) & (self.folds[queries.record] != fold)
                    bias = self._bias(memory, calibration, queries, np.flatnonzero(other))
                    total[fold] += bias / len(kinds)
                self.step()
        ids = self.table.record_ids
        return [
            replace(c, bias={i: float(b) for i, b in zip(ids, bias, strict=True) if b})
            for c, bias in zip(calibrations, total, strict=True)
        ]

    def _bias(
        self,
        memory: HarmonicMemory,
        calibration: Calibration,
        queries: HeldOutQueries,
        rows: NDArray[np.int64],
    ) -> NDArray[np.float64]:
        """The bias (records,) that levels how often each record answers; 0 for records outside the memory."""
        calibration.apply(memory, self.table.record_ids)
        given = queries.given(memory, replace(calibration, couplings=()), rows) if len(rows) else []
        if not given:
            return np.zeros(self.records)
        memory = memory.narrowed(sorted({g.key for g in given}))
        alive = torch.zeros_like(memory.alive)
        alive[memory.layout.visible] = True
        memory.alive = alive
        learn_bias(memory, given, rounds=BIAS_ROUNDS)
        return torch.where(memory.alive, memory.bias, 0.0).double().numpy()


def _precision(memory: HarmonicMemory, given: Sequence[Given], slots: Tensor) -> dict[str, float]:
    """How far the right slots score over the others for each matrix, in units of chance."""
    memory = memory.narrowed(sorted({g.key for g in given}))
    memory.bias = torch.zeros_like(memory.bias)
    try:
        total = learn_trusts(memory, given, slots)
    except ValueError:  # the cues carry no information
        return {g.key: 0.0 for g in given}
    length = sum(memory.trusts[g.key] ** 2 for g in given) ** 0.5
    return {key: total * trust / length for key, trust in memory.trusts.items()}


def _weak_precision(memory: HarmonicMemory, given: Given, slots: Tensor) -> float:
    """How far the right slots score over random others by one weak cue, in units of chance.

    For Gaussian scores it equals the precision that ``learn_trusts`` fits. That fit uses the nearest rivals,
    however, so it learns nothing from a cue that seldom comes near the right record.
    """
    channels = memory.channels([given])
    queries = queries_of(memory.matrices, channels, [c.cue for c in channels])
    view, row = memory.view((given.key,)), torch.arange(len(slots))
    right, other = (slot_scores(view, queries, row, s) for s in (slots, slots.roll(1)))
    return max(0.0, float((right - other).mean()))


def _mean(parts: Sequence[Weighted]) -> dict[str, float]:
    """The mean of each entry, weighted by the number of queries."""
    sums: dict[str, list[float]] = {}
    for precisions, count in parts:
        for key, value in precisions.items():
            total = sums.setdefault(key, [0.0, 0.0])
            total[0] += value * count
            total[1] += count
    return {key: value / count for key, (value, count) in sums.items()}


def _pair(coupling: Coupling) -> str:
    return f"{coupling.of} > {coupling.to}"
