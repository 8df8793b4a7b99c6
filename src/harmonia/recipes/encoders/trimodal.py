"""Recipes with images, sounds and words in many languages: digits (MNIST, FSDD), everyday sounds (ESC-10,
emoji).

A record is a class with all its images, sounds and names; a batch draws some of each. So two images of a
seven are never negatives of each other.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
import torch
from torch import nn

from harmonia.data.records import signal_of
from harmonia.datasets.mnist import mnist_arrays
from harmonia.datasets.reading import Records
from harmonia.datasets.registry import reader
from harmonia.encoders.alignment import Alignment, AlignmentConfig
from harmonia.encoders.towers.audio import AudioConfig, AudioTower
from harmonia.encoders.towers.base import Tower
from harmonia.encoders.towers.image import ImageConfig, ImageTower
from harmonia.encoders.towers.text_motion import TextConfig, TextTower
from harmonia.encoders.towers.tokenizer import train_tokenizer
from harmonia.recipes.run import Run, RunSettings, run_of
from harmonia.training.record_arrays import Pairs, Views
from harmonia.training.views import vary_digits, vary_pictures, vary_sounds, vary_words
from harmonia.types import HarmoniaError, Record, Signal

NUMBERS: dict[str, str] = {
    "bn": "শূন্য এক দুই তিন চার পাঁচ ছয় সাত আট নয়",
    "da": "nul en to tre fire fem seks syv otte ni",
    "de": "null eins zwei drei vier fünf sechs sieben acht neun",
    "en": "zero one two three four five six seven eight nine",
    "es": "cero uno dos tres cuatro cinco seis siete ocho nueve",
    "et": "null üks kaks kolm neli viis kuus seitse kaheksa üheksa",
    "fi": "nolla yksi kaksi kolme neljä viisi kuusi seitsemän kahdeksan yhdeksän",
    "fr": "zéro un deux trois quatre cinq six sept huit neuf",
    "hi": "शून्य एक दो तीन चार पाँच छह सात आठ नौ",
    "hu": "nulla egy kettő három négy öt hat hét nyolc kilenc",
    "it": "zero uno due tre quattro cinque sei sette otto nove",
    "ja": "ゼロ 一 二 三 四 五 六 七 八 九",
    "ko": "영 일 이 삼 사 오 육 칠 팔 구",
    "lt": "nulis vienas du trys keturi penki šeši septyni aštuoni devyni",
    "ms": "sifar satu dua tiga empat lima enam tujuh lapan sembilan",
    "nb": "null en to tre fire fem seks sju åtte ni",
    "nl": "nul een twee drie vier vijf zes zeven acht negen",
    "pl": "zero jeden dwa trzy cztery pięć sześć siedem osiem dziewięć",
    "pt": "zero um dois três quatro cinco seis sete oito nove",
    "ru": "ноль один два три четыре пять шесть семь восемь девять",
    "sv": "noll ett två tre fyra fem sex sju åtta nio",
    "th": "ศูนย์ หนึ่ง สอง สาม สี่ ห้า หก เจ็ด แปด เก้า",
    "uk": "нуль один два три чотири п'ять шість сім вісім дев'ять",
    "vi": "không một hai ba bốn năm sáu bảy tám chín",
    "zh": "零 一 二 三 四 五 六 七 八 九",
}
"""The words for 0 to 9 by language."""

SOUNDS: dict[str, tuple[str, ...]] = {
    "dog": ("1F436", "1F429"),
    "rooster": ("1F413",),
    "rain": ("1F327",),
    "sea waves": ("1F30A",),
    "crackling fire": ("1F525",),
    "crying baby": ("1F476", "1F622"),
    "sneezing": ("1F927",),
    "clock tick": ("1F570",),
    "helicopter": ("1F681",),
    "chainsaw": ("1FA9A",),
}
"""The classes of ESC-10 and the emoji (hexcodes) that show them."""

ALIASES = {
    "dog bark": "dog",
    "fire crackling": "crackling fire",
    "baby cry": "crying baby",
    "person sneeze": "sneezing",
}
"""Names of the classes of ESC-10 before ESC-50 renamed them."""

HELD_OUT = 8
"""The last of this many parts of MNIST's training file is held out (1,000 of 8,000 images)."""
MODALITIES = ("image", "audio", "text")


