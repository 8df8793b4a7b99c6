"""DALL-E: one transformer over a text and the codes of its picture, as one stream.

Reference: Ramesh et al. 2021, "Zero-shot text-to-image generation". Two stages: a dVAE (its bottleneck is
the Gumbel-softmax relaxation, not a VQ-VAE's nearest entry), then the transformer. What differs here: the
text is its UTF-8 bytes in place of BPE tokens, attention is dense in place of sparse, the codec's error is
the one of its configuration in place of the logit-Laplace likelihood, and there is guidance.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

import torch
from torch import Tensor, nn

from harmonia.generators.autoencoders.autoencoder import VQVAEConfig
from harmonia.generators.base import Batch, Generator, Watch
from harmonia.generators.conditioning import Condition, ConditionConfig
from harmonia.generators.tokens.autoregressive import CodeConfig, CodeGenerator, GridOfCodes, both, one_by_one
from harmonia.layers.causal import Cache, CausalTransformer
from harmonia.objectives import token_cross_entropy
from harmonia.types import HarmoniaError

BYTES = 257
"""The bytes of UTF-8, and 0 for the end of a text."""

Rerank = Callable[[Tensor, Condition], Tensor]
"""How well each of n pictures fits its row of a condition, (n,): an encoder's cosine of picture and text."""


@dataclass(frozen=True, kw_only=True)
class DallEConfig(CodeConfig):
    """``text_weight`` is the share of the text in the loss; ``condition.text`` the bytes of the longest."""

    codec: VQVAEConfig = field(default_factory=lambda: VQVAEConfig(bottleneck="gumbel"))
    condition: ConditionConfig = field(default_factory=lambda: ConditionConfig(text=32))
    text_weight: float = 0.125

    def __post_init__(self) -> None:
        CodeConfig.__post_init__(self)
        if self.condition.text < 1:
            raise HarmoniaError("DALL-E reads text: set condition=text")
        if not 0 <= self.text_weight < 1:
            raise HarmoniaError(f"text_weight is {self.text_weight}: it has to be from 0 to below 1")


class DallE(CodeGenerator):
    """A dVAE and a causal transformer over [start, the bytes of a text, the codes of a picture].

    Of a condition only ``text`` is read.
    """

    config: DallEConfig
    prior: TextAndCodes

    def transformer(self) -> TextAndCodes:
        """Over a text and the codes of its picture."""
        return TextAndCodes(self.config)

    def losses(self, batch: Batch) -> dict[str, Tensor]:
        """Nats per token: text_weight times those of the text, the rest those of the picture.

        The end of a text counts as one of its tokens; what follows does not.
        """
        codes = self.codes(batch)
        dropped = torch.rand(len(codes)) < self.config.condition.drop
        text = self.prior.text_of(batch.condition.without(dropped))
        said, seen = self.prior(text, codes)
        spelled = text > 0
        counts = torch.cat([torch.ones_like(spelled[:, :1]), spelled[:, :-1]], 1)
        weight = self.config.text_weight
        words = token_cross_entropy(said, text, counts=counts)
        return {"model": weight * words + (1 - weight) * token_cross_entropy(seen, codes)}

    def draw_codes(
        self,
        condition: Condition,
        steps: int | None,
        guidance: float,
        generator: torch.Generator | None,
        watch: Watch | None,
    ) -> Tensor:
        """One code after the other: there are as many steps as codes, and ``steps`` is ignored."""
        text = self.prior.text_of(both(condition, guidance))
        cache = Cache()

        def predict(before: Tensor, place: int) -> Tensor:
            if place == 0:
                return self.prior.begin(text, cache)
            return self.prior.next(before, place, cache)

        return one_by_one(predict, condition.n, guidance, self.config, self.codec, generator, watch)


class TextAndCodes(GridOfCodes):
    """The transformer over text and codes; each code stands at the place that it predicts.

    At every place either a byte or a code is possible, never both: so there are two heads, which is the
    paper's one vocabulary without the logits that it masks.
    """

    def __init__(self, config: DallEConfig) -> None:
        super().__init__()
        s, c = config.scale, config.codec
        h, w = c.latent[1:]
        self.letters = config.condition.text
        self.letter, self.embed = nn.Embedding(BYTES, s.width), nn.Embedding(c.codes, s.width)
        self.start = nn.Parameter(torch.zeros(s.width))
        self.place = nn.Parameter(torch.randn(self.letters, s.width) * 0.7)
        self.place_grid(h, w, s.width)
        self.body = CausalTransformer(s.width, s.blocks, s.heads, dropout=config.dropout)
        self.say, self.see = nn.Linear(s.width, BYTES), nn.Linear(s.width, c.codes)

    def forward(self, text: Tensor, codes: Tensor) -> tuple[Tensor, Tensor]:
        """Logits of each byte (n, t, 257) and each code (n, h' w', K), given all that stands before it.

        ``text`` int64 (n, t) with zeros after its end, ``codes`` int64 (n, h' w').
        """
        x = torch.cat([self._text(text), self.tokens(codes[:, :-1], 1)], 1)
        mask = torch.ones(x.shape[:2], dtype=torch.bool, device=x.device)
        mask[:, 1 : 1 + self.letters] = text > 0
        y = self.body(x, mask=mask)
        return self.say(y[:, : self.letters]), self.see(y[:, self.letters :])

    def begin(self, text: Tensor, cache: Cache) -> Tensor:
        """Read a text; logits (n, K) of the first code."""
        mask = torch.cat([torch.ones_like(text[:, :1], dtype=torch.bool), text > 0], 1)
        logits: Tensor = self.see(self.body(self._text(text), mask=mask, cache=cache)[:, -1])
        return logits

    def next(self, before: Tensor, place: int, cache: Cache) -> Tensor:
        """Logits (n, K) of the code at ``place``, given the one before, int64 (n,)."""
        logits: Tensor = self.see(self.body(self.tokens(before[:, None], place), cache=cache)[:, 0])
        return logits

    def text_of(self, condition: Condition) -> Tensor:
        """The bytes, int64 (n, letters); none where there is no text. HarmoniaError if it is too long."""
        if condition.text is None:
            return torch.zeros(condition.n, self.letters, dtype=torch.int64, device=self.start.device)
        n, t = condition.text.shape
        if t > self.letters:
            raise HarmoniaError(f"texts of {t} bytes for a DALL-E that reads {self.letters}: cut them")
        return torch.cat([condition.text, condition.text.new_zeros(n, self.letters - t)], 1)

    def _text(self, text: Tensor) -> Tensor:
        start = self.start.expand(len(text), 1, -1)
        return torch.cat([start, self.letter(text) + self.place], 1)


@torch.no_grad()
def best_of(
    model: Generator,
    condition: Condition,
    rerank: Rerank,
    candidates: int = 8,
    *,
    guidance: float = 1.0,
    generator: torch.Generator | None = None,
) -> Tensor:
    """Of ``candidates`` samples for each row, the one that ``rerank`` puts highest (DALL-E: CLIP, of 512)."""
    if candidates < 1:
        raise HarmoniaError(f"candidates is {candidates}: it has to be at least 1")
    rows = condition.rows(torch.arange(condition.n).repeat_interleave(candidates))
    x = model.sample(rows, guidance=guidance, generator=generator)
    best = rerank(x, rows).view(condition.n, candidates).argmax(1)
    return x.view(condition.n, candidates, *x.shape[1:])[torch.arange(condition.n), best]
