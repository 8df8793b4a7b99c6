"""Pooling of tokens to one vector."""

from __future__ import annotations

import torch
from torch import Tensor, nn

POOLS = ("mean", "attention", "mean+max")


class Pool(nn.Module):
    """The mean of the tokens that count, a learned weighted mean, or mean + max (Kong et al. 2020, PANNs).

    ``attention`` weighs a token by the softmax of its product with one learned vector (Lin et al.
    2017, one hop). The vector starts at zero, hence the pool as the plain mean.
    """

    def __init__(self, width: int, kind: str = "mean") -> None:
        super().__init__()
        if kind not in POOLS:
            raise ValueError(f"a pool is one of {', '.join(POOLS)}, not {kind!r}")
        self.kind = kind
        self.query = nn.Parameter(torch.zeros(width)) if kind == "attention" else None

    def forward(self, x: Tensor, mask: Tensor | None = None) -> Tensor:
        """``x`` (n, t, width) to (n, width); ``mask`` (n, t), true where a token counts."""
        if mask is None:
            mask = x.new_ones(x.shape[:2], dtype=torch.bool)
        if self.query is not None:
            weight = (x @ self.query).masked_fill(~mask, float("-inf")).softmax(dim=1)
        else:
            weight = mask / mask.sum(dim=1, keepdim=True)
        pooled = torch.einsum("nt,ntw->nw", weight.to(x.dtype), x)
        if self.kind == "mean+max":
            pooled = pooled + x.masked_fill(~mask[..., None], float("-inf")).amax(dim=1)
        return pooled
