"""Descent: minimise the energy from a cue, for any Lagrangian, dense and differentiable.

The state is the pre-activation x_m, and g_m = grad L_m(x_m). With v(g) the pull of all terms but the
Lagrangians', the gradient of the energy is x - v, so it rests where x = v.

**CCCP** (Yuille and Rangarajan 2003). With delta_m = max(0, kappa_m - lambda_min(H)) the energy is

    [sum_m L_m*(g_m) + delta_m/2 |g_m|^2]  +  [a concave function]

(the slot term is concave, a convex Omega* of linear scores). If L_m* is mu_m-strongly convex, then
delta/2 |g' - g|^2 <= (delta/mu) D(g', g) with D the Bregman divergence of L*, so

    E(g') <= E(g) + sum_m (1 + delta_m/mu_m) D_m(g'_m, g_m) + <x_m - v_m, g'_m - g_m>

which is least at x' = (v + (delta/mu) x) / (1 + delta/mu) = x + eta (v - x), eta = 1 / (1 + delta/mu): a
closed form for every Lagrangian, and a mirror-descent step. The energy never rises. For the identity
(mu = 1) this is u / (1 + delta) with u = v + delta g, and E - E' >= (1 + delta)/2 |g' - g|^2. On the sphere
|g| is constant, so delta/2 |g|^2 changes nothing, what is left is concave, and x' = u, g' = u / |u|. Other
Lagrangians with mu = 0 need delta = 0.

**Euler**: one common eta for all modalities, the proposal's x + eta (v - x). Any smaller eta than CCCP's
goes down too, and for the identity any up to 2 / (1 + delta), at any beta, as the energy then lies below
the quadratic of curvature 1 + delta.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import reduce
from typing import Literal

import torch
from torch import Tensor

from harmonia.memory.energy import Codes, Energy, Scalar, is_positive_definite
from harmonia.memory.lagrangians import Identity, Power, Sphere

Method = Literal["cccp", "euler"]

# The adjoint iteration of the implicit gradient gives up after so many steps.
ADJOINT_STEPS = 5000


@dataclass(frozen=True, slots=True, eq=False)
class Descent:
    """The result of a descent.

    ``codes``: g_m (..., d_m). ``energies``: (2, ...), at the start and at the end; with ``trace`` also after
    each step, (T + 1, ...). ``steps`` (...): how many each cue took. ``converged`` (...): its last step moved
    no code by more than the tolerance. ``trace``: the codes at the start and after each step, if asked for.

    A code on the sphere that starts at zero, missing, is not on it yet: its energy counts delta_m/2 more,
    which is what taking up unit length costs at most, so that the energies never rise.
    """

    codes: Codes
    energies: Tensor
    steps: Tensor
    converged: Tensor
    trace: tuple[Codes, ...] | None = None


def descend(
    energy: Energy,
    start: Codes,
    *,
    method: Method = "cccp",
    steps: int = 64,
    tolerance: float = 1e-6,
    step_size: float | None = None,
    unsafe: bool = False,
    momentum: float = 0.0,
    trace: bool = False,
    implicit: bool = False,
) -> Descent:
    """Descend from pre-activations ``start`` (..., d_m) for at most ``steps`` steps.

    A missing modality starts at zero. A cue whose codes move by no more than ``tolerance`` rests and is left
    alone, so its answer does not depend on its batch. A tolerance of 0 takes all steps without looking at
    any value, as `torch.func.vmap` and `torch.compile` need (couplings have to be `measured` then, and with
    the identity all eigenvalues of H below 1).

    ``step_size`` is Euler's eta; by default the least of CCCP's over the modalities, half the bound for the
    identity. One above its bound needs ``unsafe``, and the energy may then rise. ``momentum`` in [0, 1) adds
    that much of the last move (heavy ball); a cue that would be higher for it takes this step without.

    The result is differentiable in all tensors of the energy, through every step; the step sizes count as
    constants. With ``implicit`` the gradient is that of the resting point by the implicit function theorem,
    with memory that does not grow with the steps: exact if the descent has converged, zero for the start, and
    the step has to be a contraction there, as it is at a strict minimum. Energies then carry no gradient.

    Raises ValueError for an energy without a lower bound, or with delta > 0 on a Lagrangian that allows none.
    """
    if not 0.0 <= momentum < 1.0:
        raise ValueError(f"momentum must be at least 0 and less than 1 (got {momentum})")
    if len(start) != len(energy.lagrangians):
        raise ValueError(f"{len(start)} codes for {len(energy.lagrangians)} Lagrangians; give one for each")
    if energy.couplings is not None:
        energy = replace(energy, couplings=energy.couplings.measured())
    _check_bounded(energy)
    rule = _rule(energy, method, step_size, unsafe)
    if not implicit:
        return _run(rule, start, steps, tolerance, momentum, trace)[0]
    with torch.no_grad():
        found, rest = _run(rule, start, steps, tolerance, momentum, trace)
    codes = energy.activate(_attached(rule.step, rest))
    return Descent(codes, found.energies, found.steps, found.converged, found.trace)


@dataclass(frozen=True, slots=True, eq=False)
class _Rule:
    """One step: x + eta (v - x), on the sphere with u = v + delta g for v."""

    energy: Energy
    delta: tuple[Scalar, ...]
    eta: tuple[Scalar, ...]

    def step(self, x: Codes, g: Codes | None = None) -> Codes:
        g = self.energy.activate(x) if g is None else g
        out = []
        for m, target in enumerate(self.energy.pull(g)):
            if isinstance(self.energy.lagrangians[m], Sphere):
                target = target + _wide(self.delta[m]) * g[m]
                # A zero pull leaves the code where it is.
                target = torch.where((target != 0).any(dim=-1, keepdim=True), target, x[m])
            out.append(x[m] + _wide(self.eta[m]) * (target - x[m]))
        return tuple(out)

    def height(self, g: Codes) -> Tensor:
        """The energy, which on the sphere may count delta/2 (1 - |g|^2), see `Descent`."""
        total = self.energy(g)
        for lagrangian, delta, code in zip(self.energy.lagrangians, self.delta, g, strict=True):
            if isinstance(lagrangian, Sphere):
                total = total + 0.5 * delta * (1.0 - (code**2).sum(dim=-1))
        return total


def _run(
    rule: _Rule, start: Codes, steps: int, tolerance: float, momentum: float, trace: bool
) -> tuple[Descent, Codes]:
    x, g = start, rule.energy.activate(start)
    energies, path = [rule.height(g)], [g]
    active = torch.ones_like(energies[0], dtype=torch.bool)
    taken = torch.zeros_like(energies[0], dtype=torch.long)
    velocity = tuple(torch.zeros_like(z) for z in x)
    for _ in range(steps):
        if tolerance > 0 and not bool(active.any()):
            break
        new = rule.step(x, g)
        if momentum:
            new = _lower(rule, new, tuple(z + momentum * u for z, u in zip(new, velocity, strict=True)))
        moved = rule.energy.activate(new)
        change = reduce(torch.maximum, [(a - b).norm(dim=-1) for a, b in zip(moved, g, strict=True)])
        velocity = tuple(a - b for a, b in zip(new, x, strict=True))
        x, g = _where(active, new, x), _where(active, moved, g)
        taken = taken + active
        active = active & ~(change <= tolerance)
        if trace:
            energies.append(rule.height(g))
            path.append(g)
    if not trace:
        energies.append(rule.height(g))
    return Descent(g, torch.stack(energies), taken, ~active, tuple(path) if trace else None), x


def _lower(rule: _Rule, plain: Codes, bold: Codes) -> Codes:
    """For each cue the bold move if its energy is no higher than that of the plain one, which never rises."""
    height = [rule.height(rule.energy.activate(x)) for x in (plain, bold)]
    return _where(height[1] <= height[0], bold, plain)


def _where(condition: Tensor, yes: Codes, no: Codes) -> Codes:
    return tuple(torch.where(condition[..., None], a, b) for a, b in zip(yes, no, strict=True))


def _rule(energy: Energy, method: Method, step_size: float | None, unsafe: bool) -> _Rule:
    delta = tuple(d.detach() if isinstance(d, Tensor) else d for d in energy.curvature())
    safe: list[Scalar] = []
    for lagrangian, d in zip(energy.lagrangians, delta, strict=True):
        if isinstance(lagrangian, Sphere):
            safe.append(1.0)
        elif lagrangian.convexity > 0:
            safe.append(1.0 / (1.0 + d / lagrangian.convexity))
        elif _greatest(d) > 0:
            raise ValueError(
                f"the conjugate of {lagrangian} is not strongly convex, so a noisy cue or a coupling with a "
                "negative eigenvalue has no descent step; clamp the cue, drop the coupling, or use Sphere"
            )
        else:
            safe.append(1.0)
    if method == "cccp":
        if step_size is not None:
            raise ValueError('step_size is for method="euler"; CCCP finds its own')
        return _Rule(energy, delta, tuple(safe))
    if method != "euler":
        raise ValueError(f'method is "cccp" or "euler" (got {method!r})')
    if step_size is None:
        return _Rule(energy, delta, (reduce(_least, safe),) * len(safe))
    twice = [2.0 if isinstance(lagrangian, Identity) else 1.0 for lagrangian in energy.lagrangians]
    bound = min(-_greatest(-k * eta) for k, eta in zip(twice, safe, strict=True))
    if not step_size > 0 or (step_size > bound and not unsafe):
        raise ValueError(
            f"step_size must be above 0 and at most {bound:.6g}, or the energy may rise (got {step_size}); "
            "unsafe=True takes it all the same"
        )
    return _Rule(energy, delta, (step_size,) * len(safe))


def _check_bounded(energy: Energy) -> None:
    """Where codes may be of any length, H must lie below mu + kappa, or the energy falls without end.

    Of each modality the least kappa of all cues is taken, so that one matrix decides.
    """
    couplings = energy.couplings
    if couplings is None:
        return
    stiff = {m: energy.lagrangians[m].convexity for m in couplings.sizes}
    free = [m for m in stiff if isinstance(energy.lagrangians[m], Identity | Power)]
    if not free or couplings.extremes()[1] < min(stiff[m] for m in free):
        return
    if energy.cue is not None:
        stiff = {m: stiff[m] - _greatest(-energy.cue.kappa[m]) for m in free}
        free = [m for m in free if stiff[m] < float("inf")]
    h = couplings.matrix(free)
    diagonal = [h.new_full((couplings.sizes[m],), stiff[m]) for m in free]
    if free and not is_positive_definite(torch.diag(torch.cat(diagonal)) - h):
        raise ValueError(
            "the energy has no lower bound: with the identity, all eigenvalues of H must be less than "
            "1 + kappa; scale the couplings down, trust the cue more, or use Sphere"
        )


def _attached(step: Callable[[Codes], Codes], rest: Codes) -> Codes:
    """The fixed point x = T(x), with the gradient of the implicit function theorem.

    dx = (I - J)^-1 dT, so a gradient w is turned into (I - J^T)^-1 w, the limit of z <- w + J^T z, before
    it goes back through the one step T.
    """
    sizes = [x.shape[-1] for x in rest]

    def flat_step(x: Tensor) -> Tensor:
        return torch.cat(step(torch.split(x, sizes, dim=-1)), dim=-1)

    point = torch.cat(rest, dim=-1).detach()
    out = flat_step(point)
    if not out.requires_grad:
        return rest
    with torch.enable_grad():
        inner = point.requires_grad_()
        again = flat_step(inner)

    def solve(w: Tensor) -> Tensor:
        z = w
        stop = torch.finfo(w.dtype).eps ** 0.75
        for _ in range(ADJOINT_STEPS):
            (back,) = torch.autograd.grad(again, inner, z, retain_graph=True)
            new = w + back
            if bool((new - z).norm() <= stop * new.norm()):
                return new
            z = new
        raise RuntimeError(
            f"the implicit gradient was not found in {ADJOINT_STEPS} steps: the descent does not contract "
            "where it rests; differentiate through the steps instead (implicit=False)"
        )

    out.register_hook(solve)  # type: ignore[no-untyped-call]
    return torch.split(out, sizes, dim=-1)


def _greatest(value: Scalar) -> float:
    return float(value.max()) if isinstance(value, Tensor) else float(value)


def _least(a: Scalar, b: Scalar) -> Scalar:
    if isinstance(a, Tensor) and isinstance(b, Tensor):
        return torch.minimum(a, b)
    if isinstance(a, Tensor):
        return a.clamp(max=b)
    return b.clamp(max=a) if isinstance(b, Tensor) else min(a, b)


def _wide(value: Scalar) -> Scalar:
    return value[..., None] if isinstance(value, Tensor) else value
