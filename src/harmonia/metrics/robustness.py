"""Robustness: a metric under noise on the query, or with modalities of it missing."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from itertools import combinations
from typing import Any, Literal, TypeVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from harmonia.metrics.scores import check_codes, unit
from harmonia.types import HarmoniaError, Signal

VARIANCES = (0.0, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 1.0)
"""sigma^2 of the curve; 0 is the clean query."""

# Far from the seeds that data are drawn with: noise from the same one could be the data themselves.
STREAM = 0x6E6F697365

Row = dict[str, Any]
"""One point of a curve: where it is, and the figures there, by name."""

Q = TypeVar("Q")


def noisy_codes(
    codes: Tensor,
    variance: float,
    generator: torch.Generator,
    *,
    per: Literal["vector", "component"] = "vector",
) -> Tensor:
    """Codes (n, d) scaled to unit length, with Gaussian noise, scaled to unit length again.

    ``per="vector"`` spreads the variance over the d numbers of a code: each gets sigma^2 / d, so that the
    noise has an expected squared length of sigma^2 whatever d is, and the code a cosine of about 1 / sqrt(1 +
    sigma^2) with the clean one. ``per="component"`` gives each number sigma^2: the cosine is about 1 / sqrt(1
    + d sigma^2), hence a much harder test, and one that depends on d.
    """
    check_codes(codes, "codes")
    _check_variance(variance)
    if per not in ("vector", "component"):
        raise HarmoniaError(f"noise is added per vector or per component, not per {per!r}")
    scale = (variance / codes.shape[1] if per == "vector" else variance) ** 0.5
    # Drawn on the CPU: the same noise on any device.
    noise = torch.randn(codes.shape, generator=generator, dtype=torch.float64).to(codes.device)
    return unit(unit(codes) + scale * noise).to(codes.dtype)


def noisy_signals(signals: Sequence[Signal], variance: float, generator: torch.Generator) -> list[Signal]:
    """Signals with Gaussian noise of this variance on every number, clipped to the range of the medium.

    Pixels of images and videos are on the scale [0, 1], samples of audio in [-1, 1]; a video's audio gets the
    noise too. Text has no numbers: a HarmoniaError.
    """
    _check_variance(variance)
    return [_noisy_signal(signal, variance**0.5, generator) for signal in signals]


def noise_curve(
    score: Callable[[Q], Mapping[str, float]],
    queries: Q,
    add: Callable[[Q, float, torch.Generator], Q],
    *,
    variances: Sequence[float] = VARIANCES,
    seeds: Sequence[int] = (0, 1, 2),
) -> list[Row]:
    """The figures of noisy queries: a row for each variance and seed, one for the clean query.

    It has ``variance``, ``seed`` and what ``score`` gives.

    ``add`` is `noisy_codes`, `noisy_signals` (and ``score`` then encodes them), or any other damage. A seed
    draws the same noise at every variance, only larger, so that a curve is smooth.

        noise_curve(lambda x: cross_modal(x, captions, photo_record, caption_record), photos, noisy_codes)
    """
    if not variances or not seeds:
        raise HarmoniaError("a noise curve needs one variance and one seed at least")
    return [
        {"variance": variance, "seed": seed}
        | dict(score(add(queries, variance, torch.Generator().manual_seed(STREAM + seed))))
        for variance in variances
        for seed in (seeds if variance else seeds[:1])
    ]


def missing_curve(score: Callable[[Mapping[str, Q]], Mapping[str, float]], cue: Mapping[str, Q]) -> list[Row]:
    """The figures with every subset of the cue's modalities left out but all: 2^M - 1 rows for M.

    Rows have ``missing`` (how many), ``kept`` (their names, joined by +) and what ``score`` gives for the
    rest of the cue, the whole cue first.
    """
    if not cue:
        raise HarmoniaError("the cue has no modality")
    return [
        {"missing": missing, "kept": "+".join(kept)} | dict(score({name: cue[name] for name in kept}))
        for missing in range(len(cue))
        for kept in combinations(cue, len(cue) - missing)
    ]


def area(rows: Sequence[Row], figure: str, over: str = "variance") -> float:
    """Mean height of the curve of ``figure``: the area under it by trapezoids, over its width.

    Rows at one value of ``over`` (seeds; subsets, with ``over="missing"``) are averaged first. With one value
    it is that mean.
    """
    if wrong := [name for name in (figure, over) if any(name not in row for row in rows)]:
        raise HarmoniaError(f"a row of the curve has no {wrong[0]!r}")
    if not rows:
        raise HarmoniaError("the curve has no rows")
    at = sorted({float(row[over]) for row in rows})
    height = [float(np.mean([row[figure] for row in rows if float(row[over]) == value])) for value in at]
    return float(np.trapezoid(height, at) / (at[-1] - at[0])) if len(at) > 1 else height[0]


def _noisy_signal(signal: Signal, sigma: float, generator: torch.Generator) -> Signal:
    if signal.modality == "audio":
        return replace(signal, data=_noisy(signal.array, 1.0, -1.0, sigma, generator))
    if signal.modality not in ("image", "video"):
        raise HarmoniaError(f"there is no Gaussian noise for {signal.modality}: give images, audio or videos")
    pixels = np.rint(_noisy(signal.array, 255.0, 0.0, sigma, generator) * np.float32(255.0)).astype(np.uint8)
    sound = None if signal.sound is None else _noisy_signal(signal.sound, sigma, generator)
    return replace(signal, data=pixels, sound=sound)


def _noisy(
    values: NDArray[Any], whole: float, least: float, sigma: float, generator: torch.Generator
) -> NDArray[np.float32]:
    """values / whole with noise, clipped to [least, 1], float32."""
    noise = torch.randn(values.shape, generator=generator).numpy()
    out: NDArray[np.float32] = np.clip(values.astype(np.float32) / whole + sigma * noise, least, 1.0)
    return out.astype(np.float32)


def _check_variance(variance: float) -> None:
    if not 0 <= variance < float("inf"):
        raise HarmoniaError(f"a variance is 0 or more, got {variance}")
