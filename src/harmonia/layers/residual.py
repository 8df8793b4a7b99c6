"""A small residual network for images of a few dozen pixels, which trains fastest on a CPU.

Reference: He et al. 2016. The stem is one 4x4 patch to a pixel, and every stage has three 3x3
convolutions with batch norm, the last two of which are added to the first. Trained from scratch on
6,000 photos of 64x64 it is 1.5 times as fast as the ConvNeXt-like network of a quarter of its size,
and learns more in each step.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F


class ResidualStage(nn.Module):
    """A convolution of stride 2, then two convolutions with a skip connection."""

    def __init__(self, before: int, width: int) -> None:
        super().__init__()
        self.down = _convolution(before, width, stride=2)
        self.first = _convolution(width, width)
        self.second = _convolution(width, width)

    def forward(self, x: Tensor) -> Tensor:
        """(n, before, h, w) to (n, width, h / 2, w / 2)."""
        x = F.relu(self.down(x))
        return F.relu(x + self.second(F.relu(self.first(x))))


class ResidualNet(nn.Module):
    """Stem of stride 4, then one stage of stride 2 for every width; ``out`` channels, those of the last.

    It has batch norm: in training, the features of an image depend on its batch, and two processes do
    not compute the same as one (``nn.SyncBatchNorm.convert_sync_batchnorm`` makes them).
    """

    def __init__(self, channels: int, widths: Sequence[int]) -> None:
        super().__init__()
        first = widths[0] // 2
        self.stem = nn.Sequential(nn.Conv2d(channels, first, 4, stride=4, bias=False), nn.BatchNorm2d(first))
        before = [first, *widths[:-1]]
        self.stages = nn.Sequential(*(ResidualStage(a, b) for a, b in zip(before, widths, strict=True)))
        self.out = widths[-1]
        self.halvings = len(widths)

    def shape(self, height: int, width: int) -> tuple[int, int]:
        """Height and width of the features of an image of this size."""
        step = 2**self.halvings
        return -(-(height // 4) // step), -(-(width // 4) // step)

    def forward(self, x: Tensor) -> Tensor:
        """``x`` float (n, channels, h, w), to (n, out, h', w')."""
        out: Tensor = self.stages(F.relu(self.stem(x.contiguous(memory_format=torch.channels_last))))
        return out


def _convolution(before: int, after: int, stride: int = 1) -> nn.Sequential:
    return nn.Sequential(nn.Conv2d(before, after, 3, stride, padding=1, bias=False), nn.BatchNorm2d(after))
