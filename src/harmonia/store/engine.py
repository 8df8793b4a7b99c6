"""Stores by their address: a folder is one of LanceDB; other engines would be chosen here by their scheme."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from harmonia.store.lance.store import LanceStore
from harmonia.store.protocol import EncoderInfo, Store


def open(url: str | Path) -> Store:
    """Open a store; HarmoniaError if there is none, or none that this version can read."""
    return LanceStore.open(url)


def create(url: str | Path, encoders: Sequence[EncoderInfo], *, exist_ok: bool = False) -> Store:
    """Make an empty store for codes of these encoders.

    With ``exist_ok`` a store that is already there is opened, if its encoders are the same.
    """
    return LanceStore.create(url, encoders, exist_ok=exist_ok)


def exists(url: str | Path) -> bool:
    """Whether a store, of whatever version, was made there."""
    return LanceStore.exists(url)
