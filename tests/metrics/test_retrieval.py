"""Retrieval figures: by hand, against every order of tied items, and against torchmetrics and ranx."""

from __future__ import annotations

import json
import math
import os
import subprocess
import sys
from itertools import permutations

import pytest
import torch
from torch import Tensor
from torch.nn.functional import normalize

from harmonia.metrics import (
    Records,
    cross_modal,
    cross_modal_folds,
    query_values,
    query_values_of,
    ranks_of,
    retrieval_metrics,
)
from harmonia.types import HarmoniaError

KS = (1, 3, 5)


def drawn(seed: int, *shape: int) -> Tensor:
    return torch.rand(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def by_hand(relevance: list[bool], ks: tuple[int, ...]) -> dict[str, float]:
    """The definitions, for one list of items, best first."""
    found = [i + 1 for i, positive in enumerate(relevance) if positive]
    gain = [1 / math.log2(1 + rank) for rank in range(1, len(relevance) + 1)]
    precision = [(i + 1) / rank for i, rank in enumerate(found)]
    count = len(found)
    out = {
        "rank": float(found[0]),
        "mrr": 1 / found[0],
        "map": sum(precision) / count,
        "map@r": sum(p for p, rank in zip(precision, found, strict=True) if rank <= count) / count,
        "ndcg": sum(gain[rank - 1] for rank in found) / sum(gain[:count]),
    }
    for k in ks:
        within = [rank for rank in found if rank <= k]
        out[f"recall@{k}"] = float(bool(within))
        out[f"set_recall@{k}"] = len(within) / count
        out[f"precision@{k}"] = len(within) / k
        out[f"ndcg@{k}"] = sum(gain[rank - 1] for rank in within) / sum(gain[: min(k, count)])
    return out


def test_a_ranking_by_hand() -> None:
    # ranks of the positives: 2 and 4
    found = retrieval_metrics(
        torch.tensor([[0.1, 0.9, 0.5, 0.3]]), torch.tensor([[True, False, True, False]]), (1, 2)
    )
    assert found["recall@1"] == 0.0
    assert found["recall@2"] == 1.0
    assert found["set_recall@2"] == found["precision@2"] == 0.5
    assert found["mrr"] == 0.5
    assert found["mean_rank"] == found["median_rank"] == 2.0
    assert found["map"] == pytest.approx((1 / 2 + 2 / 4) / 2)
    assert found["map@r"] == pytest.approx((1 / 2) / 2)
    assert found["ndcg"] == pytest.approx((1 / math.log2(3) + 1 / math.log2(5)) / (1 + 1 / math.log2(3)))
    assert (found["queries"], found["without_positives"]) == (1.0, 0.0)


@pytest.mark.parametrize("seed", range(4))
def test_ties_count_as_the_mean_over_all_their_orders(seed: int) -> None:
    """Six items at three scores, all 720 orders, each ranked by a stable sort."""
    scores = (drawn(seed, 5, 6) * 3).floor()
    relevant = drawn(seed + 100, 5, 6) < 0.5
    relevant[:, 0] = True
    got = query_values(scores, relevant, KS, block=2)
    for q in range(len(scores)):
        orders = [sorted(order, key=lambda i: -scores[q, i].item()) for order in permutations(range(6))]
        means = [by_hand([bool(relevant[q, i]) for i in order], KS) for order in orders]
        for name in means[0]:
            assert float(got[name][q]) == pytest.approx(sum(m[name] for m in means) / 720, abs=1e-12), name


def test_a_score_that_says_nothing_earns_what_chance_earns() -> None:
    found = retrieval_metrics(torch.zeros(3, 100), Records(torch.arange(3), torch.arange(100)), (1, 5))
    assert found["recall@1"] == pytest.approx(0.01)
    assert found["recall@5"] == pytest.approx(0.05)
    assert found["mean_rank"] == pytest.approx(50.5)
    assert found["mrr"] == pytest.approx(sum(1 / r for r in range(1, 101)) / 100)
    assert found["map"] == pytest.approx(found["mrr"])


def test_the_best_and_the_worst_ranking() -> None:
    record = torch.arange(20) // 4
    same = (record[:, None] == record).double()
    best = retrieval_metrics(same + 1e-3 * drawn(0, 20, 20), Records(record, record), (1, 4))
    for name in ("recall@1", "set_recall@4", "precision@4", "ndcg@4", "ndcg", "map", "map@r", "mrr"):
        assert best[name] == pytest.approx(1.0, abs=1e-12), name
    assert best["mean_rank"] == 1.0
    worst = retrieval_metrics(-same, Records(record, record), (1, 4, 16))
    for name in ("recall@1", "recall@16", "set_recall@16", "ndcg@4", "map@r"):
        assert worst[name] == 0.0, name
    assert worst["median_rank"] == pytest.approx(17.0)


def test_no_order_of_queries_or_items_matters() -> None:
    scores, relevant = (drawn(0, 30, 40) * 20).floor(), drawn(1, 30, 40) < 0.1
    generator = torch.Generator().manual_seed(0)
    rows, columns = (torch.randperm(n, generator=generator) for n in (30, 40))
    one = retrieval_metrics(scores, relevant)
    two = retrieval_metrics(scores[rows][:, columns], relevant[rows][:, columns], block=7)
    assert one == pytest.approx(two, abs=1e-12)


def test_a_monotone_change_of_the_scores_changes_nothing() -> None:
    scores, relevant = (drawn(0, 9, 30) * 8).floor(), drawn(1, 9, 30) < 0.2
    assert retrieval_metrics(scores, relevant) == retrieval_metrics(scores.exp() - 5.0, relevant)


def test_relevance_may_be_a_mask_lists_or_records() -> None:
    scores = drawn(0, 4, 6)
    queries, items = torch.tensor([5, 7, 9, 5]), torch.tensor([9, 5, 7, 5, 0, 7])
    lists = [[1, 3], [2, 5], [0], [1, 3]]
    one = retrieval_metrics(scores, Records(queries, items))
    assert one == retrieval_metrics(scores, queries[:, None] == items)
    assert one == retrieval_metrics(scores, lists, block=3)


def test_queries_without_positives_are_left_out_and_counted() -> None:
    scores, queries = drawn(0, 5, 4), torch.tensor([8, 0, 8, 1, 2])
    items = torch.arange(4)
    all_, some = (
        retrieval_metrics(scores[rows], Records(queries[rows], items), block=1)
        for rows in ([0, 1, 2, 3, 4], [1, 3, 4])
    )
    assert (all_["queries"], all_["without_positives"]) == (3.0, 2.0)
    assert {**all_, "without_positives": 0.0} == some
    values = query_values(scores, Records(queries, items))
    assert values["rank"].isnan().tolist() == [True, False, True, False, False]


def test_a_barred_item_is_last() -> None:
    scores = torch.tensor([[3.0, 2.0, 1.0]])
    assert retrieval_metrics(scores, [[1]])["mean_rank"] == 2.0
    scores[0, 0] = -torch.inf
    assert retrieval_metrics(scores, [[1]])["mean_rank"] == 1.0
    assert retrieval_metrics(scores, [[0]])["mean_rank"] == 3.0


# --- other libraries


def test_agreement_with_torchmetrics() -> None:
    from torchmetrics.functional import retrieval as theirs

    scores, relevant = drawn(0, 12, 60).float() + 0.1, drawn(1, 12, 60) < 0.12
    relevant[:, 7] = True
    got = query_values(scores, relevant, (1, 5, 10))
    tied = (scores * 8).floor()
    got_tied = query_values(tied, relevant, (5,))
    for q in range(12):
        one = (scores[q], relevant[q])
        expected = {
            "recall@5": theirs.retrieval_hit_rate(*one, top_k=5),
            "set_recall@10": theirs.retrieval_recall(*one, top_k=10),
            "precision@10": theirs.retrieval_precision(*one, top_k=10),
            "ndcg": theirs.retrieval_normalized_dcg(*one),
            "ndcg@5": theirs.retrieval_normalized_dcg(*one, top_k=5),
            "map": theirs.retrieval_average_precision(*one),
            "mrr": theirs.retrieval_reciprocal_rank(*one),
        }
        for name, value in expected.items():
            assert float(got[name][q]) == pytest.approx(float(value), abs=1e-6), name
        # Its NDCG alone averages over ties too.
        ndcg = theirs.retrieval_normalized_dcg(tied[q], relevant[q], top_k=5)
        assert float(got_tied["ndcg@5"][q]) == pytest.approx(float(ndcg), abs=1e-6)


RANX = """
import json, sys
import numpy as np
from ranx import metrics
truth, runs = ([np.array(one) for one in lists] for lists in json.load(sys.stdin))
names = {"recall@5": ("hit_rate", 5), "set_recall@10": ("recall", 10), "precision@10": ("precision", 10),
    "ndcg@10": ("ndcg", 10), "map": ("average_precision", 0), "mrr": ("reciprocal_rank", 0)}
print(json.dumps({key: getattr(metrics, name)(truth, runs, k).tolist() for key, (name, k) in names.items()}))
"""


def test_agreement_with_ranx() -> None:
    """Its functions as they are written: to compile them takes half a minute."""
    scores, relevant = drawn(2, 6, 50), drawn(3, 6, 50) < 0.1
    relevant[:, 11] = True
    got = query_values(scores, relevant, (5, 10))
    # For each query (items, 2): id and score, best first.
    truth = [[[float(i), 1.0] for i in row.nonzero()[:, 0].tolist()] for row in relevant]
    runs = [[[float(i), float(row[i])] for i in row.argsort(descending=True)] for row in scores]
    told = subprocess.run(
        [sys.executable, "-c", RANX],
        input=json.dumps([truth, runs]),
        env={**os.environ, "NUMBA_DISABLE_JIT": "1"},
        capture_output=True,
        text=True,
        check=True,
    ).stdout
    for name, values in json.loads(told).items():
        expected = torch.tensor(values, dtype=torch.float64)
        torch.testing.assert_close(got[name], expected, atol=1e-9, rtol=0, msg=name)


# --- codes


def photos_and_captions(records: int = 40, noise: float = 1.5) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """One photo and five captions of each record, in different orders."""
    generator = torch.Generator().manual_seed(0)
    truth = torch.randn(records, 16, generator=generator)
    caption = (torch.arange(5 * records) * 7) % (5 * records) // 5
    y = truth[caption] + noise * torch.randn(5 * records, 16, generator=generator)
    return normalize(truth, dim=1), normalize(y, dim=1), torch.arange(records), caption


def test_cross_modal_is_retrieval_in_both_directions() -> None:
    x, y, x_record, y_record = photos_and_captions()
    found = cross_modal(x, y, x_record, y_record, names=("image", "text"), block=7)
    forth = retrieval_metrics(x @ y.T, x_record[:, None] == y_record)
    back = retrieval_metrics(y @ x.T, y_record[:, None] == x_record)
    for name in forth:
        assert found[f"image->text/{name}"] == pytest.approx(forth[name]), name
        assert found[f"text->image/{name}"] == pytest.approx(back[name]), name
    assert found["recall@10"] == pytest.approx((forth["recall@10"] + back["recall@10"]) / 2)
    assert (found["image->text/queries"], found["text->image/queries"]) == (40.0, 200.0)
    assert 0.1 < found["recall@1"] < 0.95  # neither is trivial here
    ranks = ranks_of(x, y, x_record, y_record)
    assert float(ranks.mean()) == pytest.approx(found["image->text/mean_rank"])


def test_the_block_does_not_change_a_figure() -> None:
    x, y, x_record, y_record = photos_and_captions(noise=3.0)
    one, *others = (query_values_of(x, y, x_record, y_record, block=b) for b in (64, 1, 3, 1000))
    for other in others:
        assert all(torch.equal(one[name], other[name]) for name in one)


def test_equal_codes_tie_wherever_they_stand() -> None:
    """1,000 copies of one item: the positive is any of them, so its rank is 500.5, not luck of rounding."""
    generator = torch.Generator().manual_seed(0)
    x = normalize(torch.randn(37, 333, generator=generator), dim=1)
    y = normalize(torch.randn(1, 333, generator=generator), dim=1).expand(1000, -1)
    ranks = ranks_of(x, y, torch.arange(37), torch.arange(1000), block=5)
    assert bool((ranks == 500.5).all())


def test_folds_are_means_over_consecutive_records() -> None:
    x, y, x_record, y_record = photos_and_captions()
    found = cross_modal_folds(x, y, x_record, y_record, folds=5)
    parts = []
    for i in range(5):
        own = (y_record >= 8 * i) & (y_record < 8 * i + 8)
        rows = slice(8 * i, 8 * i + 8)
        parts.append(cross_modal(x[rows], y[own], x_record[rows], y_record[own]))
    for name in parts[0]:
        assert found[name] == pytest.approx(sum(part[name] for part in parts) / 5), name
    assert found["recall@1"] > cross_modal(x, y, x_record, y_record)["recall@1"]  # 8 photos, not 40
    whole = cross_modal_folds(x, y, x_record, y_record, folds=1)
    assert whole == pytest.approx(cross_modal(x, y, x_record, y_record))


def test_what_is_wrong_is_said() -> None:
    scores, relevant = torch.zeros(2, 3), torch.ones(2, 3, dtype=torch.bool)
    x = torch.eye(3)
    record = torch.arange(3)
    for wrong, call in (
        ("no query has a positive", lambda: retrieval_metrics(scores, ~relevant)),
        ("ks must be at least 1", lambda: retrieval_metrics(scores, relevant, (0,))),
        ("must be bool", lambda: retrieval_metrics(scores, relevant.long())),
        ("2 queries and 3 items", lambda: retrieval_metrics(scores, relevant.T)),
        ("2 queries and 3 items", lambda: retrieval_metrics(scores, [[1]])),
        ("indices of 3 items", lambda: retrieval_metrics(scores, [[1], [3]])),
        ("must be numbers", lambda: retrieval_metrics(scores * torch.nan, relevant)),
        ("one row", lambda: retrieval_metrics(scores, relevant, block=0)),
        ("width", lambda: cross_modal(x, x[:, :2], record, record)),
        ("x_record must be 3 integers", lambda: cross_modal(x, x, record.float(), record)),
        ("not finite", lambda: cross_modal(x / 0, x, record, record)),
        ("cut into 4 folds", lambda: cross_modal_folds(x, x, record, record, folds=4)),
    ):
        with pytest.raises(HarmoniaError, match=wrong):
            call()
