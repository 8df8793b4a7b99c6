"""Augmentation of prepared inputs: half-covered images, noisy sounds, videos made of both.

Everything draws from the generator it is given, so that a batch is a pure function of its seed.
"""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor

from harmonia.training.augment import augment_images, mask_spectrograms

# Decades of power that a log-mel spectrogram in [-1, 1] spans on either side of 0.
DECADES = 4.0
SHARE = 1 / 8
"""Share of covered images, and of noisy ones; more keeps a small tower from learning."""


def vary_pictures(images: Tensor, generator: torch.Generator) -> Tensor:
    """Images uint8 (n, c, h, w) with geometric and colour augmentation; a few are half covered, a few
    noisy."""
    return noisy_pictures(cover_half(augment_images(images, generator), generator), generator)


def vary_digits(images: Tensor, generator: torch.Generator) -> Tensor:
    """Written digits uint8 (n, c, h, w), half of them inverted, augmented as ``vary_pictures``."""
    dark = torch.rand(len(images), generator=generator) < 0.5
    return vary_pictures(torch.where(dark[:, None, None, None], 255 - images, images), generator)


def vary_sounds(mels: Tensor, generator: torch.Generator) -> Tensor:
    """Log-mel spectrograms (n, mels, t) shifted in time; half of them in noise, a half with gaps."""
    n, _, length = mels.shape
    shift = torch.randint(length, (n, 1), generator=generator)
    place = (torch.arange(length) + shift) % length
    moved = mels.gather(2, place[:, None].expand_as(mels))
    loud = in_noise(moved, 3.0 * torch.rand(n, generator=generator) + 0.5, generator)
    moved = _half(loud, moved, generator)
    return _half(mask_spectrograms(moved, generator), moved, generator)


def vary_words(ids: Tensor, generator: torch.Generator) -> Tensor:
    """Token ids (n, t) that begin with [CLS]; of half of the texts a third of the tokens becomes padding.

    For towers that pool over tokens without positions, where a hole is no harm. The first token after
    [CLS] stays.
    """
    drop = torch.rand(ids.shape, generator=generator) < 1 / 3
    drop[:, :2] = False
    return _half(ids.masked_fill(drop, 0), ids, generator)


def in_noise(mels: Tensor, decades: Tensor, generator: torch.Generator) -> Tensor:
    """Log-mel spectrograms (n, mels, t) with noise added, (n,) ``decades`` of power below the loudest point.

    The power of the noise is exponentially distributed, as that of Gaussian noise is, and rises or falls
    over frequency at random.
    """
    n, bands, length = mels.shape
    tilt = (torch.rand(n, 1, generator=generator) * 2 - 1) * torch.linspace(-0.5, 0.5, bands)
    level = 10 ** (tilt - decades[:, None])
    drawn = -torch.rand(n, bands, length, generator=generator).clamp_min(1e-6).log()
    power = 10 ** ((mels.float() - 1) * DECADES) + level[:, :, None] * drawn
    power = power / power.amax(dim=(1, 2), keepdim=True)
    return ((power.log10() / DECADES).clamp_min(-2.0) + 1).to(mels.dtype)


def cover_half(images: Tensor, generator: torch.Generator) -> Tensor:
    """Of one in eight of the pictures (n, c, h, w) one half, drawn at random, is black, grey or white."""
    n, _, height, width = images.shape
    side = torch.randint(4, (n,), generator=generator)[:, None, None, None]
    tone = torch.tensor([0, 128, 255], dtype=images.dtype)[torch.randint(3, (n,), generator=generator)]
    lucky = torch.rand(n, generator=generator)[:, None, None, None] < SHARE
    down = torch.arange(height)[:, None].expand(height, width) < height // 2
    across = torch.arange(width).expand(height, width) < width // 2
    halves = torch.stack([down, ~down, across, ~across])[side[:, 0, 0, 0]][:, None]
    return torch.where(halves & lucky, tone[:, None, None, None], images)


def noisy_pictures(images: Tensor, generator: torch.Generator) -> Tensor:
    """One in eight of the pictures uint8 (n, c, h, w) in Gaussian noise, of variance up to 0.3 on [0, 1]."""
    n = len(images)
    variance = 0.3 * torch.rand(n, generator=generator)
    lucky = torch.rand(n, generator=generator) < SHARE
    scale = 255 * torch.where(lucky, variance, 0.0).sqrt()[:, None, None, None]
    noise = torch.randn(images.shape, generator=generator)
    return (images + scale * noise).round_().clamp_(0, 255).to(torch.uint8)


def synthetic_videos(images: Tensor, frames: int, side: int, generator: torch.Generator) -> Tensor:
    """Videos uint8 (n, frames, c, side, side) of images uint8 (n, c, h, w) that move, rotate and zoom."""
    n, channels = images.shape[:2]

    def path(low: float, high: float) -> Tensor:
        ends = torch.rand(n, 2, 1, generator=generator) * (high - low) + low
        return torch.lerp(ends[:, 0], ends[:, 1], torch.linspace(0, 1, frames)).flatten()

    zoom, angle = path(math.log(0.7), math.log(1.5)).exp(), path(-0.2, 0.2)
    x, y = path(-0.3, 0.3), path(-0.3, 0.3)
    rows = [zoom * angle.cos(), -zoom * angle.sin(), x, zoom * angle.sin(), zoom * angle.cos(), y]
    grid = F.affine_grid(
        torch.stack(rows, 1).view(-1, 2, 3), [n * frames, channels, side, side], align_corners=False
    )
    many = images.float().repeat_interleave(frames, dim=0)
    shots = F.grid_sample(many, grid, padding_mode="border", align_corners=False)
    return shots.round_().to(torch.uint8).view(n, frames, channels, side, side)


def _half(changed: Tensor, same: Tensor, generator: torch.Generator) -> Tensor:
    """Half of the rows changed, at random."""
    lucky = torch.rand(len(same), generator=generator) < 0.5
    return torch.where(lucky.view(-1, *(1,) * (same.dim() - 1)), changed, same)
