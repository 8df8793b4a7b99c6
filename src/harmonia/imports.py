"""Objects that are imported when they are first needed, each named by its address ``module:name``."""

from __future__ import annotations

from collections.abc import Mapping
from importlib import import_module
from typing import Any

from harmonia.types import HarmoniaError


def lazy(address: str) -> Any:
    """Import the object at ``address``, such as ``"harmonia.recipes.encoders.bind:bind"``."""
    module, _, name = address.partition(":")
    return getattr(import_module(module), name)


def lazy_entry(registry: Mapping[str, str], name: str, kind: str) -> Any:
    """Import an entry of a registry, which maps names to addresses.

    ``kind`` says in messages what the entries are: a HarmoniaError lists the names if ``name`` is not one.
    """
    if name not in registry:
        raise HarmoniaError(f"there is no {kind} {name!r}: name one of {', '.join(registry)}")
    return lazy(registry[name])
