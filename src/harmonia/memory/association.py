"""Recall across modalities through shared records, and recall of sequences."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from harmonia.memory.harmonic import Given, HarmonicMemory
from harmonia.memory.settle import Settled


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
