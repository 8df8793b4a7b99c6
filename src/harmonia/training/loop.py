"""The training loop of all models: `fit`."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import torch
from torch import Tensor, nn

from harmonia.training import data, optim
from harmonia.training.config import TrainConfig
from harmonia.training.distributed import Parallel, World, broadcast, opened, shard
from harmonia.training.guards import locked, stop_signals
from harmonia.training.log import Line, Log
from harmonia.training.state import Keeper
from harmonia.types import HarmoniaError

Evaluate = Callable[[nn.Module], Mapping[str, float]]
Callback = Callable[[nn.Module, Line], None]


class Trainable(Protocol):
    """The methods that a trainable ``nn.Module`` has."""

    def losses(self, batch: Any) -> dict[str, Tensor]:
        """Scalars by optimizer group, each the mean over the batch."""
        ...

    def groups(self) -> dict[str, list[nn.Parameter]]:
        """Every trained parameter, in exactly one optimizer group."""
        ...


class Stopped(HarmoniaError):
    """Raised after Ctrl-C or SIGTERM, once the checkpoint of ``step`` is written."""

    def __init__(self, step: int, steps: int, folder: Path) -> None:
        super().__init__(
            f"stopped after step {step} of {steps}, saved in {folder}: run the same command to resume"
        )
        self.step = step


@dataclass(frozen=True)
class Result:
    """The result of a run.

    ``history`` has the lines of metrics.jsonl; ``best`` the best value of the monitored metric and
    ``best_step`` its step (None if nothing was evaluated); ``step`` the last step, which is less than the
    run's steps if patience ended it; ``folder`` the run's folder.
    """

    history: tuple[Line, ...]
    best: float | None
    best_step: int | None
    step: int
    folder: Path


def fit(
    model: nn.Module,
    dataset: data.Indexed | data.Stream,
    config: TrainConfig,
    folder: Path | str,
    *,
    evaluate: Evaluate | None = None,
    monitor: str = "score",
    lower_is_better: bool = False,
    callbacks: Sequence[Callback] = (),
) -> Result:
    """Train ``model`` on ``dataset``; afterwards it is in evaluation mode with its best weights.

    ``model`` is a ``Trainable``: ``losses(batch)`` gives a scalar per optimizer group and each group is
    updated by the gradient of its own loss with respect to its own parameters. The state of the run is
    in ``folder``: call ``fit`` again with the same arguments after a kill, a crash or Ctrl-C to resume, with
    the same final weights as without the interruption. The result of a finished run is returned at once.

    ``evaluate`` takes the model (in evaluation mode, with averaged weights if ``config.ema``) and returns
    figures; the one named ``monitor`` selects the best weights and, with ``config.patience``, ends the run.
    Without ``evaluate`` the best weights are the last. Each of ``callbacks`` gets the model and a line of the
    log before it is written, and may add to it.

    torch's global random numbers are seeded anew for each step. Errors: HarmoniaError for settings that do
    not fit the model, the data or the run in ``folder``, for a loss that is not finite, and ``Stopped``.
    """
    folder = Path(folder)
    evaluation = _Evaluation(evaluate, monitor, lower_is_better) if evaluate else None
    with opened(config.device) as world, locked(folder, world), stop_signals() as stop:
        loop = _Loop(model, dataset, config, folder, world, evaluation, callbacks)
        try:
            loop.train(stop)
        finally:
            loop.log.close()
    at = loop.at
    return Result(tuple(loop.log.lines), at.best, at.best_step, at.step, folder)


@dataclass(frozen=True)
class _Evaluation:
    """The evaluation of a run and the figure that selects the best weights."""

    evaluate: Evaluate
    monitor: str
    lower_is_better: bool

    def run(self, model: nn.Module) -> dict[str, float]:
        """The figures; HarmoniaError if the monitored one is missing."""
        numbers = {name: float(value) for name, value in self.evaluate(model).items()}
        if self.monitor not in numbers:
            given = ", ".join(numbers) or "nothing"
            raise HarmoniaError(f"evaluate() returned no {self.monitor!r} to monitor: it returned {given}")
        return numbers


class _Loop:
    """The state of a run: model, optimizer, data and log, new or from the last checkpoint."""

    def __init__(
        self,
        model: nn.Module,
        dataset: data.Indexed | data.Stream,
        config: TrainConfig,
        folder: Path,
        world: World,
        evaluation: _Evaluation | None,
        callbacks: Sequence[Callback],
    ) -> None:
        self.config, self.world, self.evaluation, self.callbacks = config, world, evaluation, callbacks
        self.parts = data.parts(
            dataset,
            batch=config.batch,
            accumulate=config.accumulate,
            seed=config.seed,
            rank=world.rank,
            world=world.size,
            workers=config.workers,
        )
        self.model = model.to(world.device)
        broadcast(model, world)
        if config.shard:
            shard(model, world, config)
        self.groups = optim.trained(model)
        self.optimizer = optim.adamw(self.groups, config, world.device)
        self.scaler = torch.amp.GradScaler(world.device.type, enabled=config.precision == "float16")
        self.average = optim.Average(model, config.ema) if config.ema else None
        self.parallel = Parallel(model, self.groups, world, compile=config.compile)
        identity = {
            "config": config.identity(),
            "data": data.digest(dataset, config.seed),
            "model": str(getattr(model, "config", "")),
        }
        self.keeper = Keeper(folder, world, identity, model, self.optimizer, self.scaler, self.average)
        self.at = self.keeper.resume()
        self.log = Log(folder, start=self.at.step, steps=config.steps, batch=config.batch, main=world.main)
        self.pending: list[tuple[int, dict[str, Tensor]]] = []

    def train(self, stop: threading.Event) -> None:
        """Train from the current step to the end; raises ``Stopped`` if ``stop`` is set."""
        config, at = self.config, self.at
        if not at.finished:
            parts = self.parts(at.step * config.accumulate, config.steps * config.accumulate)
            batches = data.Ahead(parts, self.world.device)
            try:
                self.model.train()
                while not at.finished:
                    self.step(batches)
                    self.after_step()
                    if not at.finished and self.world.any(stop.is_set()):
                        self.save()
                        raise Stopped(at.step, config.steps, self.keeper.folder)
            finally:
                batches.close()
        self.keeper.finish()
        self.model.eval()

    def step(self, batches: Iterator[Any]) -> None:
        """Update every group once."""
        config, at = self.config, self.at
        at.step += 1
        _seed(data.derived(config.seed, data.NOISE, at.step, self.world.rank), self.world.device)
        rate = optim.schedule(at.step, config)
        for group in self.optimizer.param_groups:
            group["lr"] = config.rate(group["group"]) * rate
        self.optimizer.zero_grad(set_to_none=True)
        for part in range(config.accumulate):
            batch = next(batches)
            with self.parallel.part(last=part == config.accumulate - 1):
                with self._autocast():
                    losses = self.parallel.losses(batch)
                optim.check_losses(losses, self.groups)
                optim.backward(losses, self.groups, 1 / config.accumulate, self.scaler)
            self.pending.append((at.step, {group: loss.detach() for group, loss in losses.items()}))
        self.parallel.reduce()
        if config.clip is not None:
            self.scaler.unscale_(self.optimizer)
            for parameters in self.groups.values():
                optim.clip(parameters, config.clip)
        self.scaler.step(self.optimizer)
        self.scaler.update()
        if self.average:
            self.average.update(at.step)

    def _autocast(self) -> AbstractContextManager[object]:
        if self.config.precision == "float32":
            return nullcontext()
        return torch.autocast(self.world.device.type, dtype=getattr(torch, self.config.precision))

    def after_step(self) -> None:
        """Log, evaluate and write a checkpoint if they are due after this step."""
        config, at = self.config, self.at
        last = at.step == config.steps
        line: Line = {}
        if last or at.step % config.log_every == 0:
            line |= self.logged()
        if self.evaluation and (last or at.step % (config.evaluate_every or config.steps) == 0):
            line |= self.evaluated(self.evaluation)
        if line:
            line = {"step": at.step} | line
            for callback in self.callbacks:
                callback(self.model, line)
            self.log.write(line)
        self.log.advance()
        at.finished = last or (config.patience is not None and at.stale >= config.patience)
        if at.finished or at.best_step == at.step or at.step % config.save_every == 0:
            self.save()

    def save(self) -> None:
        """Write the checkpoint of this step, unless it exists."""
        if self.keeper.saved == self.at.step:
            return
        self.flush()
        with self.log.paused():
            self.log.sync()
            self.keeper.save(self.at)

    def flush(self) -> None:
        """Fetch the losses of the last steps from the device; HarmoniaError if one is not finite."""
        if not self.pending:
            return
        # Fetched together, since fetching makes the CPU wait for the device.
        flat = torch.stack([loss.float() for _, losses in self.pending for loss in losses.values()])
        values = iter(self.world.mean(flat).tolist())
        for step, losses in self.pending:
            for group in losses:
                value = next(values)
                if value - value != 0:
                    raise self.keeper.diverged(f"the loss {group!r} is {value} at step {step}")
                self.at.window.setdefault(group, []).append(value)
        self.pending.clear()

    def logged(self) -> Line:
        """The mean losses since the last line, the learning rate and the speed."""
        self.flush()
        means = {group: sum(values) / len(values) for group, values in self.at.window.items()}
        self.at.window.clear()
        loss = {"loss" if len(self.groups) == 1 else f"loss/{group}": mean for group, mean in means.items()}
        return loss | {
            "lr": self.optimizer.param_groups[0]["lr"],
            "samples/s": self.log.speed(self.at.step),
        }

    def evaluated(self, evaluation: _Evaluation) -> Line:
        """The figures of an evaluation; the best one so far is recorded."""
        self.flush()
        self.model.eval()
        with self.log.paused(), torch.no_grad(), self.average.applied() if self.average else nullcontext():
            numbers = self.world.agreed(evaluation.run(self.model))
        self.model.train()
        self.at.judge(numbers[evaluation.monitor], evaluation.lower_is_better)
        return {f"evaluation/{name}": number for name, number in numbers.items()}


def _seed(seed: int, device: torch.device) -> None:
    """Seed the random numbers that a model on ``device`` draws.

    ``torch.manual_seed`` seeds every kind of device there is, which takes a millisecond without a GPU.
    """
    torch.default_generator.manual_seed(seed)
    if device.type != "cpu":
        torch.get_device_module(device).manual_seed(seed)
