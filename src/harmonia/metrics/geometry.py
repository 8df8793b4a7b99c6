"""Geometry of codes: modality gap, hubness, alignment, uniformity, effective rank."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from harmonia.metrics.probe import logistic_regression
from harmonia.metrics.scores import (
    BLOCK,
    check_codes,
    check_labels,
    check_pair,
    row_blocks,
    score_blocks,
    top_shares,
    unit,
)
from harmonia.types import HarmoniaError

# L2 penalty of the classifier between modalities: small, since separability is the question.
SEPARATION_L2 = 1e-4


@dataclass(frozen=True, slots=True)
class Gap:
    """The gap between two modalities.

    ``distance`` of the two centroids, in [0, 2]; ``separability``, the balanced accuracy of a linear
    classifier on held-out codes: 0.5 at chance, 1 if the modalities are linearly separable.
    """

    distance: float
    separability: float


def modality_gap(x: Tensor, y: Tensor, *, seed: int = 0) -> Gap:
    """The gap between modalities x (n, d) and y (m, d), scaled to unit length; at least four codes of each.

    Liang et al. 2022, "Mind the Gap: Understanding the Modality Gap in Multi-modal Contrastive Representation
    Learning". The classifier is fitted to a random half of each modality and scored on the others.
    """
    check_pair(x, y)
    if min(len(x), len(y)) < 4:
        raise HarmoniaError(f"a modality gap needs 4 codes of each, got {len(x)} and {len(y)}")
    x, y = unit(x), unit(y).to(x.device)
    distance = float((x.mean(dim=0) - y.mean(dim=0)).norm())
    generator = torch.Generator().manual_seed(seed)
    halves = [rows[torch.randperm(len(rows), generator=generator).to(rows.device)] for rows in (x, y)]
    fitted = torch.cat([rows[: len(rows) // 2] for rows in halves])
    label = torch.arange(2, device=x.device).repeat_interleave(
        torch.tensor([len(rows) // 2 for rows in halves], device=x.device)
    )
    classifier = logistic_regression(fitted, label, SEPARATION_L2)
    right = [
        (classifier.scores(rows[len(rows) // 2 :]).argmax(dim=1) == i).double().mean()
        for i, rows in enumerate(halves)
    ]
    return Gap(distance, float(sum(right) / 2))


@dataclass(frozen=True, slots=True)
class CodeHubness:
    """Hubness: whether a few items are neighbours of very many others.

    ``skewness`` of the k-occurrence (Radovanović, Nanopoulos and Ivanović 2010, "Hubs in Space"): 0 without
    hubs, above about 1 strong. ``robin_hood``: the share of the k-occurrences to redistribute for equal
    counts (Hoover index; Feldbauer et al. 2018). ``antihubs``: the share of items that are nobody's
    neighbour.
    ``largest``: the largest k-occurrence over its mean.
    """

    skewness: float
    robin_hood: float
    antihubs: float
    largest: float


def hubness(queries: Tensor, items: Tensor | None = None, *, k: int = 10, block: int = BLOCK) -> CodeHubness:
    """CodeHubness of ``items`` (m, d) as neighbours of ``queries`` (n, d) by cosine; see `k_occurrence`.

    As few queries as items or fewer leave some skewness by chance alone: compare equal numbers.
    """
    counts = k_occurrence(queries, items, k=k, block=block)
    mean = counts.mean()
    centred = counts - mean
    variance = centred.square().mean()
    # Shares of ties are rounded: an even spread is one up to that.
    even = bool(variance.sqrt() <= 1e-9 * mean)
    return CodeHubness(
        skewness=0.0 if even else float(centred.pow(3).mean() / variance.pow(1.5)),
        robin_hood=float(0.5 * centred.abs().sum() / counts.sum()),
        antihubs=float((counts == 0).double().mean()),
        largest=float(counts.max() / mean),
    )


def k_occurrence(queries: Tensor, items: Tensor | None = None, *, k: int = 10, block: int = BLOCK) -> Tensor:
    """How many queries have each item among their k nearest, float64 (m,); ties share a place.

    Without ``items`` the neighbours are the other queries.
    """
    check_codes(queries, "queries")
    among = queries if items is None else items
    others = len(among) - (items is None)
    if not 1 <= k <= others:
        raise HarmoniaError(f"k must be 1 to {others}, the number of neighbours that there are, got {k}")
    counts = torch.zeros(len(among), dtype=torch.float64, device=queries.device)
    for rows, scores in score_blocks(unit(queries), unit(among), block):
        if items is None:
            own = torch.arange(rows.start, rows.stop, device=scores.device)
            scores[own - rows.start, own] = -torch.inf
        counts += top_shares(scores, k).sum(dim=0)
    return counts


def alignment(x: Tensor, y: Tensor, x_record: Tensor, y_record: Tensor) -> float:
    """Mean of |x_i - y_j|^2 over all pairs of one record, in [0, 4]; codes are scaled to unit length.

    Wang and Isola 2020; `harmonia.objectives.alignment` is the loss, for rows that are partners.
    """
    check_pair(x, y)
    check_labels(x_record, x, "x_record")
    check_labels(y_record, y, "y_record")
    x, y = unit(x), unit(y).to(x.device)
    known, record = torch.unique(torch.cat([x_record, y_record.to(x_record.device)]), return_inverse=True)
    sums, counts = [], []
    for rows, own in ((x, record[: len(x)]), (y, record[len(x) :])):
        sums.append(x.new_zeros(len(known), x.shape[1]).index_add(0, own, rows))
        counts.append(torch.bincount(own, minlength=len(known)))
    pairs = (counts[0] * counts[1]).sum()
    if not pairs:
        raise HarmoniaError("no record has codes in both x and y: check the record ids")
    return float(2.0 - 2.0 * (sums[0] * sums[1]).sum() / pairs)


def uniformity(x: Tensor, *, t: float = 2.0, block: int = BLOCK) -> float:
    """log mean_{i != j} exp(-t |x_i - x_j|^2), in [-4 t, 0], lower is more spread; scaled to unit length.

    Wang and Isola 2020. What `harmonia.objectives.uniformity` gives, in blocks, for any number of codes.
    """
    check_codes(x, "x", least=2)
    x = unit(x)
    total = 0.0
    for rows in row_blocks(len(x), block):
        potential = (2.0 * t * (x[rows] @ x.T - 1.0)).exp()
        own = torch.arange(rows.start, rows.stop, device=x.device)
        potential[own - rows.start, own] = 0.0
        total += float(potential.sum())
    return math.log(total / (len(x) * (len(x) - 1)))


def effective_rank(x: Tensor) -> float:
    """exp of the entropy of the singular values of x (n, d) scaled to sum 1; in [1, min(n, d)].

    RankMe (Garrido et al. 2023; Roy and Vetterli 2007): not centred, not scaled to unit length. 0 for codes
    that are all zero.
    """
    check_codes(x, "x")
    sigma = torch.linalg.svdvals(x.double())
    if not bool(sigma.any()):
        return 0.0
    return float(torch.special.entr(sigma / sigma.sum()).sum().exp())
