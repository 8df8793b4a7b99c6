"""The fitted models of likelihoods of a memory, in one file beside its store."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor

from harmonia.collection.likelihoods import Likelihoods
from harmonia.memory.likelihood import LikelihoodRatio
from harmonia.store.atomic import TEMPORARY
from harmonia.types import HarmoniaError

FILE_NAME = "likelihoods.safetensors"
FORMAT = 1
TENSORS = ("cue_mean", "cue_basis", "mean", "basis", "correlation")


def save_likelihoods(folder: Path, found: Likelihoods, encoders: tuple[str, ...], records: int) -> None:
    """Write the models, atomically; ``records`` is how many the memory held."""
    tensors: dict[str, Tensor] = {}
    ratios = []
    for number, ((to, of), ratio) in enumerate(found.ratios.items()):
        ratios.append({"to": to, "of": of, "scale": ratio.scale, "own_scale": ratio.own_scale})
        for name in TENSORS:
            if to != of or not name.startswith("cue_"):  # within a modality both sides are the same
                tensors[f"{number}.{name}"] = getattr(ratio, name).float().contiguous()
    null = []
    for number, ((keys, kind), scores) in enumerate(found.null_scores.items()):
        null.append({"keys": keys, "kind": kind})
        tensors[f"null.{number}"] = scores.float().contiguous()
    about = {
        "format": FORMAT,
        "encoders": encoders,
        "records": records,
        "words": found.words,
        "ratios": ratios,
        "null": null,
    }
    data = save(tensors or {"none": torch.zeros(1)}, {"harmonia": json.dumps(about)})
    temporary = folder / f"{TEMPORARY}{FILE_NAME}"
    try:
        temporary.write_bytes(data)
        temporary.replace(folder / FILE_NAME)
    except OSError as error:
        temporary.unlink(missing_ok=True)
        raise HarmoniaError(f"cannot write {folder / FILE_NAME}: {error.strerror or error}") from error


def load_likelihoods(folder: Path, encoders: tuple[str, ...]) -> Likelihoods | None:
    """The models of a memory with these encoders; None where there are none, or none for these.

    HarmoniaError if the file is damaged, or of a newer format.
    """
    path = folder / FILE_NAME
    about = _about(path)
    if about is None or tuple(about["encoders"]) != encoders:
        return None
    try:
        with safe_open(path, framework="pt") as file:
            return Likelihoods(
                ratios={
                    (str(one["to"]), str(one["of"])): _ratio(file, number, one)
                    for number, one in enumerate(about["ratios"])
                },
                words=float(about["words"]),
                null_scores={
                    (tuple(map(str, one["keys"])), str(one["kind"])): file.get_tensor(f"null.{number}")
                    for number, one in enumerate(about["null"])
                },
            )
    except (OSError, ValueError, LookupError, TypeError, SafetensorError) as error:
        raise _damaged(path, error) from error


def fitted_records(folder: Path) -> int:
    """How many records the memory held when its models were fitted; 0 where there are none to read."""
    try:
        about = _about(folder / FILE_NAME)
    except HarmoniaError:
        return 0
    return 0 if about is None else int(about["records"])


def _about(path: Path) -> dict[str, Any] | None:
    try:
        with safe_open(path, framework="pt") as file:
            found: dict[str, Any] = json.loads(file.metadata()["harmonia"])
    except FileNotFoundError:
        return None
    except (OSError, ValueError, LookupError, TypeError, SafetensorError) as error:
        raise _damaged(path, error) from error
    if found["format"] > FORMAT:
        raise HarmoniaError(f"{path} was written by a newer Harmonia: update, or delete it")
    return found


def _ratio(file: Any, number: int, about: Mapping[str, Any]) -> LikelihoodRatio:
    own = about["to"] == about["of"]
    tensors = [file.get_tensor(f"{number}.{name.removeprefix('cue_') if own else name}") for name in TENSORS]
    model = LikelihoodRatio(*tensors)
    return replace(model, own_scale=float(about["own_scale"]), scale=float(about["scale"]))


def _damaged(path: Path, error: Exception) -> HarmoniaError:
    reason = " ".join(str(error).split())
    return HarmoniaError(
        f"cannot read {path} ({reason}): run `harmonia learn` again, or `harmonia learn --forget`"
    )
