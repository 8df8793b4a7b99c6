"""retrieve: encode -> search. The plain nearest-neighbour search, to compare recall with."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from harmonia.collection.encoder_set import EncoderSet
from harmonia.store.protocol import CodeTable
from harmonia.types import Cue, HarmoniaError, Neighbour, Record

Metric = Literal["cosine", "euclidean"]


def retrieve(
    encoders: EncoderSet,
    table: CodeTable,
    fetch: Callable[[Sequence[str]], Sequence[Record]],
    cues: Sequence[Cue],
    *,
    k: int = 10,
    allowed: NDArray[np.bool_] | None = None,
    metric: Metric = "cosine",
) -> tuple[Neighbour, ...]:
    """The ``k`` records nearest to the cues: weighted mean over the cues, best part of each record.

    Codes are compared as the encoders made them: no centring, no settling, no probability. A record
    that a cue cannot be compared with gets no vote from it. Encoders that only bridge modalities take no
    part, since their cosines are of another size.
    """
    if k < 1:
        raise HarmoniaError(f"the number of records must be at least 1 (got {k})")
    if metric not in ("cosine", "euclidean"):
        raise HarmoniaError(f"no metric is called {metric!r}: use cosine or euclidean")
    similarity = similarities(encoders, table, cues, metric)
    if allowed is not None:
        similarity = np.where(allowed, similarity, -np.inf)
    k = min(k, len(similarity))
    best = np.argpartition(-similarity, k - 1)[:k] if k < len(similarity) else np.arange(k)
    best = best[np.argsort(-similarity[best], kind="stable")]
    best = best[np.isfinite(similarity[best])]
    records = fetch([table.record_ids[row] for row in best])
    return tuple(
        Neighbour(rank, record, float(similarity[row]))
        for rank, (row, record) in enumerate(zip(best, records, strict=True), 1)
    )


def similarities(
    encoders: EncoderSet, table: CodeTable, cues: Sequence[Cue], metric: Metric = "cosine"
) -> NDArray[np.float64]:
    """Similarity of every record, float64 ``(records,)``; -inf where no cue can be compared."""
    total = np.zeros(len(table.record_ids))
    votes = np.zeros(len(table.record_ids))
    for cue in cues:
        for encoder in encoders.own.encoders:
            held = table.encoders[encoder.name]
            if encoder.space != cue.code.space or not len(held.record):
                continue
            score = held.codes @ cue.code.vector
            if metric == "euclidean":
                score = -np.sqrt(np.maximum(2.0 - 2.0 * score, 0.0))
            first = np.flatnonzero(np.diff(held.record, prepend=-1))
            rows = held.record[first]
            total[rows] += cue.weight * np.maximum.reduceat(score, first)
            votes[rows] += abs(cue.weight)
    return np.where(votes > 0, total / np.maximum(votes, 1e-12), -np.inf)
