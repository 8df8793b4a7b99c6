"""The objectives on frozen CLIP ViT-B/32 features: what a small map on top of them learns from few photos.

Flickr8k has features of 94 photos with five captions each, and of about 990 photos without. Five folds: a
map x + W x (W zero at first) for each side learns from the captions of four fifths of the 94 photos; the
captions of the last fifth then look for their photo among all 1,085, and the photos for their captions among
470. Rate and steps are such that CLIP gains, which was seen on these folds; three times as many steps at six
times the rate lose a tenth for every objective.
"""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from benchmarks.common import Row, data_folder, row
from harmonia.encoders.alignment import Alignment, AlignmentConfig
from harmonia.encoders.towers.base import Tower, TowerConfig
from harmonia.metrics import Records, noisy_codes, retrieval_metrics
from harmonia.training.record_arrays import Pairs, Views
from harmonia.types import Signal

FOLDS, STEPS, BATCH, RATE = 5, 60, 64, 5e-5
NOISE = (0.0, 0.5, 1.0)
CONFIGS = {
    "CLIP": (AlignmentConfig(objective="clip", scale=30.0), 1),
    "SigLIP": (AlignmentConfig(objective="siglip", scale=30.0), 1),
    "CLOOB": (AlignmentConfig(objective="cloob", scale=30.0, fixed=True), 1),
    "HFY": (AlignmentConfig(objective="hfy", scale=30.0), 1),
    "CMHN": (AlignmentConfig(objective="cmhn", scale=30.0, within=1.0), 2),
}


class Residual(Tower):
    """x + W x on codes that are there already."""

    def __init__(self, modality: str, dim: int) -> None:
        super().__init__()
        self.modality, self.config = modality, TowerConfig(dim=dim)
        self.map = nn.Linear(dim, dim, bias=False)
        nn.init.zeros_(self.map.weight)

    def prepare(self, signals: Sequence[Signal]) -> Tensor:
        """Codes are given, not made."""
        raise NotImplementedError

    def forward(self, inputs: Tensor) -> Tensor:
        """(n, dim) to (n, dim)."""
        mapped: Tensor = inputs + self.map(inputs)
        return mapped


@dataclass(frozen=True)
class Features:
    """Unit features; the first photos are those with captions."""

    photos: Tensor
    captions: Tensor
    photo_of: Tensor


def features() -> Features:
    """The features of both files, each photo once."""
    folder = data_folder() / "flickr8k"
    pairs, many = np.load(folder / "clip_vitb32_pairs.npz"), np.load(folder / "clip_vitb32_images.npz")
    names, first, inverse = np.unique(pairs["image_id"], return_index=True, return_inverse=True)
    others = [i for i, name in enumerate(many["image_id"]) if name not in set(names)]
    photos = np.concatenate([pairs["image_emb"][first], many["image_emb"][others].astype(np.float32)])
    return Features(
        F.normalize(torch.from_numpy(photos), dim=1),
        F.normalize(torch.from_numpy(pairs["text_emb"]), dim=1),
        torch.from_numpy(inverse),
    )


def trained(name: str, data: Features, held: Tensor, seed: int) -> Alignment:
    """Maps learned without the photos ``held`` (n,) and their captions."""
    config, captions = CONFIGS[name]
    torch.manual_seed(seed)
    model = Alignment({m: Residual(m, data.photos.shape[1]) for m in ("image", "text")}, config)
    paired = int(data.photo_of.max()) + 1
    known = torch.tensor([i for i in range(paired) if i not in set(held.tolist())])
    own = torch.isin(data.photo_of, known)
    place = torch.full((paired,), -1)
    place[known] = torch.arange(len(known))
    images = data.photos[known]
    pairs = Pairs(
        {
            "image": Views(images, torch.arange(len(images))),
            "text": Views(data.captions[own], place[data.photo_of[own]]),
        },
        per_record={"image": 1, "text": captions},
    )
    draw = torch.Generator().manual_seed(seed)
    optimizer = torch.optim.AdamW(model.groups()["alignment"], lr=RATE, weight_decay=0.1)
    for _ in range(STEPS):
        chosen = torch.randperm(len(known), generator=draw)[:BATCH]
        loss = model.losses(pairs.batch(chosen, draw))["alignment"]
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    return model


def recalls(data: Features, photos: Tensor, captions: Tensor, held: Tensor, variance: float) -> list[float]:
    """Recall@1 of captions for photos, and of photos for captions; the queries of the photos ``held``."""
    asked = torch.isin(data.photo_of, held)
    draw = torch.Generator().manual_seed(0)
    words, pictures = (noisy_codes(c, variance, draw) for c in (captions[asked], photos[held]))
    everything = torch.arange(len(photos))
    ways = (
        (words @ photos.T, Records(data.photo_of[asked], everything)),
        (pictures @ captions.T, Records(held, data.photo_of)),
    )
    return [retrieval_metrics(scores, relevant)["recall@1"] for scores, relevant in ways]


def rows(seeds: Sequence[int] = (0, 1, 2)) -> list[Row]:
    """Mean Recall@1 of both ways over folds and seeds, beside the features as they are."""
    data = features()
    folds = torch.randperm(int(data.photo_of.max()) + 1, generator=torch.Generator().manual_seed(0)).chunk(
        FOLDS
    )
    plain = {
        v: statistics.fmean(sum(recalls(data, data.photos, data.captions, f, v)) / 2 for f in folds)
        for v in NOISE
    }
    found: list[Row] = []
    for name in CONFIGS:
        values: dict[float, list[float]] = {v: [] for v in NOISE}
        for seed in seeds:
            for fold in folds:
                model = trained(name, data, fold, seed)
                photos, captions = model.codes("image", data.photos), model.codes("text", data.captions)
                for v in NOISE:
                    values[v].append(sum(recalls(data, photos, captions, fold, v)) / 2)
        for v in NOISE:
            asked = f", noise {v:g}" if v else ""
            what = f"frozen CLIP features, {name}{asked}: mean recall@1 of both ways"
            found.append(
                row(what, statistics.fmean(values[v]), "fraction", "the features as they are", plain[v])
            )
    return found
