"""InfoLOOB (InfoNCE without the positive in the denominator), and CLOOB, which retrieves first."""

from __future__ import annotations

import torch.distributed as dist
from torch import Tensor

from harmonia.memory.hopfield import retrieve
from harmonia.objectives.checks import check_number, check_rows, check_width, full_precision
from harmonia.objectives.contrastive import contrast
from harmonia.objectives.global_batch import gather
from harmonia.objectives.pair_scores import Positives, pair, transpose
from harmonia.types import HarmoniaError


@full_precision
def info_loob(
    x: Tensor,
    y: Tensor,
    scale: float | Tensor,
    *,
    positives: Positives = None,
    symmetric: bool = True,
    chunk: int | None = None,
    group: dist.ProcessGroup | None = None,
) -> Tensor:
    """InfoNCE with the leave-one-out bound: the denominator has only the negatives of a row.

    L = 1/2 mean_i [ log sum_{j not in P(i)} exp s_ij - mean_{j in P(i)} s_ij ] + the same from y to x;
    with ``symmetric=False`` the mean from x to y alone, without the half.

    Inputs: as in `info_nce`. Rows without a partner, or with nothing but partners, take no part.
    Requirements: two rows at least. Rows of unit length and a fixed (or bounded) ``scale``: unlike InfoNCE
    this loss has no bound of its own, but that of the scores, L >= log(negatives) - 2 scale. CLOOB keeps the
    scale at 30.

    Relations: InfoNCE stops moving a row once its partner fills the denominator; here the gradient of the
    partner never saturates. -L (in nats, with a mean in the place of the sum) is the leave-one-out upper
    bound of the mutual information. `cloob` applies it to retrieved rows.

    References: Poole et al. 2019, "On Variational Bounds of Mutual Information"; Fürst et al. 2022 (CLOOB).

        loss = info_loob(normalize(photos), normalize(captions), 30.0)
    """
    pairs = pair(x, y, positives, group)
    return contrast(x, y, scale, pairs, chunk=chunk, group=group, leave_out=True, symmetric=symmetric)


@full_precision
def hopfield_retrieve(state: Tensor, stored: Tensor, beta: float | Tensor) -> Tensor:
    """Retrieve from rows ``stored`` (m, d) with rows ``state`` (n, d): softmax(beta state stored^T) stored.

    One update of a modern Hopfield network (Ramsauer et al. 2021), each row scaled to unit length after it.
    The scores are not kept: memory is O(n + m).
    """
    check_rows(state, "state")
    check_rows(stored, "stored")
    if state.shape[1] != stored.shape[1]:
        raise HarmoniaError(f"state has rows of width {state.shape[1]} and stored of {stored.shape[1]}")
    check_number(beta, "beta")
    # As a batch of one head: PyTorch has an attention that writes no scores for that form only.
    return retrieve(state[None, None], stored[None, None], beta=beta, post="l2")[0, 0]


@full_precision
def cloob(
    x: Tensor,
    y: Tensor,
    scale: float | Tensor,
    beta: float | Tensor,
    *,
    positives: Positives = None,
    chunk: int | None = None,
    group: dist.ProcessGroup | None = None,
) -> Tensor:
    """The loss of CLOOB: InfoLOOB of what rows retrieve from the batch, instead of the rows themselves.

    U_x = softmax(beta X X^T) X, U_y = softmax(beta Y X^T) X: both retrieved from X;
    V_x = softmax(beta X Y^T) Y, V_y = softmax(beta Y Y^T) Y: both from Y; every row scaled to unit length.
    L = InfoLOOB(U_x, U_y) + InfoLOOB(V_y, V_x), each from its first argument to the second.

    Inputs: as in `info_nce`; ``beta`` is the inverse temperature of the retrieval (8 in the paper), ``scale``
    that of InfoLOOB (fixed, 30 in the paper). Requirements: as in `info_loob`. Retrieved rows are means over
    the batch, so the features that many rows share come to the fore; with beta small against the spread of
    the scores all rows retrieve nearly the same. The paper's program divides the loss by the scale, which
    changes the length of the gradient only.

    Relations: beta to infinity, with x and y unit rows that are their own nearest, gives U_x = x and V_y = y.

    Reference: Fürst et al. 2022, "CLOOB: Modern Hopfield Networks with InfoLOOB Outperform CLIP".

        loss = cloob(normalize(photos), normalize(captions), scale=30.0, beta=8.0)
    """
    check_width(x, y)
    all_x, all_y = gather(x, group), gather(y, group)
    u_x, u_y = hopfield_retrieve(x, all_x, beta), hopfield_retrieve(y, all_x, beta)
    v_x, v_y = hopfield_retrieve(x, all_y, beta), hopfield_retrieve(y, all_y, beta)
    back = transpose(positives, len(y), group)
    return info_loob(
        u_x, u_y, scale, positives=positives, symmetric=False, chunk=chunk, group=group
    ) + info_loob(v_y, v_x, scale, positives=back, symmetric=False, chunk=chunk, group=group)