@dataclass(frozen=True, kw_only=True)
class TrimodalSettings(RunSettings):
    """Settings of `digits` and `sounds`; a batch has ``parts`` images, sounds and words of each class."""

    size: str = "tiny"
    kind: str = "residual"
    resolution: int = 32
    seconds: float = 2.0
    vocabulary: int = 1024
    dim: int = 128
    parts: int = 6


DIGITS = TrimodalSettings()
EVERYDAY = TrimodalSettings(resolution=64, seconds=5.0, vocabulary=2048, parts=4, steps=400)

CARD = """# {name}

Image, text and audio towers with a shared space, trained from scratch with the objective `cmhn` on {data}.

* Recipe: `harmonia train {name}` ({steps} steps, seed {seed}).
* Use: `harmonia remember FOLDER --model THIS_FOLDER`, or `harmonia.load_encoders((folder,))`.
* Data and licence: {licence}.
* Limits: trained on ten classes.
"""


def digits(data: Path | None = None, settings: TrimodalSettings = DIGITS) -> Run:
    """Written and spoken digits, number words in 25 languages; ``data`` has the folders mnist and fsdd."""
    return _run(
        "digits", settings, digit_signals(data), digit_signals(data, dev=True),
        "MNIST, the Free Spoken Digit Dataset and number words in 25 languages",
        "MNIST is CC BY-SA 3.0, FSDD CC BY-SA 4.0",
    )  # fmt: skip


def sounds(data: Path | None = None, settings: TrimodalSettings = EVERYDAY) -> Run:
    """Field recordings, emoji, their names in 28 languages; ``data`` has the folders esc10 and emoji."""
    return _run(
        "sounds", settings, sound_signals(data), sound_signals(data, dev=True), "ESC-10 and emoji",
        "ESC-10 is CC BY 3.0, Noto Emoji Apache 2.0, the names of Unicode CLDR",
    )  # fmt: skip


Labelled = dict[str, tuple[list[Signal], list[int]]]
"""For each modality, the signals and the class of each."""


def digit_signals(data: Path | None = None, *, dev: bool = False) -> Labelled:
    """Training data, or with ``dev`` the held-out data: MNIST's last 1,000 images and FSDD's test takes."""
    pictures, labels = mnist_arrays(of(data, "mnist"))
    start = len(labels) - len(labels) // HELD_OUT
    part = slice(start, None) if dev else slice(None, start)
    found: Labelled = {
        "image": ([_grey(one) for one in pictures[part]], labels[part].tolist()),
        "audio": ([], []),
        "text": ([], []),
    }
    for record in good(reader("fsdd")(of(data, "fsdd"), split="test" if dev else "train")):
        add(found, record, "audio", record.metadata["digit"])
    for words in (*NUMBERS.values(), "0 1 2 3 4 5 6 7 8 9"):
        for number, word in enumerate(words.split()):
            found["text"][0].append(Signal("text", word))
            found["text"][1].append(number)
    return found


def sound_signals(data: Path | None = None, *, dev: bool = False, free: bool = False) -> Labelled:
    """Training clips, or with ``dev`` the clips of the last fold; images and words are the same in both.

    ``free`` leaves out clips whose licence is not CC0 or CC BY.
    """
    number = {name: i for i, name in enumerate(SOUNDS)}
    found: Labelled = {name: ([], []) for name in MODALITIES}
    for record in good(reader("esc10")(of(data, "esc10"), split="test" if dev else "train")):
        if free and record.metadata.get("license") not in ("CC0", "CC-BY"):
            continue
        label = record.metadata["label"]
        add(found, record, "audio", number[ALIASES.get(label, label)])
    shown = {code: number[name] for name, codes in SOUNDS.items() for code in codes}
    for record in good(reader("emoji")(of(data, "emoji"), keywords=True)):
        if record.metadata["hexcode"] in shown:
            for modality in ("image", "text"):
                add(found, record, modality, shown[record.metadata["hexcode"]])
    for name, label in number.items():
        found["text"][0].append(Signal("text", name))
        found["text"][1].append(label)
    return found


