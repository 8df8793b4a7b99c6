"""Autoencoders on image files: reconstruction, denoising, and novelty scores."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor
from tqdm import tqdm

from harmonia.collection.collection import Memory
from harmonia.generators import Saved, autoencoders
from harmonia.generators.autoencoders.base import AutoencoderBase
from harmonia.modalities import image as pictures
from harmonia.modalities.provenance import Mark
from harmonia.tasks.image_io import Drawn, Gallery, shape_of, tensor_of
from harmonia.types import HarmoniaError, Record

SHIPPED = Path(autoencoders.__file__).parent / "mini"
"""The folder of the autoencoder that ships."""
BATCH = 64
MOST = 1000
"""Maximum number of the memory's images that new ones are compared with; of more, an even sample."""


@dataclass(frozen=True, slots=True)
class Novelty:
    """The novelty of an image.

    ``score`` is the autoencoder's, per pixel and channel: for a VAE the negative ELBO in nats. ``rank`` is
    the share of the memory's own images with a lower score, None without a memory.
    """

    file: Path
    score: float
    rank: float | None


def autoencoder_of(saved: Saved) -> AutoencoderBase:
    """The generator as an autoencoder; HarmoniaError if it is not one."""
    if not isinstance(saved.generator, AutoencoderBase):
        kind = type(saved.generator).__name__
        raise HarmoniaError(f"a {kind} is not an autoencoder: give the folder of one, such as a VAE")
    shape_of(saved.generator)
    return saved.generator


@torch.inference_mode()
def reconstruct(
    saved: Saved, files: Sequence[Path], *, noisy: bool = False
) -> Iterator[tuple[Tensor, Tensor]]:
    """Yield each image as the network takes it, and its reconstruction, both (c, h, w) in [-1, 1].

    ``noisy`` denoises instead, which a denoising autoencoder is trained for. HarmoniaError for a file that is
    not an image.
    """
    autoencoder = autoencoder_of(saved)
    function: Callable[[Tensor], Tensor] = autoencoder.denoise if noisy else autoencoder.reconstruct
    for file in files:
        x = tensor_of(pictures.read(file), shape_of(autoencoder))
        yield x, function(x[None].to(autoencoder.device))[0].cpu()


def reconstruct_into(folder: Path, saved: Saved, files: Sequence[Path], *, noisy: bool = False) -> Drawn:
    """Write each reconstruction into a folder, and a contact sheet of the images before and after."""
    name = "denoised" if noisy else "reconstructed"
    mark = Mark(saved.facts.name or type(saved.generator).__name__, saved.identity)
    pairs = reconstruct(saved, files, noisy=noisy)
    gallery = Gallery(folder, name, mark)
    for file, (before, after) in zip(files, pairs, strict=True):
        gallery.show(before)
        gallery.add(after, file.stem, file.name)
    return Drawn(tuple(gallery.files), gallery.sheet(f"{name}: before, after"))


def novelty(
    saved: Saved, files: Sequence[Path], collection: Memory | None = None, *, progress: bool = False
) -> list[Novelty]:
    """The novelty of images by an autoencoder, ranked among the images of a memory; the most novel first."""
    autoencoder = autoencoder_of(saved)
    new = _scores(autoencoder, [tensor_of(pictures.read(file), shape_of(autoencoder)) for file in files])
    own = None
    if collection is not None and collection.exists:
        own = _scores(autoencoder, list(_remembered(autoencoder, collection, progress)))
    scores = [
        Novelty(file, score, _share_below(own, score))
        for file, score in zip(files, new.tolist(), strict=True)
    ]
    return sorted(scores, key=lambda novelty: -novelty.score)


def _share_below(own: Tensor | None, score: float) -> float | None:
    return None if own is None or not len(own) else float((own < score).float().mean())


@torch.inference_mode()
def _scores(autoencoder: AutoencoderBase, x: Sequence[Tensor]) -> Tensor:
    """Scores (n,) per pixel and channel."""
    blocks = [torch.stack(list(x[i : i + BATCH])) for i in range(0, len(x), BATCH)]
    scores = [autoencoder.score(block.to(autoencoder.device)).cpu() for block in blocks]
    return torch.cat(scores) / math.prod(autoencoder.config.shape) if scores else torch.zeros(0)


def _remembered(autoencoder: AutoencoderBase, collection: Memory, progress: bool) -> Iterator[Tensor]:
    """The images of the memory that can still be read."""
    files = sorted({path for record in collection.store.records() for path in _files(record)})
    files = files[:: math.ceil(len(files) / MOST)] if files else []
    for file in tqdm(files, desc="scoring the memory", unit="image", delay=1.0, disable=not progress):
        try:
            yield tensor_of(pictures.read(collection.root / file), shape_of(autoencoder))
        except HarmoniaError:  # missing or changed since: compare with the others
            continue


def _files(record: Record) -> Iterator[str]:
    return (part.path for part in record.parts if part.modality == "image" and part.path)
