"""The changing state of a run, and how it is saved and restored."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any

import torch
from torch import nn

from harmonia.training import checkpoint
from harmonia.training.distributed import World
from harmonia.training.optim import Average
from harmonia.types import HarmoniaError


@dataclass
class Progress:
    """The progress of a run, without tensors, as written to state.json."""

    step: int = 0
    best: float | None = None
    best_step: int | None = None
    stale: int = 0
    """Evaluations since the best one."""
    finished: bool = False
    window: dict[str, list[float]] = field(default_factory=dict)
    """Losses since the last line of the log, by group."""

    def judge(self, value: float, lower_is_better: bool) -> None:
        """Record the value of an evaluation; NaN is never the best."""
        sign = -1 if lower_is_better else 1
        if value == value and (self.best is None or sign * value > sign * self.best):
            self.best, self.best_step, self.stale = value, self.step, 0
        else:
            self.stale += 1


class Keeper:
    """Saves the state of a run in its folder and restores it.

    ``identity`` has the settings and the data, which must be the same to resume a run.
    ``saved`` is the step of the last checkpoint, None before the first.
    """

    def __init__(
        self,
        folder: Path,
        world: World,
        identity: Mapping[str, Any],
        model: nn.Module,
        optimizer: torch.optim.Optimizer,
        scaler: torch.amp.GradScaler,
        average: Average | None,
    ) -> None:
        self.folder, self.world, self.identity = folder, world, identity
        self.model, self.optimizer, self.scaler, self.average = model, optimizer, scaler, average
        self.names = {parameter: name for name, parameter in model.named_parameters()}
        self.saved: int | None = None

    def resume(self) -> Progress:
        """Restore the last intact checkpoint of the folder; the progress of a new run if there is none."""
        found = checkpoint.latest(self.folder) if self.world.main else None
        found = self.world.agreed(found)
        if found is None:
            return Progress()
        _same(found.state["identity"], self.identity, self.folder)
        checkpoint.give(self.model, found, average=False)
        checkpoint.give_moments(self.optimizer, self.names, found.tensors(checkpoint.OPTIMIZER))
        if self.average:
            checkpoint.copy(found.tensors(checkpoint.AVERAGE), self.average.values)
        if found.state["scaler"]:
            self.scaler.load_state_dict(found.state["scaler"])
        progress = Progress(**{part.name: found.state[part.name] for part in fields(Progress)})
        if self.world.main:
            checkpoint.clean(self.folder, progress.step)
        self.world.wait()
        self.saved = progress.step
        return progress

    def save(self, progress: Progress) -> None:
        """Write the checkpoint of this step; HarmoniaError, and none written, if a weight is not finite."""
        tensors = {
            checkpoint.WEIGHTS: checkpoint.gathered(checkpoint.weights(self.model)),
            checkpoint.OPTIMIZER: checkpoint.gathered(checkpoint.moments(self.optimizer, self.names)),
        }
        if self.average:
            tensors[checkpoint.AVERAGE] = checkpoint.gathered(self.average.values)
        for name, value in tensors[checkpoint.WEIGHTS].items():
            if value.is_floating_point() and not bool(value.isfinite().all()):
                raise self.diverged(f"the weight {name} is not finite after step {progress.step}")
        if self.world.main:
            state = vars(progress) | {"scaler": self.scaler.state_dict(), "identity": self.identity}
            checkpoint.save(self.folder, progress.step, tensors, state)
        self.world.wait()
        self.saved = progress.step

    def diverged(self, what: str) -> HarmoniaError:
        """The error of a run whose numbers are no longer finite."""
        kept = "there is no checkpoint yet" if self.saved is None else f"step {self.saved} is saved"
        return HarmoniaError(f"{what} ({kept}): try a lower lr, a longer warmup or clip in another folder")

    def finish(self) -> None:
        """Give the model the weights of the best evaluation (the last ones without any), averaged if kept."""
        best = checkpoint.best(self.folder) if self.world.main else None
        checkpoint.give(self.model, self.world.agreed(best), average=True)


def _same(before: Mapping[str, Any], now: Mapping[str, Any], folder: Path) -> None:
    """HarmoniaError unless a run resumes with the same settings and data."""
    for name in sorted(before["config"].keys() | now["config"].keys()):
        old, new = before["config"].get(name), now["config"].get(name)
        if old != new:
            raise HarmoniaError(
                f"the run in {folder} has {name} = {old}, not {new}: use the same settings or another folder"
            )
    if before.get("model", now["model"]) != now["model"]:
        raise HarmoniaError(
            f"the run in {folder} trains another model ({before['model']}): "
            "use the same settings or another folder"
        )
    if before["data"] != now["data"]:
        raise HarmoniaError(
            f"the run in {folder} began on other data ({before['data']}, now {now['data']}): "
            "use the same data or another folder"
        )
