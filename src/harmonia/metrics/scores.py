"""Dot products of two sets of codes, a block of queries at a time, and the k best with ties shared."""

from __future__ import annotations

from collections.abc import Iterator

import torch
import torch.nn.functional as F
from torch import Tensor

from harmonia.types import HarmoniaError

BLOCK = 64
"""Queries scored at a time: with 100,000 items a block takes some 150 MB."""


def check_codes(x: Tensor, name: str, least: int = 1) -> None:
    """``x`` is rows (n, d) of finite numbers, ``least`` of them at least."""
    if x.dim() != 2 or not x.is_floating_point() or len(x) < least:
        raise HarmoniaError(
            f"{name} must be at least {least} codes (n, d), got {x.dtype} of shape {tuple(x.shape)}"
        )
    if not bool(x.isfinite().all()):
        raise HarmoniaError(f"{name} has codes that are not finite: look at what the encoder gives")


def check_labels(labels: Tensor, x: Tensor, name: str) -> None:
    """``labels`` is (n,) of integers, one for each row of ``x``."""
    if labels.shape != x.shape[:1] or labels.is_floating_point() or labels.dtype == torch.bool:
        raise HarmoniaError(
            f"{name} must be {len(x)} integers, one for each row, "
            f"got {labels.dtype} of shape {tuple(labels.shape)}"
        )


def check_pair(x: Tensor, y: Tensor) -> None:
    """x (n, d) and y (m, d) are codes of one width."""
    check_codes(x, "x")
    check_codes(y, "y")
    if x.shape[1] != y.shape[1]:
        raise HarmoniaError(f"x has codes of width {x.shape[1]} and y of {y.shape[1]}: compare one space")


def row_blocks(rows: int, block: int) -> Iterator[slice]:
    """``rows`` rows in slices of ``block``, the last one shorter."""
    if block < 1:
        raise HarmoniaError(f"a block needs at least one row, got block={block}")
    return (slice(start, min(start + block, rows)) for start in range(0, rows, block))


def score_blocks(x: Tensor, y: Tensor, block: int = BLOCK) -> Iterator[tuple[slice, Tensor]]:
    """Dot products of blocks of x (n, d) with all of y (m, d), float32 (b, m), and which rows of x they are.

    Summed in float64 and then rounded, so that equal codes have equal scores wherever they stand: rounding in
    the sum would otherwise rank them.
    """
    check_pair(x, y)
    items = y.double().T
    for rows in row_blocks(len(x), block):
        yield rows, (x[rows].double() @ items).float()


def top_shares(scores: Tensor, k: int) -> Tensor:
    """How much of each item is among the k best of its row: scores (b, m) -> float64 (b, m), k in each row.

    1 above the k-th score, 0 below it; items that tie with it share the places that are left.
    """
    last = scores.topk(min(k, scores.shape[1]), dim=1).values[:, -1:]
    above, tied = scores > last, scores == last
    left = k - above.sum(dim=1, keepdim=True)
    share = (left / tied.sum(dim=1, keepdim=True)).clamp(max=1.0)
    return above.double() + tied * share.double()


def unit(x: Tensor) -> Tensor:
    """Rows of unit length, float64."""
    return F.normalize(x.double(), dim=-1)
