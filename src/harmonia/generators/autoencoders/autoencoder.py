"""Autoencoders (plain, denoising, variational, vector-quantised): an encoder, a bottleneck, a decoder.

All of them ``encode`` images to latents, ``decode`` latents to images, ``reconstruct`` images and ``score``
their novelty. Latent diffusion and the token models are built on them.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, cast

import torch
from torch import Tensor, nn

from harmonia.generators.autoencoders.base import AutoencoderBase, AutoencoderBaseConfig
from harmonia.generators.autoencoders.bottlenecks import (
    FSQ,
    DiagonalGaussian,
    GumbelSoftmax,
    Identity,
    Quantiser,
    VectorQuantizer,
)
from harmonia.generators.base import Batch, draw
from harmonia.generators.conditioning import Condition, Conditioner
from harmonia.objectives import bce, bernoulli_log_likelihood, gaussian_log_likelihood, l1, l2
from harmonia.objectives.perceptual import Features, perceptual
from harmonia.types import HarmoniaError

CORRUPTIONS = ("none", "gaussian", "blind-gaussian", "masking", "salt-and-pepper")


@dataclass(frozen=True, kw_only=True)
class AutoencoderConfig(AutoencoderBaseConfig):
    """``corruption`` of the encoder's input in training and its ``amount``, see `corrupt`; ``loss`` is "l1"
    or "l2"; ``samples`` false keeps no distribution of the latents, which ``sample`` draws from."""

    corruption: str = "none"
    amount: float = 0.5
    loss: str = "l2"
    samples: bool = True

    def __post_init__(self) -> None:
        AutoencoderBaseConfig.__post_init__(self)
        if self.corruption not in CORRUPTIONS:
            raise HarmoniaError(
                f"corruption must be one of {', '.join(CORRUPTIONS)}, not {self.corruption!r}"
            )
        if self.loss not in ("l1", "l2"):
            raise HarmoniaError(f"loss must be l1 or l2, not {self.loss!r}")
        if self.samples and math.prod(self.latent) > 2048:
            raise HarmoniaError(
                "an autoencoder stores the covariance of its latents: give it at most 2048 numbers"
            )


class Autoencoder(AutoencoderBase):
    """An autoencoder that minimises the reconstruction error (Hinton and Salakhutdinov 2006).

    With a corruption it is a denoising autoencoder, which reconstructs images from corrupted ones (Vincent et
    al. 2008, 2010). Its latents have no prior: ``sample`` decodes draws from a Gaussian fitted to the
    training latents (moving averages of mean and covariance) and ignores the condition. This shows the latent
    space; it is not a good generator.
    """

    config: AutoencoderConfig
    mean: Tensor
    square: Tensor
    seen: Tensor

    def __init__(self, config: AutoencoderConfig) -> None:
        super().__init__()
        self.config = config
        self.encoder, self.decoder = config.encoder(config.dim), config.decoder()
        self.bottleneck = Identity()
        if not config.samples:
            return
        numbers = math.prod(config.latent)
        self.register_buffer("mean", torch.zeros(numbers))
        self.register_buffer("square", torch.eye(numbers))
        self.register_buffer("seen", torch.zeros((), dtype=torch.int64))

    def losses(self, batch: Batch) -> dict[str, Tensor]:
        """The mean reconstruction error of corrupted images."""
        config = self.config
        z: Tensor = self.bottleneck(self.encoder(corrupt(batch.x, config.corruption, config.amount))).z
        if self.training and config.samples:
            self._follow(z.detach().flatten(1))
        loss = {"l1": l1, "l2": l2}[config.loss]
        return {"model": loss(self.decoder(z), batch.x).mean()}

    def encode(self, x: Tensor) -> Tensor:
        """Latents (n, *config.latent)."""
        z: Tensor = self.encoder(x)
        return z

    @torch.no_grad()
    def score(self, x: Tensor) -> Tensor:
        """The squared reconstruction error, summed over pixels, (n,)."""
        return l2(self.reconstruct(x), x, "sum")

    def one_pass(self, condition: Condition, guidance: float, generator: torch.Generator | None) -> Tensor:
        """Decode draws from a Gaussian fitted to the training latents; the condition is ignored.

        HarmoniaError if the model keeps none.
        """
        if not self.config.samples:
            raise HarmoniaError("this autoencoder cannot generate: it keeps no distribution of its latents")
        covariance = (self.square - torch.outer(self.mean, self.mean)).double()
        values, vectors = torch.linalg.eigh(covariance)
        root = (vectors * values.clamp_min(0).sqrt()).to(self.mean)
        noise = draw(len(condition), len(self.mean), generator=generator, device=self.device)
        return self.decode((self.mean + noise @ root.T).unflatten(1, self.config.latent))

    @torch.no_grad()
    def _follow(self, z: Tensor) -> None:
        """Update the moving averages of the latents and their products."""
        self.seen += 1
        weight = max(0.01, 1 / float(self.seen))
        self.mean.lerp_(z.mean(0), weight)
        self.square.lerp_(z.T @ z / len(z), weight)


@dataclass(frozen=True, kw_only=True)
class VAEConfig(AutoencoderBaseConfig):
    """Settings of a `VAE`.

    ``beta``        weight of the KL: 1 for the ELBO, above 1 for a beta-VAE (Higgins et al. 2017)
    ``likelihood``  of a pixel: "gaussian", or "bernoulli" of its brightness
    ``sigma``       the Gaussian's standard deviation, on the scale of [-1, 1]; 0 to learn it
    ``perceptual``  weight of the perceptual loss, if the model has ``look``
    """

    beta: float = 1.0
    likelihood: str = "gaussian"
    sigma: float = 0.0
    perceptual: float = 0.0

    def __post_init__(self) -> None:
        AutoencoderBaseConfig.__post_init__(self)
        if self.likelihood not in ("gaussian", "bernoulli"):
            raise HarmoniaError(f"likelihood must be gaussian or bernoulli, not {self.likelihood!r}")
        if min(self.beta, self.sigma, self.perceptual) < 0:
            raise HarmoniaError("beta, sigma and perceptual must be at least 0")


class VAE(AutoencoderBase):
    """A variational autoencoder (Kingma and Welling 2014; Rezende et al. 2014).

    With conditions it is a conditional VAE (Sohn et al. 2015): the prior p(z | condition) is a Gaussian with
    learned mean and variance instead of the standard normal, and the decoder takes z and the condition. The
    encoder does not take the condition, so that images without one have latents, too.

    A learned ``sigma`` calibrates the decoder (Rybkin et al. 2021); with linear networks the model is
    probabilistic PCA.

    ``look``, the features of another network, may be set for training with a perceptual loss; it is not saved
    with the model. The loss is then no longer a bound on the likelihood, but images are sharper than with the
    squared error alone, which favours the mean of all possible images (Hou et al. 2017, DFC-VAE).
    """

    config: VAEConfig
    look: Features | None = None

    def __setattr__(self, name: str, value: Any) -> None:
        """Set an attribute; ``look`` is not registered as a submodule even if it is a module."""
        if name == "look":
            object.__setattr__(self, name, value)
        else:
            super().__setattr__(name, value)

    def __init__(self, config: VAEConfig) -> None:
        super().__init__()
        self.config = config
        self.encoder = config.encoder(2 * config.dim)
        self.bottleneck = DiagonalGaussian()
        self.log_variance = nn.Parameter(
            torch.tensor(2 * math.log(config.sigma or 1.0)),
            requires_grad=config.likelihood == "gaussian" and config.sigma == 0,
        )
        c, width = config.condition, config.scale.width
        self.conditioner = Conditioner(c, width) if c.classes or c.text or c.code or c.features else None
        if self.conditioner is not None:
            self.prior = nn.Linear(width, 2 * math.prod(config.latent))
            self.beside = nn.Linear(width, config.dim)
        self.decoder = config.decoder(config.dim if self.conditioner is None else 2 * config.dim)

    def losses(self, batch: Batch) -> dict[str, Tensor]:
        """The negative ELBO in nats per pixel and channel, with the KL weighted by beta, plus a perceptual
        loss if there is ``look``."""
        condition = batch.condition if self.conditioner is None else self.conditioner.drop(batch.condition)
        likelihood, kl, y = self._terms(batch.x, condition)
        loss = (self.config.beta * kl - likelihood).mean() / math.prod(self.config.shape)
        if self.look is not None and self.config.perceptual:
            loss = loss + self.config.perceptual * perceptual(self.look, self._picture(y), batch.x)
        return {"model": loss}

    def posterior(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Mean and log variance of q(z|x), (n, *config.latent) each."""
        return self.bottleneck.split(self.encoder(x))

    def encode(self, x: Tensor) -> Tensor:
        """The mean of q(z|x), (n, *config.latent)."""
        return self.posterior(x)[0]

    def decode(self, z: Tensor, condition: Condition | None = None) -> Tensor:
        """The mean of p(x | z, condition), clipped to [-1, 1]; the null condition by default."""
        return self._picture(self._decoded(z, self._vector(condition or Condition(len(z))))).clamp(-1, 1)

    def elbo(self, x: Tensor, condition: Condition | None = None) -> Tensor:
        """log p(x|z) - KL in nats, (n,), by one draw of z from torch's global generator, without beta.

        With the Gaussian likelihood it is a lower bound on the log density of x given the condition.
        """
        likelihood, kl, _ = self._terms(x, condition or Condition(len(x)))
        return likelihood - kl

    @torch.no_grad()
    def score(self, x: Tensor, condition: Condition | None = None) -> Tensor:
        """The negative ELBO in nats, (n,), at the mean of the posterior."""
        likelihood, kl, _ = self._terms(x, condition or Condition(len(x)), at_mean=True)
        return kl - likelihood

    def one_pass(self, condition: Condition, guidance: float, generator: torch.Generator | None) -> Tensor:
        """Decode draws from p(z | condition); guidance moves their mean away from the unconditional mean."""
        z = draw(len(condition), *self.config.latent, generator=generator, device=self.device)
        prior = self._prior(self._vector(condition))
        if prior is not None:
            mean, log_variance = self.bottleneck.split(prior)
            if guidance != 1:
                null = self._prior(self._vector(condition.without()))
                mean = (
                    torch.lerp(self.bottleneck.split(null)[0], mean, guidance) if null is not None else mean
                )
            z = mean + (0.5 * log_variance).exp() * z
        return self.decode(z, condition)

    def _terms(self, x: Tensor, condition: Condition, at_mean: bool = False) -> tuple[Tensor, Tensor, Tensor]:
        """log p(x | z, condition) and KL(q(z|x) | p(z | condition)), (n,) each, and the output of the
        decoder."""
        vector, parameters = self._vector(condition), self.encoder(x)
        bottled = self.bottleneck(parameters, self._prior(vector))
        z = self.bottleneck.split(parameters)[0] if at_mean else bottled.z
        y = self._decoded(z, vector)
        if self.config.likelihood == "bernoulli":
            return bernoulli_log_likelihood((x + 1) / 2, y), bottled.loss, y
        return gaussian_log_likelihood(x, y, self.log_variance), bottled.loss, y

    def _picture(self, y: Tensor) -> Tensor:
        """The mean of p(x | z, condition) from the output of the decoder."""
        return torch.tanh(y / 2) if self.config.likelihood == "bernoulli" else y

    def _vector(self, condition: Condition) -> Tensor | None:
        return None if self.conditioner is None else self.conditioner(condition).vector

    def _prior(self, vector: Tensor | None) -> Tensor | None:
        """Mean and log variance of p(z | condition), (n, 2 * dim, ...); None for the standard normal."""
        if vector is None:
            return None
        dim, *places = self.config.latent
        return cast(Tensor, self.prior(vector)).view(-1, 2 * dim, *places)

    def _decoded(self, z: Tensor, vector: Tensor | None) -> Tensor:
        if vector is not None:
            beside = self.beside(vector)
            z = torch.cat([z, beside.view(*beside.shape, *[1] * (z.dim() - 2)).expand_as(z)], 1)
        return cast(Tensor, self.decoder(z))


