"""Consolidation: merge near-duplicates, delete old or unused records, free their room, centre anew."""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
from torch import Tensor

from harmonia.memory.harmonic import HarmonicMemory
from harmonia.memory.moment_scores import MatrixQuery
from harmonia.memory.records import Records
from harmonia.memory.scan import scan_blocks

# Records compared with all others at once.
ROWS = 256


@dataclass(frozen=True, slots=True, eq=False)
class Consolidated:
    """``into[n]`` (slots,) is the slot that n was merged into; ``shift`` bounds the distance of their codes.

    For one modality with weight w no score moves by more than w * shift, so neither does the slot term
    of the energy: it is 1-Lipschitz in the scores.
    """

    into: Tensor
    merged: int
    shift: float


def consolidate(memory: HarmonicMemory, cosine: float = 0.98) -> Consolidated:
    """Merge records whose codes agree to ``cosine`` in every modality that either holds.

    The oldest record stays, with the count of all, so that it keeps their total probability under softmax:
    the count enters the scores as log(count) / beta. Records of several moments are not merged. A record is
    merged into one that is not itself merged, so that no code moves further than the cosine allows.

    Raises ValueError for a cosine outside (-1, 1].
    """
    if not -1.0 < cosine <= 1.0:
        raise ValueError(f"the cosine must lie in (-1, 1] (got {cosine})")
    found = Consolidated(torch.arange(memory.slots, device=memory.device), 0, 0.0)

    def merge(records: Records) -> Records:
        nonlocal found
        found = _merged(records, cosine)
        merged = (found.into != torch.arange(records.slots, device=memory.device)).nonzero()[:, 0]
        if not len(merged):
            return records
        into = found.into[merged]
        count = records.count.index_add(0, into, records.count[merged])
        records.used.index_add_(0, into, records.used[merged])
        return replace(records, count=count).delete(merged)

    memory.edit(merge)
    return found


def forget(
    memory: HarmonicMemory, *, older_than: int | None = None, used_less_than: float | None = None
) -> Tensor:
    """Delete what was ``born`` before, or came first in a recall less often; both given: what is both.

    Returns the deleted slots. Recalls of the others do not change but for their chance (the frames).
    """
    if older_than is None and used_less_than is None:
        raise ValueError("say what to forget: older_than, used_less_than or both")
    chosen = torch.empty(0)

    def change(records: Records) -> Records:
        nonlocal chosen
        chosen = records.alive.clone()
        if older_than is not None:
            chosen &= records.born < older_than
        if used_less_than is not None:
            chosen &= records.used < used_less_than
        if bool(chosen[records.alive].all()):
            raise ValueError("that would forget every record: choose fewer")
        return records.delete(chosen)

    memory.edit(change)
    return chosen.nonzero()[:, 0]


def compact(memory: HarmonicMemory) -> Tensor:
    """Free the room of deleted records; returns the old slot (slots,) of each new one."""
    kept = torch.empty(0)

    def change(records: Records) -> Records:
        nonlocal kept
        fewer, kept = records.compact()
        return fewer

    memory.edit(change)
    return kept


def refit(memory: HarmonicMemory) -> None:
    """Fit the centring to the records stored now, and transform all codes again."""
    memory.edit(Records.refit)


def _merged(records: Records, cosine: float) -> Consolidated:
    joined: dict[int, int] = {}
    leads: set[int] = set()
    worst = 1.0
    for one, other, least in _close_pairs(records, cosine):
        if one not in joined and other not in joined and other not in leads:
            joined[other] = one
            leads.add(one)
            worst = min(worst, least)
    into = [joined.get(n, n) for n in range(records.slots)]
    shift = max(0.0, 2.0 - 2.0 * worst) ** 0.5
    return Consolidated(torch.tensor(into, device=records.alive.device), len(joined), shift)


def _close_pairs(records: Records, cosine: float) -> list[tuple[int, int, float]]:
    """(older, newer, least cosine) of all pairs that agree in every modality, in order."""
    layout = records.layout
    counts = torch.bincount(layout.slot, minlength=records.slots)
    able = records.alive & (counts == 1)
    moments = able[layout.slot].nonzero()[:, 0]
    pairs: list[tuple[int, int, float]] = []
    for at in torch.split(moments, ROWS):
        least: Tensor | None = None
        for key, matrix in records.matrices.items():
            part = layout.parts[key]
            has = part[at] >= 0
            cue = torch.where(has[:, None], matrix[part[at].clamp(min=0)], 0.0)
            query = MatrixQuery(key, matrix, cue, torch.zeros_like(cue[:, 0]))
            view = layout.view((key,))
            close = torch.zeros(records.slots, len(at), dtype=cue.dtype, device=cue.device)
            for block in scan_blocks(view, [query]):
                close[block.slots] = block.scores
            holds = torch.zeros(records.slots, dtype=torch.bool, device=cue.device)
            holds[layout.slot[part >= 0]] = True
            # A modality that both lack does not count; one that only one of them has prevents the match.
            close = torch.where(holds[:, None] & has, close, -2.0)
            close = torch.where(~holds[:, None] & ~has, 1.0, close)
            least = close if least is None else torch.minimum(least, close)
        assert least is not None
        newer, row = (least >= cosine).nonzero(as_tuple=True)
        older = layout.slot[at][row]
        keep = (newer > older) & able[newer]
        found = zip(older[keep].tolist(), newer[keep].tolist(), least[newer, row][keep].tolist(), strict=True)
        pairs.extend(found)
    return sorted(pairs)
