"""The energy, as plain differentiable functions of the codes.

    E(g) = sum_m L_m*(g_m) - (1/beta) Omega*(beta s(g)) - 1/2 g^T H g - a^T g
           + 1/2 sum_m kappa_m |g_m - c_m|^2
    s_n(g) = sum_m w_m r_nm <xi_nm, g_m> + b_n

Codes are a tuple with one tensor (..., d_m) per modality; the batch dimensions are shared and each cue has
an energy of its own. Every term has a ``value`` (...,) and a ``pull``, minus its gradient, written out by
hand: autograd of the value agrees with it. `Energy` adds the terms up, ``descent`` finds its minima.

The product settles by scanning records with several moments, where s_n is the best moment's score;
`slot_energy` and `cue_term` are its energy, to check that fast path against. There the codes lie on unit
spheres, so the Lagrangian term is constant and left out.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import reduce
from operator import add
from typing import TYPE_CHECKING, Protocol

import torch
from torch import Tensor

from harmonia.memory.entropies import Entropy
from harmonia.memory.moment_scores import MatrixQuery
from harmonia.memory.record_layout import Layout
from harmonia.memory.scan import scan_blocks

if TYPE_CHECKING:
    from harmonia.memory.lagrangians import Lagrangian

Codes = tuple[Tensor, ...]
"""One tensor (..., d_m) per modality."""

Scalar = float | Tensor
"""A number, or one number for each cue (...,)."""

# Up to this size the spectrum of H is exact; at this size that takes some seconds on a laptop.
EXACT = 4096


class Term(Protocol):
    """A part of the energy."""

    def value(self, g: Codes) -> Tensor:
        """The term itself, (...,)."""
        ...

    def pull(self, g: Codes) -> Codes:
        """Minus the gradient of the term, of the shapes of ``g``."""
        ...


@dataclass(frozen=True, slots=True, eq=False)
class Slots:
    """The memories: -(1/beta) Omega*(beta s(g)), concave in the codes.

    ``patterns``: Xi_m (N, d_m). ``weights``: w_m, one for each modality or for each modality and cue.
    ``presence``: bool r_m (N,); a record without a modality has no score there, which ``bias`` (N,) may
    make up for. A bias of -inf leaves a slot out.
    """

    patterns: Codes
    entropy: Entropy
    beta: Scalar
    weights: Sequence[Scalar] | None = None
    presence: Codes | None = None
    bias: Tensor | None = None

    def scores(self, g: Codes) -> Tensor:
        """s(g), (..., N)."""
        parts = [self._kept(m, code @ self.patterns[m].mT) for m, code in enumerate(g)]
        total = reduce(add, parts)
        return total if self.bias is None else total + self.bias

    def p(self, g: Codes) -> Tensor:
        """The distribution over the slots, which all modalities share, (..., N)."""
        return self.entropy.argmax(_wide(self.beta) * self.scores(g))

    def value(self, g: Codes) -> Tensor:
        """-(1/beta) Omega*(beta s(g)), (...,)."""
        return -self.entropy.conjugate(_wide(self.beta) * self.scores(g)) / self.beta

    def pull(self, g: Codes) -> Codes:
        """w_m Xi_m^T (r_m p): the memory that the codes are drawn to."""
        p = self.p(g)
        return tuple(self._kept(m, p) @ xi for m, xi in enumerate(self.patterns))

    def _kept(self, m: int, over_slots: Tensor) -> Tensor:
        if self.presence is not None:
            over_slots = torch.where(self.presence[m], over_slots, 0.0)
        return over_slots if self.weights is None else over_slots * _wide(self.weights[m])


@dataclass(frozen=True, slots=True, eq=False)
class Couplings:
    """Self-energy and couplings of the modalities: -1/2 g^T H g - a^T g.

    ``blocks[m, n]`` (d_m, d_n): the self-energy W_m on the diagonal, lambda W_mn off it. H is made
    symmetric: of a pair (m, n) and (n, m) the mean of one and the other's transpose is taken; one given
    alone stands for both. ``fields[m]``: a_m (d_m,) or (..., d_m).

    ``spectrum``: the least and the greatest eigenvalue of H, if known. Without it each descent computes
    them; `measured` does so once, for an H that does not change.
    """

    blocks: Mapping[tuple[int, int], Tensor]
    fields: Mapping[int, Tensor] = field(default_factory=dict)
    spectrum: tuple[float, float] | None = None

    @property
    def sizes(self) -> dict[int, int]:
        """d_m of the modalities that have a block."""
        sizes = {m: block.shape[i] for pair, block in self.blocks.items() for i, m in enumerate(pair)}
        return dict(sorted(sizes.items()))

    def value(self, g: Codes) -> Tensor:
        """-1/2 g^T H g - a^T g, (...,)."""
        parts = [-0.5 * (code * h).sum(dim=-1) for code, h in zip(g, self.product(g), strict=True)]
        parts += [-(g[m] * a).sum(dim=-1) for m, a in self.fields.items()]
        return reduce(add, parts)

    def pull(self, g: Codes) -> Codes:
        """H g + a."""
        out = list(self.product(g))
        for m, a in self.fields.items():
            out[m] = out[m] + a
        return tuple(out)

    def product(self, g: Codes) -> Codes:
        """H g."""
        out = [torch.zeros_like(code) for code in g]
        for (m, n), block in self.blocks.items():
            share = 0.5 if (n, m) in self.blocks else 1.0
            out[m] = out[m] + share * (g[n] @ block.mT)
            out[n] = out[n] + share * (g[m] @ block)
        return tuple(out)

    def matrix(self, modalities: Sequence[int] | None = None) -> Tensor:
        """H (D, D) of some modalities, in their order; those that have a block by default."""
        size = self.sizes
        chosen = list(size) if modalities is None else [m for m in modalities if m in size]
        start = {m: sum(size[k] for k in chosen[:i]) for i, m in enumerate(chosen)}
        some = next(iter(self.blocks.values()))
        total = sum(size[m] for m in chosen)
        out = some.new_zeros(total, total)
        for (m, n), block in self.blocks.items():
            if m in start and n in start:
                share = 0.5 if (n, m) in self.blocks else 1.0
                rows, columns = slice(start[m], start[m] + size[m]), slice(start[n], start[n] + size[n])
                out[rows, columns] += share * block
                out[columns, rows] += share * block.mT
        return out

    def measured(self) -> Couplings:
        """The same couplings with the spectrum of H known."""
        return replace(self, spectrum=self.extremes())

    def extremes(self) -> tuple[float, float]:
        """The least and greatest eigenvalue of H, or bounds on them, see `extreme_eigenvalues`."""
        if self.spectrum is not None:
            return self.spectrum
        return extreme_eigenvalues(self.matrix()) if self.blocks else (0.0, 0.0)


def extreme_eigenvalues(h: Tensor) -> tuple[float, float]:
    """The least and the greatest eigenvalue of a symmetric matrix; above size `EXACT`, bounds on them.

    The bounds are the tighter of Gershgorin's discs and the Frobenius norm. They may be wide, which makes
    for short steps; Lanczos is nearer but errs to the inside, and a step that rests on it could go uphill.
    """
    h = _single(h)
    if h.shape[-1] <= EXACT:
        values = torch.linalg.eigvalsh(h)
        return float(values[0]), float(values[-1])
    centre, norm = h.diagonal(), h.norm()
    radius = h.abs().sum(dim=-1) - centre.abs()
    least, greatest = float((centre - radius).min()), float((centre + radius).max())
    return max(least, -float(norm)), min(greatest, float(norm))


def is_positive_definite(h: Tensor) -> bool:
    """Whether a symmetric matrix (D, D) is positive definite."""
    return bool(torch.linalg.cholesky_ex(_single(h)).info == 0)


@dataclass(frozen=True, slots=True, eq=False)
class Cue:
    """The cue: 1/2 sum_m kappa_m |g_m - c_m|^2.

    ``codes``: c_m (..., d_m). ``kappa``: how far each is trusted, at least 0, for a modality or for each
    cue of it (...,). 0: missing, c_m is not looked at. Infinite: clamped, the code is c_m throughout.
    """

    codes: Codes
    kappa: Sequence[Scalar]

    def value(self, g: Codes) -> Tensor:
        """1/2 sum_m kappa_m |g_m - c_m|^2 without the clamped ones, (...,)."""
        return reduce(
            add,
            [cue_term(code, c, self.trust(m)) for m, (code, c) in enumerate(zip(g, self.codes, strict=True))],
        )

    def pull(self, g: Codes) -> Codes:
        """kappa_m (c_m - g_m), zero for the clamped ones."""
        return tuple(
            self.finite(m)[..., None] * (c - code)
            for m, (code, c) in enumerate(zip(g, self.codes, strict=True))
        )

    def clamp(self, g: Codes) -> Codes:
        """``g`` with the clamped codes put in."""
        return tuple(
            torch.where(self.trust(m).isinf()[..., None], c, code)
            for m, (code, c) in enumerate(zip(g, self.codes, strict=True))
        )

    def trust(self, m: int) -> Tensor:
        """kappa_m as a tensor."""
        return torch.as_tensor(self.kappa[m], dtype=self.codes[m].dtype, device=self.codes[m].device)

    def finite(self, m: int) -> Tensor:
        """kappa_m with 0 where the cue is clamped."""
        trust = self.trust(m)
        return torch.where(trust.isinf(), 0.0, trust)


@dataclass(frozen=True, slots=True, eq=False)
class Energy:
    """The energy of codes with one Lagrangian for each modality. Any of the terms may be left out."""

    lagrangians: tuple[Lagrangian, ...]
    slots: Slots | None = None
    couplings: Couplings | None = None
    cue: Cue | None = None

    @property
    def terms(self) -> tuple[Term, ...]:
        """The terms there are, besides the Lagrangians'."""
        return tuple(term for term in (self.slots, self.couplings, self.cue) if term is not None)

    def __call__(self, g: Codes) -> Tensor:
        """E(g), (...,)."""
        parts = [lagrangian.conjugate(code) for lagrangian, code in zip(self.lagrangians, g, strict=True)]
        return reduce(add, parts + [term.value(g) for term in self.terms])

    def pull(self, g: Codes) -> Codes:
        """v, minus the gradient of all terms but the Lagrangians'; E is at rest where x = v."""
        pulls = [term.pull(g) for term in self.terms] or [tuple(torch.zeros_like(code) for code in g)]
        return tuple(reduce(add, parts) for parts in zip(*pulls, strict=True))

    def activate(self, x: Codes) -> Codes:
        """The codes g_m = grad L_m(x_m) of pre-activations; clamped ones are the cue's, bit for bit."""
        g = tuple(lagrangian.activation(z) for lagrangian, z in zip(self.lagrangians, x, strict=True))
        return g if self.cue is None else self.cue.clamp(g)

    def curvature(self) -> tuple[Scalar, ...]:
        """delta_m >= 0, of a modality or of each cue of it, with diag(delta) + H - diag(kappa) >= 0.

        With the delta of each modality added to it, the energy without its Lagrangians is concave:
        delta_m = max(0, kappa_m - lambda_min(H)), and 0 where the code is clamped.
        """
        least = self.couplings.extremes()[0] if self.couplings is not None else 0.0
        coupled = self.couplings.sizes if self.couplings is not None else {}
        out: list[Scalar] = []
        for m in range(len(self.lagrangians)):
            bend = -least if m in coupled else 0.0
            if self.cue is None:
                out.append(max(0.0, bend))
                continue
            kappa = self.cue.kappa[m]
            if isinstance(kappa, Tensor):
                out.append(torch.where(kappa.isinf(), 0.0, kappa + bend).clamp(min=0.0))
            else:
                out.append(0.0 if kappa == float("inf") else max(0.0, kappa + bend))
        return tuple(out)


def slot_energy(
    view: Layout,
    queries: Sequence[MatrixQuery],
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


def _single(h: Tensor) -> Tensor:
    """In at least single precision, which decompositions need."""
    return h.detach().to(torch.promote_types(h.dtype, torch.float32))


def _wide(value: Scalar) -> Scalar:
    """Ready to be multiplied with (..., n)."""
    return value[..., None] if isinstance(value, Tensor) else value
