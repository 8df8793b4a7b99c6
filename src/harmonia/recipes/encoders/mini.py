"""The shipped model: image, text, audio and video towers with a shared space, below 12 MB.

It is trained only on data whose licence allows shipping the weights: emoji with names and keywords in 28
languages, MNIST, the Free Spoken Digit Dataset, the clips of ESC-10 that are CC0 or CC BY, our own number
words, and videos made of these images and sounds. An emoji is a record; so is each digit and each kind of
sound, with all its images, sounds and words. Most records lack some modality.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from zlib import crc32

import torch
from torch import Tensor

from harmonia.datasets.registry import reader
from harmonia.encoders.alignment import Alignment, AlignmentConfig
from harmonia.encoders.towers.audio import AudioConfig, AudioTower
from harmonia.encoders.towers.base import Tower
from harmonia.encoders.towers.image import ImageConfig, ImageTower
from harmonia.encoders.towers.text_motion import TextConfig, TextTower
from harmonia.encoders.towers.tokenizer import train_tokenizer
from harmonia.encoders.towers.video import VideoConfig, VideoTower
from harmonia.recipes.encoders import trimodal
from harmonia.recipes.encoders.mini_evaluation import hold, score
from harmonia.recipes.encoders.trimodal import SOUNDS, Labelled
from harmonia.recipes.run import Run, RunSettings, run_of
from harmonia.training.record_arrays import Augment, Batch, Pairs, Views
from harmonia.training.views import synthetic_videos, vary_digits, vary_pictures, vary_sounds, vary_words
from harmonia.types import Record, Signal

CARD = """# Harmonia mini

Image, text, audio and video towers with a shared space of {dim} dimensions, {parameters:.1f} million
parameters, trained from scratch with the objective of the Cross-Modal Harmonic Network. It ships with
Harmonia for cross-modal retrieval offline. It is small: it is trained on emoji, written and spoken digits,
and ten kinds of sound. For photos, use a pretrained model.

* Use: by default it complements the descriptors; to use it alone: `harmonia remember FOLDER --model mini`.
* Trained by `harmonia train mini`: {steps} steps of {batch} emoji with all digits and sounds, seed {seed}, on
  one CPU core (about 17 minutes of its time).

## Data and licences

| data | what of it | licence |
|---|---|---|
| Noto Emoji, by Google | {emoji} pictures | Apache 2.0 |
| Unicode CLDR annotations | their names and keywords in 28 languages | Unicode License |
| MNIST, by Y. LeCun, C. Cortes and C. Burges | {digits} pictures of digits | CC BY-SA 3.0 |
| Free Spoken Digit Dataset, by Z. Jackson and others | {spoken} English digits of 4 speakers | CC BY-SA 4.0 |
| ESC-10, by K. J. Piczak, clips from Freesound | {clips} clips of folds 1 to 3 | CC0 or CC BY 3.0 |
| number words in 25 languages | 250 words | of this project, Apache 2.0 |

Videos are made of these images and sounds. The weights are Apache 2.0 like the package and contain none of
the images or recordings. The authors of the clips are listed in the LICENSE of ESC-50; clips under other
licences are left out.

## Limits

* Photos, other drawings, speech other than digits, music, other sounds: at or close to chance.
* Word order is ignored. A word with different meanings in two languages ("fire" is four in Danish) lies
  between them.
* The digits are spoken in English by four people, who are the same in training and in the figures.

## How it is measured

Each figure is the share of queries whose nearest code is right ("@10": one of the ten nearest).

* Emoji: {emoji} images, all seen in training. The {names} "unseen" names, in 28 languages, were in no
  training text of their emoji; keywords of the same emoji in the same language were. Chance: 0.0006
  (@10: 0.006).
* Digits: the last 1,000 pictures, the takes 0 to 4 of the recordings. Chance: 0.1.
* Sounds: the free clips of fold 4. Chance: 0.1; for the same clip 0.01 (with noise 10 dB
  below the loudest point in every band, which is far more than 10 dB below the sound).

