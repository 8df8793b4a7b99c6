"""Stores by their address: a folder is one of LanceDB; other engines would be chosen here by their scheme.

An engine is imported when a store of it is opened: LanceDB alone takes more than a second.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from harmonia.store.metadata import FILE_NAME, local_folder, read_layout
from harmonia.store.summary import read_summary

if TYPE_CHECKING:
    from harmonia.store.protocol import EncoderInfo, Store


def open(url: str | Path) -> Store:
    """Open a store; HarmoniaError if there is none, or none that this version can read."""
    from harmonia.store.lance.store import LanceStore

    return LanceStore.open(url)


def create(url: str | Path, encoders: Sequence[EncoderInfo], *, exist_ok: bool = False) -> Store:
    """Make an empty store for codes of these encoders.

    With ``exist_ok`` a store that is already there is opened, if its encoders are the same.
    """
    from harmonia.store.lance.store import LanceStore

    return LanceStore.create(url, encoders, exist_ok=exist_ok)


def exists(url: str | Path) -> bool:
    """Whether a store, of whatever version, was made there."""
    return (local_folder(url) / FILE_NAME).is_file()


def status(url: str | Path) -> dict[str, Any]:
    """Counts, sizes in bytes, encoders, columns for filters, and versions; fails as :func:`open`.

    The store is opened only if it has changed since it was last counted.
    """
    root = local_folder(url)
    layout = read_layout(root)
    counts = read_summary(root)
    if counts is None:
        return open(url).status()
    return {**counts, "version": tuple(counts["version"]), "encoders": layout.encoders, "width": layout.width}
