"""A trained model in a folder: towers and what belongs to them, saved, loaded, and used as encoders.

FOLDER/config.json          "model_type": "harmonia", format version, space, the towers' configurations
       model.safetensors    weights, float32 or float16: "towers.<modality>.<name>", "extra.<name>"
       tokenizer.json       of the text tower, if there is one
       README.md            the model card
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from tokenizers import Tokenizer
from torch import Tensor

from harmonia import weights
from harmonia.encoders.base import Encoder, unit
from harmonia.encoders.towers import tokenizer
from harmonia.encoders.towers.audio import AudioConfig, AudioTower
from harmonia.encoders.towers.base import Tower, TowerConfig
from harmonia.encoders.towers.image import ImageConfig, ImageTower
from harmonia.encoders.towers.text_motion import MotionConfig, MotionTower, TextConfig, TextTower
from harmonia.encoders.towers.video import VideoConfig, VideoTower
from harmonia.types import HarmoniaError, Signal
from harmonia.weights import CARD, CONFIG, TOKENIZER

MODEL_TYPE = "harmonia"
VERSION = 1
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
    texts = {CONFIG: json.dumps(settings, indent=1) + "\n", CARD: card}
    reader = towers.get("text")
    if isinstance(reader, TextTower):
        texts[TOKENIZER] = tokenizer.to_json(reader.tokenizer)
    weights.write_model(folder, tensors, texts, MODEL_TYPE, dtype)


def load_towers(folder: str | Path, device: str | torch.device = "cpu") -> Trained:
    """The towers of a folder, in evaluation mode, float32, ready to be used or trained on.

    HarmoniaError if a file is missing, damaged, truncated or of another version.
    """
    folder = Path(folder)
    settings = _settings(folder)
    tensors = weights.read_tensors(folder)
    towers = {}
    for modality, entry in settings["towers"].items():
        prefix = f"towers.{modality}."
        own = {name.removeprefix(prefix): t for name, t in tensors.items() if name.startswith(prefix)}
        towers[modality] = _tower(folder, modality, entry, own).to(device).eval()
    extra = {n.removeprefix("extra."): t for n, t in tensors.items() if n.startswith("extra.")}
    return Trained(towers, extra, settings["space"], weights.identity(folder))


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


def is_model(folder: Path) -> bool:
    """Whether a folder holds what `save_towers` writes, and nothing else."""
    return weights.is_model(folder, MODEL_TYPE)


def _settings(folder: Path) -> dict[str, Any]:
    settings = weights.read_settings(folder, MODEL_TYPE, VERSION)
    towers = settings.get("towers")
    if not isinstance(settings.get("space"), str) or not isinstance(towers, dict) or not towers:
        raise HarmoniaError(f"{folder / CONFIG} lacks its space or its towers: get the model's files again")
    return settings


def _tower(folder: Path, modality: str, entry: Any, tensors: dict[str, Tensor]) -> Tower:
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
        tower.load_state_dict(tensors, assign=True)
    except (TypeError, ValueError, RuntimeError) as error:
        raise damaged from error
    if not all(t.isfinite().all() for t in tensors.values()):
        raise damaged
    return tower


def _tokenizer(folder: Path) -> Tokenizer:
    file = folder / TOKENIZER
    try:
        return tokenizer.from_json(file.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError) as error:
        raise HarmoniaError(f"cannot read {file} ({error}): get the model's files again") from error
