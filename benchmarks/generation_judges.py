"""What the generation benchmark measures with: the judges of a dataset, and real pictures in their eyes."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import torch
from torch import Tensor

from benchmarks.common import REPOSITORY
from harmonia.encoders.towers.saved import load_towers
from harmonia.metrics import Features, Function, text_match
from harmonia.metrics.image_features import in_batches
from harmonia.recipes import prepare, recipe, settings_of
from harmonia.recipes.encoders.text_judge import as_signals
from harmonia.recipes.generators.judge import emoji_records, labelled, load_judge
from harmonia.recipes.generators.pictures import load_pictures
from harmonia.tasks.evaluate_generator import Real, figures, summary
from harmonia.types import Signal

BUDGET = 10.0
"""CPU minutes of training for each system."""
REAL, HELD = "real, drawn again", "real, held out"
OTHERWISE = {("emoji", "latent-flow"): {"dim": "128", "share": "0.4"}}
"""Settings that are others than on digits: pictures in colour have more in them, and need more of a VAE."""
DRAWN = {"mnist": 5000, "emoji": 1507, "flickr8k": 1000}
"""How many pictures each system draws to be measured: of emoji one for each of the training set."""


@dataclass(frozen=True)
class Plan:
    """What is measured: a dataset, a budget in CPU minutes, or a few steps for CI."""

    dataset: str
    minutes: float
    quick: bool = False

    @property
    def home(self) -> Path:
        """The folder of the runs of this dataset and budget."""
        folder = REPOSITORY / "build" / ("generation-quick" if self.quick else "generation")
        home = folder / (self.dataset if self.minutes == BUDGET else f"{self.dataset}-{self.minutes:g}")
        home.mkdir(parents=True, exist_ok=True)
        return home

    @property
    def count(self) -> int:
        """Pictures that each system draws."""
        return 100 if self.quick else DRAWN[self.dataset]

    @property
    def arguments(self) -> list[str]:
        """Those of the command line that are not its defaults."""
        dataset = [] if self.dataset == "mnist" else ["--dataset", self.dataset]
        return dataset if self.minutes == BUDGET else [*dataset, "--minutes", f"{self.minutes:g}"]

    def settings(self, system: str) -> dict[str, str]:
        """What of a recipe's settings the dataset asks for."""
        own = settings_of(recipe(system))
        if self.dataset == own.dataset:
            return {"device": "cpu"}
        condition = "none" if own.condition == "none" else "text"
        # the text judge reads English, and so do those that it judges
        languages = "en" if self.dataset == "emoji" else ""
        changes = {"dataset": self.dataset, "condition": condition, "languages": languages, "device": "cpu"}
        return changes | OTHERWISE.get((self.dataset, system), {})

    def judged(self) -> Measure:
        """The judges of the dataset, trained if they are not there yet."""
        return Measure(self)


class Measure:
    """The judges of one dataset and what they say of real pictures."""

    def __init__(self, plan: Plan) -> None:
        self.plan = plan
        self.train, self.held = (load_pictures(plan.dataset, s, data=None, keep=()) for s in ("train", "val"))
        self.judge = load_judge(self._trained("judge")) if plan.dataset != "flickr8k" else None
        self.towers = load_towers(self._trained("text-judge")) if plan.dataset != "mnist" else None

    def _trained(self, name: str) -> Path:
        plan = self.plan
        folder = plan.home / name if plan.quick else REPOSITORY / "build" / name / plan.dataset
        if not (folder / "model").exists():
            folder.mkdir(parents=True, exist_ok=True)
            changes = {"dataset": plan.dataset, "device": "cpu"} | ({"steps": "20"} if plan.quick else {})
            prepare(name, None, changes).train(folder)
        return folder / "model"

    @cached_property
    def features(self) -> Features:
        """The judge, or the codes of the text judge where pictures have no classes."""
        if self.judge is not None:
            return self.judge
        assert self.towers is not None
        return Function(f"text judge {self.towers.identity[:6]}", self._codes)

    @cached_property
    def real(self) -> Real:
        """The training pictures."""
        return Real(self.train.x, self.features)

    @cached_property
    def names(self) -> list[str]:
        """What each training picture is called: the English name, or the first caption."""
        if self.plan.dataset == "emoji":
            return [str(record.metadata["name"]) for record in emoji_records("train", None)]
        return [texts[0] for texts in self.train.texts]

    def labels(self, split: str, rows: Tensor | None = None) -> Tensor | None:
        """What the judge is to see in the pictures of a split, or in some of them; None if it has no classes.

        In MNIST the digits, in emoji the groups.
        """
        if self.judge is None:
            return None
        label = labelled(self.plan.dataset, split, 0, None)[0].label
        return label if rows is None else label[rows]

    def _codes(self, x: Tensor) -> Tensor:
        assert self.towers is not None
        tower = self.towers.towers["image"]
        codes: Tensor = tower(tower.prepare(as_signals(x)))
        return codes

    def match(self, x: Tensor, names: Sequence[str]) -> float:
        """Text match of pictures uint8 with their names, x100."""
        assert self.towers is not None
        reader = self.towers.towers["text"]
        with torch.no_grad():
            words = reader(reader.prepare([Signal("text", name) for name in names]))
        return float(text_match(in_batches(self._codes, x), words).mean())

    def of(self, x: Tensor, rows: Tensor | None, labels: Tensor | None) -> dict[str, float]:
        """Every figure of pictures uint8 that were to be of the training pictures ``rows``."""
        found = figures(x, self.real, labels)
        distance, short = found["FD at infinity"], summary(found)
        short |= {"at infinity, low": distance.low or 0.0, "at infinity, high": distance.high or 0.0}
        if "class accuracy" in short:
            short["accuracy %"] = 100 * short.pop("class accuracy")
        if self.towers is not None and rows is not None:
            short["text match"] = self.match(x, [self.names[row] for row in rows.tolist()])
        return short

    def reals(self) -> dict[str, dict[str, float]]:
        """The lines of real pictures; kept, since they are the same for every system."""
        file = self.plan.home / "real.json"
        if not file.exists():
            rows = self.real.again(self.plan.count)
            found = {REAL: self.of(self.train.x[rows], rows, self.labels("train", rows))}
            found[f"{HELD} ({len(self.held)})"] = self.of(self.held.x, None, self.labels("val"))
            file.write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")
        lines: dict[str, dict[str, float]] = json.loads(file.read_text(encoding="utf-8"))
        return lines
