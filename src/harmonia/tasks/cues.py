"""Cues from what a user hands over: words, files, signals, with weights and signs."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

import numpy as np

from harmonia.encoders.base import unit
from harmonia.modalities import MODALITIES
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


def read_cues(
    model: Model,
    given: Mapping[str, Media | None],
    against: Sequence[str],
    weights: Mapping[str, float],
    trust: float,
) -> list[Cue]:
    """Decode and encode cues. ``given`` maps a modality to one or several values.

    A video brings its sound as a cue of its own. HarmoniaError for a weight that names no cue, a file
    that cannot be read, or no cue at all.
    """
    things = list(_things(given, against, weights, trust))
    if not things:
        raise HarmoniaError("nothing to recall by: give some words, or --image, --audio or --video")
    unknown = set(weights) - {t.name for t in things} - {t.modality for t in things}
    if unknown:
        names = ", ".join(t.name for t in things)
        raise HarmoniaError(f"no cue is called {sorted(unknown)[0]!r}: the cues are {names}")
    return [cue for thing in things for cue in _encode(model, thing)]


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


def _encode(model: Model, thing: _Given) -> Iterator[Cue]:
    windows = _windows(thing)
    yield from _cues(model, thing, thing.name, windows)
    sounds = [w.sound for w in windows if w.sound is not None]
    if sounds:
        yield from _cues(model, thing, f"{thing.name} sound", sounds)


def _windows(thing: _Given) -> list[Signal]:
    value = thing.value
    if isinstance(value, Signal):
        return [value]
    if thing.modality == "text" and isinstance(value, str):
        if not value.strip():
            raise HarmoniaError("the words to recall by are empty: say what you look for")
        return [Signal("text", value)]
    return list(islice(MODALITIES[thing.modality].windows(value), CUE_WINDOWS))


def _cues(model: Model, thing: _Given, name: str, windows: Sequence[Signal]) -> Iterator[Cue]:
    """One cue per space: the mean of the windows' codes."""
    by_space: dict[str, list[Code]] = {}
    for codes in model.encode(windows):
        for code in codes:
            by_space.setdefault(code.space, []).append(code)
    for space, codes in by_space.items():
        mean = unit(np.mean([code.vector for code in codes], axis=0)[None])[0]
        yield Cue(name, Code(codes[0].modality, mean, space), thing.weight, thing.trust)
