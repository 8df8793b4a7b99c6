"""A cascade: a diffusion model of small images, then one that upsamples them.

References: Ho et al. 2022, "Cascaded diffusion models" (conditioning augmentation); Saharia et al. 2022
(Imagen). GLIDE and Imagen are cascades: see ``glide.py`` and `Imagen` here.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace

import torch
import torch.nn.functional as F
from torch import Tensor

from harmonia.generators.base import SCALES, Batch, CompositeGenerator, GeneratorConfig, Watch
from harmonia.generators.conditioning import Condition, ConditionConfig
from harmonia.generators.diffusion.model import Diffusion, DiffusionConfig, Guide, noised
from harmonia.generators.text_image_matching import MatchingConfig, MatchingPair
from harmonia.types import HarmoniaError


@dataclass(frozen=True, kw_only=True)
class CascadeConfig(GeneratorConfig):
    """``base`` draws images at 1 / ``factor`` of the size, which ``upsampler`` enlarges.

    ``level``  in [0, 1] of the noise added to the small image before upsampling; the upsampler is conditioned
               on it and trained at all levels up to ``upsampler.augment``

    ``shape``, ``size`` and ``condition`` of both are set from here.
    """

    base: DiffusionConfig = field(default_factory=lambda: DiffusionConfig(patch=1))
    upsampler: DiffusionConfig = field(default_factory=lambda: DiffusionConfig(augment=0.5))
    factor: int = 2
    level: float = 0.1

    def __post_init__(self) -> None:
        """Check the settings; HarmoniaError if one is out of range."""
        super().__post_init__()
        channels, height, width = self.shape
        if self.factor < 1 or height % self.factor or width % self.factor:
            raise HarmoniaError(f"factor must divide {height} and {width}, got {self.factor}")
        if not 0 <= self.level <= 1:
            raise HarmoniaError(f"level must be in [0, 1], not {self.level}")
        small = (channels, height // self.factor, width // self.factor)
        condition = self.model_condition()
        base = replace(self.base, shape=small, size=self.size, condition=condition)
        above = replace(condition, channels=channels)
        upsampler = replace(self.upsampler, shape=self.shape, size=self.size, condition=above)
        object.__setattr__(self, "base", base)
        object.__setattr__(self, "upsampler", upsampler)

    def model_condition(self) -> ConditionConfig:
        """The conditions of the base."""
        return self.condition


class Cascade(CompositeGenerator):
    """Two diffusion models, each with its own loss; the second is conditioned on a small image."""

    config: CascadeConfig
    MODELS = ("base", "upsampler")

    def __init__(self, config: CascadeConfig) -> None:
        super().__init__()
        self.config = config
        self.base = Diffusion(config.base)
        self.upsampler = Diffusion(config.upsampler)

    def losses(self, batch: Batch) -> dict[str, Tensor]:
        """The losses of the models that are not frozen: the base on small images, the upsampler given noisy
        ones."""
        condition, small = self.model_condition(batch.condition), self.reduce(batch.x)
        losses, trained = {}, self.groups()
        if "base" in trained:
            losses["base"] = self.base.losses(Batch(small, self.base_condition(condition)))["model"]
        if "upsampler" in trained:
            given = replace(condition, image=self.enlarge(small), level=None)
            losses["upsampler"] = self.upsampler.losses(Batch(batch.x, given))["model"]
        return losses

    @torch.no_grad()
    def sample(
        self,
        condition: Condition,
        *,
        steps: int | None = None,
        guidance: float | None = None,
        generator: torch.Generator | None = None,
        watch: Watch | None = None,
    ) -> Tensor:
        """Draw small images and upsample them, each in ``steps``; ``guidance`` is that of the base.

        ``watch`` is called with the steps of both in turn; it gets small images enlarged.
        """
        shared = self.model_condition(condition.to(self.device))
        first, second = steps or self.config.base.steps, steps or self.config.upsampler.steps
        early = _stage(watch, 0, first + second, self.enlarge)
        late = _stage(watch, first, first + second, lambda x: x)
        small = self.base.sample(
            self.base_condition(shared), steps=first, guidance=guidance, generator=generator, watch=early
        )
        level = torch.full((condition.n,), self.config.level, device=self.device)
        given = noised(replace(shared, image=self.enlarge(small)), level, generator)
        x = self.upsampler.sample(
            given, steps=second, guidance=1.0, generator=generator, watch=late, guide=self.guide(condition)
        )
        return self.finished(x, condition)

    def model_condition(self, condition: Condition) -> Condition:
        """The condition that both models take."""
        return condition

    def base_condition(self, condition: Condition) -> Condition:
        """The condition of the base, made from that of both models."""
        return condition

    def guide(self, condition: Condition) -> Guide | None:
        """A guide of the upsampler's steps, or None."""
        return None

    def finished(self, x: Tensor, condition: Condition) -> Tensor:
        """The samples after the last step."""
        return x

    def reduce(self, x: Tensor) -> Tensor:
        """Images (n, c, h, w) reduced to the size of the base by averaging."""
        return F.avg_pool2d(x, self.config.factor)

    def enlarge(self, x: Tensor) -> Tensor:
        """Small images enlarged to the size of samples, bilinearly."""
        return F.interpolate(x, self.config.shape[1:], mode="bilinear", align_corners=False)


def _stage(watch: Watch | None, before: int, total: int, show: Callable[[Tensor], Tensor]) -> Watch | None:
    """A watch of one stage, which calls ``watch`` with the steps counted from ``before``."""
    if watch is None:
        return None
    return lambda step, of, x: watch(before + step, total, show(x).clamp(-1, 1))


@dataclass(frozen=True, kw_only=True)
class ImagenConfig(CascadeConfig):
    """A cascade whose texts are encoded by the frozen text tower of ``pair``; see `Imagen`."""

    base: DiffusionConfig = field(default_factory=lambda: DiffusionConfig(patch=1, bounds="dynamic"))
    pair: MatchingConfig = field(default_factory=MatchingConfig)

    def __post_init__(self) -> None:
        """Check the settings; HarmoniaError if one is out of range."""
        super().__post_init__()
        self.pair.require(self.shape, self.condition.text)

    def model_condition(self) -> ConditionConfig:
        """Features of the frozen text tower instead of bytes."""
        return replace(self.condition, text=0, features=SCALES[self.pair.size].width // 2)


class Imagen(Cascade):
    """Imagen: a frozen text encoder, strong guidance with dynamic thresholding, conditioning augmentation.

    The paper's encoder is T5, trained on text only; here it is the text tower of a :class:`MatchingPair`
    that was trained before. Both models attend to its features of every byte.

    Reference: Saharia et al. 2022, "Photorealistic Text-to-Image Diffusion Models with Deep Language
    Understanding".
    """

    config: ImagenConfig

    def __init__(self, config: ImagenConfig) -> None:
        super().__init__(config)
        self.pair = MatchingPair(config.pair)

    @torch.no_grad()
    def model_condition(self, condition: Condition) -> Condition:
        """The condition with texts as features of the text tower."""
        if condition.text is None:
            return condition
        return replace(condition, text=None, features=self.pair.letters(condition.text))
