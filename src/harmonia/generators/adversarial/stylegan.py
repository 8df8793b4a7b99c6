"""StyleGAN2-ADA: a mapping network turns noise into styles, which scale the channels of every convolution.

The losses are the adversarial loss and two lazy regularisers: R1 on the critic and path length on the
generator. The critic's images go through adaptive augmentation. There is no perceptual loss.

References: Karras et al. 2019 (mapping, noise inputs, truncation), 2020a (StyleGAN2: modulated convolutions
with demodulation, skip outputs, residual critic, path length, lazy regularisation), 2020b (augmentation).
The networks are smaller than theirs, and convolutions come before the upsampling, at a quarter of the cost.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, field
from itertools import pairwise

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from harmonia.generators.adversarial.ada import AugmentConfig
from harmonia.generators.adversarial.critics import Game, GameConfig, ResidualCritic, truncation
from harmonia.generators.adversarial.equalized import EqualLinear, active, pixel_norm
from harmonia.generators.adversarial.gan import check_picture, doublings, players
from harmonia.generators.base import Batch, GeneratorConfig, OnePassGenerator, draw
from harmonia.generators.conditioning import Condition, ConditionConfig, Conditioner
from harmonia.objectives.adversarial import path_length
from harmonia.types import HarmoniaError

Noise = Callable[[int, int, int], Tensor]
"""Normal noise (n, 1, h, w) for a layer."""

MEAN_OF = 64
"""Number of latents whose mean style is the centre of truncation."""


@dataclass(frozen=True, kw_only=True)
class StyleGANConfig(GeneratorConfig):
    """``latent`` numbers of noise; ``mapping`` layers to a style, which learn at ``rate`` times
    the rest's rate (0.01 in the paper's long runs); ``path`` weight of `path_length`, which is taken every
    ``path_every`` steps on half of a batch; ``game`` the losses of the players."""

    latent: int = 128
    mapping: int = 2
    rate: float = 0.1
    path: float = 2.0
    path_every: int = 8
    game: GameConfig = field(
        default_factory=lambda: GameConfig(
            loss="non_saturating", r1=1.0, r2=0.0, every=16, augment=AugmentConfig()
        )
    )

    def __post_init__(self) -> None:
        """Check the settings; HarmoniaError if one is out of range."""
        GeneratorConfig.__post_init__(self)
        check_picture(self.shape, self.condition.channels)
        if min(self.latent, self.mapping, self.path_every) < 1 or not (self.path >= 0 and self.rate > 0):
            raise HarmoniaError(
                "latent, mapping and path_every must be at least 1, path at least 0, rate above 0"
            )


class Mapping(nn.Module):
    """The mapping network: normalised noise and condition, through ``layers`` layers to a style w."""

    def __init__(self, latent: int, condition: ConditionConfig, width: int, layers: int, rate: float) -> None:
        super().__init__()
        self.told = Conditioner(condition, width)
        before = [latent + width] + [width] * (layers - 1)
        self.layers = nn.ModuleList(EqualLinear(b, width, rate=rate) for b in before)

    def forward(self, z: Tensor, condition: Condition) -> Tensor:
        """(n, latent) to (n, width)."""
        x = torch.cat([pixel_norm(z), pixel_norm(self.told(condition).vector)], dim=1)
        for layer in self.layers:
            x = active(layer(x))
        return x


class ModulatedConv(nn.Module):
    """A convolution whose input channels are scaled by the style of each sample: w'_oik = s_i w_oik.

    Demodulation divides by the norm of each output's weights, sqrt(sum_ik w'_oik^2 + 1e-8), so that inputs
    of unit variance give outputs of unit variance. Scaling the input by s and the output by 1 / norm is the
    same as a convolution with every sample's own weights, at the cost of one with shared weights.
    """

    def __init__(self, before: int, after: int, kernel: int, width: int, *, demodulate: bool = True) -> None:
        super().__init__()
        self.style = EqualLinear(width, before, bias=1.0)
        self.weight = nn.Parameter(torch.randn(after, before, kernel, kernel))
        self.demodulate = demodulate

    def forward(self, x: Tensor, w: Tensor) -> Tensor:
        """``x`` (n, before, h, w), styles ``w`` (n, width), to (n, after, h, w)."""
        weight = self.weight / math.sqrt(self.weight[0].numel())
        style = self.style(w)
        x = F.conv2d(x * style[:, :, None, None], weight, padding=weight.shape[-1] // 2)
        if self.demodulate:
            norm = style.square() @ weight.square().sum((2, 3)).T
            x = x * torch.rsqrt(norm + 1e-8)[:, :, None, None]
        return x


class StyledLayer(nn.Module):
    """A modulated convolution, with upsampling if ``up``; noise of a learned strength, bias, leaky ReLU."""

    def __init__(self, before: int, after: int, width: int, *, up: bool = False) -> None:
        super().__init__()
        self.up = up
        self.conv = ModulatedConv(before, after, 3, width)
        self.strength = nn.Parameter(torch.zeros(()))
        self.bias = nn.Parameter(torch.zeros(after, 1, 1))

    def forward(self, x: Tensor, w: Tensor, noise: Noise) -> Tensor:
        """(n, before, h, w) to (n, after, h, w), or twice the sides if ``up``."""
        x = self.conv(x, w)
        x = double(x) if self.up else x
        return active(x + self.strength * noise(len(x), *x.shape[2:]) + self.bias)


class StyleSynthesis(nn.Module):
    """A learned constant to an image, the sum of the outputs of all resolutions (skip outputs)."""

    def __init__(self, config: StyleGANConfig) -> None:
        super().__init__()
        channels, *sides = config.shape
        widths, width = list(reversed(stages(config))), config.scale.width
        ups = len(widths) - 1
        self.constant = nn.Parameter(torch.randn(1, widths[0], sides[0] >> ups, sides[1] >> ups))
        self.first = StyledLayer(widths[0], widths[0], width)
        pairs = list(pairwise(widths))
        self.up = nn.ModuleList(StyledLayer(before, after, width, up=True) for before, after in pairs)
        self.same = nn.ModuleList(StyledLayer(after, after, width) for _, after in pairs)
        self.paint = nn.ModuleList(ModulatedConv(c, channels, 1, width, demodulate=False) for c in widths)
        self.bias = nn.Parameter(torch.zeros(channels, 1, 1))

    def forward(self, w: Tensor, noise: Noise) -> Tensor:
        """Styles (n, width) to pictures (n, c, h, w) in [-1, 1]."""
        x = self.first(self.constant.expand(len(w), -1, -1, -1), w, noise)
        picture = self.paint[0](x, w)
        for up, same, paint in zip(self.up, self.same, self.paint[1:], strict=True):
            x = same(up(x, w, noise), w, noise)
            picture = double(picture) + paint(x, w)
        # The paper has no tanh; without it, exactly black backgrounds, as in drawings, are not reached.
        out: Tensor = (picture + self.bias).tanh()
        return out


class StyleGAN(OnePassGenerator):
    """StyleGAN2-ADA; its optimizer groups are the critic and the generator."""

    config: StyleGANConfig
    length: Tensor

    def __init__(self, config: StyleGANConfig) -> None:
        super().__init__()
        self.config, width = config, config.scale.width
        self.mapping = Mapping(config.latent, config.condition, width, config.mapping, config.rate)
        self.synthesis = StyleSynthesis(config)
        critic = ResidualCritic(config.shape, stages(config), width, config.condition)
        self.game = Game(config.game, critic)
        self.register_buffer("length", torch.zeros(()))

    def losses(self, batch: Batch) -> dict[str, Tensor]:
        """The losses of critic and generator, which share one graph (see `Game`)."""
        config, n = self.config, len(batch.x)
        step, condition = int(self.game.step), self.mapping.told.drop(batch.condition)
        w = self.mapping(self._latents(n), condition)
        critic, generator = self.game(batch.x, self.synthesis(w, self._noise), condition)
        if config.path and step % config.path_every == 0:
            rows = torch.arange((n + 1) // 2, device=batch.x.device)
            w = self.mapping(self._latents(len(rows)), condition.rows(rows))
            penalty, length = path_length(self.synthesis(w, self._noise), w, self.length)
            self.length.copy_(length)
            generator = generator + config.path_every * config.path * penalty
        return {"critic": critic, "generator": generator}

    def groups(self) -> dict[str, list[nn.Parameter]]:
        """The critic's parameters and the generator's."""
        return players(self, self.game)

    def one_pass(self, condition: Condition, guidance: float, generator: torch.Generator | None) -> Tensor:
        """Images of the styles mean + (w - mean) / ``guidance``, the truncation trick, where mean is the
        mean style of the condition."""
        keep = truncation(guidance)
        w = self.mapping(self._latents(condition.n, generator), condition)
        if keep != 1:
            rows = torch.arange(condition.n, device=self.device).repeat_interleave(MEAN_OF)
            several = self._latents(MEAN_OF, generator).repeat(condition.n, 1)
            mean = self.mapping(several, condition.rows(rows)).unflatten(0, (-1, MEAN_OF)).mean(1)
            w = torch.lerp(mean, w, keep)

        def noise(n: int, *sides: int) -> Tensor:
            return draw(n, 1, *sides, generator=generator, device=self.device)

        pictures: Tensor = self.synthesis(w, noise)
        return pictures

    def _latents(self, n: int, generator: torch.Generator | None = None) -> Tensor:
        return draw(n, self.config.latent, generator=generator, device=self.device)

    def _noise(self, n: int, *sides: int) -> Tensor:
        return torch.randn(n, 1, *sides, device=self.device)


def stages(config: StyleGANConfig) -> list[int]:
    """Channels by resolution, from the full one: half of the size's, then twice as many for each halving."""
    channels = config.scale.channels
    return [channels * min(8, 2**k) // 2 for k in range(doublings(config.shape) + 1)]


def double(x: Tensor) -> Tensor:
    """Bilinear upsampling to twice the sides: zeros inserted, then the filter [1, 3, 3, 1] / 4."""
    return F.interpolate(x, scale_factor=2, mode="bilinear", align_corners=False)
