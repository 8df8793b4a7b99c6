"""Regularisers against collapse: variance, decorrelation, alignment and uniformity of codes.

x, y are rows (B, d), as they come from an encoder; `uniformity` and `alignment` want them of unit length.
They do not communicate between ranks: under DDP give them ``gather(x)``, for statistics of the whole batch.
"""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor

from harmonia.objectives.checks import check_number, check_rows, check_same, full_precision
from harmonia.types import HarmoniaError

# Under the square root, so that a feature that does not vary at all still has a gradient; as in VICReg.
EPSILON = 1e-4


@full_precision
def variance(x: Tensor, gamma: float = 1.0) -> Tensor:
    """Hinge on the standard deviations: mean_j max(0, gamma - sqrt(var_j + eps)).

    The variance term of VICReg (Bardes, Ponce and LeCun 2022), with eps = 1e-4. In [0, gamma]. It alone
    forbids that all rows become one; two rows at least.

        loss = info + 25.0 * (variance(x) + variance(y)) + covariance(x) + covariance(y)
    """
    check_rows(x, "x", least=2)
    check_number(gamma, "gamma")
    return F.relu(gamma - (x.var(dim=0) + EPSILON).sqrt()).mean()


@full_precision
def covariance(x: Tensor) -> Tensor:
    """Squared covariances of features: (1 / d) sum_{i != j} C_ij^2, C the covariance of the features of x.

    The covariance term of VICReg (Bardes, Ponce and LeCun 2022). It is zero for rows that have all become
    one, so it goes with `variance`. Two rows at least.

        loss = covariance(x)
    """
    check_rows(x, "x", least=2)
    centred = x - x.mean(dim=0)
    c = centred.T @ centred / (len(x) - 1)
    return _off_diagonal(c).square().sum() / x.shape[1]


@full_precision
def cross_covariance(x: Tensor, y: Tensor) -> Tensor:
    """Squared cross-covariances of x and y: 1/2 sum_ij C_ij^2, C (d, e) their covariance.

    The XCov penalty of Cheung et al. 2014 ("Discovering Hidden Factors of Variation in Deep Networks"), which
    keeps what two parts of a code stand for apart, such as content and style. x (B, d), y (B, e).

        loss = cross_covariance(content, style)
    """
    check_rows(x, "x", least=2)
    check_rows(y, "y", least=2)
    if len(x) != len(y):
        raise HarmoniaError(f"x has {len(x)} rows and y {len(y)}: give both parts of every record")
    c = (x - x.mean(dim=0)).T @ (y - y.mean(dim=0)) / len(x)
    return 0.5 * c.square().sum()


@full_precision
def cross_correlation(x: Tensor, y: Tensor, lambda_: float = 5e-3) -> Tensor:
    """Cross-correlation towards the identity: sum_i (1 - C_ii)^2 + lambda sum_{i != j} C_ij^2.

    C is the correlation, over the batch, of the features of x with those of y. The loss of Barlow Twins
    (Zbontar, Jing, Misra, LeCun and Deny 2021): it needs no negatives, and does not care about the scale of
    a feature; one that does not vary has a correlation of 0. Two rows at least, better many more than that.

        loss = cross_correlation(photos, captions)
    """
    check_rows(x, "x", least=2)
    check_rows(y, "y", least=2)
    check_same(x=x, y=y)
    check_number(lambda_, "lambda_")
    c = _standardised(x).T @ _standardised(y) / len(x)
    return (1.0 - c.diagonal()).square().sum() + lambda_ * _off_diagonal(c).square().sum()


@full_precision
def alignment(x: Tensor, y: Tensor) -> Tensor:
    """Mean squared distance of partners: mean_i |x_i - y_i|^2; for unit rows 2 - 2 cos, in [0, 4].

    Zero for rows that are all one, so it goes with `uniformity` (Wang and Isola 2020, "Understanding
    Contrastive Representation Learning through Alignment and Uniformity on the Hypersphere").

        loss = alignment(x, y) + 0.5 * (uniformity(x) + uniformity(y))
    """
    check_rows(x, "x")
    check_rows(y, "y")
    check_same(x=x, y=y)
    return (x - y).square().sum(dim=1).mean()


@full_precision
def uniformity(x: Tensor, t: float = 2.0) -> Tensor:
    """Log mean Gaussian potential: log mean_{i < j} exp(-t |x_i - x_j|^2); for unit rows in [-4 t, 0].

    0 where all rows are one. The logarithm of the mean Gaussian potential of Wang and Isola 2020; `info_nce`
    with many negatives tends to `alignment` plus this. Two rows at least.

        loss = uniformity(normalize(x))
    """
    check_rows(x, "x", least=2)
    check_number(t, "t")
    potential = -t * torch.pdist(x).square()
    return potential.logsumexp(dim=0) - math.log(len(potential))


def _standardised(x: Tensor) -> Tensor:
    centred = x - x.mean(dim=0)
    spread = centred.square().mean(dim=0)
    # Measured against the feature's own size: rounding is not variation.
    varies = spread.sqrt() > 4 * torch.finfo(x.dtype).eps * x.abs().amax(dim=0)
    return torch.where(varies, centred, 0.0) / torch.where(varies, spread, 1.0).sqrt()


def _off_diagonal(c: Tensor) -> Tensor:
    """The entries of c (d, d) that are not on its diagonal."""
    return c - torch.diag(c.diagonal())
