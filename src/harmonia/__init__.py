"""Harmonia: a memory that sees, hears and reads.

import harmonia
memory = harmonia.open("my-memory")
memory.remember("photos/")
found = memory.recall(text="waves", image="sketch.png", k=5)
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from pathlib import Path

    from harmonia.collection.collection import Collection
    from harmonia.encoders import Encoder
    from harmonia.types import Code, Cue, HarmoniaError, Recollection, Record, Signal

__version__ = "0.1.0"
"""The one place of the version: the wheel, `harmonia --version` and the server read it here."""

__all__ = ["Code", "Cue", "HarmoniaError", "Recollection", "Record", "Signal", "load_encoders", "open"]


def open(root: str | Path, models: Sequence[str] | None = None, device: str = "auto") -> Collection:
    """Open the memory in a folder; the first ``remember`` makes it.

    ``models`` chooses the encoders of a new memory: "descriptors" and "mini" (the default, no network),
    or names or folders of pretrained models (CLIP, SigLIP, CLAP, sentence-transformers).
    """
    from harmonia.collection.collection import Collection

    return Collection(root, models, device)


def load_encoders(models: Sequence[str] = ("descriptors",), device: str = "auto") -> tuple[Encoder, ...]:
    """Encoders by name or folder (see :func:`harmonia.pretrained.loading.load_encoders`)."""
    from harmonia.pretrained.loading import load_encoders

    return load_encoders(models, device)


def __getattr__(name: str) -> Any:
    # Resolved on first use, so that `harmonia --help` loads neither NumPy nor torch.
    if name in __all__:
        from harmonia import types

        return getattr(types, name)
    raise AttributeError(f"module 'harmonia' has no attribute {name!r}")
