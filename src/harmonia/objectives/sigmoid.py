"""The pairwise sigmoid loss of SigLIP: an independent binary loss per pair."""

from __future__ import annotations

import torch.distributed as dist
import torch.nn.functional as F
from torch import Tensor

from harmonia.objectives.checks import check_number, full_precision
from harmonia.objectives.global_batch import gather
from harmonia.objectives.pair_scores import Positives, by_chunk, pair
from harmonia.types import HarmoniaError


@full_precision
def sigmoid_loss(
    x: Tensor,
    y: Tensor,
    scale: float | Tensor,
    bias: float | Tensor,
    *,
    positives: Positives = None,
    chunk: int | None = None,
    group: dist.ProcessGroup | None = None,
) -> Tensor:
    """Binary cross-entropy of every pair, with z_ij = 1 for partners and -1 for all others.

    L = -(1 / rows) sum_ij log sigmoid(z_ij (scale <x_i, y_j> + bias)), rows the larger of n and m.

    Inputs: as in `info_nce`; ``bias`` is a number or a tensor that learns. Requirements: one row is enough.
    As nearly all pairs are negatives, start with a bias of -10 and a scale of 10 (Zhai et al.).

    Relations: the sum over pairs needs no normaliser over the batch, so that the loss does not change its
    meaning with the size of the batch, as InfoNCE does; several partners and rows without any need no
    special form. It is the binary form of noise-contrastive estimation.

    Reference: Zhai, Mustafa, Kolesnikov and Beyer 2023, "Sigmoid Loss for Language Image Pre-Training".

        loss = sigmoid_loss(normalize(photos), normalize(captions), log_scale.exp(), bias)
    """
    pairs = pair(x, y, positives, group, least=1)
    check_number(scale, "scale")
    if isinstance(bias, Tensor) and bias.numel() != 1:
        raise HarmoniaError(f"bias must be one number, got a tensor of shape {tuple(bias.shape)}")

    def block(rows: Tensor, columns: Tensor, start: int) -> Tensor:
        logits = rows @ columns.T + bias
        partner = pairs.block(start, start + len(rows))
        return F.softplus(logits.where(~partner, -logits)).sum()

    return sum(by_chunk(block, scale * x, gather(y, group), chunk), x.new_zeros(())) / max(len(x), len(y))
