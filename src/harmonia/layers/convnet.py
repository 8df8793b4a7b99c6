"""A small convolutional network for CPUs: ConvNeXt blocks with 3x3 depthwise filters.

Reference: ConvNeXt, Liu et al. 2022. The filter is 3x3 where the paper has 7x7, since the gradient of a
7x7 depthwise filter takes seven times as long on a CPU; a stem of two 3x3 convolutions restores part of
the receptive field. There is no batch norm: the features of an image do not depend on its batch.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F


class ConvBlock(nn.Module):
    """A residual block: depthwise 3x3 convolution, layer norm, two-layer perceptron on the channels."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.depthwise = nn.Conv2d(width, width, 3, padding=1, groups=width)
        self.norm = nn.LayerNorm(width)
        self.expand = nn.Linear(width, 4 * width)
        self.shrink = nn.Linear(4 * width, width)

    def forward(self, x: Tensor) -> Tensor:
        """(n, width, h, w) to the same shape; channels last in memory throughout."""
        y = self.depthwise(x).permute(0, 2, 3, 1)
        y = self.shrink(F.gelu(self.expand(self.norm(y))))
        out: Tensor = x + y.permute(0, 3, 1, 2)
        return out


class ChannelNorm(nn.LayerNorm):
    """Layer norm over the channels of (n, c, h, w)."""

    def forward(self, x: Tensor) -> Tensor:
        """The same shape."""
        return super().forward(x.permute(0, 2, 3, 1)).permute(0, 3, 1, 2)


class ConvNet(nn.Module):
    """Stem of stride 4, then one stage for every width, each at half the resolution of the one before.

    ``out`` is the channels of the last stage, ``stride`` the step of its features in pixels. The widths
    differ.
    """

    def __init__(self, channels: int, widths: Sequence[int], depths: Sequence[int]) -> None:
        super().__init__()
        first = widths[0]
        layers: list[nn.Module] = [
            nn.Conv2d(channels, first // 2, 3, stride=2, padding=1),
            nn.GELU(),
            nn.Conv2d(first // 2, first, 3, stride=2, padding=1),
            ChannelNorm(first),
        ]
        before = first
        for width, depth in zip(widths, depths, strict=True):
            if before != width:
                layers += [ChannelNorm(before), nn.Conv2d(before, width, 3, stride=2, padding=1)]
            layers += [ConvBlock(width) for _ in range(depth)]
            before = width
        self.layers = nn.Sequential(*layers)
        self.out = before
        self.stride = 2 ** (1 + len(widths))

    def shape(self, height: int, width: int) -> tuple[int, int]:
        """Height and width of the features of an image of this size."""
        return -(-height // self.stride), -(-width // self.stride)

    def forward(self, x: Tensor) -> Tensor:
        """``x`` float (n, channels, h, w), to (n, out, h', w')."""
        out: Tensor = self.layers(x.contiguous(memory_format=torch.channels_last))
        return out
