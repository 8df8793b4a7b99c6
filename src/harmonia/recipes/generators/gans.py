"""Recipes of a conditional GAN and StyleGAN2-ADA."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import torch

from harmonia.generators import Generator
from harmonia.generators.adversarial.ada import AugmentConfig
from harmonia.generators.adversarial.critics import GameConfig
from harmonia.generators.adversarial.gan import GAN, GANConfig
from harmonia.generators.adversarial.stylegan import StyleGAN, StyleGANConfig
from harmonia.recipes.generators.pictures import Pictures
from harmonia.recipes.generators.run import GeneratorRun, GeneratorSettings, Stage, generator_run


@dataclass(frozen=True, kw_only=True)
class GANSettings(GeneratorSettings):
    """Settings of `gan`.

    ``loss``   a key of ``objectives.ADVERSARIAL``
    ``gamma``  weight of the gradient penalties
    ``drop``   share of images whose condition is dropped
    """

    steps: int = 9000
    batch: int = 64
    lr: float = 2e-3
    loss: str = "relativistic"
    gamma: float = 1.0
    drop: float = 0.05


@dataclass(frozen=True, kw_only=True)
class StyleGANSettings(GeneratorSettings):
    """Settings of `stylegan`.

    ``loss``     a key of ``objectives.ADVERSARIAL``; that of the paper, non_saturating (with R1 only),
                 collapses to one image per class in a short run
    ``gamma``    weight of the gradient penalties
    ``path``     weight of the path length penalty; paper: 0 at 32 pixels
    ``augment``  whether to use adaptive augmentation
    ``drop``     share of images whose condition is dropped
    """

    steps: int = 5000
    batch: int = 32
    lr: float = 4e-3
    loss: str = "relativistic"
    gamma: float = 2.0
    path: float = 0.0
    augment: bool = True
    drop: float = 0.05


GAN_SETTINGS, STYLEGAN_SETTINGS = GANSettings(), StyleGANSettings()


def gan(data: Path | None = None, settings: GANSettings = GAN_SETTINGS) -> GeneratorRun:
    """Conditional GAN: relativistic pairs, gradient penalties, projection critic."""
    s, pictures = settings, settings.pictures(data)
    game = GameConfig(loss=s.loss, r1=s.gamma, r2=s.gamma)
    torch.manual_seed(s.seed)
    model = GAN(
        GANConfig(shape=pictures.shape, size=s.size, condition=s.conditions(pictures, s.drop), game=game)
    )
    paper = "DCGAN (Radford et al. 2016) in the game of R3GAN (Huang et al. 2024)"
    return _run("gan", model, pictures, s, paper)


def stylegan(data: Path | None = None, settings: StyleGANSettings = STYLEGAN_SETTINGS) -> GeneratorRun:
    """StyleGAN2-ADA: styles, demodulation, path length, adaptive augmentation."""
    s, pictures = settings, settings.pictures(data)
    augment = AugmentConfig(images=100_000) if s.augment else None
    both = s.gamma if s.loss == "relativistic" else 0.0
    game = GameConfig(loss=s.loss, r1=s.gamma, r2=both, augment=augment)
    torch.manual_seed(s.seed)
    model = StyleGAN(
        StyleGANConfig(
            shape=pictures.shape,
            size=s.size,
            condition=s.conditions(pictures, s.drop),
            game=game,
            path=s.path,
        )
    )
    return _run("stylegan", model, pictures, s, "StyleGAN2-ADA (Karras et al. 2020)")


def _run(
    name: str, model: Generator, pictures: Pictures, settings: GeneratorSettings, paper: str
) -> GeneratorRun:
    """Adversarial training: Adam without momentum or weight decay; the averaged weights are saved."""
    s = settings
    config = s.training(
        min(s.batch, len(pictures)), betas=(0.0, 0.99), weight_decay=0.0, warmup=100, lr_end=0.1, ema=0.998,
        clip=None, save_every=max(100, s.steps // 4), log_every=50,
    )  # fmt: skip
    return generator_run(name, s, pictures, model, (Stage(name, model, pictures, config),), paper)
