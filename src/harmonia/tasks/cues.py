"""Cues from what a user hands over: words, files, signals, with weights and signs."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path

import numpy as np

from harmonia.encoders.base import unit
from harmonia.modalities import LIMITS, MODALITIES, Limits
from harmonia.model import Model
from harmonia.types import Code, Cue, HarmoniaError, Signal

# A cue longer than this many windows is as good as its beginning.
CUE_WINDOWS = 12

Media = str | Path | bytes | Signal | Sequence["str | Path | bytes | Signal"]


@dataclass(frozen=True, slots=True)
class _Given:
    """One thing the user gave: its name in tables, its modality, the value, and how far it counts."""

    name: str
    modality: str
    value: str | Path | bytes | Signal
    weight: float = 1.0
    trust: float = float("inf")


@dataclass(frozen=True, slots=True, eq=False)
class Query:
    """What one recall is asked by: values by modality, words against, weights by cue's name, trust."""

    given: Mapping[str, Media | None]
    against: Sequence[str] = ()
    weights: Mapping[str, float] = field(default_factory=dict)
    trust: float = float("inf")


def read_cues(
    model: Model,
    given: Mapping[str, Media | None],
    against: Sequence[str],
    weights: Mapping[str, float],
    trust: float,
    limits: Limits = LIMITS,
) -> list[Cue]:
    """Decode and encode cues. ``given`` maps a modality to one or several values.

    A video brings its sound as a cue of its own. HarmoniaError for a weight that names no cue, a file
    that cannot be read, or no cue at all.
    """
    cues = read_queries(model, [Query(given, against, weights, trust)], limits)[0]
    if isinstance(cues, HarmoniaError):
        raise cues
    return cues


def read_queries(
    model: Model, queries: Sequence[Query], limits: Limits = LIMITS
) -> list[list[Cue] | HarmoniaError]:
    """The cues of several queries, encoded together; in place of those that cannot be read, why."""
    read: list[list[_Heard] | HarmoniaError] = []
    for query in queries:
        try:
            read.append([heard for thing in _checked(query) for heard in _hear(thing, limits)])
        except HarmoniaError as error:
            read.append(error)
    windows = [w for heard in read if not isinstance(heard, HarmoniaError) for h in heard for w in h.windows]
    codes = iter(model.encode(windows))
    found: list[list[Cue] | HarmoniaError] = []
    for heard in read:
        if isinstance(heard, HarmoniaError):
            found.append(heard)
            continue
        found.append([cue for h in heard for cue in _cues(h, list(islice(codes, len(h.windows))))])
    return found


@dataclass(frozen=True, slots=True, eq=False)
class _Heard:
    """One thing the user gave, decoded; the sound of a film is a thing of its own."""

    name: str
    thing: _Given
    windows: Sequence[Signal]


def _checked(query: Query) -> list[_Given]:
    things = list(_things(query.given, query.against, query.weights, query.trust))
    if not things:
        raise HarmoniaError("nothing to recall by: give some words, or --image, --audio or --video")
    unknown = set(query.weights) - {t.name for t in things} - {t.modality for t in things}
    if unknown:
        names = ", ".join(t.name for t in things)
        raise HarmoniaError(f"no cue is called {sorted(unknown)[0]!r}: the cues are {names}")
    return things


def _things(
    given: Mapping[str, Media | None], against: Sequence[str], weights: Mapping[str, float], trust: float
) -> Iterator[_Given]:
    for modality, values in given.items():
        if values is None:
            continue
        several = [values] if isinstance(values, str | Path | bytes | Signal) else list(values)
        for number, value in enumerate(several, 1):
            name = modality if len(several) == 1 else f"{modality} {number}"
            weight = weights.get(name, weights.get(modality, 1.0))
            yield _Given(name, modality, value, weight, trust)
    for words in against:
        yield _Given(f"not {words}", "text", words, -weights.get("not", 1.0))


def _hear(thing: _Given, limits: Limits) -> Iterator[_Heard]:
    windows = _windows(thing, limits)
    yield _Heard(thing.name, thing, windows)
    sounds = [w.sound for w in windows if w.sound is not None]
    if sounds:
        yield _Heard(f"{thing.name} sound", thing, sounds)


def _windows(thing: _Given, limits: Limits) -> list[Signal]:
    value = thing.value
    if isinstance(value, Signal):
        return [value]
    if thing.modality == "text" and isinstance(value, str):
        if not value.strip():
            raise HarmoniaError("the words to recall by are empty: say what you look for")
        return [Signal("text", value)]
    return list(islice(MODALITIES[thing.modality].windows(value, limits=limits), CUE_WINDOWS))


def _cues(heard: _Heard, windows: Sequence[Sequence[Code]]) -> Iterator[Cue]:
    """One cue per space: the mean of the windows' codes."""
    by_space: dict[str, list[Code]] = {}
    for codes in windows:
        for code in codes:
            by_space.setdefault(code.space, []).append(code)
    for space, codes in by_space.items():
        mean = unit(np.mean([code.vector for code in codes], axis=0)[None])[0]
        yield Cue(heard.name, Code(codes[0].modality, mean, space), heard.thing.weight, heard.thing.trust)
