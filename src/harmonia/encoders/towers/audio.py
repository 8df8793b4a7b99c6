"""Audio towers: a log-mel spectrogram and a network on it."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cache

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional as F

from harmonia.encoders.towers.base import (
    SIZES,
    ProjectionHead,
    Tower,
    TowerConfig,
    check_inputs,
    check_modality,
    choose,
)
from harmonia.layers import ConvNet, Pool, ResidualNet, Transformer
from harmonia.layers.pooling import POOLS
from harmonia.modalities.audio import mono
from harmonia.types import HarmoniaError, Signal

RATE = 16000
WINDOW, HOP, FFT = 400, 160, 512  # 25 ms every 10 ms
LOWEST, HIGHEST = 50.0, 8000.0
MOST_MELS = 80  # with more, some filters have no bin of the spectrum
RANGE = 8.0  # decades of power, 80 dB, kept below the loudest point
QUIET = 1e-4  # power of a tone at -80 dB of full scale, the lower bound of the loudest point
KINDS = ("convnet", "residual", "transformer", "vggish")
CHUNK = 64


@dataclass(frozen=True, kw_only=True)
class AudioConfig(TowerConfig):
    """Settings of an audio tower for ``seconds`` of sound: shorter sounds are repeated, longer ones cropped
    to the middle.

    ``kind``: "convnet" (ConvNeXt-like), "residual" (with batch norm; fastest on a CPU), "transformer" (one
    token for 40 ms), "vggish" (the convolutions of VGGish, Hershey et al. 2017, with instance norm; size
    "large" has its widths, 4.5 million parameters).
    """

    seconds: float = 5.0
    mels: int = 64
    kind: str = "convnet"
    pool: str = "mean+max"

    def __post_init__(self) -> None:
        super().__post_init__()
        choose("kind", self.kind, KINDS)
        choose("pool", self.pool, POOLS)
        if not 0.2 <= self.seconds <= 600 or not 16 <= self.mels <= MOST_MELS:
            raise HarmoniaError(f"an audio tower needs 0.2 to 600 seconds and 16 to {MOST_MELS} mels")

    @property
    def frames(self) -> int:
        """Columns of the spectrogram, 100 for each second."""
        return round(self.seconds * RATE / HOP)


class AudioTower(Tower):
    """Log-mel spectrogram, a backbone, pooling over time, and a projection."""

    modality = "audio"

    config: AudioConfig

    def __init__(self, config: AudioConfig) -> None:
        super().__init__()
        self.config = config
        self.backbone = AudioBackbone(config)
        self.pool = Pool(self.backbone.out, config.pool)
        self.head = ProjectionHead(self.backbone.out, config)

    def prepare(self, signals: Sequence[Signal]) -> Tensor:
        """Log-mel spectrograms in [-1, 1], float16 ``(n, mels, frames)``."""
        check_modality(signals, self.modality)
        return spectrograms(signals, self.config)

    def windows(self, signal: Signal) -> list[Signal]:
        """Evenly spaced windows of ``seconds`` that cover a long sound."""
        return cut(signal, self.config.seconds)

    def forward(self, inputs: Tensor) -> Tensor:
        """Codes of log-mel spectrograms ``(n, mels, t)``; any ``t >= 16``, except for a transformer."""
        frames = self.config.frames if self.config.kind == "transformer" else -1
        check_inputs(inputs, (self.config.mels, frames), self.modality)
        code: Tensor = self.head(self.pool(self.backbone(inputs)))
        return code


class AudioBackbone(nn.Module):
    """Log-mel (n, mels, frames) to features over time (n, steps, out).

    Every channel has learned weights over frequency; a mean would lose the pitch.
    """

    def __init__(self, config: AudioConfig) -> None:
        super().__init__()
        size = SIZES[config.size]
        self.net: ConvNet | ResidualNet | VGGish | TimeTransformer
        if config.kind == "convnet":
            self.net = ConvNet(1, size.widths, size.depths)
        elif config.kind == "residual":
            self.net = ResidualNet(1, size.widths)
        elif config.kind == "vggish":
            self.net = VGGish(size.widths[0] // 2)
        else:
            self.net = TimeTransformer(config)
        self.out = self.net.out
        rows, self.steps = self.net.shape(config.mels, config.frames)
        self.weight = nn.Parameter(torch.full((self.out, rows), 1 / rows))

    def forward(self, mel: Tensor) -> Tensor:
        """The weighted sum of the network's features over frequency."""
        x = mel.to(next(self.parameters()).dtype)[:, None]
        return torch.einsum("ncft,cf->ntc", self.net(x), self.weight)


