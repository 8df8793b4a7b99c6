"""evaluate: how well the parts of a dataset's records find each other through a model's codes."""

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
"""One line of the table: query, what it looks for, noise, and the measures."""


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
    """Retrieval between every two modalities of a dataset that the model encodes into one space.

    Args:
        model: name or folder of encoders, as `harmonia.load_encoders` takes it.
        dataset: name of a reader in `harmonia.datasets.registry`; ``data`` its folder, ``split`` which part.
        limit: at most so many records.
        noise: variances of Gaussian noise on the queries (`harmonia.metrics.noisy_codes`).

    A query's positives are the parts of its own record, and those of the same ``label`` where the dataset's
    records have one. HarmoniaError if no two modalities of the data share a space.
    """
    codes, record = _encoded(EncoderSet.load((model,), device), _records(dataset, data, split, limit))
    rows = []
    for a, b in combinations(sorted(codes, key=lambda key: list(MODALITIES).index(key[0])), 2):
        if a[1] != b[1] or a[0] == b[0]:
            continue
        for query, item in ((a, b), (b, a)):
            for variance in noise:
                cue = noisy_codes(codes[query], variance, torch.Generator().manual_seed(seed))
                found = summary(query_values_of(cue, codes[item], record[query], record[item]))
                rows.append(
                    {"query": query[0], "finds": item[0], "noise": variance}
                    | {name: found[name] for name in SHOWN}
                )
    if not rows:
        have = ", ".join(sorted({modality for modality, _ in codes})) or "nothing"
        raise HarmoniaError(
            f"{model} puts no two modalities of {dataset} into one space (it encodes {have}): "
            "give a model that aligns them, such as mini"
        )
    return rows


def _records(dataset: str, data: Path | None, split: str, limit: int | None) -> list[tuple[int, Part]]:
    """Parts with the number of their record, or of their class."""
    parts: list[tuple[int, Part]] = []
    classes: dict[Any, int] = {}
    records = (r for r in reader(dataset)(data, split=split) if not isinstance(r, Problem))
    for number, record in enumerate(records):
        if limit is not None and number >= limit:
            break
        label = record.metadata.get("label")
        # true or false is an answer, not a class
        named = isinstance(label, str | int) and not isinstance(label, bool)
        own = classes.setdefault(label if named else ("record", number), len(classes))
        parts += [(own, part) for part in record.parts]
    if not parts:
        raise HarmoniaError(f"{dataset} has no record in split {split}")
    return parts


def _encoded(
    model: EncoderSet, parts: list[tuple[int, Part]]
) -> tuple[dict[tuple[str, str], Tensor], dict[tuple[str, str], Tensor]]:
    """Codes (n, d) and records (n,) by modality and space."""
    codes: dict[tuple[str, str], list[Code]] = {}
    record: dict[tuple[str, str], list[int]] = {}
    for start in tqdm(range(0, len(parts), BATCH), desc="encoding", leave=False):
        block = parts[start : start + BATCH]
        for (number, _), found in zip(block, model.encode([signal_of(p) for _, p in block]), strict=True):
            for code in found:
                codes.setdefault((code.modality, code.space), []).append(code)
                record.setdefault((code.modality, code.space), []).append(number)
    return (
        {key: torch.from_numpy(np.stack([code.vector for code in own])) for key, own in codes.items()},
        {key: torch.tensor(numbers) for key, numbers in record.items()},
    )
