"""Diffusion and flow models.

One class, whose configurations are DDPM, Guided Diffusion, the stages of GLIDE and Imagen, latent diffusion
and rectified flow: the path between data and noise, the parameterisation, the network and the conditions.

References: Ho et al. 2020 (DDPM), Dhariwal and Nichol 2021 (ADM), Ho and Salimans 2022 (classifier-free
guidance), Rombach et al. 2022 (latents), Lipman et al. 2023 and Liu et al. 2023 (flows), Esser et al. 2024
(logit-normal times), Kynkäänniemi et al. 2024 (guidance in an interval of times).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

import torch
from torch import Tensor, nn

from harmonia.generators.base import Batch, Generator, GeneratorConfig, Watch, draw
from harmonia.generators.conditioning import Condition, ConditionEmbedding, Conditioner, join
from harmonia.generators.diffusion import guidance as guiding
from harmonia.generators.diffusion.paths import (
    PARAMETERISATIONS,
    PATHS,
    GaussianPath,
    Prediction,
    prediction,
    target,
)
from harmonia.generators.diffusion.samplers import SAMPLERS, Predict, Sampler
from harmonia.layers.dit import DiT
from harmonia.layers.mlp import ResidualMLP
from harmonia.layers.unet import UNet, timestep_embedding
from harmonia.objectives.diffusion import WEIGHTINGS, prediction_loss
from harmonia.types import HarmoniaError

Guide = Callable[[Predict], Predict]
"""Changes the predictions of the network: ``lambda p: keep(p, model.path, known, mask)`` inpaints."""

EMBEDDED = 64
"""Width of the sinusoidal embedding of a time."""


@dataclass(frozen=True, kw_only=True)
class DiffusionConfig(GeneratorConfig):
    """Settings of a diffusion or flow model.

    ``network``    "unet", "dit" or, for vectors (d, 1, 1), "mlp"
    ``patch``      side of the patches that are the U-Net's finest pixels, or the DiT's tokens
    ``channels``   of the U-Net's resolutions, finest first, in units of the size's channels
    ``blocks``     of the U-Net at each resolution, down and up; 3 and 6 times as many at base and large
    ``attend``     how many of the U-Net's coarsest resolutions have attention
    ``dropout``    in the U-Net's blocks
    ``path``       between data and noise, a key of ``PATHS``
    ``predict``    output of the network, one of ``PARAMETERISATIONS``
    ``weighting``  of the loss over times, one of ``objectives.diffusion.WEIGHTINGS``
    ``times``      distribution of training times: "path" for that of the path, or "logit-normal"
    ``augment``    largest level of noise added to condition.image in training, in [0, 1]
    ``sampler``    a key of ``SAMPLERS``, with its ``steps``
    ``guidance``   scale of classifier-free guidance, by default, at times within ``interval``
    ``bounds``     "none": unbounded samples (latents); "end": samples are clipped to [-1, 1]; "static",
                   "dynamic": every estimate is thresholded, too (Saharia et al. 2022)
    """

    network: str = "unet"
    patch: int = 2
    channels: tuple[int, ...] = (1, 2)
    blocks: int = 1
    attend: int = 1
    dropout: float = 0.0
    path: str = "cond-ot"
    predict: str = "velocity"
    weighting: str = "uniform"
    times: str = "path"
    augment: float = 0.0
    sampler: str = "euler"
    steps: int = 10
    guidance: float = 1.0
    interval: tuple[float, float] = (0.0, 1.0)
    bounds: str = "end"

    def __post_init__(self) -> None:
        """Check the settings; HarmoniaError if one is out of range."""
        super().__post_init__()
        choices = {
            "network": ("unet", "dit", "mlp"),
            "path": tuple(PATHS),
            "predict": PARAMETERISATIONS,
            "weighting": WEIGHTINGS,
            "times": ("path", "logit-normal"),
            "sampler": tuple(SAMPLERS),
            "bounds": ("none", "end", "static", "dynamic"),
        }
        for name, known in choices.items():
            if getattr(self, name) not in known:
                raise HarmoniaError(f"{name} must be one of {', '.join(known)}, not {getattr(self, name)!r}")
        sides = () if self.network == "mlp" else self.shape[1:]
        if self.patch < 1 or any(side % self.patch for side in sides):
            raise HarmoniaError(f"patch must divide {self.shape[1]} and {self.shape[2]}, got {self.patch}")
        if not self.channels or min(self.channels) < 1 or self.blocks < 1:
            raise HarmoniaError(
                "a U-Net needs at least one resolution and one block: give channels and blocks"
            )
        if not 0 <= self.augment <= 1:
            raise HarmoniaError(f"augment must be in [0, 1], not {self.augment}")


class Diffusion(Generator):
    """A conditional diffusion model of samples (c, h, w), pixels or latents.

    ``condition.image``, with ``ConditionConfig.channels`` channels, is concatenated to the noisy sample: an
    enlarged smaller image (super-resolution) or the known part of an image (inpainting).
    """

    config: DiffusionConfig

    def __init__(self, config: DiffusionConfig) -> None:
        super().__init__()
        self.config = config
        width = config.scale.width
        self.conditioner = Conditioner(config.condition, width)
        self.time = nn.Sequential(nn.Linear(EMBEDDED, width), nn.SiLU(), nn.Linear(width, width))
        self.network = _network(config)

    @property
    def path(self) -> GaussianPath:
        """The path between data and noise."""
        return PATHS[self.config.path]

    def losses(self, batch: Batch) -> dict[str, Tensor]:
        """The weighted squared error of the network's output at random times."""
        config, path, x0 = self.config, self.path, batch.x
        condition = self.conditioner.drop(self.prepared(batch.condition, augment=config.augment))
        t = _logit_normal(len(x0)) if config.times == "logit-normal" else path.draw(len(x0))
        t, eps = t.to(x0), torch.randn_like(x0)
        output = self(path.mix(x0, eps, t), t, condition)
        wanted = target(config.predict, path, x0, eps, t)
        loss = prediction_loss(
            output,
            wanted,
            path.snr(t),
            kind=config.predict,
            weighting=config.weighting,
            sigma_data=path.sigma_data,
        )
        return {"model": loss}

    def forward(self, x: Tensor, t: Tensor, condition: Condition) -> Tensor:
        """The network's output for noisy samples ``x`` (n, c, h, w) at times ``t``, () or (n,)."""
        return self._output(x, t, self.conditioner(condition), condition.image)

    def denoise(self, x: Tensor, t: Tensor, condition: Condition) -> Prediction:
        """Estimates of x0 and noise for ``x`` (n, c, h, w) at times ``t``, () or (n,), and a ``prepared``
        condition."""
        return prediction(self.config.predict, self.path, self(x, t, condition), x, t)

    def prepared(self, condition: Condition, *, augment: float = 0.0) -> Condition:
        """The condition on the model's device, with random noise of level up to ``augment`` on its image.

        A condition with a ``level`` is already noisy.
        """
        condition = condition.to(self.device)
        channels = self.config.condition.channels
        if not channels:
            return condition
        image, level = condition.image, condition.level
        if image is None or image.shape[1:] != (channels, *self.config.shape[1:]):
            given = "none" if image is None else "x".join(map(str, image.shape[1:]))
            size = "x".join(map(str, (channels, *self.config.shape[1:])))
            raise HarmoniaError(f"condition.image must be {size} for this model, got {given}")
        if level is None:
            level = torch.rand(len(image), device=image.device) * augment
            return noised(condition, level)
        return condition

    @torch.no_grad()
    def sample(
        self,
        condition: Condition,
        *,
        steps: int | None = None,
        guidance: float | None = None,
        generator: torch.Generator | None = None,
        watch: Watch | None = None,
        sampler: str | Sampler | None = None,
        begin: Tensor | None = None,
        start: float = 1.0,
        guide: Guide | None = None,
    ) -> Tensor:
        """Draw one sample for each row of ``condition``; None stands for the configuration's value.

        Args:
            condition: the conditions of the samples.
            steps: of the sampler.
            guidance: scale of classifier-free guidance; 1 for none.
            generator: of the random numbers, on the CPU.
            watch: called after every step.
            sampler: a key of ``SAMPLERS``, or a sampler.
            begin: samples (n, c, h, w) to start from (image-to-image) instead of noise.
            start: the time in (0, 1] to start at, which sets the noise on ``begin`` (denoising strength).
            guide: changes every prediction, after guidance and thresholding.
        """
        config = self.config
        strength = config.guidance if guidance is None else guidance
        predict = self.predictor(condition, strength)
        if guide is not None:
            predict = guide(predict)
        chosen = sampler if isinstance(sampler, Sampler) else _sampler(sampler or config.sampler)
        noise = draw(len(condition), *config.shape, generator=generator, device=self.device)
        x = chosen.run(
            predict, self.path, noise, steps or config.steps,
            start=start, begin=begin, generator=generator, watch=watch,
        )  # fmt: skip
        return x if config.bounds == "none" else x.clamp(-1, 1)

    def predictor(self, condition: Condition, guidance: float = 1.0) -> Predict:
        """The function that samplers call, with guidance and thresholding.

        The condition is embedded once; guidance takes one pass with twice the rows.
        """
        condition = self.prepared(condition)
        embedded, image = self.conditioner(condition), condition.image
        if guidance == 1 or not self.config.condition.drop:
            both = None
        else:
            both = join(condition, condition.without())
            embedded_both = self.conditioner(both)
        first, last = self.config.interval

        def predict(x: Tensor, t: Tensor) -> Prediction:
            if both is None or not first <= float(t) <= last:
                return self._ends(x, t, embedded, image)
            found = self._ends(torch.cat([x, x]), t, embedded_both, both.image)
            (x0, null_x0), (eps, null_eps) = found.x0.chunk(2), found.epsilon.chunk(2)
            return guiding.classifier_free(Prediction(x0, eps), Prediction(null_x0, null_eps), guidance)

        return self._bounded(predict)

    def _ends(self, x: Tensor, t: Tensor, embedded: ConditionEmbedding, image: Tensor | None) -> Prediction:
        return prediction(self.config.predict, self.path, self._output(x, t, embedded, image), x, t)

    def _output(self, x: Tensor, t: Tensor, embedded: ConditionEmbedding, image: Tensor | None) -> Tensor:
        scale = self.path.scale(t.double()).to(x)
        seen = x * (scale[:, None, None, None] if t.dim() else scale)
        if self.config.condition.channels and image is not None:
            seen = torch.cat([seen, image], 1)
        time = self.time(timestep_embedding(t.reshape(-1), EMBEDDED).to(x))
        out: Tensor = self.network(seen, embedded.vector + time, embedded.tokens, embedded.mask)
        return out

    def _bounded(self, predict: Predict) -> Predict:
        bounds = {"static": guiding.static, "dynamic": guiding.dynamic}
        if self.config.bounds not in bounds:
            return predict
        cut = bounds[self.config.bounds]
        return lambda x, t: cut(predict(x, t), self.path, x, t)


