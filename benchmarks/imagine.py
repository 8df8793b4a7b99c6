"""Recall, then imagine: what a generator draws of the settled state, against what it draws of the raw cue.

A memory holds every emoji with its English name and keywords. Cues are half of a picture (the lower half is
zero) or a few words (three of the keywords). Of each the shipped generator draws once from the code of the
cue itself and once, from the same noise, as `harmonia imagine` does: from what the memory settles at, or from
the cue where the memory finds nothing. Text match, x100, is the cosine of a picture's and its name's codes
by the text judge, which has an architecture and a seed of its own and conditions nothing. One of ten emoji is
a picture that the generator was not trained on.
"""

from __future__ import annotations

import argparse
import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from benchmarks.common import REPOSITORY, Row, data_folder, report, row
from harmonia.collection.collection import Memory
from harmonia.data.records import signal_of
from harmonia.encoders.towers.saved import Trained, load_towers
from harmonia.generators import Condition
from harmonia.generators.diffusion.guidance import by_encoder
from harmonia.generators.diffusion.model import Diffusion
from harmonia.metrics import bootstrap, bytes_of, text_match
from harmonia.modalities import image as pictures
from harmonia.recipes import prepare
from harmonia.recipes.encoders.text_judge import as_signals
from harmonia.recipes.generators.judge import emoji_records
from harmonia.tasks.imagine import SHIPPED, GenerationRequest, Given, Imagination, load
from harmonia.types import Record, Signal

GOAL = 3.2
SIGHT = 20.0
TOGETHER = 16


@dataclass(frozen=True, slots=True, eq=False)
class Judge:
    """The text judge: ``match`` of pictures and texts."""

    towers: Trained

    def match(self, x: Tensor, names: Sequence[str]) -> Tensor:
        """Text match x100 (n,) of pictures uint8 (n, 3, h, w), or in [-1, 1]."""
        image, text = self.towers.towers["image"], self.towers.towers["text"]
        with torch.inference_mode():
            seen = torch.cat([image(image.prepare(as_signals(part))) for part in bytes_of(x).split(64)])
            return text_match(seen, text(text.prepare([Signal("text", name) for name in names])))


def trained(name: str, quick: bool) -> Path:
    """The model of a recipe, trained once and kept in build/."""
    folder = REPOSITORY / "build" / ("imagine-quick" if quick else name) / (name if quick else "emoji")
    if not (folder / "model").exists():
        folder.mkdir(parents=True, exist_ok=True)
        changes = {"device": "cpu"} | ({"steps": "20", "batch": "16"} if quick else {})
        prepare(name, None, changes).train(folder)
    return folder / "model"


def remembered(records: Sequence[Record], folder: Path) -> Memory:
    """A memory of emoji with their English names and keywords, called by their places; made once."""
    media = folder / "media"
    media.mkdir(parents=True, exist_ok=True)
    collection = Memory(folder / "memory.harmonia")
    if not collection.exists:
        for number, record in enumerate(records):
            pictures.write(_picture(record), media / f"{number}.png")
            said = ", ".join([str(record.metadata["name"]), *_tags(record)])
            (media / f"{number}.txt").write_text(said, encoding="utf-8")
        collection.remember(media, progress=True)
    return collection


def _picture(record: Record) -> Signal:
    return signal_of(next(part for part in record.parts if part.modality == "image"))


