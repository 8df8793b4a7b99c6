"""Recaptioning as in DALL-E 3: a generator trained on descriptive captions.

Reference: Betker et al. 2023, "Improving image generation with better captions": 95 % synthetic descriptive
captions and 5 % original ones in training, and short prompts expanded before sampling. In the paper a
captioning network describes each image. Here a caption is composed by rule, from the record's name and
keywords and from measurements of the image: its colours, shape and position.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import torch
from torch import Tensor

from harmonia.datasets.registry import reader
from harmonia.generators import Condition, Generator, spell
from harmonia.metrics import bytes_of, text_match
from harmonia.pretrained.loading import load_encoders
from harmonia.recipes.encoders.text_judge import as_signals
from harmonia.recipes.generators.autoregressive import CodeSettings, vqvae_prior_of
from harmonia.recipes.generators.pictures import part_of
from harmonia.recipes.generators.run import GeneratorRun
from harmonia.types import HarmoniaError, Record, Signal

COLOURS = {
    "black": (20, 20, 20), "grey": (140, 145, 150), "white": (245, 245, 245), "red": (215, 45, 40),
    "pink": (245, 130, 160), "orange": (245, 130, 30), "yellow": (255, 205, 50), "brown": (125, 80, 60),
    "beige": (235, 195, 150), "green": (75, 150, 65), "blue": (40, 105, 190), "light blue": (110, 190, 240),
    "purple": (140, 70, 170),
}  # fmt: skip
"""Names and RGB values of colours; a pixel has the nearest one."""
GROUND = 245
"""Pixels whose channels are all at least this are the white background of emoji."""
ORIGINAL = 20
"""One caption in this many is an original one: 5 %."""
ASKED = 128
"""Number of images for measuring text match."""


@dataclass(frozen=True, kw_only=True)
class RecaptionSettings(CodeSettings):
    """Settings of `recaptioned`.

    ``length``       of the longest caption in bytes
    ``descriptive``  false trains on the original captions, for comparison
    ``languages``    of names and keywords
    """

    dataset: str = "emoji"
    condition: str = "text"
    dropout: float = 0.1
    length: int = 80
    descriptive: bool = True
    languages: str = "en"


def recaptioned(data: Path | None = None, settings: RecaptionSettings = RecaptionSettings()) -> GeneratorRun:
    """VQ-VAE with prior, conditioned on descriptive captions as DALL-E 3 is."""
    s = settings
    if (s.dataset, s.condition) != ("emoji", "text"):
        raise HarmoniaError("recaptioning needs emoji and texts: set dataset=emoji condition=text")
    captions, held = (recaption(s, split, data) for split in ("train", "val"))
    mixed = [mix(own) if s.descriptive else tuple(own) for own in captions]
    pictures = replace(s.pictures(data), texts=tuple(mixed), length=s.length)
    run = vqvae_prior_of("recaptioned", pictures, s, "Betker et al. 2023 (DALL-E 3), with captions by rule")
    figures = partial(matched, known=captions, unseen=held, settings=s)
    return replace(run, figures=figures)


def recaption(settings: RecaptionSettings, split: str, data: Path | None) -> list[dict[str, str]]:
    """For each image of a split, its names and the descriptive caption of each."""
    pictures = settings.pictures(data, split)
    found = []
    records = [r for r in reader("emoji")(data, split="all", keywords=True) if isinstance(r, Record)]
    for x, record in zip(pictures.x, part_of(records, split), strict=True):
        names = spoken(record, settings.spoken)
        seen = f"{colours(x)}; {layout(x)}"
        found.append({name: cut(f"{name}; {seen}; {tags}", settings.length) for name, tags in names.items()})
    return found


def mix(captions: Mapping[str, str]) -> tuple[str, ...]:
    """The texts to draw from: for each name, 19 times its descriptive caption and once itself."""
    return tuple(one for name, long in captions.items() for one in (*[long] * (ORIGINAL - 1), name))


def spoken(record: Record, languages: Sequence[str]) -> dict[str, str]:
    """Names of an emoji in ``languages`` (all if empty), and the keywords in the same language or ""."""
    texts = [part.text for part in record.parts if part.text]
    said: dict[str, list[str]] = {}
    for language, text in zip(record.metadata["languages"], texts, strict=True):
        if not languages or language in languages:
            said.setdefault(language, []).append(text)
    return {name: ", ".join(tags) for name, *tags in said.values()}


def colours(x: Tensor) -> str:
    """The colours with at least a seventh of the foreground of an image uint8 (3, h, w), most frequent
    first."""
    pixels = x.flatten(1).T.float()
    drawn = pixels[(pixels < GROUND).any(1)]
    if not len(drawn):
        return "white"
    anchors = torch.tensor(list(COLOURS.values()), dtype=torch.float32)
    share = torch.bincount(torch.cdist(drawn, anchors).argmin(1), minlength=len(COLOURS)) / len(drawn)
    names = list(COLOURS)
    chosen = [i for i in share.argsort(descending=True, stable=True).tolist() if share[i] >= 1 / 7]
    return " and ".join(names[i] for i in chosen[:3]) or "many colours"


def layout(x: Tensor) -> str:
    """The shape, size and position of the foreground of an image uint8 (3, h, w)."""
    drawn = (x < GROUND).any(0)
    if not drawn.any():
        return "empty"
    _, h, w = x.shape
    rows, columns = drawn.any(1).nonzero().flatten(), drawn.any(0).nonzero().flatten()
    top, bottom = rows[0] / h, (rows[-1] + 1) / h
    left, right = columns[0] / w, (columns[-1] + 1) / w
    tall, wide = float(bottom - top), float(right - left)
    shape = "tall" if tall > 1.4 * wide else "wide" if wide > 1.4 * tall else "round or square"
    size = "small" if tall * wide < 0.25 else "large" if tall * wide > 0.75 else "of middle size"
    down, across = float(top + bottom) - 1, float(left + right) - 1
    where = [name for name, there in (("top", down < -0.2), ("bottom", down > 0.2)) if there]
    where += [name for name, there in (("left", across < -0.2), ("right", across > 0.2)) if there]
    return " ".join((shape, size, *(("at the", *where) if where else ())))


def cut(text: str, length: int) -> str:
    """A text cut to whole words that fit into ``length`` bytes of UTF-8."""
    words = text.strip(" ;").split(" ")
    while words and len(" ".join(words).rstrip(",;").encode()) > length:
        words.pop()
    # for languages without spaces, whole characters
    return " ".join(words).rstrip(",;") or text.encode()[:length].decode(errors="ignore")


def expand(prompt: str, captions: Sequence[Mapping[str, str]], length: int) -> str:
    """Expand a short prompt: the descriptive caption of the most similar name, with the name replaced.

    Similarity is the cosine of trigram counts, that is, of spelling, not of meaning.
    """
    asked = trigrams(prompt)
    known = [(name, long) for own in captions for name, long in own.items()]
    name, long = max(known, key=lambda one: similarity(asked, trigrams(one[0])))
    return cut(prompt + long.removeprefix(name), length)


def trigrams(text: str) -> Counter[str]:
    """Counts of letter trigrams; word boundaries count as letters."""
    padded = f" {' '.join(text.lower().split())} "
    return Counter(padded[i : i + 3] for i in range(max(1, len(padded) - 2)))


def similarity(a: Counter[str], b: Counter[str]) -> float:
    """The cosine of two counts."""
    dot = sum(n * b[key] for key, n in a.items())
    norms: float = (sum(n * n for n in a.values()) * sum(n * n for n in b.values())) ** 0.5
    return dot / norms


def matched(
    model: Generator,
    known: Sequence[Mapping[str, str]],
    unseen: Sequence[Mapping[str, str]],
    settings: RecaptionSettings,
) -> dict[str, float]:
    """Text match of images generated from short names, minus that with the name of another (x 100).

    It is measured with mini, on which these generators are not conditioned. A model of descriptive captions
    is also evaluated with expanded prompts.
    """
    figures = {}
    for kind, captions in (("training names", known), ("unseen names", unseen)):
        names = [next(iter(own)) for own in captions[:: max(1, len(captions) // ASKED)]][:ASKED]
        figures[kind] = margin(model, names, names, settings)
        if settings.descriptive:
            longer = [expand(name, known, settings.length) for name in names]
            figures[f"{kind}, expanded"] = margin(model, longer, names, settings)
    return figures


def margin(
    model: Generator, prompts: Sequence[str], names: Sequence[str], settings: RecaptionSettings
) -> float:
    """Text match of images generated from ``prompts`` with ``names``, minus that with the names of others."""
    generator = torch.Generator().manual_seed(settings.seed)
    condition = Condition(len(prompts), text=spell(prompts, settings.length)).to(model.device)
    x = model.sample(condition, guidance=settings.guidance, generator=generator).cpu()
    towers = {encoder.modality: encoder for encoder in load_encoders(["mini"], "cpu")}
    images = torch.from_numpy(towers["image"].encode(as_signals(bytes_of(x))))
    texts = torch.from_numpy(towers["text"].encode([Signal("text", name) for name in names]))
    # shifted by a third, since neighbours in the order of Unicode are similar
    other = texts.roll(len(texts) // 3, 0)
    return float(text_match(images, texts).mean() - text_match(images, other).mean())
