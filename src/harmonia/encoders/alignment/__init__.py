"""Alignment of towers in a shared space, by contrastive pairs or by a harmonic network."""

from harmonia.encoders.alignment.harmonic_network import Harmonic
from harmonia.encoders.alignment.model import Alignment, AlignmentConfig

__all__ = ["Alignment", "AlignmentConfig", "Harmonic"]
