"""The denoising loss of diffusion and flow models: the network predicts noise, sample or velocity.

A sample is x_t = alpha x0 + sigma eps; snr = (alpha / sigma)^2. The prediction target (``kind``) and the
weight of each noise level (``weighting``) are independent: the squared error of every kind is that of x0
times a factor, which is divided out, so that a weighting means the same for all kinds.
"""

from __future__ import annotations

import torch
from torch import Tensor

from harmonia.types import HarmoniaError

WEIGHTINGS = ("uniform", "min-snr", "edm")


def prediction_loss(
    output: Tensor,
    target: Tensor,
    snr: Tensor | None = None,
    *,
    kind: str = "epsilon",
    weighting: str = "uniform",
    sigma_data: float = 1.0,
) -> Tensor:
    """Weighted mean squared error of what a diffusion or flow network puts out: a scalar.

    ======== ========================================================= ==================================
    weighting weight of the error of x0                                 source
    ======== ========================================================= ==================================
    uniform  whatever makes the error of ``kind`` itself count as 1     Ho et al. 2020, "simple loss"
    min-snr  min(snr, 5)                                                Hang et al. 2023
    edm      snr + 1 / sigma_data^2                                     Karras et al. 2022, lambda(sigma)
    ======== ========================================================= ==================================

    Inputs: ``output`` and ``target``, (n, ...) of one shape, ``snr`` (n,), needed unless ``uniform``.
    Requires: target as ``harmonia.generators.diffusion.paths.target`` gives it, "velocity" of the
    straight path.
    Relations: uniform epsilon is the weight snr on x0, uniform v is ``edm``; conditional flow matching is
    uniform velocity. None of them is a bound on the likelihood except by its weight (Kingma and Gao 2023).

    Example::

        t, eps = path.draw(len(x0)), torch.randn_like(x0)
        out = network(path.mix(x0, eps, t), t)
        loss = prediction_loss(out, target("v", path, x0, eps, t), path.snr(t), kind="v", weighting="min-snr")
    """
    error = (output - target).square().flatten(1).mean(1)
    if weighting == "uniform":
        return error.mean()
    if snr is None:
        raise HarmoniaError(f"the weighting {weighting!r} needs snr, the signal to noise of each row")
    return (error * _factor(kind, snr, sigma_data) * _weight(weighting, snr, sigma_data)).mean()


def _weight(weighting: str, snr: Tensor, sigma_data: float) -> Tensor:
    if weighting == "min-snr":
        return snr.clamp_max(5)
    if weighting == "edm":
        return snr + sigma_data**-2
    raise HarmoniaError(f"unknown weighting {weighting!r}: give one of {', '.join(WEIGHTINGS)}")


def _factor(kind: str, snr: Tensor, sigma_data: float) -> Tensor:
    """Squared error of x0 for a squared error 1 of ``kind``."""
    if kind == "epsilon":
        return 1 / snr.clamp_min(1e-8)
    if kind == "x0":
        return torch.ones_like(snr)
    if kind == "v":
        return 1 / (sigma_data**-2 + snr)
    if kind == "velocity":
        return 1 / (1 + snr.sqrt()) ** 2
    raise HarmoniaError(f"unknown kind {kind!r}: give epsilon, x0, v or velocity")
