"""Classifier guidance: a diffusion model and a classifier of its noisy samples.

Reference: Dhariwal and Nichol 2021, "Diffusion models beat GANs on image synthesis".
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from harmonia.generators.base import Batch, CompositeGenerator, GeneratorConfig, Watch
from harmonia.generators.conditioning import Condition
from harmonia.generators.diffusion import guidance as guiding
from harmonia.generators.diffusion.model import EMBEDDED, Diffusion, DiffusionConfig
from harmonia.generators.diffusion.paths import PATHS, Prediction
from harmonia.generators.diffusion.samplers import Predict
from harmonia.layers.unet import UNetEncoder, timestep_embedding
from harmonia.types import HarmoniaError


@dataclass(frozen=True, kw_only=True)
class GuidedConfig(GeneratorConfig):
    """A class-conditional ``diffusion`` model; its ``shape``, ``size`` and ``condition`` are set from here.

    ``guidance``  scale of guidance, by default
    """

    diffusion: DiffusionConfig = field(default_factory=DiffusionConfig)
    guidance: float = 2.0

    def __post_init__(self) -> None:
        super().__post_init__()
        if not self.condition.classes:
            raise HarmoniaError("classifier guidance needs classes: set condition.classes (condition=label)")
        condition = replace(self.condition, drop=0.0)
        own = replace(self.diffusion, shape=self.shape, size=self.size, condition=condition)
        object.__setattr__(self, "diffusion", own)


class NoisyClassifier(nn.Module):
    """A time-conditional classifier of noisy samples on the path of a diffusion model."""

    def __init__(self, config: DiffusionConfig) -> None:
        super().__init__()
        self.config = config
        width = config.scale.width
        channels = [c * config.scale.channels // 2 for c in config.channels]
        self.time = nn.Sequential(nn.Linear(EMBEDDED, width), nn.SiLU(), nn.Linear(width, width))
        self.network = UNetEncoder(config.shape[0], config.condition.classes, channels, width, config.patch)

    def groups(self) -> dict[str, list[nn.Parameter]]:
        """The parameters that are not frozen."""
        return {"model": [p for p in self.parameters() if p.requires_grad]}

    def forward(self, x: Tensor, t: Tensor) -> Tensor:
        """Scores (n, classes) of noisy samples ``x`` at times ``t``, () or (n,)."""
        scale = PATHS[self.config.path].scale(t.double()).to(x)
        seen = x * (scale[:, None, None, None] if t.dim() else scale)
        scores: Tensor = self.network(seen, self.time(timestep_embedding(t.reshape(-1), EMBEDDED).to(x)))
        return scores

    def losses(self, batch: Batch) -> dict[str, Tensor]:
        """The cross-entropy at random times; samples without a label are ignored."""
        path, label = PATHS[self.config.path], batch.condition.label
        if label is None:
            raise HarmoniaError("the classifier needs labels: give a dataset with labels (condition=label)")
        t = path.draw(len(label)).to(batch.x)
        x = path.mix(batch.x, torch.randn_like(batch.x), t)
        return {"model": F.cross_entropy(self(x, t), label, ignore_index=-1)}


class GuidedDiffusion(CompositeGenerator):
    """A class-conditional diffusion model, and a classifier of its noisy samples that guides it.

    ``guidance`` w adds w - 1 times the classifier's gradient, so that 1 is none and w corresponds to
    classifier-free guidance of w.
    """

    config: GuidedConfig
    MODELS = ("diffusion", "classifier")

    def __init__(self, config: GuidedConfig) -> None:
        super().__init__()
        self.config = config
        self.diffusion = Diffusion(config.diffusion)
        self.classifier = NoisyClassifier(config.diffusion)

    def losses(self, batch: Batch) -> dict[str, Tensor]:
        """The losses of both models, which train together or one after the other."""
        losses = {"diffusion": self.diffusion.losses, "classifier": self.classifier.losses}
        return {name: losses[name](batch)["model"] for name in self.groups()}

    def sample(
        self,
        condition: Condition,
        *,
        steps: int | None = None,
        guidance: float | None = None,
        generator: torch.Generator | None = None,
        watch: Watch | None = None,
    ) -> Tensor:
        """Draw one sample for each row of ``condition``; rows without a label are not guided."""
        strength = self.config.guidance if guidance is None else guidance
        label, path = condition.label, self.diffusion.path
        first, last = self.diffusion.config.interval

        def guide(predict: Predict) -> Predict:
            if label is None or strength == 1:
                return predict
            wanted = label.to(self.device)

            def log_prob(x: Tensor, t: Tensor) -> Tensor:
                return -F.cross_entropy(self.classifier(x, t), wanted, ignore_index=-1, reduction="none")

            def guided(x: Tensor, t: Tensor) -> Prediction:
                if not first <= float(t) <= last:
                    return predict(x, t)
                slope = guiding.slope(lambda noisy: log_prob(noisy, t), x)
                return guiding.classifier(predict(x, t), slope, path, t, strength - 1)

            return guided

        return self.diffusion.sample(
            condition, steps=steps, guidance=1.0, generator=generator, watch=watch, guide=guide
        )
