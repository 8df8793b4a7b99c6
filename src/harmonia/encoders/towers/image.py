"""Image towers, also for depth maps and thermal images."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor, nn

from harmonia.encoders.towers.base import (
    SIZES,
    ProjectionHead,
    Tower,
    TowerConfig,
    check_inputs,
    check_modality,
    choose,
)
from harmonia.layers import ConvNet, ResidualNet, ResNet50, Transformer
from harmonia.types import HarmoniaError, Signal

KINDS = ("convnet", "residual", "resnet50", "vit")


@dataclass(frozen=True, kw_only=True)
class ImageConfig(TowerConfig):
    """Settings of an image tower; ``channels`` 1 is for depth and thermal images, named by ``modality``.

    ``kind``: "convnet" (ConvNeXt-like), "residual" (small, with batch norm; trains fastest from scratch on a
    CPU), "resnet50" (``size`` is ignored), "vit" (patches of ``patch`` pixels).
    """

    resolution: int = 64
    channels: int = 3
    kind: str = "convnet"
    patch: int = 8
    modality: str = "image"

    def __post_init__(self) -> None:
        super().__post_init__()
        choose("kind", self.kind, KINDS)
        if self.resolution < 1 or self.channels not in (1, 3):
            raise HarmoniaError("an image tower needs resolution >= 1 and channels 1 or 3")
        if self.kind == "vit" and (self.patch < 1 or self.resolution % self.patch):
            raise HarmoniaError("a ViT needs a resolution that is a multiple of patch")


class ImageTower(Tower):
    """A backbone, average pooling of its features, and a projection."""

    config: ImageConfig

    def __init__(self, config: ImageConfig) -> None:
        super().__init__()
        self.config = config
        self.modality = config.modality
        self.backbone = backbone(config)
        self.head = ProjectionHead(self.backbone.out, config)

    def prepare(self, signals: Sequence[Signal]) -> Tensor:
        """Pixels, uint8 ``(n, channels, resolution, resolution)``; the image is resized to a square."""
        check_modality(signals, self.modality)
        side, channels = self.config.resolution, self.config.channels
        pixels = np.empty((len(signals), channels, side, side), dtype=np.uint8)
        for row, signal in zip(pixels, signals, strict=True):
            row[:] = squashed(signal.array, side, channels)
        return torch.from_numpy(pixels)

    def forward(self, inputs: Tensor) -> Tensor:
        """Codes of pixels, uint8 or float in [0, 255], of any height and width (except for a ViT)."""
        side = self.config.resolution if self.config.kind == "vit" else -1
        check_inputs(inputs, (self.config.channels, side, side), self.modality)
        x = inputs.to(self.head.project.weight.dtype) / 64 - 2
        code: Tensor = self.head(self.backbone(x).mean(dim=(2, 3)))
        return code


def backbone(config: ImageConfig) -> ConvNet | ResidualNet | ResNet50 | ViT:
    """The network of a configuration: (n, channels, h, w) to (n, out, h', w')."""
    size = SIZES[config.size]
    if config.kind == "convnet":
        return ConvNet(config.channels, size.widths, size.depths)
    if config.kind == "residual":
        return ResidualNet(config.channels, size.widths)
    if config.kind == "resnet50":
        return ResNet50(config.channels)
    return ViT(config)


class ViT(nn.Module):
    """A transformer over square patches (Dosovitskiy et al. 2021), without a class token."""

    def __init__(self, config: ImageConfig) -> None:
        super().__init__()
        size = SIZES[config.size]
        patches = (config.resolution // config.patch) ** 2
        self.embed = nn.Conv2d(config.channels, size.width, config.patch, stride=config.patch)
        self.position = nn.Parameter(torch.randn(patches, size.width) * 0.02)
        self.transformer = Transformer(size.width, size.blocks, size.heads, config.dropout)
        self.out = size.width

    def forward(self, x: Tensor) -> Tensor:
        """(n, channels, resolution, resolution) to (n, out, patches down, patches across)."""
        grid = self.embed(x)
        y = self.transformer(grid.flatten(2).transpose(1, 2) + self.position)
        out: Tensor = y.transpose(1, 2).reshape(grid.shape)
        return out


def squashed(picture: NDArray[Any], side: int, channels: int) -> NDArray[np.uint8]:
    """One image as uint8 ``(channels, side, side)``.

    A colour image is uint8 (h, w, 3). One channel is (h, w) or (h, w, 1) of any number type; unless it is
    uint8, its finite values are scaled to 0 to 255.
    """
    if picture.ndim == 3 and picture.shape[2] == 1:
        picture = picture[..., 0]
    colour = picture.ndim == 3 and picture.shape[2] == 3 and picture.dtype == np.uint8
    if not picture.size or not (colour or picture.ndim == 2):
        raise HarmoniaError(
            f"an image must be uint8 (height, width, 3) or (height, width), "
            f"not {picture.dtype} {picture.shape}"
        )
    if picture.dtype != np.uint8:
        picture = _stretched(picture)
    image = Image.fromarray(picture).convert("RGB" if channels == 3 else "L")
    if image.size != (side, side):
        shrink = min(image.size) >= side
        image = image.resize((side, side), Image.Resampling.BOX if shrink else Image.Resampling.BICUBIC)
    pixels: NDArray[np.uint8] = np.asarray(image).reshape(side, side, channels).transpose(2, 0, 1)
    return pixels


def _stretched(values: NDArray[Any]) -> NDArray[np.uint8]:
    values = values.astype(np.float64)
    known = np.isfinite(values)
    if not known.any():
        raise HarmoniaError("an image has no finite value: leave it out")
    low, high = values[known].min(), values[known].max()
    scaled = (np.where(known, values, low) - low) * (255 / max(high - low, 1e-12))
    out: NDArray[np.uint8] = scaled.round().astype(np.uint8)
    return out
