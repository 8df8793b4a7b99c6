"""Autoregressive image generation: a VQ-VAE, and a transformer that predicts its codes one by one.

References: van den Oord et al. 2017 (VQ-VAE and its prior); Esser et al. 2021 (VQGAN: the prior is a
transformer, the condition its prefix); guidance on logits, Gafni et al. 2022 (Make-A-Scene); nucleus
sampling, Holtzman et al. 2020.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable
from dataclasses import dataclass, field

import torch
from torch import Tensor, nn

from harmonia.generators.autoencoders.autoencoder import VQVAE, VQVAEConfig
from harmonia.generators.base import Batch, Generator, GeneratorConfig, Watch
from harmonia.generators.conditioning import Condition, ConditionEmbedding, Conditioner, join
from harmonia.layers.causal import Cache, CausalTransformer
from harmonia.objectives import token_cross_entropy
from harmonia.types import HarmoniaError


@dataclass(frozen=True, kw_only=True)
class CodeConfig(GeneratorConfig):
    """Settings of generators over the codes of a VQ-VAE. ``shape`` is that of the codec.

    ``codec``        of the VQ-VAE
    ``dropout``      of the transformer
    ``guidance``     scale of classifier-free guidance, by default
    ``temperature``  of sampling: 1 for the model's own distribution, 0 for the most probable code
    ``top_k``        sample from this many of the most probable codes; 0 for all
    ``top_p``        sample from the most probable codes with this total probability (nucleus)
    """

    codec: VQVAEConfig = field(default_factory=VQVAEConfig)
    dropout: float = 0.1
    guidance: float = 1.0
    temperature: float = 1.0
    top_k: int = 0
    top_p: float = 1.0

    def __post_init__(self) -> None:
        """Check the settings; HarmoniaError if one is out of range."""
        super().__post_init__()
        if self.codec.shape != self.shape:
            raise HarmoniaError(
                f"the codec has shape {self.codec.shape}, the generator {self.shape}: give both the same"
            )
        if self.temperature < 0 or self.top_k < 0 or not 0 < self.top_p <= 1:
            raise HarmoniaError("temperature and top_k must be at least 0, top_p above 0 and at most 1")


@dataclass(frozen=True, kw_only=True)
class AutoregressiveConfig(CodeConfig):
    """The settings of an `Autoregressive`."""


class GridOfCodes(nn.Module):
    """The embedding of codes that stand on a grid: that of the code, plus that of its row and its column."""

    embed: nn.Embedding
    row: nn.Parameter
    column: nn.Parameter

    def place_grid(self, height: int, width: int, dim: int) -> None:
        """Make the embeddings of the rows and columns of a grid.

        They are as large as the embedding of a condition: next to it, positions of the customary 0.02 take
        long to have an effect.
        """
        self.row = nn.Parameter(torch.randn(height, 1, dim) * 0.7)
        self.column = nn.Parameter(torch.randn(width, dim) * 0.7)

    def tokens(self, codes: Tensor, first: int = 0) -> Tensor:
        """Embed codes int64 (n, t) at the places from ``first`` on: (n, t, width)."""
        place = (self.row + self.column).flatten(0, 1)[first : first + codes.shape[1]]
        out: Tensor = self.embed(codes) + place
        return out


class CodeTransformer(GridOfCodes):
    """A transformer from codes and a condition to the logits of each code of a grid.

    The condition's tokens are a prefix, and its vector is added to every token. The id ``entries``, one more
    than the codebook has, is the start of a sequence or a masked code.
    """

    def __init__(self, config: CodeConfig, *, causal: bool) -> None:
        super().__init__()
        scale, entries = config.scale, config.codec.codes
        self.grid = (h, w) = config.codec.latent[1:]
        self.entries, self.length = entries, h * w
        self.conditioner = Conditioner(config.condition, scale.width)
        self.embed = nn.Embedding(entries + 1, scale.width)
        self.place_grid(h, w, scale.width)
        self.body = CausalTransformer(
            scale.width, scale.blocks, scale.heads, dropout=config.dropout, causal=causal
        )
        self.head = nn.Linear(scale.width, entries)
        nn.init.zeros_(self.head.weight)

    def forward(
        self, ids: Tensor, condition: ConditionEmbedding, *, cache: Cache | None = None, first: int = 0
    ) -> Tensor:
        """Logits (n, t, entries) for codes int64 (n, t) at the places from ``first`` on.

        With a cache, the codes before ``first`` are in it. The prefix is fed with the first place.
        """
        x, mask = self.tokens(ids, first), None
        if first == 0:
            ones = torch.ones(ids.shape, dtype=torch.bool, device=ids.device)
            x, mask = torch.cat([condition.tokens, x], 1), torch.cat([condition.mask, ones], 1)
        prefix = condition.tokens.shape[1]
        y = self.body(x + condition.vector[:, None], mask=mask, prefix=prefix, cache=cache)
        logits: Tensor = self.head(y[:, -ids.shape[1] :])
        return logits

    def shifted(self, codes: Tensor) -> Tensor:
        """The inputs with which a causal transformer predicts ``codes`` (n, length): shifted by one place."""
        start = torch.full_like(codes[:, :1], self.entries)
        return torch.cat([start, codes[:, :-1]], 1)


class CodeGenerator(Generator):
    """A VQ-VAE, ``codec``, and a transformer over its codes, ``prior``, whose code embedding is
    ``prior.embed``.

    The codec is trained first. ``losses`` trains the transformer only, on images or on their codes
    (``Batch.x`` int64 (n, h', w')), so that the frozen codec need not run at each step.
    """

    config: CodeConfig
    prior: nn.Module

    def __init__(self, config: CodeConfig) -> None:
        super().__init__()
        self.config, self.codec = config, VQVAE(config.codec)
        self.prior = self.transformer()

    @abstractmethod
    def transformer(self) -> nn.Module:
        """A new prior."""

    def groups(self) -> dict[str, list[nn.Parameter]]:
        """The parameters of the transformer; the codec is trained on its own."""
        return {"model": list(self.prior.parameters())}

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
        """Draw codes (see ``sample_codes``) and decode them."""
        codes = self.sample_codes(condition, steps=steps, guidance=guidance, generator=generator, watch=watch)
        return self.codec.decode_codes(codes)

    @torch.no_grad()
    def sample_codes(
        self,
        condition: Condition,
        *,
        steps: int | None = None,
        guidance: float | None = None,
        generator: torch.Generator | None = None,
        watch: Watch | None = None,
    ) -> Tensor:
        """Draw codes, int64 (n, h', w'), for each row of ``condition``; see ``sample`` for the arguments."""
        strength = self.config.guidance if guidance is None else guidance
        return self.draw_codes(condition.to(self.device), steps, strength, generator, watch)

    @abstractmethod
    def draw_codes(
        self,
        condition: Condition,
        steps: int | None,
        guidance: float,
        generator: torch.Generator | None,
        watch: Watch | None,
    ) -> Tensor:
        """Codes, int64 (n, h', w'), for a condition on the model's device."""

    def codes(self, batch: Batch) -> Tensor:
        """The codes of a batch of images or codes, in raster order: int64 (n, h' w')."""
        if not batch.x.is_floating_point():
            return batch.x.flatten(1)
        with torch.no_grad():
            return self.codec.codes(batch.x).flatten(1)

    @torch.no_grad()
    def start(self) -> None:
        """Initialise the code embedding by a fixed random projection of the codebook.

        Similar entries then have similar embeddings, which the transformer would otherwise have to learn.
        Call it after the codec is trained and before the transformer is.
        """
        size = self.config.codec.codes
        entries = self.codec.bottleneck.entries(torch.arange(size, device=self.device))
        entries = (entries - entries.mean(0)) / entries.std().clamp_min(1e-6)
        embed = self.prior.get_submodule("embed").get_parameter("weight")
        shape = (entries.shape[1], embed.shape[1])
        projection = torch.randn(shape, generator=torch.Generator().manual_seed(0)).to(entries)
        embed[:size] = entries @ projection / shape[0] ** 0.5