The descriptors cannot compare modalities; within one modality they remain the default: unseen name to English
name 0.29 (by spelling), half picture to picture 0.96, noisy picture 0.97, clip in white noise of 10 dB 1.0.
"""

HELD_OUT = 10
"""One in this many names of emoji, by language, is held out."""


@dataclass(frozen=True, kw_only=True)
class MiniSettings(RunSettings):
    """Settings of `mini`.

    ``batch``  emoji in a batch, besides all digits and sounds
    ``texts``  names and keywords of each emoji in a batch
    ``films``  emoji of a batch that are also seen as videos
    ``size``   of the image and text towers
    ``small``  size of the audio and video towers
    """

    size: str = "small"
    small: str = "tiny"
    dim: int = 128
    vocabulary: int = 6144
    batch: int = 96
    texts: int = 16
    films: int = 8
    steps: int = 1600


SETTINGS = MiniSettings()


def mini(data: Path | None = None, settings: MiniSettings = SETTINGS) -> Run:
    """The shipped model; ``data`` has the folders emoji, mnist, fsdd and esc10."""
    s = settings
    emoji = read_emoji(data)
    digits, sounds = trimodal.digit_signals(data), trimodal.sound_signals(data, free=True)
    torch.manual_seed(s.seed)
    towers = _towers(s, [one.text for part in (emoji.train, digits, sounds) for one in part["text"][0]])
    torch.manual_seed(s.seed)
    model = Alignment(towers, AlignmentConfig(objective="cmhn", within=1.0))
    shown = trimodal.prepare(emoji.train, towers)
    video = towers["video"]
    assert isinstance(video, VideoTower)
    mixture = Mixture(
        _pairs({**shown, "image": _twice(shown["image"])}, vary_pictures, texts=s.texts),
        (
            _pairs(trimodal.prepare(digits, towers), vary_digits, images=6),
            _pairs(trimodal.prepare(sounds, towers), vary_pictures),
        ),
        video,
        s.films,
    )
    held = hold(data, towers, shown["image"], emoji.held, emoji.english)
    facts = {
        "parameters": sum(p.numel() for p in model.parameters()) / 1e6,
        "emoji": len(emoji.train["image"][0]),
        "names": len(emoji.held),
        "digits": len(digits["image"][0]),
        "spoken": len(digits["audio"][0]),
        "clips": len(sounds["audio"][0]),
    }
    return run_of(
        "mini", s, model, mixture, CARD, batch=s.batch, save_every=max(100, s.steps // 6),
        evaluate=partial(score, held=held), monitor="mean", facts=facts, dtype=torch.float16,
    )  # fmt: skip


def _pairs(parts: Mapping[str, Views], pictures: Augment, images: int = 2, texts: int = 3) -> Pairs:
    take = {"image": images, "text": texts, "audio": 2}
    augment = {"image": pictures, "text": vary_words, "audio": vary_sounds}
    return Pairs(parts, per_record=take, augment=augment)


def _twice(view: Views) -> Views:
    """Every row twice, so that a batch has two views of each image."""
    return Views(torch.cat([view.inputs, view.inputs]), torch.cat([view.record, view.record]))


def _towers(s: MiniSettings, words: Sequence[str]) -> dict[str, Tower]:
    tokenizer = train_tokenizer(words, s.vocabulary)
    video = VideoConfig(size=s.small, dim=s.dim, kind="residual", resolution=48)
    return {
        "image": ImageTower(ImageConfig(size=s.size, dim=s.dim, kind="residual")),
        "text": TextTower(
            TextConfig(size=s.size, dim=s.dim, vocabulary=s.vocabulary, length=48, blocks=0), tokenizer
        ),
        "audio": AudioTower(AudioConfig(size=s.small, dim=s.dim, kind="residual")),
        "video": VideoTower(video),
    }


@dataclass(frozen=True, slots=True, eq=False)
class Emoji:
    """Emoji as records.

    ``train``: images, names and keywords. ``held``: (name, record) of held-out names, which are in no
    training text of their emoji, neither alone nor among the keywords. ``english``: (name, record) of all
    English names.
    """

    train: Labelled
    held: list[tuple[str, int]]
    english: list[tuple[str, int]]


def read_emoji(data: Path | None) -> Emoji:
    """The emoji without those that show one of the sounds, which are parts of the records of the sounds."""
    found = Emoji({"image": ([], []), "text": ([], [])}, [], [])
    heard = {code for codes in SOUNDS.values() for code in codes}
    records = trimodal.good(reader("emoji")(trimodal.of(data, "emoji"), keywords=True))
    chosen = [record for record in records if record.metadata["hexcode"] not in heard]
    for number, record in enumerate(chosen):
        trimodal.add(found.train, record, "image", number)
        names, keywords = _said(record)
        out = {name.casefold() for language, name in names if _held(record.metadata["hexcode"], language)}
        found.held.extend((name, number) for _, name in names if name.casefold() in out)
        found.english.extend((name, number) for language, name in names if language == "en")
        texts = [name for _, name in names if name.casefold() not in out]
        texts += [", ".join(word for word in words if word.casefold() not in out) for words in keywords]
        for text in filter(None, texts):
            found.train["text"][0].append(Signal("text", text))
            found.train["text"][1].append(number)
    return found


def _said(record: Record) -> tuple[list[tuple[str, str]], list[list[str]]]:
    """(language, name) of an emoji in every language, and the keywords of each."""
    names: dict[str, str] = {}
    keywords = []
    texts = [part.text for part in record.parts if part.text is not None]
    for language, text in zip(record.metadata["languages"], texts, strict=True):
        if language in names:
            keywords.append(text.split(", "))
        else:
            names[language] = text
    return list(names.items()), keywords


def _held(code: str, language: str) -> bool:
    return crc32(f"{code} {language.split('-')[0]}".encode()) % HELD_OUT == 0


class Mixture:
    """Batches of some emoji, all digits and all sounds, and videos of some of these records.

    For one process only: with several, a class would be in a batch more than once.
    """

    def __init__(self, emoji: Pairs, classes: Sequence[Pairs], tower: VideoTower, films: int) -> None:
        self.emoji, self.classes, self.tower, self.films = emoji, classes, tower, films

    def __len__(self) -> int:
        return len(self.emoji)

    def batch(self, indices: Tensor, generator: torch.Generator) -> Batch:
        """Views of the emoji ``indices`` and of all classes, whose records are numbered after the emoji."""
        found = [(len(indices), self.emoji.batch(indices, generator))]
        found += [(len(one), one.batch(torch.arange(len(one)), generator)) for one in self.classes]
        joined: dict[str, list[Views]] = {}
        start = 0
        for records, batch in found:
            for name, view in batch.items():
                joined.setdefault(name, []).append(Views(view.inputs, view.record + start))
            start += records
        views = {
            name: Views(torch.cat([v.inputs for v in several]), torch.cat([v.record for v in several]))
            for name, several in joined.items()
        }
        silent = max(0, len(indices) - self.films)
        return views | {"video": films(views["image"], views["audio"], silent, self.tower, generator)}


def films(images: Views, sounds: Views, start: int, tower: VideoTower, generator: torch.Generator) -> Views:
    """A video of every record from ``start``, made of its first image and first sound.

    A quarter of those with sound are silent and a quarter are grey, so that either modality suffices.
    """
    pictures, heard = _first(images), _first(sounds)
    records = [record for record in pictures if record >= start]
    config = tower.config
    shots = synthetic_videos(
        images.inputs[[pictures[record] for record in records]], config.frames, config.resolution, generator
    )
    mel = torch.zeros(len(records), config.mels, config.hearing.frames, dtype=torch.float16)
    luck = torch.rand(len(records), generator=generator)
    audible = torch.tensor([record in heard for record in records]) & (luck >= 0.25)
    mel[audible] = sounds.inputs[[heard[record] for record, on in zip(records, audible, strict=True) if on]]
    shots[audible & (luck >= 0.75)] = 128
    return Views(tower.pack(shots, mel, audible), torch.tensor(records))


def _first(view: Views) -> dict[int, int]:
    """The first row of every record."""
    rows: dict[int, int] = {}
    for row, record in enumerate(view.record.tolist()):
        rows.setdefault(record, row)
    return rows
