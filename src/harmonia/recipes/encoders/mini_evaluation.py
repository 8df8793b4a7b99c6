"""Evaluation of the shipped model on held-out names, digits, sounds and videos.

Every figure is the share of queries whose nearest code is right ("@10": one of the ten nearest).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import nn

from harmonia.encoders.alignment import Alignment
from harmonia.encoders.towers.base import Tower
from harmonia.encoders.towers.video import VideoTower
from harmonia.recipes.encoders import trimodal
from harmonia.recipes.encoders.trimodal import hit_rate, means
from harmonia.training.record_arrays import Views
from harmonia.training.views import in_noise, synthetic_videos
from harmonia.types import Signal

SEED = 0
VARIANCE = 0.3
"""Variance of the noise on images, on the scale [0, 1]."""
DECIBELS = 10.0
"""Level of the noise below the loudest point of a sound."""


@dataclass(frozen=True, slots=True, eq=False)
class HeldOut:
    """Prepared test data: images of emoji (an emoji is a record), their held-out and their English names, and
    held-out digits and sounds."""

    pictures: Views
    names: Views
    english: Views
    digits: dict[str, Views]
    sounds: dict[str, Views]


def hold(
    data: Path | None,
    towers: Mapping[str, Tower],
    pictures: Views,
    names: list[tuple[str, int]],
    english: list[tuple[str, int]],
) -> HeldOut:
    """Prepare the test data; names are (text, record of the image)."""
    digits = trimodal.prepare(trimodal.digit_signals(data, dev=True), towers)
    sounds = trimodal.prepare(trimodal.sound_signals(data, dev=True, free=True), towers)
    video = towers["video"]
    assert isinstance(video, VideoTower)
    return HeldOut(
        pictures,
        _said(names, towers["text"]),
        _said(english, towers["text"]),
        digits | {"video": filmed(digits, video)},
        sounds | {"video": filmed(sounds, video)},
    )


def score(model: nn.Module, held: HeldOut) -> dict[str, float]:
    """All figures; "mean" is the mean of the cross-modal ones."""
    assert isinstance(model, Alignment)

    def codes(name: str, view: Views) -> Views:
        return Views(model.codes(name, view.inputs), view.record)

    draws = torch.Generator().manual_seed(SEED)
    pictures, names = codes("image", held.pictures), codes("text", held.names)
    half, noisy = held.pictures.inputs.clone(), held.pictures.inputs
    half[..., half.shape[-1] // 2 :] = 0
    noise = torch.randn(noisy.shape, generator=draws) * 255 * VARIANCE**0.5
    noisy = (noisy + noise).clamp(0, 255).to(torch.uint8)
    digits = {name: codes(name, view) for name, view in held.digits.items()}
    sounds = {name: codes(name, view) for name, view in held.sounds.items()}
    clips = held.sounds["audio"].inputs
    bad = in_noise(clips, torch.full((len(clips),), DECIBELS / 10), draws)
    each = torch.arange(len(clips))
    across = {
        "emoji: unseen name to picture": hit_rate(names, pictures),
        "emoji: unseen name to picture @10": hit_rate(names, pictures, 10),
        "emoji: picture to unseen name": hit_rate(pictures, names),
        "digits: picture to words": hit_rate(digits["image"], means(digits["text"])),
        "digits: spoken to words": hit_rate(digits["audio"], means(digits["text"])),
        "digits: word to picture": hit_rate(digits["text"], digits["image"]),
        "digits: word to spoken": hit_rate(digits["text"], digits["audio"]),
        "digits: spoken to picture": hit_rate(digits["audio"], digits["image"]),
        "digits: picture to spoken": hit_rate(digits["image"], digits["audio"]),
        "digits: film to words": hit_rate(digits["video"], means(digits["text"])),
        "sounds: clip to words": hit_rate(sounds["audio"], means(sounds["text"])),
        "sounds: name to clip": hit_rate(sounds["text"], sounds["audio"]),
        "sounds: clip to emoji": hit_rate(sounds["audio"], sounds["image"]),
        "sounds: film to words": hit_rate(sounds["video"], means(sounds["text"])),
    }
    same = {
        "emoji: unseen name to English name": hit_rate(names, codes("text", held.english)),
        "emoji: half picture to picture": hit_rate(codes("image", Views(half, pictures.record)), pictures),
        "emoji: noisy picture to picture": hit_rate(codes("image", Views(noisy, pictures.record)), pictures),
        "sounds: noisy clip to clip": hit_rate(
            codes("audio", Views(bad, each)), Views(sounds["audio"].inputs, each)
        ),
    }
    return across | same | {"mean": sum(across.values()) / len(across)}


def filmed(parts: Mapping[str, Views], tower: VideoTower) -> Views:
    """A video of every sound, with an image of the same record."""
    draws = torch.Generator().manual_seed(SEED)
    config, records = tower.config, parts["audio"].record
    shown = [(parts["image"].record == record).nonzero()[:, 0] for record in records]
    rows = torch.stack([some[i % len(some)] for i, some in enumerate(shown)])
    shots = synthetic_videos(parts["image"].inputs[rows], config.frames, config.resolution, draws)
    return Views(tower.pack(shots, parts["audio"].inputs, torch.ones(len(records)).bool()), records)


def _said(names: list[tuple[str, int]], tower: Tower) -> Views:
    texts = [Signal("text", name) for name, _ in names]
    return Views(tower.prepare(texts), torch.tensor([record for _, record in names]))
