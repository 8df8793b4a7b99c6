"""The terms of variational and vector-quantised autoencoders. Each gives a number for each sample, (n,).

ELBO(x) = E_q(z|x) log p(x|z) - KL(q(z|x) | p(z)) <= log p(x), in nats, sums over a sample's elements; what is
trained is the mean of its negative. A mean over pixels beside a KL is a beta-VAE whose beta is the number
of pixels.
"""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor

from harmonia.objectives.checks import check_number, check_same, full_precision
from harmonia.objectives.reconstruction import bce

LOG_2PI = math.log(2 * math.pi)


@full_precision
def gaussian_kl(
    mean: Tensor,
    log_variance: Tensor,
    prior_mean: Tensor | None = None,
    prior_log_variance: Tensor | None = None,
) -> Tensor:
    """KL(q | p) of two diagonal Gaussians, (n,), in nats, summed over all axes but the first.

    sum 1/2 [ v/v' + (m - m')^2 / v' - 1 + log v' - log v ], with variances v of q and v' of p.

    Inputs: mean and log_variance of q (n, ...); those of p the same shape, or None for the standard
    normal, for which it is 1/2 sum [ v + m^2 - 1 - log v ].

    Reference: Kingma and Welling 2014, appendix B.

        loss = (beta * gaussian_kl(mean, log_variance) - log_likelihood).mean()
    """
    check_same(mean=mean, log_variance=log_variance)
    m = torch.zeros_like(mean) if prior_mean is None else prior_mean
    v = torch.zeros_like(mean) if prior_log_variance is None else prior_log_variance
    check_same(mean=mean, prior_mean=m, prior_log_variance=v)
    ratio = log_variance - v
    kl = 0.5 * (ratio.exp() + (mean - m).square() * (-v).exp() - 1 - ratio)
    return kl.reshape(len(kl), -1).sum(1)


@full_precision
def gaussian_log_likelihood(x: Tensor, mean: Tensor, log_variance: Tensor) -> Tensor:
    """log N(x; mean, variance), (n,), in nats, summed over a sample's elements.

    Inputs: x and mean (n, ...); log_variance of any shape that broadcasts: one number for all elements is
    the calibrated decoder of Rybkin et al. 2021, whose best variance is the mean squared error.

        log_likelihood = gaussian_log_likelihood(x, decoder(z), log_variance)
    """
    check_same(x=x, mean=mean)
    each = (x - mean).square() * (-log_variance).exp() + log_variance + LOG_2PI
    return -0.5 * each.flatten(1).sum(1)


@full_precision
def bernoulli_log_likelihood(x: Tensor, logits: Tensor) -> Tensor:
    """log p(x) where each element is 1 with probability sigmoid(logits), (n,): minus the sum of `bce`.

    Inputs: x in [0, 1] and logits (n, ...).

        log_likelihood = bernoulli_log_likelihood((x + 1) / 2, decoder(z))
    """
    return -bce(logits, x, "sum")


@full_precision
def vector_quantisation(z: Tensor, entry: Tensor, commitment: float = 0.25) -> Tensor:
    """|sg(z) - e|^2 + commitment |z - sg(e)|^2, (n,), the mean over a sample's elements.

    The codebook term moves entries towards encoder outputs, the commitment term encoder outputs towards
    their entries. With a codebook that is learned by moving averages, give ``entry`` detached: the first
    term is then a constant, and is left out.

    Inputs: z, entry (n, ...) of one shape: encoder outputs and the nearest entry of each.

    Reference: van den Oord et al. 2017, eq. 3.

        loss = (l2(decoder(z + (e - z).detach()), x) + vector_quantisation(z, e)).mean()
    """
    check_same(z=z, entry=entry)
    check_number(commitment, "commitment")
    loss = commitment * (z - entry.detach()).square().flatten(1).mean(1)
    if entry.requires_grad:
        loss = loss + (z.detach() - entry).square().flatten(1).mean(1)
    return loss


@full_precision
def uniform_kl(logits: Tensor) -> Tensor:
    """KL(q | uniform) of categorical distributions, (n,), in nats, summed over positions.

    log K + sum_k q_k log q_k for each position, between 0 and log K.

    Inputs: logits (n, K, ...), classes on the second axis.

    Reference: Ramesh et al. 2021 (DALL-E), whose first stage has this KL with a Gumbel-softmax bottleneck.

        loss = (kl_weight * uniform_kl(logits) - log_likelihood).mean()
    """
    log_q = F.log_softmax(logits, 1)
    kl = math.log(logits.shape[1]) + (log_q.exp() * log_q).sum(1)
    return kl.reshape(len(kl), -1).sum(1)
