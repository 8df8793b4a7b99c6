"""Losses of the Cross-Modal Harmonic Network: differences of energies, never an energy alone.

The proposal trains by alpha E_retrieved + beta alignment + gamma contrastive. The first term has no lower
bound: the energy is fixed up to a constant only, and a learnt slot bias, a greater coupling or longer
memories lower it for every state at once, right or wrong, so that gradient descent runs off without learning
anything. Recall depends on how much lower the energy of the right record is than that of the others.
All losses here are unchanged when a number is added to all energies of a row.

Energies come from ``harmonia.memory`` (`Energy`): that of B cues settled, or clamped, at their
own record and at others. ``mask`` False: the candidate is not there, as for a record without the modality.
Rows without enough candidates are ignored. The losses do not communicate between ranks: each rank's mean is
over its own rows.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from harmonia.objectives.checks import check_mask, check_number, check_shape, full_precision
from harmonia.objectives.contrastive import FAR
from harmonia.types import HarmoniaError


@full_precision
def energy_margin(
    positive: Tensor, negative: Tensor, margin: float, *, hardest: bool = False, mask: Tensor | None = None
) -> Tensor:
    """Hinge loss: the energy of the right record lies below those of the others by ``margin``.

    L = mean_i mean_j max(0, margin + E+_i - E-_ij), or the greatest term of each row (``hardest``).

    Inputs: ``positive`` (B,), ``negative`` (B, n) energies, ``mask`` (B, n). Requirements: one negative for a
    row at least. Relations: zero once all margins are kept, where `energy_nce` goes on pulling; its hardest
    form is that of `image_text_matching` with s = -E.

    Reference: LeCun et al. 2006, "A Tutorial on Energy-Based Learning" (the hinge loss).

        loss = energy_margin(energy(own), energy(others), margin=1.0)
    """
    _check_energies(negative, 1, "negative")
    check_shape(positive, negative.shape[:1], "positive")
    check_number(margin, "margin")
    present = _present(mask, negative)
    over = F.relu(margin + positive[:, None] - negative).masked_fill(~present, 0.0)
    count = present.sum(dim=1)
    rows = over.amax(dim=1) if hardest else over.sum(dim=1) / count.clamp(min=1)
    return _mean(rows, count > 0)


@full_precision
def energy_nce(
    energies: Tensor, target: Tensor, beta: float | Tensor, *, mask: Tensor | None = None
) -> Tensor:
    """InfoNCE on -beta E: L = mean_i [ beta E_{i, target_i} + log sum_j exp(-beta E_ij) ], j over all.

    The negative log-likelihood of the right record under the Gibbs distribution of the energies.

    Inputs: ``energies`` (B, N), ``target`` (B,) integers, ``beta`` the inverse temperature (a number, or a
    tensor that learns), ``mask`` (B, N). Rows whose target is masked out take no part. Requirements: two
    candidates. Relations: with E = -<x_i, y_j> it is one direction of `info_nce` with scale beta.

    References: LeCun et al. 2006; van den Oord, Li and Vinyals 2018.

        loss = energy_nce(energies, target=torch.arange(len(energies)), beta=8.0)
    """
    return _told_apart(energies, target, beta, mask, leave_out=False)


@full_precision
def energy_loob(
    energies: Tensor, target: Tensor, beta: float | Tensor, *, mask: Tensor | None = None
) -> Tensor:
    """InfoLOOB on -beta E: `energy_nce` with the target left out of the sum.

    Its gradient does not fade once the target is likely, but it has no lower bound of its own: use it where
    the energies have one (the sphere, with couplings held in size), or with few steps.

    Inputs as in `energy_nce`. Reference: Poole et al. 2019; Fürst et al. 2022 (CLOOB).

        loss = energy_loob(energies, target, beta=8.0)
    """
    return _told_apart(energies, target, beta, mask, leave_out=True)


@full_precision
def bounded_harmonic_loss(
    energies: Tensor,
    target: Tensor,
    cosines: Tensor,
    *,
    alpha: float = 1.0,
    beta: float = 1.0,
    gamma: float = 1.0,
    margin: float = 1.0,
    scale: float | Tensor = 1.0,
    mask: Tensor | None = None,
    present: Tensor | None = None,
) -> Tensor:
    """The proposal's loss, alpha E_retrieved + beta alignment + gamma contrastive, with each term bounded.

    * retrieved: `energy_margin` of the right record against the others: how far E_retrieved is from lying
      below them by ``margin``, in the place of E_retrieved itself (see the top of this file);
    * alignment: the mean of 1 - cos between the settled code of a modality and the stored one, in [0, 2];
    * contrastive: `energy_nce` with the inverse temperature ``scale``.

    So L >= 0, whatever the weights of the network are, and L = 0 only in the limit of perfect recall.

    Inputs: ``energies`` (B, N), ``target`` (B,), ``cosines`` (B, M) one for each modality, ``mask`` (B, N)
    of candidates, ``present`` (B, M) False where the record lacks the modality. Weights of 0 or more.

        loss = bounded_harmonic_loss(energies, target, cosine_similarity(settled, stored, dim=-1))
    """
    for name, weight in (("alpha", alpha), ("beta", beta), ("gamma", gamma)):
        check_number(weight, name)
    _check_target(energies, target)
    there = _present(mask, energies)
    own = F.one_hot(target, energies.shape[1]).bool()
    positive = energies.gather(1, target[:, None]).squeeze(1)
    others = there & ~own & there.gather(1, target[:, None])
    retrieved = energy_margin(positive, energies, margin, mask=others)
    contrastive = energy_nce(energies, target, scale, mask=there)
    return alpha * retrieved + beta * _misaligned(cosines, present, len(energies)) + gamma * contrastive


def _told_apart(
    energies: Tensor, target: Tensor, beta: float | Tensor, mask: Tensor | None, leave_out: bool
) -> Tensor:
    _check_target(energies, target)
    check_number(beta, "beta")
    there = _present(mask, energies)
    own = F.one_hot(target, energies.shape[1]).bool()
    scores = -beta * energies
    kept = there & ~own if leave_out else there
    rows = scores.masked_fill(~kept, FAR).logsumexp(dim=1) - scores.gather(1, target[:, None]).squeeze(1)
    return _mean(rows, there.gather(1, target[:, None]).squeeze(1) & (there & ~own).any(dim=1))


def _misaligned(cosines: Tensor, present: Tensor | None, rows: int) -> Tensor:
    _check_energies(cosines, 1, "cosines")
    check_shape(cosines, (rows, cosines.shape[1]), "cosines")
    kept = _present(present, cosines, "present")
    return _mean((1.0 - cosines).flatten(), kept.flatten())


def _mean(rows: Tensor, valid: Tensor) -> Tensor:
    if not bool(valid.any()):
        raise HarmoniaError("the masks leave no row to learn from: each needs its own part and another")
    return rows.masked_fill(~valid, 0.0).sum() / valid.sum()


def _present(mask: Tensor | None, like: Tensor, name: str = "mask") -> Tensor:
    if mask is None:
        return torch.ones_like(like, dtype=torch.bool)
    check_mask(mask, tuple(like.shape), name)
    return mask


def _check_energies(energies: Tensor, least: int, name: str) -> None:
    if energies.dim() != 2 or len(energies) == 0 or energies.shape[1] < least:
        raise HarmoniaError(
            f"{name} must be (B, N) with a row and {least} columns at least, got {tuple(energies.shape)}"
        )


def _check_target(energies: Tensor, target: Tensor) -> None:
    _check_energies(energies, 2, "energies")
    if target.is_floating_point() or target.dtype == torch.bool:
        raise HarmoniaError(f"target must be integers, the columns of the right records, got {target.dtype}")
    check_shape(target, energies.shape[:1], "target")
    if bool(((target < 0) | (target >= energies.shape[1])).any()):
        raise HarmoniaError(f"target names a column outside the {energies.shape[1]} of energies")
