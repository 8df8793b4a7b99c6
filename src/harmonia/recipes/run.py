"""Training runs of encoders: their settings, what a recipe returns, and how it is trained and saved."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from harmonia.data.records import Problem, signal_of
from harmonia.encoders.alignment import Alignment
from harmonia.encoders.towers.base import Tower
from harmonia.encoders.towers.saved import save_towers
from harmonia.training import Indexed, Result, TrainConfig, fit
from harmonia.training.record_arrays import Views
from harmonia.types import HarmoniaError, Record, Signal

# Number of signals that a tower prepares together.
BLOCK = 256


@dataclass(frozen=True, kw_only=True)
class RunSettings:
    """Settings that all recipes have.

    ``steps``   optimizer steps
    ``lr``      peak learning rate
    ``seed``    random seed of the weights, the order of the data and the augmentation
    ``device``  "auto", "cpu", "cuda", "cuda:1", "mps"
    """

    steps: int = 600
    lr: float = 2e-3
    seed: int = 0
    device: str = "auto"

    def training(self, batch: int, *, warmup: int, **options: Any) -> TrainConfig:
        """The settings as a TrainConfig, with ``options`` of it in addition or instead.

        ``warmup`` is cut to the number of steps.
        """
        values: dict[str, Any] = {
            "steps": self.steps,
            "lr": self.lr,
            "seed": self.seed,
            "device": self.device,
        }
        values |= options
        return TrainConfig(batch=batch, warmup=min(warmup, values["steps"]), **values)


@dataclass(frozen=True, slots=True, eq=False)
class Outcome:
    """The result of a run, the figures of its model, and the folder of the model."""

    result: Result
    figures: dict[str, float]
    model: Path


@dataclass(frozen=True, slots=True, eq=False)
class Run:
    """A training run of an encoder: model, data, settings, evaluation and model card.

    ``evaluate`` returns figures; the one named ``monitor`` selects the best checkpoint.
    """

    name: str
    model: Alignment
    dataset: Indexed
    config: TrainConfig
    evaluate: Callable[[nn.Module], Mapping[str, float]]
    monitor: str
    card: str
    dtype: torch.dtype = torch.float32
    extra: Mapping[str, Tensor] = field(default_factory=dict)

    def train(self, folder: Path) -> Outcome:
        """Train, or resume training, in ``folder``; the trained model is ``folder/model``."""
        result = fit(
            self.model, self.dataset, self.config, folder, evaluate=self.evaluate, monitor=self.monitor
        )
        figures = dict(self.evaluate(self.model))
        # only one process of torchrun writes
        if int(os.environ.get("RANK", "0")) == 0:
            self.save(folder / "model", figures)
        return Outcome(result, figures, folder / "model")

    def save(self, folder: Path, figures: Mapping[str, float]) -> None:
        """Write the towers and the model card with ``figures``."""
        lines = [f"| {name} | {value:.4g} |" for name, value in figures.items()]
        card = "\n".join(
            (self.card.rstrip(), "", "## Figures", "", "| measure | value |", "|---|---|", *lines, "")
        )
        towers = {name: tower for name, tower in self.model.towers.items() if isinstance(tower, Tower)}
        extra = {"scale": self.model.scale.detach().cpu(), **self.extra}
        save_towers(folder, towers, extra=extra, card=card, dtype=self.dtype)


def run_of(
    name: str,
    settings: RunSettings,
    model: Alignment,
    data: Indexed,
    card: str,
    *,
    batch: int,
    evaluate: Callable[[nn.Module], Mapping[str, float]],
    monitor: str,
    facts: Mapping[str, object] | None = None,
    warmup: int = 60,
    dtype: torch.dtype = torch.float32,
    **options: Any,
) -> Run:
    """The run of an encoder recipe.

    Args:
        name: of the recipe.
        settings: of the run.
        model: the towers that are trained.
        data: the training data.
        card: a template of the model card; its fields are the settings, ``name``, ``batch`` and ``facts``.
        batch: records in a step, at most all of ``data``.
        evaluate: gives the figures of the model.
        monitor: the figure that selects the best checkpoint.
        facts: further fields of the card.
        warmup: steps of linear warm-up.
        dtype: of the weights that are saved.
        options: of :class:`TrainConfig`.
    """
    save_every = max(100, settings.steps // 4)
    defaults = {"save_every": save_every, "log_every": 20}
    config = settings.training(min(batch, len(data)), warmup=warmup, **(defaults | options))
    fields = asdict(settings) | {"name": name, "batch": config.batch} | dict(facts or {})
    return Run(name, model, data, config, evaluate, monitor, card.format(**fields), dtype)


def prepared(records: Iterable[Record | Problem], towers: Mapping[str, Tower]) -> dict[str, Views]:
    """The parts of records, prepared by the towers; modalities without a tower are skipped.

    Records that cannot be read are skipped; a HarmoniaError if none is left.
    """
    waiting: dict[str, list[Signal]] = {name: [] for name in towers}
    done: dict[str, list[Tensor]] = {name: [] for name in towers}
    ids: dict[str, list[int]] = {name: [] for name in towers}
    number = 0
    for record in records:
        if isinstance(record, Problem):
            continue
        try:
            signals = [(p.modality, signal_of(p)) for p in record.parts if p.modality in towers]
        except HarmoniaError:
            continue
        for name, signal in signals:
            waiting[name].append(signal)
            ids[name].append(number)
        number += 1
        for name, ready in waiting.items():
            if len(ready) >= BLOCK:
                done[name].append(towers[name].prepare(ready))
                ready.clear()
    for name, ready in waiting.items():
        if ready:
            done[name].append(towers[name].prepare(ready))
    if not any(done.values()):
        raise HarmoniaError(f"the data has no record with a part of {', '.join(towers)}")
    return {name: Views(torch.cat(rows), torch.tensor(ids[name])) for name, rows in done.items() if rows}
