"""Pictures that a request asks for: what they are to be of, drawing them, and writing them down, marked."""

from __future__ import annotations

import tempfile
import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from PIL import Image, ImageOps
from torch import Tensor

from harmonia.collection.cues import Media, Query, RecallOptions
from harmonia.generators import Saved
from harmonia.modalities import image as pictures
from harmonia.modalities.provenance import Mark
from harmonia.server.service import Service
from harmonia.tasks.image_io import signal_of
from harmonia.tasks.imagine import GenerationRequest, Imagination
from harmonia.tasks.sampling import Sampling, Start, draw
from harmonia.types import HarmoniaError, Recollection, Signal

EVIDENCE = 5
"""Records that an answer is drawn from are told, at most this many."""

StepCallback = Callable[[int, int, Tensor], None]
"""Called after each step: the step, of how many, and the pictures (n, c, h, w) as they are by then."""


@dataclass(frozen=True, slots=True, eq=False)
class Plan:
    """What is drawn: by which generator, of what, how, from what, and the mark that says so."""

    saved: Saved
    wish: GenerationRequest
    sampling: Sampling
    start: Start
    mark: Mark


class ClientDisconnected(Exception):
    """Ends a drawing whose client has gone away."""


async def recall_for_picture(
    service: Service,
    query: Query,
    options: RecallOptions | None = None,
    *,
    must: bool = False,
) -> Recollection | None:
    """What the memory answers to draw from; None if it has nothing to say and need not (``must``)."""
    await service.work(service.generator)  # that there is none is said first
    try:
        return await service.recall(query, options or RecallOptions(EVIDENCE))
    except HarmoniaError:
        if must:
            raise
        return None


async def make_plan(
    service: Service,
    given: Mapping[str, Media],
    sampling: Sampling,
    *,
    found: Recollection | None = None,
    from_memory: bool | None = None,
    start: Callable[[Saved], Start] | None = None,
) -> Plan:
    """What cues, by modality, are to become: what the memory ``found``, or the cues as they are.

    ``from_memory`` true: what was found has to do. ``start`` makes what is begun with. ApiError 501 without a
    generator; HarmoniaError if it cannot be told any of it.
    """
    saved = await service.work(service.generator)
    use_memory = from_memory if found else False
    wish = await service.ask(lambda: Imagination(saved, service.collection).wish(given, use_memory, found))
    start_state = await service.work(lambda: start(saved)) if start else Start()
    name = saved.facts.name or type(saved.generator).__name__
    mark = Mark(name, saved.identity, wish.cue, sampling.seed, composite=start_state.known is not None)
    return Plan(saved, wish, sampling, start_state, mark)


async def draw_plan(service: Service, plan: Plan, look: StepCallback | None = None) -> list[Signal]:
    """The pictures of a plan. If this is cancelled, the drawing stops after the step that it is at."""
    unwanted = threading.Event()

    def watch(step: int, of: int, x: Tensor) -> None:
        if unwanted.is_set():
            raise ClientDisconnected
        if look is not None:
            look(step, of, x)

    def make() -> list[Signal]:
        drawn = draw(plan.saved, plan.wish.condition, plan.sampling, plan.start, watch)
        return [signal_of(x) for several in drawn for x in several]

    try:
        return await service.work(make)
    finally:
        unwanted.set()


def encode_picture(
    signal: Signal, mark: Mark, kind: str = "png", size: tuple[int, int] | None = None
) -> bytes:
    """A picture as a PNG, JPEG or WebP file that says that it was generated.

    ``size`` is the width and height to scale it to; of another shape than the picture's, its middle is kept.
    """
    if size is not None:
        drawn = ImageOps.fit(Image.fromarray(signal.array), size, Image.Resampling.LANCZOS)
        signal = replace(signal, data=np.asarray(drawn))
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / f"picture.{kind}"
        pictures.write(signal, file, mark)
        return file.read_bytes()
