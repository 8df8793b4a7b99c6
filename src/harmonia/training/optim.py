"""Optimizer groups, learning rate schedule, gradient clipping, moving average of the weights."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager

import torch
from torch import Tensor, nn
from torch.distributed.tensor import DTensor
from torch.optim.swa_utils import get_ema_multi_avg_fn

from harmonia.training.config import TrainConfig
from harmonia.types import HarmoniaError

Groups = Mapping[str, Sequence[nn.Parameter]]


def trained(model: nn.Module) -> dict[str, list[nn.Parameter]]:
    """``model.groups()`` without frozen parameters; HarmoniaError unless each trained one is in one group."""
    groups: Groups = model.groups()  # type: ignore[operator]
    names = {id(p): name for name, p in model.named_parameters() if p.requires_grad}
    seen: dict[int, str] = {}
    chosen: dict[str, list[nn.Parameter]] = {}
    for group, parameters in groups.items():
        chosen[group] = [p for p in parameters if p.requires_grad]
        if not chosen[group]:
            raise HarmoniaError(f"the optimizer group {group!r} has no parameter that requires a gradient")
        for parameter in chosen[group]:
            name = names.get(id(parameter))
            if name is None:
                raise HarmoniaError(f"the optimizer group {group!r} has a parameter that is not in the model")
            if id(parameter) in seen:
                raise HarmoniaError(
                    f"the parameter {name} is in the optimizer groups {seen[id(parameter)]!r} and {group!r}: "
                    "leave it in one"
                )
            seen[id(parameter)] = group
    left_out = [name for key, name in names.items() if key not in seen]
    if left_out:
        raise HarmoniaError(
            f"no optimizer group has the parameter {left_out[0]}: add it to groups() or freeze it"
        )
    if not chosen:
        raise HarmoniaError("the model's groups() is empty: there is nothing to train")
    return chosen


def adamw(groups: Groups, config: TrainConfig, device: torch.device) -> torch.optim.AdamW:
    """One AdamW over all groups; parameters of fewer than 2 axes (norms, biases, scalars) do not decay."""
    sets = [
        {
            "params": chosen,
            "lr": config.rate(group),
            "weight_decay": config.weight_decay if axes == 2 else 0.0,
            "group": group,
        }
        for group, parameters in groups.items()
        for axes in (2, 1, 0)  # apart, since under FSDP scalars alone are not sharded
        if (chosen := [p for p in parameters if min(p.ndim, 2) == axes])
    ]
    # Fused is one pass over the weights; it knows neither every device nor sharded tensors.
    fused = device.type in ("cpu", "cuda") and not config.shard
    return torch.optim.AdamW(sets, betas=config.betas, fused=fused, foreach=not fused)


def schedule(step: int, config: TrainConfig) -> float:
    """The learning rate of a step (the first is 1) as a share of its peak: linear warm-up, then a cosine."""
    if step <= config.warmup:
        return step / config.warmup
    share = (step - 1 - config.warmup) / (config.steps - config.warmup)
    return config.lr_end + (1 - config.lr_end) * 0.5 * (1 + math.cos(math.pi * share))


def backward(
    losses: Mapping[str, Tensor], groups: Groups, scale: float, scaler: torch.amp.GradScaler
) -> None:
    """Add to each group's ``.grad`` the gradient of its own loss with respect to its own parameters.

    A loss reaches no other group's parameters, and those cost it no work. A group without a loss here
    (a discriminator that starts later) gets no gradient, and AdamW leaves it as it is.
    """
    if len(groups) == 1:
        (loss,) = losses.values()
        scaler.scale(loss * scale if scale != 1 else loss).backward()  # type: ignore[no-untyped-call]
        return
    last = list(losses)[-1]
    for group, loss in losses.items():
        scaler.scale(loss * scale).backward(  # type: ignore[no-untyped-call]
            inputs=list(groups[group]), retain_graph=group != last
        )


def check_losses(losses: Mapping[str, Tensor], groups: Groups) -> None:
    """HarmoniaError unless ``losses`` holds a scalar for one or more of the groups, and nothing else."""
    for group, loss in losses.items():
        if group not in groups:
            raise HarmoniaError(
                f"losses() returned {group!r}, which is no optimizer group (those are {', '.join(groups)})"
            )
        if loss.ndim:
            raise HarmoniaError(f"the loss {group!r} has shape {tuple(loss.shape)}: it has to be a scalar")
        if not loss.requires_grad:
            raise HarmoniaError(f"the loss {group!r} does not depend on any trained parameter")
    if not losses:
        raise HarmoniaError("losses() returned no loss")


def clip(parameters: Sequence[nn.Parameter], limit: float) -> None:
    """Scale the gradients of a group so that their norm, all together, is at most ``limit``."""
    given = [parameter for parameter in parameters if parameter.grad is not None]
    sharded = [parameter for parameter in given if isinstance(parameter, DTensor)]
    if not sharded:
        nn.utils.clip_grad_norm_(given, limit)
        return
    whole = [parameter for parameter in given if not isinstance(parameter, DTensor)]
    norms = [
        nn.utils.get_total_norm([p.grad for p in some if p.grad is not None]) for some in (sharded, whole)
    ]
    total = torch.stack([norm.full_tensor() if isinstance(norm, DTensor) else norm for norm in norms]).norm()
    for some in (sharded, whole):
        nn.utils.clip_grads_with_norm_(some, limit, total)


def local(tensors: Iterable[Tensor]) -> list[Tensor]:
    """This process's shards, for work that is done element by element."""
    return [(t.to_local() if isinstance(t, DTensor) else t).detach() for t in tensors]


class Average:
    """An exponential moving average of the trained weights (Polyak & Juditsky, 1992).

    The decay grows with the steps as min(decay, (1 + t) / (10 + t)), so that a short run's average is
    not of its random start.
    """

    def __init__(self, model: nn.Module, decay: float) -> None:
        self.decay = decay
        self.weights = {name: weight for name, weight in model.named_parameters() if weight.requires_grad}
        self.values = {name: weight.detach().clone() for name, weight in self.weights.items()}

    def update(self, step: int) -> None:
        """Move towards the weights of ``step``."""
        decay = min(self.decay, (1 + step) / (10 + step))
        averaged = get_ema_multi_avg_fn(decay)  # type: ignore[no-untyped-call]
        averaged(local(self.values.values()), local(self.weights.values()), None)

    @contextmanager
    def applied(self) -> Iterator[None]:
        """The model with the averaged weights; its own come back afterwards, to the bit."""
        own = {name: weight.detach().clone() for name, weight in self.weights.items()}
        try:
            self._give(self.values)
            yield
        finally:
            self._give(own)

    @torch.no_grad()
    def _give(self, values: Mapping[str, Tensor]) -> None:
        for name, weight in self.weights.items():
            weight.copy_(values[name])