class VGGish(nn.Module):
    """Six 3x3 convolutions of widths w, 2w, 4w, 4w, 8w, 8w with four poolings."""

    def __init__(self, width: int) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        before = 1
        for widths in ((width,), (2 * width,), (4 * width, 4 * width), (8 * width, 8 * width)):
            for after in widths:
                layers += [nn.Conv2d(before, after, 3, padding=1), nn.GroupNorm(after, after), nn.ReLU()]
                before = after
            layers.append(nn.MaxPool2d(2))
        self.layers = nn.Sequential(*layers)
        self.out = before

    def shape(self, height: int, width: int) -> tuple[int, int]:
        """Height and width of the features of a spectrogram of this size."""
        return height // 16, width // 16

    def forward(self, x: Tensor) -> Tensor:
        """(n, 1, mels, t) to (n, out, mels / 16, t / 16)."""
        out: Tensor = self.layers(x.contiguous(memory_format=torch.channels_last))
        return out


class TimeTransformer(nn.Module):
    """Tokens of 4 frames by a convolution over time, learned positions, a transformer."""

    def __init__(self, config: AudioConfig) -> None:
        super().__init__()
        size = SIZES[config.size]
        self.embed = nn.Conv1d(config.mels, size.width, 4, stride=4)
        self.position = nn.Parameter(torch.randn(config.frames // 4, size.width) * 0.02)
        self.transformer = Transformer(size.width, size.blocks, size.heads, config.dropout)
        self.out = size.width

    def shape(self, height: int, width: int) -> tuple[int, int]:
        """Height and width of the features of a spectrogram of this size."""
        return 1, width // 4

    def forward(self, x: Tensor) -> Tensor:
        """(n, 1, mels, frames) to (n, out, 1, frames / 4)."""
        tokens = self.embed(x[:, 0]).transpose(1, 2) + self.position
        out: Tensor = self.transformer(tokens).transpose(1, 2)[:, :, None]
        return out


def spectrograms(signals: Sequence[Signal], config: AudioConfig) -> Tensor:
    """Log-mel spectrograms of the middle ``seconds`` of sounds, float16 ``(n, mels, frames)``."""
    out = torch.empty(len(signals), config.mels, config.frames, dtype=torch.float16)
    for i in range(0, len(signals), CHUNK):
        waves = np.stack([_fitted(mono(s, RATE), config.frames * HOP) for s in signals[i : i + CHUNK]])
        out[i : i + CHUNK] = log_mel(torch.from_numpy(waves), config.mels)
    return out


def log_mel(waves: Tensor, mels: int) -> Tensor:
    """Log-mel spectrograms of waves ``(n, samples)`` at 16 kHz, float32 ``(n, mels, samples // 160)``.

    Hann windows of 25 ms every 10 ms, centred, zero-padded. Levels of 0 to 80 dB below the loudest point are
    mapped to [1, -1], which makes them independent of loudness; sounds below -80 dB of full scale approach
    -1.
    """
    window = torch.hann_window(WINDOW)
    spectrum = torch.stft(
        waves, FFT, HOP, WINDOW, window, center=True, pad_mode="constant", return_complex=True
    )
    power = mel_filterbank(mels) @ spectrum[..., :-1].abs().square()
    peak = power.amax(dim=(1, 2), keepdim=True).clamp_min(QUIET)
    level = (power / peak).clamp_min(10**-RANGE).log10()
    return level / (RANGE / 2) + 1


@cache
def mel_filterbank(mels: int) -> Tensor:
    """Triangular filters of peak 1, evenly spaced in HTK's mel = 2595 log10(1 + hz / 700), ``(mels,
    bins)``."""
    low, high = (2595 * math.log10(1 + hz / 700) for hz in (LOWEST, HIGHEST))
    edges = 700 * (10 ** (torch.linspace(low, high, mels + 2, dtype=torch.float64) / 2595) - 1)
    hz = torch.linspace(0, RATE / 2, FFT // 2 + 1, dtype=torch.float64)
    rise = (hz - edges[:-2, None]) / (edges[1:-1] - edges[:-2])[:, None]
    fall = (edges[2:, None] - hz) / (edges[2:] - edges[1:-1])[:, None]
    return F.relu(torch.minimum(rise, fall)).float()


def cut(signal: Signal, seconds: float) -> list[Signal]:
    """Evenly spaced windows of ``seconds`` that cover a sound, up to a tenth of one; at least one."""
    samples = signal.array
    if samples.ndim != 2 or signal.rate is None or not signal.rate > 0:
        return [signal]  # prepare reports the error
    width = max(1, round(seconds * signal.rate))
    count = max(1, math.ceil(samples.shape[1] / width - 0.1))
    if count == 1:
        return [signal]
    starts = np.linspace(0, samples.shape[1] - width, count).round().astype(int)
    return [replace(signal, data=samples[:, start : start + width]) for start in starts]


def _fitted(wave: NDArray[np.float32], length: int) -> NDArray[np.float32]:
    """The middle of a long wave, a short one repeated; zeros for an empty one."""
    if not len(wave):
        return np.zeros(length, dtype=np.float32)
    start = max(0, (len(wave) - length) // 2)
    return np.resize(wave[start : start + length], length)
