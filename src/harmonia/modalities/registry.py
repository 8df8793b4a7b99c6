"""The modalities by name, and the modality of a file by its suffix."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Protocol

from PIL.Image import Image

from harmonia.modalities import audio, image, text, video
from harmonia.modalities.limits import LIMITS, Limits, Source
from harmonia.types import Signal


class Modality(Protocol):
    """What the module of a modality offers; ``read`` and ``windows`` take more options by name."""

    SUFFIXES: tuple[str, ...]

    def read(self, source: Source, *, limits: Limits = LIMITS) -> Signal:
        """The whole piece."""

    def windows(self, source: Source, *, limits: Limits = LIMITS) -> Iterator[Signal]:
        """Pieces fit for an encoder, decoded as they are taken."""

    def write(self, signal: Signal, path: str | Path) -> None:
        """Write a file in the format that the suffix names; all of it or nothing."""

    def preview(self, signal: Signal, size: int = 256) -> Image:
        """A small image that shows a person what the signal holds."""


MODALITIES: dict[str, Modality] = {"text": text, "image": image, "audio": audio, "video": video}
"""To add a modality: write its module, and add its line here."""

_BY_SUFFIX = {suffix: name for name, module in MODALITIES.items() for suffix in module.SUFFIXES}


def modality_of(path: str | Path) -> str | None:
    """The modality that a file's suffix names, in either case, or None."""
    return _BY_SUFFIX.get(Path(path).suffix.lower())
