"""Multilingual recipes: photos with captions in several languages, and distillation of a text encoder.

`multilingual` aligns photos of Flickr8k with their captions in English, German, French, Czech (Multi30k,
Elliott et al. 2016) and Chinese (Flickr8k-CN, Li et al. 2016). A photo and all its captions are
one record; two captions in a batch, often in two languages, are positives of each other and of the photo.

`student` needs no photo: a small tower learns to map a caption to the teacher's code of its English version
(Reimers and Gurevych 2020). The teacher is latent semantic analysis of the English captions, so that nothing
has to be downloaded.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache, partial
from pathlib import Path
from typing import cast

import torch
import torch.nn.functional as F
from tokenizers import Tokenizer
from torch import Tensor, nn

from harmonia.datasets.flickr import HOW_TO_GET_8K, flickr8k
from harmonia.datasets.reading import dataset_folder, require, split_filter, table_rows
from harmonia.encoders.alignment import Alignment, AlignmentConfig
from harmonia.encoders.alignment.model import Objective
from harmonia.encoders.towers.base import Tower
from harmonia.encoders.towers.text_motion import TextConfig, TextTower
from harmonia.encoders.towers.tokenizer import train_tokenizer
from harmonia.metrics import cross_modal, retrieval_metrics
from harmonia.recipes.encoders import image_text
from harmonia.recipes.run import Run, prepared, run_of
from harmonia.training.augment import augment_images
from harmonia.training.record_arrays import Pairs, Views
from harmonia.types import HarmoniaError, Record, Signal

TABLE = "captions_multilingual.parquet"
SOURCE = "multi30k_task1_source"
PAIRED = ("multi30k_task1_human_translation", "human_written")
"""Kinds of captions for `student`: translations of the source, and Chinese captions of the same photo."""

Translated = tuple[str, list[tuple[str, str]]]
"""A photo's English source, and (language, caption) for each of its captions."""

CARD = """# {name}

{what}

* Recipe: `harmonia train {name}` ({steps} steps of {batch}, seed {seed}); languages: {languages}.
* Use: `harmonia remember FOLDER --model THIS_FOLDER`, or `harmonia.load_encoders((folder,))`.
* Data and licence: Flickr8k and its captions are for non-commercial research, and so is this model.
* Limits: trained on captions of photos of people and dogs; word order is ignored.
"""


@dataclass(frozen=True, kw_only=True)
class MultilingualSettings(image_text.ImageTextSettings):
    """Settings of the image-text recipes, and ``languages``, separated by commas."""

    languages: str = "en,de,fr,zh,cs"
    objective: Objective = "cmhn"
    vocabulary: int = 12288
    captions: int = 2


SETTINGS = MultilingualSettings()
STUDENT = MultilingualSettings(batch=256, steps=500)


@dataclass(frozen=True, slots=True, eq=False)
class Captioned:
    """Photos and captions, prepared by the towers; ``spoken`` is the language of each held-out caption."""

    tokenizer: Tokenizer
    train: dict[str, Views]
    held: dict[str, Views]
    spoken: tuple[str, ...]


def multilingual(data: Path | None = None, settings: MultilingualSettings = SETTINGS) -> Run:
    """Photos with captions in several languages, aligned with the photos and with each other."""
    s = settings
    photos = load(data, s)
    torch.manual_seed(s.seed)
    within = 1.0 if s.captions > 1 else 0.0
    model = Alignment(
        image_text.towers(s, photos.tokenizer), AlignmentConfig(objective=s.objective, within=within)
    )
    pairs = Pairs(
        photos.train,
        per_record={"image": 1, "text": s.captions},
        augment={"image": partial(augment_images, flip=True)},
    )
    evaluate = partial(score, held=photos.held, spoken=photos.spoken)
    what = "Image and text towers with a shared space, for text in several languages."
    return run_of(
        "multilingual", s, model, pairs, CARD, batch=s.batch, clip=None,
        evaluate=evaluate, monitor="recall@10", facts={"what": what},
    )  # fmt: skip