@dataclass(frozen=True, kw_only=True)
class VQVAEConfig(AutoencoderBaseConfig):
    """Settings of a `VQVAE`. Latents are grids of codebook entries of width ``dim`` ("fsq": ``len(levels)``).

    ``bottleneck``  "vq" (moving averages), "vq-gradient", "gumbel" (DALL-E's dVAE) or "fsq"
    ``codes``       number of entries; with "fsq" prod(levels)
    ``commitment``  weight of VQ's commitment term
    ``kl``          weight of the KL to uniform categoricals with "gumbel", for each pixel and channel
    ``anneal``      batches over which the Gumbel temperature falls
    ``loss``        "l1", "l2" or "bce"
    """

    dim: int = 16
    spatial: bool = True
    bottleneck: str = "vq"
    codes: int = 256
    commitment: float = 0.25
    kl: float = 0.01
    anneal: int = 3000
    levels: tuple[int, ...] = (8, 5, 5)
    loss: str = "l2"

    def __post_init__(self) -> None:
        if self.bottleneck == "fsq":
            object.__setattr__(self, "dim", len(self.levels))
            object.__setattr__(self, "codes", math.prod(self.levels))
        AutoencoderBaseConfig.__post_init__(self)
        if not self.spatial:
            raise HarmoniaError("the latents of a VQ-VAE are grids: set spatial to true")
        if self.bottleneck not in ("vq", "vq-gradient", "gumbel", "fsq"):
            raise HarmoniaError(f"bottleneck must be vq, vq-gradient, gumbel or fsq, not {self.bottleneck!r}")
        if self.loss not in ("l1", "l2", "bce"):
            raise HarmoniaError(f"loss must be l1, l2 or bce, not {self.loss!r}")

    def quantiser(self) -> Quantiser:
        """The bottleneck."""
        if self.bottleneck == "gumbel":
            return GumbelSoftmax(self.codes, self.dim, anneal=self.anneal)
        if self.bottleneck == "fsq":
            return FSQ(self.levels)
        learning = "gradient" if self.bottleneck == "vq-gradient" else "ema"
        return VectorQuantizer(self.codes, self.dim, learning=learning, commitment=self.commitment)


