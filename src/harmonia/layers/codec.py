"""Encoders from images to feature grids, and decoders from grids to images.

Convolutional and residual (He et al. 2016, with the normalisation before each convolution) or a transformer
over patches (Dosovitskiy et al. 2021). A grid is (n, channels, h / stride, w / stride). There is no batch
norm: the features of an image do not depend on its batch.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from harmonia.layers.transformer import Transformer
from harmonia.types import HarmoniaError

STRIDES = (2, 4, 8, 16, 32)


class ResidualBlock(nn.Module):
    """A residual block: twice group norm, SiLU and a 3x3 convolution. It is initially the identity."""

    def __init__(self, width: int) -> None:
        super().__init__()
        groups = math.gcd(width, 8)
        self.norm1, self.norm2 = nn.GroupNorm(groups, width), nn.GroupNorm(groups, width)
        self.first = nn.Conv2d(width, width, 3, padding=1)
        self.second = nn.Conv2d(width, width, 3, padding=1)
        nn.init.zeros_(self.second.weight)
        nn.init.zeros_(self.second.bias)  # type: ignore[arg-type]

    def forward(self, x: Tensor) -> Tensor:
        """(n, width, h, w) to the same shape."""
        out: Tensor = x + self.second(F.silu(self.norm2(self.first(F.silu(self.norm1(x))))))
        return out


class ConvEncoder(nn.Module):
    """One halving and ``blocks`` residual blocks for each factor of two in ``stride``."""

    def __init__(self, shape: tuple[int, int, int], out: int, *, channels: int, stride: int = 4,
                 blocks: int = 1) -> None:  # fmt: skip
        super().__init__()
        grid(shape, stride)
        layers: list[nn.Module] = []
        before = shape[0]
        for width in widths(channels, stride):
            layers += [nn.Conv2d(before, width, 4, stride=2, padding=1)]
            layers += [ResidualBlock(width) for _ in range(blocks)]
            before = width
        self.layers = nn.Sequential(*layers, nn.SiLU(), nn.Conv2d(before, out, 1))

    def forward(self, x: Tensor) -> Tensor:
        """Images (n, c, h, w) to (n, out, h / stride, w / stride)."""
        features: Tensor = self.layers(x)
        return features


class ConvDecoder(nn.Module):
    """The decoder of `ConvEncoder`: residual blocks, then upsampling, at each resolution."""

    def __init__(self, shape: tuple[int, int, int], inside: int, *, channels: int, stride: int = 4,
                 blocks: int = 1) -> None:  # fmt: skip
        super().__init__()
        grid(shape, stride)
        down = widths(channels, stride)
        layers: list[nn.Module] = [nn.Conv2d(inside, down[-1], 3, padding=1)]
        for width, after in zip(reversed(down), [*reversed(down[:-1]), shape[0]], strict=True):
            layers += [ResidualBlock(width) for _ in range(blocks)]
            layers += [nn.SiLU(), nn.ConvTranspose2d(width, after, 4, stride=2, padding=1)]
        self.layers = nn.Sequential(*layers)

    def forward(self, z: Tensor) -> Tensor:
        """(n, inside, h / stride, w / stride) to images (n, c, h, w) of unbounded range."""
        x: Tensor = self.layers(z)
        return x


class PatchEncoder(nn.Module):
    """A transformer over patches of ``stride`` x ``stride`` pixels, one token for each place of the grid."""

    def __init__(self, shape: tuple[int, int, int], out: int, *, width: int, blocks: int, heads: int,
                 stride: int = 4) -> None:  # fmt: skip
        super().__init__()
        self.grid = grid(shape, stride)
        self.patches = nn.Conv2d(shape[0], width, stride, stride=stride)
        self.place = nn.Parameter(torch.randn(math.prod(self.grid), width) * 0.02)
        self.read = Transformer(width, blocks, heads)
        self.out = nn.Linear(width, out)

    def forward(self, x: Tensor) -> Tensor:
        """Images (n, c, h, w) to (n, out, h / stride, w / stride)."""
        tokens = self.patches(x).flatten(2).transpose(1, 2) + self.place
        features: Tensor = self.out(self.read(tokens))
        return features.transpose(1, 2).reshape(len(x), -1, *self.grid)


class PatchDecoder(nn.Module):
    """The decoder of `PatchEncoder`: every token is mapped to the pixels of its patch."""

    def __init__(self, shape: tuple[int, int, int], inside: int, *, width: int, blocks: int, heads: int,
                 stride: int = 4) -> None:  # fmt: skip
        super().__init__()
        self.grid = grid(shape, stride)
        self.enter = nn.Linear(inside, width)
        self.place = nn.Parameter(torch.randn(math.prod(self.grid), width) * 0.02)
        self.read = Transformer(width, blocks, heads)
        self.pixels = nn.Linear(width, shape[0] * stride**2)
        self.shuffle = nn.PixelShuffle(stride)

    def forward(self, z: Tensor) -> Tensor:
        """(n, inside, h / stride, w / stride) to images (n, c, h, w) of unbounded range."""
        tokens = self.enter(z.flatten(2).transpose(1, 2)) + self.place
        patches = self.pixels(self.read(tokens)).transpose(1, 2).reshape(len(z), -1, *self.grid)
        x: Tensor = self.shuffle(patches)
        return x


def grid(shape: tuple[int, int, int], stride: int) -> tuple[int, int]:
    """Height and width of the grid; HarmoniaError unless the stride divides the image."""
    _, h, w = shape
    if stride not in STRIDES:
        raise HarmoniaError(f"stride is one of {', '.join(map(str, STRIDES))}, not {stride}")
    if h % stride or w % stride:
        raise HarmoniaError(
            f"images of {h}x{w} cannot be divided by a stride of {stride}: choose another stride"
        )
    return h // stride, w // stride


def widths(channels: int, stride: int) -> list[int]:
    """Channels after each halving, from the image inwards: doubled once."""
    halvings = stride.bit_length() - 1
    return [channels * min(2**i, 2) for i in range(halvings)]
