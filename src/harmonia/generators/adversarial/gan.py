"""A conditional generative adversarial network: noise and a condition to an image, in one pass.

Generator and critic are DCGAN's stacks of strided convolutions (Radford et al. 2016) without batch norm; the
loss is that of R3GAN, relativistic pairs with gradient penalties on both sides (Huang et al. 2024), with
which this plain network trains stably. The critic is conditioned by projection (Miyato and Koyama 2018).
"""

from __future__ import annotations

from dataclasses import dataclass, field

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from harmonia.generators.adversarial.critics import ConvCritic, Game, GameConfig, truncation
from harmonia.generators.base import Batch, GeneratorConfig, OnePassGenerator, draw
from harmonia.generators.conditioning import Condition, Conditioner
from harmonia.types import HarmoniaError


@dataclass(frozen=True, kw_only=True)
class GANConfig(GeneratorConfig):
    """``latent`` numbers of noise; ``game`` the loss and its penalties; ``spectral`` normalisation of the
    critic."""

    latent: int = 32
    game: GameConfig = field(default_factory=GameConfig)
    spectral: bool = False

    def __post_init__(self) -> None:
        """Check the settings; HarmoniaError if one is out of range."""
        GeneratorConfig.__post_init__(self)
        check_picture(self.shape, self.condition.channels)
        if self.latent < 1:
            raise HarmoniaError(f"latent is {self.latent}: it must be at least 1")


class ConvSynthesis(nn.Module):
    """A vector to an image: a linear layer to the smallest grid, then two convolutions for each doubling."""

    def __init__(self, width: int, shape: tuple[int, int, int], channels: int) -> None:
        super().__init__()
        ups = doublings(shape)
        widths = [channels * min(4, 2**k) for k in reversed(range(ups))]
        self.grid = (widths[0], shape[1] >> ups, shape[2] >> ups)
        self.first = nn.Linear(width, widths[0] * self.grid[1] * self.grid[2])
        self.same = nn.ModuleList(nn.Conv2d(c, c, 3, padding=1) for c in widths)
        self.up = nn.ModuleList(
            nn.ConvTranspose2d(before, after, 4, stride=2, padding=1)
            for before, after in zip(widths, [*widths[1:], shape[0]], strict=True)
        )

    def forward(self, vector: Tensor) -> Tensor:
        """(n, width) to (n, c, h, w) in [-1, 1]."""
        x: Tensor = self.first(vector).unflatten(1, self.grid)
        for same, up in zip(self.same, self.up, strict=True):
            x = up(F.leaky_relu(same(F.leaky_relu(x, 0.2)), 0.2))
        return x.tanh()


class GAN(OnePassGenerator):
    """A conditional GAN; its optimizer groups are the critic and the generator."""

    config: GANConfig

    def __init__(self, config: GANConfig) -> None:
        super().__init__()
        self.config = config
        channels, halvings = config.scale.channels, doublings(config.shape) + 1
        self.told = Conditioner(config.condition, config.latent)
        self.synthesis = ConvSynthesis(2 * config.latent, config.shape, channels)
        widths = [channels * min(4, 2**k) for k in range(halvings)]
        critic = ConvCritic(config.shape, widths, 4 * channels, config.condition, spectral=config.spectral)
        self.game = Game(config.game, critic)

    def forward(self, z: Tensor, condition: Condition) -> Tensor:
        """Noise (n, latent) to pictures (n, c, h, w) in [-1, 1]."""
        pictures: Tensor = self.synthesis(torch.cat([z, self.told(condition).vector], dim=1))
        return pictures

    def losses(self, batch: Batch) -> dict[str, Tensor]:
        """The losses of critic and generator, which share one graph (see `Game`)."""
        condition = self.told.drop(batch.condition)
        z = torch.randn(len(batch.x), self.config.latent, device=batch.x.device)
        critic, generator = self.game(batch.x, self(z, condition), condition)
        return {"critic": critic, "generator": generator}

    def groups(self) -> dict[str, list[nn.Parameter]]:
        """The critic's parameters and the generator's."""
        return players(self, self.game)

    def one_pass(self, condition: Condition, guidance: float, generator: torch.Generator | None) -> Tensor:
        """Pictures of noise divided by ``guidance``: above 1 they are more typical and less varied."""
        z = draw(condition.n, self.config.latent, generator=generator, device=self.device)
        pictures: Tensor = self(z * truncation(guidance), condition)
        return pictures


def players(model: nn.Module, game: Game) -> dict[str, list[nn.Parameter]]:
    """The trained parameters of the critic and those of everything else."""
    own = {id(p) for p in game.parameters()}
    trained = [p for p in model.parameters() if p.requires_grad]
    return {
        "critic": [p for p in trained if id(p) in own],
        "generator": [p for p in trained if id(p) not in own],
    }


def doublings(shape: tuple[int, int, int]) -> int:
    """How many times both sides of an image can be halved before one is odd or at most 4."""
    height, width, count = shape[1], shape[2], 0
    while height % 2 == width % 2 == 0 and min(height, width) > 4:
        height, width, count = height // 2, width // 2, count + 1
    return count


def check_picture(shape: tuple[int, int, int], channels: int) -> None:
    """HarmoniaError if the sides cannot be halved or if there is an image condition."""
    if not doublings(shape):
        raise HarmoniaError(
            f"a GAN needs even sides above 4, not {shape[1:]}: give a resolution such as 28, 32, 64"
        )
    if channels:
        raise HarmoniaError("a GAN cannot be conditioned on an image: set ConditionConfig(channels=0)")
