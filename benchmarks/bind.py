"""Modalities that never met: a hub of pictures, twelve modalities at once, talking faces, five languages.

Bind: sounds (ESC-10 folds 1-3, FSDD takes from 5 on) meet pictures, pictures meet words, and held-out sounds
(fold 4, takes below 5) look for one of ten words; chance is 0.1. Controls: the same sounds trained with the
words themselves, and sounds whose pictures were drawn at random. Three seeds.

Twelve modalities: views of a common latent vector, each through its own random map and with noise of its own
of the same power. Every modality of a record is left out of a step with probability 0.3. Of 2,000 other
records the parts that the same luck leaves are remembered, and recalled from new noisy views: a record is one
slot, the mean code of its parts, as in training. Beside it plain cosine with the same slots, which tells what
the memory adds to them, and a memory with a matrix for each modality, in all of which every cue looks.

Runs are kept in build/bind, so that the command goes on where it stopped.
"""

from __future__ import annotations

import argparse
import random
import statistics
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from benchmarks.common import REPOSITORY, Row, data_folder, report, row
from harmonia.encoders.alignment import Alignment, AlignmentConfig
from harmonia.encoders.towers.base import Tower, TowerConfig
from harmonia.memory import Given, HarmonicMemory, Layout
from harmonia.pretrained.imagebind import pairs
from harmonia.recipes.encoders import bind, multilingual, video
from harmonia.recipes.run import Run
from harmonia.training import TrainConfig, fit
from harmonia.training.record_arrays import Pairs, Views
from harmonia.types import Signal

SEEDS = (0, 1, 2)
HUB = pairs(("image", "text", "audio"))
LATENT, WIDTHS, DROP = 16, tuple(range(24, 72, 4)), 0.3
NAMES = tuple(f"view {i}" for i in range(len(WIDTHS)))


def trained(run: Run, folder: Path) -> dict[str, float]:
    """The figures of a run: trained now, or found in ``folder``, where its steps and seed have their own."""
    place = folder / f"{run.name.replace(' ', '-')}-{run.config.steps}-{run.config.seed}"
    fit(run.model, run.dataset, run.config, place)
    return dict(run.evaluate(run.model))


# --- bind


def never_met(dataset: Pairs, a: str, b: str) -> bool:
    """Whether no record that is trained on has parts of both modalities."""
    return not bool(torch.isin(dataset.parts[a].record, dataset.parts[b].record).any())


def shuffled(heard: Mapping[str, Views], seed: int) -> dict[str, Views]:
    """The same sounds and pictures, but which sound goes with which concept is drawn at random."""
    audio = heard["audio"]
    order = torch.randperm(len(audio.record), generator=torch.Generator().manual_seed(seed))
    return {**heard, "audio": Views(audio.inputs, audio.record[order])}


def bind_run(kind: str, material: bind.Material, settings: bind.BindSettings) -> Run:
    """One of: "cmhn" and "clip", the hub; "direct", words in the place of pictures; "shuffled"."""
    s = replace(settings, objective="clip" if kind == "clip" else "cmhn")
    named, heard = material.named, material.heard
    if kind == "direct":
        met = {"audio": heard["audio"], "text": material.words}
        compared = [("image", "text"), ("audio", "text")]
        return bind.bound(f"bind {kind}", [named, met], compared, material, s)
    if kind == "shuffled":
        heard = shuffled(heard, s.seed)
    run = bind.bound(f"bind {kind}", [named, heard], HUB, material, s)
    assert isinstance(run.dataset, Pairs) and never_met(run.dataset, "audio", "text")
    return run


def bound(data: Path, folder: Path, quick: bool) -> list[Row]:
    """Sound to word: the hub for both objectives, and the two controls."""
    settings = bind.BindSettings(device="cpu", steps=20 if quick else bind.SETTINGS.steps)
    material = bind.load(data, settings)
    seeds = SEEDS[:1] if quick else SEEDS
    goals = {"digits": 0.7, "digits recalled": 0.7, "sounds": 0.25, "sounds recalled": 0.3}
    told = {
        "cmhn": "the hub, CMHN",
        "clip": "the hub, InfoNCE on pairs",
        "direct": "sounds met the words (control)",
        "shuffled": "pictures drawn at random (control)",
    }
    rows = []
    for kind, what in told.items():
        runs = [trained(bind_run(kind, material, replace(settings, seed=seed)), folder) for seed in seeds]
        for name, least in goals.items():
            if kind == "direct" and name.endswith("recalled"):
                continue
            values = [figures[name] for figures in runs]
            goal = {"direct": None, "shuffled": ("<=", 0.2)}.get(kind, (">=", least))
            rows.append(_row(f"{what}: {_test(name)}, spread {_spread(values)}", values, goal))
    return rows


