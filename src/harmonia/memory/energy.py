"""The energy, as a plain function of the codes, to differentiate and to check the fast path against.

    E(g) = -(1/beta) Omega*(beta s(g)) + 1/2 sum_c kappa_c |g_c - c_c|^2
    s_n(g) = max over the moments of record n of  sum_c w_c <x_c, g_c>   (a constant where x_c is absent)

The codes lie on unit spheres, so the Lagrangian term is constant and left out.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from harmonia.memory.entropies import Entropy
from harmonia.memory.layout import Layout
from harmonia.memory.moments import Query
from harmonia.memory.scan import scan_blocks


def slot_energy(
    view: Layout,
    queries: Sequence[Query],
    beta: Tensor,
    entropy: Entropy,
    null: Tensor | None = None,
    mask: Tensor | None = None,
) -> Tensor:
    """The slot term -(1/beta) Omega*(beta s), ``(Q,)``, with all scores in memory at once.

    ``null`` (Q,) is the score of the slot that stands for "nothing here matches".
    """
    scores = torch.cat([block.scores for block in scan_blocks(view, queries, mask)]).T
    if null is not None:
        scores = torch.cat([scores, null[:, None]], dim=-1)
    return -entropy.conjugate(scores * beta[:, None]) / beta


def cue_term(code: Tensor, cue: Tensor, trust: Tensor) -> Tensor:
    """1/2 kappa |g - c|^2, ``(Q,)``; zero for a clamped cue (infinite trust, g = c)."""
    distance = ((code - cue) ** 2).sum(dim=-1)
    return torch.where(trust.isinf(), 0.0, 0.5 * trust.nan_to_num(posinf=0.0) * distance)
