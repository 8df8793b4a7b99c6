"""A decoder transformer with causal attention and a key-value cache.

References: Vaswani et al. 2017; pre-norm, Xiong et al. 2020; rotary positions, Su et al. 2021 (RoFormer);
bidirectional attention within a prefix, Raffel et al. 2020 (prefix language model of T5).
"""

from __future__ import annotations

from dataclasses import dataclass, field

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from harmonia.types import HarmoniaError

Pair = tuple[Tensor, Tensor]
"""Keys and values, (n, heads, t, width / heads)."""


@dataclass(slots=True, eq=False)
class Cache:
    """The key-value cache of a ``CausalTransformer``, initially empty.

    ``seen`` and ``memory`` hold a pair for each block; ``counts`` (n, t) is true where a token counts, None
    as long as all do.
    """

    seen: list[Pair] = field(default_factory=list)
    memory: list[Pair] = field(default_factory=list)
    counts: Tensor | None = None

    def __len__(self) -> int:
        return self.seen[0][0].shape[2] if self.seen else 0

    def rows(self, index: Tensor) -> Cache:
        """The cache of some rows, int64 (m,), as for beam search; rows may repeat."""
        seen = [(k[index], v[index]) for k, v in self.seen]
        memory = [(k[index], v[index]) for k, v in self.memory]
        return Cache(seen, memory, None if self.counts is None else self.counts[index])


