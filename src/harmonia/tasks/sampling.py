"""Drawing what was wished for: from noise, around what is known, or from a sketch; into a folder."""

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

TOGETHER = 4
"""Pictures that are drawn at once: who stops has those before them."""
PREVIEWS = 10
"""How often, of the steps of a picture, the preview is written anew."""


@dataclass(frozen=True, slots=True)
class Sampling:
    """How many pictures, in how many steps, how near to the cue (None: the generator's own), which seed.

    ``eye`` gives codes (n, d) of samples (n, c, h, w) in [-1, 1]; with a ``sight`` above 0 every step is also
    guided to where they are like the code that was asked for (`guidance.by_encoder`).
    """

    n: int = 8
    steps: int | None = None
    guidance: float | None = None
    seed: int = 0
    sight: float = 0.0
    eye: Callable[[Tensor], Tensor] | None = None

    def __post_init__(self) -> None:
        """Refuse what cannot be meant."""
        if self.n < 1 or (self.steps is not None and self.steps < 1):
            raise HarmoniaError(f"draw at least 1 picture in at least 1 step (got {self.n} in {self.steps})")
        if self.sight < 0 or (self.sight and self.eye is None):
            raise HarmoniaError("sight is 0 or more, and needs an eye: that of the Imagination")


@dataclass(frozen=True, slots=True)
class Start:
    """What to begin with: nothing, what is ``known`` of the picture, or a ``sketch`` (c, h, w) in [-1, 1].

    ``strength`` is how far to go from the sketch: below 1 its coarse features stay (SDEdit).
    """

    known: Known | None = None
    sketch: Tensor | None = None
    strength: float = 1.0


def draw_into(
    folder: Path,
    saved: Saved,
    wish: GenerationRequest,
    sampling: Sampling,
    *,
    preview: Path | None = None,
    complete: Path | None = None,
    mask: Path | None = None,
    like: Path | None = None,
    strength: float = 0.6,
    progress: bool = False,
) -> Drawn:
    """Draw pictures into a folder, each written when it is done; if stopped, those that are done are there.

    ``preview`` is a file that shows the pictures as they come to be; ``complete`` a picture of which what is
    transparent, or white in ``mask``, is to be drawn; ``like`` a sketch to start from, gone from as far as
    ``strength``. HarmoniaError for files that cannot be read or written.
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
    cue = wish.cue or "anything"
    mark = Mark(saved.facts.name or type(saved.generator).__name__, saved.identity, cue, sampling.seed,
                composite=complete is not None)  # fmt: skip
    gallery = Gallery(folder, f"{cue[:50]} {sampling.seed}", mark)
    if given is not None:
        gallery.show(given)
    bar = tqdm(desc="imagining", unit="step", disable=not progress, leave=False)

    def watch(step: int, of: int, x: Tensor) -> None:
        bar.total = of * -(-sampling.n // (1 if len(wish.condition) > 1 else TOGETHER))
        bar.update()
        if preview is not None and (step == of or step % max(1, of // PREVIEWS) == 0):
            write_grid(x, preview, mark)

    title = f"{cue}: {wish.how}"
    try:
        with bar:
            for several in draw(saved, wish.condition, sampling, start, watch):
                for x in several:
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
    """Pictures (k, c, h, w), some at a time, ``sampling.n`` together.

    A condition of one row is that of all of them, each from other random numbers. One of n rows is a series
    (from one memory to another): each from the same random numbers, so that only the condition changes.
    """
    _check(saved.generator, start or Start())
    if sampling.sight and not (isinstance(saved.generator, Diffusion) and condition.code is not None):
        kind = type(saved.generator).__name__
        raise HarmoniaError(f"an encoder guides diffusion models that are told codes, not this {kind}")
    n, series = sampling.n, len(condition) > 1
    if series and len(condition) != n:
        raise HarmoniaError(f"there are {len(condition)} conditions for {n} pictures")
    random = torch.Generator().manual_seed(sampling.seed)
    for first in range(0, n, 1 if series else TOGETHER):
        if series:
            random.manual_seed(sampling.seed)
        rows = torch.tensor([first]) if series else torch.zeros(min(TOGETHER, n - first), dtype=torch.int64)
        told = condition.rows(rows).to(saved.generator.device)
        yield _sample(saved, told, sampling, start or Start(), random, watch).cpu()


def _check(model: Generator, start: Start) -> None:
    """HarmoniaError if the model cannot begin so."""
    able = isinstance(model, Diffusion) or (isinstance(model, Glide) and start.sketch is None)
    if not able and not (start.known is None and start.sketch is None):
        kind = type(model).__name__
        raise HarmoniaError(f"a {kind} cannot draw from a part or a sketch: give a diffusion's folder")


def _sample(
    saved: Saved, told: Condition, s: Sampling, start: Start, random: torch.Generator, watch: Watch | None
) -> Tensor:
    model = saved.generator
    own: dict[str, Any] = {} if s.guidance is None else {"guidance": s.guidance}
    if isinstance(model, Glide) and start.known is not None:
        # it was trained to be told the rest
        known = torch.cat([start.known.x, start.known.mask[None].float()])
        told = replace(told, image=known.to(model.device).expand(len(told), -1, -1, -1))
    elif isinstance(model, Diffusion):
        return _diffused(model, told, s, start, random, watch)
    if isinstance(model, Unclip) and told.image is not None:
        return model.variations(told.image, steps=s.steps, generator=random, watch=watch, **own)
    return model.sample(told, steps=s.steps, generator=random, watch=watch, **own)


def _diffused(
    model: Diffusion, told: Condition, s: Sampling, start: Start, random: torch.Generator, watch: Watch | None
) -> Tensor:
    """From noise, from a sketch, or around what is known; by the eye, if there is one."""
    more: dict[str, Any] = {}
    guides: list[Guide] = []
    if s.sight and s.eye is not None and told.code is not None:
        guides.append(partial(by_encoder, path=model.path, encode=s.eye, goal=told.code, scale=s.sight))
    if start.sketch is not None:
        more = {"begin": start.sketch.to(model.device).expand(len(told), -1, -1, -1), "start": start.strength}
    elif start.known is not None:
        x, mask = start.known.x.to(model.device), start.known.mask.to(model.device)
        guides.append(partial(keep, path=model.path, known=x, mask=mask))
        # new noise in every step: what is known then reaches what is drawn, and ends as it is
        more = {"sampler": DDIM(eta=1.0)}

    def guide(predict: Predict) -> Predict:
        for one in guides:
            predict = one(predict)
        return predict

    return model.sample(
        told, steps=s.steps, guidance=s.guidance, generator=random, watch=watch, guide=guide, **more
    )
