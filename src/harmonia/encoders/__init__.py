"""Encoders (Signal -> Code): hand-made descriptors, trainable towers, alignment, and the shipped model."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from harmonia.encoders.base import Bridge, Encoder, unit

if TYPE_CHECKING:
    from harmonia.encoders.descriptors.audio import AudioDescriptor
    from harmonia.encoders.descriptors.image import ImageDescriptor
    from harmonia.encoders.descriptors.text import TextDescriptor
    from harmonia.encoders.descriptors.video import VideoDescriptor

__all__ = [
    "MINI",
    "AudioDescriptor",
    "Bridge",
    "Encoder",
    "ImageDescriptor",
    "TextDescriptor",
    "VideoDescriptor",
    "unit",
]

MINI = Path(__file__).parent / "mini"
"""The folder of the shipped model."""


def __getattr__(name: str) -> Any:
    # Each descriptor is imported when it is used: those of media need the decoders.
    if name in __all__ and name.endswith("Descriptor"):
        from harmonia.imports import lazy

        modality = name.removesuffix("Descriptor")
        return lazy(f"harmonia.encoders.descriptors.{modality.lower()}:{name}")
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
