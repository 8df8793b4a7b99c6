"""The base class of trainable towers: signals to one tensor, and that tensor to codes.

The two steps are separate: the first decodes and resizes, and its result can be kept as one array; the second
is the network that is trained.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from harmonia.types import HarmoniaError, Signal


@dataclass(frozen=True, slots=True)
class Size:
    """Width, blocks and heads of transformers; channels and blocks by stage of convolutional networks."""

    width: int
    blocks: int
    heads: int
    widths: tuple[int, ...]
    depths: tuple[int, ...]


SIZES = {
    "tiny": Size(96, 2, 3, (32, 64, 128), (1, 2, 1)),
    "small": Size(192, 3, 6, (64, 128, 256), (1, 2, 2)),
    "base": Size(384, 8, 6, (96, 192, 384, 576), (2, 2, 6, 2)),
    "large": Size(768, 12, 12, (128, 256, 512, 1024), (3, 3, 22, 5)),
}
"""About 0.3, 1.5, 15 and 90 million parameters, without the token embeddings of a text tower."""


@dataclass(frozen=True, kw_only=True)
class TowerConfig:
    """Settings of all towers: ``size``, a key of ``SIZES``; ``dim``, the width of a code; ``dropout``."""

    size: str = "tiny"
    dim: int = 256
    dropout: float = 0.0

    def __post_init__(self) -> None:
        if self.size not in SIZES:
            raise HarmoniaError(f"there is no size {self.size!r}: give one of {', '.join(SIZES)}")
        if self.dim < 1 or not 0 <= self.dropout < 1:
            raise HarmoniaError(
                f"a tower needs dim >= 1 and 0 <= dropout < 1, not dim {self.dim}, dropout {self.dropout}"
            )


class Tower(nn.Module, ABC):
    """A network from signals of one modality to codes of width ``dim``.

    In evaluation mode a code depends on its own signal only, not on the batch or on padding.
    """

    config: TowerConfig
    modality: str

    @property
    def dim(self) -> int:
        """The width of a code."""
        return self.config.dim

    @abstractmethod
    def prepare(self, signals: Sequence[Signal]) -> Tensor:
        """Signals as one CPU tensor ``(n, ...)`` of a shape and dtype that do not depend on them.

        HarmoniaError if a signal is of another modality or has no usable content.
        """

    @abstractmethod
    def forward(self, inputs: Tensor) -> Tensor:
        """Codes ``(n, dim)``, not normalised, of the output of ``prepare`` on the tower's device."""

    def windows(self, signal: Signal) -> list[Signal]:
        """Split a signal into one or more pieces for ``prepare``; its code is the mean of their codes."""
        return [signal]


class ProjectionHead(nn.Module):
    """Features to a code: layer norm, dropout, one linear map."""

    def __init__(self, width: int, config: TowerConfig) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(width)
        self.dropout = nn.Dropout(config.dropout)
        self.project = nn.Linear(width, config.dim)

    def forward(self, x: Tensor) -> Tensor:
        """(n, width) to (n, dim)."""
        out: Tensor = self.project(self.dropout(self.norm(x)))
        return out


def parameters(module: nn.Module) -> int:
    """The number of parameters of a module."""
    return sum(p.numel() for p in module.parameters())


def choose(name: str, value: str, options: Sequence[str]) -> None:
    """HarmoniaError unless ``value`` is one of the options of setting ``name``."""
    if value not in options:
        raise HarmoniaError(f"{name} must be one of {', '.join(options)}, not {value!r}")


def check_modality(signals: Sequence[Signal], modality: str) -> None:
    """HarmoniaError unless every signal is of the modality."""
    for signal in signals:
        if signal.modality != modality:
            raise HarmoniaError(f"the {modality} tower cannot encode a signal of modality {signal.modality}")


def check_inputs(inputs: Tensor, shape: Sequence[int], modality: str) -> None:
    """HarmoniaError unless ``inputs`` is ``(n, *shape)``; -1 matches any length."""
    fits = inputs.dim() == len(shape) + 1 and all(
        want in (-1, got) for want, got in zip(shape, inputs.shape[1:], strict=True)
    )
    if not fits:
        raise HarmoniaError(
            f"the {modality} tower takes (n, {', '.join(map(str, shape))}), not {tuple(inputs.shape)}: "
            "give the output of its prepare()"
        )


def place(name: str) -> torch.device:
    """The device of a name; "auto" is a GPU if there is one. HarmoniaError if it is not available."""
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        device = torch.device(name)
        torch.empty(0, device=device)
    except (RuntimeError, AssertionError) as error:
        raise HarmoniaError(f"the device {name!r} is not available: use auto or cpu") from error
    return device
