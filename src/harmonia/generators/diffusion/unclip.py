"""DALL-E 2 (unCLIP): a prior from text to image codes, and a decoder from codes to images.

Reference: Ramesh et al. 2022, "Hierarchical Text-Conditional Image Generation with CLIP Latents" (unCLIP).
Texts and images have codes in the space of a :class:`MatchingPair` (in the paper: CLIP), trained before and
frozen. The prior samples image codes given a text, the decoder samples images given a code. The decoder alone
makes variations of an image.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field, replace

import torch
import torch.nn.functional as F
from torch import Tensor

from harmonia.generators.base import Batch, CompositeGenerator, GeneratorConfig, Watch
from harmonia.generators.conditioning import Condition, ConditionConfig
from harmonia.generators.diffusion.model import Diffusion, DiffusionConfig
from harmonia.generators.text_image_matching import MatchingConfig, MatchingPair, text_of
from harmonia.types import HarmoniaError


@dataclass(frozen=True, kw_only=True)
class UnclipConfig(GeneratorConfig):
    """``prior`` of codes given a text, ``decoder`` of images given a code, in the space of ``pair``.

    ``tries``  codes that the prior draws for each sample; the one closest to the text's is used (paper: 2)

    ``shape``, ``size`` and ``condition`` of the prior and the decoder are set from here.
    """

    pair: MatchingConfig = field(default_factory=MatchingConfig)
    prior: DiffusionConfig = field(default_factory=lambda: DiffusionConfig(network="mlp"))
    decoder: DiffusionConfig = field(default_factory=DiffusionConfig)
    tries: int = 2

    def __post_init__(self) -> None:
        """Check the settings; HarmoniaError if one is out of range."""
        super().__post_init__()
        self.pair.require(self.shape, self.condition.text)
        if self.tries < 1:
            raise HarmoniaError(f"tries must be at least 1, not {self.tries}")
        width, drop = self.pair.width, self.condition.drop
        of_text = ConditionConfig(text=self.condition.text, code=width, drop=drop)
        prior = replace(
            self.prior, shape=(width, 1, 1), size=self.size, condition=of_text, network="mlp", bounds="none"
        )
        of_code = ConditionConfig(code=width, drop=drop)
        decoder = replace(self.decoder, shape=self.shape, size=self.size, condition=of_code)
        object.__setattr__(self, "prior", prior)
        object.__setattr__(self, "decoder", decoder)


class Unclip(CompositeGenerator):
    """A text-image matching pair, a prior and a decoder."""

    config: UnclipConfig
    MODELS = ("prior", "decoder")

    def __init__(self, config: UnclipConfig) -> None:
        super().__init__()
        self.config = config
        self.pair = MatchingPair(config.pair)
        self.prior = Diffusion(config.prior)
        self.decoder = Diffusion(config.decoder)

    def losses(self, batch: Batch) -> dict[str, Tensor]:
        """The losses of the prior on image codes given texts, and of the decoder on images given their
        codes."""
        code = self.encode(batch.x)
        condition = self._with_code(batch.condition)
        losses, trained = {}, self.groups()
        if "prior" in trained:
            vectors = (code * math.sqrt(code.shape[1]))[..., None, None]
            losses["prior"] = self.prior.losses(Batch(vectors, condition))["model"]
        if "decoder" in trained:
            losses["decoder"] = self.decoder.losses(Batch(batch.x, Condition(len(code), code=code)))["model"]
        return losses

    @torch.no_grad()
    def encode(self, x: Tensor) -> Tensor:
        """Codes (n, d) of images (n, c, h, w), of unit length."""
        return self.pair.see(x.to(self.device)).picture

    @torch.no_grad()
    def imagine(
        self, condition: Condition, *, steps: int | None = None, generator: torch.Generator | None = None
    ) -> Tensor:
        """Sample image codes (n, d) of unit length from the prior, given texts."""
        given = self._with_code(condition.to(self.device))
        n, tries = condition.n, self.config.tries
        rows = torch.arange(n, device=self.device).repeat(tries)
        drawn = self.prior.sample(given.rows(rows), steps=steps, generator=generator).flatten(1)
        codes = F.normalize(drawn, dim=1).view(tries, n, -1)
        best = (codes * self.pair.read(text_of(given.text)).sentence).sum(2).argmax(0)
        return codes[best, torch.arange(n, device=self.device)]

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
        """Sample codes and decode them; ``steps`` are those of each, ``guidance`` is that of the decoder.

        A condition with an image ``code`` in the space of the pair is decoded directly.
        """
        code = condition.code
        if code is None:
            code = self.imagine(condition, steps=steps, generator=generator)
        return self.decoder.sample(
            Condition(condition.n, code=code),
            steps=steps,
            guidance=guidance,
            generator=generator,
            watch=watch,
        )

    def variations(
        self,
        x: Tensor,
        *,
        steps: int | None = None,
        guidance: float | None = None,
        generator: torch.Generator | None = None,
        watch: Watch | None = None,
    ) -> Tensor:
        """A variation of each image of ``x`` (n, c, h, w): a sample of the decoder given its code."""
        condition = Condition(len(x), code=self.encode(x))
        return self.sample(condition, steps=steps, guidance=guidance, generator=generator, watch=watch)

    @torch.no_grad()
    def _with_code(self, condition: Condition) -> Condition:
        """The text and its code."""
        text = text_of(condition.text)
        return Condition(condition.n, text=text, code=self.pair.read(text).sentence)
