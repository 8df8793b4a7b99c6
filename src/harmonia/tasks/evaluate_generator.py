"""Evaluation of generators: realism, diversity and condition match of the images."""

from __future__ import annotations

import math
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from harmonia.encoders import ImageDescriptor
from harmonia.generators import Condition, Generator
from harmonia.metrics import (
    Classifies,
    Codes,
    Features,
    Interval,
    Moments,
    bootstrap,
    bytes_of,
    class_accuracy,
    density_coverage,
    distance_name,
    frechet,
    frechet_at_infinity,
    frechet_interval,
    inception_interval,
    jackknife,
    kernel_interval,
    moments,
    precision_recall,
    text_match,
)
from harmonia.pretrained.loading import load_encoders
from harmonia.types import HarmoniaError

BATCH = 250


@dataclass(frozen=True, slots=True, eq=False)
class Drawn:
    """Generated images uint8 (n, c, h, w), the steps of each, and the CPU seconds of all."""

    x: Tensor
    steps: int
    seconds: float


@dataclass(frozen=True, slots=True)
class Figure:
    """A value and its 95 % interval, if there is one, over samples of as many images."""

    value: float
    low: float | None = None
    high: float | None = None

    @classmethod
    def of(cls, interval: Interval, least: float = -math.inf, most: float = math.inf) -> Figure:
        """The figure of an interval, clipped to the range from ``least`` to ``most``."""
        return cls(interval.mean, max(least, interval.low), min(most, interval.high))


class Real:
    """Real images uint8 (n, c, h, w) and their features, which generated images are compared with."""

    def __init__(self, x: Tensor, features: Features) -> None:
        self.x, self.network = x, features
        self.features = features.features(x)
        self.moments: Moments = moments(self.features)

    def again(self, n: int, seed: int = 0) -> Tensor:
        """Indices of n real images sampled with replacement, the reference that no generator can beat."""
        return torch.randint(len(self.x), (n,), generator=torch.Generator().manual_seed(seed))


def draw_pictures(
    generator: Generator,
    condition: Condition,
    *,
    steps: int | None = None,
    guidance: float | None = None,
    batch: int = BATCH,
    seed: int = 0,
) -> Drawn:
    """Sample one image for each row of ``condition``; ``steps`` and ``guidance`` default to the generator's.

    The steps are counted beforehand, on the first row alone, because many methods decode a preview at every
    step that is watched.
    """
    given: dict[str, Any] = {"steps": steps} | ({} if guidance is None else {"guidance": guidance})
    counted = [1]

    def count(step: int, of: int, x: Tensor) -> None:
        counted.append(of)

    def some(start: int, end: int) -> Condition:
        return condition.rows(torch.arange(start, min(end, len(condition)))).to(generator.device)

    with torch.no_grad():
        # With a random generator of its own, so that the images do not depend on the count.
        generator.sample(some(0, 1), generator=torch.Generator().manual_seed(seed), watch=count, **given)
        own, parts = torch.Generator().manual_seed(seed), []
        begun = time.process_time()
        for start in range(0, len(condition), batch):
            x = generator.sample(some(start, start + batch), generator=own, **given)
            parts.append(bytes_of(x.cpu()))
        seconds = time.process_time() - begun
    return Drawn(torch.cat(parts), max(counted), seconds)


def codes_of_model(name: str, device: str = "auto") -> Codes:
    """The image codes of a model as features, and its text codes if it encodes text.

    Args:
        name: as ``harmonia.load_encoders`` takes it: mini, the folder of a trained model, a hub name, ...
        device: of the encoders.

    Raises:
        HarmoniaError: the model cannot be loaded, or encodes no images.
    """
    encoders = load_encoders((name,), device)
    image = next(encoder for encoder in encoders if encoder.modality == "image")
    if isinstance(image, ImageDescriptor) and name != "descriptors":
        raise HarmoniaError(f"the model {name!r} encodes no images: name one with an image encoder")
    text = next((e for e in encoders if e.modality == "text" and e.space == image.space), None)
    return Codes(image, text)


