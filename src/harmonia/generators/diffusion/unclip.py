"""DALL-E 2: words to the code of a picture, and from the code to a picture.

Reference: Ramesh et al. 2022, "Hierarchical Text-Conditional Image Generation with CLIP Latents" (unCLIP).
Texts and pictures have codes in one space, that of a :class:`MatchingPair` (the paper's is CLIP), trained
before and frozen. A prior draws codes that a picture of the text may have, a decoder draws pictures that have
a code. The decoder alone makes variations of a picture.
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
    """``prior`` of codes given a text, ``decoder`` of pictures given a code, in the space of ``pair``.

    ``tries``  codes that the prior draws for each sample: the one most like the text's is taken (paper: 2)

    ``shape``, ``size`` and ``condition`` of the prior and the decoder are taken from here.
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
            raise HarmoniaError(f"tries is 1 or more, not {self.tries}")
        width, drop = self.pair.width, self.condition.drop
        asked = ConditionConfig(text=self.condition.text, code=width, drop=drop)
        prior = replace(
            self.prior, shape=(width, 1, 1), size=self.size, condition=asked, network="mlp", bounds="none"
        )
        told = ConditionConfig(code=width, drop=drop)
        decoder = replace(self.decoder, shape=self.shape, size=self.size, condition=told)
        object.__setattr__(self, "prior", prior)
        object.__setattr__(self, "decoder", decoder)


class Unclip(CompositeGenerator):
    """The pair, the prior and the decoder."""

    config: UnclipConfig
    MODELS = ("prior", "decoder")

    def __init__(self, config: UnclipConfig) -> None:
        super().__init__()
        self.config = config
        self.pair = MatchingPair(config.pair)
        self.prior = Diffusion(config.prior)
        self.decoder = Diffusion(config.decoder)

    def losses(self, batch: Batch) -> dict[str, Tensor]:
        """The prior's of the pictures' codes, given texts; the decoder's of pictures, given their codes."""
        code = self.encode(batch.x)
        asked = self._asked(batch.condition)
        losses, trained = {}, self.groups()
        if "prior" in trained:
            vectors = (code * math.sqrt(code.shape[1]))[..., None, None]
            losses["prior"] = self.prior.losses(Batch(vectors, asked))["model"]
        if "decoder" in trained:
            losses["decoder"] = self.decoder.losses(Batch(batch.x, Condition(len(code), code=code)))["model"]
        return losses

    @torch.no_grad()
    def encode(self, x: Tensor) -> Tensor:
        """Codes (n, d) of pictures (n, c, h, w), of unit length."""
        return self.pair.see(x.to(self.device)).picture

    @torch.no_grad()
    def imagine(
        self, condition: Condition, *, steps: int | None = None, generator: torch.Generator | None = None
    ) -> Tensor:
        """Codes (n, d) that pictures of the texts may have, of unit length: the prior's draws."""
        asked = self._asked(condition.to(self.device))
        n, tries = condition.n, self.config.tries
        rows = torch.arange(n, device=self.device).repeat(tries)
        drawn = self.prior.sample(asked.rows(rows), steps=steps, generator=generator).flatten(1)
        codes = F.normalize(drawn, dim=1).view(tries, n, -1)
        best = (codes * self.pair.read(text_of(asked.text)).sentence).sum(2).argmax(0)
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
        """Draw codes and decode them; ``steps`` of each, ``guidance`` of the decoder by the code.

        A condition that has a ``code`` of a picture in the pair's space is decoded as it is.
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
        """One picture like each of ``x`` (n, c, h, w): with its code, in all else as chance has it."""
        told = Condition(len(x), code=self.encode(x))
        return self.sample(told, steps=steps, guidance=guidance, generator=generator, watch=watch)

    @torch.no_grad()
    def _asked(self, condition: Condition) -> Condition:
        """The text, and its code."""
        text = text_of(condition.text)
        return Condition(condition.n, text=text, code=self.pair.read(text).sentence)
