"""Storage of codes: their centring, and an optional quantised copy that a scan reads first.

Real encoders put all their codes in a narrow cone, so that unrelated items have a large cosine.
Subtracting the mean removes that offset and reduces hubs, records that answer every cue
(Suzuki et al. 2013, "Centering similarity measures to reduce hubs"). The covariance gives the
standard deviation of a cue's cosines with unrelated codes.

A scan of many cues is bound by arithmetic, a scan of one by memory bandwidth. A copy in bfloat16 or int8
makes both several times as fast. Its quantisation error is measured, so every slot that it cannot rule out
is scored again in full precision, and the result is that of the full scan.
"""

from __future__ import annotations

import math
import time
from copy import copy
from dataclasses import dataclass
from functools import cache
from typing import Literal

import numpy as np
import simsimd
import torch
from torch import Tensor

Precision = Literal["float32", "float16", "int8"]
PRECISIONS: tuple[Precision, ...] = ("float32", "float16", "int8")

# From this number of cues on, scanning in bfloat16 and scoring candidates again is faster.
MANY_CUES = 8
# A matrix of fewer rows is scanned in less time than its copy takes to make.
MANY_ROWS = 8192
# Rows transformed at once when a matrix is made.
CHUNK = 65_536
# Rounding of one float32 inner product of unit vectors, generously.
ROUNDING = 1e-6


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

    def width(self, d: int) -> int:
        """How many numbers a stored code has, for raw codes of ``d``."""
        return d

    def query(self, cues: Tensor, origin: str) -> Tensor:
        """Centred cues, of codes like those of the matrix ``origin``, as they are multiplied with stored
        codes.
        """
        return cues

    def pull(self, codes: Tensor, origin: str) -> Tensor:
        """The gradient of the scores ``query(cue, origin) @ codes`` of stored codes by the cue."""
        return codes

    def centred(self, stored: Tensor) -> Tensor:
        """The centred codes ``(..., d)`` in stored ones."""
        return stored

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


