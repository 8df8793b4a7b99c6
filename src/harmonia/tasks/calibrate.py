"""learn: how far to trust each modality, which records are hubs, what one modality says of another.

All of it from the records that a memory holds (see ``lessons``), with the methods of
:mod:`harmonia.memory.learning`. Every constant is learned on four fifths of the records and judged on the
fifth that is left, five times in turn, and kept only where it finds these records better. What is kept is
then learned from all of them and saved beside the store (see ``learned``); recall uses it from then on.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from tqdm import tqdm

from harmonia.collection.calibration import Calibration, Coupling
from harmonia.collection.collection import Collection
from harmonia.collection.encoder_set import EncoderSet
from harmonia.collection.matrices import build_memory
from harmonia.memory import Given, HarmonicMemory, learn_bias, learn_couplings, learn_trusts
from harmonia.memory.moment_scores import slot_scores
from harmonia.memory.settle import queries_of
from harmonia.metrics import paired_test
from harmonia.store import CodeTable, Store
from harmonia.tasks.self_retrieval import (
    FEWEST_CUES,
    Answers,
    Lesson,
    any_part,
    by_fold,
    lessons,
    multipart,
    narrowed,
    restricted,
    spokesman,
)
from harmonia.types import MODALITIES, HarmoniaError

# Records with several parts, at least; records and codes that are learned from, at most.
FEWEST, MOST_RECORDS, MOST_CODES = 20, 4096, 65_536
FOLDS = 5
# A constant is kept if chance alone would rarely have raised the figures as much.
SIGNIFICANT = 0.05
BIAS_ROUNDS = 4
# Cues that trust is learned from, per kind: few numbers need few examples.
TRUST_CUES = 256

Constants = Sequence[Calibration]
"""Those that each fold is judged with, learned on the others."""


@dataclass(frozen=True, slots=True)
class Figures:
    """Of one kind of cue: how many there were, and the means over them before and after learning."""

    cue: str
    cues: int
    first: tuple[float, float]
    mrr: tuple[float, float]


@dataclass(frozen=True, slots=True)
class Verdict:
    """Whether a constant was kept, and the figure on all held-out cues that decided it.

    ``figure`` is "MRR", or for beta "log p", the mean logarithm of the right record's probability.
    ``reason`` is set where the constant could not be learned at all.
    """

    constant: str
    kept: bool
    figure: str = "MRR"
    before: float = 0.0
    after: float = 0.0
    reason: str = ""

    def __str__(self) -> str:
        if self.reason:
            return f"{self.constant}: {self.reason}, left out"
        moved = f"{self.figure} {self.before:.3f} -> {self.after:.3f}"
        return (
            f"{self.constant}: {moved}, kept"
            if self.kept
            else f"{self.constant}: no better ({moved}), left out"
        )


@dataclass(frozen=True, slots=True)
class CalibrationReport:
    """What one run learned, and the figures that speak for it. ``read`` of ``records`` were looked at."""

    records: int
    read: int
    figures: tuple[Figures, ...]
    verdicts: tuple[Verdict, ...]
    learned: Calibration


def learn(collection: Collection, *, seed: int = 0, progress: bool = False) -> CalibrationReport:
    """Learn the constants of a memory from its own records and save those that help.

    HarmoniaError if there is no memory, or too few records with several parts to learn from. Nothing is
    written before the end, so that a run that is stopped leaves all as it was.
    """
    # Other encoders than the store's are refused.
    store, model = collection.store, collection.encoders
    ids = store.ids()
    if not ids:
        raise HarmoniaError(f"the memory in {collection.root} is empty: remember something first")
    table = _sample(store, ids)
    run = _Run(model, table, len(ids), seed, progress)
    lore = run.learn()
    lore.learned.save(collection.root)
    return lore


def _sample(store: Store, ids: Sequence[str]) -> CodeTable:
    """All codes, or those of an even sample of the records."""
    per_record = sum(store.status()["parts"].values()) / len(ids)
    most = max(FEWEST, min(MOST_RECORDS, int(MOST_CODES / max(per_record, 1.0))))
    step = -(-len(ids) // most)
    return store.codes(sorted(ids)[::step] if step > 1 else None)


class _Run:
    """One run: the lessons, the folds, and one method for each constant."""

    def __init__(self, model: EncoderSet, table: CodeTable, records: int, seed: int, progress: bool) -> None:
        self.model, self.table, self.records = model, table, records
        self.rng = np.random.default_rng(seed)
        found = multipart(model, table)
        self.lessons = lessons(model, table, self.rng) if found >= FEWEST else []
        if not self.lessons:
            raise HarmoniaError(
                f"too little to learn from: {FEWEST} records with two parts or more are needed (there are "
                f"{found}), with {FEWEST_CUES} of the same modalities: remember more"
            )
        self.folds = self.rng.permutation(np.arange(len(table.record_ids)) % FOLDS)
        self.rows = [by_fold(lesson, self.folds) for lesson in self.lessons]
        self.record = np.concatenate(
            [lesson.record[row] for lesson, rows in zip(self.lessons, self.rows, strict=True) for row in rows]
        )
        steps = 7 * len(self.lessons) + 2 * (FOLDS + 1)
        self.bar = tqdm(desc="learning", total=steps, unit="step", delay=1.0, disable=not progress)

    def learn(self) -> CalibrationReport:
        """Each constant in turn, upon those that were kept before it."""
        plain = Calibration(
            encoders=tuple(e.name for e in self.model.encoders),
            version=self.table.version,
            records=self.records,
        )
        kept: Constants = [plain] * (FOLDS + 1)
        before = now = self.ask(kept)
        verdicts = []
        steps: dict[str, Callable[[Constants], Constants | str]] = {
            "trust": self.trusts,
            "couplings": self.couplings,
            "slot bias": self.biases,
            "beta": self.betas,
        }
        with self.bar:
            for name, step in steps.items():
                tried = step(kept)
                if isinstance(tried, str):
                    verdicts.append(Verdict(name, kept=False, reason=tried))
                else:
                    answers = self.ask(tried)
                    verdicts.append(self.judge(name, now, answers))
                    if verdicts[-1].kept:
                        kept, now = tried, answers
        figures = tuple(map(_figures, self.lessons, before, now))
        return CalibrationReport(
            self.records, len(self.table.record_ids), figures, tuple(verdicts), kept[FOLDS]
        )

    def ask(self, constants: Constants) -> list[Answers]:
        """The answers to every lesson, each fold with its own constants, in the order of the folds."""
        found = []
        for lesson, rows in zip(self.lessons, self.rows, strict=True):
            memory = lesson.memory()
            asked = [(constants[fold], row) for fold, row in enumerate(rows) if len(row)]
            found.append(Answers.joined([lesson.ask(memory, learned, row) for learned, row in asked]))
            self.bar.update()
        return found

    def judge(self, name: str, before: Sequence[Answers], after: Sequence[Answers]) -> Verdict:
        """Kept if the figures of the held-out cues rise in the mean, beyond chance, and none falls.

        Of trust, couplings and slot bias the figure is the reciprocal rank, and Recall@1 must not fall;
        of beta, which moves no rank, the logarithm of the right record's probability.
        """
        ranks = name != "beta"
        old, new = ([a.reciprocal if ranks else a.log_p for a in answers] for answers in (before, after))
        was, now = np.concatenate(old), np.concatenate(new)
        kept = now.mean() > was.mean() and _differ(was, now, self.record)
        at = np.concatenate([[0], np.cumsum([len(o) for o in old])])
        for kind, (o, n) in enumerate(zip(old, new, strict=True)):
            own = self.record[at[kind] : at[kind + 1]]
            kept = kept and not (n.mean() < o.mean() and _differ(o, n, own))
        first, firsts = (np.concatenate([a.first for a in answers]) for answers in (before, after))
        kept = kept and not (ranks and firsts.mean() < first.mean() and _differ(first, firsts, self.record))
        figure = "MRR" if ranks else "log p"
        return Verdict(name, bool(kept), figure, float(was.mean()), float(now.mean()))

    def trusts(self, constants: Constants) -> Constants | str:
        """Cues count by how far they rise over chance."""
        precise = self.precisions(constants)
        if any(not learned.precision for learned in precise):
            return "no part is left in any record to compare a cue with"
        if all(len(learned.precision) == 1 for learned in precise):
            return "only one matrix answers, and there is nothing to weigh it against"
        return [replace(learned, weighed=True) for learned in precise]

    def precisions(self, constants: Constants) -> Constants:
        """How far a cue for each matrix rises over chance: the mean over the lessons that ask it."""
        found: list[list[tuple[dict[str, float], int]]] = [[] for _ in constants]
        for lesson, rows in zip(self.lessons, self.rows, strict=True):
            memory = lesson.memory()
            for fold in range(len(constants)):
                some = self._examples(rows, fold)
                given = lesson.given(memory, Calibration(), some) if memory is not None and len(some) else []
                if memory is not None and given:
                    found[fold].append((_precision(memory, given, lesson.slots(some)), len(some)))
            self.bar.update()
        return [replace(c, precision=_mean(parts)) for c, parts in zip(constants, found, strict=True)]

    def _examples(self, rows: Sequence[NDArray[np.int64]], fold: int) -> NDArray[np.int64]:
        """The rows of all folds but one, or as many of them as tell enough."""
        others = np.concatenate([row for other, row in enumerate(rows) if other != fold])
        return self.rng.permutation(others)[:TRUST_CUES]

    def couplings(self, constants: Constants) -> Constants | str:
        """Ridge regressions between modalities, and how far to trust what they foretell."""
        maps = [self._regress(fold) for fold in range(FOLDS + 1)]
        if not maps[FOLDS]:
            return "no two modalities are held together often enough"
        # Each fold's own regression has not seen the fold: its precision there is an honest one.
        found: list[list[tuple[dict[str, float], int]]] = [[] for _ in range(FOLDS)]
        for lesson, rows in zip(self.lessons, self.rows, strict=True):
            memory = lesson.memory() if lesson.whole else None
            for fold, row in enumerate(rows):
                if memory is not None and len(row):
                    found[fold] += self._foretold(memory, lesson, maps[fold], row)
            self.bar.update()
        out = []
        for fold, (learned, blocks) in enumerate(zip(constants, maps, strict=True)):
            parts = [part for other in range(FOLDS) if other != fold for part in found[other]]
            precision = _mean(parts)
            sure = [
                replace(c, precision=precision[_pair(c)])
                for c in blocks
                if precision.get(_pair(c), 0.0) > 0.0
            ]
            out.append(replace(learned, couplings=tuple(sure)))
        return out if out[FOLDS].couplings else "no modality says anything of another"

    def _regress(self, fold: int) -> list[Coupling]:
        """The regressions between modalities from the records outside of a fold, precision not known."""
        keep = self.folds != fold
        memory = build_memory(self.model, restricted(self.model, self.table, keep))
        names = {m: spokesman(self.model, self.table, m) for m in MODALITIES}
        if memory is None:
            return []
        learn_couplings(memory)
        mean = {key: frame.mean for key, frame in memory.frames.items()}
        pairs = [(to, of) for to, of in memory.couplings if to in names.values() and of in names.values()]
        return [Coupling(of, to, memory.couplings[to, of], mean[of], 0.0) for to, of in pairs]

    def _foretold(
        self, memory: HarmonicMemory, lesson: Lesson, blocks: Sequence[Coupling], rows: NDArray[np.int64]
    ) -> list[tuple[dict[str, float], int]]:
        """How far the codes that a lesson's cues foretell rise over chance, each coupling by itself."""
        found = []
        for encoder in self.model.encoders:
            for block in blocks if encoder.modality in lesson.parts else []:
                if block.of == encoder.name and block.to in memory.matrices:
                    some = rows[np.isin(lesson.record[rows], self.table.encoders[block.to].record)]
                    if len(some):
                        codes = block.predict(torch.from_numpy(lesson.codes(encoder, some)))
                        rise = _rise(memory, Given(block.to, codes, origin=None), lesson.slots(some))
                        found.append(({_pair(block): rise}, len(some)))
        return found

    def biases(self, constants: Constants) -> Constants | str:
        """The slot bias by the cues of other records: each half of the records is asked by the other half.

        So no record is a hub for answering its own cue, and records without a cue are treated alike.
        """
        if len(self.table.record_ids) < self.records:
            return f"not learned in a memory of more than {len(self.table.record_ids):,} records"
        cues = any_part(self.model, self.table, self.rng)
        half = self.rng.permutation(np.arange(self.records) % 2)
        total = np.zeros((len(constants), self.records))
        for side in range(2):
            memory = build_memory(self.model, restricted(self.model, self.table, half == side))
            if memory is None:
                continue
            for fold, learned in enumerate(constants):
                for lesson in cues:
                    asks = (half[lesson.record] != side) & (self.folds[lesson.record] != fold)
                    total[fold] += self._bias(memory, learned, lesson, np.flatnonzero(asks)) / len(cues)
                self.bar.update()
        ids = self.table.record_ids
        return [
            replace(c, bias={i: float(b) for i, b in zip(ids, bias, strict=True) if b})
            for c, bias in zip(constants, total, strict=True)
        ]

    def _bias(
        self, memory: HarmonicMemory, learned: Calibration, lesson: Lesson, rows: NDArray[np.int64]
    ) -> NDArray[np.float64]:
        """The bias (records,) that takes away the hubs of these cues; 0 where the memory holds no record."""
        learned.apply(memory, self.table.record_ids)
        given = lesson.given(memory, replace(learned, couplings=()), rows) if len(rows) else []
        if not given:
            return np.zeros(self.records)
        memory = narrowed(memory, given)
        memory.alive = torch.zeros_like(memory.alive)
        memory.alive[memory.layout.visible] = True
        learn_bias(memory, given, rounds=BIAS_ROUNDS)
        return torch.where(memory.alive, memory.bias, 0.0).double().numpy()

    def betas(self, constants: Constants) -> Constants | str:
        """Beta by how far the cues rise over chance."""
        precise = constants if constants[FOLDS].weighed else self.precisions(constants)
        if any(not learned.precision for learned in precise):
            return "no part is left in any record to compare a cue with"
        return [replace(learned, sharp=True) for learned in precise]


