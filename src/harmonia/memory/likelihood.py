"""How much more likely a cue and a stored code are of one record than of two: log-likelihood ratios.

Cue c and code x are taken to be normal, with the covariances that pairs of them show. In their canonical
directions (Hotelling 1936) u_i of c and v_i of x have variance 1, correlation l_i, and are independent of all
others, so the logarithm of p(c, x) / (p(c) p(x)) is

    LLR(c, x) = sum_i  l_i / (1 - l_i^2) u_i v_i  -  l_i^2 / (2 (1 - l_i^2)) (u_i^2 + v_i^2)  -  log(1 -
    l_i^2) / 2

or c' P x + b(x) + b(c): a product of the cue P c with codes that have one number b(x) more, so the energy
keeps its form. Unlike a cosine it has a meaning by itself: what is damaged says less, directions that tell
records apart count more, and the evidence of several cues adds.

Between codes of one modality the pairs are other captions of a photo, or damaged copies of it, and the model
is that of two covariances (Ioffe 2006, "Probabilistic linear discriminant analysis"; Brummer and de Villiers
2010, "The speaker partitioning problem"): x = y + e with y of the record, so l is the share of a direction's
variance that is between records. Between modalities it is probabilistic canonical correlation analysis (Bach
and Jordan 2005), in closed form from the records that hold both, and P is the coupling of the two. Codes are
of unit length (Garcia-Romero and Espy-Wilson 2011).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace

import torch
from torch import Tensor

from harmonia.memory.matrix import Centering

# Added to the variance in every direction, as a share of its mean over all of them: for damages and words
# that were not seen, and few pairs. Within a modality to the variance within records; between modalities to
# that of the cues and that of the codes.
RIDGE, CUE_RIDGE, CODE_RIDGE = 1.0, 0.3, 1.0
# Codes and pairs that a prior is worth: codes alike in all directions, with this share between records.
PRIOR_COUNT, PRIOR_SHARE = 8.0, 0.5
# Directions of a smaller correlation tell no records apart and are left out.
LEAST_CORRELATION = 1e-3


@dataclass(frozen=True, slots=True, eq=False)
class LikelihoodRatio:
    """The model of one kind of pair, over centred unit codes.

    ``scale`` turns ratios into nats: codes are not quite normal, and ratios of many directions are
    overconfident. ``cue_mean`` (d_c,) and ``mean`` (d_x,) are subtracted; ``cue_basis`` (d_c, r) and
    ``basis`` (d_x, r) are the canonical directions, and ``correlation`` (r,) is theirs. ``own_scale`` is the
    typical size of b(x).
    """

    cue_mean: Tensor
    cue_basis: Tensor
    mean: Tensor
    basis: Tensor
    correlation: Tensor
    own_scale: float = 1.0
    scale: float = 1.0

    @classmethod
    def within(cls, x: Tensor, apart: Tensor, *, ridge: float = RIDGE) -> LikelihoodRatio:
        """Between codes of one modality: centred stored codes ``x`` (n, d), and ``apart`` (m, d), how far the
        cue of each of m pairs lies from the code of its record.

        Raises ValueError without a pair.
        """
        if not len(apart):
            raise ValueError("the variance within records needs a pair of a cue and a code of its record")
        dtype, mean, d = x.dtype, x.double().mean(dim=0), x.shape[1]
        y, apart = x.double() - mean, apart.double()
        unit = torch.eye(d, dtype=torch.float64, device=x.device)
        known = len(y) / (len(y) + PRIOR_COUNT)
        total = known * y.T @ y / len(y) + (1.0 - known) * unit / d
        known = len(apart) / (len(apart) + PRIOR_COUNT)
        noise = known * 0.5 * apart.T @ apart / len(apart) + (1.0 - known) * (1.0 - PRIOR_SHARE) * unit / d
        between = _positive(total - noise)
        noise = noise + ridge * noise.diagonal().mean() * unit
        white = _inverse_root(between + noise)
        share, turn = torch.linalg.eigh(white @ between @ white)
        basis = white @ turn
        return cls._of(mean, basis, mean, basis, share, x, dtype)

    @classmethod
    def between(
        cls, c: Tensor, x: Tensor, of: Tensor, *, cue_ridge: float = CUE_RIDGE, ridge: float = CODE_RIDGE
    ) -> LikelihoodRatio:
        """Between modalities: centred cues ``c`` (m, d_c), cue i of the record of the code ``of[i]`` of
        ``x``.

        ``x`` (n, d_x) may hold codes without a cue. Raises ValueError without a pair.
        """
        if not len(c):
            raise ValueError("canonical correlation needs a pair of a cue and a code of its record")
        dtype, cue_mean, mean = x.dtype, c.double().mean(dim=0), x.double().mean(dim=0)
        u, v = c.double() - cue_mean, x.double() - mean
        left = _inverse_root(_ridged(u.T @ u / len(u), cue_ridge))
        right = _inverse_root(_ridged(v.T @ v / len(v), ridge))
        few = len(u) / (len(u) + PRIOR_COUNT)
        turn, correlation, back = torch.linalg.svd(
            few * left @ (u.T @ v[of] / len(u)) @ right, full_matrices=False
        )
        return cls._of(cue_mean, left @ turn, mean, right @ back.T, correlation, x, dtype)

    @classmethod
    def _of(
        cls,
        cue_mean: Tensor,
        cue_basis: Tensor,
        mean: Tensor,
        basis: Tensor,
        correlation: Tensor,
        x: Tensor,
        dtype: torch.dtype,
    ) -> LikelihoodRatio:
        kept = correlation > LEAST_CORRELATION
        model = cls(
            cue_mean.to(dtype),
            cue_basis[:, kept].to(dtype),
            mean.to(dtype),
            basis[:, kept].to(dtype),
            correlation[kept].clamp(max=1.0 - 1e-6).to(dtype),
        )
        return replace(model, own_scale=max(float(model.own(x).abs().mean()), 1e-6))

    @property
    def gain(self) -> Tensor:
        """How much a direction counts: l / (1 - l^2), (r,)."""
        return self.correlation / (1.0 - self.correlation**2)

    def _own(self, y: Tensor) -> Tensor:
        """b (...,) of canonical variables: half of the constant is in the cue's, half in the code's."""
        constant = -0.25 * torch.log1p(-(self.correlation**2)).sum()
        return constant - 0.5 * y**2 @ (self.correlation * self.gain)

    def own(self, x: Tensor) -> Tensor:
        """b(x) (...,) of centred codes ``(..., d_x)``."""
        return self._own((x - self.mean) @ self.basis)

    def query(self, cues: Tensor) -> Tensor:
        """P c (..., d_x) of centred cues ``(..., d_c)``."""
        turned: Tensor = (((cues - self.cue_mean) @ self.cue_basis) * self.gain) @ self.basis.T
        return turned

    def pull(self, x: Tensor) -> Tensor:
        """The gradient (..., d_c) of ``query(c) @ x`` by the cue."""
        pulled: Tensor = ((x @ self.basis) * self.gain) @ self.cue_basis.T
        return pulled

    def level(self, cues: Tensor) -> Tensor:
        """What centred cues ``(..., d_c)`` add to the ratio with every code, (...,)."""
        u = (cues - self.cue_mean) @ self.cue_basis
        return self._own(u) - (u * self.gain) @ (self.mean @ self.basis)

    def to(self, device: torch.device) -> LikelihoodRatio:
        """The same model on a device."""
        return replace(
            self,
            cue_mean=self.cue_mean.to(device),
            cue_basis=self.cue_basis.to(device),
            mean=self.mean.to(device),
            basis=self.basis.to(device),
            correlation=self.correlation.to(device),
        )


@dataclass(frozen=True, slots=True, eq=False)
class RatioFrame(Centering):
    """The centring of a matrix whose codes are scored by likelihood ratios as well.

    ``ratios`` are the models by the matrix whose kind of codes the cues are. A stored code is the centred
    unit code, and behind it b(x) of each model, in their order, divided by its typical size.
    """

    ratios: Mapping[str, LikelihoodRatio] = field(default_factory=dict)

    @classmethod
    def over(cls, centring: Centering, ratios: Mapping[str, LikelihoodRatio]) -> RatioFrame:
        """A centring with models on top."""
        return cls(centring.mean, centring.moment, centring.rest, dict(ratios))

    def width(self, d: int) -> int:
        """How many numbers a stored code has, for raw codes of ``d``."""
        return d + len(self.ratios)

    def transform(self, codes: Tensor) -> Tensor:
        """Raw codes ``(..., d)`` as they are stored, ``(..., d + models)``."""
        x = Centering.transform(self, codes)
        own = [model.own(x)[..., None] / model.own_scale for model in self.ratios.values()]
        return torch.cat([x, *own], dim=-1)

    def query(self, cues: Tensor, origin: str) -> Tensor:
        """Centred cues as they are multiplied with stored codes; by cosines where there is no such model."""
        numbers = {name: i for i, name in enumerate(self.ratios)}
        model = self.ratios.get(origin)
        own = cues.new_zeros(*cues.shape[:-1], len(numbers))
        if model is None:
            return torch.cat([cues, own], dim=-1)
        own[..., numbers[origin]] = model.own_scale
        return torch.cat([model.query(cues), own], dim=-1)

    def pull(self, codes: Tensor, origin: str) -> Tensor:
        """The gradient of the scores ``query(cue, origin) @ codes`` of stored codes by the cue."""
        x, model = self.centred(codes), self.ratios.get(origin)
        return x if model is None else model.pull(x)

    def centred(self, stored: Tensor) -> Tensor:
        """The centred codes ``(..., d)`` in stored ones."""
        return stored[..., : len(self.mean)]

    def inverse_transform(self, codes: Tensor) -> Tensor:
        """Stored codes, or centred ones, back to raw unit codes ``(..., d)``."""
        return Centering.inverse_transform(self, self.centred(codes))

    def to(self, device: torch.device) -> RatioFrame:
        """The same frame on a device."""
        moved = {name: model.to(device) for name, model in self.ratios.items()}
        return RatioFrame.over(Centering.to(self, device), moved)


def _ridged(matrix: Tensor, ridge: float) -> Tensor:
    return matrix + ridge * matrix.diagonal().mean() * torch.eye(len(matrix), dtype=matrix.dtype).to(matrix)


def _positive(matrix: Tensor) -> Tensor:
    values, vectors = torch.linalg.eigh(matrix)
    found: Tensor = (vectors * values.clamp(min=0.0)) @ vectors.T
    return found


def _inverse_root(matrix: Tensor) -> Tensor:
    values, vectors = torch.linalg.eigh(matrix)
    found: Tensor = (vectors * values.clamp(min=1e-12).rsqrt()) @ vectors.T
    return found
