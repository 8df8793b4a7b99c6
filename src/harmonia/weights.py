"""A trained model as a folder: config.json and model.safetensors, written whole or not at all."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import tempfile
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from harmonia.types import HarmoniaError

CONFIG, WEIGHTS, TOKENIZER, CARD = "config.json", "model.safetensors", "tokenizer.json", "README.md"


def write_model(
    folder: Path, tensors: Mapping[str, Tensor], texts: Mapping[str, str], model_type: str, dtype: torch.dtype
) -> None:
    """Write weights (floats as ``dtype``) and text files by name; a model that stands there is replaced.

    HarmoniaError if a weight is not finite, or the folder holds something else or cannot be written.
    """
    if folder.exists() and not (
        folder.is_dir() and (not any(folder.iterdir()) or is_model(folder, model_type))
    ):
        raise HarmoniaError(f"{folder} exists and is no Harmonia model: give another folder")
    packed = {name: _packed(name, value, dtype) for name, value in tensors.items()}
    try:
        with _replacing(folder) as temporary:
            save_file(packed, temporary / WEIGHTS, metadata={"format": "pt"})
            # as readable as the other files: the library writes for its owner only
            (temporary / WEIGHTS).chmod(0o644)
            for name, text in texts.items():
                (temporary / name).write_text(text, encoding="utf-8")
    except (OSError, SafetensorError) as error:
        raise HarmoniaError(f"cannot write the model {folder}: {' '.join(str(error).split())}") from error


def read_settings(folder: Path, model_type: str, version: int) -> dict[str, Any]:
    """config.json of a model; HarmoniaError if it is missing, damaged, of another type or version."""
    file = folder / CONFIG
    try:
        settings = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise HarmoniaError(f"cannot read {file} ({error}): get the model's files again") from error
    if not isinstance(settings, dict) or settings.get("model_type") != model_type:
        raise HarmoniaError(f"{file} is not of a Harmonia model of this kind: give the folder of one")
    if settings.get("version") != version:
        raise HarmoniaError(
            f"the model {folder} has format {settings.get('version')} and this Harmonia reads {version}: "
            "update Harmonia, or train the model again"
        )
    return settings


def read_tensors(folder: Path) -> dict[str, Tensor]:
    """The weights, floats as float32, on the CPU; HarmoniaError if they are missing or damaged."""
    file = folder / WEIGHTS
    try:
        tensors = load_file(file)
    except (OSError, SafetensorError) as error:
        reason = " ".join(str(error).split())
        raise HarmoniaError(f"cannot read {file} ({reason}): get the model's files again") from error
    # copied, since what is read lies in the mapped file: unaligned, and gone if the file is replaced
    return {
        name: t.to(torch.float32 if t.is_floating_point() else t.dtype, copy=True)
        for name, t in tensors.items()
    }


def is_model(folder: Path, model_type: str) -> bool:
    """Whether a folder holds what ``write_model`` writes, and nothing else."""
    try:
        found = json.loads((folder / CONFIG).read_text(encoding="utf-8")).get("model_type") == model_type
    except (OSError, ValueError, AttributeError):
        return False
    return found and {path.name for path in folder.iterdir()} <= {CONFIG, WEIGHTS, TOKENIZER, CARD}


def identity(folder: Path, names: Iterable[str] = (CONFIG, WEIGHTS, TOKENIZER)) -> str:
    """16 hex digits that stand for everything that the model's outputs depend on."""
    total = hashlib.sha256()
    for name in names:
        if (folder / name).exists():
            total.update(f"{name} {hashlib.sha256((folder / name).read_bytes()).hexdigest()}\n".encode())
    return total.hexdigest()[:16]


def _packed(name: str, value: Tensor, dtype: torch.dtype) -> Tensor:
    value = value.detach().cpu()
    out = value.to(dtype if value.is_floating_point() else value.dtype).clone(
        memory_format=torch.contiguous_format
    )
    if not out.isfinite().all():
        raise HarmoniaError(f"the weight {name} is not finite as {dtype}: train again, or save it as float32")
    return out


@contextmanager
def _replacing(folder: Path) -> Iterator[Path]:
    """A temporary folder beside ``folder`` that takes its place once the block ends well."""
    work = Path(tempfile.mkdtemp(dir=folder.parent, prefix=".tmp-"))
    try:
        new = work / "new"
        new.mkdir()
        yield new
        for file in new.iterdir():
            with file.open("rb") as written:
                os.fsync(written.fileno())
        if folder.exists():
            folder.rename(work / "old")
        try:
            new.rename(folder)
        except OSError:
            if (work / "old").exists():
                (work / "old").rename(folder)
            raise
    finally:
        shutil.rmtree(work, ignore_errors=True)
