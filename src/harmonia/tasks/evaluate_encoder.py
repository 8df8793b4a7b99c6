"""Evaluation of encoders by cross-modal retrieval on a dataset."""

from __future__ import annotations

from itertools import combinations
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from tqdm import tqdm

from harmonia.collection.encoder_set import EncoderSet
from harmonia.data.records import Problem, signal_of
from harmonia.datasets.registry import reader
from harmonia.metrics import noisy_codes, query_values_of, summary
from harmonia.modalities import MODALITIES
from harmonia.types import Code, HarmoniaError, Part

SHOWN = ("recall@1", "recall@5", "recall@10", "ndcg", "map", "median_rank")
BATCH = 64

Row = dict[str, Any]
"""A row of the table: query modality, retrieved modality, noise, and the measures."""


def evaluate(
    model: str,
    dataset: str,
    data: Path | None = None,
    *,
    split: str = "val",
    limit: int | None = None,
    noise: tuple[float, ...] = (0.0,),
    device: str = "auto",
    seed: int = 0,
) -> list[Row]:
    """Score retrieval between every two modalities that the model encodes into one space.

    Args:
        model: name or folder of encoders, as `harmonia.load_encoders` takes it.
        dataset: name of a reader in `harmonia.datasets.registry`.
        data: folder of the dataset; None looks under HARMONIA_DATA.
        split: split of the dataset.
        limit: maximum number of records.
        noise: variances of Gaussian noise on the queries (`harmonia.metrics.noisy_codes`).
        device: of the encoders.
        seed: of the noise.

    The positives of a query are the parts of its own record, and those of records with the same ``label``.

    Raises:
        HarmoniaError: no two modalities of the dataset share a space, or the split is empty.
    """
    codes, record = _encoded(EncoderSet.load((model,), device), _records(dataset, data, split, limit))
    rows = []
    for a, b in combinations(sorted(codes, key=lambda key: list(MODALITIES).index(key[0])), 2):
        if a[1] != b[1] or a[0] == b[0]:
            continue
        for query, item in ((a, b), (b, a)):
            for variance in noise:
                cue = noisy_codes(codes[query], variance, torch.Generator().manual_seed(seed))
                measures = summary(query_values_of(cue, codes[item], record[query], record[item]))
                rows.append(
                    {"query": query[0], "finds": item[0], "noise": variance}
                    | {name: measures[name] for name in SHOWN}
                )
    if not rows:
        have = ", ".join(sorted({modality for modality, _ in codes})) or "nothing"
        raise HarmoniaError(
            f"{model} encodes no two modalities of {dataset} into one space (it encodes {have}): "
            "give a model that aligns modalities, such as mini"
        )
    return rows


def _records(dataset: str, data: Path | None, split: str, limit: int | None) -> list[tuple[int, Part]]:
    """The parts, each with the number of its record or class."""
    parts: list[tuple[int, Part]] = []
    classes: dict[Any, int] = {}
    records = (r for r in reader(dataset)(data, split=split) if not isinstance(r, Problem))
    for number, record in enumerate(records):
        if limit is not None and number >= limit:
            break
        label = record.metadata.get("label")
        # A boolean label is an answer, not a class.
        named = isinstance(label, str | int) and not isinstance(label, bool)
        own = classes.setdefault(label if named else ("record", number), len(classes))
        parts += [(own, part) for part in record.parts]
    if not parts:
        raise HarmoniaError(f"{dataset} has no records in the split {split!r}: choose another with --split")
    return parts


def _encoded(
    model: EncoderSet, parts: list[tuple[int, Part]]
) -> tuple[dict[tuple[str, str], Tensor], dict[tuple[str, str], Tensor]]:
    """Codes (n, d) and records (n,) by modality and space."""
    codes: dict[tuple[str, str], list[Code]] = {}
    record: dict[tuple[str, str], list[int]] = {}
    for start in tqdm(range(0, len(parts), BATCH), desc="encoding", leave=False):
        block = parts[start : start + BATCH]
        for (number, _), own in zip(block, model.encode([signal_of(p) for _, p in block]), strict=True):
            for code in own:
                codes.setdefault((code.modality, code.space), []).append(code)
                record.setdefault((code.modality, code.space), []).append(number)
    return (
        {key: torch.from_numpy(np.stack([code.vector for code in group])) for key, group in codes.items()},
        {key: torch.tensor(numbers) for key, numbers in record.items()},
    )
