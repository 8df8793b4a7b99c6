"""Layers with an equalised learning rate: weights are drawn as N(0, 1) and scaled when they are used.

With an optimizer that normalises gradients, such as Adam, all weights then change by the same share of their
standard deviation (Karras et al. 2018, "Progressive Growing of GANs", section 4.1).
"""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn


class EqualLinear(nn.Linear):
    """A linear layer; ``rate`` multiplies its learning rate, ``bias`` is the initial bias."""

    def __init__(self, before: int, after: int, *, rate: float = 1.0, bias: float = 0.0) -> None:
        super().__init__(before, after)
        self.rate, self.scale = rate, rate / math.sqrt(before)
        nn.init.normal_(self.weight, std=1 / rate)
        nn.init.constant_(self.bias, bias / rate)

    def forward(self, x: Tensor) -> Tensor:
        """(..., before) to (..., after)."""
        return F.linear(x, self.weight * self.scale, self.bias * self.rate)


class EqualConv(nn.Conv2d):
    """A convolution that keeps height and width, or halves them with ``stride`` 2."""

    def __init__(self, before: int, after: int, kernel: int, *, stride: int = 1, bias: bool = True) -> None:
        super().__init__(before, after, kernel, stride, padding=kernel // 2, bias=bias)
        self.scale = 1 / math.sqrt(before * kernel**2)
        nn.init.normal_(self.weight)
        if self.bias is not None:
            nn.init.zeros_(self.bias)

    def forward(self, x: Tensor) -> Tensor:
        """(n, before, h, w) to (n, after, h', w')."""
        out: Tensor = self._conv_forward(x, self.weight * self.scale, self.bias)
        return out


def pixel_norm(x: Tensor) -> Tensor:
    """Scale each vector of (n, d) to length sqrt(d)."""
    return x * torch.rsqrt(x.square().mean(1, keepdim=True) + 1e-8)


def active(x: Tensor) -> Tensor:
    """Leaky ReLU, times sqrt(2) to keep the variance of a normal input."""
    return F.leaky_relu(x, 0.2) * math.sqrt(2)
