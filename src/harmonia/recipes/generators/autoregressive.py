"""Recipes of transformers over the codes of a VQ-VAE: first the codec, then the prior on cached codes."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

import torch
from torch import Tensor

from harmonia.generators import Batch
from harmonia.generators.autoencoders.autoencoder import VQVAE, VQVAEConfig
from harmonia.generators.tokens.autoregressive import (
    Autoregressive,
    AutoregressiveConfig,
    CodeConfig,
    CodeGenerator,
)
from harmonia.generators.tokens.dalle import DallE, DallEConfig
from harmonia.generators.tokens.maskgit import MaskGIT, MaskGITConfig
from harmonia.recipes.generators.pictures import Pictures
from harmonia.recipes.generators.run import GeneratorRun, GeneratorSettings, Stage, generator_run
from harmonia.types import HarmoniaError

BLOCK = 512
Config = TypeVar("Config", bound=CodeConfig)


@dataclass(frozen=True, kw_only=True)
class CodeSettings(GeneratorSettings):
    """Settings of generators over codes.

    ``steps``        of both stages together
    ``codec_share``  of the steps that train the codec
    ``codes``        entries of the codebook
    ``shift``        largest shift of training images in pixels
    ``guidance``, ``temperature``, ``top_p``: defaults of sampling, saved with the model
    """

    steps: int = 6000
    batch: int = 32
    lr: float = 4e-3
    codes: int = 128
    codec_share: float = 0.5
    codec_lr: float = 3e-3
    dropout: float = 0.0
    shift: int = 1
    guidance: float = 1.5
    temperature: float = 0.9
    top_p: float = 1.0


@dataclass(frozen=True, kw_only=True)
class DallESettings(CodeSettings):
    """Settings of `dalle`, which needs texts; those of MNIST are the digits' names in five languages."""

    condition: str = "text"


def vqvae_prior(data: Path | None = None, settings: CodeSettings = CodeSettings()) -> GeneratorRun:
    """VQ-VAE with an autoregressive transformer over its codes."""
    paper = "van den Oord et al. 2017; Esser et al. 2021"
    return vqvae_prior_of("vqvae-prior", settings.pictures(data), settings, paper)


def vqvae_prior_of(name: str, pictures: Pictures, settings: CodeSettings, paper: str) -> GeneratorRun:
    """A VQ-VAE with prior on given images."""
    torch.manual_seed(settings.seed)
    model = Autoregressive(config_of(AutoregressiveConfig, settings, pictures))
    return two_stages(name, model, pictures, settings, paper)


def maskgit(data: Path | None = None, settings: CodeSettings = CodeSettings()) -> GeneratorRun:
    """VQ-VAE with MaskGIT: a masked transformer that predicts many codes at once."""
    pictures = settings.pictures(data)
    torch.manual_seed(settings.seed)
    model = MaskGIT(config_of(MaskGITConfig, settings, pictures))
    return two_stages("maskgit", model, pictures, settings, "MaskGIT, Chang et al. 2022")


def dalle(data: Path | None = None, settings: DallESettings = DallESettings()) -> GeneratorRun:
    """DALL-E: a Gumbel-softmax dVAE and one transformer over text and codes."""
    if settings.condition != "text":
        raise HarmoniaError(f"DALL-E needs texts: set condition=text (got {settings.condition})")
    pictures = settings.pictures(data)
    torch.manual_seed(settings.seed)
    model = DallE(config_of(DallEConfig, settings, pictures, "gumbel"))
    return two_stages("dalle", model, pictures, settings, "DALL-E, Ramesh et al. 2021")


