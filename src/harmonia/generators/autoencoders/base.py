"""The base class of autoencoders and its configuration."""

from __future__ import annotations

import math
from abc import abstractmethod
from dataclasses import dataclass

from torch import Tensor, nn

from harmonia.generators.base import GeneratorConfig, OnePassGenerator
from harmonia.layers import ConvDecoder, ConvEncoder, PatchDecoder, PatchEncoder
from harmonia.layers.codec import grid
from harmonia.types import HarmoniaError

NETWORKS = ("conv", "patch", "linear")


@dataclass(frozen=True, kw_only=True)
class AutoencoderBaseConfig(GeneratorConfig):
    """Settings that all autoencoders have.

    ``dim``      numbers of a latent vector, or channels of a latent grid
    ``spatial``  latents are grids (dim, h / stride, w / stride), else vectors (dim,)
    ``stride``   pixels for each step of the grid, a power of 2
    ``network``  "conv", "patch" (a transformer) or "linear" (one matrix each way; vectors only)
    ``blocks``   residual blocks at each resolution of "conv"
    """

    dim: int = 32
    spatial: bool = False
    stride: int = 4
    network: str = "conv"
    blocks: int = 1

    def __post_init__(self) -> None:
        GeneratorConfig.__post_init__(self)
        if self.network not in NETWORKS:
            raise HarmoniaError(f"network must be one of {', '.join(NETWORKS)}, not {self.network!r}")
        if self.network == "linear" and self.spatial:
            raise HarmoniaError("a linear network has no grid: set spatial to false")
        if self.network != "linear":
            grid(self.shape, self.stride)

    @property
    def latent(self) -> tuple[int, ...]:
        """The shape of the latents of one image."""
        return (self.dim, *grid(self.shape, self.stride)) if self.spatial else (self.dim,)

    def encoder(self, outputs: int) -> nn.Module:
        """A network from images to (n, outputs) or (n, outputs, h', w')."""
        s, pixels = self.scale, math.prod(self.shape)
        if self.network == "linear":
            return nn.Sequential(nn.Flatten(), nn.Linear(pixels, outputs))
        inside = outputs if self.spatial else 2 * s.channels
        net: nn.Module
        if self.network == "conv":
            net = ConvEncoder(self.shape, inside, channels=s.channels, stride=self.stride, blocks=self.blocks)
        else:
            net = PatchEncoder(self.shape, inside, width=s.width, blocks=max(1, s.blocks // 2), heads=s.heads,
                               stride=self.stride)  # fmt: skip
        if self.spatial:
            return net
        features = inside * math.prod(grid(self.shape, self.stride))
        return nn.Sequential(net, nn.SiLU(), nn.Flatten(), nn.Linear(features, outputs))

    def decoder(self, dim: int = 0) -> nn.Module:
        """A network from (n, dim) or (n, dim, h', w') to images of unbounded range.

        ``dim`` 0 stands for that of the configuration.
        """
        dim = dim or self.dim
        s, pixels = self.scale, math.prod(self.shape)
        if self.network == "linear":
            return nn.Sequential(nn.Linear(dim, pixels), nn.Unflatten(1, self.shape))
        inside = dim if self.spatial else 2 * s.channels
        net: nn.Module
        if self.network == "conv":
            net = ConvDecoder(self.shape, inside, channels=s.channels, stride=self.stride, blocks=self.blocks)
        else:
            net = PatchDecoder(self.shape, inside, width=s.width, blocks=max(1, s.blocks // 2), heads=s.heads,
                               stride=self.stride)  # fmt: skip
        if self.spatial:
            return net
        cells = grid(self.shape, self.stride)
        enter = nn.Linear(dim, inside * math.prod(cells))
        return nn.Sequential(enter, nn.Unflatten(1, (inside, *cells)), net)


class AutoencoderBase(OnePassGenerator):
    """An autoencoder. ``x`` is float32 (n, c, h, w) in [-1, 1] throughout."""

    config: AutoencoderBaseConfig
    decoder: nn.Module

    @abstractmethod
    def encode(self, x: Tensor) -> Tensor:
        """Latents (n, *config.latent), deterministic: the mean, or the quantised grid."""

    @abstractmethod
    def score(self, x: Tensor) -> Tensor:
        """The novelty of each image, (n,): higher for anomalies."""

    def decode(self, z: Tensor) -> Tensor:
        """Images (n, c, h, w), clipped to [-1, 1]."""
        x: Tensor = self.decoder(z)
        return x.clamp(-1, 1)

    def reconstruct(self, x: Tensor) -> Tensor:
        """Encode and decode images."""
        return self.decode(self.encode(x))

    def denoise(self, x: Tensor) -> Tensor:
        """Remove the corruption of images; works best with a model trained on that corruption."""
        return self.reconstruct(x)