def half(record: Record) -> Signal:
    """A picture whose lower half is zero."""
    array = np.array(_picture(record).array)
    array[len(array) // 2 :] = 0
    return Signal("image", array)


def words(record: Record) -> str:
    """A few of the words that the memory has for an emoji: its last three keywords, or else its name."""
    return " ".join(_tags(record)[-3:]) or str(record.metadata["name"])


def _tags(record: Record) -> list[str]:
    return [str(tag) for tag in record.metadata["tags"]]


def drawn(imagination: Imagination, requests: Sequence[GenerationRequest], sight: float = 0.0) -> Tensor:
    """One picture for each request, (n, 3, h, w); the same noise for the same place in the list."""
    model = imagination.saved.generator
    codes = [request.condition.code for request in requests if request.condition.code is not None]
    eye = imagination.eye() if sight else None
    random, found = torch.Generator().manual_seed(0), []
    for part in torch.cat(codes).split(TOGETHER):
        more: dict[str, Any] = {}
        if eye is not None and isinstance(model, Diffusion):
            more["guide"] = partial(by_encoder, path=model.path, encode=eye, goal=part, scale=sight)
        told = Condition(len(part), code=part)
        found.append(model.sample(told, guidance=2.0, generator=random, **more))
    return torch.cat(found)


def compare(
    what: str,
    imagination: Imagination,
    cue: Callable[[Record], Given],
    some: Mapping[int, Record],
    judge: Judge,
) -> list[Row]:
    """The rows of one kind of cue, of emoji by their places."""
    names = [str(record.metadata["name"]) for record in some.values()]
    raw, settled = (
        [imagination.request(cue(record), from_memory=way) for record in some.values()]
        for way in (False, None)
    )
    first = [
        request.found.records[0].record.metadata["name"] if request.found else None for request in settled
    ]
    right = [name == str(place) for name, place in zip(first, some, strict=True)]
    before, after = (judge.match(drawn(imagination, requests), names) for requests in (raw, settled))
    sighted = float(judge.match(drawn(imagination, settled, SIGHT), names).mean())
    gain = (after - before).double().numpy()
    low = bootstrap(gain).low
    return [
        row(f"{what}: the memory answers", 1 - first.count(None) / len(some), "share"),
        row(f"{what}: its first record is the one", float(np.mean(right)), "share"),
        row(f"{what}: text match, settled", float(after.mean()), "x100", "raw cue", float(before.mean())),
        row(f"{what}: more than the raw cue", float(gain.mean()), "points", goal=(">=", GOAL)),
        row(f"{what}: the same, lower end of its 95 % interval", low, "points"),
        row(f"{what}: text match, sight {SIGHT:g}", sighted, "x100", "settled alone", float(after.mean())),
    ]


def references(judge: Judge, records: Sequence[Record], side: int) -> list[Row]:
    """What the judge says of real pictures, as small as those that are drawn."""
    names = [str(record.metadata["name"]) for record in records]
    small = torch.stack([_small(_picture(record), side) for record in records])
    own, other = judge.match(small, names), judge.match(small, [*names[1:], names[0]])
    return [
        row("real pictures with their names", float(own.mean()), "x100"),
        row("real pictures with other names", float(other.mean()), "x100"),
    ]


def _small(signal: Signal, side: int) -> Tensor:
    scaled = np.array(pictures.preview(signal, side))
    return torch.from_numpy(scaled).permute(2, 0, 1).contiguous()


def main() -> None:
    """Run and report."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="few emoji, barely trained models: for CI")
    parser.add_argument("--generator", type=Path, help="its folder (default: the one that ships)")
    parser.add_argument("--judge", type=Path, help="folder of a text judge (default: trained here)")
    args = parser.parse_args()
    os.environ["HARMONIA_DATA"] = str(data_folder())
    torch.set_num_threads(1)
    folder = args.generator or (SHIPPED if SHIPPED.is_dir() else trained("imagine-mini", args.quick))
    saved = load(folder, "cpu")
    judge = Judge(load_towers(args.judge or trained("text-judge", args.quick)))
    records = emoji_records(None, None)[: 60 if args.quick else None]
    home = REPOSITORY / "build" / ("imagine-quick" if args.quick else "imagine")
    imagination = Imagination(saved, remembered(records, home), "cpu")
    # an even sample in which every tenth was held out, as of all
    some = {i: records[i] for i in range(4, len(records), 7 if args.quick else 13)}
    rows = references(judge, list(some.values()), saved.generator.config.shape[1])
    rows += compare("half a picture", imagination, lambda one: {"image": half(one)}, some, judge)
    rows += compare("a few words", imagination, lambda one: {"text": words(one)}, some, judge)
    report("imagine", rows, args.quick)


if __name__ == "__main__":
    main()
