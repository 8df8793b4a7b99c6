"""Diffusion and flow models: noise becomes a sample in small steps that a network points out.

One class. DDPM, Guided Diffusion, the stages of GLIDE and Imagen, latent diffusion and rectified flow are its
configurations: which path between data and noise, what the network puts out, which network, what it is told.

References: Ho et al. 2020 (DDPM), Dhariwal and Nichol 2021 (ADM), Ho and Salimans 2022 (guidance without a
classifier), Rombach et al. 2022 (latents), Lipman et al. 2023 and Liu et al. 2023 (flows), Esser et al. 2024
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
"""Changes what the network predicts: ``lambda p: keep(p, model.path, known, mask)`` completes a picture."""

EMBEDDED = 64
"""Sines and cosines that a time is given as."""


@dataclass(frozen=True, kw_only=True)
class DiffusionConfig(GeneratorConfig):
    """A diffusion or flow model.

    ``network``    "unet", "dit" or, for vectors (d, 1, 1), "mlp"
    ``patch``      side of the squares that are the U-Net's finest pixels, or the DiT's tokens
    ``channels``   of the U-Net's resolutions, finest first, in units of the size's channels
    ``blocks``     of the U-Net at each resolution, down and up; 3 and 6 times as many at base and large
    ``attend``     how many of the U-Net's coarsest resolutions have attention
    ``dropout``    in the U-Net's blocks
    ``path``       between data and noise, a key of ``PATHS``
    ``predict``    what the network puts out, one of ``PARAMETERISATIONS``
    ``weighting``  of the loss over times, one of ``objectives.diffusion.WEIGHTINGS``
    ``times``      trained at: "path" for as is customary for it, or "logit-normal"
    ``augment``    most noise that is added to condition.image in training, in [0, 1]
    ``sampler``    a key of ``SAMPLERS``, with its ``steps``
    ``guidance``   with which samples are drawn unless told otherwise, at times within ``interval``
    ``bounds``     "none": samples are any numbers (latents); "end": they are cut to [-1, 1];
                   "static", "dynamic": so is every estimate on the way (Saharia et al. 2022)
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
                raise HarmoniaError(f"{name} is one of {', '.join(known)}, not {getattr(self, name)!r}")
        sides = () if self.network == "mlp" else self.shape[1:]
        if self.patch < 1 or any(side % self.patch for side in sides):
            raise HarmoniaError(
                f"patch has to divide {self.shape[1]} and {self.shape[2]}, not be {self.patch}"
            )
        if not self.channels or min(self.channels) < 1 or self.blocks < 1:
            raise HarmoniaError("a U-Net has a resolution or more, of a block or more: give channels, blocks")
        if not 0 <= self.augment <= 1:
            raise HarmoniaError(f"augment is in [0, 1], not {self.augment}")


