"""The transformer encoder, pre-norm, with a mask over tokens.

References: Vaswani et al. 2017; normalisation before each part, Xiong et al. 2020.
"""

from __future__ import annotations

from torch import Tensor, nn
from torch.nn import functional as F


class Attention(nn.Module):
    """Multi-head self-attention."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.qkv = nn.Linear(width, 3 * width)
        self.out = nn.Linear(width, width)

    def forward(self, x: Tensor, mask: Tensor | None = None) -> Tensor:
        """``x`` (n, t, width); ``mask`` (n, t), true where a token counts."""
        n, t, width = x.shape
        q, k, v = self.qkv(x).view(n, t, 3, self.heads, -1).permute(2, 0, 3, 1, 4)
        seen = None if mask is None else mask[:, None, None, :]
        y = F.scaled_dot_product_attention(q, k, v, attn_mask=seen)
        out: Tensor = self.out(y.transpose(1, 2).reshape(n, t, width))
        return out


class Block(nn.Module):
    """A residual block of attention and a two-layer perceptron."""

    def __init__(self, width: int, heads: int, dropout: float = 0.0) -> None:
        super().__init__()
        self.norm1, self.norm2 = nn.LayerNorm(width), nn.LayerNorm(width)
        self.attention = Attention(width, heads)
        self.mlp = nn.Sequential(nn.Linear(width, 4 * width), nn.GELU(), nn.Linear(4 * width, width))
        self.dropout = nn.Dropout(dropout)

    def forward(self, x: Tensor, mask: Tensor | None = None) -> Tensor:
        """(n, t, width) to the same shape."""
        x = x + self.dropout(self.attention(self.norm1(x), mask))
        out: Tensor = x + self.dropout(self.mlp(self.norm2(x)))
        return out


class Transformer(nn.Module):
    """A transformer encoder with ``blocks`` blocks and a final layer norm; about ``12 * blocks * width**2``
    parameters.

    With no blocks it only normalises.
    """

    def __init__(self, width: int, blocks: int, heads: int, dropout: float = 0.0) -> None:
        super().__init__()
        self.blocks = nn.ModuleList(Block(width, heads, dropout) for _ in range(blocks))
        self.norm = nn.LayerNorm(width)

    def forward(self, x: Tensor, mask: Tensor | None = None) -> Tensor:
        """``x`` (n, t, width), ``mask`` (n, t) bool; every row needs at least one true."""
        for block in self.blocks:
            x = block(x, mask)
        out: Tensor = self.norm(x)
        return out