class VQVAE(AutoencoderBase):
    """An image tokenizer: VQ-VAE (van den Oord et al. 2017), DALL-E's dVAE or FSQ.

    ``codes`` and ``decode_codes`` convert between images and codes. It cannot generate without a prior over
    codes.
    """

    config: VQVAEConfig

    def __init__(self, config: VQVAEConfig) -> None:
        super().__init__()
        self.config = config
        self.bottleneck = config.quantiser()
        self.encoder, self.decoder = config.encoder(self.bottleneck.inputs), config.decoder()

    def losses(self, batch: Batch) -> dict[str, Tensor]:
        """The mean reconstruction error plus the loss of the bottleneck."""
        config = self.config
        bottled = self.bottleneck(self.encoder(batch.x))
        cost = bottled.loss
        if config.bottleneck == "gumbel":
            cost = cost * config.kl / math.prod(config.shape)
        return {"model": (self._error(batch.x, bottled.z) + cost).mean()}

    def codes(self, x: Tensor) -> Tensor:
        """The index of the entry at each place: int64 (n, h', w'), from 0 to ``config.codes`` - 1."""
        return self.bottleneck.codes(self.encoder(x))

    def decode_codes(self, codes: Tensor) -> Tensor:
        """Images of codes int64 (n, h', w')."""
        return self.decode(self.bottleneck.entries(codes))

    def encode(self, x: Tensor) -> Tensor:
        """The quantised latents, (n, dim, h', w')."""
        return self.bottleneck.entries(self.codes(x))

    def decode(self, z: Tensor) -> Tensor:
        """Images, clipped to [-1, 1]."""
        x: Tensor = self.decoder(z)
        return torch.tanh(x / 2) if self.config.loss == "bce" else x.clamp(-1, 1)

    @torch.no_grad()
    def score(self, x: Tensor) -> Tensor:
        """The squared reconstruction error, summed over pixels, (n,)."""
        return l2(self.reconstruct(x), x, "sum")

    def one_pass(self, condition: Condition, guidance: float, generator: torch.Generator | None) -> Tensor:
        """A HarmoniaError: codes need a prior."""
        raise HarmoniaError("a VQ-VAE cannot generate alone: train a prior over its codes")

    def _error(self, x: Tensor, z: Tensor) -> Tensor:
        y: Tensor = self.decoder(z)
        if self.config.loss == "bce":
            return bce(y, (x + 1) / 2)
        return {"l1": l1, "l2": l2}[self.config.loss](y, x)


def corrupt(x: Tensor, kind: str, amount: float) -> Tensor:
    """Corrupt images at random, with torch's global generator (Vincent et al. 2010).

    "gaussian" adds noise of standard deviation ``amount``, "blind-gaussian" of one between 0 and ``amount``,
    drawn for each image (Zhang et al. 2017); "masking" sets a share ``amount`` of the pixels to
    grey (0), all channels at once; "salt-and-pepper" sets them to black or white; "none" changes nothing.
    """
    if kind == "none":
        return x
    if kind == "gaussian":
        return x + amount * torch.randn(x.shape).to(x)
    n, _, h, w = x.shape
    if kind == "blind-gaussian":
        return x + (amount * torch.rand(n, 1, 1, 1) * torch.randn(x.shape)).to(x)
    hit = (torch.rand(n, 1, h, w) < amount).to(x.device)
    if kind == "masking":
        return x.masked_fill(hit, 0.0)
    return torch.where(hit, (torch.rand(n, 1, h, w) < 0.5).to(x) * 2 - 1, x)
