"""Metrics of generated images: fidelity, diversity, and agreement with the condition.

All take features (n, d) or probabilities (n, c), not images: which network they come from is the caller's
choice (``harmonia.metrics.image_features``) and belongs beside the figure.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from harmonia.metrics.scores import BLOCK, check_codes, check_labels, check_pair, row_blocks, unit
from harmonia.metrics.significance import Interval, jackknife, pivotal
from harmonia.types import HarmoniaError

ROWS = 512
"""Rows of a matrix of distances made at a time."""
BLOCKS = 20
"""Random pairs of subsets that a kernel distance is the mean of."""


@dataclass(frozen=True, slots=True)
class Estimate:
    """The mean over blocks, and the standard deviation between them."""

    value: float
    deviation: float


@dataclass(frozen=True, slots=True, eq=False)
class Manifold:
    """Precision and recall, or density and coverage: whether samples are real, whether real ones are met.

    ``fidelity`` is the mean of ``terms`` float64 (n,), one for each sample: take their ``bootstrap``.
    ``diversity`` is no mean over samples; ``without`` float64 (n,) is what it would be without each of them,
    exactly: take its ``jackknife``. Both intervals are of other samples of as many, the real ones staying.
    """

    fidelity: float
    diversity: float
    terms: Tensor
    without: Tensor


def kernel_distance(
    x: Tensor, y: Tensor, *, block: int = 1000, blocks: int = BLOCKS, degree: int = 3, seed: int = 0
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


def kernel_interval(x: Tensor, y: Tensor, *, degree: int = 3, level: float = 0.95, seed: int = 0) -> Interval:
    """The kernel distance of features x (n, d), n >= 3, to y (m, d), and its interval for other rows x.

    What ``kernel_distance`` gives varies for two reasons, whose variances add up: the rows (that of the
    statistic of all pairs, by the ``jackknife``), and which blocks of them were drawn. y stays as it is.
    """
    found = kernel_distance(x, y, degree=degree, seed=seed)
    n = len(x)
    if n < 3:
        raise HarmoniaError(f"an interval of a kernel distance needs three rows at least, got {n}")
    own, other = [], []
    a, b = x.double(), y.double()
    for rows in row_blocks(n, BLOCK):
        k = _kernel(a[rows], a, degree)
        own.append(k.sum(1) - k[:, rows].diagonal())
        other.append(_kernel(a[rows], b, degree).mean(1))
    within, between = torch.cat(own), torch.cat(other)
    # the term of y alone is the same without any row of x
    without = (within.sum() - 2 * within) / ((n - 1) * (n - 2)) - 2 * (between.sum() - between) / (n - 1)
    return jackknife(found.value, without, level=level, beside=found.deviation**2 / (BLOCKS - 1))


def inception_score(probabilities: Tensor, *, splits: int = 10, seed: int = 0) -> Estimate:
    """Inception Score (Salimans et al. 2016): exp of the mean KL(p(y|x) || p(y)), of ``splits`` random parts.

    From 1 (every image looks the same to the classifier) to the number of classes (certain, and all classes
    equally often); ``probabilities`` (n, c) may be exactly 0 or 1. It does not see how a class varies.
    """
    parts = _parts(probabilities, splits, seed)
    values = torch.stack([_score(part, torch.ones(len(part)).double()) for part in parts])
    return Estimate(float(values.mean()), float(values.std(correction=0)))


def inception_interval(
    probabilities: Tensor,
    *,
    splits: int = 10,
    level: float = 0.95,
    draws: int = 200,
    seed: int = 0,
) -> Interval:
    """The Inception Score of ``probabilities`` (n, c), and its interval by the bootstrap of rows.

    For other images, as many: parts of n / ``splits`` rows score too low, by the same for them, and this
    bias stays in value and interval. Its ends are kept within 1 and c.
    """
    parts = _parts(probabilities, splits, seed)
    sizes = [len(part) for part in parts]

    def again(weights: Tensor) -> float:
        drawn = zip(parts, torch.split(weights.double(), sizes), strict=True)
        return float(torch.stack([_score(part, w) for part, w in drawn if bool(w.any())]).mean())

    found = pivotal(again, len(probabilities), level=level, draws=draws, seed=seed)
    value = again(torch.ones(len(probabilities)))
    # resampling adds the bias a second time, which the pivotal interval takes away twice: give it back once
    bias, most = value - found.mean, float(probabilities.shape[1])
    return Interval(value, max(1.0, found.low + bias), min(most, found.high + bias), level)


def precision_recall(x: Tensor, real: Tensor, *, k: int = 3) -> Manifold:
    """Improved precision and recall (Kynkaanniemi et al. 2019) of generated features x and ``real`` ones.

    Precision is the share of x that lies in the ball of some real row, whose radius is the distance to its
    k-th nearest real neighbour; recall the same with the two exchanged. Both depend on the sizes of the sets.
    """
    x, real = _centred(x, real)
    radii = _nearest(real, k)[0][:, k - 1]
    terms = torch.cat([(torch.cdist(x[rows], real) <= radii).any(1) for rows in row_blocks(len(x), ROWS)])
    met, change = _recalled(x, real, k)
    recall = met / len(real)
    return Manifold(float(terms.double().mean()), recall, terms.double(), recall + change / len(real))


def density_coverage(x: Tensor, real: Tensor, *, k: int = 5) -> Manifold:
    """Density and coverage (Naeem et al. 2020), which outliers do not fool as they do precision and recall.

    Density is the number of real balls (radius: k-th nearest real neighbour) around a row of x, over k;
    coverage the share of real balls that hold a row of x. For equal distributions the expected density is 1,
    and the expected coverage of m real rows by n others 1 - prod_{i<=k} (m - i) / (n + m - i).
    """
    x, real = _centred(x, real)
    radii, met = _nearest(real, k)[0][:, k - 1 : k], 0
    terms, alone = torch.zeros(2, len(x), dtype=torch.float64)
    for rows in row_blocks(len(real), ROWS):
        inside = torch.cdist(real[rows], x) < radii[rows]
        terms += inside.sum(0).double() / k
        met += int(inside.any(1).sum())
        # without the only row in it, a ball holds none
        alone += inside[inside.sum(1) == 1].sum(0)
    return Manifold(float(terms.mean()), met / len(real), terms, (met - alone) / len(real))


def class_accuracy(probabilities: Tensor, labels: Tensor) -> Tensor:
    """Whether each row's most likely class is the one asked for, float64 (n,): take its ``bootstrap``."""
    check_codes(probabilities, "probabilities")
    check_labels(labels, probabilities, "labels")
    return (probabilities.argmax(1) == labels.to(probabilities.device)).double()


