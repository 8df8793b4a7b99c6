"""Retrieval metrics: Recall@k, ranks, MRR, NDCG and MAP, in both directions.

Every metric is its expected value under random order of tied items (McSherry
and Najork 2008, "Computing Information Retrieval Performance Measures Efficiently in the Presence of Tied
Scores"), so that equal scores for all items give the result of chance. A query may have any number
of positives; one without any is left out and counted.

==================  ==========================================================================================
``recall@k``        a positive is among the k best: the cross-modal R@k (also hit rate, success)
``set_recall@k``    the share of the query's positives that is among the k best: recall of text retrieval
``precision@k``     the share of the k best that is positive; of k, also where there are fewer items than k
``mean_rank``       of the first positive, counted from 1; ``median_rank`` likewise
``mrr``             mean of 1 / rank of the first positive
``ndcg@k, ndcg``    discounted cumulative gain, 1 / log2(1 + rank) for every positive, over the best possible
                    (Järvelin and Kekäläinen 2002)
``map``             mean over the positives of the precision at their rank
``map@r``           the same, summed over the R best only, for R positives (Musgrave, Belongie and Lim 2020)
==================  ==========================================================================================
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from harmonia.metrics.scores import BLOCK, check_labels, check_pair, row_blocks, score_blocks
from harmonia.metrics.tie_aware import places, query_values_of_block
from harmonia.types import HarmoniaError

KS = (1, 5, 10)
COUNTS = ("queries", "without_positives")


@dataclass(frozen=True, slots=True, eq=False)
class Records:
    """Relevance by record: an item is a positive of a query with the same id; (Q,) and (N,) integers."""

    queries: Tensor
    items: Tensor


Relevance = Tensor | Sequence[Sequence[int]] | Records
"""Which items are positives: bool (Q, N), the indices of each query's positives, or `Records`."""


def retrieval_metrics(
    scores: Tensor, relevant: Relevance, ks: Sequence[int] = KS, *, block: int = BLOCK
) -> dict[str, float]:
    """The figures of the table above from scores (Q, N), higher is better; minus infinity bars an item.

    Also ``queries`` that were scored and those ``without_positives``. A HarmoniaError if none has a positive.

        retrieval_metrics(x @ y.T, Records(x_record, y_record))["recall@1"]
    """
    return summary(query_values(scores, relevant, ks, block=block))


def query_values(
    scores: Tensor, relevant: Relevance, ks: Sequence[int] = KS, *, block: int = BLOCK
) -> dict[str, Tensor]:
    """The figures of every query, float64 (Q,); NaN for a query without positives.

    Their names are those of `retrieval_metrics`, with ``rank`` for ``mean_rank`` and ``median_rank``. Take
    them to `bootstrap` and `paired_test`.
    """
    if scores.dim() != 2 or not scores.is_floating_point() or 0 in scores.shape:
        raise HarmoniaError(f"scores must be (Q, N) numbers, got {scores.dtype} of {tuple(scores.shape)}")
    _check_relevance(relevant, *scores.shape)
    rows = row_blocks(len(scores), block)
    return _measured(((row, scores[row]) for row in rows), relevant, scores.shape[1], ks)


def query_values_of(
    x: Tensor, y: Tensor, x_record: Tensor, y_record: Tensor, ks: Sequence[int] = KS, *, block: int = BLOCK
) -> dict[str, Tensor]:
    """`query_values` of queries x (Q, d) among items y (N, d), scored by dot product, ``block`` at a time."""
    check_pair(x, y)
    check_labels(x_record, x, "x_record")
    check_labels(y_record, y, "y_record")
    relevant = Records(x_record.to(x.device), y_record.to(x.device))
    return _measured(score_blocks(x, y.to(x.device), block), relevant, len(y), ks)


def ranks_of(x: Tensor, y: Tensor, x_record: Tensor, y_record: Tensor, *, block: int = BLOCK) -> Tensor:
    """Rank of the first positive of each query, from 1, float64 (Q,); NaN for a query without positives."""
    return query_values_of(x, y, x_record, y_record, (1,), block=block)["rank"]


