"""Hopfield-Fenchel-Young networks: recall from a set of patterns by repeated attention, as pure functions.

    p = y_Omega(beta X q + b) / k          q <- post(X^T p)
    E(q) = L*(q) - Omega*(beta X q + b) / (beta k)

X holds the patterns (S, d), ``post`` is the activation of the Lagrangian L, and k is 1, or the size of the
subsets that `Subsets` recalls at once. The step replaces the concave second term by its tangent, so E never
rises. Shannon entropy with the identity is the modern Hopfield network, one step of it is attention (Ramsauer
et al. 2021, "Hopfield Networks is All You Need"); the family is that of Santos, Niculae, McNamee and Martins
2024, "Hopfield-Fenchel-Young Networks: A Unified Framework for Associative Memory Retrieval".

Queries are (..., L, d), patterns (..., S, d); what stands before is batch and is broadcast. A ``mask`` is
as in `scaled_dot_product_attention`: bool, False = absent, or numbers b that are added to the scores. A
query that sees no pattern at all has p = 0 and recalls zero; its energy is +inf.

`attend` is one step over any number of stored codes, block by block, without gradients.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor

from harmonia.memory.certificates import error_bound
from harmonia.memory.entropies import Entropy, Shannon, Subsets
from harmonia.memory.lagrangians import Identity, Lagrangian, LayerNorm, Sphere
from harmonia.memory.matrix import Matrix
from harmonia.memory.moment_scores import MatrixQuery, read_all, read_top
from harmonia.memory.record_layout import Layout
from harmonia.memory.scan import scan_blocks, scan_top

__all__ = [
    "Association",
    "associate",
    "energy",
    "retrieve",
]

SOFTMAX = Shannon()
NAMED: dict[str, Lagrangian] = {"identity": Identity(), "l2": Sphere(), "layer_norm": LayerNorm()}

# Probability outside the best k that a readout may omit.
EXACT = 1e-6

Post = Literal["identity", "l2", "layer_norm"] | Lagrangian | Callable[[Tensor], Tensor]
"""The activation after an update: a Lagrangian, by name or itself, or a function, which has no energy."""


@dataclass(frozen=True, slots=True, eq=False)
class Association:
    """The association (attention weights) of queries with patterns at the last update.

    ``p`` (..., L, S) sums to one, to zero where nothing is present. ``states`` (..., L, d): what was compared
    with the patterns last. ``steps`` (..., L): updates so far, this one included. ``settled`` (..., L): the
    state stopped because it moved no further than the tolerance.
    """

    p: Tensor
    states: Tensor
    steps: Tensor
    settled: Tensor


@dataclass(frozen=True, slots=True, eq=False)
class _Memory:
    """Patterns and how they are read; ``bias`` is the mask where it is of numbers."""

    patterns: Tensor
    beta: float | Tensor
    entropy: Entropy
    mask: Tensor | None

    def scores(self, q: Tensor) -> Tensor:
        """beta X q + b, -inf where absent."""
        s = self.sharpened(q) @ self.patterns.mT
        if self.mask is None:
            return s
        return s.masked_fill(~self.mask, -torch.inf) if self.mask.dtype == torch.bool else s + self.mask

    def sharpened(self, q: Tensor) -> Tensor:
        return q * (self.beta[..., None] if isinstance(self.beta, Tensor) else self.beta)

    def subset(self, scores: Tensor) -> Tensor | float:
        """The mass of the argmax (..., L, 1)."""
        if not isinstance(self.entropy, Subsets):
            return 1.0
        return (scores > -torch.inf).sum(dim=-1, keepdim=True).clamp(1, self.entropy.k)

    def p(self, q: Tensor) -> Tensor:
        scores = self.scores(q)
        return self.entropy.argmax(scores) / self.subset(scores)

    def read(self, q: Tensor, values: Tensor, dropout: float = 0.0) -> Tensor:
        """The mean of the values under p; softmax without writing p down."""
        if isinstance(self.entropy, Shannon):
            mask = self.mask if self.mask is None or self.mask.dtype == torch.bool else self.mask.to(q.dtype)
            return F.scaled_dot_product_attention(
                self.sharpened(q), self.patterns, values, mask, dropout_p=dropout, scale=1.0
            )
        return F.dropout(self.p(q), dropout) @ values


def retrieve(
    queries: Tensor,
    patterns: Tensor,
    values: Tensor | None = None,
    *,
    beta: float | Tensor,
    entropy: Entropy = SOFTMAX,
    steps: int = 1,
    tolerance: float = 1e-4,
    mask: Tensor | None = None,
    post: Post = "identity",
    dropout: float = 0.0,
) -> Tensor:
    """Retrieve from ``patterns`` (..., S, d) with ``queries`` (..., L, d), in at most ``steps`` updates.

    The state itself, (..., L, d); given ``values`` (..., S, v), the last update reads these instead, without
    ``post``, (..., L, v). Each query stops by itself once an update moves it no further than ``tolerance``.
    ``beta`` is a number or one for each query, (..., L). ``dropout`` strikes entries of p in the last update.
    With `Subsets` of k a recall is the mean of k patterns.

    One step of softmax is `scaled_dot_product_attention` with scale beta.
    """
    memory = _memory(queries, patterns, beta, entropy, mask)
    if values is not None and values.shape[-2] != patterns.shape[-2]:
        raise ValueError(f"{values.shape[-2]} values for {patterns.shape[-2]} patterns; give one for each")
    states, _, _ = _settle(memory, queries, steps, tolerance, post)
    out = memory.read(states, patterns if values is None else values, dropout)
    return _function(post)(out) if values is None else out


def associate(
    queries: Tensor,
    patterns: Tensor,
    *,
    beta: float | Tensor,
    entropy: Entropy = SOFTMAX,
    steps: int = 1,
    tolerance: float = 1e-4,
    mask: Tensor | None = None,
    post: Post = "identity",
) -> Association:
    """The probabilities of the last of ``steps`` updates; arguments as in `retrieve`."""
    memory = _memory(queries, patterns, beta, entropy, mask)
    states, count, settled = _settle(memory, queries, steps, tolerance, post)
    return Association(memory.p(states), states, count, settled)


def energy(
    queries: Tensor,
    patterns: Tensor,
    *,
    beta: float | Tensor,
    entropy: Entropy = SOFTMAX,
    mask: Tensor | None = None,
    post: Post = "identity",
) -> Tensor:
    """E (..., L), which `retrieve` with the same arguments never raises; +inf outside the domain of L*.

    "l2" is defined on unit queries, "layer_norm" on normalised ones. A ``post`` that is merely a function
    has no energy: a ValueError.
    """
    if not isinstance(post, str) and not hasattr(post, "conjugate"):
        raise ValueError("a post that is a plain function has no energy: give a Lagrangian or its name")
    lagrangian = _lagrangian(post) if isinstance(post, str) else post
    memory = _memory(queries, patterns, beta, entropy, mask)
    scores = memory.scores(queries)
    subset = memory.subset(scores)
    k = subset.squeeze(-1) if isinstance(subset, Tensor) else subset
    return lagrangian.conjugate(queries) - entropy.conjugate(scores) / (beta * k)


def _settle(
    memory: _Memory, queries: Tensor, steps: int, tolerance: float, post: Post
) -> tuple[Tensor, Tensor, Tensor]:
    """The states before the last update, the number of updates with it, and whether they had come to rest."""
    if steps < 1:
        raise ValueError(f"steps must be at least 1 (got {steps})")
    activate = _function(post)
    # As many states as the batches together, whichever of them is the larger.
    states = queries + torch.zeros_like(memory.patterns[..., :1, :])
    moving = torch.ones(states.shape[:-1], dtype=torch.bool, device=queries.device)
    count = torch.ones_like(moving, dtype=torch.long)
    for _ in range(steps - 1):
        moved = activate(memory.read(states, memory.patterns))
        moved = torch.where(moving[..., None], moved, states)
        count = count + moving
        # A state at rest did not move at all; NaN counts as rest, so that it is seen.
        moving = torch.linalg.vector_norm((moved - states).detach(), dim=-1) > tolerance
        states = moved
        if not bool(moving.any()):
            break
    return states, count, ~moving


def _memory(
    queries: Tensor, patterns: Tensor, beta: float | Tensor, entropy: Entropy, mask: Tensor | None
) -> _Memory:
    if queries.dim() < 2 or patterns.dim() < 2 or queries.shape[-1] != patterns.shape[-1]:
        raise ValueError(
            f"queries (..., L, d) and patterns (..., S, d) must share d "
            f"(got {tuple(queries.shape)} and {tuple(patterns.shape)})"
        )
    if patterns.shape[-2] == 0:
        raise ValueError("there are no patterns to recall from: store at least one")
    if not isinstance(beta, Tensor) and not beta > 0:
        raise ValueError(f"beta must be positive (got {beta})")
    return _Memory(patterns, beta, entropy, mask)


def _function(post: Post) -> Callable[[Tensor], Tensor]:
    if isinstance(post, str):
        return _lagrangian(post).activation
    return post if callable(post) else post.activation


def _lagrangian(name: str) -> Lagrangian:
    if name not in NAMED:
        raise ValueError(f"post is one of {', '.join(NAMED)}, a Lagrangian or a function (got {name!r})")
    return NAMED[name]


@dataclass(frozen=True, slots=True, eq=False)
class Attended:
    """``codes`` (Q, d): sum of p * code. ``slots``, ``scores``, ``p`` (Q, k), best first.

    ``tail`` (Q,) is the probability outside these slots, ``bound`` (Q,) how far ``codes`` may be off for
    slots that were not read (0 where every one was).
    """

    codes: Tensor
    slots: Tensor
    scores: Tensor
    p: Tensor
    tail: Tensor
    bound: Tensor


def attend(
    codes: Matrix | Tensor,
    cues: Tensor,
    beta: float,
    *,
    entropy: Entropy | None = None,
    k: int = 64,
) -> Attended:
    """p = y_Omega(beta codes @ cue) over all P codes ``(P, d)``, and the mean code under p.

    ``cues`` (Q, d) may have any length. The readout is exact: softmax (the default) reads every slot unless
    all those behind the best ``k`` are provably without weight; for sparse entropies k grows until the last
    kept slot has none. Equals ``scaled_dot_product_attention(cues, codes, codes, scale=beta)``.
    """
    count, chosen = codes.shape[0], entropy or Shannon()
    if not count or cues.ndim != 2 or not len(cues) or cues.shape[1] != codes.shape[1]:
        raise ValueError(
            f"attend needs codes (P, d) and cues (Q, d), at least one of each "
            f"(got {tuple(codes.shape)} and {tuple(cues.shape)})"
        )
    if k < 1 or not 0.0 < beta < math.inf or not bool(cues.isfinite().all()):
        raise ValueError(
            f"attend needs finite cues, k of at least 1, a positive beta (got k {k}, beta {beta})"
        )
    view = _layout(count, str(cues.device))
    queries = [MatrixQuery("", codes, cues, torch.zeros_like(cues[:, 0]))]
    temperature = torch.full_like(cues[:, 0], beta)
    k = min(k, count)
    if not isinstance(chosen, Shannon):
        return _sparse(view, queries, chosen, temperature, k)
    found = scan_top(view, queries, k, temperature, total=False)
    p = torch.exp(found.scores * beta - found.logsumexp[:, None])
    tail = (1.0 - p.sum(dim=-1)).clamp(min=0.0)
    # Not known, or not negligible.
    if not bool((tail <= EXACT).all()):
        shift = found.scores[:, 0] * beta
        sums, total = read_all(scan_blocks(view, queries), view, {"": codes}, queries, temperature, shift)
        p = torch.exp(found.scores * beta - (shift + total.log())[:, None])
        out = sums[""] / total[:, None]
        tail = (1.0 - p.sum(dim=-1)).clamp(min=0.0)
        return Attended(out, found.slots, found.scores, p, tail, torch.zeros_like(tail))
    out = read_top(view, {"": codes}, queries, found.slots, p).codes[""]
    return Attended(out, found.slots, found.scores, p, tail, error_bound(tail))


def _sparse(view: Layout, queries: list[MatrixQuery], entropy: Entropy, beta: Tensor, k: int) -> Attended:
    while True:
        found = scan_top(view, queries, k, beta, total=False)
        p = entropy.argmax(found.scores * beta[:, None])
        if k == view.slots or bool((p[:, -1] == 0).all()):
            break
        k = min(4 * k, view.slots)
    out = read_top(view, {"": queries[0].codes}, queries, found.slots, p).codes[""]
    none = torch.zeros_like(beta)
    return Attended(out, found.slots, found.scores, p, none, none)


@lru_cache(maxsize=4)
def _layout(count: int, device: str) -> Layout:
    return Layout.aligned({"": torch.ones(count, dtype=torch.bool)}).to(torch.device(device))