class CausalTransformer(nn.Module):
    """``blocks`` blocks on embedded tokens and a last normalisation; 12 width² weights a block.

    ``causal``  attend to the tokens before only; without it, to all (for masked prediction)
    ``cross``   every block also has cross-attention to the ``memory`` argument of ``forward``
    ``rotary``  rotary position embeddings; without them, the caller adds positions to the tokens
    """

    def __init__(
        self,
        width: int,
        blocks: int,
        heads: int,
        *,
        dropout: float = 0.0,
        causal: bool = True,
        cross: bool = False,
        rotary: bool = False,
    ) -> None:
        super().__init__()
        if width % heads or (rotary and width // heads % 2):
            raise HarmoniaError(f"{heads} heads do not share a width of {width} (evenly, if rotary)")
        self.causal, self.cross, self.rotary = causal, cross, rotary
        self.blocks = nn.ModuleList(DecoderBlock(width, heads, dropout, cross) for _ in range(blocks))
        self.norm = nn.LayerNorm(width)
        self.width, self.heads = width, heads
        # what is added to the residual stream grows with its depth (GPT-2)
        for name, weight in self.named_parameters():
            if name.endswith(("out.weight", "mlp.2.weight")):
                weight.data.mul_((2 * blocks) ** -0.5)

    def forward(
        self,
        x: Tensor,
        *,
        mask: Tensor | None = None,
        prefix: int = 0,
        memory: Tensor | None = None,
        memory_mask: Tensor | None = None,
        cache: Cache | None = None,
    ) -> Tensor:
        """Tokens (n, t, width) to the same shape.

        Args:
            x: embedded tokens; with a cache that is not empty, those that follow.
            mask: bool (n, t), true where a token of ``x`` counts; one that does not is seen by itself only.
            prefix: that many tokens at the start see each other whatever their order. All of them have to
                be in the call that begins a cache.
            memory: (n, m, width), what ``cross`` attends to; a cache keeps it from the first call.
            memory_mask: bool (n, m); every row needs at least one true.
            cache: filled with these tokens.
        """
        if self.cross and memory is None and not (cache and cache.memory):
            raise HarmoniaError("this transformer attends to a memory: give one")
        if cache is not None and not self.causal and len(cache):
            raise HarmoniaError("a transformer that sees all tokens cannot go on from a cache")
        past = len(cache) if cache is not None else 0
        allowed = self._allowed(x, mask, past, prefix, cache)
        turn = self._turn(x, past) if self.rotary else None
        seen = None if memory_mask is None else memory_mask[:, None, None, :]
        for depth, block in enumerate(self.blocks):
            x = block(x, allowed, turn, memory, seen, cache, depth)
        out: Tensor = self.norm(x)
        return out

    def _allowed(
        self, x: Tensor, mask: Tensor | None, past: int, prefix: int, cache: Cache | None
    ) -> Tensor | None:
        """The attention mask, bool (1 or n, 1, t, past + t); None for no mask."""
        n, t = x.shape[:2]
        if cache is not None and (mask is not None or cache.counts is not None):
            before = cache.counts if cache.counts is not None else x.new_ones(n, past, dtype=torch.bool)
            mask = x.new_ones(n, t, dtype=torch.bool) if mask is None else mask
            mask = cache.counts = torch.cat([before, mask], 1)
        if mask is None and (not self.causal or t == 1):
            return None
        rows = torch.arange(past, past + t, device=x.device)[:, None]
        columns = torch.arange(past + t, device=x.device)
        allowed = torch.ones(t, past + t, dtype=torch.bool, device=x.device)
        if self.causal:
            allowed = (columns <= rows) | ((columns < prefix) & (rows < prefix))
        if mask is None:
            return allowed[None, None]
        return ((allowed & mask[:, None, :]) | (columns == rows))[:, None]

    def _turn(self, x: Tensor, past: int) -> Pair:
        """Cosine and sine of the places of ``x`` times the frequencies, (t, width / heads / 2)."""
        half = self.width // self.heads // 2
        frequency = 10000.0 ** (-torch.arange(half, device=x.device, dtype=x.dtype) / half)
        angle = torch.arange(past, past + x.shape[1], device=x.device, dtype=x.dtype)[:, None] * frequency
        return angle.cos(), angle.sin()


class DecoderBlock(nn.Module):
    """A residual block of self-attention, cross-attention if there is a memory, and a perceptron."""

    def __init__(self, width: int, heads: int, dropout: float, cross: bool) -> None:
        super().__init__()
        self.heads = heads
        self.norm1, self.norm2 = nn.LayerNorm(width), nn.LayerNorm(width)
        self.qkv, self.out = nn.Linear(width, 3 * width), nn.Linear(width, width)
        self.mlp = nn.Sequential(nn.Linear(width, 4 * width), nn.GELU(), nn.Linear(4 * width, width))
        self.dropout = nn.Dropout(dropout)
        if cross:
            self.norm_cross = nn.LayerNorm(width)
            self.query, self.cross_out = nn.Linear(width, width), nn.Linear(width, width)
            self.key_value = nn.Linear(width, 2 * width)

    def forward(
        self,
        x: Tensor,
        allowed: Tensor | None,
        turn: Pair | None,
        memory: Tensor | None,
        memory_seen: Tensor | None,
        cache: Cache | None,
        depth: int,
    ) -> Tensor:
        """(n, t, width) to the same shape; ``depth`` is the block's place in the cache."""
        q, k, v = self._split(self.qkv(self.norm1(x)), 3)
        if turn is not None:
            q, k = _turned(q, turn), _turned(k, turn)
        if cache is not None:
            if depth < len(cache.seen):
                before = cache.seen[depth]
                k, v = torch.cat([before[0], k], 2), torch.cat([before[1], v], 2)
                cache.seen[depth] = (k, v)
            else:
                cache.seen.append((k, v))
        x = x + self.dropout(self.out(_attend(q, k, v, allowed)))
        if hasattr(self, "query"):
            k, v = self._remembered(memory, cache, depth)
            (q,) = self._split(self.query(self.norm_cross(x)), 1)
            x = x + self.dropout(self.cross_out(_attend(q, k, v, memory_seen)))
        out: Tensor = x + self.dropout(self.mlp(self.norm2(x)))
        return out

    def _remembered(self, memory: Tensor | None, cache: Cache | None, depth: int) -> Pair:
        if cache is not None and depth < len(cache.memory):
            return cache.memory[depth]
        assert memory is not None  # CausalTransformer.forward has seen to it
        k, v = self._split(self.key_value(memory), 2)
        if cache is not None:
            cache.memory.append((k, v))
        return k, v

    def _split(self, x: Tensor, parts: int) -> tuple[Tensor, ...]:
        n, t, _ = x.shape
        return tuple(x.view(n, t, parts, self.heads, -1).permute(2, 0, 3, 1, 4).unbind(0))


def _attend(q: Tensor, k: Tensor, v: Tensor, allowed: Tensor | None) -> Tensor:
    y: Tensor = F.scaled_dot_product_attention(q, k, v, attn_mask=allowed)
    n, _, t, _ = y.shape
    return y.transpose(1, 2).reshape(n, t, -1)


def _turned(x: Tensor, turn: Pair) -> Tensor:
    """Each pair of channels (i, i + half) rotated by its angle."""
    cos, sin = turn
    a, b = x.chunk(2, dim=-1)
    return torch.cat([a * cos - b * sin, a * sin + b * cos], dim=-1)
