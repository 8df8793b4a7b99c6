"""Augmentation of images, sounds, spectrograms and texts.

Every function draws from the given ``torch.Generator`` only, so that a batch is a pure function of its seed,
and leaves the global random states unchanged.
"""

from __future__ import annotations

import math
import random
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import cache
from typing import Any, Literal

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from harmonia.types import HarmoniaError

Strength = Literal["light", "strong"]

_LUMA = (0.299, 0.587, 0.114)  # grey of RGB, ITU-R BT.601


def augment_images(
    images: Tensor, generator: torch.Generator, strength: Strength = "light", *, flip: bool = False
) -> Tensor:
    """Augment images, keeping shape, dtype and device.

    ``images``: ``(n, c, height, width)``, c = 3 (RGB) or 1, uint8 or floating in [0, 1]. ``flip``
    mirrors half of them: good for photos, wrong for digits, writing, and captions that say "left".

    * ``light``: a crop of 60 to 100 % of the area with a slightly changed aspect, a rotation of up to 8
      degrees, brightness, contrast and saturation changed by up to a fifth. One resampling and one
      matrix product, in plain torch: 128 pictures of 64x64 take about 20 ms on one core.
    * ``strong``: by kornia: a crop of 30 to 100 %, a rotation of up to 15 degrees, stronger colour
      changes with hue, blur, an erased rectangle. Several times slower.

    Raises HarmoniaError for another shape, and for ``strong`` where kornia is missing.
    """
    if images.ndim != 4 or images.shape[1] not in (1, 3):
        shape = tuple(images.shape)
        raise HarmoniaError(f"augment_images needs (n, 3, height, width) or one channel, got {shape}")
    if not len(images):
        return images
    white = 1.0 if images.is_floating_point() else 255.0
    pixels = images.float().expand(-1, 3, -1, -1)
    if _checked(strength) == "light":
        view = _recolour(_move(pixels, generator, flip), generator)
    else:
        with _seeded_globals(generator):
            view = _kornia(images.shape[2], images.shape[3], flip)(pixels / white) * white
    view = view[:, : images.shape[1]].clamp_(0, white)
    return (view if white == 1.0 else view.round_()).to(images.dtype)


def _checked(strength: str) -> str:
    if strength not in ("light", "strong"):
        raise HarmoniaError(f"there is no augmentation {strength!r}: choose light or strong")
    return strength


def _uniform(n: int, low: float, high: float, generator: torch.Generator) -> Tensor:
    return torch.rand(n, generator=generator) * (high - low) + low


def _move(pixels: Tensor, generator: torch.Generator, flip: bool) -> Tensor:
    """Crop, rotate and mirror in one bilinear resampling; what lies outside is mirrored in."""
    n, _, height, width = pixels.shape
    area = _uniform(n, 0.6, 1.0, generator)
    aspect = _uniform(n, math.log(0.8), math.log(1.25), generator).exp()
    wide, high = (area * aspect).sqrt().clamp(max=1), (area / aspect).sqrt().clamp(max=1)
    centre_x = (1 - wide) * _uniform(n, -1, 1, generator)
    centre_y = (1 - high) * _uniform(n, -1, 1, generator)
    angle = _uniform(n, -1, 1, generator) * math.radians(8)
    if flip:
        wide = wide * (torch.randint(2, (n,), generator=generator) * 2 - 1)
    cos, sin = angle.cos(), angle.sin()
    # the grid of F.affine_grid as a sum over columns and rows, a third of its time; coordinates are in
    # [-1, 1], so the aspect of the picture keeps the rotation rigid
    along_x = torch.stack([cos * wide, sin * wide * width / height], 1)[:, None] * _centres(width)
    along_y = torch.stack([-sin * high * height / width, cos * high], 1)[:, None] * _centres(height)
    along_y = along_y + torch.stack([centre_x, centre_y], 1)[:, None]
    grid = (along_x[:, None] + along_y[:, :, None]).to(pixels.device)
    return F.grid_sample(pixels, grid, padding_mode="reflection", align_corners=False)


def _centres(size: int) -> Tensor:
    """Where the centres of ``size`` pixels lie in [-1, 1], ``(size, 1)``."""
    return ((torch.arange(size) * 2 + 1) / size - 1)[:, None]


def _recolour(pixels: Tensor, generator: torch.Generator) -> Tensor:
    """Brightness, contrast and saturation at once: a 3x3 matrix and an offset for every picture."""
    n = len(pixels)
    brightness, contrast, saturation = (
        _uniform(n, 0.8, 1.2, generator).to(pixels.device)[:, None, None] for _ in range(3)
    )
    luma = torch.tensor(_LUMA, device=pixels.device)
    grey = luma.expand(3, 3)
    matrix = brightness * contrast * (grey + saturation * (torch.eye(3, device=pixels.device) - grey))
    flat = pixels.flatten(2)
    mean = (flat.mean(2) @ luma)[:, None, None]
    offset = (brightness * (1 - contrast) * mean).expand(n, 3, 1)
    return torch.baddbmm(offset, matrix, flat).view_as(pixels)


