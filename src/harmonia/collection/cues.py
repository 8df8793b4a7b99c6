"""Cues from what a user hands over: words, files, signals, with weights and signs."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path

import numpy as np

from harmonia.collection.encoder_set import EncoderSet
from harmonia.encoders.base import unit
from harmonia.modalities import LIMITS, MODALITIES, Limits
from harmonia.types import Code, Cue, HarmoniaError, Signal

# A cue longer than this many windows is as good as its beginning.
CUE_WINDOWS = 12

Media = str | Path | bytes | Signal | Sequence["str | Path | bytes | Signal"]


@dataclass(frozen=True, slots=True, eq=False)
class Thing:
    """One thing the user gave: its name in tables, its modality, the value, and how far it counts.

    ``weight`` and ``trust`` are those of :class:`harmonia.types.Cue`. Codes are what a record has already.
    """

    name: str
    modality: str
    value: str | Path | bytes | Signal | tuple[Code, ...]
    weight: float = 1.0
    trust: float = float("inf")


@dataclass(frozen=True, slots=True, eq=False)
class Query:
    """What one recall is asked by: values by modality, words against, weights by cue's name, trust.

    ``things`` are given besides, each with a name, a weight and a trust of its own.
    """

    given: Mapping[str, Media | None]
    against: Sequence[str] = ()
    weights: Mapping[str, float] = field(default_factory=dict)
    trust: float = float("inf")
    things: Sequence[Thing] = ()


def read_cues(
    model: EncoderSet,
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
    model: EncoderSet, queries: Sequence[Query], limits: Limits = LIMITS
) -> list[list[Cue] | HarmoniaError]:
    """The cues of several queries, encoded together; in place of those that cannot be read, why."""
    heard: list[list[Heard] | HarmoniaError] = []
    for query in queries:
        try:
            heard.append(hear(query, limits))
        except HarmoniaError as error:
            heard.append(error)
    cues = iter(encode_heard(model, [one for one in heard if not isinstance(one, HarmoniaError)]))
    return [one if isinstance(one, HarmoniaError) else next(cues) for one in heard]


def hear(query: Query, limits: Limits = LIMITS) -> list[Heard]:
    """Decode what a query gives, without any model; fails as ``read_cues``."""
    return [heard for thing in _checked(query) for heard in _hear(thing, limits)]


def encode_heard(model: EncoderSet, queries: Sequence[Sequence[Heard]]) -> list[list[Cue]]:
    """The cues of what several queries gave, encoded together."""
    windows = [window for heard in queries for one in heard for window in one.windows]
    codes = iter(model.encode(windows))
    return [
        [cue for one in heard for cue in _cues(one, [one.codes, *islice(codes, len(one.windows))])]
        for heard in queries
    ]


@dataclass(frozen=True, slots=True, eq=False)
class Heard:
    """One thing the user gave, decoded; the sound of a film is a thing of its own."""

    name: str
    thing: Thing
    windows: Sequence[Signal]
    codes: Sequence[Code] = ()


def _checked(query: Query) -> list[Thing]:
    things = [*_things(query.given, query.against, query.weights, query.trust), *query.things]
    if not things:
        raise HarmoniaError("nothing to recall by: give some words, or --image, --audio or --video")
    unknown = set(query.weights) - {t.name for t in things} - {t.modality for t in things}
    if unknown:
        names = ", ".join(t.name for t in things)
        raise HarmoniaError(f"no cue is called {sorted(unknown)[0]!r}: the cues are {names}")
    return things


def _things(
    given: Mapping[str, Media | None], against: Sequence[str], weights: Mapping[str, float], trust: float
) -> Iterator[Thing]:
    for modality, values in given.items():
        if values is None:
            continue
        several = [values] if isinstance(values, str | Path | bytes | Signal) else list(values)
        for number, value in enumerate(several, 1):
            name = modality if len(several) == 1 else f"{modality} {number}"
            weight = weights.get(name, weights.get(modality, 1.0))
            yield Thing(name, modality, value, weight, trust)
    for words in against:
        yield Thing(f"not {words}", "text", words, -weights.get("not", 1.0))


def _hear(thing: Thing, limits: Limits) -> Iterator[Heard]:
    if isinstance(thing.value, tuple):
        yield Heard(thing.name, thing, (), thing.value)
        return
    windows = _windows(thing, thing.value, limits)
    yield Heard(thing.name, thing, windows)
    sounds = [w.sound for w in windows if w.sound is not None]
    if sounds:
        yield Heard(f"{thing.name} sound", thing, sounds)


def _windows(thing: Thing, value: str | Path | bytes | Signal, limits: Limits) -> list[Signal]:
    if isinstance(value, Signal):
        return [value]
    if thing.modality == "text" and isinstance(value, str):
        if not value.strip():
            raise HarmoniaError("the words to recall by are empty: say what you look for")
        return [Signal("text", value)]
    return list(islice(MODALITIES[thing.modality].windows(value, limits=limits), CUE_WINDOWS))


def _cues(heard: Heard, windows: Sequence[Sequence[Code]]) -> Iterator[Cue]:
    """One cue per space: the mean of the windows' codes."""
    by_space: dict[str, list[Code]] = {}
    for codes in windows:
        for code in codes:
            by_space.setdefault(code.space, []).append(code)
    for space, codes in by_space.items():
        mean = unit(np.mean([code.vector for code in codes], axis=0)[None])[0]
        yield Cue(heard.name, Code(codes[0].modality, mean, space), heard.thing.weight, heard.thing.trust)
