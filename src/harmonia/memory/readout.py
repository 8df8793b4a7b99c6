"""The readout: the mean of the stored codes under the distribution over slots, the gradient of the slot term.

A slot with several moments passes its probability to the best of them; equally good ones (five
captions when only the photo was given) share it, which is a subgradient of the maximum.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from harmonia.memory.matrix import Matrix
from harmonia.memory.moment_scores import MatrixQuery, best_of, moments_of, scores_of
from harmonia.memory.record_layout import Layout
from harmonia.memory.scan import scan_blocks

# Scores that differ by less, relatively, count as equal: they differ by rounding.
TIE = 1e-6


@dataclass(frozen=True, slots=True, eq=False)
class Readout:
    """``codes[key]`` (Q, d): sum of p * part (not normalised). ``moment`` (Q, k): each slot's best one."""

    codes: dict[str, Tensor]
    moment: Tensor


def read_top(
    layout: Layout,
    matrices: Mapping[str, Matrix | Tensor],
    queries: Sequence[MatrixQuery],
    slots: Tensor,
    p: Tensor,
) -> Readout:
    """Readout of all ``matrices`` from the kept slots ``(Q, k)`` with probabilities ``p`` (Q, k)."""
    rows, k = slots.shape
    out = {key: p.new_zeros(rows, codes.shape[1]) for key, codes in matrices.items()}
    best = torch.full((rows * k,), -1, dtype=torch.long, device=p.device)
    for pair, moment in moments_of(layout, slots):
        if layout.single:
            best[pair] = moment
            _add(out, layout, matrices, pair // k, moment, p.reshape(-1)[pair])
            continue
        scores = scores_of(layout, queries, pair // k, moment)
        pairs, group = torch.unique_consecutive(pair, return_inverse=True)
        top = best_of(scores, group, len(pairs))
        tied = scores >= top[group] - TIE * (1 + top[group].abs())
        count = scores.new_zeros(pairs.shape[0]).index_add_(0, group, tied.to(scores.dtype))
        first = torch.full_like(pairs, layout.slot.shape[0])
        first.scatter_reduce_(0, group[tied], moment[tied], "amin")
        best[pairs] = first
        _add(out, layout, matrices, pair // k, moment, p.reshape(-1)[pair] * tied / count[group])
    return Readout(out, best.reshape(rows, k))


def _add(
    out: dict[str, Tensor],
    layout: Layout,
    matrices: Mapping[str, Matrix | Tensor],
    row: Tensor,
    moment: Tensor,
    weight: Tensor,
) -> None:
    """Add weight * part to the rows, without reading moments of negligible weight."""
    # Smaller weights vanish in rounding.
    some = weight > 1e-3 * torch.finfo(weight.dtype).eps
    row, moment, weight = row[some], moment[some], weight[some]
    for key, codes in matrices.items():
        part = layout.parts[key][moment]
        has = part >= 0
        out[key].index_add_(0, row[has], codes[part[has]] * weight[has, None])


def read_all(
    layout: Layout,
    matrices: Mapping[str, Matrix | Tensor],
    queries: Sequence[MatrixQuery],
    beta: Tensor,
    shift: Tensor,
    mask: Tensor | None,
) -> tuple[dict[str, Tensor], Tensor]:
    """The sums over every slot of e^{beta s - shift} code, of all ``matrices``, and of the weights (Q,).

    With the log-sum-exp as ``shift`` it is the softmax readout, with no truncation.
    """
    rows = queries[0].cue.shape[0]
    out = {key: queries[0].cue.new_zeros(rows, codes.shape[1]) for key, codes in matrices.items()}
    total = torch.zeros_like(beta)
    for block in scan_blocks(layout, queries, mask):
        p = (block.scores * beta).sub_(shift).clamp_(min=-80.0).exp_()
        total += p.sum(dim=0)
        if block.group is not None:
            tied = block.moment_scores >= (block.scores - TIE * (1 + block.scores.abs()))[block.group]
            count = torch.zeros_like(p).index_add_(0, block.group, tied.to(p.dtype))
            p = (p / count.clamp(min=1))[block.group] * tied
        for key, codes in matrices.items():
            part = layout.parts[key][block.first : block.last]
            has = part >= 0
            every = key in layout.in_order
            rows_of = slice(block.first, block.last) if every else part[has]
            out[key] += (p if every else p[has]).T @ codes[rows_of]
    return out, total


def part_scores(layout: Layout, query: MatrixQuery, moment: Tensor) -> tuple[Tensor, Tensor]:
    """The part (Q, k) that each moment (Q, k) has for a query (-1: none), and its score (Q, k)."""
    part = torch.where(moment >= 0, layout.parts[query.key][moment.clamp(min=0)], -1)
    codes = query.codes[part.clamp(min=0).reshape(-1)].reshape(*part.shape, -1)
    scores = torch.bmm(codes, query.cue[:, :, None])[..., 0]
    return part, torch.where(part >= 0, scores, query.absent[:, None])
