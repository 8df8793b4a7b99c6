"""A trained model in a folder: towers and what belongs to them, saved, loaded, and used as encoders.

FOLDER/config.json          "model_type": "harmonia", format version, space, the towers' configurations
       model.safetensors    weights, float32 or float16: "towers.<modality>.<name>", "extra.<name>"
       tokenizer.json       of the text tower, if there is one
       README.md            the model card
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from tokenizers import Tokenizer
from torch import Tensor

from harmonia.encoders import bpe
from harmonia.encoders.base import Encoder, unit
from harmonia.encoders.clip import VideoConfig, VideoTower
from harmonia.encoders.grid import ImageConfig, ImageTower
from harmonia.encoders.sequence import MotionConfig, MotionTower, TextConfig, TextTower
from harmonia.encoders.tower import Tower, TowerConfig
from harmonia.encoders.wave import AudioConfig, AudioTower
from harmonia.types import HarmoniaError, Signal

MODEL_TYPE = "harmonia"
VERSION = 1
CONFIG, WEIGHTS, TOKENIZER, CARD = "config.json", "model.safetensors", "tokenizer.json", "README.md"
BATCH = 64

KINDS: dict[str, tuple[type[TowerConfig], type[Tower]]] = {
    "text": (TextConfig, TextTower),
    "motion": (MotionConfig, MotionTower),
    "image": (ImageConfig, ImageTower),
    "audio": (AudioConfig, AudioTower),
    "video": (VideoConfig, VideoTower),
}
"""To add a kind of tower: write it, and add its line here."""


@dataclass(frozen=True, slots=True, eq=False)
class Trained:
    """What a folder holds. ``identity`` stands for the content of its files, 16 hex digits.

    ``space`` is as it was saved; "" means a space of the model's own. ``extra`` is on the CPU, float32.
    """

    towers: dict[str, Tower]
    extra: dict[str, Tensor]
    space: str
    identity: str


def save_towers(
    folder: str | Path,
    towers: Mapping[str, Tower],
    *,
    space: str = "",
    extra: Mapping[str, Tensor] | None = None,
    card: str = "",
    dtype: torch.dtype = torch.float32,
) -> None:
    """Write a model: all of it, or nothing of it. A Harmonia model that stands in ``folder`` is replaced.

    Args:
        folder: where to; its parent must exist.
        towers: by modality.
        space: codes of models of the same space may be compared. "" (the right choice unless the towers
            were trained into the space of another model) names it after the content of the files.
        extra: tensors that belong to the model, such as couplings and precisions.
        card: the text of README.md: data, licence, figures, limits.
        dtype: torch.float16 halves the file; codes then differ in the third digit.

    Raises:
        HarmoniaError: a weight is not finite (in float16), the folder holds something else, or cannot
            be written.
    """
    folder = Path(folder).absolute()
    _check_free(folder)
    _check_names(towers)
    settings = {
        "model_type": MODEL_TYPE,
        "version": VERSION,
        "space": space,
        "towers": {
            name: {"kind": _kind(tower), "config": asdict(tower.config)} for name, tower in towers.items()
        },
    }
    tensors = {f"extra.{name}": value for name, value in (extra or {}).items()}
    for modality, tower in towers.items():
        tensors |= {f"towers.{modality}.{name}": value for name, value in tower.state_dict().items()}
    packed = {name: _packed(name, value, dtype) for name, value in tensors.items()}
    texts = {CONFIG: json.dumps(settings, indent=1) + "\n", CARD: card}
    reader = towers.get("text")
    if isinstance(reader, TextTower):
        texts[TOKENIZER] = bpe.to_json(reader.tokenizer)
    try:
        with _replacing(folder) as temporary:
            save_file(packed, temporary / WEIGHTS, metadata={"format": "pt"})
            for name, text in texts.items():
                (temporary / name).write_text(text, encoding="utf-8")
    except (OSError, SafetensorError) as error:
        raise HarmoniaError(f"cannot write the model {folder}: {' '.join(str(error).split())}") from error


def load_towers(folder: str | Path, device: str | torch.device = "cpu") -> Trained:
    """The towers of a folder, in evaluation mode, float32, ready to be used or trained on.

    HarmoniaError if a file is missing, damaged, truncated or of another version.
    """
    folder = Path(folder)
    settings = _settings(folder)
    tensors = _tensors(folder)
    towers = {}
    for modality, entry in settings["towers"].items():
        prefix = f"towers.{modality}."
        own = {name.removeprefix(prefix): t for name, t in tensors.items() if name.startswith(prefix)}
        towers[modality] = _tower(folder, modality, entry, own).to(device).eval()
    extra = {n.removeprefix("extra."): t for n, t in tensors.items() if n.startswith("extra.")}
    return Trained(towers, extra, settings["space"], _identity(folder))


def load_trained(folder: str | Path, device: str | torch.device = "cpu") -> tuple[Encoder, ...]:
    """The encoders of a folder, in the order in which the towers were saved; fails as ``load_towers``."""
    trained = load_towers(folder, device)
    name = f"{MODEL_TYPE}-{trained.identity}"
    space = trained.space or name
    return tuple(
        TrainedEncoder(tower, f"{name}/{modality}", space) for modality, tower in trained.towers.items()
    )


class TrainedEncoder:
    """A tower as an encoder. A long sound or video is the mean of the codes of windows that cover it."""

    def __init__(self, tower: Tower, name: str, space: str) -> None:
        self.tower = tower.eval()
        self.name, self.space = name, space
        self.modality, self.dim = tower.modality, tower.dim

    def encode(self, signals: Sequence[Signal]) -> NDArray[np.float32]:
        """Codes, float32 ``(n, dim)``, rows of unit norm."""
        windows = [self.tower.windows(signal) for signal in signals]
        flat = [window for group in windows for window in group]
        rows = [self._codes(flat[i : i + BATCH]) for i in range(0, len(flat), BATCH)]
        codes = np.concatenate(rows) if rows else np.zeros((0, self.dim), dtype=np.float32)
        ends = np.cumsum([len(group) for group in windows])
        means = [codes[e - len(g) : e].mean(axis=0) for e, g in zip(ends, windows, strict=True)]
        return unit(np.asarray(means, dtype=np.float32).reshape(len(means), self.dim))

    def _codes(self, signals: Sequence[Signal]) -> NDArray[np.float32]:
        place = next(self.tower.parameters()).device
        with torch.inference_mode():
            codes = self.tower(self.tower.prepare(signals).to(place))
        return unit(codes.float().cpu().numpy())


def _kind(tower: Tower) -> str:
    for name, (_, network) in KINDS.items():
        if type(tower) is network:
            return name
    raise HarmoniaError(f"a {type(tower).__name__} cannot be saved: it is not in trained.KINDS")


def _check_names(towers: Mapping[str, Tower]) -> None:
    wrong = [name for name, tower in towers.items() if name != tower.modality]
    if wrong or not towers:
        raise HarmoniaError(
            f"give towers by modality; these are named otherwise: {', '.join(wrong) or 'none'}"
        )


def _packed(name: str, value: Tensor, dtype: torch.dtype) -> Tensor:
    value = value.detach().cpu()
    out = value.to(dtype if value.is_floating_point() else value.dtype).clone(
        memory_format=torch.contiguous_format
    )
    if not out.isfinite().all():
        raise HarmoniaError(f"the weight {name} is not finite as {dtype}: train again, or save it as float32")
    return out


def _check_free(folder: Path) -> None:
    """HarmoniaError if there is something in the folder that replacing it would lose."""
    if folder.exists() and not (folder.is_dir() and (not any(folder.iterdir()) or is_model(folder))):
        raise HarmoniaError(f"{folder} exists and is no Harmonia model: give another folder")


def is_model(folder: Path) -> bool:
    """Whether a folder holds what `save_towers` writes, and nothing else."""
    try:
        found = json.loads((folder / CONFIG).read_text(encoding="utf-8")).get("model_type") == MODEL_TYPE
    except (OSError, ValueError, AttributeError):
        return False
    return found and {path.name for path in folder.iterdir()} <= {CONFIG, WEIGHTS, TOKENIZER, CARD}


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


def _settings(folder: Path) -> dict[str, Any]:
    file = folder / CONFIG
    try:
        settings = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise HarmoniaError(f"cannot read {file} ({error}): get the model's files again") from error
    if not isinstance(settings, dict) or settings.get("model_type") != MODEL_TYPE:
        raise HarmoniaError(f"{file} is not of a Harmonia model: give the folder of one")
    if settings.get("version") != VERSION:
        raise HarmoniaError(
            f"the model {folder} has format {settings.get('version')} and this Harmonia reads {VERSION}: "
            "update Harmonia, or train the model again"
        )
    towers = settings.get("towers")
    if not isinstance(settings.get("space"), str) or not isinstance(towers, dict) or not towers:
        raise HarmoniaError(f"{file} lacks its space or its towers: get the model's files again")
    return settings


def _tensors(folder: Path) -> dict[str, Tensor]:
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


def _tower(folder: Path, modality: str, entry: Any, weights: dict[str, Tensor]) -> Tower:
    """The tower that one entry of config.json describes; the global random state stays as it was."""
    damaged = HarmoniaError(f"the {modality} tower of {folder} is damaged: get the model's files again")
    if not isinstance(entry, dict) or entry.get("kind") not in KINDS or "config" not in entry:
        raise HarmoniaError(f"{folder / CONFIG} has a {modality} tower of no known kind: update Harmonia")
    configuration, network = KINDS[entry["kind"]]
    arguments: list[Any] = []
    if network is TextTower:
        arguments = [_tokenizer(folder)]
    try:
        config = configuration(**entry["config"])
        # Not on the meta device: there a random start imports torch._dynamo, which takes a second.
        with torch.random.fork_rng(devices=[]):
            tower = network(config, *arguments)
        tower.load_state_dict(weights, assign=True)
    except (TypeError, ValueError, RuntimeError) as error:
        raise damaged from error
    if not all(t.isfinite().all() for t in weights.values()):
        raise damaged
    return tower


def _tokenizer(folder: Path) -> Tokenizer:
    file = folder / TOKENIZER
    try:
        return bpe.from_json(file.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError) as error:
        raise HarmoniaError(f"cannot read {file} ({error}): get the model's files again") from error


def _identity(folder: Path) -> str:
    """16 hex digits that stand for everything that codes depend on."""
    total = hashlib.sha256()
    for name in (CONFIG, WEIGHTS, TOKENIZER):
        if (folder / name).exists():
            total.update(f"{name} {hashlib.sha256((folder / name).read_bytes()).hexdigest()}\n".encode())
    return total.hexdigest()[:16]
