"""The encoder protocol (Signal -> Code), and a wrapper for encoders that only compare modalities."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from harmonia.types import Signal


class Encoder(Protocol):
    """Maps signals of one modality to unit vectors in one space.

    ``name`` identifies the encoder and its settings: a store records it and refuses codes of another encoder.
    Codes can be compared if their ``space`` is the same. ``dim`` is the width of a code.
    """

    name: str
    modality: str
    space: str
    dim: int

    def encode(self, signals: Sequence[Signal]) -> NDArray[np.float32]:
        """Codes of a batch, float32 ``(n, dim)``, every row of unit norm and finite."""
        ...


class Bridge:
    """An encoder whose codes are only compared with codes of other modalities.

    It complements encoders that are better within a modality but cannot compare modalities: for example, a
    text retrieves images by it, while an image retrieves images by its descriptor.
    """

    def __init__(self, encoder: Encoder) -> None:
        self.encoder = encoder
        self.name, self.modality = encoder.name, encoder.modality
        self.space, self.dim = encoder.space, encoder.dim

    def encode(self, signals: Sequence[Signal]) -> NDArray[np.float32]:
        """The codes of the wrapped encoder."""
        return self.encoder.encode(signals)


def unit(rows: NDArray[np.floating[Any]]) -> NDArray[np.float32]:
    """Rows scaled to unit norm, float32. A row of zeros (silence, blank) becomes the first axis."""
    out: NDArray[np.float32] = np.nan_to_num(np.asarray(rows, dtype=np.float32), posinf=0.0, neginf=0.0)
    norm = np.linalg.norm(out, axis=-1, keepdims=True)
    blank = norm[..., 0] < 1e-12
    out = out / np.maximum(norm, 1e-12)
    out[blank] = 0.0
    out[blank, 0] = 1.0
    return out


def scaled(block: NDArray[np.floating[Any]]) -> NDArray[np.float32]:
    """One block of a descriptor, flattened and scaled to a norm close to 1; a block near zero stays so."""
    flat = np.asarray(block, dtype=np.float32).ravel()
    out: NDArray[np.float32] = flat / (np.linalg.norm(flat) + np.float32(1e-3))
    return out
