"""The configuration of a training run."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

from harmonia.types import HarmoniaError

PRECISIONS = ("float32", "bfloat16", "float16")

# Settings that may change when a run resumes: they change at most the rounding.
FREE = ("save_every", "workers", "device", "compile", "shard")


@dataclass(frozen=True)
class TrainConfig:
    """The settings of a training run, which are saved with it; it can only be resumed with the same ones.

    ``steps``          optimizer steps of the whole run; the learning rate's schedule spans them
    ``batch``          samples in one step, over all processes and accumulated parts together
    ``lr``             AdamW's peak learning rate, for all optimizer groups or by group
    ``weight_decay``   decoupled; never on norms, biases and scalars (parameters of fewer than 2 axes)
    ``betas``          AdamW's
    ``warmup``         steps of linear warm-up; from there a cosine falls to ``lr_end`` times the peak
    ``lr_end``         0 for a full cosine, 1 for a constant rate after the warm-up
    ``ema``            decay of the moving average of the weights that is evaluated and kept; None for none
    ``precision``      autocast to "bfloat16" or "float16" (with loss scaling), or "float32"
    ``accumulate``     parts that a batch is computed in, one after the other, when it does not fit
    ``clip``           largest norm of an optimizer group's gradient; None for no limit
    ``seed``           of the data order, augmentation and dropout
    ``evaluate_every`` steps between evaluations; None for one at the end
    ``patience``       evaluations without a better value after which the run stops; None for never
    ``save_every``     steps between checkpoints (one is also kept at the best evaluation and the end)
    ``log_every``      steps between lines in the log; a line holds the mean loss since the last
    ``workers``        processes that make batches; 0 for a thread of this one
    ``device``         "auto", "cpu", "cuda", "cuda:1", "mps"
    ``compile``        compile ``losses`` with ``torch.compile``
    ``shard``          split weights and optimizer state over the processes of ``torchrun`` (FSDP2)
    """

    steps: int
    batch: int
    lr: float | Mapping[str, float] = 1e-3
    weight_decay: float = 0.1
    betas: tuple[float, float] = (0.9, 0.98)
    warmup: int = 0
    lr_end: float = 0.0
    ema: float | None = None
    precision: str = "float32"
    accumulate: int = 1
    clip: float | None = 1.0
    seed: int = 0
    evaluate_every: int | None = None
    patience: int | None = None
    save_every: int = 1000
    log_every: int = 10
    workers: int = 0
    device: str = "auto"
    compile: bool = False
    shard: bool = False

    def __post_init__(self) -> None:
        """Check the settings; HarmoniaError if one is out of range."""
        for name in ("steps", "batch", "accumulate", "save_every", "log_every"):
            _require(getattr(self, name) >= 1, name, getattr(self, name), "at least 1")
        for name in ("evaluate_every", "patience"):
            value = getattr(self, name)
            _require(value is None or value >= 1, name, value, "at least 1, or None")
        rates = self.lr.values() if isinstance(self.lr, Mapping) else (self.lr,)
        _require(all(0 < rate < float("inf") for rate in rates), "lr", self.lr, "above 0")
        _require(self.weight_decay >= 0, "weight_decay", self.weight_decay, "at least 0")
        _require(
            len(self.betas) == 2 and all(0 <= b < 1 for b in self.betas),
            "betas",
            self.betas,
            "two numbers from 0 to below 1",
        )
        _require(0 <= self.warmup <= self.steps, "warmup", self.warmup, f"from 0 to steps ({self.steps})")
        _require(0 <= self.lr_end <= 1, "lr_end", self.lr_end, "a share of lr, from 0 to 1")
        _require(self.ema is None or 0 < self.ema < 1, "ema", self.ema, "between 0 and 1, or None")
        _require(
            self.precision in PRECISIONS, "precision", repr(self.precision), f"one of {', '.join(PRECISIONS)}"
        )
        _require(self.clip is None or self.clip > 0, "clip", self.clip, "above 0, or None")
        _require(self.seed >= 0, "seed", self.seed, "at least 0")
        _require(self.workers >= 0, "workers", self.workers, "at least 0")
        _require(
            self.batch % self.accumulate == 0,
            "accumulate",
            self.accumulate,
            f"a divisor of batch ({self.batch})",
        )

    def rate(self, group: str) -> float:
        """The peak learning rate of an optimizer group."""
        if not isinstance(self.lr, Mapping):
            return self.lr
        if group not in self.lr:
            raise HarmoniaError(f"lr has no value for the optimizer group {group!r}: add one")
        return self.lr[group]

    def identity(self) -> dict[str, Any]:
        """The settings on which the results of a run depend, for JSON."""
        values = {name: value for name, value in asdict(self).items() if name not in FREE}
        lr = dict(self.lr) if isinstance(self.lr, Mapping) else self.lr
        return values | {"lr": lr, "betas": list(self.betas)}


def _require(holds: bool, name: str, value: object, rule: str) -> None:
    if not holds:
        raise HarmoniaError(f"{name} is {value}: it has to be {rule}")