def prepare(labelled: Labelled, towers: Mapping[str, Tower]) -> dict[str, Views]:
    """Signals prepared by the towers, with their classes as records; modalities without signals are
    skipped."""
    return {
        name: Views(towers[name].prepare(signals), torch.tensor(labels))
        for name, (signals, labels) in labelled.items()
        if signals and name in towers
    }


def of(data: Path | None, name: str) -> Path | None:
    """The folder of one dataset in a folder of several."""
    return None if data is None else data / name


def good(records: Records) -> Iterable[Record]:
    """The records that can be read; a HarmoniaError if none can."""
    some = False
    for record in records:
        if isinstance(record, Record):
            some = True
            yield record
    if not some:
        raise HarmoniaError("no record of the data can be read: check the folder")


def add(found: Labelled, record: Record, modality: str, label: int) -> None:
    """Add the parts of one modality of a record to a class."""
    for part in record.parts:
        if part.modality == modality:
            found[modality][0].append(signal_of(part))
            found[modality][1].append(label)


def hit_rate(queries: Views, gallery: Views, k: int = 1) -> float:
    """The share of queries with their own record among the ``k`` nearest of ``gallery``; codes have unit
    length."""
    nearest = (queries.inputs @ gallery.inputs.mT).topk(k, dim=1).indices
    return float((gallery.record[nearest] == queries.record[:, None]).any(dim=1).float().mean())


def means(views: Views) -> Views:
    """One code for each record: the normalised mean of its codes."""
    records, row = torch.unique(views.record, return_inverse=True)
    total = torch.zeros(len(records), views.inputs.shape[1]).index_add(0, row, views.inputs)
    return Views(nn.functional.normalize(total, dim=-1), records)


def _grey(picture: np.ndarray[tuple[int, ...], np.dtype[np.uint8]]) -> Signal:
    return Signal("image", np.repeat(picture[..., None], 3, axis=-1))


def _run(name: str, s: TrimodalSettings, train: Labelled, held: Labelled, data: str, licence: str) -> Run:
    towers = _towers(s, [one.text for one in train["text"][0]])
    torch.manual_seed(s.seed)
    pictures = vary_digits if name == "digits" else vary_pictures
    pairs = Pairs(
        prepare(train, towers),
        per_record=s.parts,
        augment={"image": pictures, "audio": vary_sounds, "text": vary_words},
    )
    model = Alignment(towers, AlignmentConfig(objective="cmhn", within=1.0))
    return run_of(
        name, s, model, pairs, CARD, batch=len(pairs), warmup=30,
        evaluate=partial(score, held=prepare(held, towers)), monitor="mean",
        facts={"data": data, "licence": licence},
    )  # fmt: skip


def _towers(s: TrimodalSettings, words: Sequence[str]) -> dict[str, Tower]:
    torch.manual_seed(s.seed)
    tokenizer = train_tokenizer(words, s.vocabulary)
    text = TextConfig(size=s.size, dim=s.dim, vocabulary=s.vocabulary, length=32, blocks=0)
    image = ImageConfig(size=s.size, dim=s.dim, kind=s.kind, resolution=s.resolution)
    audio = AudioConfig(size=s.size, dim=s.dim, kind=s.kind, seconds=s.seconds)
    return {"image": ImageTower(image), "audio": AudioTower(audio), "text": TextTower(text, tokenizer)}


def score(model: nn.Module, held: Mapping[str, Views]) -> dict[str, float]:
    """The accuracy of the nearest class mean between any two modalities, and the mean over the pairs."""
    assert isinstance(model, Alignment)
    codes = {name: Views(model.codes(name, view.inputs), view.record) for name, view in held.items()}
    found = {f"{a} to {b}": hit_rate(codes[a], means(codes[b])) for a in codes for b in codes if a != b}
    return found | {"mean": sum(found.values()) / len(found)}
