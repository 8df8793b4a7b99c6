"""DALL-E: one transformer over the tokens of a text and the codes of its image.

Reference: Ramesh et al. 2021, "Zero-shot text-to-image generation". Two stages: a dVAE, whose
bottleneck is the Gumbel-softmax relaxation, then the transformer. Differences from the paper: the text is
UTF-8 bytes instead of BPE tokens, attention is dense instead of sparse, the codec's error is that of its
configuration instead of the logit-Laplace likelihood, and there is classifier-free guidance.
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
"""The size of the text vocabulary: the bytes of UTF-8, and 0 for the end of a text."""

Rerank = Callable[[Tensor, Condition], Tensor]
"""Scores (n,) of how well each of n images fits its row of a condition, such as a CLIP cosine."""


@dataclass(frozen=True, kw_only=True)
class DallEConfig(CodeConfig):
    """``text_weight`` is the share of the text in the loss; ``condition.text`` the longest text in bytes."""

    codec: VQVAEConfig = field(default_factory=lambda: VQVAEConfig(bottleneck="gumbel"))
    condition: ConditionConfig = field(default_factory=lambda: ConditionConfig(text=32))
    text_weight: float = 0.125

    def __post_init__(self) -> None:
        CodeConfig.__post_init__(self)
        if self.condition.text < 1:
            raise HarmoniaError("DALL-E needs texts: set condition=text")
        if not 0 <= self.text_weight < 1:
            raise HarmoniaError(f"text_weight is {self.text_weight}: it must be from 0 to below 1")


class DallE(CodeGenerator):
    """A dVAE and a causal transformer over [start, the bytes of a text, the codes of a picture].

    The only kind of condition is ``text``.
    """

    config: DallEConfig
    prior: TextAndCodes

    def transformer(self) -> TextAndCodes:
        """A transformer over a text and the codes of its image."""
        return TextAndCodes(self.config)

    def losses(self, batch: Batch) -> dict[str, Tensor]:
        """The cross-entropy in nats per token: text_weight times that of the text, the rest that of the
        codes.

        The end of a text counts as one of its tokens; what follows does not.
        """
        codes = self.codes(batch)
        dropped = torch.rand(len(codes)) < self.config.condition.drop
        text = self.prior.text_of(batch.condition.without(dropped))
        of_text, of_codes = self.prior(text, codes)
        present = text > 0
        counts = torch.cat([torch.ones_like(present[:, :1]), present[:, :-1]], 1)
        weight = self.config.text_weight
        words = token_cross_entropy(of_text, text, counts=counts)
        return {"model": weight * words + (1 - weight) * token_cross_entropy(of_codes, codes)}

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

    Every place is either a byte or a code, so there are two heads. This equals the paper's joint vocabulary
    with the masked logits left out.
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
        """Logits of each byte (n, t, 257) and each code (n, h' w', K), given all tokens before it.

        ``text`` int64 (n, t) with zeros after its end, ``codes`` int64 (n, h' w').
        """
        x = torch.cat([self._text(text), self.tokens(codes[:, :-1], 1)], 1)
        mask = torch.ones(x.shape[:2], dtype=torch.bool, device=x.device)
        mask[:, 1 : 1 + self.letters] = text > 0
        y = self.body(x, mask=mask)
        return self.say(y[:, : self.letters]), self.see(y[:, self.letters :])

    def begin(self, text: Tensor, cache: Cache) -> Tensor:
        """Feed a text; logits (n, K) of the first code."""
        mask = torch.cat([torch.ones_like(text[:, :1], dtype=torch.bool), text > 0], 1)
        logits: Tensor = self.see(self.body(self._text(text), mask=mask, cache=cache)[:, -1])
        return logits

    def next(self, before: Tensor, place: int, cache: Cache) -> Tensor:
        """Logits (n, K) of the code at ``place``, given the one before, int64 (n,)."""
        logits: Tensor = self.see(self.body(self.tokens(before[:, None], place), cache=cache)[:, 0])
        return logits

    def text_of(self, condition: Condition) -> Tensor:
        """The bytes of a condition's text, int64 (n, letters), zeros without one. HarmoniaError if it is too
        long."""
        if condition.text is None:
            return torch.zeros(condition.n, self.letters, dtype=torch.int64, device=self.start.device)
        n, t = condition.text.shape
        if t > self.letters:
            raise HarmoniaError(
                f"texts of {t} bytes are too long for a DALL-E that reads {self.letters}: cut them"
            )
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
    """The best of ``candidates`` samples for each row by ``rerank`` (in the paper: CLIP, 512 candidates)."""
    if candidates < 1:
        raise HarmoniaError(f"candidates is {candidates}: it must be at least 1")
    rows = condition.rows(torch.arange(condition.n).repeat_interleave(candidates))
    x = model.sample(rows, guidance=guidance, generator=generator)
    best = rerank(x, rows).view(condition.n, candidates).argmax(1)
    return x.view(condition.n, candidates, *x.shape[1:])[torch.arange(condition.n), best]