class Diffusion(Generator):
    """A model of samples (c, h, w) of any kind, pixels or latents, given a condition.

    ``condition.image`` (``ConditionConfig.channels`` of it) is told pixel by pixel, beside the noisy sample:
    a smaller picture enlarged (super-resolution) or what is known of one (inpainting).
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
        """Between data and noise."""
        return PATHS[self.config.path]

    def losses(self, batch: Batch) -> dict[str, Tensor]:
        """The weighted squared error of what the network puts out, at random times."""
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
        """What the network puts out for noisy samples ``x`` (n, c, h, w) at times ``t``, () or (n,)."""
        return self._output(x, t, self.conditioner(condition), condition.image)

    def denoise(self, x: Tensor, t: Tensor, condition: Condition) -> Prediction:
        """Both ends of ``x`` (n, c, h, w) at times ``t``, () or (n,), given a ``prepared`` condition."""
        return prediction(self.config.predict, self.path, self(x, t, condition), x, t)

    def prepared(self, condition: Condition, *, augment: float = 0.0) -> Condition:
        """The condition on the model's device, its image with random noise of up to ``augment``.

        A condition that says its level of noise has its noise already.
        """
        condition = condition.to(self.device)
        channels = self.config.condition.channels
        if not channels:
            return condition
        image, level = condition.image, condition.level
        if image is None or image.shape[1:] != (channels, *self.config.shape[1:]):
            given = "none" if image is None else "x".join(map(str, image.shape[1:]))
            size = "x".join(map(str, (channels, *self.config.shape[1:])))
            raise HarmoniaError(f"condition.image has to be {size} for this model, and was {given}")
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
        """Draw one sample for each row of ``condition``; None for what the configuration says.

        Args:
            condition: what the samples are to be of.
            steps: of the sampler.
            guidance: how far the condition is exaggerated; 1 for not at all.
            generator: of the random numbers, on the CPU.
            watch: told after every step.
            sampler: a key of ``SAMPLERS``, or one.
            begin: samples (n, c, h, w) to vary instead of beginning with noise alone.
            start: how much noise they get: the time in (0, 1] to begin at.
            guide: changes every prediction, after guidance by the condition and its bounds.
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
        """What samplers ask, within the configuration's bounds.

        The condition is read once, and guidance is one pass of twice the rows.
        """
        condition = self.prepared(condition)
        told, image = self.conditioner(condition), condition.image
        if guidance == 1 or not self.config.condition.drop:
            both = None
        else:
            both = join(condition, condition.without())
            told_both = self.conditioner(both)
        first, last = self.config.interval

        def predict(x: Tensor, t: Tensor) -> Prediction:
            if both is None or not first <= float(t) <= last:
                return self._ends(x, t, told, image)
            found = self._ends(torch.cat([x, x]), t, told_both, both.image)
            (x0, null_x0), (eps, null_eps) = found.x0.chunk(2), found.epsilon.chunk(2)
            return guiding.classifier_free(Prediction(x0, eps), Prediction(null_x0, null_eps), guidance)

        return self._bounded(predict)

    def _ends(self, x: Tensor, t: Tensor, told: ConditionEmbedding, image: Tensor | None) -> Prediction:
        return prediction(self.config.predict, self.path, self._output(x, t, told, image), x, t)

    def _output(self, x: Tensor, t: Tensor, told: ConditionEmbedding, image: Tensor | None) -> Tensor:
        scale = self.path.scale(t.double()).to(x)
        seen = x * (scale[:, None, None, None] if t.dim() else scale)
        if self.config.condition.channels and image is not None:
            seen = torch.cat([seen, image], 1)
        time = self.time(timestep_embedding(t.reshape(-1), EMBEDDED).to(x))
        out: Tensor = self.network(seen, told.vector + time, told.tokens, told.mask)
        return out

    def _bounded(self, predict: Predict) -> Predict:
        bounds = {"static": guiding.static, "dynamic": guiding.dynamic}
        if self.config.bounds not in bounds:
            return predict
        cut = bounds[self.config.bounds]
        return lambda x, t: cut(predict(x, t), self.path, x, t)


def noised(condition: Condition, level: Tensor, generator: torch.Generator | None = None) -> Condition:
    """A condition whose image is sqrt(1 - l^2) image + l noise, of ``level`` l (n,) in [0, 1], and says so.

    Reference: Ho et al. 2022, "Cascaded diffusion models": a stage that was trained so forgives the errors of
    the stage before it.
    """
    if condition.image is None:
        return condition
    image, share = condition.image, level[:, None, None, None]
    noise = torch.randn(image.shape, generator=generator).to(image)
    return replace(condition, image=(1 - share**2).sqrt() * image + share * noise, level=level)


def _sampler(name: str) -> Sampler:
    if name not in SAMPLERS:
        raise HarmoniaError(f"there is no sampler {name!r}: name one of {', '.join(SAMPLERS)}")
    return SAMPLERS[name]


def _logit_normal(n: int) -> Tensor:
    return torch.randn(n).sigmoid()


def _network(config: DiffusionConfig) -> nn.Module:
    told, scale = config.condition, config.scale
    channels, height, width = config.shape
    tokens = bool(told.text or told.features)
    if config.network == "dit":
        return DiT(
            channels + told.channels, channels, (height, width), scale.width, scale.blocks, scale.heads,
            patch=config.patch, tokens=tokens,
        )  # fmt: skip
    if config.network == "mlp":
        return ResidualMLP(
            channels + told.channels, config.shape, 2 * scale.width, scale.blocks, told=scale.width
        )
    return UNet(
        channels + told.channels, channels, [c * scale.channels for c in config.channels], scale.width,
        blocks=config.blocks * max(1, scale.blocks // 4), attend=config.attend, tokens=tokens,
        patch=config.patch, dropout=config.dropout,
    )  # fmt: skip
