"""CLIP, SigLIP and CLAP models as text, image and audio encoders with a shared space.

References: CLIP, Radford et al. 2021; SigLIP, Zhai et al. 2023; CLAP, Wu et al. 2023.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from transformers import AutoFeatureExtractor, AutoImageProcessor, AutoModel, AutoTokenizer

from harmonia.encoders.base import Encoder, unit
from harmonia.modalities.audio import mono
from harmonia.types import HarmoniaError, Signal

MODEL_TYPES = ("clip", "siglip", "clap")
BATCH = 32

Array = NDArray[np.float32]
Item = TypeVar("Item")


@dataclass(frozen=True, slots=True, eq=False)
class Towers:
    """One model, shared by its encoders."""

    model: Any
    kind: str
    space: str
    device: torch.device

    def codes(self, method: str, inputs: Any) -> Array:
        """The projected features of one batch by ``method``, such as ``get_text_features``."""
        with torch.inference_mode():
            output = getattr(self.model, method)(**inputs.to(self.device))
        # transformers 5 returns an object; its pooler_output is the projected code.
        codes: Array = getattr(output, "pooler_output", output).float().cpu().numpy()
        return codes


def load_towers(folder: Path, kind: str, space: str, device: torch.device) -> tuple[Encoder, ...]:
    """The text encoder of the model in a folder, then its image or audio encoder."""
    model, info = AutoModel.from_pretrained(
        folder,
        local_files_only=True,
        use_safetensors=True,
        dtype=torch.float32,
        output_loading_info=True,
    )
    if info["missing_keys"]:
        raise HarmoniaError(
            f"the model in {folder} lacks weights ({min(info['missing_keys'])}, ...): "
            "download its files again"
        )
    towers = Towers(model.eval().to(device), kind, space, device)
    other = ClapAudio(towers, folder) if kind == "clap" else TowerImage(towers, folder)
    return TowerText(towers, folder), other


class TowerText:
    """The text tower. Texts longer than the model's context are truncated."""

    modality = "text"

    def __init__(self, towers: Towers, folder: Path) -> None:
        self.towers = towers
        self.name, self.space = f"{towers.space}/text", towers.space
        self.tokenizer = AutoTokenizer.from_pretrained(folder, local_files_only=True)
        context = towers.model.config.text_config.max_position_embeddings
        if towers.kind == "clap":
            context -= 2  # RoBERTa counts positions from 2
        self.context = min(context, self.tokenizer.model_max_length)
        # SigLIP was trained on padding to its full context and reads the last position.
        self.padding = "max_length" if towers.kind == "siglip" else "longest"
        self.dim = len(self._batch([Signal("text", "a")])[0])

    def encode(self, signals: Sequence[Signal]) -> Array:
        """Codes of texts, float32 ``(n, dim)``, rows of unit norm."""
        return _in_batches(self._batch, signals, self.dim)

    def _batch(self, signals: Sequence[Signal]) -> Array:
        inputs = self.tokenizer(
            [signal.text for signal in signals],
            padding=self.padding,
            truncation=True,
            max_length=self.context,
            return_tensors="pt",
        )
        return self.towers.codes("get_text_features", inputs)


class TowerImage:
    """The image tower."""

    modality = "image"

    def __init__(self, towers: Towers, folder: Path) -> None:
        self.towers = towers
        self.name, self.space = f"{towers.space}/image", towers.space
        # The Pillow processor, also where torchvision is installed: the two differ in the last digits.
        self.processor = AutoImageProcessor.from_pretrained(folder, local_files_only=True, backend="pil")
        self.dim = len(self._batch([Signal("image", np.zeros((8, 8, 3), dtype=np.uint8))])[0])

    def encode(self, signals: Sequence[Signal]) -> Array:
        """Codes of images (uint8 RGB of any size), float32 ``(n, dim)``, rows of unit norm."""
        return _in_batches(self._batch, signals, self.dim)

    def _batch(self, signals: Sequence[Signal]) -> Array:
        images = [Image.fromarray(signal.array) for signal in signals]
        inputs = self.processor(images, return_tensors="pt")
        return self.towers.codes("get_image_features", inputs)


class ClapAudio:
    """CLAP's audio tower; the code of a long sound is the mean over windows that cover it.

    The feature extractor itself takes a random crop of a long sound, and in fusion models marks a random
    sound of each batch as long; both make codes irreproducible.
    """

    modality = "audio"

    def __init__(self, towers: Towers, folder: Path) -> None:
        self.towers = towers
        self.name, self.space = f"{towers.space}/audio", towers.space
        self.extractor = AutoFeatureExtractor.from_pretrained(folder, local_files_only=True)
        self.dim = len(self._batch([np.zeros(1, dtype=np.float32)])[0])

    def encode(self, signals: Sequence[Signal]) -> Array:
        """Codes of sounds (any rate and channels), float32 ``(n, dim)``, rows of unit norm."""
        rows = [self._code(mono(signal, self.extractor.sampling_rate)) for signal in signals]
        return unit(np.asarray(rows, dtype=np.float32).reshape(len(rows), self.dim))

    def _code(self, wave: Array) -> Array:
        width = self.extractor.nb_max_samples
        wave = np.pad(wave, (0, max(0, 1 - len(wave))))
        count = -(-len(wave) // width)
        starts = np.linspace(0, max(0, len(wave) - width), count).astype(int)
        windows = [wave[start : start + width] for start in starts]
        mean: Array = _in_batches(self._batch, windows, self.dim).mean(axis=0)
        return mean

    def _batch(self, waves: Sequence[Array]) -> Array:
        inputs = self.extractor(list(waves), sampling_rate=self.extractor.sampling_rate, return_tensors="pt")
        inputs["is_longer"] = torch.zeros_like(inputs["is_longer"])
        return self.towers.codes("get_audio_features", inputs)


def _in_batches(encode: Callable[[Sequence[Item]], Array], items: Sequence[Item], dim: int) -> Array:
    """Unit codes of all items, ``BATCH`` at a time."""
    rows = [encode(items[i : i + BATCH]) for i in range(0, len(items), BATCH)]
    return unit(np.concatenate(rows) if rows else np.zeros((0, dim), dtype=np.float32))
