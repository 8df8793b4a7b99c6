"""Towers that learn one space, by comparing modalities in pairs or as one harmonic network."""

from harmonia.alignment.harmonic import Harmonic
from harmonia.alignment.model import Alignment, AlignmentConfig

__all__ = ["Alignment", "AlignmentConfig", "Harmonic"]