@cache
def _kornia(height: int, width: int, flip: bool) -> Callable[[Tensor], Tensor]:
    try:
        import kornia.augmentation as K
    except ModuleNotFoundError as error:
        raise _missing("kornia") from error
    steps = [
        K.RandomResizedCrop((height, width), scale=(0.3, 1.0), cropping_mode="resample"),
        K.RandomRotation(15.0, p=0.5),
        K.ColorJitter(0.4, 0.4, 0.4, 0.1, p=0.8),
        K.RandomGaussianBlur((3, 3), (0.1, 2.0), p=0.3),
        K.RandomErasing((0.02, 0.2), p=0.3),
    ]
    if flip:
        steps.append(K.RandomHorizontalFlip())
    sequence: Callable[[Tensor], Tensor] = torch.nn.Sequential(*steps)
    return sequence


def augment_waves(
    waves: Tensor, generator: torch.Generator, rate: int, strength: Strength = "light"
) -> Tensor:
    """Augment waveforms by audiomentations, keeping shape and dtype.

    ``waves``: floating ``(n, samples)`` or ``(n, channels, samples)`` in [-1, 1] on the CPU, ``rate``
    samples per second.

    * ``light``: gain of -12 to +3 dB, a circular shift in time by up to a fifth,
      white noise at 10 to 40 dB below the sound, polarity.
    * ``strong``: the same with noise from 3 dB, and a pitch up to two semitones off in a third of the
      clips, which costs about 3 ms for each second of those.
    """
    with _seeded_globals(generator):
        compose = _audiomentations(_checked(strength))
        rows = [compose(np.ascontiguousarray(wave), sample_rate=rate) for wave in waves.float().numpy()]
    if not rows:
        return waves
    return torch.from_numpy(np.stack(rows)).clamp_(-1, 1).to(waves.dtype)


@cache
def _audiomentations(strength: str) -> Any:
    try:
        import audiomentations as A
    except ModuleNotFoundError as error:
        raise _missing("audiomentations") from error
    strong = strength == "strong"
    steps = [
        A.Shift(-0.2, 0.2, p=0.5),
        A.AddGaussianSNR(3.0 if strong else 10.0, 40.0, p=0.5),
        A.Gain(-12.0, 3.0, p=0.5),
        A.PolarityInversion(p=0.5),
    ]
    return A.Compose([A.PitchShift(-2.0, 2.0, p=1 / 3), *steps] if strong else steps)


def mask_spectrograms(
    mels: Tensor,
    generator: torch.Generator,
    *,
    frequency: tuple[int, float] = (1, 0.2),
    time: tuple[int, float] = (2, 0.15),
) -> Tensor:
    """SpecAugment's masks: random bands of frequency and of time are set to the clip's mean.

    ``mels``: log-mel energies, floating ``(n, mels, frames)``. ``frequency`` and ``time`` are (number
    of masks, longest mask as a share of the axis); a mask's width is uniform from 0 to that. The result
    is a new tensor of the same shape and dtype.

    Park et al., "SpecAugment: A Simple Data Augmentation Method for Automatic Speech Recognition"
    (2019), without the time warping, which they found to matter least.
    """
    n, bands, frames = mels.shape
    masked = _stripes(n, bands, *frequency, generator)[:, :, None]
    masked = (masked | _stripes(n, frames, *time, generator)[:, None, :]).to(mels.device)
    mean = mels.float().mean((1, 2), keepdim=True).to(mels.dtype)
    return torch.where(masked, mean, mels)


def _stripes(n: int, length: int, count: int, share: float, generator: torch.Generator) -> Tensor:
    """True where one of ``count`` random intervals lies, ``(n, length)``."""
    width = torch.rand(n, count, 1, generator=generator) * (share * length + 1)
    width = width.floor().clamp(max=length)
    start = (torch.rand(n, count, 1, generator=generator) * (length - width + 1)).floor()
    place = torch.arange(length)
    return ((place >= start) & (place < start + width)).any(1)


def drop_words(texts: Sequence[str], generator: torch.Generator, rate: float = 0.1) -> list[str]:
    """Drop every word with probability ``rate``; at least one word of a text stays.

    Words are what white space separates: a text in Chinese or Japanese stays whole.
    """
    kept = []
    for text in texts:
        words = text.split()
        draws = torch.rand(len(words), generator=generator).tolist()
        left = [word for word, draw in zip(words, draws, strict=True) if draw >= rate]
        if not left and words:
            left = [words[draws.index(max(draws))]]
        kept.append(" ".join(left) if len(left) < len(words) else text)
    return kept


def choose_captions(counts: Tensor, generator: torch.Generator) -> Tensor:
    """One caption of every record: for ``counts`` ``(n,)`` of captions, a LongTensor ``(n,)`` of which.

    Example: with the captions of all records in one list, and ``first`` where each one's begin,
    ``rows = first[batch] + choose_captions(counts[batch], generator)``.
    """
    if bool((counts < 1).any()):
        raise HarmoniaError(
            "choose_captions needs at least one caption for every record; leave out the others"
        )
    draws = torch.rand(len(counts), dtype=torch.float64, generator=generator)
    return (draws * counts.cpu()).long()


@contextmanager
def _seeded_globals(generator: torch.Generator) -> Iterator[None]:
    """Seed the global generators of torch, NumPy and Python from ours; put their states back after."""
    seed = int(torch.randint(2**32, (), generator=generator))
    python, numpy = random.getstate(), np.random.get_state()
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        random.seed(seed)
        np.random.seed(seed)
        try:
            yield
        finally:
            random.setstate(python)
            np.random.set_state(numpy)


def _missing(package: str) -> HarmoniaError:
    return HarmoniaError(f"this augmentation needs the package {package}: pip install 'harmonia[train]'")
