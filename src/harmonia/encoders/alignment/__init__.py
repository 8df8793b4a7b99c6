"""Towers that learn one space, by comparing modalities in pairs or as one harmonic network."""

from harmonia.encoders.alignment.harmonic_network import Harmonic
from harmonia.encoders.alignment.model import Alignment, AlignmentConfig

__all__ = ["Alignment", "AlignmentConfig", "Harmonic"]
