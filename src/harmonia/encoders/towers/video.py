"""Video towers: frames and sound as tokens of one transformer."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from harmonia.encoders.towers.audio import AudioBackbone, AudioConfig, spectrograms
from harmonia.encoders.towers.base import (
    SIZES,
    ProjectionHead,
    Tower,
    TowerConfig,
    check_inputs,
    check_modality,
    choose,
)
from harmonia.encoders.towers.image import ImageConfig, ImageTower, squashed
from harmonia.layers import Pool, Transformer
from harmonia.layers.pooling import POOLS
from harmonia.types import HarmoniaError, Signal

TEMPORAL_BLOCKS = 2


@dataclass(frozen=True, kw_only=True)
class VideoConfig(TowerConfig):
    """Settings of a video tower for clips of about ``seconds``: ``frames`` evenly spaced frames, and the
    sound if
    ``sound``.

    ``kind``, ``resolution`` and ``patch`` are those of the image tower, ``mels`` that of the spectrogram. A
    tower has the parameters of an image backbone, an audio backbone and two transformer blocks.
    """

    resolution: int = 64
    kind: str = "convnet"
    patch: int = 8
    frames: int = 8
    seconds: float = 5.0
    sound: bool = True
    mels: int = 64
    pool: str = "mean"

    def __post_init__(self) -> None:
        super().__post_init__()
        choose("pool", self.pool, POOLS)
        if self.frames < 1:
            raise HarmoniaError("a video tower needs frames >= 1")
        _ = self.picture, self.hearing  # they check the other settings

    @property
    def picture(self) -> ImageConfig:
        """The configuration of the tower of single frames."""
        return ImageConfig(
            size=self.size,
            dim=SIZES[self.size].width,
            resolution=self.resolution,
            kind=self.kind,
            patch=self.patch,
        )

    @property
    def hearing(self) -> AudioConfig:
        """The configuration of the audio tower, of the kind closest to that of the frames."""
        kind = {"residual": "residual", "vit": "transformer"}.get(self.kind, "convnet")
        return AudioConfig(size=self.size, kind=kind, seconds=self.seconds, mels=self.mels)


class VideoTower(Tower):
    """Tokens by an image tower on every frame and an audio backbone, a transformer, pooling, and a
    projection.

    For videos without sound the sound tokens are masked. ``prepare`` packs frames and sound into one tensor
    of bytes; ``unpack`` and ``pack`` allow augmentation of both.
    """

    modality = "video"

    config: VideoConfig

    def __init__(self, config: VideoConfig) -> None:
        super().__init__()
        self.config = config
        size = SIZES[config.size]
        self.picture = ImageTower(config.picture)
        self.position = nn.Parameter(torch.randn(config.frames, size.width) * 0.02)
        self.hearing = Hearing(config.hearing, size.width) if config.sound else None
        self.transformer = Transformer(size.width, TEMPORAL_BLOCKS, size.heads, config.dropout)
        self.pool = Pool(size.width, config.pool)
        self.head = ProjectionHead(size.width, config)

    def prepare(self, signals: Sequence[Signal]) -> Tensor:
        """Frames, spectrogram and a flag for sound, packed as uint8 ``(n, length)``."""
        check_modality(signals, self.modality)
        config = self.config
        frames = torch.from_numpy(np.stack([self._frames(s) for s in signals])) if signals else None
        if frames is None:
            return torch.empty(0, self.length, dtype=torch.uint8)
        has_sound = torch.zeros(len(signals), dtype=torch.bool)
        mel = torch.zeros(len(signals), config.mels, config.hearing.frames, dtype=torch.float16)
        if config.sound:
            sounds = {i: s.sound for i, s in enumerate(signals) if s.sound is not None and s.sound.array.size}
            has_sound[list(sounds)] = True
            mel[list(sounds)] = spectrograms(list(sounds.values()), config.hearing)
        return self.pack(frames, mel, has_sound)

    def _frames(self, signal: Signal) -> NDArray[np.uint8]:
        shots = signal.array
        if shots.ndim != 4 or not len(shots):
            raise HarmoniaError(f"a video must be (frames >= 1, height, width, 3), not {shots.shape}")
        picks = np.linspace(0, len(shots) - 1, self.config.frames).round().astype(int)
        small = {pick: squashed(shots[pick], self.config.resolution, 3) for pick in set(picks.tolist())}
        return np.stack([small[pick] for pick in picks.tolist()])

    @property
    def length(self) -> int:
        """Bytes of one prepared video."""
        return self._pixels + self._mel_bytes + 1

    @property
    def _pixels(self) -> int:
        return self.config.frames * 3 * self.config.resolution**2

    @property
    def _mel_bytes(self) -> int:
        return 2 * self.config.mels * self.config.hearing.frames if self.config.sound else 0

    def pack(self, frames: Tensor, mel: Tensor, has_sound: Tensor) -> Tensor:
        """Pack the output of ``unpack`` as uint8 ``(n, length)``."""
        sound = mel.half().contiguous().view(torch.uint8).flatten(1)[:, : self._mel_bytes]
        return torch.cat([frames.flatten(1), sound, has_sound[:, None].to(torch.uint8)], dim=1)

    def unpack(self, inputs: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Frames uint8 ``(n, frames, 3, r, r)``, log-mel float16 ``(n, mels, t)``, has_sound bool ``(n,)``.

        For a tower without sound ``t`` is 0.
        """
        check_inputs(inputs, (self.length,), self.modality)
        n, config = len(inputs), self.config
        frames = inputs[:, : self._pixels].reshape(n, config.frames, 3, config.resolution, config.resolution)
        sound = inputs[:, self._pixels : -1].flatten().clone().view(torch.float16)  # aligned by the copy
        return frames, sound.reshape(n, config.mels, self._mel_bytes // (2 * config.mels)), inputs[:, -1] > 0

    def windows(self, signal: Signal) -> list[Signal]:
        """Consecutive spans of about ``seconds`` of a long video, with their sound."""
        times = signal.times
        if times is None:
            times = np.arange(len(signal.array)) / (signal.rate or 25.0)
        if not len(times):
            return [signal]
        start = times[0] if signal.start is None else signal.start
        end = times[-1] if signal.end is None else signal.end
        count = max(1, math.ceil((end - start) / self.config.seconds - 0.1))
        if count == 1:
            return [signal]
        span = (times - start) * count / (end - start)
        pieces = []
        for i in range(count):
            chosen = (span >= i) & ((span < i + 1) | (i == count - 1))
            if chosen.any():
                sound = _slice(signal.sound, i / count, (i + 1) / count)
                pieces.append(replace(signal, data=signal.array[chosen], times=times[chosen], sound=sound))
        return pieces

    def forward(self, inputs: Tensor) -> Tensor:
        """Codes of packed videos, uint8 ``(n, length)``."""
        frames, mel, has_sound = self.unpack(inputs)
        tokens = self.picture(frames.flatten(0, 1)).unflatten(0, frames.shape[:2]) + self.position
        mask = has_sound.new_ones(tokens.shape[:2])
        if self.hearing is not None:
            sound = self.hearing(mel)
            mask = torch.cat([mask, has_sound[:, None].expand(-1, sound.shape[1])], dim=1)
            tokens = torch.cat([tokens, sound], dim=1)
        code: Tensor = self.head(self.pool(self.transformer(tokens, mask), mask))
        return code


class Hearing(nn.Module):
    """Tokens of a spectrogram: backbone, layer norm, linear map, learned positions."""

    def __init__(self, config: AudioConfig, width: int) -> None:
        super().__init__()
        self.backbone = AudioBackbone(config)
        self.norm = nn.LayerNorm(self.backbone.out)
        self.project = nn.Linear(self.backbone.out, width)
        self.position = nn.Parameter(torch.randn(self.backbone.steps, width) * 0.02)

    def forward(self, mel: Tensor) -> Tensor:
        """(n, mels, frames) to (n, steps, width)."""
        out: Tensor = self.project(self.norm(self.backbone(mel))) + self.position
        return out


def _slice(sound: Signal | None, start: float, end: float) -> Signal | None:
    """The part of a sound between two fractions of its length."""
    if sound is None:
        return None
    first, last = (round(f * sound.array.shape[-1]) for f in (start, end))
    return replace(sound, data=sound.array[..., first:last])
