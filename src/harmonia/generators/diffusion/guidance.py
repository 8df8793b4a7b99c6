"""Pushing samples toward what they are to be of: each changes the estimate of both ends of x_t.

What is called here with the same x and t changes x0 and epsilon together, so x_t stays their mix.
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
"""Share of the data in x_t below which a gradient by x_t is not trusted."""


def classifier_free(cond: Prediction, null: Prediction, scale: float) -> Prediction:
    """null + scale (cond - null): 0 unconditional, 1 conditional, above 1 exaggerated.

    Ho and Salimans 2022, "Classifier-free diffusion guidance" (their w is scale - 1). The marginals followed
    are p(x_t) p(c | x_t)^scale at each t, which no single data distribution has: see docs/diffusion.md.
    """
    return Prediction(torch.lerp(null.x0, cond.x0, scale), torch.lerp(null.epsilon, cond.epsilon, scale))


def auto(strong: Prediction, weak: Prediction, scale: float) -> Prediction:
    """weak + scale (strong - weak): away from the errors that a smaller or less trained model makes more of.

    Both are given the same condition. Karras et al. 2024, "Guiding a diffusion model with a bad version of
    itself": unlike ``classifier_free`` it does not trade variety for likeness to the condition.
    """
    return classifier_free(strong, weak, scale)


def classifier(
    found: Prediction, gradient: Tensor, path: GaussianPath, t: Tensor, scale: float = 1.0
) -> Prediction:
    """Add ``scale`` times a gradient, that of log p(y | x_t) by x_t, to the score -epsilon / sigma.

    Dhariwal and Nichol 2021, "Diffusion models beat GANs": epsilon - scale sigma g, and x0 + scale sigma^2 /
    alpha g. The classifier is one of noisy samples, told t; ``gradient`` (n, ...) comes from ``slope``. Where
    alpha is below ``FAINT`` it guides less: g should be next to nothing there, and is mostly error.
    """
    p = path.at(float(t))
    shift = gradient * (scale * p.sigma**2 / max(p.alpha, FAINT))
    return Prediction(found.x0 + shift, found.epsilon - shift * (p.alpha / max(p.sigma, FLOOR)))


def slope(log_prob: Callable[[Tensor], Tensor], x: Tensor) -> Tensor:
    """Gradient by x (n, ...) of the sum of what ``log_prob`` says of each row, (n,).

    HarmoniaError if what it says does not depend on x through autograd.
    """
    with torch.enable_grad():
        x = x.detach().requires_grad_()
        total = log_prob(x).sum()
    if not total.requires_grad:
        raise HarmoniaError("there is no gradient to guide by: the function given ran without autograd")
    return torch.autograd.grad(total, x)[0]


def by_encoder(
    predict: Predict, path: GaussianPath, encode: Callable[[Tensor], Tensor], goal: Tensor, scale: float
) -> Predict:
    """Guide by an encoder of clean samples, with scale cos(encode(x0 estimate), goal) for log p(goal | x_t).

    CLIP guidance (Nichol et al. 2022, "GLIDE"), with the noisy x_t seen through the network's own x0 estimate
    and the gradient taken through the network (Chung et al. 2023, "Diffusion posterior sampling"; Bansal et
    al. 2023, "Universal guidance"): the encoder need not know noise. A step costs about three times as much.

    Args:
        predict: of the network; it must run with autograd when that is on.
        path: of the network.
        encode: samples (n, c, h, w) in [-1, 1] to codes (n, d); need not be of unit norm.
        goal: (n, d) or (1, d), the codes that samples should have.
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
    """Static thresholding: x0 cut to [-limit, limit], and the noise that then makes x."""
    return prediction("x0", path, found.x0.clamp(-limit, limit), x, t)


def dynamic(
    found: Prediction, path: GaussianPath, x: Tensor, t: Tensor, quantile: float = 0.995
) -> Prediction:
    """Dynamic thresholding (Saharia et al. 2022, "Imagen"): for strong guidance of pixels.

    Each row of x0 is cut to [-s, s] and divided by s, where s is the quantile of its absolute values, at
    least 1: saturated pixels are drawn inward.
    """
    rows = found.x0.flatten(1)
    s = torch.quantile(rows.abs(), quantile, dim=1, keepdim=True).clamp_min(1)
    return prediction("x0", path, (rows.clamp(-s, s) / s).view_as(x), x, t)


def keep(predict: Predict, path: GaussianPath, known: Tensor, mask: Tensor) -> Predict:
    """Complete samples of which a part is known: inpainting.

    In each step x0 is the known (n, ...) where ``mask``, bool and broadcastable, is true. With ``Ancestral``,
    or DDIM of eta 1, the known part then follows the reverse chain to what it is, as in RePaint without its
    repeats (Lugmayr et al. 2022; Wang et al. 2023, DDNM, for x0): it ends as ``known`` exactly.
    """

    def kept(x: Tensor, t: Tensor) -> Prediction:
        x0 = torch.where(mask, known.to(x), predict(x, t).x0)
        return prediction("x0", path, x0, x, t)

    return kept
