"""Attention over any number of stored codes, block by block: one retrieval step on one matrix."""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import lru_cache

import torch
from torch import Tensor

from harmonia.memory.certificates import error_bound
from harmonia.memory.entropies import Entropy, Shannon
from harmonia.memory.matrix import Matrix
from harmonia.memory.moment_scores import MatrixQuery, read_all, read_top
from harmonia.memory.record_layout import Layout
from harmonia.memory.scan import scan_blocks, scan_top

# Probability outside the best k that a readout may omit.
EXACT = 1e-6


@dataclass(frozen=True, slots=True, eq=False)
class Attended:
    """``codes`` (Q, d): sum of p * code. ``slots``, ``scores``, ``p`` (Q, k), best first.

    ``tail`` (Q,) is the probability outside these slots, ``bound`` (Q,) how far ``codes`` may be off for
    slots that were not read (0 where every one was).
    """

    codes: Tensor
    slots: Tensor
    scores: Tensor
    p: Tensor
    tail: Tensor
    bound: Tensor


def attend(
    codes: Matrix | Tensor,
    cues: Tensor,
    beta: float,
    *,
    entropy: Entropy | None = None,
    k: int = 64,
) -> Attended:
    """p = y_Omega(beta codes @ cue) over all P codes ``(P, d)``, and the mean code under p.

    ``cues`` (Q, d) may have any length. The readout is exact: softmax (the default) reads every slot unless
    all those behind the best ``k`` are provably without weight; for sparse entropies k grows until the last
    kept slot has none. Equals ``scaled_dot_product_attention(cues, codes, codes, scale=beta)``.
    """
    count, chosen = codes.shape[0], entropy or Shannon()
    if not count or cues.ndim != 2 or not len(cues) or cues.shape[1] != codes.shape[1]:
        raise ValueError(
            f"attend needs codes (P, d) and cues (Q, d), at least one of each "
            f"(got {tuple(codes.shape)} and {tuple(cues.shape)})"
        )
    if k < 1 or not 0.0 < beta < math.inf or not bool(cues.isfinite().all()):
        raise ValueError(
            f"attend needs finite cues, k of at least 1, a positive beta (got k {k}, beta {beta})"
        )
    view = _layout(count, str(cues.device))
    queries = [MatrixQuery("", codes, cues, torch.zeros_like(cues[:, 0]))]
    temperature = torch.full_like(cues[:, 0], beta)
    k = min(k, count)
    if not isinstance(chosen, Shannon):
        return _sparse(view, queries, chosen, temperature, k)
    found = scan_top(view, queries, k, temperature, total=False)
    p = torch.exp(found.scores * beta - found.logsumexp[:, None])
    tail = (1.0 - p.sum(dim=-1)).clamp(min=0.0)
    # Not known, or not negligible.
    if not bool((tail <= EXACT).all()):
        shift = found.scores[:, 0] * beta
        sums, total = read_all(scan_blocks(view, queries), view, {"": codes}, queries, temperature, shift)
        p = torch.exp(found.scores * beta - (shift + total.log())[:, None])
        out = sums[""] / total[:, None]
        tail = (1.0 - p.sum(dim=-1)).clamp(min=0.0)
        return Attended(out, found.slots, found.scores, p, tail, torch.zeros_like(tail))
    out = read_top(view, {"": codes}, queries, found.slots, p).codes[""]
    return Attended(out, found.slots, found.scores, p, tail, error_bound(tail))


def _sparse(view: Layout, queries: list[MatrixQuery], entropy: Entropy, beta: Tensor, k: int) -> Attended:
    while True:
        found = scan_top(view, queries, k, beta, total=False)
        p = entropy.argmax(found.scores * beta[:, None])
        if k == view.slots or bool((p[:, -1] == 0).all()):
            break
        k = min(4 * k, view.slots)
    out = read_top(view, {"": queries[0].codes}, queries, found.slots, p).codes[""]
    none = torch.zeros_like(beta)
    return Attended(out, found.slots, found.scores, p, none, none)


@lru_cache(maxsize=4)
def _layout(count: int, device: str) -> Layout:
    return Layout.aligned({"": torch.ones(count, dtype=torch.bool)}).to(torch.device(device))