class Autoregressive(CodeGenerator):
    """A VQ-VAE and a causal `CodeTransformer` over its codes, row by row."""

    config: AutoregressiveConfig
    prior: CodeTransformer

    def transformer(self) -> CodeTransformer:
        """A causal transformer over the codes."""
        return CodeTransformer(self.config, causal=True)

    def losses(self, batch: Batch) -> dict[str, Tensor]:
        """The mean negative log-likelihood of a code, in nats."""
        codes = self.codes(batch)
        logits = self.logits(codes, self.prior.conditioner.drop(batch.condition))
        return {"model": token_cross_entropy(logits, codes)}

    def logits(self, codes: Tensor, condition: Condition) -> Tensor:
        """Logits (n, h' w', entries) of each code given the codes before it, int64 (n, h' w')."""
        out: Tensor = self.prior(self.prior.shifted(codes), self.prior.conditioner(condition))
        return out

    def draw_codes(
        self,
        condition: Condition,
        steps: int | None,
        guidance: float,
        generator: torch.Generator | None,
        watch: Watch | None,
    ) -> Tensor:
        """One code after the other: there are as many steps as codes, and ``steps`` is ignored."""
        embedded = self.prior.conditioner(both(condition, guidance))
        cache = Cache()

        def predict(before: Tensor, place: int) -> Tensor:
            logits: Tensor = self.prior(before[:, None], embedded, cache=cache, first=place)[:, 0]
            return logits

        return one_by_one(predict, condition.n, guidance, self.config, self.codec, generator, watch)


