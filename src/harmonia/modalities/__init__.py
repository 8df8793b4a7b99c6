"""File <-> Signal, one module for every modality.

Each module has ``SUFFIXES``, ``read`` (the whole piece), ``windows`` (pieces fit for an encoder,
decoded as they are taken), ``write`` (atomic) and ``preview`` (an image of the signal).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from harmonia.modalities.limits import LIMITS, Limits, Source, sniff

if TYPE_CHECKING:
    from harmonia.modalities.registry import MODALITIES, Modality, modality_of

__all__ = ["LIMITS", "MODALITIES", "Limits", "Modality", "Source", "modality_of", "sniff"]


def __getattr__(name: str) -> Any:
    # Decoders of audio and video take a quarter of a second to load, and a recall by words needs none.
    if name in ("MODALITIES", "Modality", "modality_of"):
        from harmonia.modalities import registry

        return getattr(registry, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