def cross_modal(
    x: Tensor,
    y: Tensor,
    x_record: Tensor,
    y_record: Tensor,
    ks: Sequence[int] = KS,
    *,
    names: tuple[str, str] = ("x", "y"),
    block: int = BLOCK,
) -> dict[str, float]:
    """Retrieval of y by x and of x by y from codes (n, d) and (m, d) and the record that each belongs to.

    Codes of unit length, or else their dot products are compared as they are. Figures are named
    ``x->y/recall@1`` and ``y->x/recall@1``, with the ``names`` in place of x and y; those without a prefix
    are the mean of both directions. Never holds more than ``block`` rows of scores.

        cross_modal(photos, captions, photo_record, caption_record, names=("image", "text"))["recall@1"]
    """
    forth = summary(query_values_of(x, y, x_record, y_record, ks, block=block))
    back = summary(query_values_of(y, x, y_record, x_record, ks, block=block))
    a, b = names
    return {
        **{f"{a}->{b}/{name}": value for name, value in forth.items()},
        **{f"{b}->{a}/{name}": value for name, value in back.items()},
        **{name: (forth[name] + back[name]) / 2.0 for name in forth if name not in COUNTS},
    }


def cross_modal_folds(
    x: Tensor,
    y: Tensor,
    x_record: Tensor,
    y_record: Tensor,
    ks: Sequence[int] = KS,
    *,
    folds: int = 5,
    names: tuple[str, str] = ("x", "y"),
    block: int = BLOCK,
) -> dict[str, float]:
    """The mean of `cross_modal` over folds of the records: MS-COCO 1K is five folds of 1,000 photos.

    Folds are consecutive records in the order of x, as in VSE++ (Faghri et al. 2018); ``cross_modal`` itself
    is the 5K protocol. Medians and counts are means over the folds too.
    """
    check_pair(x, y)
    check_labels(x_record, x, "x_record")
    check_labels(y_record, y, "y_record")
    order = torch.tensor(list(dict.fromkeys(x_record.tolist())), dtype=torch.long)
    if not 1 <= folds <= len(order):
        raise HarmoniaError(f"{len(order)} records cannot be cut into {folds} folds")
    found = []
    for part in order.tensor_split(folds):
        own_x = torch.isin(x_record, part.to(x_record.device))
        own_y = torch.isin(y_record, part.to(y_record.device))
        found.append(
            cross_modal(x[own_x], y[own_y], x_record[own_x], y_record[own_y], ks, names=names, block=block)
        )
    return {name: sum(one[name] for one in found) / folds for name in found[0]}


def summary(values: dict[str, Tensor]) -> dict[str, float]:
    """Means over the queries of what `query_values` gives; a HarmoniaError where no query has a positive."""
    scored = ~values["rank"].isnan()
    if not bool(scored.any()):
        raise HarmoniaError("no query has a positive among the items: check the record ids")
    out = {name: float(value[scored].mean()) for name, value in values.items() if name != "rank"}
    rank = values["rank"][scored]
    out |= {"median_rank": float(rank.quantile(0.5)), "mean_rank": float(rank.mean())}
    return out | {"queries": float(scored.sum()), "without_positives": float((~scored).sum())}


def _measured(
    blocks: Iterable[tuple[slice, Tensor]], relevant: Relevance, items: int, ks: Sequence[int]
) -> dict[str, Tensor]:
    """Figures of every query from blocks of rows of scores."""
    if not ks or any(k < 1 for k in ks):
        raise HarmoniaError(f"ks must be at least 1, got {tuple(ks)}")
    found = [
        query_values_of_block(places(scores, _rows(relevant, row, scores)), items, ks)
        for row, scores in blocks
    ]
    return {name: torch.cat([one[name] for one in found]) for name in found[0]}


def _rows(relevant: Relevance, row: slice, scores: Tensor) -> Tensor:
    """The relevance of a block of queries, bool (b, N)."""
    if isinstance(relevant, Records):
        return relevant.queries[row, None].to(scores.device) == relevant.items.to(scores.device)
    if isinstance(relevant, Tensor):
        return relevant[row].to(scores.device)
    positive = torch.zeros(scores.shape, dtype=torch.bool, device=scores.device)
    for i, targets in enumerate(relevant[row]):
        positive[i, list(targets)] = True
    return positive


def _check_relevance(relevant: Relevance, queries: int, items: int) -> None:
    if isinstance(relevant, Records):
        wanted, got = (queries, items), (*relevant.queries.shape, *relevant.items.shape)
    elif isinstance(relevant, Tensor):
        wanted, got = (queries, items), tuple(relevant.shape)
        if relevant.dtype != torch.bool:
            raise HarmoniaError(f"relevant must be bool, got {relevant.dtype}")
    else:
        wanted, got = (queries, items), (len(relevant), items)
        if bad := [i for targets in relevant for i in targets if not 0 <= i < items]:
            raise HarmoniaError(f"targets are indices of {items} items, got {bad[0]}")
    if wanted != got:
        raise HarmoniaError(f"the scores are of {queries} queries and {items} items, the relevance of {got}")
