"""Positive pairs of rows, and losses over the score matrix in chunks that fit in memory.

Scores are of the n rows of x on this rank against the M rows of y on all ranks.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeVar

import torch
import torch.distributed as dist
from torch import Tensor
from torch.utils.checkpoint import checkpoint

from harmonia.objectives.checks import check_mask, check_width
from harmonia.objectives.global_batch import gather, offset, sum_over_ranks, world
from harmonia.types import HarmoniaError

T = TypeVar("T")

Positives = Tensor | tuple[Tensor, Tensor] | None
"""Which rows of x (n, d) and of y (m, d), on this rank, belong together.

* None: row i of x and row i of y, and no others; n = m.
* integers (n,): the record of row i of x and of row i of y; rows of one record belong together; n = m.
* a pair of integers (n,) and (m,): the records of the rows of x and of the rows of y.
* bool (n, M): said outright; M counts the rows of y on all ranks.

A row may have several partners, or none: then it is only a negative for the others.
"""


@dataclass(frozen=True, slots=True, eq=False)
class Pairs:
    """P (n, M) bool. ``per_row`` (n,) and ``per_column`` (M,) count partners over all ranks.

    ``rows`` and ``columns`` are the records of the rows, or ``rows`` is P itself and ``columns`` None.
    ``diagonal`` is where P has its diagonal of ones, if it has nothing else.
    """

    rows: Tensor
    columns: Tensor | None
    per_row: Tensor
    per_column: Tensor
    diagonal: int | None

    def block(self, start: int, stop: int) -> Tensor:
        """P[start:stop]."""
        rows = self.rows[start:stop]
        return rows if self.columns is None else rows[:, None] == self.columns

    def total(self, scores: Tensor, start: int, a: Tensor, b: Tensor) -> Tensor:
        """The sum of P_ij s_ij (a_i + b_j) over the rows from ``start`` on; ``scores`` (c, M)."""
        a = a[start : start + len(scores)]
        if self.diagonal is not None:
            first = self.diagonal + start
            return scores.diagonal(first) @ (a + b[first : first + len(scores)])
        kept = scores.masked_fill(~self.block(start, start + len(scores)), 0.0)
        return (a @ kept).sum() + (kept @ b).sum()


def pair(
    x: Tensor, y: Tensor, positives: Positives, group: dist.ProcessGroup | None, least: int = 2
) -> Pairs:
    """The partners of these rows; a HarmoniaError where shapes do not fit or nothing belongs together.

    At least one side must have ``least`` rows: a single pair has no negatives.
    """
    check_width(x, y)
    n, m = len(x), len(y)
    if max(n, m) * world(group) < least:
        raise HarmoniaError("a single pair has no negatives: give a batch of at least two")
    if isinstance(positives, Tensor) and positives.dtype == torch.bool:
        check_mask(positives, (n, m * world(group)), "positives")
        per_column = sum_over_ranks(positives.sum(dim=0), group)
        pairs = Pairs(positives, None, positives.sum(dim=1), per_column, None)
    elif positives is None:
        _check_even(n, m)
        ids = torch.arange(n * world(group), device=x.device)
        first, one = offset(n, group), torch.ones_like(ids)
        return Pairs(ids[first : first + n], ids, one[:n], one, first)
    else:
        rows, columns = _records(positives, n, m)
        everywhere = gather(columns, group)
        per_column = _count(everywhere, gather(rows, group))
        pairs = Pairs(rows, everywhere, _count(rows, everywhere), per_column, None)
    if not bool(pairs.per_column.any()):
        raise HarmoniaError("no row of x has a partner in y: check the positives (record ids or bool)")
    return pairs


def partners(x: Tensor, y: Tensor, positives: Positives) -> Tensor:
    """P (n, m) bool of the rows given, whatever other ranks hold."""
    check_width(x, y)
    n, m = len(x), len(y)
    if isinstance(positives, Tensor) and positives.dtype == torch.bool:
        check_mask(positives, (n, m), "positives")
        return positives
    if positives is None:
        _check_even(n, m)
        return torch.eye(n, dtype=torch.bool, device=x.device)
    rows, columns = _records(positives, n, m)
    return rows[:, None] == columns


def transpose(positives: Positives, columns: int, group: dist.ProcessGroup | None) -> Positives:
    """The positives of y against x; ``columns`` counts the rows of y on this rank."""
    if isinstance(positives, tuple):
        return positives[1], positives[0]
    if positives is None or positives.dtype != torch.bool:
        return positives
    start = offset(columns, group)
    whole = gather(positives.to(torch.uint8), group)
    return whole[:, start : start + columns].T.bool()


def row_weights(valid: Tensor, dtype: torch.dtype, group: dist.ProcessGroup | None = None) -> Tensor:
    """Weights (n,) for a mean over the ``valid`` (n,) rows of all ranks, W times over: see `gather`."""
    return valid.to(dtype) * world(group) / sum_over_ranks(valid.sum(), group).clamp(min=1)


def by_chunk(block: Callable[[Tensor, Tensor, int], T], x: Tensor, y: Tensor, chunk: int | None) -> list[T]:
    """``block(rows, y, start)`` for every ``chunk`` rows of x, computed again in the backward.

    Between forward and backward only the rows and the results are kept, so that the scores of one chunk are
    the most that is in memory (Chen et al. 2016, "Training Deep Nets with Sublinear Memory Cost").
    """
    if chunk is None:
        return [block(x, y, 0)]
    if chunk < 1:
        raise HarmoniaError(f"chunk must be at least 1 row, got {chunk}")
    return [
        checkpoint(block, rows, y, i * chunk, use_reentrant=False, preserve_rng_state=False)
        for i, rows in enumerate(torch.split(x, chunk))
    ]


def _check_even(n: int, m: int) -> None:
    if n != m:
        raise HarmoniaError(f"x has {n} rows and y {m}: say which belong together with positives")


def _records(positives: Tensor | tuple[Tensor, Tensor], n: int, m: int) -> tuple[Tensor, Tensor]:
    rows, columns = positives if isinstance(positives, tuple) else (positives, positives)
    for ids, wanted, name in ((rows, n, "x"), (columns, m, "y")):
        if ids.shape != (wanted,) or ids.is_floating_point() or ids.dtype == torch.bool:
            raise HarmoniaError(
                f"positives must be bool (n, M) or record ids, one integer for each of the {wanted} rows of "
                f"{name}; got {ids.dtype} of shape {tuple(ids.shape)}"
            )
    return rows, columns


def _count(wanted: Tensor, among: Tensor) -> Tensor:
    """How often each of ``wanted`` occurs."""
    among = among.sort().values
    return torch.searchsorted(among, wanted, right=True) - torch.searchsorted(among, wanted)
