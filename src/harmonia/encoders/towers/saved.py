"""Towers saved in a folder, loaded from it, and used as encoders. See ``harmonia.weights`` for the files.

config.json has the space and the towers' configurations; the weights have the names
"towers.<modality>.<name>" and "extra.<name>".
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
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
from harmonia.encoders.towers.base import Tower
from harmonia.encoders.towers.text_motion import TextTower
from harmonia.types import HarmoniaError, Signal
from harmonia.weights import CONFIG, TOKENIZER

BATCH = 64

FORMAT = weights.ModelFormat(
    "harmonia",
    1,
    "tower",
    {
        "text": "harmonia.encoders.towers.text_motion:TextTower",
        "motion": "harmonia.encoders.towers.text_motion:MotionTower",
        "image": "harmonia.encoders.towers.image:ImageTower",
        "audio": "harmonia.encoders.towers.audio:AudioTower",
        "video": "harmonia.encoders.towers.video:VideoTower",
    },
)
"""The format of a folder of towers. To add a kind of tower: write it, and add its line here."""


@dataclass(frozen=True, slots=True, eq=False)
class Trained:
    """The towers of a folder. ``identity`` is a hash of the content of its files, 16 hex digits.

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
    _check_names(towers)
    settings = {
        "space": space,
        "towers": {name: FORMAT.describe(tower) for name, tower in towers.items()},
    }
    tensors = {f"extra.{name}": value for name, value in (extra or {}).items()}
    for modality, tower in towers.items():
        tensors |= {f"towers.{modality}.{name}": value for name, value in tower.state_dict().items()}
    reader = towers.get("text")
    texts = {TOKENIZER: tokenizer.to_json(reader.tokenizer)} if isinstance(reader, TextTower) else {}
    FORMAT.write(Path(folder), settings, tensors, card=card, dtype=dtype, texts=texts)


def load_towers(folder: str | Path, device: str | torch.device = "cpu") -> Trained:
    """The towers of a folder, in evaluation mode, float32, ready to be used or trained on.

    HarmoniaError if a file is missing, damaged, truncated or of another version.
    """
    folder = Path(folder)
    settings, tensors = FORMAT.read(folder)
    _check_settings(folder, settings)
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
    name = f"{FORMAT.model_type}-{trained.identity}"
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


def _check_names(towers: Mapping[str, Tower]) -> None:
    wrong = [name for name, tower in towers.items() if name != tower.modality]
    if wrong or not towers:
        raise HarmoniaError(
            f"give towers by modality; these are named otherwise: {', '.join(wrong) or 'none'}"
        )


def is_model(folder: Path) -> bool:
    """Whether a folder holds what `save_towers` writes, and nothing else."""
    return FORMAT.is_model(folder)


def _check_settings(folder: Path, settings: Mapping[str, Any]) -> None:
    towers = settings.get("towers")
    if not isinstance(settings.get("space"), str) or not isinstance(towers, dict) or not towers:
        raise HarmoniaError(f"{folder / CONFIG} lacks its space or its towers: get the model's files again")


def _tower(folder: Path, modality: str, entry: Any, tensors: dict[str, Tensor]) -> Tower:
    """The tower that one entry of config.json describes."""
    text = isinstance(entry, dict) and entry.get("kind") == "text"
    arguments = (_tokenizer(folder),) if text else ()
    what = f"the {modality} tower of {folder}"
    tower = FORMAT.build(entry, tensors, *arguments, where=str(folder / CONFIG), what=what)
    assert isinstance(tower, Tower)
    return tower


def _tokenizer(folder: Path) -> Tokenizer:
    file = folder / TOKENIZER
    try:
        return tokenizer.from_json(file.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError) as error:
        raise HarmoniaError(f"cannot read {file} ({error}): get the model's files again") from error
