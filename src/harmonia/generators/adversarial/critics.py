"""Conditional discriminators (critics) and the GAN losses.

A critic is a stack of convolutions that halve the image, then a head: minibatch standard deviation, a linear
layer, and the score. There is no batch norm, so the score of an image depends on the other images through
`minibatch_std` only.

References: minibatch standard deviation, Karras et al. 2018; projection, Miyato and Koyama 2018; spectral
normalisation, Miyato et al. 2018; the residual critic, Karras et al. 2020 (StyleGAN2).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.utils.parametrizations import spectral_norm

from harmonia.generators.adversarial.ada import Augment, AugmentConfig
from harmonia.generators.adversarial.equalized import EqualConv, EqualLinear, active
from harmonia.generators.conditioning import Condition, ConditionConfig, Conditioner
from harmonia.objectives.adversarial import ADVERSARIAL, Adversarial, gradient_penalty
from harmonia.types import HarmoniaError


def minibatch_std(x: Tensor, group: int = 4) -> Tensor:
    """Append a channel: the standard deviation within groups of images, averaged over channels and pixels.

    ``x`` (n, c, h, w) to (n, c + 1, h, w). A group has every (n / group)-th image; if ``group`` does not
    divide n, the next smaller divisor is the group size. The channel is 0 if all images are the same.
    """
    n = len(x)
    size = max(k for k in range(1, min(group, n) + 1) if n % k == 0)
    # The small number keeps the square root's gradient finite where all images are the same.
    std = (x.reshape(size, n // size, -1).var(dim=0, correction=0) + 1e-8).sqrt().mean(dim=1)
    return torch.cat([x, std.repeat(size)[:, None, None, None].expand(-1, 1, *x.shape[2:])], dim=1)


class CriticHead(nn.Module):
    """Features on a small grid to a score: psi(phi) + <condition, phi> / sqrt(width), the projection."""

    def __init__(
        self,
        channels: int,
        grid: tuple[int, int],
        width: int,
        condition: ConditionConfig,
        *,
        group: int = 4,
        linear: type[nn.Linear] = nn.Linear,
    ) -> None:
        super().__init__()
        self.group, self.width = group, width
        self.phi = linear((channels + 1) * grid[0] * grid[1], width)
        self.psi = linear(width, 1)
        self.told = Conditioner(condition, width, blocks=1)

    def forward(self, x: Tensor, condition: Condition) -> Tensor:
        """Scores (n,) of features ``x`` (n, channels, h, w)."""
        phi = F.leaky_relu(self.phi(minibatch_std(x, self.group).flatten(1)), 0.2)
        scores = self.psi(phi)[:, 0]
        out: Tensor = scores + (self.told(condition).vector * phi).sum(1) / math.sqrt(self.width)
        return out


class ConvCritic(nn.Module):
    """Convolutions of stride 2, one for each of ``widths``: DCGAN's discriminator without batch norm.

    ``spectral`` divides each weight by its largest singular value, for a `hinge` loss without a penalty.
    """

    def __init__(
        self,
        shape: tuple[int, int, int],
        widths: Sequence[int],
        width: int,
        condition: ConditionConfig,
        *,
        spectral: bool = False,
    ) -> None:
        super().__init__()
        channels, height, breadth = shape
        layers: list[nn.Module] = []
        for before, after in zip([channels, *widths[:-1]], widths, strict=True):
            layers += [nn.Conv2d(before, after, 4, stride=2, padding=1), nn.LeakyReLU(0.2)]
            height, breadth = height // 2, breadth // 2
        self.body = nn.Sequential(*layers)
        self.head = CriticHead(widths[-1], (height, breadth), width, condition)
        if spectral:
            for module in [*self.body, self.head.phi, self.head.psi]:
                if isinstance(module, (nn.Conv2d, nn.Linear)):
                    spectral_norm(module)

    def forward(self, x: Tensor, condition: Condition) -> Tensor:
        """Pictures (n, channels, h, w) to scores (n,)."""
        scores: Tensor = self.head(self.body(x), condition)
        return scores


class ResidualCritic(nn.Module):
    """StyleGAN2's critic: a 1x1 convolution, then two 3x3 convolutions and a halving for each further
    width."""

    def __init__(
        self, shape: tuple[int, int, int], widths: Sequence[int], width: int, condition: ConditionConfig
    ) -> None:
        super().__init__()
        channels, height, breadth = shape
        self.first = EqualConv(channels, widths[0], 1)
        self.same, self.down, self.skip = nn.ModuleList(), nn.ModuleList(), nn.ModuleList()
        for before, after in pairwise(widths):
            self.same.append(EqualConv(before, before, 3))
            self.down.append(EqualConv(before, after, 3, stride=2))
            self.skip.append(EqualConv(before, after, 1, bias=False))
            height, breadth = -(-height // 2), -(-breadth // 2)
        self.last = EqualConv(widths[-1], widths[-1], 3)
        self.head = CriticHead(widths[-1], (height, breadth), width, condition, linear=EqualLinear)

    def forward(self, x: Tensor, condition: Condition) -> Tensor:
        """Pictures (n, channels, h, w) to scores (n,)."""
        x = active(self.first(x))
        for same, down, skip in zip(self.same, self.down, self.skip, strict=True):
            y = active(down(active(same(x))))
            x = (y + skip(F.avg_pool2d(x, 2, ceil_mode=True))) * math.sqrt(0.5)
        scores: Tensor = self.head(active(self.last(x)), condition)
        return scores


@dataclass(frozen=True, kw_only=True)
class GameConfig:
    """The losses of generator and critic.

    ``loss``     a key of ``objectives.ADVERSARIAL``
    ``r1``       weight of the critic's `gradient_penalty` at real images
    ``r2``       the same at generated ones
    ``every``    steps between penalties (lazy regularisation), which are then multiplied by it
    ``augment``  augmentation of the critic's images; None for none
    """

    loss: str = "relativistic"
    r1: float = 1.0
    r2: float = 1.0
    every: int = 8
    augment: AugmentConfig | None = None

    def __post_init__(self) -> None:
        """Check the settings; HarmoniaError if one is out of range."""
        if self.loss not in ADVERSARIAL:
            raise HarmoniaError(
                f"there is no adversarial loss {self.loss!r}: choose from {', '.join(ADVERSARIAL)}"
            )
        if not (self.r1 >= 0 and self.r2 >= 0 and self.every >= 1):
            raise HarmoniaError("r1 and r2 must be at least 0, every at least 1")


class Game(nn.Module):
    """A critic with its augmentation, the losses of generator and critic, and lazy gradient penalties.

    Both losses come from one pass of the critic over the generated images and share a graph; ``fit``
    differentiates each loss with respect to its own parameters only.
    """

    step: Tensor

    def __init__(self, config: GameConfig, critic: nn.Module) -> None:
        super().__init__()
        self.config, self.critic = config, critic
        self.augment = Augment(config.augment) if config.augment else None
        self.register_buffer("step", torch.zeros((), dtype=torch.int64))

    def forward(self, real: Tensor, fake: Tensor, condition: Condition) -> Adversarial:
        """The losses of a step. ``fake`` carries the generator's graph; ``condition`` applies to both
        images."""
        config, lazy = self.config, int(self.step) % self.config.every == 0
        self.step += 1
        if self.augment:
            real, fake = self.augment(real), self.augment(fake)
        real = real.detach().requires_grad_(lazy and config.r1 > 0)
        of_real, of_fake = self.critic(real, condition), self.critic(fake, condition)
        if self.augment:
            # A relativistic critic's scores have no meaningful zero: only differences count.
            self.augment.observe(of_real - of_fake if config.loss == "relativistic" else of_real)
        critic, generator = ADVERSARIAL[config.loss](of_real, of_fake)
        if lazy and config.r1:
            critic = critic + config.every * config.r1 * gradient_penalty(of_real, real)
        if lazy and config.r2:
            critic = critic + config.every * config.r2 * gradient_penalty(of_fake, fake)
        return Adversarial(critic, generator)


def truncation(guidance: float) -> float:
    """The truncation psi = 1 / guidance, which scales the latents (Brock et al. 2019, BigGAN)."""
    if not guidance > 0:
        raise HarmoniaError(
            f"guidance must be above 0, got {guidance}: 1 is no truncation, 2 halves the latents"
        )
    return 1 / guidance
