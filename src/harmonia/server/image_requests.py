"""Image generation for requests: condition, sampling, and encoding with the mark of generated media."""

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
"""Most records recalled as the evidence of an image."""

StepCallback = Callable[[int, int, Tensor], None]
"""Called after each sampling step with the step, the number of steps, and the images (n, c, h, w)."""


@dataclass(frozen=True, slots=True, eq=False)
class Plan:
    """A generation: the generator, the request, the sampling options, the start, and the mark."""

    saved: Saved
    request: GenerationRequest
    sampling: Sampling
    start: Start
    mark: Mark


class ClientDisconnected(Exception):
    """Stops the sampling for a client that has disconnected."""


async def recall_for_picture(
    service: Service,
    query: Query,
    options: RecallOptions,
    *,
    must: bool = False,
) -> Recollection | None:
    """The recollection to condition on; None if the recall fails and not ``must``.

    ``options.where`` has the condition on what the caller may see.
    """
    await service.work(service.generator)  # fail early without a generator
    try:
        return await service.recall(query, options)
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
    """Plan images of cues (``given``, by modality): of the recollection ``found``, or of the cues themselves.

    ``from_memory`` true requires the recollection. ``start`` makes the starting point of sampling. ApiError
    501 without a generator; HarmoniaError if the generator can use neither as a condition.
    """
    saved = await service.work(service.generator)
    use_memory = from_memory if found else False
    imagination = await service.ask(lambda: Imagination(saved, service.collection))
    asked = await service.ask(lambda: imagination.request(given, use_memory, found))
    start_state = await service.work(lambda: start(saved)) if start else Start()
    name = name_of(saved)
    mark = Mark(name, saved.identity, asked.cue, sampling.seed, composite=start_state.known is not None)
    return Plan(saved, asked, sampling, start_state, mark)


def name_of(saved: Saved) -> str:
    """The name of a generator."""
    return saved.facts.name or type(saved.generator).__name__


async def draw_plan(service: Service, plan: Plan, look: StepCallback | None = None) -> list[Signal]:
    """Generate the images of a plan. Cancellation stops the sampling after the current step."""
    unwanted = threading.Event()

    def watch(step: int, of: int, x: Tensor) -> None:
        if unwanted.is_set():
            raise ClientDisconnected
        if look is not None:
            look(step, of, x)

    def make() -> list[Signal]:
        drawn = draw(plan.saved, plan.request.condition, plan.sampling, plan.start, watch)
        return [signal_of(x) for several in drawn for x in several]

    try:
        return await service.work(make)
    finally:
        unwanted.set()


def encode_picture(
    signal: Signal, mark: Mark, kind: str = "png", size: tuple[int, int] | None = None
) -> bytes:
    """Encode an image as PNG, JPEG or WebP, marked as generated in its metadata.

    ``size`` is the (width, height) to scale to; the image is cropped around its centre to that aspect ratio.
    """
    if size is not None:
        drawn = ImageOps.fit(Image.fromarray(signal.array), size, Image.Resampling.LANCZOS)
        signal = replace(signal, data=np.asarray(drawn))
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / f"picture.{kind}"
        pictures.write(signal, file, mark)
        return file.read_bytes()
