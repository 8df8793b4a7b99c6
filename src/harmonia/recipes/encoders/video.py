"""Talking faces, speech and sentences: GRID (Cooke et al. 2006).

A video tower (frames and sound), an audio tower (sound only) and a text tower learn a shared space, for
retrieval between clips and sentences. A sentence has six words, each from a small set ("set white with p
three soon"), so nearly every sentence is new and the towers have to recognise words.
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

Video, audio and text towers with a shared space, trained on talking faces with the objective `{objective}`.

* Recipe: `harmonia train video` ({steps} steps of {batch} clips, seed {seed}).
* Use: `harmonia remember FOLDER --model THIS_FOLDER`, or `harmonia.load_encoders((folder,))`.
* Data and licence: GRID, free for research; {clips} clips.
* Limits: trained on the 51 words of GRID by its speakers; word order is ignored. {frames} frames of a clip
  are too few for lip reading.
"""

PAIRS = (("video", "text"), ("audio", "text"))


@dataclass(frozen=True, kw_only=True)
class VideoSettings(RunSettings):
    """Settings of `video`: ``frames`` of each clip, of ``resolution`` x ``resolution`` pixels."""

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
    """Clips, prepared by the towers; ``held`` is the held-out split."""

    tokenizer: Tokenizer
    train: dict[str, Views]
    held: dict[str, Views]


def video(data: Path | None = None, settings: VideoSettings = SETTINGS) -> Run:
    """Talking faces, speech and sentences (GRID): retrieval of sentences by clip or sound, and the
    reverse."""
    s = settings
    clips = load(data, s)
    torch.manual_seed(s.seed)
    model = Alignment(towers(s, clips.tokenizer), AlignmentConfig(objective=s.objective, pairs=PAIRS))
    tower = model.towers["video"]
    assert isinstance(tower, VideoTower)
    dataset = Pairs(clips.train, augment={"video": partial(vary_video, tower), "audio": vary})
    return run_of(
        "video", s, model, dataset, CARD, batch=s.batch, warmup=20, clip=None,
        evaluate=partial(score, held=clips.held), monitor="recall@1", facts={"clips": len(dataset)},
    )  # fmt: skip


def towers(settings: VideoSettings, tokenizer: Tokenizer) -> dict[str, Tower]:
    """Residual towers of images and sound, and a bag of words: in GRID a word determines its place."""
    s = settings
    video = VideoConfig(
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
    return {"video": VideoTower(video), "audio": AudioTower(sound), "text": TextTower(text, tokenizer)}


@cache
def load(data: Path | None, settings: VideoSettings) -> Clips:
    """The prepared dataset; the tokenizer is trained on the training sentences."""
    train, held = (list(with_sound(grid(data, split))) for split in ("train", "test"))
    sentences = [part.text for record in train for part in record.parts if part.text]
    tokenizer = train_tokenizer(sentences, settings.vocabulary)
    own = towers(settings, tokenizer)
    return Clips(tokenizer, prepared(train, own), prepared(held, own))


def with_sound(records: Iterator[Record | Problem]) -> Iterator[Record]:
    """Records with the sound of their videos as an additional part."""
    for record in records:
        if isinstance(record, Record):
            sounds = tuple(Part("audio", path=part.path) for part in record.parts if part.modality == "video")
            yield Record(record.id, record.parts + sounds, record.metadata)


def vary(mels: Tensor, generator: torch.Generator) -> Tensor:
    """Log-mel spectrograms (n, mels, frames) shifted in time by up to a tenth of a second, and masked."""
    frames = mels.shape[2]
    shift = torch.randint(-10, 11, (len(mels), 1), generator=generator)
    place = (torch.arange(frames) + shift).clamp(0, frames - 1)
    moved = mels.gather(2, place[:, None].expand_as(mels))
    return mask_spectrograms(moved, generator, time=(2, 0.05))


def vary_video(tower: VideoTower, inputs: Tensor, generator: torch.Generator) -> Tensor:
    """Packed videos with augmented sound."""
    frames, mels, known = tower.unpack(inputs)
    return tower.pack(frames, vary(mels, generator), known)


def score(model: nn.Module, held: Mapping[str, Views]) -> dict[str, float]:
    """Recall@1/5 between sentences and clips or sounds; ``recall@1`` is the mean of the four directions."""
    assert isinstance(model, Alignment)
    codes = {name: model.codes(name, view.inputs) for name, view in held.items()}
    figures: dict[str, float] = {}
    for name, other in PAIRS:
        records = held[name].record, held[other].record
        found = cross_modal(codes[name], codes[other], *records, ks=(1, 5), names=(name, other))
        figures |= {key: value for key, value in found.items() if key.endswith(("/recall@1", "/recall@5"))}
    ones = [value for key, value in figures.items() if key.endswith("@1")]
    return figures | {"recall@1": sum(ones) / len(ones)}
