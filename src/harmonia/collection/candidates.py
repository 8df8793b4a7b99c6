"""Recall from a memory that outgrows RAM: the store's own index proposes, the memory decides."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from harmonia.collection.encoder_set import EncoderSet
from harmonia.store.protocol import CodeTable, Store, Where
from harmonia.types import Cue

if TYPE_CHECKING:
    from harmonia.memory.matrix import Centering

# Records proposed per cue and encoder, and records whose codes say what chance gives.
PROPOSED, SAMPLED = 1024, 8192


def sample_centering(store: Store) -> Mapping[str, Centering]:
    """The centring of each encoder's codes, from an even sample of the records."""
    ids = sorted(store.ids())
    table = store.codes(ids[:: max(1, -(-len(ids) // SAMPLED))])
    import torch

    from harmonia.memory.matrix import Centering

    return {
        name: Centering.fit(torch.from_numpy(found.codes))
        for name, found in table.encoders.items()
        if len(found.record)
    }


def propose(store: Store, encoders: EncoderSet, cues: Sequence[Cue], where: Where | None) -> CodeTable:
    """The codes of the records nearest to any of the cues, by the store's own index.

    What counts against a record proposes nothing; by such cues alone an even sample is proposed. That no
    better record was missed is as sure as the index.
    """
    ids: set[str] = set()
    if not any(cue.weight > 0 for cue in cues):  # nothing to be near to: an even sample
        every = sorted(store.select(where))
        ids.update(every[:: max(1, -(-len(every) // PROPOSED))])
    for cue in cues:
        for encoder in encoders.encoders if cue.weight > 0 else ():
            if encoders.answers(encoder, cue.code):
                ids.update(store.nearest(encoder.name, cue.code.vector, PROPOSED, where=where)[0])
    return store.codes(ids)
