"""How good and how varied generated pictures are, and whether they show what was asked for.

All take features (n, d) or probabilities (n, c), not pictures: which network they come from is the caller's
choice (``harmonia.metrics.features``) and belongs beside the figure.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from harmonia.metrics.scores import check_codes, check_labels, check_pair, row_blocks, unit
from harmonia.types import HarmoniaError

ROWS = 512
"""Rows of a matrix of distances made at a time."""


@dataclass(frozen=True, slots=True)
class Estimate:
    """The mean over blocks, and the standard deviation between them."""

    value: float
    deviation: float


@dataclass(frozen=True, slots=True)
class Manifold:
    """Precision and recall, or density and coverage: whether samples are real, whether real ones are met."""

    fidelity: float
    diversity: float


def kernel_distance(
    x: Tensor, y: Tensor, *, block: int = 1000, blocks: int = 20, degree: int = 3, seed: int = 0
) -> Estimate:
    """Kernel distance (KID; Binkowski et al. 2018) of features x (n, d) and y (m, d).

    The unbiased estimate of MMD^2 with the kernel (x.y / d + 1)^degree, the mean over ``blocks`` random pairs
    of subsets of ``block`` rows; its expected value is 0 for equal distributions at any size, so it may come
    out below 0. Smaller subsets if there are fewer rows, and one of all where both have as many.
    """
    check_pair(x, y)
    size = min(block, len(x), len(y))
    if size < 2 or blocks < 1:
        raise HarmoniaError(
            f"a kernel distance needs two rows of each and blocks >= 1, got {size} and {blocks}"
        )
    whole = size == len(x) == len(y)
    generator = torch.Generator().manual_seed(seed)
    found = torch.tensor(
        [
            _mmd(_some(x, size, generator), _some(y, size, generator), degree)
            for _ in range(1 if whole else blocks)
        ],
        dtype=torch.float64,
    )
    return Estimate(float(found.mean()), float(found.std(correction=0)))


def inception_score(probabilities: Tensor, *, splits: int = 10, seed: int = 0) -> Estimate:
    """Inception Score (Salimans et al. 2016): exp of the mean KL(p(y|x) || p(y)), of ``splits`` random parts.

    From 1 (every picture looks the same to the classifier) to the number of classes (certain, and all classes
    equally often); ``probabilities`` (n, c) may be exactly 0 or 1. It does not see how a class varies.
    """
    check_codes(probabilities, "probabilities", least=splits)
    p = probabilities.double()
    if bool((p < 0).any()) or not torch.allclose(p.sum(1), torch.ones(len(p), dtype=p.dtype), atol=1e-4):
        raise HarmoniaError("an Inception Score needs probabilities: rows that are not negative and sum to 1")
    order = torch.randperm(len(p), generator=torch.Generator().manual_seed(seed))
    scores = []
    for part in p[order].tensor_split(splits):
        mean = part.mean(0)
        scores.append((torch.xlogy(part, part) - torch.xlogy(part, mean)).sum(1).mean().exp())
    values = torch.stack(scores)
    return Estimate(float(values.mean()), float(values.std(correction=0)))


def precision_recall(x: Tensor, real: Tensor, *, k: int = 3) -> Manifold:
    """Improved precision and recall (Kynkaanniemi et al. 2019) of generated features x and ``real`` ones.

    Precision is the share of x that lies in the ball of some real row, whose radius is the distance to its
    k-th nearest real neighbour; recall the same with the two exchanged. Both depend on the sizes of the sets.
    """
    x, real = _centred(x, real)
    return Manifold(_met(x, real, _radii(real, k)), _met(real, x, _radii(x, k)))


def density_coverage(x: Tensor, real: Tensor, *, k: int = 5) -> Manifold:
    """Density and coverage (Naeem et al. 2020), which outliers do not fool as they do precision and recall.

    Density is the number of real balls (radius: k-th nearest real neighbour) around a row of x, over k;
    coverage the share of real balls that hold a row of x. For equal distributions the expected density is 1,
    and the expected coverage of m real rows by n others 1 - prod_{i<=k} (m - i) / (n + m - i).
    """
    x, real = _centred(x, real)
    radii, balls, met = _radii(real, k)[:, None], 0, 0
    for rows in row_blocks(len(real), ROWS):
        inside = torch.cdist(real[rows], x) < radii[rows]
        balls, met = balls + int(inside.sum()), met + int(inside.any(1).sum())
    return Manifold(balls / (k * len(x)), met / len(real))


def class_accuracy(probabilities: Tensor, labels: Tensor) -> Tensor:
    """Whether each row's most likely class is the one asked for, float64 (n,): take its ``bootstrap``."""
    check_codes(probabilities, "probabilities")
    check_labels(labels, probabilities, "labels")
    return (probabilities.argmax(1) == labels.to(probabilities.device)).double()


def text_match(images: Tensor, texts: Tensor) -> Tensor:
    """How well each picture shows its text, float64 (n,), 0 to 100: 100 max(0, cos) of their codes (n, d).

    This is CLIPScore (Hessel et al. 2021, who scale by 2.5 where 100 is usual now) for any two encoders of
    one space. The measuring encoder must not be the one that guided or conditioned the generator.
    """
    check_pair(images, texts)
    if len(images) != len(texts):
        raise HarmoniaError(f"every picture needs its text, got {len(images)} and {len(texts)}")
    return 100 * (unit(images) * unit(texts)).sum(1).clamp_min(0)


def psnr(x: Tensor, y: Tensor) -> Tensor:
    """Peak signal-to-noise ratio in dB of each pair of pictures (n, c, h, w) in [-1, 1]; inf where equal."""
    if x.shape != y.shape:
        raise HarmoniaError(f"pictures of shape {tuple(x.shape)} and {tuple(y.shape)} cannot be compared")
    return -10 * ((x - y).double() / 2).square().flatten(1).mean(1).log10()


def _some(x: Tensor, size: int, generator: torch.Generator) -> Tensor:
    return x[torch.randperm(len(x), generator=generator)[:size]].double()


def _mmd(x: Tensor, y: Tensor, degree: int) -> float:
    n, d = x.shape
    within = sum(float(k.sum() - k.trace()) for k in ((z @ z.T / d + 1) ** degree for z in (x, y)))
    return within / (n * (n - 1)) - 2 * float(((x @ y.T / d + 1) ** degree).mean())


def _centred(x: Tensor, real: Tensor) -> tuple[Tensor, Tensor]:
    """In float64, without the real mean, so that distances by products of vectors lose no digits."""
    check_pair(x, real)
    mean = real.double().mean(0)
    return x.double() - mean, real.double() - mean


def _met(x: Tensor, y: Tensor, radii: Tensor) -> float:
    """The share of x that lies in the ball of some row of y."""
    met = sum(int((torch.cdist(x[rows], y) <= radii).any(1).sum()) for rows in row_blocks(len(x), ROWS))
    return met / len(x)


def _radii(x: Tensor, k: int) -> Tensor:
    """The distance of each row to its k-th nearest other row."""
    if not 1 <= k < len(x):
        raise HarmoniaError(f"the k-th neighbour needs 1 <= k < {len(x)}, got {k}")
    # the nearest of all is the row itself
    blocks = row_blocks(len(x), ROWS)
    return torch.cat([torch.cdist(x[rows], x).kthvalue(k + 1, dim=1).values for rows in blocks])
