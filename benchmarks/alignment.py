"""What the objectives are worth on equal terms: CLIP, SigLIP, CLOOB, HFY and the CMHN from scratch.

Flickr8k: 6,000 photos with five captions to train on, 1,000 held out (dev). The towers, tokenizer, batch,
steps and augmentation are those of `harmonia.recipes.encoders.image_text` for every row; only the objective
differs,
and, where the row says so, how many captions of a photo a step sees and whether captions are compared with
each other too. Three seeds; mean and spread. Queries are also given Gaussian noise: variance sigma^2 in all,
spread over the d numbers of a unit code, then scaled to unit length.

"With recall": the 6,000 training records are a memory, and each query and each candidate is completed by one
step of descent in it before the two are compared. Its only constants are those of training: beta is the scale
that the towers have learned.

At the end the same objectives on frozen CLIP features (benchmarks/frozen.py). A run takes some minutes on a
core, and is kept in build/alignment: the command goes on where it stopped.
`--only NAME` trains one row (in several processes, several rows), the command without it reads them all.
"""

from __future__ import annotations

import argparse
import shutil
import statistics
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import torch
import torch.nn.functional as F
from rich import box
from rich.console import Console
from rich.table import Table as RichTable
from torch import Tensor

from benchmarks import frozen
from benchmarks.common import REPOSITORY, Row, report, row
from harmonia.encoders.alignment import Alignment, AlignmentConfig, Harmonic
from harmonia.metrics import Records, noisy_codes, retrieval_metrics
from harmonia.recipes.encoders.image_text import ImageTextSettings, Photos, image_text, load
from harmonia.training import fit
from harmonia.training.record_arrays import Views

NOISE = (0.0, 0.1, 0.5, 1.0)
SEEDS = (0, 1, 2)
SHOWN = ("recall@1", "recall@5", "recall@10", "ndcg", "map")
WAYS = ("image to text", "text to image")
BLOCK = 500
QUICK = 3
MAIN = ("CLIP", "SigLIP", "CLOOB", "HFY", "CMHN")


@dataclass(frozen=True)
class Entry:
    """A row: what is trained, with how many captions, and whether it is shown with recall too."""

    config: AlignmentConfig
    captions: int = 1
    seeds: tuple[int, ...] = SEEDS
    recall: bool = False


CMHN = AlignmentConfig(objective="cmhn", within=1.0)
ENTRIES = {
    "CLIP": Entry(AlignmentConfig(objective="clip"), recall=True),
    "SigLIP": Entry(AlignmentConfig(objective="siglip", scale=10.0)),
    "CLOOB": Entry(AlignmentConfig(objective="cloob", scale=30.0, fixed=True), recall=True),
    "HFY": Entry(AlignmentConfig(objective="hfy")),
    "CMHN": Entry(CMHN, captions=2, recall=True),
    # which part earns it, and the same parts given to CLIP
    "CLIP, two captions": Entry(AlignmentConfig(objective="clip"), captions=2, seeds=(0,)),
    "CLIP, two captions, also compared with each other": Entry(
        AlignmentConfig(objective="clip", within=1.0), captions=2, recall=True
    ),
    "CMHN, captions are no cues for captions": Entry(replace(CMHN, within=0.0), captions=2, seeds=(0,)),
    "CMHN, InfoLOOB": Entry(replace(CMHN, loob=True, scale=30.0, fixed=True), captions=2, seeds=(0,)),
    "CMHN, couplings learned": Entry(replace(CMHN, couplings=True), captions=2, seeds=(0,)),
    "CMHN, slot bias learned": Entry(replace(CMHN, bias=True), captions=2, seeds=(0,)),
    "CMHN, slots with all modalities too": Entry(replace(CMHN, whole=1.0), captions=2, seeds=(0,)),
    "CMHN, a step of descent in training": Entry(replace(CMHN, steps=1), captions=2, seeds=(0,)),
}


def first(views: dict[str, Views], records: int) -> dict[str, Views]:
    """The parts of the first records."""
    kept = {name: view.record < records for name, view in views.items()}
    return {name: Views(view.inputs[kept[name]], view.record[kept[name]]) for name, view in views.items()}


def trained(name: str, seed: int, folder: Path, steps: int) -> Alignment:
    """The model of a row and seed: trained now, or found in ``folder``."""
    entry = ENTRIES[name]
    settings = replace(ImageTextSettings(), captions=entry.captions, steps=steps, seed=seed, device="cpu")
    run = image_text(name, entry.config, None, settings)
    fit(run.model, run.dataset, run.config, folder / f"{name.replace(' ', '-')}-{seed}")
    return run.model


@dataclass(frozen=True)
class Codes:
    """Codes of held-out photos and captions, and of the training records (captions as their mean)."""

    image: Tensor
    text: Tensor
    image_record: Tensor
    text_record: Tensor
    slots: dict[str, Tensor]
    beta: float


def encoded(model: Alignment, photos: Photos) -> Codes:
    """What a model makes of the data."""
    held, train = photos.held, photos.train
    known = {name: model.codes(name, view.inputs) for name, view in train.items()}
    total = torch.zeros(len(known["image"]), known["text"].shape[1])
    total = total.index_add(0, train["text"].record, known["text"])
    slots = {"image": known["image"], "text": F.normalize(total, dim=1)}
    return Codes(
        model.codes("image", held["image"].inputs),
        model.codes("text", held["text"].inputs),
        held["image"].record,
        held["text"].record,
        slots,
        float(model.scale.detach()),
    )


