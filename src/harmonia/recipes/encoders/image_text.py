"""Image-text recipes: CLIP, SigLIP, CLOOB, Hopfield-Fenchel-Young and the CMHN on equal terms.

All recipes have the same towers, tokenizer, photos, batch, steps and augmentation and differ in their
objective only. Flickr8k (Hodosh et al. 2013) by default: 6,000
photos with five captions each; trained from scratch in a few minutes on one CPU core.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache, partial
from pathlib import Path

import torch
from tokenizers import Tokenizer
from torch import nn

from harmonia.datasets.registry import reader
from harmonia.encoders.alignment import Alignment, AlignmentConfig
from harmonia.encoders.towers.base import Tower
from harmonia.encoders.towers.image import ImageConfig, ImageTower
from harmonia.encoders.towers.text_motion import TextConfig, TextTower
from harmonia.encoders.towers.tokenizer import train_tokenizer
from harmonia.metrics import cross_modal
from harmonia.recipes.run import Run, RunSettings, prepared, run_of
from harmonia.training.augment import augment_images
from harmonia.training.record_arrays import Pairs, Views
from harmonia.types import HarmoniaError, Record

CARD = """# {name}

Image and text towers with a shared space, trained from scratch with the objective `{objective}` on {dataset}.

* Recipe: `harmonia train {name}` ({steps} steps of {batch} photos, seed {seed}).
* Use: `harmonia remember FOLDER --model THIS_FOLDER`, or `harmonia.load_encoders((folder,))`.
* Data and licence: {licence}
* Limits: trained on {photos} photos; names, numbers and word order have little effect.
"""


LICENCES = {
    "flickr8k": "Flickr8k is for non-commercial research, its photos are their authors'; so is this model.",
}


@dataclass(frozen=True, kw_only=True)
class ImageTextSettings(RunSettings):
    """Settings of the image-text recipes.

    ``captions``: captions of each photo in a batch. ``size`` of both towers; ``resolution`` in pixels;
    ``vocabulary`` in tokens.
    """

    dataset: str = "flickr8k"
    size: str = "small"
    kind: str = "residual"
    resolution: int = 64
    vocabulary: int = 4096
    length: int = 40
    dim: int = 256
    captions: int = 1
    batch: int = 128


SETTINGS = ImageTextSettings()
CAPTIONS = ImageTextSettings(captions=2)


@dataclass(frozen=True, slots=True, eq=False)
class Photos:
    """Photos and captions, prepared by the towers; ``held`` is the held-out split."""

    tokenizer: Tokenizer
    train: dict[str, Views]
    held: dict[str, Views]


def clip(data: Path | None = None, settings: ImageTextSettings = SETTINGS) -> Run:
    """CLIP (Radford et al. 2021): InfoNCE between photos and captions."""
    return image_text("clip", AlignmentConfig(objective="clip"), data, settings)


def siglip(data: Path | None = None, settings: ImageTextSettings = SETTINGS) -> Run:
    """SigLIP (Zhai et al. 2023): an independent binary loss for each pair of photo and caption."""
    return image_text("siglip", AlignmentConfig(objective="siglip", scale=10.0), data, settings)


def cloob(data: Path | None = None, settings: ImageTextSettings = SETTINGS) -> Run:
    """CLOOB (Fürst et al. 2022): InfoLOOB on what a modern Hopfield network retrieves from the batch."""
    return image_text("cloob", AlignmentConfig(objective="cloob", scale=30.0, fixed=True), data, settings)


def hfy(data: Path | None = None, settings: ImageTextSettings = SETTINGS) -> Run:
    """Hopfield-Fenchel-Young (Santos et al. 2024): the sparse loss of 1.5-entmax, which has a margin."""
    return image_text("hfy", AlignmentConfig(objective="hfy"), data, settings)


def cmhn(data: Path | None = None, settings: ImageTextSettings = CAPTIONS) -> Run:
    """The Cross-Modal Harmonic Network: every part of a record is a cue for the others."""
    return image_text("cmhn", AlignmentConfig(objective="cmhn", within=1.0), data, settings)


def image_text(
    name: str, alignment: AlignmentConfig, data: Path | None = None, settings: ImageTextSettings = SETTINGS
) -> Run:
    """The run of an image-text recipe, with any objective."""
    s = settings
    if s.batch < 2:
        raise HarmoniaError("batch must be at least 2: contrastive losses need negatives")
    photos = load(data, s)
    torch.manual_seed(s.seed)
    model = Alignment(towers(s, photos.tokenizer), alignment)
    pairs = Pairs(
        photos.train,
        per_record={"image": 1, "text": s.captions},
        augment={"image": partial(augment_images, flip=True)},
    )
    licence = LICENCES.get(s.dataset, f"the model may be used as the licence of {s.dataset} allows.")
    return run_of(
        name, s, model, pairs, CARD, batch=s.batch, clip=None,
        evaluate=partial(score, held=photos.held), monitor="recall@10",
        facts={"objective": alignment.objective, "licence": licence, "photos": len(pairs)},
    )  # fmt: skip


def towers(settings: ImageTextSettings, tokenizer: Tokenizer) -> dict[str, Tower]:
    """An image tower and a bag-of-words text tower, which is best for a few thousand captions."""
    s = settings
    text = TextConfig(size=s.size, dim=s.dim, vocabulary=s.vocabulary, length=s.length, blocks=0)
    image = ImageConfig(size=s.size, dim=s.dim, resolution=s.resolution, kind=s.kind)
    return {"image": ImageTower(image), "text": TextTower(text, tokenizer)}


def load(data: Path | None, settings: ImageTextSettings) -> Photos:
    """The prepared dataset; the tokenizer is trained on the training captions."""
    s = settings
    return _loaded(
        data,
        ImageTextSettings(
            dataset=s.dataset, resolution=s.resolution, vocabulary=s.vocabulary, length=s.length
        ),
    )


@cache
def _loaded(data: Path | None, settings: ImageTextSettings) -> Photos:
    read = partial(reader(settings.dataset), data)
    train, held = ([r for r in read(split=split) if isinstance(r, Record)] for split in ("train", "val"))
    captions = [part.text for record in train for part in record.parts if part.text]
    tokenizer = train_tokenizer(captions, settings.vocabulary)
    own = towers(settings, tokenizer)
    return Photos(tokenizer, prepared(train, own), prepared(held, own))


def score(model: nn.Module, held: Mapping[str, Views]) -> dict[str, float]:
    """Recall, NDCG and mAP of text-to-image and image-to-text retrieval on held-out data, and their means."""
    assert isinstance(model, Alignment)
    codes = {name: model.codes(name, view.inputs) for name, view in held.items()}
    x, y = held["image"].record, held["text"].record
    found = cross_modal(codes["image"], codes["text"], x, y, names=("image", "text"))
    shown = ("recall@1", "recall@5", "recall@10", "ndcg", "map")
    return {name: value for name, value in found.items() if name.rpartition("/")[2] in shown}