def text_match(images: Tensor, texts: Tensor) -> Tensor:
    """How well each image shows its text, float64 (n,), 0 to 100: 100 max(0, cos) of their codes (n, d).

    This is CLIPScore (Hessel et al. 2021, who scale by 2.5 where 100 is usual now) for any two encoders of
    one space. The measuring encoder must not be the one that guided or conditioned the generator.
    """
    check_pair(images, texts)
    if len(images) != len(texts):
        raise HarmoniaError(f"every image needs its text, got {len(images)} and {len(texts)}")
    return 100 * (unit(images) * unit(texts)).sum(1).clamp_min(0)


def psnr(x: Tensor, y: Tensor) -> Tensor:
    """Peak signal-to-noise ratio in dB of each pair of images (n, c, h, w) in [-1, 1]; inf where equal."""
    if x.shape != y.shape:
        raise HarmoniaError(f"images of shape {tuple(x.shape)} and {tuple(y.shape)} cannot be compared")
    return -10 * ((x - y).double() / 2).square().flatten(1).mean(1).log10()


def _some(x: Tensor, size: int, generator: torch.Generator) -> Tensor:
    return x[torch.randperm(len(x), generator=generator)[:size]].double()


def _mmd(x: Tensor, y: Tensor, degree: int) -> float:
    n = len(x)
    within = sum(float(k.sum() - k.trace()) for k in (_kernel(z, z, degree) for z in (x, y)))
    return within / (n * (n - 1)) - 2 * float(_kernel(x, y, degree).mean())


