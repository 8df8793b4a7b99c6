"""evaluate, for generators: how real, how varied and how fitting the pictures are that one draws."""

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
    """Pictures uint8 (n, c, h, w), the steps that each took, and the CPU seconds for all of them."""

    x: Tensor
    steps: int
    seconds: float


@dataclass(frozen=True, slots=True)
class Figure:
    """A value, and its 95 % interval where there is one: of other pictures of the generator, as many."""

    value: float
    low: float | None = None
    high: float | None = None

    @classmethod
    def of(cls, found: Interval, least: float = -math.inf, most: float = math.inf) -> Figure:
        """An interval as a figure; what it may be at ``least`` and at ``most`` bounds its ends."""
        return cls(found.mean, max(least, found.low), min(most, found.high))


class Real:
    """Real pictures uint8 (n, c, h, w), as what is generated is compared with them in some features."""

    def __init__(self, x: Tensor, features: Features) -> None:
        self.x, self.network = x, features
        self.features = features.features(x)
        self.moments: Moments = moments(self.features)

    def again(self, n: int, seed: int = 0) -> Tensor:
        """Numbers of n real pictures drawn with replacement: what no generator of these data can beat."""
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
    """One picture for each row of ``condition``; ``steps`` and ``guidance`` None for the method's own.

    The steps are counted beforehand, on the first row alone: to be watched costs time, since many methods
    then decode a preview after every step.
    """
    given: dict[str, Any] = {"steps": steps} | ({} if guidance is None else {"guidance": guidance})
    counted = [1]

    def count(step: int, of: int, x: Tensor) -> None:
        counted.append(of)

    def some(start: int, end: int) -> Condition:
        return condition.rows(torch.arange(start, min(end, len(condition)))).to(generator.device)

    with torch.no_grad():
        # with numbers of its own, so that the pictures do not depend on it
        generator.sample(some(0, 1), generator=torch.Generator().manual_seed(seed), watch=count, **given)
        own, parts = torch.Generator().manual_seed(seed), []
        begun = time.process_time()
        for start in range(0, len(condition), batch):
            x = generator.sample(some(start, start + batch), generator=own, **given)
            parts.append(bytes_of(x.cpu()))
        seconds = time.process_time() - begun
    return Drawn(torch.cat(parts), max(counted), seconds)


def codes_of_model(name: str, device: str = "auto") -> Codes:
    """The codes of a model's pictures, and of its words where it reads any, as features.

    Args:
        name: as ``harmonia.load_encoders`` takes it: mini, a trained model's folder, a CLIP's name, ...
        device: where it runs.

    Raises:
        HarmoniaError: it cannot be loaded, or sees no pictures.
    """
    found = load_encoders((name,), device)
    image = next(one for one in found if one.modality == "image")
    if isinstance(image, ImageDescriptor) and name != "descriptors":
        raise HarmoniaError(f"the model {name!r} sees no pictures: name one that has a tower for them")
    text = next((one for one in found if one.modality == "text" and one.space == image.space), None)
    return Codes(image, text)


def figures(
    x: Tensor,
    real: Real,
    labels: Tensor | None = None,
    *,
    words: Sequence[str] | None = None,
    draws: int = 200,
) -> dict[str, Figure]:
    """Every measure of pictures x uint8 (n, c, h, w) against real ones, by name.

    ``labels`` (n,) are the classes that were asked for, where the features come from a classifier of them;
    ``words`` (n,) the texts that were, where they are codes of a model that reads. Precision, recall, density
    and coverage are of as many real pictures as generated ones, at most.
    """
    if len(x) < 10:
        raise HarmoniaError(f"{len(x)} pictures say nothing about a generator: draw 10 at least, better 5000")
    network, f = real.network, real.features
    y = network.features(x)
    if len(f) > len(y):
        f = f[torch.randperm(len(f), generator=torch.Generator().manual_seed(0))[: len(y)]]
    fd = frechet_interval(y, real.moments, draws=draws)
    near, cover = precision_recall(y, f), density_coverage(y, f)
    found = {
        distance_name(network): Figure(frechet(moments(y), real.moments)),
        # the interval is that of the distance without its bias
        "FD at infinity": Figure(frechet_at_infinity(y, real.moments), fd.low, fd.high),
        "KD": Figure.of(kernel_interval(y, real.features)),
        "precision": Figure.of(bootstrap(near.terms)),
        "recall": Figure.of(jackknife(near.diversity, near.without), 0, 1),
        "density": Figure.of(bootstrap(cover.terms)),
        "coverage": Figure.of(jackknife(cover.diversity, cover.without), 0, 1),
    }
    if isinstance(network, Classifies):
        p = network.probabilities(x)
        found["Inception Score"] = Figure.of(inception_interval(p, draws=draws))
        if labels is not None:
            found["class accuracy"] = Figure.of(bootstrap(class_accuracy(p, labels)))
    if isinstance(network, Codes) and network.reader is not None and words is not None:
        found["text match"] = Figure.of(bootstrap(text_match(y, network.words(words))))
    return found


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
    """A table: every measure of what is drawn for ``condition``, and the same of real pictures drawn again.

    ``by`` is the network that a measure was taken with; figures by two of them do not compare.

    Args:
        generator: what draws.
        condition: a row for each picture to draw; 5,000 are usual here.
        real: the pictures that it learned, in the features of a judge that has not guided it.
        labels: (n,) the classes that ``condition`` asks for.
        real_labels: those of the real pictures.
        words: (n,) the texts that ``condition`` tells.
        real_words: one text of each real picture.
        steps: of the sampler; ``guidance`` of it; None for the method's own.
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
    return table + [_row(name, one, floor.get(name), real.network.name) for name, one in ours.items()]


def _row(measure: str, ours: Figure, real: Figure | None = None, by: str | None = None) -> dict[str, Any]:
    return {
        "measure": measure,
        "value": ours.value,
        "low": ours.low,
        "high": ours.high,
        "real": real.value if real else None,
        "by": by,
    }


def summary(found: Mapping[str, Figure]) -> dict[str, float]:
    """The values alone; the Frechet distance, whatever its features, is called FD."""
    return {"FD" if name.startswith(("FD (", "FID")) else name: f.value for name, f in found.items()}