def student(data: Path | None = None, settings: MultilingualSettings = STUDENT) -> Run:
    """A caption tower for several languages, distilled into the space of an English sentence embedding."""
    s = settings
    home = dataset_folder(data, "flickr8k", "Flickr8k", HOW_TO_GET_8K)
    require(home, [TABLE], "Flickr8k in other languages", HOW_TO_GET_8K)
    train, held = (_translations(home, split, _languages(s)) for split in ("train", "val"))
    teacher = LatentSemantics([text for text, _ in train], s.dim)
    tokenizer = train_tokenizer([t for _, said in train for _, t in said], s.vocabulary)
    torch.manual_seed(s.seed)
    config = TextConfig(size=s.size, dim=s.dim, vocabulary=s.vocabulary, length=s.length, blocks=0)
    tower = TextTower(config, tokenizer)
    # the codes of the teacher are fixed and are not saved with the model
    known = cast("Tower", Given(s.dim))
    alignment = AlignmentConfig(objective="clip", pairs=(("text", "teacher"),))
    model = Alignment({"text": tower, "teacher": known}, alignment)
    parts, tests = (_lesson(tower, teacher, some) for some in (train, held))
    spoken = tuple(language for _, said in held for language, _ in said)
    pairs = Pairs(parts)
    evaluate = partial(translation, held=tests, spoken=spoken)
    what = "A text tower distilled from latent semantic analysis of English captions."
    return run_of(
        "student", s, model, pairs, CARD, batch=s.batch, clip=None,
        evaluate=evaluate, monitor="recall@1", facts={"what": what},
    )  # fmt: skip


class Given(nn.Module):
    """Stands for a tower whose inputs are already codes."""

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.dim = dim

    def forward(self, inputs: Tensor) -> Tensor:
        """The codes (n, dim)."""
        return inputs


class LatentSemantics:
    """Sentence codes by latent semantic analysis: tf-idf of words, projected on the first singular vectors.

    Reference: Deerwester et al. 1990, "Indexing by Latent Semantic Analysis".
    """

    def __init__(self, texts: Sequence[str], dim: int) -> None:
        frequency = Counter(word for text in texts for word in set(_words(text)))
        known = sorted(word for word, count in frequency.items() if count > 1)
        if len(known) < dim or len(texts) < dim:
            raise HarmoniaError(
                f"{len(texts)} texts with {len(known)} words are too few for {dim} dimensions"
            )
        self._index = {word: i for i, word in enumerate(known)}
        counts = torch.tensor([frequency[word] for word in known], dtype=torch.float32)
        self._idf = (len(texts) / counts).log()
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)
            _, _, self._axes = torch.svd_lowrank(self._weights(texts), q=dim, niter=4)

    def codes(self, texts: Sequence[str]) -> Tensor:
        """Codes (n, dim) of unit length; zeros for a text without a known word."""
        return F.normalize(self._weights(texts) @ self._axes, dim=-1)

    def _weights(self, texts: Sequence[str]) -> Tensor:
        rows = torch.zeros(len(texts), len(self._index))
        for row, text in zip(rows, texts, strict=True):
            for word in _words(text):
                if word in self._index:
                    row[self._index[word]] = self._idf[self._index[word]]
        return F.normalize(rows, dim=-1)


def score(model: nn.Module, held: Mapping[str, Views], spoken: Sequence[str]) -> dict[str, float]:
    """Recall@1/10 between photos and captions in each language, and from captions to English ones.

    ``recall@10`` is the mean over languages and directions of recall@10 between photos and captions.
    """
    assert isinstance(model, Alignment)
    codes = {name: model.codes(name, view.inputs) for name, view in held.items()}
    image, record = held["image"].record, held["text"].record
    rows = {language: _rows(spoken, language) for language in dict.fromkeys(spoken)}
    figures: dict[str, float] = {}
    means = []
    for language, own in rows.items():
        found = cross_modal(
            codes["image"], codes["text"][own], image, record[own], ks=(1, 10), names=("image", language)
        )
        figures |= {key: value for key, value in found.items() if key.endswith(("/recall@1", "/recall@10"))}
        means.append(found["recall@10"])
        if language != "en" and "en" in rows:
            english = rows["en"]
            scores = codes["text"][own] @ codes["text"][english].T
            same = record[own][:, None] == record[english]
            figures[f"{language}->en/recall@1"] = retrieval_metrics(scores, same, ks=(1,))["recall@1"]
    return figures | {"recall@10": sum(means) / len(means)}


