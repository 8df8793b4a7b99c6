"""Whether anything that is stored matches a cue: a test with a stated error rate, apart from what matches
best.

The memory asks itself with its own codes, each with its record and near-duplicates of it hidden: cues that
match nothing. A cue matches if it scores higher than all but a few of their best answers do. The share of
them that score as high is its p-value, and a rule that calls p <= a a match is wrong for a share a of
unrelated cues, however the scores are distributed (conformal prediction, Vovk, Gammerman and Shafer 2005,
chapter 2). Any number of records may match: copies of a record are several matches, not rivals.

A memory of a few records has few such cues, and theory stands in for the rest: the best of N unrelated
normal scores.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from harmonia.memory.moment_scores import MatrixQuery, slot_scores
from harmonia.memory.scan import scan_top

if TYPE_CHECKING:
    from harmonia.memory.harmonic import Given, HarmonicMemory, Scored

NullScores = Mapping[tuple[tuple[str, ...], str], Tensor]
"""How unrelated cues score, (n, V + 1), by the matrices that are asked and the kind of cue.

Of each of n cues the best score by each of V statistics (the codes; the words, where there are any), and last
the least of the p-values that its best answers have by all of them together (:func:`together`).
"""

# The share of unrelated cues that are answered all the same (false alarms).
FALSE_RECALL = 0.2
# Null cues at most; of a larger memory an even sample.
NULL_CUES = 256
# Fewer null cues of a kind than this say nothing about it.
FEWEST = 19
# With so many null cues, theory has no part in the p-value.
ENOUGH = 64
# The best answers of a null cue that are looked through for near-duplicates.
NEAR = 32
# Codes of a centred cosine above this are near-duplicates.
DUPLICATE = 0.95
# Cosines of unrelated codes in a memory of a few records: no more can be read from it.
UNRELATED = 0.25


def match_values(
    memory: HarmonicMemory, cues: Sequence[Given], scored: Sequence[Scored], slots: Tensor, records: int
) -> Tensor:
    """For each of the ``slots`` (Q, k) the p-value that it matches no cue, among so many ``records``.

    Each cue is tested by itself, with all of its views; those that cross to another modality are a test of
    their own. What counts against a record matches nothing, and neither do codes that were predicted.
    """
    tests: dict[tuple[str, str], list[Given]] = {}
    for cue in cues:
        if cue.weight > 0 and cue.origin is not None:
            tests.setdefault((cue.name or cue.key, cue.key if cue.without else ""), []).append(cue)
    words = {one.name: one for one in scored if one.weight > 0}
    found = [
        _match(memory, views, None if crossed else words.get(name), slots, records)
        for (name, crossed), views in tests.items()
    ]
    if not found:
        return torch.ones_like(slots, dtype=memory.bias.dtype)
    blank = [(memory.code_of(views[0]) == 0).all(dim=-1) for views in tests.values()]
    return any_of(torch.stack(found, dim=-1), torch.stack(blank, dim=-1)[:, None])


def _match(
    memory: HarmonicMemory, views: Sequence[Given], words: Scored | None, slots: Tensor, records: int
) -> Tensor:
    """The p-values (Q, k) of one cue, given as one or several ``views``, and by the scores of its
    ``words``.
    """
    own = slots if memory.shards is None else memory.shards.own(slots)
    scores = _scores(memory, views, own)
    if memory.shards is not None:
        scores = memory.shards.sum(torch.where(own >= 0, scores, 0.0))
    ratios = all(memory.model_of(cue) is not None for cue in views)
    theory = best_of_ratios(scores, records) if ratios else best_of_normal(scores, records)
    known = memory.null_scores.get((tuple(sorted(cue.key for cue in views)), views[0].kind))
    said = None if words is None or memory.shards is not None else words.scores.to(scores)
    said = None if said is None else said.gather(1, slots.clamp(min=0)).nan_to_num(nan=0.0)
    if known is None or len(known) < FEWEST:
        p = p_values(scores, _own_null(memory, views), theory)
        if words is None or said is None or words.nats:
            return p
        # From the record that shares least with the cue on: its mean score says how common the words are.
        lowest = words.scores.to(scores).nan_to_num(nan=math.inf).amin(dim=-1, keepdim=True)
        rise = best_of_normal(said - lowest.clamp(max=0.0), records)
        return together(torch.stack([p, rise], dim=-1))
    columns = [scores]
    if known.shape[1] > 2:
        columns.append(torch.zeros_like(scores) if said is None else said)
    p = together(torch.stack([rank(s, known[:, n]) for n, s in enumerate(columns)], dim=-1))
    return torch.where(scores.isneginf(), 1.0, 1.0 - rank(p, known[:, -1]) + 1.0 / (len(known) + 1.0))


def _scores(memory: HarmonicMemory, views: Sequence[Given], slots: Tensor) -> Tensor:
    """The scores (Q, k) of slots by one cue, in units that are the same for all cues; -inf without a part.

    A cue that many records match spreads widely, and in units of its own spread none of them would stand out.
    """
    queries, level = _queries(memory, views)
    scores = _slot_scores(memory, views, queries, slots)
    return scores + level[:, None]


def _slot_scores(
    memory: HarmonicMemory, views: Sequence[Given], queries: Sequence[MatrixQuery], slots: Tensor
) -> Tensor:
    layout = memory.view(tuple(sorted({cue.key for cue in views})))
    here = slots >= 0
    row = torch.arange(len(slots), device=slots.device)[:, None].expand_as(slots)[here]
    scores = torch.full_like(slots, -math.inf, dtype=memory.bias.dtype)
    if not bool(here.any()):
        return scores
    scores[here] = slot_scores(layout, queries, row, slots[here])
    return scores


def _queries(memory: HarmonicMemory, views: Sequence[Given]) -> tuple[list[MatrixQuery], Tensor]:
    """The views of a cue as queries of :func:`_scores`, and what is added to every score (Q,)."""
    queries, total = [], math.sqrt(sum(cue.weight**2 for cue in views)) or 1.0
    level = torch.zeros(len(views[0].codes), dtype=memory.bias.dtype, device=memory.device)
    for cue in views:
        code, frame, model = memory.code_of(cue), memory.frames[cue.key], memory.model_of(cue)
        origin = cue.origin if cue.origin in memory.frames else cue.key
        if model is not None:
            scale, own = model.scale, model.level(code)
        else:
            scale = cue.weight / total / float(frame.chance().clamp(max=UNRELATED))
            own = -frame.level(code)
        query = frame.query(code, str(origin)) * scale
        queries.append(MatrixQuery(cue.key, memory.matrices[cue.key], query, -own * scale))
        level = level + own * scale
    return queries, level


def _own_null(memory: HarmonicMemory, views: Sequence[Given]) -> Tensor:
    """The scores (n,), ascending, of the memory's own codes as cues, their records and copies hidden."""
    origins = [cue.origin if cue.origin in memory.frames else cue.key for cue in views]
    records = memory.records
    now = (records.layout, records.matrices, records.alive)
    known = tuple((cue.key, str(origin)) for cue, origin in zip(views, origins, strict=True))
    held = memory.own_nulls.get(known)
    if held is None or any(a is not b for a, b in zip(held[0], now, strict=True)):
        held = now, _ask_itself(memory, views, [str(origin) for origin in origins])
        memory.own_nulls[known] = held
    return held[1]