def completed(codes: Tensor, name: str, found: Codes) -> dict[str, Tensor]:
    """Codes of one modality with the other that the memory of training records gives them, in one step."""
    network = Harmonic(("image", "text"), (("image", "text"),), codes.shape[1])
    present = {m: torch.ones(len(slot), dtype=torch.bool) for m, slot in found.slots.items()}
    parts = [
        network.settle({name: part}, found.slots, present, found.beta, steps=1) for part in codes.split(BLOCK)
    ]
    return {m: torch.cat([part[m] for part in parts]) for m in ("image", "text")}


def measured(found: Codes, variance: float, recall: bool, seed: int) -> dict[str, float]:
    """The measures of both directions; the query is noisy."""
    sides = {"image": (found.image, found.image_record), "text": (found.text, found.text_record)}
    out = {}
    for query, other in (("image", "text"), ("text", "image")):
        (cue, cue_record), (item, item_record) = sides[query], sides[other]
        cue = noisy_codes(cue, variance, torch.Generator().manual_seed(seed))
        if recall:
            asked, held = completed(cue, query, found), completed(item, other, found)
            scores = asked["image"] @ held["image"].T + asked["text"] @ held["text"].T
        else:
            scores = cue @ item.T
        values = retrieval_metrics(scores, Records(cue_record, item_record))
        out |= {f"{query} to {other} {name}": values[name] for name in SHOWN}
    return out


Table = dict[tuple[str, float], list[dict[str, float]]]
"""By row and noise, the measures of each seed."""


def mean(values: Sequence[dict[str, float]], measure: str) -> float:
    """Over the seeds, of a measure averaged over both directions."""
    return statistics.fmean(v[f"{way} {measure}"] for v in values for way in WAYS)


def rows_of(table: Table) -> list[Row]:
    """Every measure of every row, the goals last."""
    found = []
    for (name, variance), seeds in table.items():
        asked = f", noise {variance:g}" if variance else ""
        for way in WAYS:
            for measure in SHOWN:
                values = [v[f"{way} {measure}"] for v in seeds]
                spread = (
                    f" (spread {max(values) - min(values):.4f}, {len(values)} seeds)" if values[1:] else ""
                )
                found.append(
                    row(f"{name}{asked}: {way} {measure}{spread}", statistics.fmean(values), "fraction")
                )
    for variance in NOISE:
        asked = f"noise {variance:g}" if variance else "clean"
        for measure in ("recall@1", "recall@10"):
            peers = {n: mean(table[n, variance], measure) for n in ("CLIP", "CLOOB")}
            best = max(peers, key=lambda n: peers[n])
            for mine in ("CMHN", "CMHN with recall"):
                value = mean(table[mine, variance], measure)
                goal = (">=", 1.12) if measure == "recall@1" else None
                what = f"{mine}, {asked}: mean {measure} of both ways"
                found.append(row(what, value, "fraction", best, peers[best], goal))
                equal = "CLIP, two captions, also compared with each other"
                equal += " with recall" if mine.endswith("recall") else ""
                peer = mean(table[equal, variance], measure) if (equal, variance) in table else None
                if peer is not None:
                    found.append(
                        row(f"{what}, beside CLIP with the same parts", value, "fraction", equal, peer)
                    )
    return found


def show(table: Table) -> None:
    """The table people read: a line for each row and noise, in per cent."""
    lines = RichTable(box=box.SIMPLE_HEAD)
    for column in ("", "noise", *(f"{short} {m}" for short in ("i>t", "t>i") for m in SHOWN)):
        lines.add_column(column)
    for (name, variance), seeds in table.items():
        cells = [statistics.fmean(v[f"{way} {m}"] for v in seeds) for way in WAYS for m in SHOWN]
        lines.add_row(name, f"{variance:g}", *(f"{100 * cell:.1f}" for cell in cells))
    Console(width=170).print(lines)


def main() -> None:
    """Train what is not there yet, measure, report."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="some steps of five rows, for CI")
    parser.add_argument("--only", action="append", metavar="ROW", help="train these rows and stop")
    args = parser.parse_args()
    torch.set_num_threads(1)
    steps = QUICK if args.quick else ImageTextSettings().steps
    folder = REPOSITORY / "build" / ("alignment-quick" if args.quick else "alignment")
    if args.quick:
        shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True, exist_ok=True)
    names = args.only or (MAIN if args.quick else list(ENTRIES))
    photos = load(None, ImageTextSettings())
    if args.quick:
        photos = replace(photos, train=first(photos.train, 500), held=first(photos.held, 100))
    table: Table = {}
    for name in names:
        entry = ENTRIES[name]
        for seed in entry.seeds[:1] if args.quick else entry.seeds:
            model = trained(name, seed, folder, steps)
            if args.only:
                continue
            found = encoded(model, photos)
            for shown, recall in ((name, False), (f"{name} with recall", True))[: 1 + entry.recall]:
                for variance in NOISE:
                    values = measured(found, variance, recall, seed)
                    table.setdefault((shown, variance), []).append(values)
    if table:
        show(table)
        report("alignment", rows_of(table) + frozen.rows((0,) if args.quick else SEEDS), args.quick)


if __name__ == "__main__":
    main()
