"""Talking faces, their sound, and the sentence that is spoken: GRID (Cooke et al. 2006).

A video tower (frames and sound), an audio tower (the sound alone) and a text tower learn one space, in which
a clip finds its sentence and a sentence its clip. A sentence is six words, one of a few for each place ("set
white with p three soon"), and so is new in nearly every clip: what is learned is to tell the words.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cache, partial
from pathlib import Path

import torch
from tokenizers import Tokenizer
from torch import Tensor, nn

from harmonia.data.records import Problem
from harmonia.datasets.grid_corpus import grid
from harmonia.encoders.alignment import Alignment, AlignmentConfig
from harmonia.encoders.alignment.model import Objective
from harmonia.encoders.towers.audio import AudioConfig, AudioTower
from harmonia.encoders.towers.base import Tower
from harmonia.encoders.towers.text_motion import TextConfig, TextTower
from harmonia.encoders.towers.tokenizer import train_tokenizer
from harmonia.encoders.towers.video import VideoConfig, VideoTower
from harmonia.metrics import cross_modal
from harmonia.recipes.run import Run, RunSettings, prepared, run_of
from harmonia.training.augment import mask_spectrograms
from harmonia.training.record_arrays import Pairs, Views
from harmonia.types import Part, Record

CARD = """# video

Video, audio and text towers of one space, trained on talking faces with the objective `{objective}`.

* Recipe: `harmonia train video` ({steps} steps of {batch} clips, seed {seed}).
* Use: `harmonia remember FOLDER --model THIS_FOLDER`, or `harmonia.load_encoders((folder,))`.
* Data and licence: GRID, free for research; {clips} clips.
* Limits: it knows the 51 words of GRID, spoken by the speakers that it has heard; where a word stands in a
  sentence is nothing to it. It reads lips from {frames} frames of a clip at most, which is next to nothing.
"""

PAIRS = (("video", "text"), ("audio", "text"))


@dataclass(frozen=True, kw_only=True)
class VideoSettings(RunSettings):
    """``frames`` of a clip that are seen, each of ``resolution`` pixels squared."""

    objective: Objective = "clip"
    size: str = "tiny"
    resolution: int = 32
    frames: int = 4
    seconds: float = 3.0
    mels: int = 64
    vocabulary: int = 512
    length: int = 24
    dim: int = 128
    steps: int = 300
    batch: int = 64


SETTINGS = VideoSettings()


@dataclass(frozen=True, slots=True, eq=False)
class Clips:
    """Clips as the towers take them; ``held`` is what they are scored on."""

    tokenizer: Tokenizer
    train: dict[str, Views]
    held: dict[str, Views]


def video(data: Path | None = None, settings: VideoSettings = SETTINGS) -> Run:
    """Talking faces, speech and sentences (GRID): a clip or its sound finds what is said, and the reverse."""
    s = settings
    clips = load(data, s)
    torch.manual_seed(s.seed)
    model = Alignment(towers(s, clips.tokenizer), AlignmentConfig(objective=s.objective, pairs=PAIRS))
    film = model.towers["video"]
    assert isinstance(film, VideoTower)
    dataset = Pairs(clips.train, augment={"video": partial(vary_video, film), "audio": vary})
    return run_of(
        "video", s, model, dataset, CARD, batch=s.batch, warmup=20, clip=None,
        evaluate=partial(score, held=clips.held), monitor="recall@1", facts={"clips": len(dataset)},
    )  # fmt: skip


def towers(settings: VideoSettings, tokenizer: Tokenizer) -> dict[str, Tower]:
    """Residual towers of pictures and sound, and a bag of words: no word of GRID can stand in two places."""
    s = settings
    film = VideoConfig(
        size=s.size,
        dim=s.dim,
        kind="residual",
        resolution=s.resolution,
        frames=s.frames,
        seconds=s.seconds,
        mels=s.mels,
    )
    sound = AudioConfig(size=s.size, dim=s.dim, kind="residual", seconds=s.seconds, mels=s.mels)
    text = TextConfig(size=s.size, dim=s.dim, vocabulary=s.vocabulary, length=s.length, blocks=0)
    return {"video": VideoTower(film), "audio": AudioTower(sound), "text": TextTower(text, tokenizer)}


@cache
def load(data: Path | None, settings: VideoSettings) -> Clips:
    """The dataset, prepared; the tokenizer learns from the training sentences."""
    train, held = (list(heard(grid(data, split))) for split in ("train", "test"))
    sentences = [part.text for record in train for part in record.parts if part.text]
    tokenizer = train_tokenizer(sentences, settings.vocabulary)
    own = towers(settings, tokenizer)
    return Clips(tokenizer, prepared(train, own), prepared(held, own))


def heard(records: Iterator[Record | Problem]) -> Iterator[Record]:
    """Records with the sound of their videos as a part of its own."""
    for record in records:
        if isinstance(record, Record):
            sounds = tuple(Part("audio", path=part.path) for part in record.parts if part.modality == "video")
            yield Record(record.id, record.parts + sounds, record.metadata)


def vary(mels: Tensor, generator: torch.Generator) -> Tensor:
    """Log-mel spectrograms (n, mels, frames) moved in time by up to a tenth of a second, and masked."""
    frames = mels.shape[2]
    shift = torch.randint(-10, 11, (len(mels), 1), generator=generator)
    place = (torch.arange(frames) + shift).clamp(0, frames - 1)
    moved = mels.gather(2, place[:, None].expand_as(mels))
    return mask_spectrograms(moved, generator, time=(2, 0.05))


def vary_video(tower: VideoTower, inputs: Tensor, generator: torch.Generator) -> Tensor:
    """Packed videos with their sound varied."""
    frames, mels, known = tower.unpack(inputs)
    return tower.pack(frames, vary(mels, generator), known)


def score(model: nn.Module, held: Mapping[str, Views]) -> dict[str, float]:
    """Recall@1/5 of sentences by clip and by sound, and back; ``recall@1`` is the mean of the four."""
    assert isinstance(model, Alignment)
    codes = {name: model.codes(name, view.inputs) for name, view in held.items()}
    figures: dict[str, float] = {}
    for name, other in PAIRS:
        records = held[name].record, held[other].record
        found = cross_modal(codes[name], codes[other], *records, ks=(1, 5), names=(name, other))
        figures |= {key: value for key, value in found.items() if key.endswith(("/recall@1", "/recall@5"))}
    ones = [value for key, value in figures.items() if key.endswith("@1")]
    return figures | {"recall@1": sum(ones) / len(ones)}