def _kernel(x: Tensor, y: Tensor, degree: int) -> Tensor:
    return (x @ y.T / x.shape[1] + 1) ** degree


def _centred(x: Tensor, real: Tensor) -> tuple[Tensor, Tensor]:
    """In float64, without the real mean, so that distances by products of vectors lose no digits."""
    check_pair(x, real)
    mean = real.double().mean(0)
    return x.double() - mean, real.double() - mean


def _recalled(x: Tensor, real: Tensor, k: int) -> tuple[int, Tensor]:
    """How many rows of ``real`` lie in balls of x (n, d), and by how many more (n,) without each row of x.

    Without a row its own ball is gone, and those that it is among the k nearest of reach to their next one.
    """
    distance, near = _nearest(x, k, more=1)
    radius, wider, near = distance[:, k - 1], distance[:, k], near[:, :k]
    met, n = 0, len(x)
    change = torch.zeros(n, dtype=torch.float64)
    for rows in row_blocks(len(real), ROWS):
        apart = torch.cdist(real[rows], x)
        inside = apart <= radius
        count = inside.sum(1)
        met += int((count > 0).sum())
        # only rows in no ball or in one depend on a single row of x, the latter's ``owner``
        owner = torch.where(count == 1, inside.int().argmax(1), -1)
        row, ball = ((apart <= wider) & ~inside & (count < 2)[:, None]).nonzero(as_tuple=True)
        # (row of real, row of x) such that a wider ball holds the former without the latter
        reached = torch.stack([row[:, None].expand(-1, k), near[ball]]).flatten(1)
        of = owner[reached[0]]
        gained = torch.unique(reached[:, of < 0], dim=1)[1]
        lost = owner >= 0
        lost[reached[0, of == reached[1]]] = False
        change += gained.bincount(minlength=n) - owner[lost].bincount(minlength=n)
    return met, change


def _nearest(x: Tensor, k: int, more: int = 0) -> tuple[Tensor, Tensor]:
    """Of each row the distances to its k + ``more`` nearest others, and which they are; inf if too few."""
    if not 1 <= k < len(x):
        raise HarmoniaError(f"the k-th neighbour needs 1 <= k < {len(x)}, got {k}")
    distances, indices = [], []
    for rows in row_blocks(len(x), ROWS):
        apart = torch.cdist(x[rows], x)
        # among equal rows, too, none is its own neighbour
        apart[:, rows].fill_diagonal_(math.inf)
        found = apart.topk(min(k + more, len(x)), dim=1, largest=False)
        distances.append(found.values)
        indices.append(found.indices)
    return torch.cat(distances), torch.cat(indices)


def _parts(probabilities: Tensor, splits: int, seed: int) -> tuple[Tensor, ...]:
    """Random parts of rows that are checked to be probabilities, float64."""
    check_codes(probabilities, "probabilities", least=splits)
    p = probabilities.double()
    if bool((p < 0).any()) or not torch.allclose(p.sum(1), torch.ones(len(p), dtype=p.dtype), atol=1e-4):
        raise HarmoniaError("an Inception Score needs probabilities: rows that are not negative and sum to 1")
    order = torch.randperm(len(p), generator=torch.Generator().manual_seed(seed))
    return p[order].tensor_split(splits)


def _score(p: Tensor, weights: Tensor) -> Tensor:
    """exp of the mean divergence of rows p (n, c) from their mean, each row counted ``weights`` (n,) times.

    The mean of KL(p || mean) is the entropy of the mean without the mean of the entropies.
    """
    w = weights / weights.sum()
    mean = w @ p
    return (w @ torch.xlogy(p, p).sum(1) - torch.xlogy(mean, mean).sum()).exp()
