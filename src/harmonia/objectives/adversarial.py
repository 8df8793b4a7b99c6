"""GAN losses of the critic and the generator, and gradient penalties.

``real`` and ``fake`` are the critic's scores of images from the data and of generated ones: unbounded, of any
shape, high for "real". Every loss returns both terms, so that one pass of the critic serves both.
Differentiate each by the parameters of its own network only (``torch.autograd.backward(loss, inputs=...)``,
as ``harmonia.training.fit`` does).
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from harmonia.objectives.checks import HALF, check_number, check_same
from harmonia.objectives.global_batch import gather
from harmonia.types import HarmoniaError


class Adversarial(NamedTuple):
    """The losses of the critic and of the generator, two scalars."""

    critic: Tensor
    generator: Tensor


def minimax(real: Tensor, fake: Tensor) -> Adversarial:
    """The original minimax loss: min_G max_D  V = E log D(real) + E log(1 - D(fake)).

    D = sigmoid(score); the critic's loss is -V, the generator's is E log(1 - D(fake)).

    Requirements: none; but where the critic is sure of itself the generator has no gradient, so train with
    `non_saturating`. Relations: for densities p of the data and q of the generator the best critic is
    D* = p / (p + q), whose V is 2 JS(p, q) - log 4.

    Reference: Goodfellow et al. 2014, "Generative Adversarial Nets".

        loss = minimax(critic(images), critic(generator(z)))
    """
    real, fake = _scores(real, fake)
    return Adversarial(F.softplus(-real).mean() + F.softplus(fake).mean(), -F.softplus(fake).mean())


def non_saturating(real: Tensor, fake: Tensor) -> Adversarial:
    """The critic of `minimax`; the generator raises log D(fake): -E log D(fake).

    Relations: the generator's gradient with respect to a score is that of `minimax` times (1 - D) / D, hence
    of the same sign everywhere, and 1 instead of 0 where the critic has no doubt.

    Reference: Goodfellow et al. 2014, section 3; StyleGAN's loss, with `gradient_penalty` on real images.

        loss = non_saturating(critic(images), critic(generator(z)))
    """
    real, fake = _scores(real, fake)
    return Adversarial(F.softplus(-real).mean() + F.softplus(fake).mean(), F.softplus(-fake).mean())


def hinge(real: Tensor, fake: Tensor) -> Adversarial:
    """Critic E max(0, 1 - real) + E max(0, 1 + fake); generator -E fake.

    Relations: images beyond the margin teach the critic nothing. The generator's gradient never fades, so
    the critic has to be smooth: spectral norm or a `gradient_penalty`.

    Reference: Lim and Ye 2017, "Geometric GAN"; Miyato et al. 2018 (spectral normalisation).

        loss = hinge(critic(images), critic(generator(z)))
    """
    real, fake = _scores(real, fake)
    return Adversarial(F.relu(1 - real).mean() + F.relu(1 + fake).mean(), -fake.mean())


def least_squares(real: Tensor, fake: Tensor) -> Adversarial:
    """Critic 1/2 E (real - 1)^2 + 1/2 E fake^2; generator 1/2 E (fake - 1)^2.

    Relations: the best critic is D* of `minimax`, as the score itself and not through a sigmoid.

    Reference: Mao et al. 2017, "Least Squares Generative Adversarial Networks".

        loss = least_squares(critic(images), critic(generator(z)))
    """
    real, fake = _scores(real, fake)
    critic = 0.5 * ((real - 1).square().mean() + fake.square().mean())
    return Adversarial(critic, 0.5 * (fake - 1).square().mean())


def relativistic(real: Tensor, fake: Tensor) -> Adversarial:
    """The relativistic pairing loss, for each pair of a real and a fake image, softplus(x) = log(1 + e^x):

    critic E softplus(fake - real), generator E softplus(real - fake).

    Requirements: as many fakes as real images; in a conditional model a pair shares its condition. Add
    `gradient_penalty` on both kinds of images, with which the game converges locally.

    Relations: only differences count, so a constant added to the scores changes nothing; exchanging real and
    fake exchanges the two losses. Every fake is told against a real image of its own, which a generator
    that has dropped modes cannot satisfy.

    Reference: Jolicoeur-Martineau 2019 (relativistic pairing GAN); Huang et al. 2024, "The GAN is dead; long
    live the GAN!" (R3GAN).

        loss = relativistic(critic(images), critic(generator(z)))
    """
    check_same(real=real, fake=fake)
    real, fake = _scores(real, fake)
    return Adversarial(F.softplus(fake - real).mean(), F.softplus(real - fake).mean())


ADVERSARIAL: dict[str, Callable[[Tensor, Tensor], Adversarial]] = {
    "minimax": minimax,
    "non_saturating": non_saturating,
    "hinge": hinge,
    "least_squares": least_squares,
    "relativistic": relativistic,
}
"""The losses by name, as settings choose them."""


def gradient_penalty(scores: Tensor, x: Tensor) -> Tensor:
    """Zero-centred gradient penalty: 1/2 E |grad_x D(x)|^2. R1 for x from the data, R2 for fakes.

    Inputs: ``scores`` (n,), computed from ``x`` (n, ...), each from its own row; ``x`` requires a gradient.
    The weight gamma goes before it. Requirements: the critic is differentiable twice.

    Relations: with gamma > 0 the game converges locally where without it it circles (Mescheder et al.).
    The penalty is on the norm itself, unlike WGAN-GP's (|grad| - 1)^2 between images. Lazily, every k-th
    step with k times the weight, it costs little (Karras et al. 2020).

    Reference: Mescheder, Geiger and Nowozin 2018, "Which Training Methods for GANs do actually Converge?"

        x = images.requires_grad_()
        loss = hinge(critic(x), critic(fake)).critic + gamma * gradient_penalty(critic(x), x)
    """
    if not x.requires_grad:
        raise HarmoniaError("x must require a gradient before the critic sees it: call x.requires_grad_()")
    (gradient,) = torch.autograd.grad(scores.sum(), x, create_graph=True)
    return 0.5 * gradient.flatten(1).float().square().sum(1).mean()


def path_length(x: Tensor, w: Tensor, mean: Tensor, decay: float = 0.99) -> tuple[Tensor, Tensor]:
    """Path length regularisation of the generator: E (|J^T y| - a)^2, J = dx / dw.

    y is normal noise, from torch's global numbers, divided by the square root of the number of pixels.

    Inputs: images ``x`` (n, c, h, w) made from latents ``w`` (n, d) that require a gradient; ``mean``, the
    moving average of |J^T y| so far, a scalar tensor (0 at first). Gives the penalty and the new average
    a = decay * mean + (1 - decay) * E |J^T y|, which has no gradient.

    Relations: zero where J is, at every w, a times a matrix with orthonormal columns, in many dimensions.

    Reference: Karras et al. 2020, "Analyzing and Improving the Image Quality of StyleGAN", section 3.2.

        penalty, mean = path_length(synthesis(w), w, mean)
    """
    check_number(mean, "mean")
    if not w.requires_grad:
        raise HarmoniaError("w must require a gradient before images are made of it: call w.requires_grad_()")
    y = torch.randn_like(x) / math.sqrt(x.shape[-2] * x.shape[-1])
    (gradient,) = torch.autograd.grad((x * y).sum(), w, create_graph=True)
    lengths = gradient.float().norm(dim=1)
    a = torch.lerp(gather(lengths.detach()).mean(), mean.to(lengths), decay)
    return (lengths - a).square().mean(), a


def _scores(real: Tensor, fake: Tensor) -> tuple[Tensor, Tensor]:
    """As float32 at least."""
    for scores, name in ((real, "real"), (fake, "fake")):
        if not scores.is_floating_point() or not scores.numel():
            raise HarmoniaError(
                f"{name} must be one or more scores, real numbers; got {scores.dtype} {tuple(scores.shape)}"
            )
    wide = [scores.float() if scores.dtype in HALF else scores for scores in (real, fake)]
    return wide[0], wide[1]
