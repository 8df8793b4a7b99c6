"""The report of a memory: capacity, hubs, basins and attractors of each modality."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from harmonia.collection.collection import Memory
from harmonia.collection.matrices import build_memory
from harmonia.memory.diagnostics import Diagnosis, diagnose
from harmonia.types import HarmoniaError, Record

# Maximum number of records that are read; of a larger memory, an even sample.
RECORDS = 100_000
HUBS = 5
# Capacities above this are reported as null, or as more than it.
COUNTED = 1e12


@dataclass(frozen=True, slots=True)
class Hub:
    """A record that many queries retrieve: ``count`` of the probes have it among their answers."""

    id: str
    name: str
    count: int


@dataclass(frozen=True, slots=True, eq=False)
class ModalityReport:
    """The diagnosis of one encoder's matrix, with names for the hubs."""

    encoder: str
    modality: str
    diagnosis: Diagnosis
    hubs: tuple[Hub, ...]


@dataclass(frozen=True, slots=True, eq=False)
class MemoryReport:
    """The reports of the encoders that have codes. ``read`` of the memory's ``records`` were read."""

    records: int
    read: int
    modalities: tuple[ModalityReport, ...]


def report(collection: Memory, *, starts: int = 64, seed: int = 0) -> MemoryReport:
    """Diagnose every matrix of a memory; HarmoniaError if there is no memory or nothing in it.

    ``starts`` random states are settled in each matrix.
    """
    store = collection.store
    ids = sorted(store.ids())
    if len(ids) > RECORDS:
        table = store.codes(ids[:: -(-len(ids) // RECORDS)])
        memory = build_memory(collection.encoders, table, population=len(ids))
    else:
        table, memory = collection.bound()
    if memory is None:
        raise HarmoniaError(f"the memory in {collection.root} is empty: remember something first")
    modality = {encoder.name: encoder.modality for encoder in collection.encoders.encoders}
    modalities = []
    for key in memory.matrices:
        diagnosis = diagnose(memory, key, starts=starts, seed=seed)
        counts = diagnosis.hubs.counts
        slots = [slot for slot in diagnosis.hubs.top[:HUBS].tolist() if counts[slot] > 0]
        records = store.records([table.record_ids[slot] for slot in slots])
        hubs = [Hub(r.id, record_name(r), int(counts[s])) for r, s in zip(records, slots, strict=True)]
        modalities.append(ModalityReport(key, modality[key], diagnosis, tuple(hubs)))
    return MemoryReport(len(ids), len(table.record_ids), tuple(modalities))


def record_name(record: Record) -> str:
    """A name of the record: its metadata name, the name of its first file, its text, else its id."""
    files: Sequence[str] = [Path(part.path).stem for part in record.parts if part.path]
    words = [" ".join(part.text.split()) for part in record.parts if part.text]
    return str(record.metadata.get("name") or next(iter([*files, *words]), record.id[:8]))


def report_json(memory: MemoryReport) -> dict[str, Any]:
    """The documented form (docs/cli.md): stable, for machines; null for a capacity that is too large."""
    return {"records": memory.records, "read": memory.read, "encoders": [_json(m) for m in memory.modalities]}


def _json(modality: ModalityReport) -> dict[str, Any]:
    d = modality.diagnosis
    certified = d.basins.certified
    return {
        "encoder": modality.encoder,
        "modality": modality.modality,
        "records": d.records,
        "parts": d.parts,
        "slots": d.slots,
        "dim": d.dim,
        "effective_dim": d.effective_dim,
        "beta": d.beta,
        "beta_of_cosines": d.cosine_beta,
        "room": [
            {
                "noise": r.noise,
                "cosine": r.cosine,
                "recalled": r.recalled,
                "fits": _counted(r.fits),
                "more": _counted(r.more),
            }
            for r in d.room
        ],
        "basins": {
            "sample": d.sampled,
            "certified": float(certified.double().mean()),
            "radius_median": float(d.basins.radius.median()),
            "contraction_median": float(d.basins.contraction.median()),
        },
        "hubs": {
            "probes": d.hubs.probes,
            "answers": d.hubs.k,
            "skewness": d.hubs.skewness,
            "chance": d.hubs.chance,
            "top": [{"id": h.id, "name": h.name, "count": h.count} for h in modality.hubs],
        },
        "attractors": {
            "starts": d.attractors.starts,
            "memory": d.attractors.memory,
            "mixture": d.attractors.mixture,
            "spurious": d.attractors.spurious,
            "moving": d.attractors.moving,
            "distinct": d.attractors.distinct,
        },
    }


def _counted(number: float) -> int | None:
    return int(number) if number < COUNTED else None
