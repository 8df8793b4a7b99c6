"""A residual perceptron with adaptive layer norm, for diffusion of vectors such as latents.

Reference: the blocks are those of DiT (Peebles and Xie 2023) without attention.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from harmonia.layers.unet import zero


class MLPBlock(nn.Module):
    """A two-layer perceptron, scaled, shifted and gated by the vector; initially the identity."""

    def __init__(self, width: int, told: int) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(width, elementwise_affine=False)
        self.adapt = zero(nn.Linear(told, 3 * width))
        self.mlp = nn.Sequential(nn.Linear(width, 2 * width), nn.SiLU(), nn.Linear(2 * width, width))

    def forward(self, x: Tensor, vector: Tensor) -> Tensor:
        """``x`` (n, width), ``vector`` (n, told)."""
        shift, scale, gate = self.adapt(F.silu(vector)).chunk(3, 1)
        out: Tensor = x + gate * self.mlp(torch.addcmul(shift, self.norm(x), 1 + scale))
        return out


class ResidualMLP(nn.Module):
    """From noisy samples, flattened, and their condition to the same shape.

    It has no attention: of the condition it takes the vector only, not the tokens.
    """

    def __init__(self, before: int, shape: tuple[int, int, int], width: int, blocks: int, told: int) -> None:
        super().__init__()
        channels, height, columns = shape
        self.shape = shape
        self.stem = nn.Linear(before * height * columns, width)
        self.blocks = nn.ModuleList(MLPBlock(width, told) for _ in range(blocks))
        self.norm = nn.LayerNorm(width)
        self.out = zero(nn.Linear(width, channels * height * columns))

    def forward(self, x: Tensor, vector: Tensor, tokens: Tensor, mask: Tensor) -> Tensor:
        """``x`` (n, before, h, w), ``vector`` (n, told): (n, *shape)."""
        y = self.stem(x.flatten(1))
        for block in self.blocks:
            y = block(y, vector)
        out: Tensor = self.out(F.silu(self.norm(y)))
        return out.view(-1, *self.shape)
