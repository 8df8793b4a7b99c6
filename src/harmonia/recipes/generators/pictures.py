"""Images with conditions for training generators: MNIST, Noto emoji, Flickr8k."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import TypeVar

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from harmonia.data.records import signal_of
from harmonia.datasets.registry import reader
from harmonia.generators import Batch, Condition, spell
from harmonia.types import HarmoniaError, Record

DIGIT_WORDS = {
    "en": "zero one two three four five six seven eight nine",
    "de": "null eins zwei drei vier fünf sechs sieben acht neun",
    "fr": "zéro un deux trois quatre cinq six sept huit neuf",
    "es": "cero uno dos tres cuatro cinco seis siete ocho nueve",
    "zh": "零 一 二 三 四 五 六 七 八 九",
}
"""Words for the classes of MNIST, in the order of the classes."""
HELD = 10
"""One in this many images is held out, for data without a published split."""


@dataclass(frozen=True, slots=True, eq=False)
class Pictures:
    """A dataset for ``fit``: uint8 images ``x`` (n, c, h, w) and their conditions.

    ``label``     int64 (n,) or None
    ``texts``     of each image; a batch takes a random one
    ``labels``    words for each class
    ``codes``     (n, k, d); a batch takes one of the k at random
    ``features``  (n, t, w)
    ``keep``      kinds of condition in a batch: "label", "text", "code", "features"
    ``length``    of a text in bytes
    ``flip``      mirror half of the images
    """

    x: Tensor
    label: Tensor | None = None
    texts: tuple[tuple[str, ...], ...] = ()
    labels: tuple[tuple[str, ...], ...] = ()
    codes: Tensor | None = None
    features: Tensor | None = None
    keep: tuple[str, ...] = ("label",)
    length: int = 32
    flip: bool = False
    spelled: dict[str, Tensor] = field(default_factory=dict)

    def __len__(self) -> int:
        return len(self.x)

    @property
    def shape(self) -> tuple[int, int, int]:
        """Channels, height and width."""
        _, c, h, w = self.x.shape
        return c, h, w

    def batch(self, indices: Tensor, generator: torch.Generator) -> Batch:
        """Images in [-1, 1] and their conditions."""
        x = self.x[indices].float() / 127.5 - 1
        if self.flip:
            turn = torch.rand(len(x), generator=generator) < 0.5
            x = torch.where(turn[:, None, None, None], x.flip(3), x)
        return Batch(x, self.condition(indices, generator))

    def condition(self, indices: Tensor, generator: torch.Generator | None = None) -> Condition:
        """The conditions of images, with a random one of several texts or codes."""
        n, kinds = len(indices), dict[str, Tensor]()
        if "label" in self.keep and self.label is not None:
            kinds["label"] = self.label[indices]
        if "text" in self.keep and self.texts:
            chosen = [self.texts[i] for i in indices.tolist()]
            pick = torch.rand(n, generator=generator).tolist()
            kinds["text"] = spell(
                [t[int(p * len(t))] for t, p in zip(chosen, pick, strict=True)], self.length
            )
        if "code" in self.keep and self.codes is not None:
            k = torch.randint(self.codes.shape[1], (n,), generator=generator)
            kinds["code"] = self.codes[indices, k]
        if "features" in self.keep and self.features is not None:
            kinds["features"] = self.features[indices]
        return Condition(n, **kinds)


def load_pictures(
    dataset: str = "mnist",
    split: str = "train",
    *,
    resolution: int | None = None,
    data: Path | None = None,
    keep: tuple[str, ...] = ("label",),
    languages: tuple[str, ...] = (),
) -> Pictures:
    """The images of a split ("train" or "val"), by default mnist at 28, emoji at 32, flickr8k at 64 pixels.

    MNIST has labels and words for them in five languages; emoji have their names in all languages as texts;
    flickr8k has captions. One in ten images of MNIST and emoji is held out. ``languages`` are those of the
    texts, such as "en"; none for all. HarmoniaError for an unknown dataset or language, or if the data is
    missing.
    """
    if dataset not in DEFAULT_RESOLUTION:
        raise HarmoniaError(
            f"there are no images of {dataset!r}: choose from {', '.join(DEFAULT_RESOLUTION)}"
        )
    x, label, texts = _loaded(dataset, split, resolution or DEFAULT_RESOLUTION[dataset], data, languages)
    labels: tuple[tuple[str, ...], ...] = ()
    if dataset == "mnist":
        labels = tuple(zip(*(words.split() for words in DIGIT_WORDS.values()), strict=True))
    return Pictures(x, label, texts, labels, keep=keep, flip=dataset == "flickr8k",
                    length=32 if dataset == "mnist" else 64)  # fmt: skip


Item = TypeVar("Item")


def part_of(items: Sequence[Item], split: str) -> list[Item]:
    """A split of data without a published one: every tenth item for "val", the others for "train"."""
    return [one for i, one in enumerate(items) if (i % HELD == HELD - 1) == (split == "val")]


DEFAULT_RESOLUTION = {"mnist": 28, "emoji": 32, "flickr8k": 64}


@cache
def _loaded(
    dataset: str, split: str, resolution: int, data: Path | None, languages: tuple[str, ...]
) -> tuple[Tensor, Tensor | None, tuple[tuple[str, ...], ...]]:
    published = dataset == "flickr8k"
    # for the others, texts are selected later, so that the split does not depend on the languages
    spoken = {"languages": languages} if published and languages else {}
    found = reader(dataset)(data, split=split if published else "all", **spoken)
    records = [r for r in found if isinstance(r, Record)]
    if not published:
        records = part_of(records, split)
    if not records:
        raise HarmoniaError(f"{dataset} has no images in the split {split!r}: choose train or val")
    pixels = np.stack([_pixels(r, resolution, dataset == "mnist") for r in records])
    x = torch.from_numpy(pixels).permute(0, 3, 1, 2).contiguous()
    if dataset == "mnist":
        label = torch.tensor([int(r.metadata["label"]) for r in records])
        words = [w.split() for own, w in DIGIT_WORDS.items() if own in languages or not languages]
        texts = tuple(tuple(w[i] for w in words) for i in label.tolist())
    else:
        label, texts = None, tuple(_said(record, () if published else languages) for record in records)
    if languages and not all(texts):
        raise HarmoniaError(
            f"{dataset} has images without texts in {', '.join(languages)}: choose other languages"
        )
    return x, label, texts


def _said(record: Record, languages: tuple[str, ...]) -> tuple[str, ...]:
    """The texts of a record, or those in ``languages``, in that order."""
    texts = tuple(part.text for part in record.parts if part.text)
    if not languages:
        return texts
    spoken = list(zip(record.metadata["languages"], texts, strict=True))
    return tuple(text for one in languages for language, text in spoken if language == one)


def languages_of(text: str) -> tuple[str, ...]:
    """The languages of a setting: codes such as en or zh-hant, separated by commas; none for all."""
    return tuple(one.strip().lower().replace("_", "-") for one in text.split(",") if one.strip())


def _pixels(record: Record, resolution: int, grey: bool) -> np.ndarray:
    """The image of a record as uint8 (h, w, c), on white if it is transparent."""
    part = next(part for part in record.parts if part.modality == "image")
    image = Image.fromarray(signal_of(part).array)
    image = (
        image.resize((resolution, resolution), Image.Resampling.LANCZOS)
        if image.size != (resolution,) * 2
        else image
    )
    array = np.asarray(image.convert("L" if grey else "RGB"))
    return array[:, :, None] if grey else array
