"""AttnGAN: text to image in stages, with attention to the words at every stage.

Reference: Xu et al. 2018. Stage 0 draws a coarse image from noise and the sentence; every later stage doubles
the resolution and attends to the words at each pixel. Each stage has a critic, with an unconditional and a
conditional loss. The DAMSM loss of a frozen :class:`MatchingPair`, trained before, scores how well the last
image matches the words. There is no reconstruction loss such as L1.

Departures from the paper, for small images and machines: group norm instead of batch norm, attention scaled
by the root of the width, and the losses of :class:`GameConfig`, relativistic pairs with penalties. With the
paper's loss, ``non_saturating`` without penalties, this generator collapses to one image for each text.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from itertools import pairwise
from typing import cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from harmonia.generators.adversarial.critics import ConvCritic, GameConfig, truncation
from harmonia.generators.base import Batch, Generator, GeneratorConfig, Watch, draw
from harmonia.generators.conditioning import Condition, ConditionConfig
from harmonia.generators.text_image_matching import MatchingConfig, MatchingPair, TextFeatures, text_of
from harmonia.objectives.adversarial import ADVERSARIAL, gradient_penalty
from harmonia.objectives.variational import gaussian_kl
from harmonia.types import HarmoniaError

COARSEST = 8
"""The largest side of the first stage's image, in pixels."""


