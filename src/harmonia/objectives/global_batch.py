"""The global batch: rows gathered from all ranks, with their gradients.

A contrastive loss uses the negatives of all ranks, so a row needs the gradients of the losses of all ranks.
The backward pass of `gather` sums these gradients and returns them to the rank that the row came from. Let
L_r be the loss on rank r, of W ranks, and f_r the rows computed there. Then rank r holds
d(L_1 + ... + L_W)/d f_r, and after its own backward pass the same sum with respect to its copy of the
weights, as far as they act through f_r. DDP takes the mean over the ranks: d(mean of L_r)/d(weights).

So a loss is right under DDP when the mean of its values over the ranks is the loss of the global batch. There
are two ways to that, both with the gradients of one process:

* each rank computes its share, W times over (`info_nce` and its relatives: 1/W of the work each);
* each rank computes the whole from ``gather(x)`` and ``gather(y)`` (for the losses without a ``group``).

Every rank must call with the same number of rows; a call from one rank alone blocks for ever.
"""

from __future__ import annotations

from typing import Any, cast

import torch
import torch.distributed as dist
from torch import Tensor

from harmonia.types import HarmoniaError


def world(group: dist.ProcessGroup | None = None) -> int:
    """Number of ranks; 1 where torch.distributed has not been initialised."""
    return dist.get_world_size(group) if dist.is_available() and dist.is_initialized() else 1


def gather(x: Tensor, group: dist.ProcessGroup | None = None) -> Tensor:
    """The rows (n, ...) of all ranks, (W n, ...) in the order of the ranks; x itself where there is one.

    Differentiable in floating-point rows. Ranks with different numbers of rows raise a HarmoniaError.

        everything = gather(encoder(photos))      # (W n, d)
    """
    if world(group) == 1:
        return x
    _check_equal(x, group)
    return cast(Tensor, _Gather.apply(x, group))  # type: ignore[no-untyped-call]


def offset(rows: int, group: dist.ProcessGroup | None = None) -> int:
    """Where the ``rows`` of this rank begin in what `gather` returns."""
    return rows * dist.get_rank(group) if world(group) > 1 else 0


def sum_over_ranks(x: Tensor, group: dist.ProcessGroup | None = None) -> Tensor:
    """The sum of ``x`` on all ranks, without a gradient."""
    if world(group) == 1:
        return x
    total = x.detach().clone()
    dist.all_reduce(total, group=group)
    return total


class _Gather(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, group: dist.ProcessGroup | None) -> Tensor:
        ctx.group, ctx.rows = group, len(x)
        parts = [torch.empty_like(x, memory_format=torch.contiguous_format) for _ in range(world(group))]
        dist.all_gather(parts, x.contiguous(), group=group)
        return torch.cat(parts)

    @staticmethod
    def backward(ctx: Any, *grad: Tensor) -> tuple[Tensor, None]:
        total = sum_over_ranks(grad[0].contiguous(), ctx.group)
        start = offset(ctx.rows, ctx.group)
        return total[start : start + ctx.rows], None


def _check_equal(x: Tensor, group: dist.ProcessGroup | None) -> None:
    # Unequal rows would make the collective hang or return other ranks' rows shifted.
    own = torch.tensor([len(x)], device=x.device)
    rows = [torch.empty_like(own) for _ in range(world(group))]
    dist.all_gather(rows, own, group=group)
    counts = torch.cat(rows).tolist()
    if len(set(counts)) > 1:
        raise HarmoniaError(f"the ranks have {counts} rows; give every rank the same number")
