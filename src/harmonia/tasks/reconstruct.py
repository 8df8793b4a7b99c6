"""What an autoencoder says of pictures: what it keeps of them, without damage, and how strange they are."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor
from tqdm import tqdm

from harmonia.collection.collection import Collection
from harmonia.generators import Saved
from harmonia.generators.autoencoders.base import AutoencoderBase
from harmonia.modalities import image as pictures
from harmonia.modalities.provenance import Mark
from harmonia.tasks.image_io import Drawn, Gallery, shape_of, tensor_of
from harmonia.types import HarmoniaError, Record

BATCH = 64
MOST = 1000
"""Pictures of the memory that new ones are compared with: an even sample where there are more."""


@dataclass(frozen=True, slots=True)
class Strangeness:
    """How unlike what is known a picture is.

    ``score`` is the model's, for each pixel and channel: of a VAE its negative ELBO in nats. ``rank`` is the
    share of the memory's own pictures that are less strange; None without a memory.
    """

    file: Path
    score: float
    rank: float | None


def coder_of(saved: Saved) -> AutoencoderBase:
    """The generator as an autoencoder; HarmoniaError if it is none."""
    if not isinstance(saved.generator, AutoencoderBase):
        kind = type(saved.generator).__name__
        raise HarmoniaError(f"a {kind} is no autoencoder: give the folder of one, such as a VAE")
    shape_of(saved.generator)
    return saved.generator


@torch.inference_mode()
def reconstruct(
    saved: Saved, files: Sequence[Path], *, noisy: bool = False
) -> Iterator[tuple[Tensor, Tensor]]:
    """Each picture as the network sees it, and what it makes of it, (c, h, w) both in [-1, 1].

    ``noisy`` has it undo damage, which a denoising autoencoder is trained for. HarmoniaError for a file that
    is no picture.
    """
    coder = coder_of(saved)
    turn: Callable[[Tensor], Tensor] = coder.denoise if noisy else coder.reconstruct
    for file in files:
        x = tensor_of(pictures.read(file), shape_of(coder))
        yield x, turn(x[None].to(coder.device))[0].cpu()


def reconstruct_into(folder: Path, saved: Saved, files: Sequence[Path], *, noisy: bool = False) -> Drawn:
    """Write what is made of each picture into a folder, with a contact sheet of pictures before and after."""
    name = "denoised" if noisy else "reconstructed"
    mark = Mark(saved.facts.name or type(saved.generator).__name__, saved.identity)
    made = reconstruct(saved, files, noisy=noisy)
    gallery = Gallery(folder, name, mark)
    for file, (before, after) in zip(files, made, strict=True):
        gallery.show(before)
        gallery.add(after, file.stem, file.name)
    return Drawn(tuple(gallery.files), gallery.sheet(f"{name}: before, after"))


def strangeness(
    saved: Saved, files: Sequence[Path], collection: Collection | None = None, *, progress: bool = False
) -> list[Strangeness]:
    """How unlike what the autoencoder knows pictures are, beside those of a memory; strangest first."""
    coder = coder_of(saved)
    new = _scores(coder, [tensor_of(pictures.read(file), shape_of(coder)) for file in files])
    own = None
    if collection is not None and collection.exists:
        own = _scores(coder, list(_remembered(coder, collection, progress)))
    found = [
        Strangeness(file, score, _share_below(own, score))
        for file, score in zip(files, new.tolist(), strict=True)
    ]
    return sorted(found, key=lambda one: -one.score)


def _share_below(own: Tensor | None, score: float) -> float | None:
    return None if own is None or not len(own) else float((own < score).float().mean())


@torch.inference_mode()
def _scores(coder: AutoencoderBase, x: Sequence[Tensor]) -> Tensor:
    """(n,), for each pixel and channel."""
    blocks = [torch.stack(list(x[i : i + BATCH])) for i in range(0, len(x), BATCH)]
    scores = [coder.score(block.to(coder.device)).cpu() for block in blocks]
    return torch.cat(scores) / math.prod(coder.config.shape) if scores else torch.zeros(0)


def _remembered(coder: AutoencoderBase, collection: Collection, progress: bool) -> Iterator[Tensor]:
    """The memory's pictures, those that can still be read."""
    files = sorted({path for record in collection.store.records() for path in _files(record)})
    files = files[:: math.ceil(len(files) / MOST)] if files else []
    for file in tqdm(files, desc="the memory", unit="picture", delay=1.0, disable=not progress):
        try:
            yield tensor_of(pictures.read(collection.root / file), shape_of(coder))
        except HarmoniaError:  # gone or changed since: the others are what it is compared with
            continue


def _files(record: Record) -> Iterator[str]:
    return (part.path for part in record.parts if part.modality == "image" and part.path)
