"""A CLIP-style model for measuring text match of generated images; no generator is conditioned on it.

It has CLIP's objective (Radford et al. 2021) and its own seed and architecture: a ConvNeXt-like image tower,
where mini and the image-text recipes have a residual one, and a bag of English words.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import torch
from torch import Tensor, nn

from harmonia.encoders.alignment import Alignment, AlignmentConfig
from harmonia.encoders.towers.base import Tower
from harmonia.encoders.towers.image import ImageConfig, ImageTower
from harmonia.encoders.towers.text_motion import TextConfig, TextTower
from harmonia.encoders.towers.tokenizer import train_tokenizer
from harmonia.metrics import text_match
from harmonia.recipes.generators.judge import emoji_records
from harmonia.recipes.generators.pictures import load_pictures
from harmonia.recipes.generators.run import LICENCES
from harmonia.recipes.run import Run, RunSettings, run_of
from harmonia.training.augment import augment_images
from harmonia.training.record_arrays import Pairs, Views
from harmonia.types import HarmoniaError, Record, Signal

CARD = """# text-judge of {dataset}

Measures whether generated images match their text.

Recipe: `harmonia train text-judge`, {steps} steps of {batch}, seed {seed}; {licence}.

It is trained on the data of the generators only and does not generalise beyond it."""

WINDOW = 64
"""Resolution of the image tower; smaller images are enlarged."""


@dataclass(frozen=True, kw_only=True)
class TextJudgeSettings(RunSettings):
    """Settings of `text_judge`: ``dataset`` is emoji (English names and keywords) or flickr8k (captions);
    ``texts`` are the texts of each image in a batch."""

    dataset: str = "emoji"
    resolution: int = 0
    size: str = "tiny"
    dim: int = 128
    vocabulary: int = 3000
    texts: int = 2
    batch: int = 128
    seed: int = 30_000


SETTINGS = TextJudgeSettings()


def text_judge(data: Path | None = None, settings: TextJudgeSettings = SETTINGS) -> Run:
    """CLIP on the images of the generators, to measure text match."""
    s = settings
    pictures, said = captioned(s, data)
    texts = [text for own in said for text in own]
    tokenizer = train_tokenizer(texts, s.vocabulary)
    torch.manual_seed(s.seed)
    towers: dict[str, Tower] = {
        "image": ImageTower(ImageConfig(size=s.size, dim=s.dim, resolution=WINDOW)),
        "text": TextTower(
            TextConfig(size=s.size, dim=s.dim, vocabulary=s.vocabulary, length=40, blocks=0), tokenizer
        ),
    }
    numbers = torch.tensor([number for number, own in enumerate(said) for _ in own])
    words = towers["text"].prepare([Signal("text", text) for text in texts])
    seen = Views(towers["image"].prepare(as_signals(pictures)), torch.arange(len(pictures)))
    pairs = Pairs(
        {"image": seen, "text": Views(words, numbers)},
        per_record={"image": 1, "text": s.texts},
        augment={"image": partial(augment_images, flip=s.dataset == "flickr8k")},
    )
    model = Alignment(towers, AlignmentConfig(objective="clip"))
    first = words[torch.tensor([0, *torch.tensor([len(own) for own in said]).cumsum(0)[:-1].tolist()])]
    return run_of(
        "text-judge", s, model, pairs, CARD, batch=s.batch,
        evaluate=partial(score, images=seen.inputs, texts=first), monitor="margin",
        facts={"licence": LICENCES[s.dataset]},
    )  # fmt: skip


def captioned(settings: TextJudgeSettings, data: Path | None) -> tuple[Tensor, list[list[str]]]:
    """Images uint8 (n, c, h, w), and for each its English name and keywords, or its captions."""
    s = settings
    if s.dataset not in ("emoji", "flickr8k"):
        raise HarmoniaError(f"{s.dataset} has no texts: choose emoji or flickr8k")
    if s.dataset == "flickr8k":
        photos = load_pictures(s.dataset, "train", resolution=s.resolution or None, data=data, keep=("text",))
        return photos.x, [list(own) for own in photos.texts]
    parts = [
        load_pictures("emoji", split, resolution=s.resolution or None, data=data)
        for split in ("train", "val")
    ]
    said = [english(record) for split in ("train", "val") for record in emoji_records(split, data)]
    return torch.cat([part.x for part in parts]), said


def english(record: Record) -> list[str]:
    """The name of an emoji and, if it has any, its keywords."""
    tags = ", ".join(record.metadata["tags"])
    return [str(record.metadata["name"]), *([tags] if tags else [])]


def as_signals(pictures: Tensor) -> Sequence[Signal]:
    """Images uint8 (n, c, h, w) as RGB signals."""
    rgb = pictures.expand(-1, 3, -1, -1).permute(0, 2, 3, 1).contiguous().numpy()
    return [Signal("image", one) for one in rgb]


def score(model: nn.Module, images: Tensor, texts: Tensor) -> dict[str, float]:
    """Text match of images with their first text and with the text of another image, and the difference."""
    assert isinstance(model, Alignment)
    x, y = model.codes("image", images), model.codes("text", texts)
    own, other = float(text_match(x, y).mean()), float(text_match(x, y.roll(1, 0)).mean())
    return {"text match": own, "of another": other, "margin": own - other}
