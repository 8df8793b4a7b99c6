"""A small image classifier whose features serve as a perceptual loss."""

from __future__ import annotations

import math

from torch import Tensor, nn
from torch.nn import functional as F

from harmonia.generators.base import Batch
from harmonia.types import HarmoniaError

STRIDES = (2, 1, 2, 2)


class Perception(nn.Module):
    """Class scores of images in [-1, 1], by four normalised convolutions and two linear layers.

    It is trained on the same images before the generator whose loss uses its features, and is not saved.
    Johnson, Alahi and Fei-Fei 2016 use VGG-16 instead: see ``harmonia.layers.VGG16``, for which you need the
    published weights.
    """

    def __init__(self, shape: tuple[int, int, int], classes: int, channels: int = 16) -> None:
        super().__init__()
        before, height, width = shape
        self.layers = nn.ModuleList()
        for i, stride in enumerate(STRIDES):
            after = channels * min(2**i, 4)
            convolution = nn.Conv2d(before, after, 3, stride, padding=1)
            self.layers.append(nn.Sequential(convolution, nn.GroupNorm(math.gcd(after, 4), after), nn.SiLU()))
            before, height, width = after, math.ceil(height / stride), math.ceil(width / stride)
        self.head = nn.Sequential(
            nn.Flatten(), nn.Linear(before * height * width, before), nn.SiLU(), nn.Linear(before, classes)
        )

    def forward(self, x: Tensor) -> Tensor:
        """Pictures (n, c, h, w) to scores (n, classes)."""
        for layer in self.layers:
            x = layer(x)
        scores: Tensor = self.head(x)
        return scores

    def features(self, x: Tensor) -> list[Tensor]:
        """The feature maps of all convolutions but the last, for ``harmonia.objectives.perceptual``."""
        found: list[Tensor] = []
        for layer in self.layers[:-1]:
            found.append(layer(found[-1] if found else x))
        return found

    def groups(self) -> dict[str, list[nn.Parameter]]:
        """The parameters that are not frozen."""
        return {"model": [p for p in self.parameters() if p.requires_grad]}

    def losses(self, batch: Batch) -> dict[str, Tensor]:
        """Cross-entropy; HarmoniaError without labels."""
        if batch.condition.label is None:
            raise HarmoniaError("the perceptual classifier needs labels: give labelled images")
        return {"model": F.cross_entropy(self(batch.x), batch.condition.label, ignore_index=-1)}
