"""AttnGAN on digits or emoji: a stage of text-image matching, then the GAN."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import torch

from harmonia.generators.adversarial.attngan import AttnGAN, AttnGANConfig
from harmonia.generators.adversarial.critics import GameConfig
from harmonia.generators.text_image_matching import MatchingConfig
from harmonia.recipes.generators.run import GeneratorRun, GeneratorSettings, Stage, generator_run


@dataclass(frozen=True, kw_only=True)
class AttnGANSettings(GeneratorSettings):
    """Settings of `attngan`.

    ``share``  steps of the matching stage, as a share of those of the GAN
    ``match``  weight of the matching loss
    ``loss``   a key of ``objectives.ADVERSARIAL``; paper: non_saturating
    ``gamma``  weight of the gradient penalties; paper: 0
    """

    condition: str = "text"
    steps: int = 2400
    batch: int = 64
    lr: float = 1e-3
    share: float = 0.25
    match: float = 1.0
    loss: str = "relativistic"
    gamma: float = 1.0


def attngan(data: Path | None = None, settings: AttnGANSettings = AttnGANSettings()) -> GeneratorRun:
    """AttnGAN: text to image in stages, with word attention and a text-image matching loss.

    The first stage trains the text and image towers of the matching pair, the second the generator and its
    critics.
    """
    s = settings
    pictures = s.pictures(data)
    _, channels, height, width = pictures.x.shape
    shape, condition = (channels, height, width), s.conditions(pictures, drop=0.0)
    pair = MatchingConfig(shape=shape, text=condition.text, size=s.size)
    both = s.gamma if s.loss == "relativistic" else 0.0
    game = GameConfig(loss=s.loss, r1=s.gamma, r2=both)
    config = AttnGANConfig(shape=shape, size=s.size, condition=condition, pair=pair, match=s.match, game=game)
    torch.manual_seed(s.seed)
    model = AttnGAN(config)
    match = s.training(
        s.batch, steps=max(1, round(s.share * s.steps)), lr=3e-3, weight_decay=0.01, warmup=50, ema=0.998,
        seed=s.seed + 1,
    )  # fmt: skip
    # adversarial training needs Adam with little momentum and no weight decay
    draw = s.training(
        s.batch, betas=(0.5, 0.99), weight_decay=0.0, clip=None, warmup=50, lr_end=0.1, ema=0.998
    )
    stages = (
        Stage("match", model.pair, pictures, match),
        Stage("draw", model, pictures, draw),
    )
    return generator_run("attngan", s, pictures, model, stages, "AttnGAN (Xu et al. 2018)")
