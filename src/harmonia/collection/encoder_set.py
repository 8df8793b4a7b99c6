"""A model: encoders and the memory they fill, saved and loaded by name."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from harmonia.encoders import Bridge
from harmonia.encoders.base import Encoder
from harmonia.memory import Centering, Given, HarmonicMemory, Layout
from harmonia.pretrained.loading import load_encoders
from harmonia.store import Codes, CodeTable, EncoderInfo
from harmonia.store.atomic import write_atomically
from harmonia.types import Code, Cue, HarmoniaError, Signal

FILE_NAME = "model.json"
DEFAULT = ("descriptors", "mini")
"""The models of a new memory: what matches within a modality, and what bridges them."""
# Only these have windows on a clock; the pieces of a text are alternatives.
TIMED = ("audio", "video")


@dataclass(frozen=True, slots=True, eq=False)
class EncoderSet:
    """The encoders of a memory. ``names`` is what they were loaded from."""

    names: tuple[str, ...]
    encoders: tuple[Encoder, ...]

    @classmethod
    def load(cls, names: Sequence[str] = ("descriptors",), device: str = "auto") -> EncoderSet:
        """Load encoders by name: "descriptors", "mini", a hub name or a local folder."""
        return cls(tuple(names), load_encoders(names, device=device))

    @classmethod
    def saved(cls, folder: Path, device: str = "auto") -> EncoderSet:
        """The model that a store was made with; HarmoniaError if its description is damaged."""
        path = folder / FILE_NAME
        try:
            names = json.loads(path.read_text(encoding="utf-8"))["models"]
        except FileNotFoundError:
            names = ["descriptors"]
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise HarmoniaError(f"cannot read {path} ({error}): restore it or remember anew") from error
        return cls.load(names, device)

    def save(self, folder: Path) -> None:
        """Write the names beside a store, atomically."""
        write_atomically(folder / FILE_NAME, json.dumps({"models": self.names}, indent=2))

    def infos(self) -> tuple[EncoderInfo, ...]:
        """The encoders as a store records them."""
        return tuple(EncoderInfo(e.name, e.modality, e.space, e.dim) for e in self.encoders)

    def encode(self, signals: Sequence[Signal]) -> list[list[Code]]:
        """The codes of each signal, one per encoder of its modality; batched by encoder."""
        codes: list[list[Code]] = [[] for _ in signals]
        for encoder in self.encoders:
            rows = [i for i, signal in enumerate(signals) if signal.modality == encoder.modality]
            if not rows:
                continue
            vectors = encoder.encode([signals[i] for i in rows])
            for i, vector in zip(rows, vectors, strict=True):
                codes[i].append(Code(encoder.modality, vector, encoder.space))
        return codes

    def memory(
        self,
        table: CodeTable,
        frames: Mapping[str, Centering] | None = None,
        population: int | None = None,
    ) -> HarmonicMemory | None:
        """The memory over a snapshot of codes, a matrix per encoder that has any; None if none has.

        ``frames`` and ``population`` are given where the snapshot holds only candidates.
        """
        filled = {e.name: table.encoders[e.name] for e in self.encoders}
        filled = {name: codes for name, codes in filled.items() if len(codes.record)}
        if not filled:
            return None
        modality = {e.name: e.modality for e in self.encoders}
        layout = _layout(len(table.record_ids), filled, modality)
        codes = {name: torch.from_numpy(found.codes) for name, found in filled.items()}
        return HarmonicMemory(codes, layout, frames=frames, population=population)

    def given(self, memory: HarmonicMemory, cue: Cue) -> list[Given]:
        """What a cue says to each matrix of the memory: to all that share a space with its codes.

        A cue whose code holds vectors ``(Q, d)`` stands for Q cues. Encoders that only bridge modalities are
        not asked here (see ``bridges``).
        """
        pairs = [
            (encoder, code)
            for code in self._codes(cue)
            for encoder in self.encoders
            if not isinstance(encoder, Bridge)
            and encoder.space == code.space
            and memory.matrices.get(encoder.name) is not None
        ]
        # Several views of one cue are one piece of evidence, not several.
        weight = cue.weight / max(len(pairs), 1) ** 0.5
        return [self._given(memory, encoder, code, cue, weight) for encoder, code in pairs]

    def bridges(self, memory: HarmonicMemory, cues: Sequence[Cue]) -> list[list[tuple[Cue, Given]]]:
        """What the cues say to matrices of other modalities (:class:`Bridge`), each to be asked by itself.

        Words cross to anything; a picture, sound or video only where the memory holds no other of its kind,
        since the encoder of its own modality knows better. If one cue may not cross, none does.
        """
        own = {e.modality for e in self.encoders if not isinstance(e, Bridge) and e.name in memory.matrices}
        codes = [(cue, code) for cue in cues for code in self._codes(cue)]
        if any(code.modality != "text" and code.modality in own for _, code in codes):
            return []
        asked = [
            [
                (cue, self._given(memory, encoder, code, cue, cue.weight))
                for cue, code in codes
                if self.answers(encoder, code)
            ]
            for encoder in self.encoders
            if isinstance(encoder, Bridge) and encoder.name in memory.matrices
        ]
        return [question for question in asked if question]

    def _codes(self, cue: Cue) -> list[Code]:
        return [cue.content] if isinstance(cue.content, Code) else self.encode([cue.content])[0]

    def _given(self, memory: HarmonicMemory, encoder: Encoder, code: Code, cue: Cue, weight: float) -> Given:
        vectors = torch.from_numpy(np.atleast_2d(code.vector))
        return Given(encoder.name, vectors, weight, cue.trust, self._origin(memory, code))

    def answers(self, encoder: Encoder, code: Code) -> bool:
        """Whether what an encoder made is compared with a cue's code."""
        own = isinstance(encoder, Bridge) and encoder.modality == code.modality
        return encoder.space == code.space and not own

    def _origin(self, memory: HarmonicMemory, code: Code) -> str | None:
        """The matrix that holds codes of the cue's own modality and space, if any does."""
        for e in self.encoders:
            if (e.modality, e.space) == (code.modality, code.space) and e.name in memory.matrices:
                return e.name
        return None


def _layout(slots: int, codes: Mapping[str, Codes], modality: Mapping[str, str]) -> Layout:
    """Moments over parts, then for every encoder its row of each part."""
    by_modality: dict[str, list[str]] = {}
    for name in codes:
        by_modality.setdefault(modality[name], []).append(name)
    record, start, rows = {}, {}, {}
    for kind, names in by_modality.items():
        keys = {n: _key(codes[n].record, codes[n].part) for n in names}
        distinct, first = np.unique(np.concatenate(list(keys.values())), return_index=True)
        record[kind] = np.concatenate([codes[n].record for n in names])[first]
        times = np.concatenate([codes[n].t0 for n in names])[first]
        start[kind] = times if kind in TIMED else np.full(len(times), np.nan)
        for name in names:
            rows[name] = np.full(len(distinct), -1)
            rows[name][np.searchsorted(distinct, keys[name])] = np.arange(len(keys[name]))
    base = Layout.of_parts(slots, record, start)
    parts = {}
    for kind, names in by_modality.items():
        index = base.parts[kind]
        for name in names:
            row = torch.from_numpy(rows[name])[index.clamp(min=0)]
            parts[name] = torch.where(index >= 0, row, -1)
    return Layout(base.slots, base.slot, parts)


def _key(record: NDArray[np.int64], part: NDArray[np.int64]) -> NDArray[np.int64]:
    keys: NDArray[np.int64] = (record << 24) | part
    return keys
