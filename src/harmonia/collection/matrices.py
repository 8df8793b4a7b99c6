"""The harmonic memory over a store's codes, a matrix for each encoder, and what cues ask of its matrices."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

import numpy as np
import torch
from numpy.typing import NDArray

from harmonia.collection.encoder_set import EncoderSet
from harmonia.collection.likelihoods import Likelihoods
from harmonia.encoders.base import Bridge, Encoder
from harmonia.memory.harmonic import Given, HarmonicMemory
from harmonia.memory.likelihood import RatioFrame
from harmonia.memory.matrix import Centering
from harmonia.memory.record_layout import Layout
from harmonia.store.protocol import Codes, CodeTable
from harmonia.types import Code, Cue

# Only these have windows on a clock; the pieces of a text are alternatives.
TIMED = ("audio", "video")


def build_memory(
    encoders: EncoderSet,
    table: CodeTable,
    centering: Mapping[str, Centering] | None = None,
    population: int | None = None,
    likelihoods: Likelihoods | None = None,
) -> HarmonicMemory | None:
    """The memory over a snapshot of codes, a matrix per encoder that has any; None if none has.

    ``centering`` and ``population`` are given where the snapshot holds only candidates. ``likelihoods`` are
    the models by which cues are scored, where there are any.
    """
    filled = {e.name: table.encoders[e.name] for e in encoders.encoders}
    filled = {name: codes for name, codes in filled.items() if len(codes.record)}
    if not filled:
        return None
    modality = {e.name: e.modality for e in encoders.encoders}
    layout = _layout(len(table.record_ids), filled, modality)
    codes = {name: torch.from_numpy(found.codes) for name, found in filled.items()}
    frames = dict(centering or {})
    if likelihoods is not None:
        for name, found in codes.items():
            if ratios := likelihoods.of(name):
                frames[name] = RatioFrame.over(frames.get(name) or Centering.fit(found), ratios)
    memory = HarmonicMemory(codes, layout, frames=frames or None, population=population)
    if likelihoods is not None:
        memory.null_scores = likelihoods.null_scores
    return memory


def given_by(encoders: EncoderSet, memory: HarmonicMemory, cue: Cue) -> list[Given]:
    """What a cue asks of each matrix of the memory: of all that share a space with its code.

    A cue whose code holds vectors ``(Q, d)`` stands for Q cues. Encoders that only bridge modalities are
    not asked here (see :func:`bridged`).
    """
    asked = [
        encoder
        for encoder in encoders.encoders
        if not isinstance(encoder, Bridge)
        and encoder.space == cue.code.space
        and memory.matrices.get(encoder.name) is not None
    ]
    # Several views of one cue are one piece of evidence, not several.
    weight = cue.weight / max(len(asked), 1) ** 0.5
    given = [_given(encoders, memory, encoder, cue, weight) for encoder in asked]
    # Ratios of several views are weighted among one another by their scales.
    return [replace(g, weight=cue.weight) if memory.model_of(g) is not None else g for g in given]


def crossing(encoders: EncoderSet, memory: HarmonicMemory, cue: Cue) -> list[Given]:
    """What a cue asks of records that have nothing of its own modality, by the models between modalities."""
    of = [
        e.name for e in encoders.own.encoders if e.space == cue.code.space and e.modality == cue.code.modality
    ]
    vectors = torch.from_numpy(np.atleast_2d(cue.code.vector))
    return [
        Given(to, vectors, cue.weight, cue.trust, name, cue.name, without=name)
        for name in of
        if name in memory.matrices and cue.weight > 0
        for to, frame in memory.frames.items()
        if to != name and isinstance(frame, RatioFrame) and name in frame.ratios
    ]


def bridged(encoders: EncoderSet, memory: HarmonicMemory, cues: Sequence[Cue]) -> list[list[Given]]:
    """What the cues ask of matrices of other modalities (:class:`Bridge`), each a question of its own.

    Words cross to anything; an image, audio or video only where the memory holds no other of its kind,
    since the encoder of its own modality knows better. If one cue may not cross, none does.
    """
    own = {e.modality for e in encoders.encoders if not isinstance(e, Bridge) and e.name in memory.matrices}
    if any(cue.code.modality != "text" and cue.code.modality in own for cue in cues):
        return []
    asked = [
        [
            _given(encoders, memory, encoder, cue, cue.weight)
            for cue in cues
            if encoders.answers(encoder, cue.code)
        ]
        for encoder in encoders.encoders
        if isinstance(encoder, Bridge) and encoder.name in memory.matrices
    ]
    return [question for question in asked if question]


def _given(encoders: EncoderSet, memory: HarmonicMemory, encoder: Encoder, cue: Cue, weight: float) -> Given:
    vectors = torch.from_numpy(np.atleast_2d(cue.code.vector))
    origin = _origin(encoders, memory, cue.code)
    return Given(encoder.name, vectors, weight, cue.trust, origin, cue.name)


def _origin(encoders: EncoderSet, memory: HarmonicMemory, code: Code) -> str | None:
    """The matrix that holds codes of the cue's own modality and space, if any does."""
    for e in encoders.encoders:
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
