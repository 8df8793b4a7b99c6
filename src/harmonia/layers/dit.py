"""The diffusion transformer (DiT): patches as tokens, conditioned by adaptive layer norm.

Reference: Peebles and Xie 2023 (DiT, "adaLN-Zero"); the tokens of a condition are attended to
together with the patches, in the same softmax as in ``unet``.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from harmonia.layers.unet import zero


class DiTBlock(nn.Module):
    """Attention and a perceptron, each scaled, shifted and gated by the vector; initially the identity."""

    def __init__(self, width: int, heads: int, tokens: bool) -> None:
        super().__init__()
        self.heads = heads
        self.norm1, self.norm2 = (nn.LayerNorm(width, elementwise_affine=False) for _ in range(2))
        self.qkv, self.out = nn.Linear(width, 3 * width), nn.Linear(width, width)
        self.told = nn.Sequential(nn.LayerNorm(width), nn.Linear(width, 2 * width)) if tokens else None
        self.mlp = nn.Sequential(
            nn.Linear(width, 4 * width), nn.GELU(approximate="tanh"), nn.Linear(4 * width, width)
        )
        self.adapt = zero(nn.Linear(width, 6 * width))

    def forward(self, x: Tensor, vector: Tensor, tokens: Tensor, mask: Tensor) -> Tensor:
        """``x`` (n, p, width), ``vector`` (n, width), ``tokens`` (n, t, width), ``mask`` (n, t)."""
        a, b, gate, c, d, gate2 = self.adapt(F.silu(vector))[:, None].chunk(6, 2)
        x = x + gate * self.attend(torch.addcmul(a, self.norm1(x), 1 + b), tokens, mask)
        out: Tensor = x + gate2 * self.mlp(torch.addcmul(c, self.norm2(x), 1 + d))
        return out

    def attend(self, x: Tensor, tokens: Tensor, mask: Tensor) -> Tensor:
        """Every patch to all patches and the condition's tokens."""
        n, p, width = x.shape
        q, k, v = self.qkv(x).chunk(3, 2)
        seen = None
        if self.told is not None:
            more_k, more_v = self.told(tokens).chunk(2, 2)
            k, v = torch.cat([k, more_k], 1), torch.cat([v, more_v], 1)
            seen = torch.cat([mask.new_ones(n, p), mask], 1)[:, None, None]
        q, k, v = (y.reshape(n, y.shape[1], self.heads, -1).transpose(1, 2) for y in (q, k, v))
        y = F.scaled_dot_product_attention(q, k, v, attn_mask=seen)
        out: Tensor = self.out(y.transpose(1, 2).reshape(n, p, width))
        return out


class DiT(nn.Module):
    """From noisy images (n, before, h, w) and their condition to (n, after, h, w).

    ``patch`` divides both sides of the image; ``size`` is its height and width.
    """

    def __init__(
        self,
        before: int,
        after: int,
        size: tuple[int, int],
        width: int,
        blocks: int,
        heads: int,
        *,
        patch: int = 2,
        tokens: bool = False,
    ) -> None:
        super().__init__()
        self.patch = patch
        self.stem = nn.Linear(before * patch**2, width)
        rows, columns = size[0] // patch, size[1] // patch
        self.register_buffer("place", _places(rows, columns, width), persistent=False)
        self.blocks = nn.ModuleList(DiTBlock(width, heads, tokens) for _ in range(blocks))
        self.norm = nn.LayerNorm(width, elementwise_affine=False)
        self.adapt = zero(nn.Linear(width, 2 * width))
        self.out = zero(nn.Linear(width, after * patch**2))

    def forward(self, x: Tensor, vector: Tensor, tokens: Tensor, mask: Tensor) -> Tensor:
        """``x`` (n, before, h, w), ``vector`` (n, width), ``tokens`` (n, t, width), ``mask`` (n, t)."""
        squares = F.pixel_unshuffle(x, self.patch)
        rows, columns = squares.shape[2:]
        y = self.stem(squares.flatten(2).transpose(1, 2)) + self.place
        for block in self.blocks:
            y = block(y, vector, tokens, mask)
        shift, scale = self.adapt(F.silu(vector))[:, None].chunk(2, 2)
        y = self.out(torch.addcmul(shift, self.norm(y), 1 + scale))
        return F.pixel_shuffle(y.transpose(1, 2).unflatten(2, (rows, columns)), self.patch)


def _places(rows: int, columns: int, width: int) -> Tensor:
    """Sines and cosines of row and column, (rows * columns, width), ``width`` divisible by 4."""
    frequencies = torch.exp(torch.arange(width // 4) * (-math.log(10_000.0) / (width // 4)))
    down = (torch.arange(rows)[:, None] * frequencies).repeat_interleave(columns, 0)
    along = (torch.arange(columns)[:, None] * frequencies).repeat(rows, 1)
    return torch.cat([down.sin(), down.cos(), along.sin(), along.cos()], 1)
