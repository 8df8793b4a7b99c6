"""Margin losses: pairs (Siamese), triplets, and image-text ranking.

They do not communicate between ranks: under DDP give them ``gather(x)`` and ``gather(y)`` (see `gather`).
"""

from __future__ import annotations

from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor

from harmonia.objectives.checks import check_mask, check_number, check_same, check_width, full_precision
from harmonia.objectives.contrastive import FAR
from harmonia.objectives.pair_scores import Positives, partners
from harmonia.types import HarmoniaError

Distance = Literal["euclidean", "squared", "cosine"]
"""|a - b|; |a - b|^2; 1 - cos(a, b)."""


@full_precision
def siamese(x: Tensor, y: Tensor, same: Tensor, margin: float) -> Tensor:
    """The contrastive loss of pairs: equal ones are pulled together, others pushed at least ``margin`` apart.

    L = mean_i [ same_i D_i^2 / 2 + (1 - same_i) max(0, margin - D_i)^2 / 2 ], D_i = |x_i - y_i|.

    Inputs: x, y (B, d), ``same`` (B,) bool. Requirements: pairs of both kinds, else all rows fall together or
    apart; for unit rows a margin below 2. Relations: the oldest of these losses; it fixes distances, where
    `triplet` and `info_nce` only compare them.

    Reference: Hadsell, Chopra and LeCun 2006, "Dimensionality Reduction by Learning an Invariant Mapping".

        loss = siamese(towers(photo), towers(other), same=record == other_record, margin=1.0)
    """
    check_width(x, y)
    check_same(x=x, y=y)
    check_mask(same, (len(x),), "same")
    check_number(margin, "margin")
    distance = _distance(x, y, "euclidean")
    return 0.5 * torch.where(same, distance, F.relu(margin - distance)).square().mean()


@full_precision
def triplet(
    anchor: Tensor,
    positive: Tensor,
    negative: Tensor,
    margin: float,
    *,
    distance: Distance = "euclidean",
    hard: bool = False,
    same: Tensor | None = None,
) -> Tensor:
    """The triplet loss: an anchor is nearer to its positive than to a negative, by ``margin``.

    L = mean_i max(0, margin + D(anchor_i, positive_i) - D(anchor_i, negative_i)).

    Inputs: anchor, positive (B, d). ``negative`` is (B, d), one for each; with ``hard=True`` it is a pool
    (m, d), and each anchor takes the nearest of it that is not of its own kind: ``same`` (B, m) bool is True
    where it is. Anchors with no negative in the pool take no part. Requirements: hardest negatives of
    unrelated, mislabelled records can make all rows fall together at the start of training: begin with given
    ones, or a small pool. ``distance``: "squared" as in FaceNet (Schroff et al. 2015), "euclidean" as in
    Hermans et al. 2017, whose gradient does not fade as rows come close, "cosine" whatever the length.

    Relations: `image_text_matching` with the hardest negatives is this in both directions, on dot products.

    References: Schroff, Kalenichenko and Philbin 2015 (FaceNet); Hermans, Beyer and Leibe 2017.

        loss = triplet(photos, captions, captions, 0.2, hard=True, same=record[:, None] == record)
    """
    check_width(anchor, positive)
    check_width(anchor, negative)
    check_same(anchor=anchor, positive=positive)
    check_number(margin, "margin")
    if distance not in ("euclidean", "squared", "cosine"):
        raise HarmoniaError(f"distance is euclidean, squared or cosine, not {distance!r}")
    if not hard:
        if same is not None:
            raise HarmoniaError("same goes with hard=True: it tells which rows of the pool are no negatives")
        check_same(anchor=anchor, negative=negative)
    elif same is None:
        raise HarmoniaError("hard=True needs same (B, m): which rows of the pool are no negatives")
    else:
        check_mask(same, (len(anchor), len(negative)), "same")
        found = (~same).any(dim=1)
        if not bool(found.any()):
            raise HarmoniaError("no anchor has a negative in the pool: give rows of other records")
        with torch.no_grad():
            nearest = _distances(anchor, negative, distance).masked_fill(same, torch.inf).argmin(dim=1)
        anchor, positive, negative = anchor[found], positive[found], negative[nearest[found]]
    near, far = _distance(anchor, positive, distance), _distance(anchor, negative, distance)
    return F.relu(margin + near - far).mean()


@full_precision
def image_text_matching(
    x: Tensor,
    y: Tensor,
    margin: float,
    negatives: Literal["hardest", "all"] = "hardest",
    positives: Positives = None,
) -> Tensor:
    """Pairwise ranking with s_ij = <x_i, y_j>: a partner scores higher than a negative, by ``margin``.

    L = mean over partners (i, p) of sum_j [margin + s_ij - s_ip]_+ + sum_k [margin + s_kp - s_ip]_+, with j
    over the rows of y that are no partners of i, and k over the rows of x that are none of p ("all");
    or the greatest term of each sum in its place ("hardest").

    Inputs: x (n, d), y (m, d), rows of unit length; ``positives`` as in `info_nce`. The papers take the sum
    over the batch, not the mean. Requirements: two rows at least; with "hardest" a batch of hundreds, and
    records that are unlike each other. Memory is O(n m), with "all" and several partners O(partners m).

    Relations: "hardest" is the limit of `info_loob` at a high scale, cut off at the margin.

    References: Kiros, Salakhutdinov and Zemel 2014 (all); Faghri et al. 2018, VSE++ (hardest).

        loss = image_text_matching(normalize(photos), normalize(captions), margin=0.2)
    """
    partner = partners(x, y, positives)
    check_number(margin, "margin")
    if negatives not in ("hardest", "all"):
        raise HarmoniaError(f"negatives is hardest or all, not {negatives!r}")
    if bool(partner.all()) or not bool(partner.any()):
        raise HarmoniaError("a ranking needs partners and rows that are none: give a batch of at least two")
    scores = x @ y.T
    i, p = partner.nonzero(as_tuple=True)
    wanted = scores[i, p]
    others = scores.masked_fill(partner, FAR)
    if negatives == "hardest":
        by_row = F.relu(margin + others.amax(dim=1)[i] - wanted)
        by_column = F.relu(margin + others.amax(dim=0)[p] - wanted)
    else:
        by_row = F.relu(margin + others[i] - wanted[:, None]).sum(dim=1)
        by_column = F.relu(margin + others.T[p] - wanted[:, None]).sum(dim=1)
    return (by_row + by_column).mean()


def _distance(a: Tensor, b: Tensor, distance: Distance) -> Tensor:
    """Of row i and row i, (B,)."""
    if distance == "cosine":
        return 1.0 - F.cosine_similarity(a, b)
    if distance == "squared":
        return (a - b).square().sum(dim=1)
    length: Tensor = torch.linalg.vector_norm(a - b, dim=1)
    return length


def _distances(a: Tensor, b: Tensor, distance: Distance) -> Tensor:
    """Of every row of a and every row of b, up to what does not change their order."""
    return -F.normalize(a) @ F.normalize(b).T if distance == "cosine" else torch.cdist(a, b)
