"""What each namespace has on a server beside its records: its own uploaded files and vector stores."""

from __future__ import annotations

import hashlib
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Generic, TypeVar

T = TypeVar("T")

FOLDER = "namespaces"
"""The folder of the namespaces, inside the server's own."""


def folder_of(own: Path, namespace: str | None) -> Path:
    """The folder of a namespace inside the server's own folder, or that folder for none.

    It is named by a digest: some file systems take names that differ only in case for one.
    """
    if namespace is None:
        return own
    return own / FOLDER / hashlib.sha256(namespace.encode()).hexdigest()[:32]


class PerNamespace(Generic[T]):
    """One object for each namespace, and one for what belongs to none; made when first asked for."""

    def __init__(self, make: Callable[[str | None], T]) -> None:
        self._make = make
        self._made: dict[str | None, T] = {}
        self._lock = threading.Lock()

    def of(self, namespace: str | None) -> T:
        """The object of a namespace."""
        with self._lock:
            if namespace not in self._made:
                self._made[namespace] = self._make(namespace)
            return self._made[namespace]
