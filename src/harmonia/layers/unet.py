"""The U-Net of diffusion models: residual blocks with adaptive group norm, attention, skip connections.

References: Ronneberger et al. 2015 (the U); Dhariwal and Nichol 2021 ("ADM": adaptive group norm, attention
at coarse resolutions, zero-initialised last convolutions); Rombach et al. 2022 (cross-attention to the
tokens of a condition). On a CPU most of the time goes into 3x3 convolutions; group norm in the contiguous
layout is the cheapest norm (measured: 4 ms against 50 ms of a convolution; channels-last is not faster).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import pairwise

import torch
from torch import Tensor, nn
from torch.nn import functional as F

HEAD = 32
"""Channels of an attention head, where the channels allow it."""


def timestep_embedding(t: Tensor, width: int, period: float = 10_000.0) -> Tensor:
    """Sines and cosines of times (n,) in [0, 1] at ``width / 2`` frequencies: (n, width), ``width`` even.

    Reference: Vaswani et al. 2017; times are scaled to [0, 1000] as those of Ho et al. 2020 are.
    """
    frequencies = torch.exp(torch.arange(width // 2, device=t.device) * (-math.log(period) / (width // 2)))
    angles = 1000 * t[:, None].float() * frequencies
    return torch.cat([angles.cos(), angles.sin()], 1)


def zero(layer: nn.Module) -> nn.Module:
    """A layer with all parameters set to zero, for residual branches that are initially zero."""
    for parameter in layer.parameters():
        nn.init.zeros_(parameter)
    return layer


def group_norm(channels: int) -> nn.GroupNorm:
    """Groups of about 8 channels or more, at most 32 groups."""
    return nn.GroupNorm(math.gcd(channels, min(32, max(1, channels // 8))), channels)


class AdaptiveResidualBlock(nn.Module):
    """A residual block of two 3x3 convolutions; the vector scales and shifts the features between them."""

    def __init__(self, before: int, after: int, width: int, dropout: float = 0.0) -> None:
        super().__init__()
        self.norm1, self.norm2 = group_norm(before), group_norm(after)
        self.conv1 = nn.Conv2d(before, after, 3, padding=1)
        self.conv2 = zero(nn.Conv2d(after, after, 3, padding=1))
        self.adapt = nn.Linear(width, 2 * after)
        self.dropout = nn.Dropout(dropout)
        self.pass_by = nn.Conv2d(before, after, 1) if before != after else nn.Identity()

    def forward(self, x: Tensor, vector: Tensor) -> Tensor:
        """``x`` (n, before, h, w) and ``vector`` (n, width) to (n, after, h, w)."""
        scale, shift = self.adapt(F.silu(vector))[:, :, None, None].chunk(2, 1)
        y = self.conv1(F.silu(self.norm1(x)))
        y = torch.addcmul(shift, self.norm2(y), 1 + scale)
        y = self.conv2(self.dropout(F.silu(y)))
        out: Tensor = self.pass_by(x) + y
        return out


class SpatialAttention(nn.Module):
    """Attention of every pixel to all pixels and to the tokens of the condition, if there are any.

    One softmax over both (as in GLIDE, Nichol et al. 2021) costs one attention instead of two.
    """

    def __init__(self, channels: int, width: int, tokens: bool) -> None:
        super().__init__()
        self.heads = max(1, channels // HEAD) if channels % HEAD == 0 else 1
        self.norm = group_norm(channels)
        self.qkv = nn.Linear(channels, 3 * channels)
        self.told = nn.Sequential(nn.LayerNorm(width), nn.Linear(width, 2 * channels)) if tokens else None
        self.out = zero(nn.Linear(channels, channels))

    def forward(self, x: Tensor, tokens: Tensor, mask: Tensor) -> Tensor:
        """``x`` (n, channels, h, w), ``tokens`` (n, t, width), ``mask`` (n, t): (n, channels, h, w)."""
        n, channels, h, w = x.shape
        q, k, v = self.qkv(self.norm(x).flatten(2).transpose(1, 2)).chunk(3, 2)
        seen = None
        if self.told is not None:
            more_k, more_v = self.told(tokens).chunk(2, 2)
            k, v = torch.cat([k, more_k], 1), torch.cat([v, more_v], 1)
            seen = torch.cat([mask.new_ones(n, h * w), mask], 1)[:, None, None]
        q, k, v = (y.reshape(n, y.shape[1], self.heads, -1).transpose(1, 2) for y in (q, k, v))
        y = F.scaled_dot_product_attention(q, k, v, attn_mask=seen)
        y = self.out(y.transpose(1, 2).reshape(n, h * w, channels))
        out: Tensor = x + y.transpose(1, 2).reshape(n, channels, h, w)
        return out


class Level(nn.Module):
    """A residual block, with attention after it at coarse resolutions."""

    def __init__(
        self, before: int, after: int, width: int, attend: bool, tokens: bool, dropout: float
    ) -> None:
        super().__init__()
        self.block = AdaptiveResidualBlock(before, after, width, dropout)
        self.attention = SpatialAttention(after, width, tokens) if attend else None

    def forward(self, x: Tensor, vector: Tensor, tokens: Tensor, mask: Tensor) -> Tensor:
        """(n, before, h, w) to (n, after, h, w)."""
        x = self.block(x, vector)
        return x if self.attention is None else self.attention(x, tokens, mask)


class UNet(nn.Module):
    """From noisy images and their condition to images of the same height and width.

    ``before``, ``after``  channels in and out
    ``channels``           those of each resolution, fine to coarse; each is half the one before it
    ``width``              of the vector and of the tokens
    ``blocks``             at each resolution, on the way down and again on the way up
    ``attend``             the number of coarsest resolutions that have attention
    ``tokens``             whether attention also goes to the condition's tokens
    ``patch``              side of the squares that are one pixel of the finest resolution
    """

    def __init__(
        self,
        before: int,
        after: int,
        channels: Sequence[int],
        width: int,
        *,
        blocks: int = 1,
        attend: int = 1,
        tokens: bool = False,
        patch: int = 1,
        dropout: float = 0.0,
    ) -> None:
        super().__init__()
        self.patch, self.blocks, last = patch, blocks, len(channels) - 1

        def level(a: int, b: int, depth: int) -> Level:
            return Level(a, b, width, depth > last - attend, tokens, dropout)

        self.stem = nn.Conv2d(before * patch**2, channels[0], 3, padding=1)
        self.down, self.coarser, self.up, self.finer = (nn.ModuleList() for _ in range(4))
        for i, c in enumerate(channels):
            self.down.extend(level(c, c, i) for _ in range(blocks))
            if i < last:
                self.coarser.append(nn.Conv2d(c, channels[i + 1], 3, stride=2, padding=1))
        self.middle = level(channels[-1], channels[-1], last)
        for i in range(last, -1, -1):
            c = channels[i]
            self.up.extend(level(2 * c, c, i) for _ in range(blocks))
            if i:
                self.finer.append(nn.Conv2d(c, channels[i - 1], 3, padding=1))
        self.norm = group_norm(channels[0])
        self.out = zero(nn.Conv2d(channels[0], after * patch**2, 3, padding=1))

    def forward(self, x: Tensor, vector: Tensor, tokens: Tensor, mask: Tensor) -> Tensor:
        """``x`` (n, before, h, w), ``vector`` (n, width), ``tokens`` (n, t, width): (n, after, h, w)."""
        x = self.stem(F.pixel_unshuffle(x, self.patch))
        skips = []
        for i, level in enumerate(self.down):
            if i and i % self.blocks == 0:
                x = self.coarser[i // self.blocks - 1](x)
            x = level(x, vector, tokens, mask)
            skips.append(x)
        x = self.middle(x, vector, tokens, mask)
        for i, level in enumerate(self.up):
            if i and i % self.blocks == 0:
                x = F.interpolate(x, skips[-1].shape[2:], mode="nearest")
                x = self.finer[i // self.blocks - 1](x)
            x = level(torch.cat([x, skips.pop()], 1), vector, tokens, mask)
        return F.pixel_shuffle(self.out(F.silu(self.norm(x))), self.patch)


class UNetEncoder(nn.Module):
    """The encoder half of the U-Net and average pooling: class scores of noisy images (ADM's classifier)."""

    def __init__(self, before: int, after: int, channels: Sequence[int], width: int, patch: int = 1) -> None:
        super().__init__()
        self.patch = patch
        self.stem = nn.Conv2d(before * patch**2, channels[0], 3, padding=1)
        self.down = nn.ModuleList(AdaptiveResidualBlock(c, c, width) for c in channels)
        pairs = pairwise(channels)
        self.coarser = nn.ModuleList(nn.Conv2d(a, b, 3, stride=2, padding=1) for a, b in pairs)
        self.norm = group_norm(channels[-1])
        self.out = nn.Linear(channels[-1], after)

    def forward(self, x: Tensor, vector: Tensor) -> Tensor:
        """``x`` (n, before, h, w) and ``vector`` (n, width) to (n, after)."""
        x = self.stem(F.pixel_unshuffle(x, self.patch))
        for i, block in enumerate(self.down):
            x = block(self.coarser[i - 1](x) if i else x, vector)
        out: Tensor = self.out(F.silu(self.norm(x)).mean((2, 3)))
        return out
