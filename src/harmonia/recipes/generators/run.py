"""Training runs of generators: stages that are trained one after the other and saved as one model."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

import torch
from torch import nn

from harmonia.generators import ConditionConfig, Facts, Generator, save_generator
from harmonia.recipes.generators.pictures import Pictures, languages_of, load_pictures
from harmonia.recipes.run import Outcome, RunSettings
from harmonia.training import Indexed, TrainConfig, fit
from harmonia.types import HarmoniaError

Figures = Callable[[Generator], Mapping[str, float]]

LICENCES = {
    "mnist": "trained on MNIST (Yann LeCun, Corinna Cortes), CC BY-SA 3.0",
    "emoji": "trained on Noto Emoji (Apache 2.0) with the names of Unicode CLDR (Unicode licence)",
    "flickr8k": "trained on Flickr8k, whose photos are for non-commercial research only",
}


@dataclass(frozen=True, kw_only=True)
class GeneratorSettings(RunSettings):
    """Settings of generator recipes.

    ``condition``   kinds of condition, joined by ``+``: label, text; or "none"
    ``resolution``  in pixels; 0 for that of the dataset
    ``languages``   of the texts, separated by commas; "" for all
    """

    dataset: str = "mnist"
    resolution: int = 0
    condition: str = "label"
    languages: str = ""
    size: str = "tiny"
    steps: int = 4000
    batch: int = 128
    lr: float = 1e-3

    @property
    def spoken(self) -> tuple[str, ...]:
        """The languages as a tuple."""
        return languages_of(self.languages)

    def pictures(self, data: Path | None, split: str = "train") -> Pictures:
        """The images of the dataset, with their conditions."""
        keep = () if self.condition == "none" else tuple(self.condition.split("+"))
        if unknown := set(keep) - {"label", "text"}:
            raise HarmoniaError(f"condition must be none, label, text or label+text, not {'+'.join(unknown)}")
        pictures = load_pictures(
            self.dataset,
            split,
            resolution=self.resolution or None,
            data=data,
            keep=keep,
            languages=self.spoken,
        )
        if "label" in keep and pictures.label is None:
            raise HarmoniaError(f"{self.dataset} has no labels: set condition=text or condition=none")
        return pictures

    def conditions(self, pictures: Pictures, drop: float = 0.1) -> ConditionConfig:
        """The kinds of condition of a generator of these images."""
        return ConditionConfig(
            classes=len(pictures.labels) if "label" in pictures.keep else 0,
            text=pictures.length if "text" in pictures.keep else 0,
            drop=drop,
        )


@dataclass(frozen=True, slots=True, eq=False)
class Stage:
    """One run of ``fit``; ``dataset`` may be a function that makes it when the stage starts."""

    name: str
    model: nn.Module
    dataset: Indexed | Callable[[], Indexed]
    config: TrainConfig


@dataclass(frozen=True, slots=True, eq=False)
class GeneratorRun:
    """A training run of a generator. The model of each stage is frozen in later stages.

    ``figures`` evaluates the trained generator; ``card`` is the text of its model card.
    """

    name: str
    generator: Generator
    stages: tuple[Stage, ...]
    facts: Facts
    card: str
    figures: Figures = field(default=lambda generator: {})
    dtype: torch.dtype = torch.float32

    def train(self, folder: Path) -> Outcome:
        """Train, or resume training, in ``folder``; the trained model is ``folder/model``."""
        folder.mkdir(parents=True, exist_ok=True)
        for stage in self.stages:
            dataset = stage.dataset if isinstance(stage.dataset, Indexed) else stage.dataset()
            result = fit(stage.model, dataset, stage.config, folder / stage.name)
            stage.model.requires_grad_(False)
        losses = {name: value for name, value in result.history[-1].items() if name.startswith("loss")}
        figures = losses | dict(self.figures(self.generator))
        # only one process of torchrun writes
        if int(os.environ.get("RANK", "0")) == 0:
            lines = [f"| {name} | {value:.4g} |" for name, value in figures.items()]
            table = ("## Figures", "", "| measure | value |", "|---|---|", *lines, "")
            card = "\n".join((self.card.rstrip(), "", *table))
            save_generator(folder / "model", self.generator, facts=self.facts, card=card, dtype=self.dtype)
        return Outcome(result, figures, folder / "model")


def card(title: str, settings: GeneratorSettings, paper: str) -> str:
    """The model card of a generator: method, data, licence, limits."""
    s = settings
    return (
        f"# {title}\n\nA generator of {s.dataset} images. Method: {paper}.\n\n"
        f"Recipe: `harmonia train {title}`, {s.steps} steps of {s.batch}, seed {s.seed}; "
        f"{LICENCES[s.dataset]}.\n\n"
        "Limits: it only draws images like those of its training data. Its outputs are generated images."
    )


def generator_run(
    name: str,
    settings: GeneratorSettings,
    pictures: Pictures,
    model: Generator,
    stages: tuple[Stage, ...],
    paper: str,
) -> GeneratorRun:
    """The run of a recipe ``name``, whose card quotes ``paper``."""
    facts = Facts(name=name, labels=pictures.labels)
    return GeneratorRun(name, model, stages, facts, card(name, settings, paper))