def figures(
    x: Tensor,
    real: Real,
    labels: Tensor | None = None,
    *,
    words: Sequence[str] | None = None,
    draws: int = 200,
) -> dict[str, Figure]:
    """Every measure of images x uint8 (n, c, h, w) against real ones, by name.

    Args:
        x: the images.
        real: the real images and their features.
        labels: (n,) classes of the conditions, if the features are those of a classifier.
        words: (n,) texts of the conditions, if the features are codes of a model that encodes text.
        draws: of the bootstrap.

    Precision, recall, density and coverage use at most as many real images as generated ones. HarmoniaError
    for fewer than 10 images.
    """
    if len(x) < 10:
        raise HarmoniaError(
            f"cannot evaluate a generator on {len(x)} images: sample at least 10, better 5000"
        )
    network, f = real.network, real.features
    y = network.features(x)
    if len(f) > len(y):
        f = f[torch.randperm(len(f), generator=torch.Generator().manual_seed(0))[: len(y)]]
    fd = frechet_interval(y, real.moments, draws=draws)
    near, cover = precision_recall(y, f), density_coverage(y, f)
    measures = {
        distance_name(network): Figure(frechet(moments(y), real.moments)),
        # The interval belongs to this distance, which has no bias.
        "FD at infinity": Figure(frechet_at_infinity(y, real.moments), fd.low, fd.high),
        "KD": Figure.of(kernel_interval(y, real.features)),
        "precision": Figure.of(bootstrap(near.terms)),
        "recall": Figure.of(jackknife(near.diversity, near.without), 0, 1),
        "density": Figure.of(bootstrap(cover.terms)),
        "coverage": Figure.of(jackknife(cover.diversity, cover.without), 0, 1),
    }
    if isinstance(network, Classifies):
        p = network.probabilities(x)
        measures["Inception Score"] = Figure.of(inception_interval(p, draws=draws))
        if labels is not None:
            measures["class accuracy"] = Figure.of(bootstrap(class_accuracy(p, labels)))
    if isinstance(network, Codes) and network.reader is not None and words is not None:
        measures["text match"] = Figure.of(bootstrap(text_match(y, network.words(words))))
    return measures


def evaluate_generator(
    generator: Generator,
    condition: Condition,
    real: Real,
    *,
    labels: Tensor | None = None,
    real_labels: Tensor | None = None,
    words: Sequence[str] | None = None,
    real_words: Sequence[str] | None = None,
    steps: int | None = None,
    guidance: float | None = None,
    seed: int = 0,
) -> list[dict[str, Any]]:
    """Every measure of the images sampled for ``condition``, and of real images sampled with replacement.

    A row's ``by`` is the network of its features; figures of two networks are not comparable.

    Args:
        generator: the generator.
        condition: one row for each image to sample; 5,000 are usual.
        real: the training images, in the features of a network that has not guided the generator.
        labels: (n,) classes of the condition.
        real_labels: classes of the real images.
        words: (n,) texts of the condition.
        real_words: one text of each real image.
        steps: of the sampler, None for the generator's own.
        guidance: scale of the guidance, None for the generator's own.
        seed: of the noise.
    """
    drawn = draw_pictures(generator, condition, steps=steps, guidance=guidance, seed=seed)
    rows = real.again(len(condition), seed)
    ours = figures(drawn.x, real, labels, words=words)
    floor = figures(
        real.x[rows],
        real,
        None if real_labels is None else real_labels[rows],
        words=None if real_words is None else [real_words[row] for row in rows.tolist()],
        draws=2,
    )
    speed = len(condition) / max(drawn.seconds, 1e-9)
    table = [_row("sampler steps", Figure(drawn.steps)), _row("images/s of CPU", Figure(speed))]
    return table + [_row(name, figure, floor.get(name), real.network.name) for name, figure in ours.items()]


def _row(measure: str, ours: Figure, real: Figure | None = None, by: str | None = None) -> dict[str, Any]:
    return {
        "measure": measure,
        "value": ours.value,
        "low": ours.low,
        "high": ours.high,
        "real": real.value if real else None,
        "by": by,
    }


def summary(measures: Mapping[str, Figure]) -> dict[str, float]:
    """The values alone; the Frechet distance is called FD, whatever its features."""
    return {"FD" if name.startswith(("FD (", "FID")) else name: f.value for name, f in measures.items()}
