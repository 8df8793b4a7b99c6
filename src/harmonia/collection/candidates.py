"""Recall from a memory that outgrows RAM: the store's own index proposes, the memory decides."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from harmonia.collection.encoder_set import EncoderSet
from harmonia.store.protocol import CodeTable, Store, Where
from harmonia.types import Cue

if TYPE_CHECKING:
    from harmonia.memory.centering import Centering

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


def sample_centering(store: Store) -> Mapping[str, Centering]:
    """The centring of each encoder's codes, from an even sample of the records."""
    ids = sorted(store.ids())
    table = store.codes(ids[:: max(1, -(-len(ids) // SAMPLED))])
    import torch

    from harmonia.memory.centering import Centering

    return {
        name: Centering.fit(torch.from_numpy(found.codes))
        for name, found in table.encoders.items()
        if len(found.record)
    }


def propose(store: Store, encoders: EncoderSet, cues: Sequence[Cue], where: Where | None) -> CodeTable:
    """The codes of the records nearest to any of the cues, by the store's own index.

    What counts against a record proposes nothing. That no better record was missed is as sure as the index.
    """
    ids: set[str] = set()
    for cue in cues:
        for encoder in encoders.encoders if cue.weight > 0 else ():
            if encoders.answers(encoder, cue.code):
                ids.update(store.nearest(encoder.name, cue.code.vector, PROPOSED, where=where)[0])
    return store.codes(ids)
