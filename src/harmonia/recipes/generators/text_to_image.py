"""Recipes of text-to-image systems: Stable Diffusion, GLIDE, DALL-E 2, Imagen. See docs/text-to-image.md.

A system is trained in stages: first the parts that are then frozen (a VAE, a text tower, a code space), then
the diffusion models.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch

from harmonia.generators.autoencoders.autoencoder import VAEConfig
from harmonia.generators.diffusion.cascade import Imagen, ImagenConfig
from harmonia.generators.diffusion.glide import Glide, GlideConfig, Inpainting
from harmonia.generators.diffusion.latent import Latent, LatentConfig
from harmonia.generators.diffusion.model import DiffusionConfig
from harmonia.generators.diffusion.unclip import Unclip, UnclipConfig
from harmonia.generators.text_image_matching import MatchingConfig
from harmonia.recipes.generators.diffusion import DiffusionSettings
from harmonia.recipes.generators.run import GeneratorRun, Stage, generator_run
from harmonia.training import Indexed, TrainConfig


@dataclass(frozen=True, kw_only=True)
class SystemSettings(DiffusionSettings):
    """Settings of text-to-image systems: ``share`` is the number of steps of the first stage (VAE, text
    tower, codes) or of inpainting, relative to the diffusion models."""

    condition: str = "text"
    steps: int = 1600
    share: float = 0.5

    def pair(self, config: DiffusionConfig) -> MatchingConfig:
        """The matching pair for the images and texts of ``config``."""
        return MatchingConfig(shape=config.shape, text=config.condition.text, size=self.size)

    def towers(self) -> TrainConfig:
        """The training configuration of the pair."""
        return replace(self.train(steps=self.part(self.share), seed=1), lr=3e-3)


@dataclass(frozen=True, kw_only=True)
class LatentDiffusionSettings(SystemSettings):
    """Settings of `latent_diffusion`: latent grids of ``dim`` channels with a ``stride``; ``beta`` of the
    VAE."""

    steps: int = 3500
    share: float = 0.25
    dim: int = 4
    stride: int = 4
    beta: float = 1.0


def latent_diffusion(
    data: Path | None = None, settings: LatentDiffusionSettings = LatentDiffusionSettings()
) -> GeneratorRun:
    """Stable Diffusion: a VAE with latent grids, and latent diffusion with cross-attention to the text."""
    s, pictures = settings, settings.pictures(data)
    own = s.config(pictures)
    torch.manual_seed(s.seed)
    model = Latent(
        LatentConfig(
            **_common(own),
            autoencoder=VAEConfig(dim=s.dim, spatial=True, stride=s.stride, beta=s.beta),
            flow=replace(own, network="unet", patch=1, attend=2),
        )
    )

    def measured() -> Indexed:
        model.measure(pictures.x[:2000].float() / 127.5 - 1)
        return pictures

    stages = (
        Stage("vae", model.autoencoder, pictures, s.train(steps=s.part(s.share), seed=1)),
        Stage("diffusion", model, measured, s.train()),
    )
    return generator_run(
        "latent-diffusion", s, pictures, model, stages, "latent diffusion (Rombach et al. 2022)"
    )


def glide(data: Path | None = None, settings: SystemSettings = SystemSettings(share=0.25)) -> GeneratorRun:
    """GLIDE: text to a small image, an upsampler, then finetuning for inpainting."""
    s, pictures = settings, settings.pictures(data)
    own = s.config(pictures)
    torch.manual_seed(s.seed)
    model = Glide(
        GlideConfig(
            **_common(own),
            base=replace(own, patch=1),
            upsampler=_upsampler(own),
        )
    )
    inpainting = Inpainting(model)

    def begun() -> Indexed:
        inpainting.begin()
        return pictures

    finetuning = s.train(steps=s.part(s.share), seed=1)
    stages = (
        Stage("draw", model, pictures, s.train()),
        Stage("inpaint", inpainting, begun, replace(finetuning, lr=s.lr / 4)),
    )
    return generator_run("glide", s, pictures, model, stages, "GLIDE (Nichol et al. 2022)")


def imagen(data: Path | None = None, settings: SystemSettings = SystemSettings()) -> GeneratorRun:
    """Imagen: a frozen text encoder, a small image with strong guidance, and super-resolution."""
    s, pictures = settings, settings.pictures(data)
    own = s.config(pictures)
    torch.manual_seed(s.seed)
    model = Imagen(
        ImagenConfig(
            **_common(own),
            pair=s.pair(own),
            base=replace(own, patch=1, bounds="dynamic"),
            upsampler=_upsampler(own),
        )
    )
    stages = (
        Stage("text", model.pair, pictures, s.towers()),
        Stage("draw", model, pictures, s.train()),
    )
    return generator_run("imagen", s, pictures, model, stages, "Imagen (Saharia et al. 2022)")


def dalle2(data: Path | None = None, settings: SystemSettings = SystemSettings(steps=2000)) -> GeneratorRun:
    """DALL-E 2: a prior from text to image codes, a decoder from codes to images, and variations."""
    s, pictures = settings, settings.pictures(data)
    own = s.config(pictures)
    torch.manual_seed(s.seed)
    prior = replace(own, network="mlp", guidance=1.0)
    model = Unclip(
        UnclipConfig(
            **_common(own),
            pair=s.pair(own),
            prior=prior,
            decoder=own,
        )
    )
    stages = (
        Stage("codes", model.pair, pictures, s.towers()),
        Stage("draw", model, pictures, s.train()),
    )
    return generator_run("dalle2", s, pictures, model, stages, "DALL-E 2, unCLIP (Ramesh et al. 2022)")


def _common(config: DiffusionConfig) -> dict[str, Any]:
    """The settings that a system shares with its diffusion models."""
    return {"shape": config.shape, "size": config.size, "condition": config.condition}


def _upsampler(config: DiffusionConfig) -> DiffusionConfig:
    """The upsampler: half as wide, half the steps, and conditioning augmentation of up to 0.5."""
    channels = tuple(max(1, c // 2) for c in config.channels)
    return replace(config, augment=0.5, channels=channels, steps=max(1, config.steps // 2), guidance=1.0)
