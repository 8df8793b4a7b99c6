"""Reconstruction errors of images or audio, element by element.

Each gives one number for each sample, (n,), of which the caller takes the mean: a score of single samples
needs them too. ``reduce`` is "mean" over a sample's elements, which does not grow with its size, or "sum",
which a likelihood needs (a mean next to a KL in nats weighs that by the number of elements).
"""

from __future__ import annotations

from typing import Literal

import torch.nn.functional as F
from torch import Tensor

from harmonia.objectives.checks import check_number, check_same, full_precision
from harmonia.types import HarmoniaError

Reduce = Literal["mean", "sum"]


@full_precision
def l1(y: Tensor, x: Tensor, reduce: Reduce = "mean") -> Tensor:
    """|y - x|, (n,): the loss whose best constant answer is the median.

    Inputs: y, what the network gives, and x, what it should be, (n, ...) of one shape. Relations: the
    negative log-likelihood of a Laplace distribution of scale 1, up to a constant; images are sharper
    than by `l2`, since a few far pixels cost less.

        loss = l1(decoder(z), x).mean()
    """
    check_same(y=y, x=x)
    return _over((y - x).abs(), reduce)


@full_precision
def l2(y: Tensor, x: Tensor, reduce: Reduce = "mean") -> Tensor:
    """(y - x)^2, (n,): the loss whose best constant answer is the mean. Not halved, no root.

    Inputs: as for `l1`. Relations: half the sum is the negative log-likelihood of a Gaussian of variance 1,
    up to a constant (`gaussian_log_likelihood` has both); PSNR of images in [-1, 1] is
    10 log10(4 / l2).

        loss = l2(decoder(z), x).mean()
    """
    check_same(y=y, x=x)
    return _over((y - x).square(), reduce)


@full_precision
def bce(logits: Tensor, x: Tensor, reduce: Reduce = "mean") -> Tensor:
    """Binary cross-entropy, (n,): -x log s - (1 - x) log(1 - s) with s = sigmoid(logits).

    Inputs: logits (n, ...), x of the same shape in [0, 1]. Requirements: x in [0, 1], not in [-1, 1].
    Relations: the negative log-likelihood of x where x is 0 or 1; of greys it is not one (Loaiza-Ganem and
    Cunningham 2019), and its least value is their entropy, not 0.

        loss = bce(decoder(z), (x + 1) / 2).mean()
    """
    check_same(logits=logits, x=x)
    return _over(F.binary_cross_entropy_with_logits(logits, x, reduction="none"), reduce)


@full_precision
def charbonnier(y: Tensor, x: Tensor, epsilon: float = 1e-3, reduce: Reduce = "mean") -> Tensor:
    """sqrt((y - x)^2 + epsilon^2), (n,): `l1` with a smooth bottom.

    Inputs: as for `l1`; ``epsilon`` is where it turns from a parabola into a line, and its least value.

    Reference: Charbonnier et al. 1994; for images, Lai et al. 2017 (LapSRN).

        loss = charbonnier(upsampler(small), x).mean()
    """
    check_same(y=y, x=x)
    check_number(epsilon, "epsilon")
    return _over(((y - x).square() + epsilon**2).sqrt(), reduce)


def _over(elements: Tensor, reduce: Reduce) -> Tensor:
    if reduce not in ("mean", "sum"):
        raise HarmoniaError(f"reduce must be mean or sum, got {reduce!r}")
    flat = elements.flatten(1)
    return flat.mean(1) if reduce == "mean" else flat.sum(1)
