"""Queries: what a user hands over (words, files, signals, codes), decoded, then encoded once as cues."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import islice
from pathlib import Path

import numpy as np

from harmonia.collection.encoder_set import EncoderSet
from harmonia.encoders.base import unit
from harmonia.modalities import LIMITS, Limits
from harmonia.store.protocol import Where
from harmonia.types import Code, Cue, HarmoniaError, Signal

# A cue longer than this many windows is as good as its beginning.
CUE_WINDOWS = 12

Medium = str | Path | bytes | Signal
Media = Medium | Sequence[Medium]
"""One or several values of one modality."""


@dataclass(frozen=True, slots=True, eq=False)
class QueryItem:
    """One thing that is given as a cue: its name in tables, its modality, its value, and how far it counts.

    ``value`` is words, a path, bytes or a signal; once decoded (:func:`decode`) a tuple of signals, the
    windows of a long file; or the codes that a stored record has already. ``weight`` and ``trust`` are those
    of :class:`harmonia.types.Cue`. ``words`` are those of a text, once decoded.
    """

    name: str
    modality: str
    value: Medium | tuple[Signal, ...] | tuple[Code, ...]
    weight: float = 1.0
    trust: float = float("inf")
    words: str = ""


Query = Sequence[QueryItem]
"""What one recall is asked by."""


@dataclass(frozen=True, slots=True)
class RecallOptions:
    """Options of one recall; see :meth:`harmonia.memory.HarmonicMemory.recall`.

    * ``k``: how many records come back
    * ``where``: condition on the metadata
    * ``steps``: most retrieval steps
    * ``alpha``: distribution over the records: 1 softmax, above 1 sparse (alpha-entmax)
    * ``beta``: inverse temperature, in units of chance; None: from the number of records
    * ``noise``: expected noise of the cues' codes, variance per number; gives beta where that is None
    """

    k: int = 10
    where: Where | None = None
    steps: int = 8
    alpha: float = 1.0
    beta: float | None = None
    noise: float | None = None

    def __post_init__(self) -> None:
        if self.k < 1:
            raise HarmoniaError(f"the number of records must be at least 1 (got {self.k})")
        if self.steps < 0:
            raise HarmoniaError(f"the number of steps must not be negative (got {self.steps})")
        if not 1 <= self.alpha < math.inf:
            raise HarmoniaError(f"alpha must be a number of at least 1 (got {self.alpha})")
        if self.beta is not None and not 0 < self.beta < math.inf:
            raise HarmoniaError(f"beta must be a number above 0 (got {self.beta})")
        if self.noise is not None and not 0 <= self.noise < math.inf:
            raise HarmoniaError(f"noise must be a variance of at least 0 (got {self.noise})")


def make_query(
    given: Mapping[str, Media | None],
    against: Sequence[str] = (),
    weights: Mapping[str, float] | None = None,
    trust: float = float("inf"),
) -> list[QueryItem]:
    """The query of values by modality and of words that count against a record.

    Several values of a modality are named ``image 1``, ``image 2``; ``weights`` maps such a name, a modality
    or ``not`` to how far it counts. HarmoniaError for no cue at all, or a weight that names none.
    """
    items = list(_items(given, against, weights or {}, trust))
    return weighted(items, weights or {})


def weighted(items: Sequence[QueryItem], weights: Mapping[str, float]) -> list[QueryItem]:
    """The items, checked: there is one, and every weight names one."""
    if not items:
        raise HarmoniaError("nothing to recall by: give some words, or --image, --audio or --video")
    for item in items:
        if not math.isfinite(item.weight) or not item.trust >= 0:
            raise HarmoniaError(f"the cue {item.name!r} needs a finite weight, and a trust of at least 0")
    known = {item.name for item in items} | {item.modality for item in items}
    if any(item.weight < 0 for item in items):
        known.add("not")
    if unknown := sorted(set(weights) - known):
        names = ", ".join(item.name for item in items)
        raise HarmoniaError(f"no cue is called {unknown[0]!r}: the cues are {names}")
    return list(items)


def _items(
    given: Mapping[str, Media | None], against: Sequence[str], weights: Mapping[str, float], trust: float
) -> Iterator[QueryItem]:
    for modality, values in given.items():
        if values is None:
            continue
        several = [values] if isinstance(values, str | Path | bytes | Signal) else list(values)
        for number, value in enumerate(several, 1):
            name = modality if len(several) == 1 else f"{modality} {number}"
            yield QueryItem(name, modality, value, weights.get(name, weights.get(modality, 1.0)), trust)
    for words in against:
        yield QueryItem(f"not {words}", "text", words, -weights.get("not", 1.0))


def decode(query: Query, limits: Limits = LIMITS) -> list[QueryItem]:
    """Read what a query gives into signals, without any encoder.

    The sound of a video becomes an item of its own. HarmoniaError for a value that cannot be read.
    """
    return [decoded for item in weighted(query, {}) for decoded in _decode(item, limits)]


def _decode(item: QueryItem, limits: Limits) -> Iterator[QueryItem]:
    if isinstance(item.value, tuple):
        yield item
        return
    windows = _windows(item.modality, item.value, limits)
    words = " ".join(str(window.data) for window in windows) if item.modality == "text" else ""
    yield replace(item, value=windows, words=words)
    sounds = tuple(window.sound for window in windows if window.sound is not None)
    if sounds:
        yield replace(item, name=f"{item.name} sound", modality="audio", value=sounds)


def _windows(modality: str, value: Medium, limits: Limits) -> tuple[Signal, ...]:
    if isinstance(value, Signal):
        return (value,)
    if modality == "text" and isinstance(value, str):
        if not value.strip():
            raise HarmoniaError("the words to recall by are empty: say what you look for")
        return (Signal("text", value),)
    from harmonia.modalities import MODALITIES

    return tuple(islice(MODALITIES[modality].windows(value, limits=limits), CUE_WINDOWS))


def encode(encoders: EncoderSet, queries: Sequence[Query]) -> list[list[Cue]]:
    """The cues of several decoded queries, encoded together: one cue for each item and space.

    The code of a long item is the mean of its windows' codes.
    """
    signals = [s for query in queries for item in query for s in item.value if isinstance(s, Signal)]  # type: ignore[union-attr]
    codes = iter(encoders.encode(signals, asking=True))
    return [[cue for item in query for cue in _cues(item, codes)] for query in queries]


def _cues(item: QueryItem, encoded: Iterator[Sequence[Code]]) -> Iterator[Cue]:
    by_space: dict[str, list[Code]] = {}
    assert isinstance(item.value, tuple), "decode a query before it is encoded"
    for value in item.value:
        for code in [value] if isinstance(value, Code) else next(encoded):
            by_space.setdefault(code.space, []).append(code)
    for space, codes in by_space.items():
        mean = unit(np.mean([code.vector for code in codes], axis=0)[None])[0]
        yield Cue(item.name, Code(codes[0].modality, mean, space), item.weight, item.trust)


def encoded(query: Query, cues: Sequence[Cue]) -> list[QueryItem]:
    """A query that need not be encoded again: an item for each of the cues that it was encoded as."""
    words = {item.name: item.words for item in query}
    return [
        QueryItem(cue.name, cue.code.modality, (cue.code,), cue.weight, cue.trust, words.get(cue.name, ""))
        for cue in cues
    ]
