"""Harmonia: a local multimodal memory.

import harmonia
memory = harmonia.open("my-memory")
memory.remember("photos/")
found = memory.recall(text="waves", image="sketch.png", k=5)

docs/reference/package.md has an example of each public name.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from pathlib import Path

    from harmonia.collection.collection import Memory
    from harmonia.collection.cues import RecallOptions
    from harmonia.collection.sentences import Answer
    from harmonia.pretrained.loading import load_encoders
    from harmonia.types import Code, Cue, HarmoniaError, Part, Recollection, Record, Signal

__version__ = "0.1.0"
"""The one place of the version: the wheel, `harmonia --version` and the server read it here."""

NAMES = {
    "Answer": "harmonia.collection.sentences:Answer",
    "Code": "harmonia.types:Code",
    "Cue": "harmonia.types:Cue",
    "HarmoniaError": "harmonia.types:HarmoniaError",
    "Memory": "harmonia.collection.collection:Memory",
    "Part": "harmonia.types:Part",
    "RecallOptions": "harmonia.collection.cues:RecallOptions",
    "Recollection": "harmonia.types:Recollection",
    "Record": "harmonia.types:Record",
    "Signal": "harmonia.types:Signal",
    "load_encoders": "harmonia.pretrained.loading:load_encoders",
}
"""Public names and where they are; each is imported when it is first used."""

__all__ = [
    "Answer",
    "Code",
    "Cue",
    "HarmoniaError",
    "Memory",
    "Part",
    "RecallOptions",
    "Recollection",
    "Record",
    "Signal",
    "load_encoders",
    "open",
]


def open(root: str | Path, models: Sequence[str] | None = None, device: str = "auto") -> Memory:
    """Open the memory in a folder; the first ``remember`` makes it.

    ``models`` chooses the encoders of a new memory: "descriptors" and "mini" (the default, no network),
    or names or folders of pretrained models (CLIP, SigLIP, CLAP, sentence-transformers).
    """
    from harmonia.collection.collection import Memory

    return Memory(root, models, device)


def __getattr__(name: str) -> Any:
    # Resolved on first use, so that `harmonia --help` loads neither NumPy nor torch.
    if name in NAMES:
        from harmonia.imports import lazy

        return lazy(NAMES[name])
    raise AttributeError(f"module 'harmonia' has no attribute {name!r}")
