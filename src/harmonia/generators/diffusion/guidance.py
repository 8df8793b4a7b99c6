"""Guidance of samplers: classifier-free, by a classifier, by an encoder; thresholding; inpainting.

Every function changes the estimates x0 and epsilon of x_t together, so that x_t stays their mix.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor

from harmonia.generators.diffusion.paths import FLOOR, GaussianPath, Prediction, prediction
from harmonia.generators.diffusion.samplers import Predict
from harmonia.types import HarmoniaError

FAINT = 0.05
"""Share alpha of the data in x_t below which gradients with respect to x_t are scaled down."""


def classifier_free(cond: Prediction, null: Prediction, scale: float) -> Prediction:
    """null + scale (cond - null): 0 is unconditional, 1 conditional, above 1 guided.

    Ho and Salimans 2022, "Classifier-free diffusion guidance" (their w is scale - 1). The marginals
    p(x_t) p(c | x_t)^scale of all t are not those of any single data distribution: see docs/diffusion.md.
    """
    return Prediction(torch.lerp(null.x0, cond.x0, scale), torch.lerp(null.epsilon, cond.epsilon, scale))


def auto(strong: Prediction, weak: Prediction, scale: float) -> Prediction:
    """Autoguidance, weak + scale (strong - weak), by a smaller or less trained model with the same condition.

    Karras et al. 2024, "Guiding a diffusion model with a bad version of itself": unlike ``classifier_free``,
    it does not trade variety for fidelity to the condition.
    """
    return classifier_free(strong, weak, scale)


def classifier(
    found: Prediction, gradient: Tensor, path: GaussianPath, t: Tensor, scale: float = 1.0
) -> Prediction:
    """Classifier guidance: add ``scale`` times the gradient of log p(y | x_t) to the score -epsilon / sigma.

    Dhariwal and Nichol 2021, "Diffusion models beat GANs": epsilon - scale sigma g, and x0 + scale sigma^2 /
    alpha g. The classifier takes noisy samples and t; ``gradient`` (n, ...) comes from ``slope``. Guidance
    is weaker where alpha is below ``FAINT``, where the true g is close to zero and its estimate mostly error.
    """
    p = path.at(float(t))
    shift = gradient * (scale * p.sigma**2 / max(p.alpha, FAINT))
    return Prediction(found.x0 + shift, found.epsilon - shift * (p.alpha / max(p.sigma, FLOOR)))


def slope(log_prob: Callable[[Tensor], Tensor], x: Tensor) -> Tensor:
    """The gradient with respect to x (n, ...) of the sum of ``log_prob`` (n,).

    HarmoniaError if ``log_prob`` does not depend on x through autograd.
    """
    with torch.enable_grad():
        x = x.detach().requires_grad_()
        total = log_prob(x).sum()
    if not total.requires_grad:
        raise HarmoniaError("guidance needs a gradient: the given function ran without autograd")
    return torch.autograd.grad(total, x)[0]


def by_encoder(
    predict: Predict, path: GaussianPath, encode: Callable[[Tensor], Tensor], goal: Tensor, scale: float
) -> Predict:
    """Guidance by an encoder of clean samples, with log p(goal | x_t) = scale cos(encode(x0 estimate), goal).

    CLIP guidance (Nichol et al. 2022, "GLIDE"), applied to the network's x0 estimate with the gradient taken
    through the network (Chung et al. 2023, "Diffusion posterior sampling"; Bansal et al. 2023, "Universal
    guidance"), so that the encoder need not be trained on noise. A step costs about three times as much.

    Args:
        predict: the network; it must run with autograd when that is enabled.
        path: that the network was trained on.
        encode: samples (n, c, h, w) in [-1, 1] to codes (n, d); need not be of unit norm.
        goal: (n, d) or (1, d), the target codes.
        scale: some tens to hundreds; 0 for none.
    """

    def guided(x: Tensor, t: Tensor) -> Prediction:
        found: list[Prediction] = []

        def likeness(noisy: Tensor) -> Tensor:
            found.append(predict(noisy, t))
            return F.cosine_similarity(encode(found[0].x0), goal.to(noisy))

        gradient = slope(likeness, x)
        plain = Prediction(found[0].x0.detach(), found[0].epsilon.detach())
        return classifier(plain, gradient, path, t, scale)

    return guided


def static(found: Prediction, path: GaussianPath, x: Tensor, t: Tensor, limit: float = 1.0) -> Prediction:
    """Static thresholding: clip x0 to [-limit, limit], and take the noise that gives x with it."""
    return prediction("x0", path, found.x0.clamp(-limit, limit), x, t)


def dynamic(
    found: Prediction, path: GaussianPath, x: Tensor, t: Tensor, quantile: float = 0.995
) -> Prediction:
    """Dynamic thresholding, for strong guidance of pixels (Saharia et al. 2022, "Imagen").

    Each row of x0 is clipped to [-s, s] and divided by s, the quantile of its absolute values, at least 1, so
    that saturated pixels move inward.
    """
    rows = found.x0.flatten(1)
    s = torch.quantile(rows.abs(), quantile, dim=1, keepdim=True).clamp_min(1)
    return prediction("x0", path, (rows.clamp(-s, s) / s).view_as(x), x, t)


def keep(predict: Predict, path: GaussianPath, known: Tensor, mask: Tensor) -> Predict:
    """Inpainting: keep the known part of the samples.

    In each step x0 is replaced by ``known`` (n, ...) where ``mask``, bool and broadcastable, is true. With
    ``Ancestral``, or DDIM with eta 1, this is RePaint without resampling (Lugmayr et al. 2022; Wang et al.
    2023, DDNM, for x0): the known part ends exactly as ``known``.
    """

    def kept(x: Tensor, t: Tensor) -> Prediction:
        x0 = torch.where(mask, known.to(x), predict(x, t).x0)
        return prediction("x0", path, x0, x, t)

    return kept
