"""Cues that a memory makes of its own records: their parts, damaged copies of their files, their words."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from harmonia.collection.damage import damaged
from harmonia.collection.encoder_set import EncoderSet
from harmonia.collection.likelihoods import Cues, keywords, kind_of_words
from harmonia.collection.word_index import WordIndex
from harmonia.modalities import MODALITIES, Limits
from harmonia.store.protocol import CodeTable, Store
from harmonia.types import HarmoniaError, Part, Signal

# Records of which cues are made: files are read and encoded again for them.
MOST_TEXTS, MOST_FILES = 2048, 640
# Cues of a few words, at least: several of a record in a memory of few.
LEAST_WORDS = 512
# Words of a text cue that is made of a few of a text's words.
COUNTS = (1, 2, 3, 4, 5)
DAMAGED = ("image", "audio")
# Signals encoded at once.
BATCH = 64


def make_cues(
    store: Store,
    root: Path,
    encoders: EncoderSet,
    table: CodeTable,
    limits: Limits,
    rng: np.random.Generator,
    step: Callable[[], object] = lambda: None,
) -> tuple[dict[str, list[Cues]], WordIndex | None]:
    """The cues of each modality, and the word index without the texts that serve as cues as they are.

    A file that is gone or broken makes no cue.
    """
    cues: dict[str, list[Cues]] = {}
    index = None
    for modality in dict.fromkeys(e.modality for e in encoders.own.encoders):
        if modality == "text":
            found, index = _texts(store, encoders, table, rng)
        else:
            found = _stored(encoders, table, modality, rng)
            if modality in DAMAGED:
                found += _damaged(store, root, encoders, table, modality, limits, rng)
        if found:
            cues[modality] = found
        step()
    return cues, index


def _stored(encoders: EncoderSet, table: CodeTable, modality: str, rng: np.random.Generator) -> list[Cues]:
    """One part of each record, as it is."""
    names = [e.name for e in encoders.own.encoders if e.modality == modality]
    names = [name for name in names if len(table.encoders[name].record)]
    if not names:
        return []
    first = {name: np.unique(table.encoders[name].record, return_index=True) for name in names}
    records = first[names[0]][0]
    for name in names[1:]:
        records = np.intersect1d(records, first[name][0])
    records = np.sort(rng.permutation(records)[:MOST_TEXTS])
    codes = {
        name: table.encoders[name].codes[first[name][1][np.searchsorted(first[name][0], records)]]
        for name in names
    }
    return [Cues(records, codes, copied=True)] if len(records) else []


def _texts(
    store: Store, encoders: EncoderSet, table: CodeTable, rng: np.random.Generator
) -> tuple[list[Cues], WordIndex | None]:
    row = {record_id: number for number, record_id in enumerate(table.record_ids)}
    ids, texts = store.texts(table.record_ids)
    several: dict[int, list[str]] = {}
    for record_id, text in zip(ids, texts, strict=True):
        if record_id in row and text.strip():
            several.setdefault(row[record_id], []).append(text)
    if not several:
        return [], None
    records = rng.permutation(np.array(sorted(several)))[:MOST_TEXTS]
    chosen = {int(r): int(rng.integers(len(several[int(r)]))) for r in records}
    whole = [several[r][n] for r, n in chosen.items()]
    again = [pair for pair in chosen.items() for _ in range(-(-LEAST_WORDS // len(chosen)))]
    few = [keywords(several[r][n], int(rng.choice(COUNTS)), rng) for r, n in again]
    cues = [
        _encoded(encoders, np.array(rows), words, copied)
        for rows, words, copied in ((list(chosen), whole, True), ([r for r, _ in again], few, False))
    ]
    kept = [
        (table.record_ids[r], text)
        for r, held in several.items()
        for n, text in enumerate(held)
        if len(held) == 1 or chosen.get(r) != n
    ]
    index = WordIndex.build(table.record_ids, [i for i, _ in kept], [t for _, t in kept])
    return cues, index


def _encoded(encoders: EncoderSet, record: NDArray[np.int64], words: Sequence[str], copied: bool) -> Cues:
    signals = [Signal("text", one) for one in words]
    codes = {
        e.name: np.concatenate([e.encode(signals[n : n + BATCH]) for n in range(0, len(signals), BATCH)])
        for e in encoders.own.encoders
        if e.modality == "text"
    }
    return Cues(record, codes, words, [kind_of_words(one) for one in words], copied)


def _damaged(
    store: Store,
    root: Path,
    encoders: EncoderSet,
    table: CodeTable,
    modality: str,
    limits: Limits,
    rng: np.random.Generator,
) -> list[Cues]:
    """Two damaged copies of one part of each record whose file can be read."""
    own = [e for e in encoders.own.encoders if e.modality == modality]
    held = np.unique(table.encoders[own[0].name].record) if own else np.zeros(0, dtype=np.int64)
    records = np.sort(rng.permutation(held)[:MOST_FILES])
    ids = [table.record_ids[r] for r in records]
    parts = {
        record.id: next((p for p in record.parts if p.modality == modality and p.path), None)
        for record in store.records(ids)
    }
    of: list[int] = []
    codes: dict[str, list[NDArray[np.float32]]] = {e.name: [] for e in own}
    for first in range(0, len(records), BATCH):
        signals = []
        for record, record_id in zip(records[first : first + BATCH], ids[first : first + BATCH], strict=True):
            for signal in _read(parts.get(record_id), modality, root, limits):
                signals += [damaged(signal, rng), damaged(signal, rng)]
                of += [int(record)] * 2
        if signals:
            for e in own:
                codes[e.name].append(e.encode(signals))
    if not of:
        return []
    return [Cues(np.array(of), {name: np.concatenate(found) for name, found in codes.items()})]


def _read(part: Part | None, modality: str, root: Path, limits: Limits) -> Iterator[Signal]:
    if part is None or part.path is None or (part.start or 0) > 0:
        return
    try:
        yield next(iter(MODALITIES[modality].windows(root / part.path, limits=limits)))
    except (HarmoniaError, OSError, StopIteration):
        return