def noised(condition: Condition, level: Tensor, generator: torch.Generator | None = None) -> Condition:
    """Conditioning augmentation: the image becomes sqrt(1 - l^2) image + l noise, for ``level`` l (n,) in [0,
    1].

    Reference: Ho et al. 2022, "Cascaded diffusion models": a stage trained with it is robust to the errors of
    the stage before.
    """
    if condition.image is None:
        return condition
    image, share = condition.image, level[:, None, None, None]
    noise = torch.randn(image.shape, generator=generator).to(image)
    return replace(condition, image=(1 - share**2).sqrt() * image + share * noise, level=level)


def _sampler(name: str) -> Sampler:
    if name not in SAMPLERS:
        raise HarmoniaError(f"there is no sampler {name!r}: choose from {', '.join(SAMPLERS)}")
    return SAMPLERS[name]


def _logit_normal(n: int) -> Tensor:
    return torch.randn(n).sigmoid()


def _network(config: DiffusionConfig) -> nn.Module:
    condition, scale = config.condition, config.scale
    channels, height, width = config.shape
    tokens = bool(condition.text or condition.features)
    if config.network == "dit":
        return DiT(
            channels + condition.channels, channels, (height, width), scale.width, scale.blocks, scale.heads,
            patch=config.patch, tokens=tokens,
        )  # fmt: skip
    if config.network == "mlp":
        return ResidualMLP(
            channels + condition.channels, config.shape, 2 * scale.width, scale.blocks, told=scale.width
        )
    return UNet(
        channels + condition.channels, channels, [c * scale.channels for c in config.channels], scale.width,
        blocks=config.blocks * max(1, scale.blocks // 4), attend=config.attend, tokens=tokens,
        patch=config.patch, dropout=config.dropout,
    )  # fmt: skip
