"""The encoders of a memory: by name, as they were saved beside its store, each loaded when it is needed."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from harmonia.collection.question_words import without_question_words
from harmonia.encoders.base import Bridge, Encoder
from harmonia.pretrained.loading import load_by_model, load_descriptor, load_model
from harmonia.store.atomic import write_atomically
from harmonia.store.protocol import EncoderInfo
from harmonia.types import Code, HarmoniaError, Signal

FILE_NAME = "model.json"
DEFAULT = ("descriptors", "mini")
"""The models of a new memory: what matches within a modality, and what bridges them."""


@dataclass(frozen=True, eq=False)
class EncoderSet:
    """The encoders of a memory. ``models`` maps each model that they were loaded from to its encoders."""

    names: tuple[str, ...]
    models: Mapping[str, tuple[Encoder, ...]]

    @classmethod
    def load(cls, names: Sequence[str] = ("descriptors",), device: str = "auto") -> EncoderSet:
        """Load encoders by name: "descriptors", "mini", a hub name or a local folder."""
        return cls(tuple(names), load_by_model(names, device))

    @classmethod
    def saved(cls, folder: Path, infos: Sequence[EncoderInfo], device: str = "auto") -> EncoderSet:
        """The encoders that the store in a folder was made with, ``infos``; none of them is loaded yet.

        HarmoniaError if their description is damaged. One that is not what it was raises when it is asked.
        """
        names, entries = _read(folder)
        if set(entries) != {info.name for info in infos}:
            # written by an earlier version, which did not note the encoders
            found = cls.load(names, device)
            found.check(infos, folder)
            return found
        models: dict[str, list[Encoder]] = {}
        load = _once(device)
        for info in infos:
            model, bridge = entries[info.name]
            encoder = _deferred(info, model, load)
            models.setdefault(model, []).append(Bridge(encoder) if bridge else encoder)
        return cls(names, {model: tuple(encoders) for model, encoders in models.items()})

    @staticmethod
    def saved_names(folder: Path) -> tuple[str, ...]:
        """The models that the store in a folder was made with, by name."""
        return _read(folder)[0]

    def save(self, folder: Path) -> None:
        """Write what to load beside a store, atomically."""
        encoders = [
            {"name": encoder.name, "model": model, "bridge": isinstance(encoder, Bridge)}
            for model, several in self.models.items()
            for encoder in several
        ]
        text = json.dumps({"models": self.names, "encoders": encoders}, indent=2)
        write_atomically(folder / FILE_NAME, text)

    @cached_property
    def encoders(self) -> tuple[Encoder, ...]:
        """All of them; no two have the same name."""
        return tuple({e.name: e for several in self.models.values() for e in several}.values())

    def only(self, keep: Callable[[Encoder], bool]) -> EncoderSet:
        """Those encoders for which ``keep`` is true."""
        return EncoderSet(self.names, {m: tuple(filter(keep, several)) for m, several in self.models.items()})

    @cached_property
    def own(self) -> EncoderSet:
        """Those that compare within a modality."""
        return self.only(lambda encoder: not isinstance(encoder, Bridge))

    @cached_property
    def bridges(self) -> EncoderSet:
        """Those that only bridge modalities."""
        return self.only(lambda encoder: isinstance(encoder, Bridge))

    def load_all(self) -> tuple[Encoder, ...]:
        """Every encoder without its wrappers, loaded; HarmoniaError if one is not what it was."""
        return tuple(map(loaded, self.encoders))

    def check(self, infos: Sequence[EncoderInfo], folder: Path) -> None:
        """HarmoniaError unless these are the encoders ``infos`` that the store in a folder was made with."""
        if tuple(infos) != self.infos():
            made, mine = (", ".join(e.name for e in several) for several in (infos, self.infos()))
            raise HarmoniaError(
                f"the memory in {folder} was made with other encoders ({made}, not {mine}): "
                "leave out --model, or remember into another folder"
            )

    def infos(self) -> tuple[EncoderInfo, ...]:
        """The encoders as a store records them."""
        return tuple(EncoderInfo(e.name, e.modality, e.space, e.dim) for e in self.encoders)

    def encode(self, signals: Sequence[Signal], *, asking: bool = False) -> list[list[Code]]:
        """The codes of each signal, one per encoder of its modality; batched by encoder.

        If the signals are ``asking``, descriptors, which compare spelling, get texts without question words.
        """
        codes: list[list[Code]] = [[] for _ in signals]
        for encoder in self.encoders:
            rows = [i for i, signal in enumerate(signals) if signal.modality == encoder.modality]
            if not rows:
                continue
            given = [signals[i] for i in rows]
            if asking and encoder.modality == "text" and encoder in self.models.get("descriptors", ()):
                given = [replace(s, data=without_question_words(str(s.data))) for s in given]
            vectors = encoder.encode(given)
            for i, vector in zip(rows, vectors, strict=True):
                codes[i].append(Code(encoder.modality, vector, encoder.space))
        return codes

    def answers(self, encoder: Encoder, code: Code) -> bool:
        """Whether what an encoder made is compared with a cue's code."""
        own = isinstance(encoder, Bridge) and encoder.modality == code.modality
        return encoder.space == code.space and not own


