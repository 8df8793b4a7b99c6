"""Text models of sentence-transformers (Reimers and Gurevych 2019)."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from sentence_transformers import SentenceTransformer

from harmonia.encoders.base import unit
from harmonia.types import Signal

BATCH = 32


class SentenceText:
    """A sentence embedding model. Texts longer than its context are truncated."""

    modality = "text"

    def __init__(self, folder: Path, space: str, device: torch.device) -> None:
        self.name, self.space = f"{space}/text", space
        self.model = SentenceTransformer(
            str(folder),
            device=str(device),
            local_files_only=True,
            model_kwargs={"use_safetensors": True, "dtype": torch.float32},
        )
        self.dim = self.encode_texts(["a"]).shape[1]

    def encode(self, signals: Sequence[Signal]) -> NDArray[np.float32]:
        """Codes of texts, float32 ``(n, dim)``, rows of unit norm."""
        if not signals:
            return np.zeros((0, self.dim), dtype=np.float32)
        return unit(self.encode_texts([signal.text for signal in signals]))

    def encode_texts(self, texts: list[str]) -> NDArray[np.float32]:
        """The model's own embeddings, ``(n, dim)``."""
        codes: NDArray[np.float32] = self.model.encode(
            texts, batch_size=BATCH, show_progress_bar=False, convert_to_numpy=True
        )
        return codes
