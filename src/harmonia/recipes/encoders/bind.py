"""ImageBind-style training: images as the hub between sounds and words, which are never paired.

ImageBind (Girdhar et al. 2023) pairs every modality with images only; two modalities that were never paired
are then aligned through the images. Here there are two sets of records. The first pairs images with words:
emoji with their names and keywords, handwritten digits (MNIST) with number words. The second pairs sounds
with
images: recordings (ESC-10) with emoji, spoken digits (FSDD) with other handwritten digits. No record has both
a sound and a word. The score is how often the nearest word to a held-out sound is right.

A record is a concept with all its parts, so that two sevens are never negatives of each other. A batch is
from one set, so that a spoken seven and a named seven are never negatives either.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache, partial
from itertools import chain
from pathlib import Path

import torch
import torch.nn.functional as F
from tokenizers import Tokenizer
from torch import Tensor, nn

from harmonia.data.records import signal_of
from harmonia.datasets.emoji import emoji
from harmonia.datasets.esc50 import esc10
from harmonia.datasets.fsdd import DIGITS, fsdd
from harmonia.datasets.mnist import mnist_arrays
from harmonia.encoders.alignment import Alignment, AlignmentConfig
from harmonia.encoders.alignment.model import Objective
from harmonia.encoders.towers.audio import AudioConfig, AudioTower
from harmonia.encoders.towers.base import Tower
from harmonia.encoders.towers.image import ImageConfig, ImageTower
from harmonia.encoders.towers.text_motion import TextConfig, TextTower
from harmonia.encoders.towers.tokenizer import train_tokenizer
from harmonia.memory import retrieve
from harmonia.pretrained.imagebind import pairs
from harmonia.recipes.run import Run, RunSettings, run_of
from harmonia.training.augment import augment_images, mask_spectrograms
from harmonia.training.record_arrays import Augment, Batch, Pairs, Views
from harmonia.types import HarmoniaError, Record, Signal

HEARD: dict[str, tuple[tuple[str, ...], tuple[str, ...]]] = {
    "dog bark": (("1F436", "1F429"), ("dog", "puppy")),
    "rain": (("1F327",), ("rain", "raining")),
    "sea waves": (("1F30A",), ("wave", "waves", "ocean")),
    "baby cry": (("1F476", "1F622"), ("baby",)),
    "clock tick": (("1F570",), ("clock",)),
    "person sneeze": (("1F927",), ("sneeze", "sneezing")),
    "helicopter": (("1F681",), ("helicopter",)),
    "chainsaw": (("1FA9A",), ("chainsaw", "saw")),
    "rooster": (("1F413",), ("rooster",)),
    "fire crackling": (("1F525",), ("fire",)),
}
"""The emoji (hexcodes) and words for each class of ESC-10."""

ALIASES = {
    "dog": "dog bark",
    "crying baby": "baby cry",
    "sneezing": "person sneeze",
    "crackling fire": "fire crackling",
}
"""The names in ESC-50 of classes of ESC-10."""

CONCEPTS = len(DIGITS) + len(HEARD)
"""The number of concepts with sounds: the ten digits, then the classes of ``HEARD``."""

CARD = """# bind

Image, text and audio towers with a shared space. Sounds and words were never paired: both were paired with
images only.

* Recipe: `harmonia train bind` (objective `{objective}`, {steps} steps, seed {seed}).
* Use: `harmonia remember FOLDER --model THIS_FOLDER`, or `harmonia.load_encoders((folder,))`.
* Data and licence: Noto Emoji (Apache 2.0) with names and keywords of Unicode CLDR (Unicode licence), MNIST
  (CC BY-SA 3.0), ESC-10 (CC BY 3.0), the Free Spoken Digit Dataset (CC BY-SA 4.0).
* Limits: trained on ten kinds of sounds, the ten English digits by a few speakers, and single words. It has
  not seen photos.