class DeferredEncoder:
    """An encoder that is loaded when it is first asked for a code.

    What identifies it is known beforehand, as a store records it.
    """

    def __init__(self, name: str, modality: str, space: str, dim: int, load: Callable[[], Encoder]) -> None:
        self.name, self.modality, self.space, self.dim = name, modality, space, dim
        self._load = load

    def encode(self, signals: Sequence[Signal]) -> NDArray[np.float32]:
        """The codes of the loaded encoder."""
        return self._load().encode(signals)

    def loaded(self) -> Encoder:
        """The encoder itself."""
        return self._load()


def loaded(encoder: Encoder) -> Encoder:
    """The encoder behind its wrappers, loaded."""
    while isinstance(encoder, Bridge | DeferredEncoder):
        encoder = encoder.encoder if isinstance(encoder, Bridge) else encoder.loaded()
    return encoder


def _read(folder: Path) -> tuple[tuple[str, ...], dict[str, tuple[str, bool]]]:
    """The names of the models, and for each encoder its model and whether it is a bridge."""
    path = folder / FILE_NAME
    try:
        note = json.loads(path.read_text(encoding="utf-8"))
        entries = {str(e["name"]): (str(e["model"]), bool(e["bridge"])) for e in note.get("encoders", ())}
        return tuple(map(str, note["models"])), entries
    except FileNotFoundError:
        return ("descriptors",), {}
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise HarmoniaError(f"cannot read {path} ({error}): restore it or remember anew") from error


def _once(device: str) -> Callable[[str], dict[str, Encoder]]:
    """Loads a model when it is first asked for; then gives the same encoders, by name."""
    held: dict[str, dict[str, Encoder]] = {}

    def load(model: str) -> dict[str, Encoder]:
        if model not in held:
            held[model] = {encoder.name: encoder for encoder in load_model(model, device)}
        return held[model]

    return load


def _deferred(info: EncoderInfo, model: str, load: Callable[[str], dict[str, Encoder]]) -> DeferredEncoder:
    def encoder() -> Encoder:
        # a descriptor is alone: those of other modalities need packages that a recall by words does without
        held = load_descriptor(info.modality) if model == "descriptors" else load(model).get(info.name)
        found = held if held is not None and held.name == info.name else None
        if found is None or (found.modality, found.space, found.dim) != (info.modality, info.space, info.dim):
            raise HarmoniaError(
                f"the memory was made with other encoders of {model!r} ({info.name}) than are there now: "
                "restore that model, or remember into another folder"
            )
        return found

    return DeferredEncoder(info.name, info.modality, info.space, info.dim, encoder)