@dataclass(frozen=True, kw_only=True)
class AttnGANConfig(GeneratorConfig):
    """``noise`` numbers of z; ``match`` weight of the DAMSM loss; ``game`` the losses of every stage."""

    pair: MatchingConfig = field(default_factory=MatchingConfig)
    noise: int = 64
    match: float = 1.0
    game: GameConfig = field(default_factory=GameConfig)

    def __post_init__(self) -> None:
        """Check the settings; HarmoniaError if one is out of range."""
        super().__post_init__()
        if self.game.augment:
            raise HarmoniaError("AttnGAN has no augmentation: leave game.augment out")
        self.pair.require(self.shape, self.condition.text)

    @property
    def sides(self) -> tuple[tuple[int, int], ...]:
        """Height and width of each stage's image, from the first to the last."""
        sides = [self.shape[1:]]
        while max(sides[0]) > COARSEST and not (sides[0][0] % 2 or sides[0][1] % 2):
            sides.insert(0, (sides[0][0] // 2, sides[0][1] // 2))
        return tuple(sides)


class AttnGAN(Generator):
    """The generator stages, their critics, and the frozen text-image matching pair."""

    config: AttnGANConfig

    def __init__(self, config: AttnGANConfig) -> None:
        super().__init__()
        self.config = config
        self.pair = MatchingPair(config.pair)
        self.draw = Stages(config)
        sentence = ConditionConfig(code=config.pair.width)
        scale = config.scale
        self.critics = nn.ModuleList(
            ConvCritic((config.shape[0], h, w), _widths(scale.channels, h, w), scale.width, sentence)
            for h, w in config.sides
        )

    def groups(self) -> dict[str, list[nn.Parameter]]:
        """The parameters of the generator and the critics; the pair is trained before and frozen."""
        return {"critic": list(self.critics.parameters()), "generator": list(self.draw.parameters())}

    def losses(self, batch: Batch) -> dict[str, Tensor]:
        """Conditional and unconditional adversarial losses of all stages; for the generator also DAMSM and
        the KL of the conditioning augmentation c."""
        text = text_of(batch.condition.text)
        with torch.no_grad():
            read = self.pair.read(text)
        n, device = len(text), text.device
        z = torch.randn(n, self.config.noise, device=device)
        mean, log_variance = self.draw.augment(read.sentence).chunk(2, dim=1)
        c = mean + (0.5 * log_variance).exp() * torch.randn_like(mean)
        pictures = self.draw(z, c, read)
        penalise = bool(torch.rand(()) < 1 / self.config.game.every)
        terms = [
            self._adversarial(k, batch.x, picture, read.sentence, penalise)
            for k, picture in enumerate(pictures)
        ]
        critic, generator = (torch.stack(side).sum() for side in zip(*terms, strict=True))
        generator = generator + gaussian_kl(mean, log_variance).mean() / self.config.pair.width
        # matching needs at least two different texts in the batch
        if self.config.match and bool((text != text[:1]).any()):
            generator = generator + self.config.match * self.pair.match(pictures[-1], text)
        return {"critic": critic, "generator": generator}

    def _adversarial(
        self, stage: int, real: Tensor, fake: Tensor, sentence: Tensor, penalise: bool
    ) -> tuple[Tensor, Tensor]:
        """The losses of one stage: the critic's and the generator's."""
        game, play = self.config.game, ADVERSARIAL[self.config.game.loss]
        real = F.adaptive_avg_pool2d(real, (fake.shape[2], fake.shape[3]))
        if penalise:
            real = real.clone().requires_grad_()
        critic = cast(ConvCritic, self.critics[stage])
        condition = Condition(len(real), code=sentence)
        seen, drawn = critic.body(real), critic.body(fake)
        alone = play(critic.head(seen, condition.without()), critic.head(drawn, condition.without()))
        matched, made = critic.head(seen, condition), critic.head(drawn, condition)
        both = play(matched, made)
        loss = alone.critic + both.critic
        # a real image with the text of another is a negative, too (Reed et al. 2016; StackGAN)
        others = sentence.roll(1, 0)
        differ = (others != sentence).any(1)
        if differ.any():
            wrong = critic.head(seen, Condition(len(real), code=others))
            loss = loss + play(matched[differ], wrong[differ]).critic
        loss = 0.5 * loss
        if penalise and game.r1:
            loss = loss + game.every * game.r1 * gradient_penalty(matched, real)
        if penalise and game.r2:
            loss = loss + game.every * game.r2 * gradient_penalty(made, fake)
        return loss, 0.5 * (alone.generator + both.generator)

    @torch.no_grad()
    def sample(
        self,
        condition: Condition,
        *,
        steps: int | None = None,
        guidance: float | None = None,
        generator: torch.Generator | None = None,
        watch: Watch | None = None,
    ) -> Tensor:
        """As in the base class. The stages are the steps; ``steps`` is ignored.

        ``guidance`` divides the noise: above 1, samples are more typical of the text and less varied
        (truncation, Brock et al. 2019).
        """
        condition = condition.to(self.device)
        read = self.pair.read(text_of(condition.text))
        keep = truncation(1.0 if guidance is None else guidance)
        z = keep * draw(condition.n, self.config.noise, generator=generator, device=self.device)
        mean, log_variance = self.draw.augment(read.sentence).chunk(2, dim=1)
        eps = draw(*mean.shape, generator=generator, device=self.device) * keep
        pictures: list[Tensor] = self.draw(z, mean + (0.5 * log_variance).exp() * eps, read)
        if watch is not None:
            for step, picture in enumerate(pictures, 1):
                watch(step, len(pictures), F.interpolate(picture, self.config.shape[1:]))
        return pictures[-1]


class Stages(nn.Module):
    """The generator: noise and text to an image at each resolution."""

    def __init__(self, config: AttnGANConfig) -> None:
        super().__init__()
        width, sides = config.pair.width, config.sides
        last = config.scale.channels // 2
        channels = [min(4, 2 ** (len(sides) - 1 - i)) * last for i in range(len(sides))]
        self.start = (channels[0], *sides[0])
        self.augment = nn.Linear(width, 2 * width)  # mean and log-variance of c
        self.first = nn.Linear(config.noise + width, math.prod(self.start))
        self.coarse = nn.Sequential(_gated(channels[0], channels[0]), _gated(channels[0], channels[0]))
        self.attend = nn.ModuleList(WordAttention(c, width) for c in channels[:-1])
        self.refine = nn.ModuleList(
            nn.Sequential(_gated(2 * a, a), _gated(a, b, up=True)) for a, b in pairwise(channels)
        )
        self.paint = nn.ModuleList(nn.Conv2d(c, config.shape[0], 3, padding=1) for c in channels)

    def forward(self, z: Tensor, c: Tensor, read: TextFeatures) -> list[Tensor]:
        """``z`` (n, noise), ``c`` (n, d) to images (n, channels, h, w), from coarse to fine."""
        h = self.coarse(self.first(torch.cat([z, c], 1)).view(-1, *self.start))
        pictures = [self.paint[0](h).tanh()]
        for attend, refine, paint in zip(self.attend, self.refine, self.paint[1:], strict=True):
            seen, _ = attend(h, read.words, read.mask)
            h = refine(torch.cat([h, seen], 1))
            pictures.append(paint(h).tanh())
        return pictures


class WordAttention(nn.Module):
    """Attention of every pixel to the words: sum_i b_i U e_i, b = softmax_i <h, U e_i> /
    sqrt(channels)."""

    def __init__(self, channels: int, width: int) -> None:
        super().__init__()
        self.project = nn.Linear(width, channels, bias=False)

    def forward(self, h: Tensor, words: Tensor, mask: Tensor) -> tuple[Tensor, Tensor]:
        """``h`` (n, c, h, w), ``words`` (n, t, d), ``mask`` (n, t) to a context like ``h`` and weights (n, h,
        w, t)."""
        e = self.project(words)
        scores = torch.einsum("nchw,ntc->nhwt", h, e) / math.sqrt(h.shape[1])
        weights = scores.masked_fill(~mask[:, None, None], float("-inf")).softmax(-1)
        return torch.einsum("nhwt,ntc->nchw", weights, e), weights


def _gated(before: int, after: int, up: bool = False) -> nn.Sequential:
    """A convolution, group norm and a gated linear unit; with upsampling if ``up``."""
    layers: list[nn.Module] = [nn.Upsample(scale_factor=2)] if up else []
    layers += [nn.Conv2d(before, 2 * after, 3, padding=1), nn.GroupNorm(8, 2 * after), nn.GLU(dim=1)]
    return nn.Sequential(*layers)


def _widths(channels: int, height: int, width: int) -> list[int]:
    """The widths of a critic's layers, one for each halving down to 4 pixels or fewer."""
    count = max(1, math.ceil(math.log2(min(height, width) / 4)))
    return [min(4, 2**i) * channels for i in range(count)]
