"""Text and motion (IMU) towers."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from tokenizers import Tokenizer
from torch import Tensor, nn

from harmonia.encoders.towers.base import (
    SIZES,
    ProjectionHead,
    Tower,
    TowerConfig,
    check_inputs,
    check_modality,
    choose,
)
from harmonia.encoders.towers.tokenizer import PAD, encode
from harmonia.layers import Pool, Transformer
from harmonia.layers.pooling import POOLS
from harmonia.types import HarmoniaError, Signal


@dataclass(frozen=True, kw_only=True)
class TextConfig(TowerConfig):
    """Settings of a text tower.

    ``blocks`` None takes the number of the size; 0 is a bag of words (pooled embeddings and a two-layer
    perceptron), which ignores word order and is best for a few thousand texts. ``length`` is in tokens.
    """

    vocabulary: int = 8192
    length: int = 64
    blocks: int | None = None
    pool: str = "mean"

    def __post_init__(self) -> None:
        super().__post_init__()
        choose("pool", self.pool, POOLS)
        if self.vocabulary < 1 or self.length < 2 or (self.blocks is not None and self.blocks < 0):
            raise HarmoniaError("a text tower needs vocabulary >= 1, length >= 2 and blocks >= 0")


class TextTower(Tower):
    """Token embeddings with learned positions, a transformer, pooling, and a projection."""

    modality = "text"

    config: TextConfig

    def __init__(self, config: TextConfig, tokenizer: Tokenizer) -> None:
        super().__init__()
        if tokenizer.get_vocab_size() > config.vocabulary:
            raise HarmoniaError(
                f"the tokenizer has {tokenizer.get_vocab_size()} tokens and the text tower "
                f"{config.vocabulary}: set vocabulary to at least that"
            )
        self.config = config
        self.tokenizer = tokenizer
        size = SIZES[config.size]
        blocks = size.blocks if config.blocks is None else config.blocks
        self.embed = nn.Embedding(config.vocabulary, size.width, padding_idx=PAD)
        self.position = nn.Parameter(torch.zeros(config.length, size.width)) if blocks else None
        self.transformer = Transformer(size.width, blocks, size.heads, config.dropout) if blocks else None
        self.pool = Pool(size.width, config.pool)
        self.mlp = nn.Identity() if blocks else _perceptron(size.width)
        self.head = ProjectionHead(size.width, config)
        nn.init.normal_(self.embed.weight, std=0.02)
        if self.position is not None:
            nn.init.normal_(self.position, std=0.02)

    def prepare(self, signals: Sequence[Signal]) -> Tensor:
        """Token ids, int32 ``(n, length)``, padded with 0. Long texts are truncated."""
        check_modality(signals, self.modality)
        return torch.from_numpy(encode(self.tokenizer, [s.text for s in signals], self.config.length))

    def forward(self, inputs: Tensor) -> Tensor:
        """Codes of token ids ``(n, t)``, ``t`` at most ``length``; columns of padding are skipped."""
        check_inputs(inputs, (-1,), self.modality)
        if inputs.shape[1] > self.config.length:
            raise HarmoniaError(
                f"{inputs.shape[1]} tokens are too many: the text tower takes {self.config.length}"
            )
        mask = inputs != PAD
        longest = max(1, int(mask.any(dim=0).sum()))
        mask = mask[:, :longest]
        x = self.embed(inputs[:, :longest].long())
        if self.transformer is not None and self.position is not None:
            x = self.transformer(x + self.position[:longest], mask)
        code: Tensor = self.head(self.mlp(self.pool(x, mask)))
        return code


def _perceptron(width: int) -> nn.Sequential:
    return nn.Sequential(
        nn.LayerNorm(width), nn.Linear(width, 4 * width), nn.GELU(), nn.Linear(4 * width, width)
    )


@dataclass(frozen=True, kw_only=True)
class MotionConfig(TowerConfig):
    """Settings of a motion tower (accelerometer, gyroscope, ...).

    A signal is interpolated to ``samples`` readings and cut into patches of ``patch`` readings.
    """

    channels: int = 6
    samples: int = 256
    patch: int = 8
    pool: str = "mean"

    def __post_init__(self) -> None:
        super().__post_init__()
        choose("pool", self.pool, POOLS)
        if self.channels < 1 or self.patch < 1 or self.samples < 1 or self.samples % self.patch:
            raise HarmoniaError("a motion tower needs channels >= 1, and samples a multiple of patch")


class MotionTower(Tower):
    """Patches of readings by a strided convolution, learned positions, a transformer, pooling, a
    projection."""

    modality = "motion"

    config: MotionConfig

    def __init__(self, config: MotionConfig) -> None:
        super().__init__()
        self.config = config
        size = SIZES[config.size]
        self.embed = nn.Conv1d(config.channels, size.width, config.patch, stride=config.patch)
        self.position = nn.Parameter(torch.randn(config.samples // config.patch, size.width) * 0.02)
        self.transformer = Transformer(size.width, size.blocks, size.heads, config.dropout)
        self.pool = Pool(size.width, config.pool)
        self.head = ProjectionHead(size.width, config)

    def prepare(self, signals: Sequence[Signal]) -> Tensor:
        """Readings, float32 ``(n, channels, samples)``; every signal is ``(channels, time)`` and finite."""
        check_modality(signals, self.modality)
        rows = np.zeros((len(signals), self.config.channels, self.config.samples), dtype=np.float32)
        for row, signal in zip(rows, signals, strict=True):
            readings = signal.array
            if readings.ndim != 2 or len(readings) != self.config.channels or not readings.shape[1]:
                raise HarmoniaError(
                    f"a motion signal must be ({self.config.channels}, time >= 1), not {readings.shape}"
                )
            if not np.isfinite(readings).all():
                raise HarmoniaError("a motion signal has readings that are not finite: fill or drop them")
            now = np.linspace(0, readings.shape[1] - 1, self.config.samples)
            row[:] = [np.interp(now, np.arange(readings.shape[1]), channel) for channel in readings]
        return torch.from_numpy(rows)

    def forward(self, inputs: Tensor) -> Tensor:
        """Codes of readings ``(n, channels, samples)``."""
        check_inputs(inputs, (self.config.channels, self.config.samples), self.modality)
        x = self.embed(inputs.to(self.embed.weight.dtype)).transpose(1, 2)
        code: Tensor = self.head(self.pool(self.transformer(x + self.position)))
        return code