def config_of(
    kind: type[Config], settings: CodeSettings, pictures: Pictures, bottleneck: str = "vq"
) -> Config:
    """The configuration of a generator over codes, with one code for every 4 x 4 pixels."""
    codec = VQVAEConfig(
        shape=pictures.shape,
        size=settings.size,
        bottleneck=bottleneck,
        codes=settings.codes,
        anneal=max(1, codec_steps(settings) * 3 // 4),
    )
    return kind(
        shape=pictures.shape,
        size=settings.size,
        condition=settings.conditions(pictures),
        codec=codec,
        dropout=settings.dropout,
        guidance=settings.guidance,
        temperature=settings.temperature,
        top_p=settings.top_p,
    )


def codec_steps(settings: CodeSettings) -> int:
    """Steps of the first stage."""
    if not 0 < settings.codec_share < 1:
        raise HarmoniaError(f"codec_share is {settings.codec_share}: it must be between 0 and 1")
    return max(1, round(settings.steps * settings.codec_share))


def two_stages(
    name: str,
    model: CodeGenerator,
    pictures: Pictures,
    settings: CodeSettings,
    paper: str,
) -> GeneratorRun:
    """The codec as first stage, then the transformer on the codes of all images."""
    first = codec_steps(settings)
    rest = max(1, settings.steps - first)
    codec = settings.training(settings.batch, steps=first, lr=settings.codec_lr, warmup=50, weight_decay=1e-4)
    prior = settings.training(settings.batch, steps=rest, warmup=100, weight_decay=0.05)

    def coded() -> Coded:
        model.start()
        return Coded(pictures, model.codec, settings.shift)

    stages = (
        Stage("codec", model.codec, ShiftedPictures(pictures, settings.shift), codec),
        Stage("prior", model, coded, prior),
    )
    return generator_run(name, settings, pictures, model, stages, paper)


class ShiftedPictures:
    """Images, each shifted by up to ``by`` pixels, with the border repeated."""

    def __init__(self, pictures: Pictures, by: int) -> None:
        self.pictures, self.by = pictures, by

    def __len__(self) -> int:
        return len(self.pictures)

    def batch(self, indices: Tensor, generator: torch.Generator) -> Batch:
        """A batch of `Pictures`, shifted."""
        batch = self.pictures.batch(indices, generator)
        across, down = torch.randint(-self.by, self.by + 1, (2, len(indices)), generator=generator)
        return Batch(moved(batch.x, across, down), batch.condition)


class Coded:
    """The codes of images at all shifts of up to ``by`` pixels; a batch takes a random shift of each."""

    def __init__(self, pictures: Pictures, codec: VQVAE, by: int) -> None:
        self.pictures = pictures
        moves = [(x, y) for x in range(-by, by + 1) for y in range(-by, by + 1)]
        self.codes = torch.stack([self._coded(codec.eval(), *move) for move in moves], 1)

    @torch.no_grad()
    def _coded(self, codec: VQVAE, across: int, down: int) -> Tensor:
        """int64 (n, h', w')."""
        parts = []
        for first in range(0, len(self.pictures), BLOCK):
            x = self.pictures.x[first : first + BLOCK].float() / 127.5 - 1
            picture = moved(x, torch.full((len(x),), across), torch.full((len(x),), down))
            parts.append(codec.codes(picture.to(codec.device)).cpu())
        return torch.cat(parts)

    def __len__(self) -> int:
        return len(self.codes)

    def batch(self, indices: Tensor, generator: torch.Generator) -> Batch:
        """Codes and their conditions."""
        which = torch.randint(self.codes.shape[1], (len(indices),), generator=generator)
        return Batch(self.codes[indices, which], self.pictures.condition(indices, generator))


def moved(x: Tensor, across: Tensor, down: Tensor) -> Tensor:
    """Images (n, c, h, w), each shifted by whole pixels, int64 (n,), with the border repeated."""
    n, _, h, w = x.shape
    rows = (torch.arange(h) - down[:, None]).clamp(0, h - 1)
    columns = (torch.arange(w) - across[:, None]).clamp(0, w - 1)
    return x[torch.arange(n)[:, None, None], :, rows[:, :, None], columns[:, None, :]].permute(0, 3, 1, 2)
