"""Calibrate a memory on its own records: trust, couplings, slot bias and beta, kept where they help.

The queries are parts of the records (see :mod:`harmonia.tasks.self_retrieval`). Every constant is fitted on
four fifths of the records and scored on the rest, for each of five folds, and kept only if it improves the
scores. What is kept is the fit on all records. It is saved beside the store (see
:mod:`harmonia.collection.calibration`), and recall uses it from then on.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
from numpy.typing import NDArray
from tqdm import tqdm

from harmonia.collection.calibration import Calibration
from harmonia.collection.collection import Memory
from harmonia.collection.encoder_set import EncoderSet
from harmonia.metrics import paired_test
from harmonia.store import CodeTable, Store
from harmonia.tasks.calibration_fitting import FOLDS, Calibrations, Fitting
from harmonia.tasks.calibration_report import CalibrationReport, QueryFigures, Verdict
from harmonia.tasks.self_retrieval import (
    MIN_QUERIES,
    HeldOutQueries,
    QueryScores,
    by_fold,
    count_multipart,
    held_out_queries,
)
from harmonia.types import HarmoniaError

# Records with several parts that are needed; records and codes that are used of a larger memory.
MIN_RECORDS, MAX_RECORDS, MAX_CODES = 20, 4096, 65_536
# The level of the permutation test that decides whether a score differs.
SIGNIFICANCE = 0.05


def learn(collection: Memory, *, seed: int = 0, progress: bool = False) -> CalibrationReport:
    """Fit the constants of a memory to its own records, and save those that improve retrieval.

    ``seed`` decides which parts serve as queries. Nothing is written before the end, so that an interrupted
    run leaves the memory as it was.

    Raises:
        HarmoniaError: there is no memory, it was made with other encoders, or it has too few records with
            several parts.
    """
    store, encoders = collection.store, collection.encoders
    ids = store.ids()
    if not ids:
        raise HarmoniaError(f"the memory in {collection.root} is empty: remember something first")
    table = _sample(store, ids)
    report = _Run(encoders, table, len(ids), seed, progress).learn()
    report.calibration.save(collection.root)
    return report


def _sample(store: Store, ids: Sequence[str]) -> CodeTable:
    """All codes, or those of an even sample of the records."""
    per_record = sum(store.status()["parts"].values()) / len(ids)
    most = max(MIN_RECORDS, min(MAX_RECORDS, int(MAX_CODES / max(per_record, 1.0))))
    step = -(-len(ids) // most)
    return store.codes(sorted(ids)[::step] if step > 1 else None)


class _Run:
    """One calibration: the queries, the folds, and the decision on each constant."""

    def __init__(
        self, encoders: EncoderSet, table: CodeTable, records: int, seed: int, progress: bool
    ) -> None:
        self.encoders, self.table, self.records = encoders, table, records
        rng = np.random.default_rng(seed)
        multipart = count_multipart(encoders, table)
        self.queries = held_out_queries(encoders, table, rng) if multipart >= MIN_RECORDS else []
        if not self.queries:
            raise HarmoniaError(
                f"cannot calibrate: {MIN_RECORDS} records with two parts or more are needed (there are "
                f"{multipart}), {MIN_QUERIES} of them with the same modalities: remember more"
            )
        folds = rng.permutation(np.arange(len(table.record_ids)) % FOLDS)
        self.rows = [by_fold(queries, folds) for queries in self.queries]
        self.record = np.concatenate(
            [
                queries.record[row]
                for queries, rows in zip(self.queries, self.rows, strict=True)
                for row in rows
            ]
        )
        steps = 7 * len(self.queries) + 2 * (FOLDS + 1)
        self.bar = tqdm(desc="calibrating", total=steps, unit="step", delay=1.0, disable=not progress)
        self.fitting = Fitting(
            encoders, table, records, self.queries, folds, self.rows, rng, step=self.bar.update
        )

    def learn(self) -> CalibrationReport:
        """Fit the constants in turn, each on top of those that were kept before it."""
        start = Calibration(
            encoders=tuple(e.name for e in self.encoders.encoders),
            version=self.table.version,
            records=self.records,
        )
        kept: Calibrations = [start] * (FOLDS + 1)
        before = now = self.score(kept)
        verdicts = []
        fits: dict[str, Callable[[Calibrations], Calibrations | str]] = {
            "trust": self.fitting.trust,
            "couplings": self.fitting.couplings,
            "slot bias": self.fitting.slot_bias,
            "beta": self.fitting.beta,
        }
        with self.bar:
            for name, fit in fits.items():
                fitted = fit(kept)
                if isinstance(fitted, str):
                    verdicts.append(Verdict(name, kept=False, reason=fitted))
                    continue
                scores = self.score(fitted)
                verdicts.append(self.judge(name, now, scores))
                if verdicts[-1].kept:
                    kept, now = fitted, scores
        figures = tuple(map(_figures, self.queries, before, now))
        return CalibrationReport(
            self.records, len(self.table.record_ids), figures, tuple(verdicts), kept[FOLDS]
        )

    def score(self, calibrations: Calibrations) -> list[QueryScores]:
        """The scores of each kind of query; each fold uses its own calibration. Ordered by fold."""
        scores = []
        for queries, rows in zip(self.queries, self.rows, strict=True):
            memory = queries.memory()
            parts = [
                queries.score(memory, calibrations[fold], row) for fold, row in enumerate(rows) if len(row)
            ]
            scores.append(QueryScores.joined(parts))
            self.bar.update()
        return scores

    def judge(self, name: str, before: Sequence[QueryScores], after: Sequence[QueryScores]) -> Verdict:
        """Keep a constant if the mean score rises significantly and that of no kind of query falls so.

        The score of trust, couplings and slot bias is the reciprocal rank, and Recall@1 must not fall either.
        That of beta, which changes no rank, is the log probability of the right record.
        """
        ranks = name != "beta"
        old, new = ([s.reciprocal if ranks else s.log_p for s in scores] for scores in (before, after))
        all_old, all_new = np.concatenate(old), np.concatenate(new)
        kept = all_new.mean() > all_old.mean() and _differ(all_old, all_new, self.record)
        start = np.concatenate([[0], np.cumsum([len(o) for o in old])])
        for kind, (o, n) in enumerate(zip(old, new, strict=True)):
            record = self.record[start[kind] : start[kind + 1]]
            kept = kept and not (n.mean() < o.mean() and _differ(o, n, record))
        first, now_first = (np.concatenate([s.first for s in scores]) for scores in (before, after))
        worse = ranks and now_first.mean() < first.mean() and _differ(first, now_first, self.record)
        figure = "MRR" if ranks else "log p"
        return Verdict(name, bool(kept and not worse), figure, float(all_old.mean()), float(all_new.mean()))


def _differ(a: NDArray[np.float64], b: NDArray[np.float64], record: NDArray[np.int64]) -> bool:
    return bool((a != b).any()) and paired_test(a, b, groups=record, draws=999) < SIGNIFICANCE


def _figures(queries: HeldOutQueries, before: QueryScores, after: QueryScores) -> QueryFigures:
    return QueryFigures(
        queries.name,
        len(before.p),
        (float(before.first.mean()), float(after.first.mean())),
        (float(before.reciprocal.mean()), float(after.reciprocal.mean())),
    )