def _precision(memory: HarmonicMemory, given: Sequence[Given], slots: Tensor) -> dict[str, float]:
    """How far, in units of chance, the right slots rise by the cues for each matrix."""
    memory = narrowed(memory, given)
    memory.bias = torch.zeros_like(memory.bias)
    try:
        total = learn_trusts(memory, given, slots)
    except ValueError:  # they tell nothing at all
        return {g.key: 0.0 for g in given}
    length = sum(memory.trusts[g.key] ** 2 for g in given) ** 0.5
    return {key: total * trust / length for key, trust in memory.trusts.items()}


def _rise(memory: HarmonicMemory, given: Given, slots: Tensor) -> float:
    """How far, in units of chance, the right slots rise over others by one weak cue.

    For Gaussian scores it is the precision that ``learn_trusts`` finds too. That learns from the nearest
    rivals, however, and a cue that seldom comes near to the right record teaches it nothing.
    """
    channels = memory.channels([given])
    queries = queries_of(memory.matrices, channels, [c.cue for c in channels])
    view, row = memory.view((given.key,)), torch.arange(len(slots))
    right, other = (slot_scores(view, queries, row, s) for s in (slots, slots.roll(1)))
    return max(0.0, float((right - other).mean()))


def _mean(parts: Sequence[tuple[dict[str, float], int]]) -> dict[str, float]:
    """The mean of each entry, weighted by the number of cues it was found from."""
    total: dict[str, list[float]] = {}
    for found, count in parts:
        for key, value in found.items():
            both = total.setdefault(key, [0.0, 0.0])
            both[0] += value * count
            both[1] += count
    return {key: value / count for key, (value, count) in total.items()}


def _pair(coupling: Coupling) -> str:
    return f"{coupling.of} > {coupling.to}"


def _differ(a: NDArray[np.float64], b: NDArray[np.float64], record: NDArray[np.int64]) -> bool:
    return bool((a != b).any()) and paired_test(a, b, groups=record, draws=999) < SIGNIFICANT


def _figures(lesson: Lesson, before: Answers, after: Answers) -> Figures:
    first, mrr = ((float(x.mean()), float(y.mean())) for x, y in (
        (before.first, after.first), (before.reciprocal, after.reciprocal),
    ))  # fmt: skip
    return Figures(lesson.name, len(before.p), first, mrr)
