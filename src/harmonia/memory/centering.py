"""Centring of the codes of one matrix: the mean and second moment of the stored codes.

Real encoders put all their codes in a narrow cone, so that unrelated items have a large cosine.
Subtracting the mean removes that offset and reduces hubs, records that answer every cue
(Suzuki et al. 2013, "Centering similarity measures to reduce hubs"). The covariance gives the
standard deviation of a cue's cosines with unrelated codes.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

# Shrinks the mean of few codes towards zero, by this number of zero codes: a single record must not be
# centred to zero.
PRIOR_COUNT = 4.0
# Rows beyond this many are sampled evenly for the statistics.
SAMPLE = 65_536


@dataclass(frozen=True, slots=True, eq=False)
class Centering:
    """Mean ``(d,)`` of raw codes, and second moment ``(d, d)`` of the centred unit codes.

    ``rest`` (d,) is the mean where codes are not centred (else zero): each cue's own mean cosine is then
    subtracted from its scores instead. Use that for codes in which a zero means that nothing was seen, since
    subtracting a mean would turn such zeros into content.
    """

    mean: Tensor
    moment: Tensor
    rest: Tensor

    @classmethod
    def fit(cls, codes: Tensor, *, centre: bool = True) -> Centering:
        """From raw codes ``(n, d)``, n >= 1; evenly sampled when there are very many."""
        sample = codes[:: max(1, -(-codes.shape[0] // SAMPLE))]
        sample = sample if sample.dtype == torch.float64 else sample.float()
        mean = sample.sum(dim=0) / (sample.shape[0] + PRIOR_COUNT)
        return cls.of(mean, sample, centre=centre)

    @classmethod
    def of(cls, mean: Tensor, sample: Tensor, *, centre: bool = True) -> Centering:
        """The centring with a known mean, of raw codes ``(n, d)``."""
        none = torch.zeros_like(mean)
        mean, rest = (mean, none) if centre else (none, mean)
        centred = torch.nn.functional.normalize(sample - mean, dim=-1)
        return cls(mean, centred.T @ centred / centred.shape[0], rest)

    def to(self, device: torch.device) -> Centering:
        """The same centring on a device."""
        return Centering(self.mean.to(device), self.moment.to(device), self.rest.to(device))

    def transform(self, codes: Tensor) -> Tensor:
        """Raw codes ``(..., d)`` to centred unit codes."""
        return torch.nn.functional.normalize(codes - self.mean, dim=-1)

    def transform_cue(self, cues: Tensor) -> Tensor:
        """Raw cues ``(..., d)`` to centred unit cues.

        A damaged cue contains less of the common mean than a stored code does, so only the cue's own
        projection on the mean, between none and all of it, is subtracted.
        """
        shown = (cues @ self.mean) / (self.mean @ self.mean).clamp(min=1e-12)
        cleared = cues - shown.clamp(0.0, 1.0)[..., None] * self.mean
        return torch.nn.functional.normalize(cleared, dim=-1)

    def inverse_transform(self, codes: Tensor) -> Tensor:
        """Centred unit codes ``(..., d)`` back to raw unit codes: the inverse of ``transform``."""
        along = codes @ self.mean
        scale = (along**2 + 1.0 - self.mean @ self.mean).clamp(min=0.0).sqrt() - along
        return torch.nn.functional.normalize(codes * scale[..., None] + self.mean, dim=-1)

    def spread(self, cue: Tensor) -> Tensor:
        """Standard deviation of the cosines between cues ``(..., d)`` and the stored codes."""
        square = ((cue @ self.moment) * cue).sum(dim=-1) - self.level(cue) ** 2
        return square.clamp(min=1e-8).sqrt()

    def chance(self) -> Tensor:
        """Root mean square of ``spread`` over the stored codes."""
        return (self.moment - torch.outer(self.rest, self.rest)).square().sum().sqrt()

    def level(self, cue: Tensor) -> Tensor:
        """Mean of the cosines between cues ``(..., d)`` and the stored codes; 0 for centred codes."""
        return cue @ self.rest
