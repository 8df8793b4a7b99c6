"""MaskGIT: a bidirectional transformer predicts many masked codes of a VQ-VAE at once.

Reference: Chang et al. 2022, "MaskGIT: Masked generative image transformer".
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from harmonia.generators.base import Batch, Watch
from harmonia.generators.conditioning import Condition
from harmonia.generators.tokens.autoregressive import (
    CodeConfig,
    CodeGenerator,
    CodeTransformer,
    both,
    guided,
    pick,
)
from harmonia.objectives import masked_prediction
from harmonia.types import HarmoniaError


@dataclass(frozen=True, kw_only=True)
class MaskGITConfig(CodeConfig):
    """Settings of a `MaskGIT`.

    ``steps``      of decoding, by default
    ``choice``     initial temperature of the choice of which codes to keep; it falls to 0 (paper: 4.5)
    ``smoothing``  of the labels (paper: 0.1, which also makes that share of samples random codes)
    """

    steps: int = 12
    choice: float = 4.5
    smoothing: float = 0.0

    def __post_init__(self) -> None:
        CodeConfig.__post_init__(self)
        if self.steps < 1 or self.choice < 0:
            raise HarmoniaError("steps must be at least 1, choice at least 0")


class MaskGIT(CodeGenerator):
    """A VQ-VAE and a bidirectional `CodeTransformer` over its codes."""

    config: MaskGITConfig
    prior: CodeTransformer

    def transformer(self) -> CodeTransformer:
        """A bidirectional transformer over the codes."""
        return CodeTransformer(self.config, causal=False)

    def losses(self, batch: Batch) -> dict[str, Tensor]:
        """The cross-entropy of masked codes, in nats; the number of masked codes is random for each
        sample."""
        codes = self.codes(batch)
        hidden = hide(*codes.shape).to(codes.device)
        embedded = self.prior.conditioner(self.prior.conditioner.drop(batch.condition))
        logits = self.prior(codes.masked_fill(hidden, self.prior.entries), embedded)
        return {"model": masked_prediction(logits, codes, hidden, smoothing=self.config.smoothing)}

    def draw_codes(
        self,
        condition: Condition,
        steps: int | None,
        guidance: float,
        generator: torch.Generator | None,
        watch: Watch | None,
    ) -> Tensor:
        """Fill all places in ``steps`` passes; HarmoniaError if that is less than one."""
        n, prior, config = condition.n, self.prior, self.config
        embedded = prior.conditioner(both(condition, guidance))

        def predict(ids: Tensor) -> Tensor:
            return guided(prior(ids if guidance == 1 else ids.repeat(2, 1), embedded), n, guidance)

        def draw(logits: Tensor) -> Tensor:
            flat = pick(logits.flatten(0, 1), config.temperature, config.top_k, config.top_p, generator)
            return flat.view(logits.shape[:2])

        def shown(step: int, total: int, codes: Tensor) -> None:
            if watch is not None:
                watch(step, total, self.codec.decode_codes(codes.view(n, *prior.grid)))

        start = torch.full((n, prior.length), prior.entries, device=self.device)
        total = config.steps if steps is None else steps
        ids = parallel_decode(
            predict, draw, start, prior.entries, steps=total, choice=config.choice, generator=generator,
            watch=shown,
        )  # fmt: skip
        return ids.view(n, *prior.grid)


def parallel_decode(
    predict: Callable[[Tensor], Tensor],
    draw: Callable[[Tensor], Tensor],
    ids: Tensor,
    hidden: int,
    *,
    steps: int,
    choice: float = 4.5,
    generator: torch.Generator | None = None,
    watch: Watch | None = None,
) -> Tensor:
    """Fill in the masked places of codes (n, t) by iterative decoding.

    Every step samples all masked places and keeps those with the highest confidence,
    log p(sample) + choice (1 - share of the steps done) g with Gumbel noise g; kept codes do not change any
    more. `schedule` gives how many places stay masked.

    Args:
        predict: codes, with ``hidden`` at masked places, to logits (n, t, K).
        draw: logits to codes (n, t).
        ids: int64 (n, t), the known codes and ``hidden``.
        hidden: the id of a masked code.
        steps: at most as many as there are masked places.
        choice: 0 keeps the most confident samples, which gives less varied images.
        generator: of the noise, on the CPU.
        watch: called after each step with the current estimate of the codes.
    """
    most = int((ids == hidden).sum(1).max())
    counts = schedule(most, steps)
    for step, stay in enumerate(counts, start=1):
        logits = predict(ids)
        drawn = draw(logits)
        sure = logits.log_softmax(2).gather(2, drawn[..., None])[..., 0]
        u = torch.rand(ids.shape, generator=generator).clamp_min(1e-20).to(ids.device)
        sure = sure - choice * (1 - step / len(counts)) * (-u.log()).log()
        open_ = ids == hidden
        # the rank of each masked place, the least confident first
        rank = sure.masked_fill(~open_, torch.inf).argsort(1).argsort(1)
        filled = torch.where(open_, drawn, ids)
        ids = torch.where(open_ & (rank < stay), ids, filled)
        if watch is not None:
            watch(step, len(counts), filled)
    return ids


def schedule(hidden: int, steps: int) -> list[int]:
    """The number of places that stay masked after each step: hidden cos(pi / 2 step / steps), 0 at the end.

    At least one place is filled in each step, so there are at most ``hidden`` steps.
    """
    if steps < 1:
        raise HarmoniaError(f"steps is {steps}: it must be at least 1")
    steps, counts, left = min(steps, hidden), list[int](), hidden
    for step in range(1, steps + 1):
        wanted = math.floor(hidden * math.cos(math.pi / 2 * step / steps) + 1e-9)
        left = min(left - 1, max(wanted, steps - step))
        counts.append(left)
    return counts


def hide(n: int, length: int) -> Tensor:
    """A random training mask, bool (n, length): a share cos(pi / 2 u) of the places, u uniform, at least
    one."""
    count = (length * (torch.rand(n, 1) * math.pi / 2).cos()).ceil().clamp_min(1)
    return torch.rand(n, length).argsort(1).argsort(1) < count