def one_by_one(
    predict: Callable[[Tensor, int], Tensor],
    n: int,
    guidance: float,
    config: CodeConfig,
    codec: VQVAE,
    generator: torch.Generator | None,
    watch: Watch | None,
) -> Tensor:
    """Sample grids of codes, int64 (n, h', w'), place by place.

    ``predict`` takes the codes of the previous place, int64 (n,), or with guidance (2n,), and the place; it
    returns logits for each row. The code before the first place is ``config.codec.codes``.
    """
    h, w = config.codec.latent[1:]
    device = next(codec.parameters()).device
    codes = torch.zeros(n, h * w, dtype=torch.int64, device=device)
    last = torch.full((n,), config.codec.codes, device=device)
    for place in range(h * w):
        logits = guided(predict(last if guidance == 1 else last.repeat(2), place), n, guidance)
        last = pick(logits, config.temperature, config.top_k, config.top_p, generator)
        codes[:, place] = last
        if watch is not None:
            watch(place + 1, h * w, codec.decode_codes(codes.view(n, h, w)))
    return codes.view(n, h, w)


def both(condition: Condition, guidance: float) -> Condition:
    """The condition, followed by its rows set to null if ``guidance`` is not 1."""
    return condition if guidance == 1 else join(condition, condition.without())


def guided(logits: Tensor, n: int, guidance: float) -> Tensor:
    """Classifier-free guidance: null + guidance * (conditional - null), with rows as ``both`` gives them.

    Each code is drawn from p(code) (p(code | condition) / p(code))^guidance, both given the codes before.
    """
    if len(logits) == n:
        return logits
    conditional, null = logits[:n], logits[n:]
    return null + guidance * (conditional - null)


def pick(
    logits: Tensor,
    temperature: float = 1.0,
    top_k: int = 0,
    top_p: float = 1.0,
    generator: torch.Generator | None = None,
) -> Tensor:
    """Sample a class from each row of ``logits`` (n, K): int64 (n,); see `CodeConfig` for the settings.

    Inverse transform sampling with one uniform number for each row, drawn on the CPU.
    """
    if temperature == 0:
        return logits.argmax(1)
    p, order = (logits.float() / temperature).softmax(1).sort(dim=1, descending=True, stable=True)
    cut = torch.zeros_like(p, dtype=torch.bool)
    if top_k:
        cut[:, top_k:] = True
    # the class that crosses top_p stays
    cut |= p.cumsum(1) - p >= top_p
    cut[:, 0] = False
    total = p.masked_fill(cut, 0).cumsum(1)
    u = torch.rand(len(p), 1, generator=generator).to(p.device) * total[:, -1:]
    place = torch.searchsorted(total, u, right=True).clamp_max((~cut).sum(1, keepdim=True) - 1)
    return order.gather(1, place)[:, 0]
