"""What goes over several records: chains of recalls and sequences; merging and forgetting of records.

`associate` and `replay` recall again from what was recalled. `consolidate` merges near-duplicates, `forget`
deletes old or unused records, `compact` frees their room, `refit` centres anew.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from harmonia.memory.harmonic import Given, HarmonicMemory
from harmonia.memory.moment_scores import MatrixQuery
from harmonia.memory.records import Records
from harmonia.memory.scan import scan_blocks
from harmonia.memory.settle import Settled

# Records compared with all others at once.
ROWS = 256


def associate(
    memory: HarmonicMemory, cues: Sequence[Given], to: str, *, hops: int = 3, k: int = 10, **options: float
) -> Settled:
    """Recall the modality ``to``, even if no record has it together with a modality of the cues.

    Each hop recalls among the records that share a modality with the cues so far; the modalities recalled are
    the cues of the next hop, until records with ``to`` are reached. The energy never rises within a hop.
    ``codes[to]`` of the result is the answer. ``options`` are those of `HarmonicMemory.recall`.

    Raises ValueError if no record has ``to``, or no chain of at most ``hops`` records leads to it.
    """
    memory = memory.snapshot()
    if to not in memory.matrices:
        raise ValueError(f"no record has the modality {to!r}")
    holds = {key: _holders(memory, key) for key in memory.matrices}
    given, known = list(cues), {cue.key for cue in cues}
    for _ in range(hops):
        seen = torch.stack([holds[key] for key in known]).any(dim=0)
        if bool((seen & holds[to]).any()):
            return memory.recall(given, k=k, allowed=seen & holds[to], **options)  # type: ignore[arg-type]
        # Only records with a modality that is not known yet lead further.
        new = [key for key in memory.matrices if key not in known and bool((seen & holds[key]).any())]
        if not new:
            break
        allowed = seen & torch.stack([holds[key] for key in new]).any(dim=0)
        settled = memory.recall(given, k=k, allowed=allowed, **options)  # type: ignore[arg-type]
        given = [Given(key, settled.codes[key]) for key in new if bool(settled.codes[key].any())]
        known |= {cue.key for cue in given}
    raise ValueError(f"no chain of {hops} records leads to {to}: add records that link it")


def replay(
    memory: HarmonicMemory, cues: Sequence[Given], follows: Tensor, length: int, *, k: int = 10
) -> list[Settled]:
    """Recall a sequence: retrieve with the cues, move to the slot that follows, retrieve there, and so on.

    ``follows`` (slots,) is the slot after each slot, -1 at the end of a sequence. Each retrieval descends the
    energy; the step between two is the asymmetric part (Sompolinsky and Kanter 1986; Chaudhry et al. 2023,
    "Long sequence Hopfield memory"): the new cues are the mean of the codes that follow, under the
    probabilities. At its end a sequence stays. Returns the results of ``length`` retrievals.

    Raises ValueError unless ``follows`` has one entry for each slot.
    """
    memory = memory.snapshot()
    if follows.shape != (memory.slots,):
        raise ValueError(f"follows needs one entry per slot ({memory.slots}, got {tuple(follows.shape)})")
    if length < 1 or bool((follows < -1).any()) or bool((follows >= memory.slots).any()):
        raise ValueError(
            f"length is at least 1, follows holds slots or -1 (got {length}, {follows.tolist()[:8]})"
        )
    keys = list(dict.fromkeys(cue.key for cue in cues))
    settled = memory.recall(cues, k=k)
    out = [settled]
    for _ in range(length - 1):
        after = torch.where(settled.slots >= 0, follows[settled.slots.clamp(min=0)], -1)
        after = torch.where(after >= 0, after, settled.slots)
        codes = _mean(memory, keys, after, settled.p)
        settled = memory.recall([Given(key, codes[key]) for key in keys], k=k)
        out.append(settled)
    return out


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


def _mean(memory: HarmonicMemory, keys: Sequence[str], slots: Tensor, p: Tensor) -> Mapping[str, Tensor]:
    """Raw unit codes ``(Q, d)``: the mean over slots ``(Q, k)`` of the first moment of each."""
    first = torch.searchsorted(memory.layout.slot, slots.clamp(min=0).contiguous())
    first = first.clamp(max=len(memory.layout.slot) - 1)
    held = (slots >= 0) & (memory.layout.slot[first] == slots)
    out = {}
    for key in keys:
        part = torch.where(held, memory.layout.parts[key][first], -1)
        codes = memory.matrices[key][part.clamp(min=0).reshape(-1)].reshape(*part.shape, -1)
        total = (codes * (p * (part >= 0))[..., None]).sum(dim=1)
        out[key] = memory.frames[key].inverse_transform(torch.nn.functional.normalize(total, dim=-1))
    return out


def _holders(memory: HarmonicMemory, key: str) -> Tensor:
    """Which records (slots,) have a part in the matrix ``key``, bool."""
    out = torch.zeros(memory.slots, dtype=torch.bool, device=memory.device)
    out[memory.layout.slot[memory.layout.parts[key] >= 0]] = True
    return out & memory.alive
