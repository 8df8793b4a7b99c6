"""InfoNCE: classify the partner of each row among all rows, in both directions."""

from __future__ import annotations

import torch
import torch.distributed as dist
from torch import Tensor

from harmonia.objectives.checks import check_number, full_precision
from harmonia.objectives.global_batch import gather, offset, world
from harmonia.objectives.pair_scores import Pairs, Positives, by_chunk, pair, row_weights
from harmonia.types import HarmoniaError

# A score below all others, but finite: a row of only such scores has no NaN in its gradient.
FAR = -1e30


@full_precision
def info_nce(
    x: Tensor,
    y: Tensor,
    scale: float | Tensor,
    *,
    positives: Positives = None,
    chunk: int | None = None,
    group: dist.ProcessGroup | None = None,
) -> Tensor:
    """The symmetric contrastive loss of CLIP, with s_ij = scale <x_i, y_j> and P(i) the partners of row i.

    L = 1/2 mean_i [ log sum_j exp s_ij - mean_{j in P(i)} s_ij ] + the same with x and y exchanged.

    Inputs: x (n, d) and y (m, d), rows of unit length; ``scale`` = exp(logit_scale), a number or a tensor
    that learns; ``positives`` says which rows belong together, by default row i and row i (see `Positives`).
    The mean is over the rows that have a partner. ``chunk``: rows of x whose scores are in memory at a time;
    the backward computes them again, one more matrix product. Value and gradients are the same and memory is
    O(chunk M) instead of O(n M): 32,768 rows of 512 take 0.6 GB with chunk=512. ``group``: the ranks whose
    rows form the batch, all by default; see `gather`.

    Requirements: two rows at least, and many of them, as chance is at log M. Scores of rows that are not
    normalised have no bound, nor has ``scale``: CLIP keeps it at 100 or below.

    Relations: with one partner each it is CLIP's loss; with several it is the form with the sum outside the
    logarithm of SupCon and the loss of UniCL. `hfy_loss` with Shannon entropy is the same; `info_loob` leaves
    the partner out of the denominator; `sigmoid_loss` judges each pair alone. log M - L bounds the mutual
    information from below (van den Oord 2018).

    References: Sohn 2016; van den Oord, Li and Vinyals 2018; Radford et al. 2021 (CLIP); Khosla et al. 2020
    (SupCon); Yang et al. 2022 (UniCL).

        loss = info_nce(normalize(photos), normalize(captions), logit_scale.exp(), positives=record)
    """
    pairs = pair(x, y, positives, group)
    return contrast(x, y, scale, pairs, chunk=chunk, group=group)


def contrast(
    x: Tensor,
    y: Tensor,
    scale: float | Tensor,
    pairs: Pairs,
    *,
    chunk: int | None,
    group: dist.ProcessGroup | None,
    leave_out: bool = False,
    symmetric: bool = True,
) -> Tensor:
    """`info_nce`; ``leave_out`` the partners of a row from its denominator; or from x to y alone.

    Each rank has the scores of its rows of x with all of y. Rows are complete with that, and the log-sum-exp
    of a column is put together from those of all chunks and ranks: one matrix serves both directions.
    """
    check_number(scale, "scale")
    everywhere = gather(y, group)
    n, total = len(x), len(everywhere)
    row_valid, column_valid = pairs.per_row > 0, pairs.per_column > 0
    if leave_out:
        all_rows = n * world(group)
        row_valid = row_valid & (pairs.per_row < total)
        column_valid = column_valid & (pairs.per_column < all_rows)
        if pairs.diagonal is None and bool((pairs.per_column == all_rows).all()):
            raise HarmoniaError("every row is a partner of every other: give a batch of several records")
    share = 0.5 if symmetric else 1.0
    a = share * row_weights(row_valid, x.dtype, group)
    b = (share if symmetric else 0.0) * world(group) * column_valid.to(x.dtype)
    b = b / column_valid.sum().clamp(min=1)
    per_row, per_column = a / pairs.per_row.clamp(min=1), b / pairs.per_column.clamp(min=1)

    def block(rows: Tensor, columns: Tensor, start: int) -> tuple[Tensor, Tensor, Tensor]:
        scores = rows @ columns.T
        positive = pairs.total(scores, start, per_row, per_column)
        if leave_out:
            scores = scores.masked_fill(pairs.block(start, start + len(rows)), FAR)
        # Never a view of the scores: it would keep all of them.
        down = scores.logsumexp(dim=0) if symmetric else positive
        return scores.logsumexp(dim=1), down, positive

    across, down, positive = zip(*by_chunk(block, scale * x, everywhere, chunk), strict=True)
    loss = a @ torch.cat(across) - torch.stack(positive).sum()
    if symmetric:
        first = offset(len(y), group)
        own = slice(first, first + len(y))
        columns = gather(torch.stack(down), group).logsumexp(dim=0)
        loss = loss + b[own] @ columns[own]
    return loss
