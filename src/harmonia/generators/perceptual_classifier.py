"""A small classifier whose layers say what of a picture matters: for perceptual losses, and nothing else."""

from __future__ import annotations

import math

from torch import Tensor, nn
from torch.nn import functional as F

from harmonia.generators.base import Batch
from harmonia.types import HarmoniaError

STRIDES = (2, 1, 2, 2)


class Perception(nn.Module):
    """Scores for the class of a picture in [-1, 1], by four normalised convolutions and two linear layers.

    It is trained before the generator that looks through it, on the same pictures, and is not kept with it.
    Johnson, Alahi and Fei-Fei 2016 take VGG-16 for this: where its weights are there, give
    ``harmonia.layers.VGG16`` in its place.
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
        """The maps of all convolutions but the last: edges, strokes, parts. See `perceptual`."""
        found: list[Tensor] = []
        for layer in self.layers[:-1]:
            found.append(layer(found[-1] if found else x))
        return found

    def groups(self) -> dict[str, list[nn.Parameter]]:
        """All parameters that are not frozen."""
        return {"model": [p for p in self.parameters() if p.requires_grad]}

    def losses(self, batch: Batch) -> dict[str, Tensor]:
        """Cross-entropy; HarmoniaError without labels."""
        if batch.condition.label is None:
            raise HarmoniaError("perception is learned from labels: give pictures that have some")
        return {"model": F.cross_entropy(self(batch.x), batch.condition.label, ignore_index=-1)}