@dataclass(frozen=True, slots=True, eq=False)
class QuantisedCopy:
    """A copy of codes in bfloat16, or in int8 with a ``scale`` (P,) per row.

    ``error`` is the greatest distance between a code and its quantised form, ``length`` the greatest norm of
    a quantised code; both are measured.
    """

    values: Tensor
    scale: Tensor | None
    error: float
    length: float

    @property
    def rounding(self) -> float:
        """Relative rounding of a product in its output format; monotone, so it keeps the order."""
        return 2.0**-9 if self.scale is None else 0.0

    def cue(self, cue: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Quantised cues, their scales (Q,), and the error bound (Q,) of a product before its rounding."""
        if self.scale is None:
            rounded, scale = cue.to(torch.bfloat16), torch.ones_like(cue[:, 0])
        else:
            scale = cue.abs().amax(dim=-1).clamp(min=1e-30) / 127.0
            rounded = (cue / scale[:, None]).round().to(torch.int8)
        back = rounded.to(cue.dtype) * scale[:, None]
        size = back.norm(dim=-1)
        bound = self.error * cue.norm(dim=-1) + self.length * (cue - back).norm(dim=-1)
        return rounded, scale, bound + ROUNDING * self.length * size

    def products(self, rounded: Tensor, scale: Tensor, first: int, last: int) -> Tensor:
        """Approximate inner products ``(B, Q)`` of rows [first, last)."""
        if self.scale is None:
            return self.values[first:last] @ rounded.T
        values = self.values[first:last]
        if rounded.shape[0] < MANY_CUES:
            threads = torch.get_num_threads()
            whole = simsimd.cdist(
                rounded.numpy(), values.numpy(), "dot", threads=threads, out_dtype="float32"
            )
            product = torch.from_numpy(np.asarray(whole)).T
        else:
            product = torch._int_mm(values, rounded.T.contiguous()).to(torch.float32)
        return product * self.scale[first:last, None] * scale


class Matrix:
    """Centred unit codes ``(P, d)`` of one modality, as the memory compares them.

    ``precision`` says what is kept in RAM: the codes in "float32" or "float16", or an "int8" copy beside
    the raw ``source``, which may be memory-mapped and is read only for the slots that the copy cannot decide.
    Indexing returns centred float rows in every precision. Raises ValueError for another precision.
    """

    def __init__(self, source: Tensor, frame: Centering, precision: Precision = "float32") -> None:
        if precision not in PRECISIONS:
            raise ValueError(f"precision must be one of {', '.join(PRECISIONS)} (got {precision!r})")
        self.frame, self.precision = frame, precision
        self._length, self._width = source.shape[0], frame.width(source.shape[1])
        self._extended = False
        if precision == "int8":
            self._held = source
            self._quantised: QuantisedCopy | None = _int8(source, frame)
        else:
            kind = torch.float16 if precision == "float16" else frame.mean.dtype
            self._held = torch.empty(self._length, self._width, dtype=kind, device=frame.mean.device)
            for first in range(0, len(source), CHUNK):
                self._held[first : first + CHUNK] = frame.transform(
                    source[first : first + CHUNK].to(frame.mean)
                )
            self._quantised = None

    @property
    def shape(self) -> torch.Size:
        """``(P, d)``."""
        return torch.Size((self._length, self._width))

    @property
    def nbytes(self) -> int:
        """Bytes of RAM used; a memory-mapped source is not counted."""
        quantised = self._quantised.values.nbytes if self._quantised else 0
        return quantised + (0 if self.precision == "int8" else self._held.nbytes)

    def __getitem__(self, rows: slice | Tensor | int) -> Tensor:
        """Centred codes, in the dtype and on the device of the centring."""
        held = self._held[: self._length]
        # index_select copies whole rows, in parallel.
        held = held.index_select(0, rows) if isinstance(rows, Tensor) and rows.ndim == 1 else held[rows]
        if self.precision == "int8":
            return self.frame.transform(held.to(self.frame.mean))
        return held.to(self.frame.mean.dtype)

    def approximate(self, rows: Tensor) -> Tensor:
        """Some codes from RAM alone: dequantised with int8, without reading the source."""
        if self.precision != "int8" or self._quantised is None or self._quantised.scale is None:
            return self[rows]
        values, scale = self._quantised.values.index_select(0, rows), self._quantised.scale[rows]
        return values.to(self.frame.mean.dtype) * scale[:, None].to(self.frame.mean.dtype)

    def quantised(self, cues: int) -> QuantisedCopy | None:
        """The quantised copy to scan first for this number of cues; None where full precision is as fast."""
        if self.precision == "int8":
            return self._quantised
        if cues < MANY_CUES or self._length < MANY_ROWS or self.frame.mean.dtype != torch.float32:
            return None
        if not bfloat16_pays(str(self.frame.mean.device)):
            return None
        if self._quantised is None:
            self._quantised = _bfloat16(self)
        return self._quantised

    def appended(self, raw: Tensor) -> Matrix:
        """A matrix with raw codes ``(n, d)`` behind these, which stay as they are.

        Both share a buffer while it has room; the room behind a matrix is given to one other only.
        """
        grown = copy(self)
        if self._extended:
            grown._held = self._held[: self._length]
        self._extended, grown._extended = True, False
        grown.append(raw)
        return grown

    def replaced(self, rows: Tensor, raw: Tensor) -> Matrix:
        """A matrix with raw codes in place of some rows; this one stays as it is."""
        changed = copy(self)
        changed._held, changed._extended = self._held[: self._length].clone(), False
        changed.replace(rows, raw)
        return changed

    def append(self, raw: Tensor) -> None:
        """Append raw codes ``(n, d)``; the buffer doubles when full, so that single insertions stay cheap."""
        new = raw if self.precision == "int8" else self.frame.transform(raw.to(self.frame.mean))
        if self._length + len(new) > len(self._held):
            room = torch.empty(
                max(2 * self._length, self._length + len(new)),
                self._held.shape[1],
                dtype=self._held.dtype,
                device=self._held.device,
            )
            room[: self._length] = self._held[: self._length]
            self._held = room
        self._held[self._length : self._length + len(new)] = new.to(self._held.dtype)
        self._length += len(new)
        self._changed()

    def replace(self, rows: Tensor, raw: Tensor) -> None:
        """Replace some codes by raw ones."""
        new = raw if self.precision == "int8" else self.frame.transform(raw.to(self.frame.mean))
        self._held[rows] = new.to(self._held.dtype)
        self._changed()

    def raw(self) -> Tensor:
        """The codes as the encoder made them, not centred, up to rounding."""
        held = self._held[: self._length]
        return (
            held if self.precision == "int8" else self.frame.inverse_transform(held.to(self.frame.mean.dtype))
        )

    def _changed(self) -> None:
        self._quantised = _int8(self._held[: self._length], self.frame) if self.precision == "int8" else None


def _bfloat16(codes: Matrix) -> QuantisedCopy:
    values = torch.empty(codes.shape, dtype=torch.bfloat16, device=codes.frame.mean.device)
    error = length = 0.0
    for first in range(0, codes.shape[0], CHUNK):
        rows = codes[first : first + CHUNK]
        values[first : first + CHUNK] = rows.to(torch.bfloat16)
        back = values[first : first + CHUNK].to(rows.dtype)
        error = max(error, float((rows - back).norm(dim=-1).max()))
        length = max(length, float(back.norm(dim=-1).max()))
    return QuantisedCopy(values, None, error, length)


def _int8(source: Tensor, frame: Centering) -> QuantisedCopy:
    values = torch.empty(len(source), frame.width(source.shape[1]), dtype=torch.int8)
    scale = torch.empty(len(source))
    error = length = 0.0
    for first in range(0, len(source), CHUNK):
        rows = frame.transform(source[first : first + CHUNK].to(frame.mean)).float().cpu()
        step = rows.abs().amax(dim=-1).clamp(min=1e-30) / 127.0
        whole = (rows / step[:, None]).round()
        values[first : first + CHUNK], scale[first : first + CHUNK] = whole.to(torch.int8), step
        back = whole * step[:, None]
        error = max(error, float((rows - back).norm(dim=-1).max()))
        length = max(length, float(back.norm(dim=-1).max()))
    return QuantisedCopy(values, scale, error, length)


@cache
def bfloat16_pays(device: str) -> bool:
    """Whether matrix products in bfloat16 are clearly faster than in float32 here; measured once."""
    codes, cues = torch.randn(8192, 256, device=device), torch.randn(64, 256, device=device)
    quantised = codes.bfloat16(), cues.bfloat16()
    return _seconds(*quantised) < 0.6 * _seconds(codes, cues)


def _seconds(codes: Tensor, cues: Tensor) -> float:
    best = math.inf
    for _ in range(15):
        start = time.perf_counter()
        product = codes @ cues.T
        if product.is_cuda:
            torch.cuda.synchronize()
        best = min(best, time.perf_counter() - start)
    return best
