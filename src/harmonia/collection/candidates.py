"""Recall from a memory that outgrows RAM: the store's own index proposes, the memory decides."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence

import torch

from harmonia.collection.encoder_set import EncoderSet
from harmonia.memory import Centering, HarmonicMemory
from harmonia.store import CodeTable, Store
from harmonia.types import Code, Cue

# Records proposed per cue and encoder, and records whose codes say what chance gives.
PROPOSED, SAMPLED = 1024, 8192


def fits(store: Store, budget: int | None) -> bool:
    """Whether all codes may be held in RAM: ``budget`` bytes, by default half of the machine's."""
    status = store.status()
    # The matrix as read and as centred are alive at the same time.
    needed = 2 * 4 * status["width"] * sum(status["parts"].values())
    if budget is None:
        budget = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") // 2
    return bool(needed <= budget)


def sample_frames(store: Store, model: EncoderSet) -> Mapping[str, Centering]:
    """The frames of an even sample of the records."""
    ids = sorted(store.ids())
    table = store.codes(ids[:: max(1, -(-len(ids) // SAMPLED))])
    return {
        name: Centering.fit(torch.from_numpy(found.codes))
        for name, found in table.encoders.items()
        if len(found.record)
    }


def propose(
    store: Store, model: EncoderSet, frames: Mapping[str, Centering], cues: Sequence[Cue], where: str | None
) -> tuple[CodeTable, HarmonicMemory | None]:
    """The records nearest to any of the cues, and the memory over them alone.

    What counts against a record proposes nothing. The result is exact over the candidates; that no
    better record was missed is as sure as the index is.
    """
    ids: set[str] = set()
    for cue in cues:
        codes = [cue.content] if isinstance(cue.content, Code) else model.encode([cue.content])[0]
        for code in codes if cue.weight > 0 else []:
            for encoder in model.encoders:
                if model.answers(encoder, code):
                    ids.update(store.nearest(encoder.name, code.vector, PROPOSED, where=where)[0])
    table = store.codes(ids)
    return table, model.memory(table, frames, population=store.status()["records"])
