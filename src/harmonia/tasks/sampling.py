"""Sampling of images into a folder: from noise, inpainting, or from a sketch."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from tqdm import tqdm

from harmonia.generators import Condition, Generator, Saved, Watch
from harmonia.generators.diffusion.glide import Glide
from harmonia.generators.diffusion.guidance import by_encoder, keep
from harmonia.generators.diffusion.model import Diffusion, Guide
from harmonia.generators.diffusion.samplers import DDIM, Predict
from harmonia.generators.diffusion.unclip import Unclip
from harmonia.modalities import image as pictures
from harmonia.modalities.provenance import Mark
from harmonia.tasks.image_io import Drawn, Gallery, Known, read_known, shape_of, tensor_of, write_grid
from harmonia.tasks.imagine import GenerationRequest
from harmonia.types import HarmoniaError

BATCH = 4
"""Images in one batch; an interrupted run keeps the batches that are done."""
PREVIEWS = 10
"""How often the preview is written during the steps of one batch."""


@dataclass(frozen=True, slots=True)
class Sampling:
    """Options of the sampler: number of images, steps and guidance scale (None: the generator's), seed.

    ``eye`` is an image encoder from samples (n, c, h, w) in [-1, 1] to codes (n, d). With a ``sight`` scale
    above 0 it guides every step toward the code of the condition (`guidance.by_encoder`).
    """

    n: int = 8
    steps: int | None = None
    guidance: float | None = None
    seed: int = 0
    sight: float = 0.0
    eye: Callable[[Tensor], Tensor] | None = None

    def __post_init__(self) -> None:
        """Check the values; HarmoniaError for one out of range."""
        if self.n < 1 or (self.steps is not None and self.steps < 1):
            raise HarmoniaError(
                f"sample at least 1 image in at least 1 step (got n={self.n}, steps={self.steps})"
            )
        if self.sight < 0 or (self.sight and self.eye is None):
            raise HarmoniaError("sight must be 0 or more, and needs an eye: pass that of the Imagination")


@dataclass(frozen=True, slots=True)
class Start:
    """The start of sampling: noise, the ``known`` part of an image, or a ``sketch`` (c, h, w) in [-1, 1].

    ``strength`` is the denoising strength for the sketch: below 1 its coarse features stay (SDEdit).
    """

    known: Known | None = None
    sketch: Tensor | None = None
    strength: float = 1.0


def draw_into(
    folder: Path,
    saved: Saved,
    request: GenerationRequest,
    sampling: Sampling,
    *,
    preview: Path | None = None,
    complete: Path | None = None,
    mask: Path | None = None,
    like: Path | None = None,
    strength: float = 0.6,
    progress: bool = False,
) -> Drawn:
    """Sample images into a folder, each written when it is done; an interrupted run keeps those.

    Args:
        folder: the output folder, made if there is none.
        saved: the generator.
        request: the condition, and its description for file names and marks.
        sampling: the options of the sampler.
        preview: a file that is rewritten with the images in progress.
        complete: an image to inpaint where it is transparent, or white in ``mask``.
        mask: the mask of ``complete``.
        like: a sketch to start from, with the denoising ``strength``.
        strength: in (0, 1]; 1 ignores the sketch.
        progress: whether to show a progress bar.

    Raises:
        HarmoniaError: a file cannot be read or written, or the generator cannot start so.
    """
    shape = shape_of(saved.generator)
    start, given = Start(), None
    if complete is not None:
        known = read_known(complete, shape, mask)
        start, given = Start(known=known), known.x.where(known.mask, torch.ones(()))
    elif like is not None:
        given = tensor_of(pictures.read(like), shape)
        start = Start(sketch=given, strength=strength)
    _check(saved.generator, start)
    cue = request.cue or "anything"
    mark = Mark(saved.facts.name or type(saved.generator).__name__, saved.identity, cue, sampling.seed,
                composite=complete is not None)  # fmt: skip
    gallery = Gallery(folder, f"{cue[:50]} {sampling.seed}", mark)
    if given is not None:
        gallery.show(given)
    bar = tqdm(desc="imagining", unit="step", disable=not progress, leave=False)

    def watch(step: int, of: int, x: Tensor) -> None:
        bar.total = of * -(-sampling.n // (1 if len(request.condition) > 1 else BATCH))
        bar.update()
        if preview is not None and (step == of or step % max(1, of // PREVIEWS) == 0):
            write_grid(x, preview, mark)

    title = f"{cue}: {request.how}"
    try:
        with bar:
            for batch in draw(saved, request.condition, sampling, start, watch):
                for x in batch:
                    gallery.add(x)
    except KeyboardInterrupt:
        if gallery.files:
            gallery.sheet(title)
        raise
    return Drawn(tuple(gallery.files), gallery.sheet(title))


@torch.no_grad()
def draw(
    saved: Saved,
    condition: Condition,
    sampling: Sampling,
    start: Start | None = None,
    watch: Watch | None = None,
) -> Iterator[Tensor]:
    """Yield batches of images (k, c, h, w), ``sampling.n`` in all.

    A condition of one row applies to every image, each from its own noise. One of n rows is a series
    (interpolation): every image starts from the same noise, so that only the condition changes.
    """
    _check(saved.generator, start or Start())
    if sampling.sight and not (isinstance(saved.generator, Diffusion) and condition.code is not None):
        kind = type(saved.generator).__name__
        raise HarmoniaError(f"--sight guides diffusion models that take codes, not this {kind}: leave it out")
    n, series = sampling.n, len(condition) > 1
    if series and len(condition) != n:
        raise HarmoniaError(f"{len(condition)} conditions for {n} images: give one condition or {n}")
    random = torch.Generator().manual_seed(sampling.seed)
    for first in range(0, n, 1 if series else BATCH):
        if series:
            random.manual_seed(sampling.seed)
        rows = torch.tensor([first]) if series else torch.zeros(min(BATCH, n - first), dtype=torch.int64)
        own = condition.rows(rows).to(saved.generator.device)
        yield _sample(saved, own, sampling, start or Start(), random, watch).cpu()


def _check(model: Generator, start: Start) -> None:
    """HarmoniaError if the model cannot start so."""
    able = isinstance(model, Diffusion) or (isinstance(model, Glide) and start.sketch is None)
    if not able and not (start.known is None and start.sketch is None):
        kind = type(model).__name__
        raise HarmoniaError(f"a {kind} cannot inpaint or start from an image: give a diffusion model")


def _sample(
    saved: Saved,
    condition: Condition,
    s: Sampling,
    start: Start,
    random: torch.Generator,
    watch: Watch | None,
) -> Tensor:
    model = saved.generator
    own: dict[str, Any] = {} if s.guidance is None else {"guidance": s.guidance}
    if isinstance(model, Glide) and start.known is not None:
        # GLIDE is trained with the known part as a condition.
        known = torch.cat([start.known.x, start.known.mask[None].float()])
        condition = replace(condition, image=known.to(model.device).expand(len(condition), -1, -1, -1))
    elif isinstance(model, Diffusion):
        return _diffused(model, condition, s, start, random, watch)
    if isinstance(model, Unclip) and condition.image is not None:
        return model.variations(condition.image, steps=s.steps, generator=random, watch=watch, **own)
    return model.sample(condition, steps=s.steps, generator=random, watch=watch, **own)


def _diffused(
    model: Diffusion,
    condition: Condition,
    s: Sampling,
    start: Start,
    random: torch.Generator,
    watch: Watch | None,
) -> Tensor:
    """Sample a diffusion from noise, a sketch or the known part, guided by the eye if there is one."""
    more: dict[str, Any] = {}
    guides: list[Guide] = []
    if s.sight and s.eye is not None and condition.code is not None:
        guides.append(partial(by_encoder, path=model.path, encode=s.eye, goal=condition.code, scale=s.sight))
    if start.sketch is not None:
        more = {
            "begin": start.sketch.to(model.device).expand(len(condition), -1, -1, -1),
            "start": start.strength,
        }
    elif start.known is not None:
        x, mask = start.known.x.to(model.device), start.known.mask.to(model.device)
        guides.append(partial(keep, path=model.path, known=x, mask=mask))
        # New noise in every step lets the known part influence the rest (as in RePaint).
        more = {"sampler": DDIM(eta=1.0)}

    def guide(predict: Predict) -> Predict:
        for modify in guides:
            predict = modify(predict)
        return predict

    return model.sample(
        condition, steps=s.steps, guidance=s.guidance, generator=random, watch=watch, guide=guide, **more
    )