def translation(model: nn.Module, held: Mapping[str, Views], spoken: Sequence[str]) -> dict[str, float]:
    """Recall@1 of the English caption of the same photo, in the space of the teacher, by language."""
    assert isinstance(model, Alignment)
    scores = model.codes("text", held["text"].inputs) @ held["teacher"].inputs.T
    same = held["text"].record[:, None] == held["teacher"].record
    figures = {}
    for language in dict.fromkeys(spoken):
        own = _rows(spoken, language)
        found = retrieval_metrics(scores[own], same[own], ks=(1,))
        figures[f"{language}->en/recall@1"] = found["recall@1"]
    return figures | {"recall@1": sum(figures.values()) / len(figures)}


@cache
def load(data: Path | None, settings: MultilingualSettings) -> Captioned:
    """The prepared dataset; the tokenizer is trained on the training captions in all languages."""
    languages = _languages(settings)
    train, held = (
        [r for r in flickr8k(data, split, languages=languages) if isinstance(r, Record)]
        for split in ("train", "val")
    )
    captions = [part.text for record in train for part in record.parts if part.text]
    tokenizer = train_tokenizer(captions, settings.vocabulary)
    own = image_text.towers(settings, tokenizer)
    parts = prepared(train, own)
    return Captioned(
        tokenizer,
        parts | {"text": balanced(parts["text"], _spoken(train))},
        prepared(held, own),
        _spoken(held),
    )


def balanced(view: Views, spoken: Sequence[str]) -> Views:
    """Repeat the captions of rarer languages, so that a batch has all languages about equally often."""
    count = Counter(spoken)
    most = max(count.values())
    times = torch.tensor([round(most / count[language]) for language in spoken])
    return Views(view.inputs.repeat_interleave(times, dim=0), view.record.repeat_interleave(times))


def _translations(
    home: Path, split: str, languages: Sequence[str]
) -> list[tuple[str, list[tuple[str, str]]]]:
    """For each photo, the English source and all (language, caption), including the source."""
    wanted = split_filter(split)
    source: dict[str, str] = {}
    said: dict[str, list[tuple[str, str]]] = {}
    for _, row in table_rows(home / TABLE):
        if isinstance(row, str) or not wanted(str(row["split"])) or row["lang"] not in languages:
            continue
        if row["kind"] == SOURCE:
            source[row["image_id"]] = row["caption"]
        if row["kind"] in (SOURCE, *PAIRED):
            said.setdefault(row["image_id"], []).append((row["lang"], row["caption"]))
    found = [(text, said[photo]) for photo, text in source.items()]
    if not found:
        raise HarmoniaError(f"{TABLE} has no English source ({SOURCE}) in {split}: download it again")
    return found


def _lesson(tower: TextTower, teacher: LatentSemantics, photos: Sequence[Translated]) -> dict[str, Views]:
    rows = tower.prepare([Signal("text", caption) for _, said in photos for _, caption in said])
    record = torch.arange(len(photos))
    spoken = torch.tensor([len(said) for _, said in photos])
    codes = teacher.codes([english for english, _ in photos])
    return {"text": Views(rows, record.repeat_interleave(spoken)), "teacher": Views(codes, record)}


def _languages(s: MultilingualSettings) -> tuple[str, ...]:
    return tuple(language.strip() for language in s.languages.split(","))


def _spoken(records: Sequence[Record]) -> tuple[str, ...]:
    return tuple(language for record in records for language in record.metadata["languages"])


def _rows(spoken: Sequence[str], language: str) -> Tensor:
    return torch.tensor([i for i, own in enumerate(spoken) if own == language])


def _words(text: str) -> list[str]:
    return re.findall(r"\w+", text.lower())
