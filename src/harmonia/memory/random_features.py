"""A memory of constant size: the sum of random features of all codes, without the codes.

With features Phi whose inner products estimate the Gaussian kernel,

    E <Phi(x), Phi(g)> = K(x, g) = exp(-beta/2 |x - g|^2)        T = sum_n Phi(x_n)

the kernel sum S(g) = <Phi(g), T> estimates sum_n K(x_n, g), and with it the energy (Hoover et al. 2024,
"Dense associative memory through the lens of random features")

    E(g) = -(1/beta) log max(S(g), floor)

T has 2 Y numbers for Y frequencies, whatever has been inserted; inserting and deleting are T +- Phi(x). The
frequencies are Y d numbers more, which memories may share. Both kinds of features hold the pair of each
frequency w ~ N(0, I), with z = sqrt(beta) x:

    trigonometric   cos <w, z>, sin <w, z>,                   over sqrt(Y)      (Rahimi and Recht 2007)
    positive        exp(<w, z> - |z|^2), exp(-<w, z> - |z|^2), over sqrt(2 Y)   (Choromanski et al. 2020)

**Two forms, one energy.** 1/2 |g|^2 is in it: E = 1/2 |g|^2 - (1/beta) log sum_n exp(beta <x_n, g> - beta/2
|x_n|^2), the modern Hopfield energy with its Lagrangian's term. On the unit sphere it is that of softmax
attention, -(1/beta) log sum_n exp(beta <x_n, g>), plus 1.

**Error.** Trigonometric features err in S by about |T| / sqrt(2 Y) wherever g is: sqrt(N / 2 Y) for codes
whose kernels with each other are small. A held code stands out by 1, and a cue at cosine c sees it as
exp(-beta (1 - c)), so sharp recall needs (N / 2 Y) exp(2 beta (1 - c)) to be small, and
the gradient, in d numbers, errs by more than the sum: docs/kernels.md has what was measured. Positive
features err in proportion to each kernel, by sqrt((cosh A - 1) / Y) of it with A = beta |x + g|^2: for beta
of about 1 and less. The exact scan (`attend`) is the faster and smaller way to sharp recall; this is for the
smooth energy of small beta.

**Floor.** Where the estimate lies below the floor (trigonometric sums may be negative) the energy is flat and
its gradient 0: nothing is known there.

**Descent.** This energy is no longer a concave slot term, so the concave-convex step does not bound it. What
is left is gradient descent with Armijo's backtracking: the energy never rises, and a cue rests where no step
lowers it, which may be a dip of the noise.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal, get_args

import torch
from torch import Tensor

Kind = Literal["trigonometric", "positive"]

# The least kernel sum that the energy tells from nothing; one held code gives 1 at its place.
FLOOR = 1e-12
# Features computed at once, in numbers.
BLOCK = 1 << 22
# A step is taken if it gives this share of the decrease that the slope promises (Armijo 1966) ...
ARMIJO = 1e-4
# ... else it is halved, so often at most.
HALVINGS = 24


def draw_frequencies(
    size: int,
    count: int,
    *,
    seed: int = 0,
    orthogonal: bool = False,
    dtype: torch.dtype = torch.float32,
    device: torch.device | str = "cpu",
) -> Tensor:
    """Frequencies w ~ N(0, I), ``(count, size)``; the same for a seed on every device.

    ``orthogonal``: those of one run of ``size`` are at right angles to each other, which lowers the error
    where kernels are not small (Yu et al. 2016, "Orthogonal random features").
    """
    if size < 1 or count < 1:
        raise ValueError(f"frequencies need at least one number and one row (got {count} x {size})")
    generator = torch.Generator().manual_seed(seed)
    out = torch.empty(count, size, dtype=dtype)
    rows = size if orthogonal else min(count, max(1, BLOCK // size))
    for first in range(0, count, rows):
        last = min(count, first + rows)
        drawn = torch.randn(rows, size, generator=generator, dtype=torch.float64)
        if orthogonal:
            turned, upper = torch.linalg.qr(drawn.T)
            # With the signs of R the turn is uniform (Mezzadri 2007); the lengths are drawn anew.
            again = torch.randn(size, size, generator=generator, dtype=torch.float64).norm(dim=-1)
            drawn = (turned * upper.diagonal().sign()).T * again[:, None]
        out[first:last] = drawn[: last - first]
    return out.to(device)


@dataclass(frozen=True, slots=True, eq=False)
class Rest:
    """The result of a descent: ``codes`` (..., d); ``steps`` and ``converged`` (...).

    ``energies`` (T + 1, ...) at the start and after each step; a cue at rest keeps its own.
    """

    codes: Tensor
    energies: Tensor
    steps: Tensor
    converged: Tensor


class KernelMemory:
    """T = sum Phi(x) over ``frequencies`` (Y, d), see the module; an empty one to begin with.

    Codes of any floating type and device are brought to those of the frequencies; T is summed in float64.
    Reading Q cues takes memory for Q x Y numbers, a few times.
    """

    def __init__(
        self, frequencies: Tensor, beta: float, *, kind: Kind = "trigonometric", floor: float = FLOOR
    ) -> None:
        if frequencies.ndim != 2 or not frequencies.is_floating_point():
            raise ValueError("frequencies are a floating matrix (Y, d); draw_frequencies makes one")
        if not 0 < beta < math.inf:
            raise ValueError(f"beta must be above 0 and finite (got {beta})")
        if kind not in get_args(Kind):
            raise ValueError(f"kind is one of {', '.join(get_args(Kind))} (got {kind!r})")
        if not floor > 0:
            raise ValueError(f"floor must be above 0, as its logarithm is taken (got {floor})")
        self.frequencies, self.beta, self.kind, self.floor = frequencies, beta, kind, floor
        # T (2, Y): the first and the second feature of each frequency.
        self.total = torch.zeros(2, len(frequencies), dtype=torch.float64, device=frequencies.device)
        # The sum of the weights, and of weight^2 |Phi|^2.
        self.count = 0.0
        self.own = 0.0

    @property
    def nbytes(self) -> int:
        """Bytes of T, which do not depend on what is held; the frequencies have bytes of their own."""
        return self.total.nbytes

    def features(self, codes: Tensor) -> Tensor:
        """Phi, ``(..., d)`` to ``(..., 2 Y)``."""
        return self._pair(self._scaled(codes)).flatten(-2)

    def insert(self, codes: Tensor, weights: Tensor | None = None) -> None:
        """T + sum weight * Phi over codes ``(n, d)`` or one ``(d,)``; ``weights`` (n,), by default 1.

        A slot bias b is the weight exp(beta b). Codes that are not finite raise ValueError; nothing is added.
        """
        self._add(codes, weights, 1.0)

    def delete(self, codes: Tensor, weights: Tensor | None = None) -> None:
        """T - sum weight * Phi: as if these had never been inserted, up to rounding.

        Whether they ever were cannot be known from T; what was not leaves a hole.
        """
        self._add(codes, weights, -1.0)

    def kernel_sum(self, g: Tensor) -> Tensor:
        """S(g), the estimate of sum_n K(x_n, g), ``(..., d)`` to ``(...)``; it may be below 0."""
        return self._sum(self._pair(self._scaled(g)))

    def standard_error(self, g: Tensor) -> Tensor:
        """The standard error of ``kernel_sum`` (...), from the spread over the frequencies at ``g``.

        Too large for orthogonal frequencies, too small for positive features of large beta (a heavy tail).
        """
        pair = self._pair(self._scaled(g))
        terms = (pair * self.total.to(pair.dtype)).sum(dim=-2)
        return terms.std(dim=-1) * math.sqrt(len(self.frequencies))

    def energy(self, g: Tensor) -> Tensor:
        """E(g) = -(1/beta) log max(S(g), floor), ``(..., d)`` to ``(...)``."""
        return -self.kernel_sum(g).clamp(min=self.floor).log() / self.beta

    def gradient(self, g: Tensor) -> Tensor:
        """The gradient of the energy in closed form, ``(..., d)``; 0 where S(g) is below the floor.

        With enough frequencies it tends to g - sum_n p_n x_n with p = softmax(-beta/2 |x - g|^2).
        """
        z = self._scaled(g)
        pair = self._pair(z)
        a, b = pair.unbind(-2)
        first, second = self.total.to(pair.dtype)
        kernel_sum = self._sum(pair)
        # What S changes by with <w, z>, for each frequency.
        change = a * second - b * first if self.kind == "trigonometric" else a * first - b * second
        slope = change @ self.frequencies
        if self.kind == "positive":
            slope = slope - 2.0 * kernel_sum[..., None] * z
        known = (kernel_sum > self.floor)[..., None]
        return torch.where(known, -slope / kernel_sum[..., None] / math.sqrt(self.beta), 0.0)

    def novelty(self, g: Tensor) -> Tensor:
        """E(g) minus the energy of chance, (...): how little of what is held is like ``g``.

        Chance is what a held code sees of the others on average, (|T|^2 - sum |Phi(x_n)|^2) / N, which T
        knows. About 0 for a code of the same kind, below 0 for one that is held or has many alike, above 0
        for a strange one; infinite while nothing is held.
        """
        if self.count <= 0:
            return torch.full_like(self.energy(g), math.inf)
        pairs = float((self.total**2).sum()) - self.own
        # It is itself known up to about own / sqrt(Y).
        chance = max(pairs, self.own / math.sqrt(len(self.frequencies))) / self.count
        return self.energy(g) + math.log(chance) / self.beta

    @torch.no_grad()
    def descend(
        self, start: Tensor, *, steps: int = 64, tolerance: float = 1e-4, sphere: bool = True
    ) -> Rest:
        """Gradient descent with backtracking from ``start`` (..., d), on the unit sphere or without it.

        A step begins at length 1, where it is the exact memory's own (mean shift, on the sphere that of
        softmax attention), and is halved until the energy falls by enough. A cue that moves by no more than
        ``tolerance``, or that no step lowers, rests. Nothing of this carries a gradient.
        """
        g = self._own(start).reshape(-1, start.shape[-1])
        g = _unit(g) if sphere else g
        height, active = self.energy(g), torch.ones(len(g), dtype=torch.bool, device=g.device)
        taken, energies = torch.zeros(len(g), dtype=torch.long, device=g.device), [height]
        for _ in range(steps):
            at = active.nonzero()[:, 0]
            if not len(at):
                break
            moved, lower = self._step(g[at], height[at], sphere)
            far = (moved - g[at]).norm(dim=-1) > tolerance
            g, height = g.index_copy(0, at, moved), height.index_copy(0, at, lower)
            taken[at] += 1
            active[at] = far
            energies.append(height)
        shape = start.shape[:-1]
        trace = torch.stack(energies).reshape(-1, *shape)
        return Rest(g.reshape(start.shape), trace, taken.reshape(shape), ~active.reshape(shape))

    def to(self, device: torch.device | str) -> KernelMemory:
        """The same memory on a device."""
        return self.restore({key: value.to(device) for key, value in self.state().items()})

    def state(self) -> dict[str, Tensor]:
        """All of it as tensors, for any format that holds tensors; ``restore`` takes them."""
        scalars = [self.beta, self.floor, self.count, self.own, float(get_args(Kind).index(self.kind))]
        return {
            "frequencies": self.frequencies,
            "total": self.total.clone(),
            "scalars": torch.tensor(scalars, dtype=torch.float64),
        }

    @classmethod
    def restore(cls, state: Mapping[str, Tensor]) -> KernelMemory:
        """The memory whose ``state`` this is."""
        beta, floor, count, own, kind = state["scalars"].tolist()
        memory = cls(state["frequencies"], beta, kind=get_args(Kind)[int(kind)], floor=floor)
        if state["total"].shape != memory.total.shape:
            raise ValueError("T and the frequencies of this state do not belong together")
        memory.total, memory.count, memory.own = state["total"].clone(), count, own
        return memory

    @torch.no_grad()
    def _add(self, codes: Tensor, weights: Tensor | None, sign: float) -> None:
        z = self._scaled(codes).reshape(-1, codes.shape[-1])
        w = torch.ones(len(z), dtype=torch.float64) if weights is None else weights.reshape(-1).double()
        if len(w) != len(z):
            raise ValueError(f"{len(w)} weights for {len(z)} codes; give one for each")
        w, change, own = w.to(z.device), torch.zeros_like(self.total), 0.0
        rows = max(1, BLOCK // self.total.numel())
        for part, share in zip(torch.split(z, rows), torch.split(w, rows), strict=True):
            phi = self._pair(part).flatten(1).double()
            change += (share @ phi).view_as(change)
            own += float((share**2 * (phi**2).sum(dim=-1)).sum())
        if not bool(change.isfinite().all()):
            raise ValueError("codes or weights are not finite, or too great; nothing was changed")
        self.total += sign * change
        self.count += sign * float(w.sum())
        self.own += sign * own

    def _step(self, g: Tensor, height: Tensor, sphere: bool) -> tuple[Tensor, Tensor]:
        """A step downhill from ``g`` (Q, d) of energies ``height``, and the energies there."""
        slope = self.gradient(g)
        tangent = slope - (slope * g).sum(dim=-1, keepdim=True) * g if sphere else slope
        least = ARMIJO * (tangent**2).sum(dim=-1)
        moved, lower, eta = g.clone(), height.clone(), 1.0
        waiting = least.nonzero()[:, 0]
        for _ in range(HALVINGS):
            if not len(waiting):
                break
            tried = g[waiting] - eta * slope[waiting]
            tried = _unit(tried) if sphere else tried
            found = self.energy(tried)
            good = found <= height[waiting] - eta * least[waiting]
            moved[waiting[good]], lower[waiting[good]] = tried[good], found[good]
            waiting, eta = waiting[~good], eta / 2.0
        return moved, lower

    def _sum(self, pair: Tensor) -> Tensor:
        return pair.flatten(-2) @ self.total.to(pair.dtype).flatten()

    def _own(self, codes: Tensor) -> Tensor:
        if codes.shape[-1] != self.frequencies.shape[1]:
            raise ValueError(f"codes have {codes.shape[-1]} numbers, frequencies {self.frequencies.shape[1]}")
        return codes.to(self.frequencies)

    def _scaled(self, codes: Tensor) -> Tensor:
        return self._own(codes) * math.sqrt(self.beta)

    def _pair(self, z: Tensor) -> Tensor:
        """Phi as (..., 2, Y)."""
        phase = z @ self.frequencies.T
        count = len(self.frequencies)
        if self.kind == "trigonometric":
            return torch.stack([phase.cos(), phase.sin()], dim=-2) / math.sqrt(count)
        square = (z**2).sum(dim=-1, keepdim=True)
        return torch.stack([(phase - square).exp(), (-phase - square).exp()], dim=-2) / math.sqrt(2.0 * count)


def _unit(codes: Tensor) -> Tensor:
    return torch.nn.functional.normalize(codes, dim=-1)