def _test(name: str) -> str:
    hearing, _, recalled = name.partition(" ")
    how = "recalled through pictures" if recalled else "cosine"
    return f"{'spoken digit' if hearing == 'digits' else 'field recording'} -> word, {how}"


def _row(what: str, values: Sequence[float], goal: tuple[str, float] | None) -> Row:
    return row(what, statistics.mean(values), "accuracy (chance 0.1)", goal=goal)


def _spread(values: Sequence[float]) -> str:
    return f"{min(values):.2f}-{max(values):.2f}"


# --- twelve modalities


@dataclass(frozen=True, kw_only=True)
class VectorConfig(TowerConfig):
    """A tower of vectors of width ``inputs``."""

    inputs: int


class VectorTower(Tower):
    """A perceptron of two layers."""

    def __init__(self, modality: str, inputs: int, dim: int = 64) -> None:
        super().__init__()
        self.modality, self.config = modality, VectorConfig(inputs=inputs, dim=dim)
        self.layers = nn.Sequential(nn.Linear(inputs, 128), nn.GELU(), nn.Linear(128, dim))

    def prepare(self, signals: Sequence[Signal]) -> Tensor:
        """The vectors (n, inputs)."""
        return torch.stack([torch.from_numpy(signal.array) for signal in signals])

    def forward(self, inputs: Tensor) -> Tensor:
        """Codes (n, dim)."""
        out: Tensor = self.layers(inputs)
        return out


class World:
    """Twelve views of latent vectors: tanh of a random linear map, and noise of the same power."""

    def __init__(self, seed: int) -> None:
        self.draws = torch.Generator().manual_seed(seed)
        self.maps = {
            name: torch.randn(LATENT, width, generator=self.draws) / LATENT**0.5
            for name, width in zip(NAMES, WIDTHS, strict=True)
        }

    def latents(self, count: int) -> Tensor:
        """Things (count, LATENT) that there are."""
        return torch.randn(count, LATENT, generator=self.draws)

    def view(self, name: str, latents: Tensor) -> Tensor:
        """What one modality sees of them, with new noise each time."""
        seen = torch.tanh(1.5 * latents @ self.maps[name])
        return seen + seen.std() * torch.randn(seen.shape, generator=self.draws)


def twelve_model(world: World, count: int, steps: int, folder: Path) -> Alignment:
    """The towers of twelve modalities, trained all together by the CMHN with parts dropped at random."""
    latents = world.latents(count)
    parts = {name: Views(world.view(name, latents), torch.arange(count)) for name in NAMES}
    torch.manual_seed(0)
    towers = {name: VectorTower(name, width) for name, width in zip(NAMES, WIDTHS, strict=True)}
    model = Alignment(towers, AlignmentConfig(objective="cmhn"))
    config = TrainConfig(steps=steps, batch=256, lr=2e-3, warmup=20, clip=None, device="cpu", log_every=100)
    fit(model, Pairs(parts, drop=DROP), config, folder / f"twelve-{steps}")
    return model


def nearest(cues: Mapping[str, Tensor], stored: Mapping[str, Tensor]) -> Tensor:
    """The record with the greatest mean cosine between the cues and the parts that it has."""
    scores = torch.stack([cue @ codes.T for cue in cues.values() for codes in stored.values()]).sum(dim=0)
    count = torch.stack([codes.any(dim=1) for codes in stored.values()]).sum(dim=0)
    return (scores / count).argmax(dim=1)


def by_modality(stored: Mapping[str, Tensor], present: Tensor) -> HarmonicMemory:
    """A matrix for each modality, of the records that have it."""
    rows = {
        name: torch.where(there, there.cumsum(dim=0) - 1, -1)
        for name, there in zip(stored, present.T, strict=True)
    }
    kept = {name: codes[rows[name] >= 0] for name, codes in stored.items()}
    return HarmonicMemory(kept, Layout(len(present), torch.arange(len(present)), rows))


