"""Encoders (Signal -> Code): hand-made descriptors, trainable towers, alignment, and the shipped model."""

from __future__ import annotations

from pathlib import Path

from harmonia.encoders.base import Bridge, Encoder, unit
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