def _ask_itself(memory: HarmonicMemory, views: Sequence[Given], origins: Sequence[str]) -> Tensor:
    none = memory.bias.new_zeros(0)
    if memory.shards is not None or memory.population is not None:
        return none
    source = memory.view(tuple(sorted(set(origins))))
    whole = torch.stack([source.parts[key] >= 0 for key in origins]).all(dim=0)
    moments = (whole & memory.alive[source.slot]).nonzero()[:, 0]
    moments = moments[:: max(1, -(-len(moments) // NULL_CUES))]
    if not len(moments):
        return none
    own = source.slot[moments]
    asking = []
    for cue, key in zip(views, origins, strict=True):
        stored = memory.matrices[key][source.parts[key][moments]]
        asking.append(replace(cue, codes=memory.frames[key].inverse_transform(stored), origin=key))
    queries, level = _queries(memory, asking)
    target = memory.view(tuple(sorted({cue.key for cue in views})))
    mask = (
        None
        if bool(memory.alive.all())
        else torch.zeros_like(memory.bias).masked_fill(~memory.alive, -math.inf)
    )
    near = scan_top(target, queries, NEAR, torch.ones_like(level), mask, total=False)
    same = [replace(cue, key=key) for cue, key in zip(asking, origins, strict=True)]
    copies = (near.slots == own[:, None]) | (_cosines(memory, same, near.slots) > DUPLICATE)
    best = near.scores.masked_fill(copies, -math.inf).amax(dim=-1) + level
    found: Tensor = best[best.isfinite()].sort().values
    return found


def _cosines(memory: HarmonicMemory, views: Sequence[Given], slots: Tensor) -> Tensor:
    """The mean cosine (Q, k) of a cue with the nearest part of each slot, over its views; -inf without
    one.
    """
    queries = []
    for cue in views:
        code = memory.code_of(cue)
        room = memory.matrices[cue.key].shape[1] - code.shape[1]
        wide = torch.nn.functional.pad(code, (0, room)) / len(views)
        queries.append(MatrixQuery(cue.key, memory.matrices[cue.key], wide, torch.zeros_like(code[:, 0])))
    return _slot_scores(memory, views, queries, slots)


def null_table(scores: Tensor, held: Tensor) -> Tensor:
    """The null scores (n, V + 1) of n cues from those of all records ``scores`` (n, records, V) that are
    ``held`` (n, records): those that match nothing.
    """
    hidden = scores.masked_fill(~held[..., None], -math.inf)
    best = hidden.amax(dim=1)
    some = best.isfinite().all(dim=1)
    hidden, best = hidden[some], best[some]
    p = together(torch.stack([rank(hidden[..., v], best[:, v]) for v in range(best.shape[1])], dim=-1))
    return torch.cat([best, p.masked_fill(~held[some], 1.0).amin(dim=1, keepdim=True)], dim=1)


def rank(scores: Tensor, null: Tensor) -> Tensor:
    """The share of null scores (n,) at or above each of ``scores`` (...,), counting it as one of them."""
    ordered = null.to(scores).sort().values
    above = len(null) - torch.searchsorted(ordered, scores.contiguous())
    return (above + 1.0) / (len(null) + 1.0)


def together(p: Tensor) -> Tensor:
    """The harmonic mean of p-values (..., V), small where any of them is (Wilson 2019)."""
    return 1.0 / (1.0 / p).mean(dim=-1)


def p_values(scores: Tensor, null: Tensor, theory: Tensor) -> Tensor:
    """The share of null cues that score as high as each of ``scores`` (...,), which is its p-value.

    ``null`` (n,) are the null scores, ascending. ``theory`` (...,) are the p-values by theory, which count as
    many cues as ``null`` lacks.
    """
    above = len(null) - torch.searchsorted(null.to(scores), scores.contiguous())
    if len(null) >= ENOUGH:
        return (above + 1.0) / (len(null) + 1.0)
    return ((above + (ENOUGH - len(null)) * theory) / ENOUGH).clamp(min=1e-9, max=1.0)


def best_of_normal(scores: Tensor, records: int) -> Tensor:
    """The probability that the best of so many standard normal variables is above each of ``scores``."""
    below = torch.special.log_ndtr(scores.double()) * max(records, 1)
    return -torch.expm1(below).to(scores.dtype)


def best_of_ratios(ratios: Tensor, records: int) -> Tensor:
    """A bound on the probability that the best of so many ratios of unrelated codes is above each of
    ``ratios``.

    A likelihood ratio has mean 1 over unrelated codes, so it is above r with a probability of at most 1 / r
    (Markov's inequality). ``ratios`` are logarithms.
    """
    return (math.log(max(records, 1)) - ratios).clamp(max=0.0).exp()


def any_of(p: Tensor, left_out: Tensor) -> Tensor:
    """The p-value (...,) that none of C cues matches, from theirs (..., C), by Bonferroni's inequality.

    Cues that are ``left_out`` (..., C) say nothing; where all are, the p-value is 1.
    """
    asked = (~left_out).sum(dim=-1)
    least = p.masked_fill(left_out, math.inf).amin(dim=-1)
    return torch.where(asked > 0, least * asked, 1.0).clamp(max=1.0)
