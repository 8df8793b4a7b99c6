"""Latent diffusion: a diffusion model of an autoencoder's latents.

Reference: Rombach et al. 2022. With a VAE whose latent is one vector and a residual perceptron, it is the
cheapest good generator of small images here.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace

import torch
from torch import Tensor

from harmonia.generators.autoencoders.autoencoder import VAE, VAEConfig
from harmonia.generators.base import Batch, CompositeGenerator, GeneratorConfig, Watch
from harmonia.generators.conditioning import Condition, ConditionConfig
from harmonia.generators.diffusion.model import Diffusion, DiffusionConfig


@dataclass(frozen=True, kw_only=True)
class LatentConfig(GeneratorConfig):
    """An unconditional ``autoencoder`` of images, and ``flow``, a diffusion model of its latents.

    ``shape``, ``size`` and ``condition`` of both are set from here.
    """

    autoencoder: VAEConfig = field(default_factory=VAEConfig)
    flow: DiffusionConfig = field(default_factory=lambda: DiffusionConfig(network="mlp", steps=20))

    def __post_init__(self) -> None:
        super().__post_init__()
        coder = replace(self.autoencoder, shape=self.shape, size=self.size, condition=ConditionConfig())
        channels, height, width = (*coder.latent, 1, 1)[:3]
        latent = channels, height, width
        flow = replace(self.flow, shape=latent, size=self.size, condition=self.condition, bounds="none")
        object.__setattr__(self, "autoencoder", coder)
        object.__setattr__(self, "flow", flow)


class Latent(CompositeGenerator):
    """An autoencoder, trained first, and a diffusion model of its standardised latents."""

    config: LatentConfig
    mean: Tensor
    deviation: Tensor
    MODELS = ("autoencoder", "flow")

    def __init__(self, config: LatentConfig) -> None:
        super().__init__()
        self.config = config
        self.autoencoder = VAE(config.autoencoder)
        self.flow = Diffusion(config.flow)
        self.register_buffer("mean", torch.zeros(config.flow.shape))
        self.register_buffer("deviation", torch.ones(config.flow.shape))

    def losses(self, batch: Batch) -> dict[str, Tensor]:
        """The losses of the models that are not frozen; the flow is trained on the current latents."""
        losses = {}
        trained = self.groups()
        if "autoencoder" in trained:
            losses["autoencoder"] = self.autoencoder.losses(batch)["model"]
        if "flow" in trained:
            losses["flow"] = self.flow.losses(Batch(self.encode(batch.x), batch.condition))["model"]
        return losses

    @torch.no_grad()
    def measure(self, x: Tensor) -> None:
        """Set mean and deviation of the latents from images (n, c, h, w), after the autoencoder is
        trained."""
        z = self._latents(x)
        self.mean.copy_(z.mean(0))
        # for each channel, the same at all places of a grid
        self.deviation.copy_(z.var(0).mean((1, 2), keepdim=True).sqrt().expand_as(self.deviation))

    @torch.no_grad()
    def encode(self, x: Tensor) -> Tensor:
        """Standardised latents (n, *config.flow.shape) of images (n, c, h, w)."""
        return (self._latents(x) - self.mean) / self.deviation

    @torch.no_grad()
    def decode(self, z: Tensor) -> Tensor:
        """Images of standardised latents."""
        latents = z * self.deviation + self.mean
        return self.autoencoder.decode(latents.view(len(z), *self.config.autoencoder.latent))

    def sample(
        self,
        condition: Condition,
        *,
        steps: int | None = None,
        guidance: float | None = None,
        generator: torch.Generator | None = None,
        watch: Watch | None = None,
    ) -> Tensor:
        """Sample latents and decode them; ``watch`` gets images."""
        decoded = None if watch is None else lambda step, of, z: watch(step, of, self.decode(z))
        z = self.flow.sample(condition, steps=steps, guidance=guidance, generator=generator, watch=decoded)
        return self.decode(z)

    def _latents(self, x: Tensor) -> Tensor:
        parts = [self.autoencoder.encode(part) for part in torch.split(x.to(self.device), 500)]
        return torch.cat(parts).view(-1, *self.config.flow.shape)
