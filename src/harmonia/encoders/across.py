"""An encoder that bridges modalities and leaves each of them to others."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from harmonia.encoders.base import Encoder
from harmonia.types import Signal


class Across:
    """Another encoder, whose codes are only compared with codes of other modalities.

    It stands beside encoders that are better within a modality but know no other: words find a picture
    by it, where a picture finds itself by its descriptor.
    """

    def __init__(self, encoder: Encoder) -> None:
        self.encoder = encoder
        self.name, self.modality = encoder.name, encoder.modality
        self.space, self.dim = encoder.space, encoder.dim

    def encode(self, signals: Sequence[Signal]) -> NDArray[np.float32]:
        """The codes of the other encoder."""
        return self.encoder.encode(signals)