def twelve(folder: Path, quick: bool) -> list[Row]:
    """Recall@1 of remembered records from 1, 2, 4 and 12 new noisy views."""
    world = World(0)
    count, queries = (400, 100) if quick else (2000, 500)
    model = twelve_model(world, 1000 if quick else 4000, 20 if quick else 400, folder)
    latents = world.latents(count)
    present = torch.rand(count, len(NAMES), generator=world.draws) >= DROP
    present[~present.any(dim=1), 0] = True
    stored = {
        name: torch.where(there[:, None], model.codes(name, world.view(name, latents)), 0.0)
        for name, there in zip(NAMES, present.T, strict=True)
    }
    means = F.normalize(torch.stack(list(stored.values())).sum(dim=0), dim=-1)
    slots = HarmonicMemory({"record": means})
    matrices = by_modality(stored, present)
    cues = {name: model.codes(name, world.view(name, latents[:queries])) for name in NAMES}
    draw, rows = random.Random(0), []
    for number in (1, 2, 4, 12):
        given = {name: cues[name] for name in draw.sample(NAMES, number)}
        whole = slots.recall([Given("record", cue) for cue in given.values()], k=1)
        each = [Given(key, cue, origin=name) for name, cue in given.items() for key in NAMES]
        mean = _first(nearest(given, stored))
        what = f"12 modalities, 3 of 10 parts missing, Recall@1 in {count} from {number} noisy cues"
        goal = None if quick else (">=", 1.0)
        rows.append(row(what, _first(whole.slots[:, 0]), "recall@1", "mean cosine", mean, goal))
        plain = _first((torch.stack(list(given.values())).sum(dim=0) @ means.T).argmax(dim=1))
        rows.append(row(f"{what}, plain cosine with the same slots", plain, "recall@1", "mean cosine", mean))
        apart = _first(matrices.recall(each, k=1).slots[:, 0])
        rows.append(row(f"{what}, a matrix each", apart, "recall@1", "mean cosine", mean))
    return rows


def _first(found: Tensor) -> float:
    """The share of queries, which are the first records in order, that found themselves."""
    return float((found == torch.arange(len(found))).float().mean())


# --- video and languages


def talking(data: Path, folder: Path, quick: bool) -> list[Row]:
    """Clip and sound to sentence and back, on every tenth clip of GRID."""
    run = video.video(
        data / "grid", replace(video.SETTINGS, device="cpu", steps=10 if quick else video.SETTINGS.steps)
    )
    figures = trained(run, folder)
    held = video.load(data / "grid", replace(video.SETTINGS, device="cpu", steps=run.config.steps)).held
    count = len(held["text"].record)
    goal = None if quick else (">=", 0.5)
    return [
        row(f"GRID, {count} clips: {name}", value, f"recall@1 (chance {1 / count:.2g})", goal=goal)
        for name, value in figures.items()
        if name.endswith("/recall@1")
    ]


def languages(data: Path, folder: Path, quick: bool) -> list[Row]:
    """Photos and captions in five languages; captions to English ones, with photos and distilled."""
    home = data / "flickr8k"
    photos, lesson = (
        replace(settings, device="cpu", steps=10 if quick else settings.steps)
        for settings in (multilingual.SETTINGS, multilingual.STUDENT)
    )
    figures = trained(multilingual.multilingual(home, photos), folder)
    rows = [
        row(f"photos and captions: {name}", value, "recall")
        for name, value in figures.items()
        if name.endswith("/recall@10") or ("->en/recall@1" in name and "image" not in name)
    ]
    goals = {"de": 0.7, "fr": 0.7, "cs": 0.6}
    for name, value in trained(multilingual.student(home, lesson), folder).items():
        least = goals.get(name[:2])
        goal = None if quick or least is None else (">=", least)
        rows.append(row(f"student without photos, of an English LSA: {name}", value, "recall@1", goal=goal))
    return rows


PARTS: dict[str, Callable[[Path, Path, bool], list[Row]]] = {
    "bind": bound,
    "twelve": lambda data, folder, quick: twelve(folder, quick),
    "video": talking,
    "languages": languages,
}


def main() -> None:
    """Run what is asked for; the table is of all parts, unless one is named."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="a few steps of everything")
    parser.add_argument("--only", choices=PARTS, help="train and print one part, and write no results")
    options = parser.parse_args()
    torch.set_num_threads(1)
    folder = REPOSITORY / "build" / ("bind-quick" if options.quick else "bind")
    folder.mkdir(parents=True, exist_ok=True)
    data = data_folder()
    rows = []
    for name, part in PARTS.items():
        if options.only in (None, name):
            rows += part(data, folder, options.quick)
    if options.only is None:
        report("bind", rows, options.quick)
    for one in rows if options.only else ():
        print(f"{one['what']}: {one['value']:.3f} {one['unit']} {one['peer_value'] or ''} {one['holds']}")


if __name__ == "__main__":
    main()
