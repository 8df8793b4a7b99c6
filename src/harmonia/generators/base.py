"""The base classes of generators: networks that train on samples with conditions and draw new samples."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from harmonia.generators.conditioning import Condition, ConditionConfig
from harmonia.types import HarmoniaError

Watch = Callable[[int, int, Tensor], None]
"""Called after each sampling step with the step, the number of steps, and the current estimate of the
samples."""


@dataclass(frozen=True, slots=True)
class Scale:
    """Channels of the first stage of a convolutional network; width, blocks and heads of a transformer."""

    channels: int
    width: int
    blocks: int
    heads: int


SCALES = {
    "tiny": Scale(32, 128, 4, 4),
    "small": Scale(64, 256, 6, 4),
    "base": Scale(128, 512, 12, 8),
    "large": Scale(192, 1024, 24, 16),
}
"""Sizes of generators: 0.5, 2, 18 and 80 million parameters as a U-Net, 1, 7, 58 and 457 as a DiT."""


@dataclass(frozen=True, kw_only=True)
class GeneratorConfig:
    """Settings that all generators have.

    ``shape``      channels, height and width of a sample
    ``size``       a key of ``SCALES``
    ``condition``  what samples can be conditioned on
    """

    shape: tuple[int, int, int] = (1, 28, 28)
    size: str = "tiny"
    condition: ConditionConfig = field(default_factory=ConditionConfig)

    def __post_init__(self) -> None:
        """Check the settings; HarmoniaError if one is out of range."""
        if self.size not in SCALES:
            raise HarmoniaError(f"there is no size {self.size!r}: give one of {', '.join(SCALES)}")
        if len(self.shape) != 3 or min(self.shape) < 1:
            raise HarmoniaError(f"shape is (channels, height, width), each at least 1, not {self.shape}")

    @property
    def scale(self) -> Scale:
        """The widths of ``size``."""
        return SCALES[self.size]


@dataclass(frozen=True, slots=True, eq=False)
class Batch:
    """Samples ``x``, float32 (n, channels, height, width) in [-1, 1], and their conditions."""

    x: Tensor
    condition: Condition

    def to(self, device: torch.device) -> Batch:
        """The same on a device."""
        return Batch(self.x.to(device), self.condition.to(device))


class Generator(nn.Module, ABC):
    """A conditional model of samples of one shape, trained by ``harmonia.training.fit``."""

    config: Any
    """A frozen dataclass, a ``GeneratorConfig``; the network is built from it alone."""

    @abstractmethod
    def losses(self, batch: Batch) -> dict[str, Tensor]:
        """One scalar loss for each optimizer group. Random numbers come from torch's global generator, which
        ``fit`` seeds at each step."""

    def groups(self) -> dict[str, list[nn.Parameter]]:
        """The trained parameters by optimizer group, without the frozen ones."""
        return {"model": [p for p in self.parameters() if p.requires_grad]}

    @abstractmethod
    def sample(
        self,
        condition: Condition,
        *,
        steps: int | None = None,
        guidance: float | None = None,
        generator: torch.Generator | None = None,
        watch: Watch | None = None,
    ) -> Tensor:
        """Draw one sample for each row of ``condition``: float32 (n, channels, height, width) in [-1, 1].

        Args:
            condition: the conditions of the samples.
            steps: of the sampler, where the method has one; None for the model's own number.
            guidance: how strongly samples follow the condition; 1 for no guidance, None for the model's own.
            generator: of the random numbers, on the CPU: the same seed gives the same samples.
            watch: called after every step.
        """

    @property
    def device(self) -> torch.device:
        """The device of the weights."""
        return next(self.parameters()).device


class OnePassGenerator(Generator):
    """A generator that draws samples in one pass of its network."""

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
        """As in :class:`Generator`, in a single step: ``steps`` is ignored. ``guidance`` is 1 by default."""
        x = self.one_pass(condition.to(self.device), 1.0 if guidance is None else guidance, generator)
        if watch is not None:
            watch(1, 1, x)
        return x

    @abstractmethod
    def one_pass(self, condition: Condition, guidance: float, generator: torch.Generator | None) -> Tensor:
        """Samples (n, channels, height, width) in [-1, 1] for a condition on the model's device."""


class CompositeGenerator(Generator):
    """A generator of several models, each with its own loss: they train at once or one after the other."""

    MODELS: tuple[str, ...]
    """The attributes that hold the models; they also name the optimizer groups."""

    def groups(self) -> dict[str, list[nn.Parameter]]:
        """The trained parameters of each model; a frozen model has no group."""
        models = {name: self.get_submodule(name) for name in self.MODELS}
        found = {name: [p for p in model.parameters() if p.requires_grad] for name, model in models.items()}
        return {name: parameters for name, parameters in found.items() if parameters}


def draw(n: int, *shape: int, generator: torch.Generator | None, device: torch.device) -> Tensor:
    """Standard normal numbers (n, *shape), drawn on the CPU so that a seed gives the same ones on any
    device."""
    return torch.randn(n, *shape, generator=generator).to(device)
