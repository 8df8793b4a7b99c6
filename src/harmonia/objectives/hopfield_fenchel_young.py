"""Fenchel-Young losses of the scores of each row, exactly zero from a margin on for sparse entropies."""

from __future__ import annotations

import math

import torch
import torch.distributed as dist
from torch import Tensor

from harmonia.memory.entropies import Entropy, Norm, Shannon, Subsets, Tsallis, fenchel_young
from harmonia.objectives.checks import check_number, full_precision
from harmonia.objectives.global_batch import gather
from harmonia.objectives.pair_scores import Positives, by_chunk, pair, row_weights, transpose
from harmonia.types import HarmoniaError

ENTMAX = Tsallis(1.5)


@full_precision
def hfy_loss(
    x: Tensor,
    y: Tensor,
    scale: float | Tensor,
    *,
    entropy: Entropy = ENTMAX,
    positives: Positives = None,
    chunk: int | None = None,
    group: dist.ProcessGroup | None = None,
) -> Tensor:
    """The Fenchel-Young loss of an entropy, in both directions, with s_i = scale <x_i, y_j> over all j.

    L = 1/2 mean_i [ Omega*(s_i) + Omega(t_i) - <s_i, t_i> ] + the same from y to x, where t_i is even on
    the partners of row i and zero elsewhere. The gradient in s_i is argmax(s_i) - t_i: a row whose
    partner leads by the `margin` of the entropy has neither loss nor gradient, nor have rows without mass in
    a sparse argmax.

    Inputs: as in `info_nce`; ``entropy`` is any of ``harmonia.memory``. With ``Subsets(k)`` t_i has the sum
    k, so every row needs k partners at least. Requirements: two rows at least; a scale so large that the
    margin can be had: the lead of a partner in s is at most 2 scale.

    Relations: with Shannon and one partner it is `info_nce`; with several it is less by log |P(i)|, so that
    it is never negative and zero at its best. Tsallis(2) gives the sparsemax loss. It trains the retrieval
    of a Hopfield-Fenchel-Young memory, whose update has the same argmax.

    References: Blondel, Martins and Niculae 2020, "Learning with Fenchel-Young Losses"; Santos, Niculae,
    McNamee and Martins 2024, "Hopfield-Fenchel-Young Networks".

        loss = hfy_loss(normalize(photos), normalize(captions), 20.0, entropy=Tsallis(2.0))
    """
    check_number(scale, "scale")
    there = _one_way(x, y, scale, entropy, positives, chunk, group)
    back = _one_way(y, x, scale, entropy, transpose(positives, len(y), group), chunk, group)
    return 0.5 * (there + back)


def margin(entropy: Entropy) -> float:
    """The margin of an entropy: the lead of a partner over all others, in s, from which on the loss is zero.

    1 / (alpha - 1) for Tsallis, 1 for Norm and Subsets, infinite for Shannon; with one partner, or k for
    ``Subsets(k)`` (Blondel, Martins and Niculae 2020, section 4).
    """
    match entropy:
        case Shannon():
            return math.inf
        case Tsallis(alpha):
            # Of rows with an alpha each, the least of them needs the widest.
            return 1.0 / ((float(alpha.min()) if isinstance(alpha, Tensor) else alpha) - 1.0)
        case Norm() | Subsets():
            return 1.0
    raise HarmoniaError(f"the margin of {entropy} is not known; give an entropy of harmonia.memory")


def _one_way(
    x: Tensor,
    y: Tensor,
    scale: float | Tensor,
    entropy: Entropy,
    positives: Positives,
    chunk: int | None,
    group: dist.ProcessGroup | None,
) -> Tensor:
    pairs = pair(x, y, positives, group)
    mass = entropy.k if isinstance(entropy, Subsets) else 1
    if mass > 1 and bool((pairs.per_row < mass).any()):
        raise HarmoniaError(f"{entropy} needs {mass} partners for every row: give fewer, or another entropy")
    weights = row_weights(pairs.per_row > 0, x.dtype, group)
    each = mass / pairs.per_row.clamp(min=1).to(x.dtype)

    def block(rows: Tensor, columns: Tensor, start: int) -> Tensor:
        here = slice(start, start + len(rows))
        target = pairs.block(here.start, here.stop) * each[here, None]
        return weights[here] @ fenchel_young(entropy, rows @ columns.T, target)

    return torch.stack(by_chunk(block, scale * x, gather(y, group), chunk)).sum()
