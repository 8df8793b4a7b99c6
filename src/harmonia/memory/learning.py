"""Learning of the parameters of a memory from its records: modality weights, slot bias, couplings.

Only constants of the energy change, not its form, so every guarantee holds. The constants are those of the
records at the start, and are set at the end: if nothing can be learned, nothing is changed.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace

import torch
from torch import Tensor

from harmonia.memory.harmonic import Given, HarmonicMemory
from harmonia.memory.moment_scores import slot_scores
from harmonia.memory.records import Records
from harmonia.memory.settle import queries_of

# Competing records per example when modality weights are learned.
RIVALS = 256
NEWTON_STEPS = 50
# Strength of the prior on the weights of cues, in examples with a score of one.
PRIOR = 0.1


def learn_trusts(memory: HarmonicMemory, cues: Sequence[Given], slots: Tensor) -> float:
    """Learn the weight of each modality's cue from Q examples: cues, and the ``slots`` (Q,) to be recalled.

    Sets ``memory.trusts`` (largest 1) and returns the beta, in units of chance, that goes with them.
    The maximum-likelihood estimate of p = softmax(sum_c a_c z_c) over a_c >= 0, z_c the score of cue c in
    units of chance: a convex problem (a conditional logit, McFadden 1974), solved by Newton's method over
    the right slot and its ``RIVALS`` nearest. For Gaussian scores a_c is the mean rise of the right record
    over chance, so that a_c / a_d is the ratio of the two precisions.
    """
    still = memory.snapshot(counts=False)
    still.trusts = {}
    still.records.chosen(slots)
    if not cues or len(slots) != len(cues[0].codes):
        raise ValueError("each cue needs the slot that it is to recall: give (Q, d) cues and (Q,) slots")
    alone = [replace(cue, weight=1.0) for cue in cues]
    rows = len(slots)
    found = [still.recall([cue], k=RIVALS, steps=0).slots for cue in alone]
    found.append(still.recall(alone, k=RIVALS, steps=0).slots)
    rivals = torch.cat(found, dim=-1)
    # The right slot first; it, and slots found twice, count once.
    rivals = torch.cat([slots[:, None].to(rivals), rivals], dim=-1)
    twice = _seen_before(rivals) | (rivals < 0)
    scores = []
    for cue in alone:
        channels = still.channels([cue])
        query = queries_of(still.matrices, channels, [c.cue for c in channels])
        row = torch.arange(rows, device=rivals.device)[:, None].expand_as(rivals).reshape(-1)
        flat = slot_scores(still.view((cue.key,)), query, row, rivals.clamp(min=0).reshape(-1))
        flat = torch.where(flat.isneginf(), 0.0, flat)
        scores.append(flat.reshape(rivals.shape).double())
    a = conditional_logit(torch.stack(scores, dim=-1), twice)
    total = float(a.norm())
    if total == 0:
        raise ValueError(
            "the cues carry no information about their slots: check that cue i belongs to slot i"
        )
    by_key: dict[str, list[float]] = {}
    for cue, value in zip(cues, a.tolist(), strict=True):
        by_key.setdefault(cue.key, []).append(value)
    means = {key: sum(values) / len(values) for key, values in by_key.items()}
    most = max(means.values())
    memory.trusts = {key: value / most for key, value in means.items()}
    return total


def learn_bias(
    memory: HarmonicMemory, cues: Sequence[Given], beta: float | None = None, rounds: int = 20
) -> None:
    """Set the slot bias against hubs: no record answers more than its share of these Q cues.

    The bias makes the mean probability of every slot over the cues, flattened by one pseudo-count per
    slot, 1/N: the balancing of Sinkhorn and Knopp (1967) on one side, as the inverted softmax does in a
    single round (Smith et al. 2017). Slots of equal popularity keep a bias of 0. The cues should be
    like those of later recalls, for instance all stored codes of another modality.
    """
    still = memory.snapshot(counts=False)
    beta = beta or still.beta(still.held)
    rows = cues[0].codes.shape[0]
    still.bias = torch.zeros_like(still.bias)
    for _ in range(rounds):
        settled = still.recall(cues, k=min(RIVALS, still.slots), steps=0, beta=beta)
        share = torch.zeros_like(still.bias)
        held = settled.slots >= 0
        share.index_add_(0, settled.slots[held], settled.p[held])
        wanted = rows / still.held
        step = -((share + 1.0) / (wanted + 1.0)).log() / beta
        still.bias = still.bias + step
        if float(step.abs().max()) < 0.01:
            break
    bias = still.bias - still.bias[still.alive].median()

    def change(records: Records) -> Records:
        if records.compacted != still.records.compacted:
            raise ValueError("slots were numbered anew while the bias was learned: learn it again")
        # Records that came meanwhile have none yet.
        return replace(records, bias=torch.cat([bias, bias.new_zeros(records.slots - len(bias))]))

    memory.edit(change)


def learn_couplings(memory: HarmonicMemory, strength: float = 1.0, ridge: float = 1.0) -> None:
    """Set the couplings between all pairs of modalities that occur together in a record.

    W_mn is the ridge regression from the codes of n to those of m (centred), symmetrised by
    taking the mean of it and the transposed regression back, times ``strength``.
    """
    still = memory.snapshot()
    keys = sorted(still.matrices)
    couplings = {}
    for i, one in enumerate(keys):
        for other in keys[i + 1 :]:
            a, b = still.layout.parts[one], still.layout.parts[other]
            both = (a >= 0) & (b >= 0) & still.alive[still.layout.slot]
            if not bool(both.any()):
                continue
            x, y = still.matrices[one][a[both]], still.matrices[other][b[both]]
            forward, backward = ridge_regression(x, y, ridge), ridge_regression(y, x, ridge)
            block = strength * 0.5 * (forward.T + backward)
            couplings[(other, one)], couplings[(one, other)] = block, block.T
    memory.couplings = couplings


def ridge_regression(x: Tensor, y: Tensor, ridge: float) -> Tensor:
    """W ``(d_x, d_y)`` of least |x W - y|^2 + ridge |W|^2 (Hoerl and Kennard 1970)."""
    gram = x.T @ x
    gram.diagonal().add_(ridge)
    weights: Tensor = torch.linalg.solve(gram, x.T @ y)
    return weights


def conditional_logit(scores: Tensor, left_out: Tensor) -> Tensor:
    """a (C,) >= 0 of greatest sum_q log softmax(scores[q] @ a)[0]; ``scores`` (Q, K, C)."""
    a = torch.ones(scores.shape[-1], dtype=scores.dtype, device=scores.device)
    for _ in range(NEWTON_STEPS):
        p = torch.softmax((scores @ a).masked_fill(left_out, -math.inf), dim=-1)
        mean = (p[..., None] * scores).sum(dim=1)
        gradient = (scores[:, 0] - mean).mean(dim=0)
        centred = scores - mean[:, None]
        hessian = torch.einsum("qk,qkc,qkd->cd", p, centred, centred) / len(p)
        # A weak prior around 0 keeps cues that separate the examples perfectly finite.
        gradient = gradient - PRIOR * a / len(p)
        hessian.diagonal().add_(PRIOR / len(p))
        step = torch.linalg.solve(hessian, gradient)
        # Far from the optimum a full Newton step may overshoot.
        step = step * min(1.0, 2.0 / float(step.abs().max().clamp(min=1e-12)))
        moved = (a + step).clamp(min=0.0)
        if float((moved - a).abs().max()) < 1e-9:
            break
        a = moved
    return a


def _seen_before(slots: Tensor) -> Tensor:
    """Whether each entry (Q, K) repeats an earlier one of its row."""
    value, order = slots.sort(dim=-1, stable=True)
    again = torch.zeros_like(slots, dtype=torch.bool)
    again[:, 1:] = value[:, 1:] == value[:, :-1]
    return torch.zeros_like(again).scatter_(-1, order, again)
