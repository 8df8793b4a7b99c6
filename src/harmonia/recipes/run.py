"""What a recipe returns, and what is done with it."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

import torch
from torch import Tensor, nn

from harmonia.data.records import Problem, signal_of
from harmonia.encoders.alignment import Alignment
from harmonia.encoders.towers.base import Tower
from harmonia.encoders.towers.saved import save_towers
from harmonia.training import Indexed, Result, TrainConfig, fit
from harmonia.training.record_arrays import Views
from harmonia.types import HarmoniaError, Record, Signal

# Signals decoded before a tower prepares them together.
BLOCK = 256


@dataclass(frozen=True, slots=True, eq=False)
class Outcome:
    """How a run ended, the figures of the model, and the folder it is saved in."""

    result: Result
    figures: dict[str, float]
    model: Path


@dataclass(frozen=True, slots=True, eq=False)
class Run:
    """A training run, complete: model, data, settings, how it is scored, what its model card says.

    ``evaluate`` gives numbers, of which ``monitor`` is the one that counts.
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
        """Train, or go on training, in ``folder``; the model that can be used is ``folder/model``."""
        result = fit(
            self.model, self.dataset, self.config, folder, evaluate=self.evaluate, monitor=self.monitor
        )
        figures = dict(self.evaluate(self.model))
        # of the processes of torchrun, one writes
        if int(os.environ.get("RANK", "0")) == 0:
            self.save(folder / "model", figures)
        return Outcome(result, figures, folder / "model")

    def save(self, folder: Path, figures: Mapping[str, float]) -> None:
        """Write the towers with a card that quotes ``figures``."""
        lines = [f"| {name} | {value:.4g} |" for name, value in figures.items()]
        card = "\n".join(
            (self.card.rstrip(), "", "## Figures", "", "| measure | value |", "|---|---|", *lines, "")
        )
        towers = {name: tower for name, tower in self.model.towers.items() if isinstance(tower, Tower)}
        extra = {"scale": self.model.scale.detach().cpu(), **self.extra}
        save_towers(folder, towers, extra=extra, card=card, dtype=self.dtype)


def prepared(records: Iterable[Record | Problem], towers: Mapping[str, Tower]) -> dict[str, Views]:
    """The parts of records as the towers take them; modalities without a tower are left out.

    Records that cannot be read are left out; a HarmoniaError if none is left.
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
        raise HarmoniaError(f"the data hold nothing that has a part of {', '.join(towers)}")
    return {name: Views(torch.cat(rows), torch.tensor(ids[name])) for name, rows in done.items() if rows}