"""


@dataclass(frozen=True, kw_only=True)
class BindSettings(RunSettings):
    """Settings of `bind`.

    ``pictures``, ``texts``, ``sounds``: parts of each concept in a batch. ``others``: one in so many of the
    emoji without a sound is in the data, too. ``resolution`` in pixels.
    """

    objective: Objective = "cmhn"
    size: str = "tiny"
    resolution: int = 32
    seconds: float = 5.0
    mels: int = 64
    vocabulary: int = 2048
    length: int = 12
    dim: int = 128
    others: int = 5
    pictures: int = 8
    texts: int = 4
    sounds: int = 4
    steps: int = 300
    batch: int = 64


SETTINGS = BindSettings()


@dataclass(frozen=True, slots=True, eq=False)
class HeldOutSounds:
    """Held-out sounds, and words for each of the concepts that they may belong to."""

    audio: Views
    text: Views


@dataclass(frozen=True, slots=True, eq=False)
class Material:
    """The two sets, prepared by the towers; records are concepts.

    ``words`` are texts of the concepts of ``heard``, for evaluation: training never pairs them with sounds.
    """

    tokenizer: Tokenizer
    named: dict[str, Views]
    heard: dict[str, Views]
    words: Views
    held: dict[str, HeldOutSounds]


class Sets(Pairs):
    """Records of several sets; a batch is from one random set, as in ImageBind.

    It takes as many records of the set as there are indices, or all if there are fewer, with a probability in
    proportion to the square root of the number of parts: a digit with hundreds of images is in nearly every
    batch, an emoji in some.
    """

    def __init__(
        self,
        sets: Sequence[Mapping[str, Views]],
        *,
        augment: Mapping[str, Augment] | None = None,
        per_record: Mapping[str, int],
    ) -> None:
        merged: dict[str, list[Views]] = {}
        self._sets, first = [], 0
        for one in sets:
            count = 1 + max(int(view.record.max()) for view in one.values())
            for name, view in one.items():
                merged.setdefault(name, []).append(Views(view.inputs, view.record + first))
            self._sets.append(torch.arange(first, first + count))
            first += count
        parts = {name: joined(views) for name, views in merged.items()}
        super().__init__(parts, records=first, augment=augment, per_record=per_record)
        self._chance = torch.stack(list(self._count.values())).sum(dim=0).float().sqrt()

    def batch(self, indices: Tensor, generator: torch.Generator) -> Batch:
        """Parts of records of one set; only the number of ``indices`` matters."""
        records = self._sets[int(torch.randint(len(self._sets), (), generator=generator))]
        chance = self._chance[records]
        count = min(len(indices), int((chance > 0).sum()))
        return super().batch(records[torch.multinomial(chance, count, generator=generator)], generator)


def bind(data: Path | None = None, settings: BindSettings = SETTINGS) -> Run:
    """ImageBind-style hub: sounds retrieve words, never paired with them, through images."""
    material = load(data, settings)
    return bound(
        "bind", [material.named, material.heard], pairs(("image", "text", "audio")), material, settings
    )


def bound(
    name: str,
    sets: Sequence[Mapping[str, Views]],
    compared: Iterable[tuple[str, str]],
    material: Material,
    settings: BindSettings,
) -> Run:
    """The run on any sets of records and any pairs of modalities."""
    s = settings
    torch.manual_seed(s.seed)
    alignment = AlignmentConfig(objective=s.objective, pairs=tuple(compared))
    model = Alignment(towers(s, material.tokenizer), alignment)
    dataset = Sets(
        sets,
        augment={"image": augment_images, "audio": vary},
        per_record={"image": s.pictures, "text": s.texts, "audio": s.sounds},
    )
    return run_of(
        name, s, model, dataset, CARD, batch=s.batch, warmup=20, clip=None,
        evaluate=partial(score, material=material), monitor="accuracy",
    )  # fmt: skip


def towers(settings: BindSettings, tokenizer: Tokenizer) -> dict[str, Tower]:
    """Small towers for images of a few dozen pixels, single words and a few seconds of sound."""
    s = settings
    image = ImageConfig(size=s.size, dim=s.dim, resolution=s.resolution, kind="residual")
    text = TextConfig(size=s.size, dim=s.dim, vocabulary=s.vocabulary, length=s.length, blocks=0)
    audio = AudioConfig(size=s.size, dim=s.dim, seconds=s.seconds, mels=s.mels, kind="residual")
    return {"image": ImageTower(image), "text": TextTower(text, tokenizer), "audio": AudioTower(audio)}


@cache
def load(data: Path | None, settings: BindSettings) -> Material:
    """The four datasets, each in its own folder in ``data``."""
    emojis = _emojis(data and data / "emoji", settings.others)
    texts = [[str(r.metadata["name"]), *map(str, r.metadata["tags"])] for r in emojis]
    tokenizer = train_tokenizer([*DIGITS, *chain.from_iterable(texts)], settings.vocabulary)
    own = towers(settings, tokenizer)
    drawn = own["image"].prepare([signal_of(r.parts[0]) for r in emojis])
    digits = _digits(data and data / "mnist", own["image"])
    first = len(DIGITS)
    named = {
        "image": joined([_every_other(digits, 0), Views(drawn, torch.arange(len(drawn)) + first)]),
        "text": _texts(own["text"], [[word] for word in DIGITS] + texts),
    }
    place = {str(r.metadata["hexcode"]): i for i, r in enumerate(emojis)}
    shown = [
        (place[code], first + i)
        for i, (codes, _) in enumerate(HEARD.values())
        for code in codes
        if code in place
    ]
    if not shown:
        raise HarmoniaError("none of these emoji belongs to a sound of ESC-10: get the whole set of images")
    which, concept = torch.tensor(shown).T
    sounds = {split: _sounds(data, split, own["audio"]) for split in ("train", "test")}
    heard = {
        "image": joined([_every_other(digits, 1), Views(drawn[which], concept)]),
        "audio": sounds["train"],
    }
    words = _texts(own["text"], [[word] for word in DIGITS] + [list(said) for _, said in HEARD.values()])
    held = {
        "digits": HeldOutSounds(_only(sounds["test"], 0, first), _only(words, 0, first)),
        "sounds": HeldOutSounds(_only(sounds["test"], first, CONCEPTS), _only(words, first, CONCEPTS)),
    }
    return Material(tokenizer, named, heard, words, held)


def _emojis(folder: Path | None, others: int) -> list[Record]:
    """The emoji of sounds, and one in ``others`` of the rest."""
    standing = {code for codes, _ in HEARD.values() for code in codes}
    found = [r for r in emoji(folder, languages=["en"]) if isinstance(r, Record)]
    return [r for i, r in enumerate(found) if r.metadata["hexcode"] in standing or i % others == 0]


def _digits(folder: Path | None, tower: Tower) -> Views:
    """Handwritten digits, white on black as in MNIST."""
    pictures, labels = mnist_arrays(folder)
    return Views(tower.prepare([Signal("image", picture) for picture in pictures]), torch.from_numpy(labels))


def _sounds(data: Path | None, split: str, tower: Tower) -> Views:
    """Recordings of FSDD and ESC-10 with their concepts: ten digits, then the classes of ``HEARD``."""
    classes = list(HEARD)
    signals, concepts = [], []
    for one in chain(fsdd(data and data / "fsdd", split), esc10(data and data / "esc10", split)):
        if not isinstance(one, Record):
            continue
        label = one.metadata.get("label")
        if label is None:
            concepts.append(int(one.metadata["digit"]))
        else:
            concepts.append(len(DIGITS) + classes.index(ALIASES.get(label, label)))
        signals.append(signal_of(one.parts[0]))
    return Views(tower.prepare(signals), torch.tensor(concepts))


def _texts(tower: Tower, texts: Sequence[Sequence[str]]) -> Views:
    """The texts of concepts, which are numbered from 0."""
    rows = tower.prepare([Signal("text", text) for some in texts for text in some])
    return Views(rows, torch.arange(len(texts)).repeat_interleave(torch.tensor([len(t) for t in texts])))


def _every_other(view: Views, start: int) -> Views:
    """Every second row, so that images paired with words and images paired with sounds differ."""
    return Views(view.inputs[start::2], view.record[start::2])


def _only(view: Views, low: int, high: int) -> Views:
    """The rows of the concepts from ``low`` to below ``high``, numbered from 0."""
    kept = (view.record >= low) & (view.record < high)
    return Views(view.inputs[kept], view.record[kept] - low)


def joined(views: Sequence[Views]) -> Views:
    """The rows of all views, concatenated."""
    return Views(torch.cat([view.inputs for view in views]), torch.cat([view.record for view in views]))


def vary(mels: Tensor, generator: torch.Generator) -> Tensor:
    """Log-mel spectrograms (n, mels, frames), shifted in time circularly, and masked."""
    frames = mels.shape[2]
    shift = torch.randint(frames, (len(mels), 1), generator=generator)
    place = (torch.arange(frames) + shift) % frames
    turned = mels.gather(2, place[:, None].expand_as(mels))
    return mask_spectrograms(turned, generator)


def score(model: nn.Module, material: Material) -> dict[str, float]:
    """The accuracy of sound-to-word retrieval for each test, and its mean.

    "recalled": each sound first takes one retrieval step in a memory of the images paired with words, at the
    inverse temperature that was learned.
    """
    assert isinstance(model, Alignment)
    named = model.codes("image", material.named["image"].inputs)
    beta = float(model.scale.detach())
    figures = {}
    for name, test in material.held.items():
        words, sounds = concepts(model, test.text), model.codes("audio", test.audio.inputs)
        recalled = F.normalize(retrieve(sounds, named, beta=beta), dim=-1)
        figures[name] = _right(sounds @ words.T, test)
        figures[f"{name} recalled"] = _right(recalled @ words.T, test)
    return figures | {"accuracy": sum(figures[name] for name in material.held) / len(material.held)}


def concepts(model: Alignment, texts: Views) -> Tensor:
    """The mean code of the texts of each concept, (concepts, dim), of unit length."""
    codes = model.codes("text", texts.inputs)
    total = codes.new_zeros(int(texts.record.max()) + 1, codes.shape[1])
    return F.normalize(total.index_add(0, texts.record, codes), dim=-1)


def _right(scores: Tensor, test: HeldOutSounds) -> float:
    return float((scores.argmax(dim=1) == test.audio.record).float().mean())
