"""Feature extractors for the comparison of images, each with a name to quote beside every figure.

A distance between generated and real images means nothing without the network whose features it was
measured in. ``distance_name`` says "FID" for real Inception-v3 features only.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from harmonia.metrics.scores import row_blocks
from harmonia.types import HarmoniaError, Signal

BATCH = 256
WIDTH, CLASSES = 2048, 1008
"""Of Inception-v3 in the TensorFlow weights of 2015 that FID is defined by."""


class Features(Protocol):
    """A network to compare images in."""

    @property
    def name(self) -> str:
        """What the features are called, always quoted with a figure."""
        ...

    def features(self, x: Tensor) -> Tensor:
        """Float (n, d) of images (n, c, h, w), uint8 or float in [-1, 1]."""
        ...


@runtime_checkable
class Classifies(Protocol):
    """Features with class probabilities."""

    def probabilities(self, x: Tensor) -> Tensor:
        """Float (n, classes), rows that sum to 1, of images (n, c, h, w), uint8 or float in [-1, 1]."""
        ...


def bytes_of(x: Tensor) -> Tensor:
    """Images as uint8: those in [-1, 1] are rounded, as a file would; HarmoniaError for another form."""
    if x.dim() != 4 or not (x.dtype == torch.uint8 or x.is_floating_point()):
        raise HarmoniaError(
            f"images are (n, c, h, w), uint8 or float in [-1, 1], not {x.dtype} of shape {tuple(x.shape)}"
        )
    return x if x.dtype == torch.uint8 else ((x.clamp(-1, 1) + 1) * 127.5).round().to(torch.uint8)


def in_batches(function: Callable[[Tensor], Tensor], x: Tensor, batch: int = BATCH) -> Tensor:
    """``function`` of images x (n, c, h, w), ``batch`` at a time, without gradients."""
    with torch.no_grad():
        return torch.cat([function(x[rows]) for rows in row_blocks(len(x), batch)])


def distance_name(features: Features) -> str:
    """FID in Inception-v3's features, in all others FD with the name of the features."""
    return "FID" if isinstance(features, Inception) else f"FD ({features.name})"


@dataclass(frozen=True, slots=True, eq=False)
class Function:
    """Features that a function gives, under a name: pixels, a layer of any network."""

    name: str
    function: Callable[[Tensor], Tensor]

    def features(self, x: Tensor) -> Tensor:
        """What the function says of images, flattened to (n, d)."""
        return in_batches(self.function, x).flatten(1)


class Reader(Protocol):
    """The part of an encoder that is needed here."""

    name: str

    def encode(self, signals: Sequence[Signal]) -> Any:
        """Codes (n, d) of signals."""
        ...


@dataclass(frozen=True, slots=True, eq=False)
class Codes:
    """An image encoder's codes as features: CLIP (Kynkaanniemi et al. 2023), or one of the project's own.

    ``reader`` is the text encoder of the same space, if there is one: words then have codes to match images
    with. Example: ``Codes(harmonia.load_encoders(("FOLDER",))[1])``.
    """

    encoder: Reader
    reader: Reader | None = None

    @property
    def name(self) -> str:
        """That of the image encoder."""
        return self.encoder.name

    def words(self, texts: Sequence[str]) -> Tensor:
        """The code of each text, (n, d); HarmoniaError without a ``reader``."""
        if self.reader is None:
            raise HarmoniaError(f"{self.name} stands alone: name a model that reads words, too")
        signals = [Signal("text", text) for text in texts]
        parts = [self.reader.encode(signals[rows]) for rows in row_blocks(len(signals), BATCH)]
        return torch.from_numpy(np.concatenate(parts))

    def features(self, x: Tensor) -> Tensor:
        """The code of each image; grey ones are shown as RGB."""
        pixels = bytes_of(x).expand(-1, 3, -1, -1).permute(0, 2, 3, 1).contiguous().numpy()
        codes = [
            self.encoder.encode([Signal("image", one) for one in pixels[i : i + BATCH]])
            for i in range(0, len(pixels), BATCH)
        ]
        return torch.from_numpy(np.concatenate(codes))


class Inception:
    """Inception-v3 from the TorchScript file that public FID code uses (inception-2015-12-05.pt).

    The file holds the TensorFlow weights, enlarges images to 299x299 itself, and takes uint8. A network of
    another training gives figures that cannot be compared with published ones, so it is refused by its form:
    features of width 2048, probabilities of 1008 classes. TorchScript is code: use a file that you trust.

    Raises:
        HarmoniaError: there is no such file, or it is of another form.
    """

    name = "Inception-v3"

    def __init__(self, file: str | Path, device: str | torch.device = "cpu") -> None:
        self.device = torch.device(device)
        wrong = HarmoniaError(
            f"{file} is no TorchScript Inception-v3: give the file inception-2015-12-05.pt of the FID code"
        )
        if not Path(file).is_file():
            raise wrong
        try:
            self.network: Any = torch.jit.load(str(file), map_location=self.device).eval()  # type: ignore[no-untyped-call]
            blank = torch.zeros(1, 3, 32, 32, dtype=torch.uint8)
            shapes = tuple(self.features(blank).shape), tuple(self.probabilities(blank).shape)
        except (RuntimeError, TypeError) as error:
            raise wrong from error
        if shapes != ((1, WIDTH), (1, CLASSES)):
            raise wrong

    def features(self, x: Tensor) -> Tensor:
        """The last pooling layer, (n, 2048)."""
        return in_batches(lambda part: self.network(self._rgb(part), return_features=True).cpu(), x, 64)

    def probabilities(self, x: Tensor) -> Tensor:
        """Of the 1008 outputs, without the output's bias as in the Inception Score of the 2016 paper."""
        return in_batches(
            lambda part: F.normalize(self.network(self._rgb(part), no_output_bias=True).cpu(), p=1, dim=1),
            x,
            64,
        )

    def _rgb(self, x: Tensor) -> Tensor:
        return bytes_of(x).expand(-1, 3, -1, -1).to(self.device)
