"""Pictures from a VQ-VAE's codes, many at once: a transformer that sees all codes fills in hidden ones.

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
    """``steps``      of decoding, unless ``sample`` is told
    ``choice``     temperature of the choice which codes stay, at the start; it falls to 0 (the paper: 4.5)
    ``smoothing``  of the labels (the paper: 0.1, but then a draw is a random code that often)
    """

    steps: int = 12
    choice: float = 4.5
    smoothing: float = 0.0

    def __post_init__(self) -> None:
        CodeConfig.__post_init__(self)
        if self.steps < 1 or self.choice < 0:
            raise HarmoniaError("steps is at least 1, choice not negative")


class MaskGIT(CodeGenerator):
    """A VQ-VAE and a bidirectional `CodeTransformer` over its codes."""

    config: MaskGITConfig
    prior: CodeTransformer

    def transformer(self) -> CodeTransformer:
        """Over the codes alone, which it sees all."""
        return CodeTransformer(self.config, causal=False)

    def losses(self, batch: Batch) -> dict[str, Tensor]:
        """The cross-entropy of hidden codes, in nats; how many are hidden is drawn for each sample."""
        codes = self.codes(batch)
        hidden = hide(*codes.shape).to(codes.device)
        told = self.prior.conditioner(self.prior.conditioner.drop(batch.condition))
        logits = self.prior(codes.masked_fill(hidden, self.prior.entries), told)
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
    """Fill the hidden places of codes (n, t): each once, and what is filled stays.

    At every step all hidden places are drawn, and those whose draws the model is surest of are kept: the
    greatest log p(drawn) + choice (1 - share of the steps done) g, g Gumbel noise. Rows that have equally
    many hidden places are filled alike; one with fewer is done earlier. How many stay hidden is `schedule`.

    Args:
        predict: codes, with ``hidden`` where there is none, to logits (n, t, K).
        draw: logits to codes (n, t).
        ids: int64 (n, t), what is known.
        hidden: the id of a hidden code.
        steps: at most; no more than there are hidden places.
        choice: 0 keeps the surest, which is greedy and gives less varied pictures.
        generator: of the noise, on the CPU.
        watch: told after each step the codes as they would be if it ended.
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
        # the rank of each hidden place, the least sure first
        rank = sure.masked_fill(~open_, torch.inf).argsort(1).argsort(1)
        filled = torch.where(open_, drawn, ids)
        ids = torch.where(open_ & (rank < stay), ids, filled)
        if watch is not None:
            watch(step, len(counts), filled)
    return ids


def schedule(hidden: int, steps: int) -> list[int]:
    """How many of ``hidden`` places stay hidden after each step: hidden cos(pi / 2 step / steps), then 0.

    At least one is filled at each step, so there are at most ``hidden`` steps.
    """
    if steps < 1:
        raise HarmoniaError(f"steps is {steps}: it has to be at least 1")
    steps, counts, left = min(steps, hidden), list[int](), hidden
    for step in range(1, steps + 1):
        wanted = math.floor(hidden * math.cos(math.pi / 2 * step / steps) + 1e-9)
        left = min(left - 1, max(wanted, steps - step))
        counts.append(left)
    return counts


def hide(n: int, length: int) -> Tensor:
    """Which codes to hide in training, bool (n, length): a share cos(pi / 2 u), u uniform, at least one."""
    count = (length * (torch.rand(n, 1) * math.pi / 2).cos()).ceil().clamp_min(1)
    return torch.rand(n, length).argsort(1).argsort(1) < count
