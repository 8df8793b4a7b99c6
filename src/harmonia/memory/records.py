"""All that a memory stores, as one frozen value: an edit checks its input first and returns the next value.

A memory holds one `Records` and swaps in the next by a single assignment. So a refused edit changes nothing,
and a recall that took a value at its start reads the same records to its end, whatever is edited meanwhile.

The centring (mean and second moment) follows the stored codes: once a tenth of the records have been inserted
or deleted it is fitted again, so that a stream of small edits costs O(d) numbers each on average and the
memory stays within a few percent of one built from scratch. ``refit`` makes them equal.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

import torch
from torch import Tensor

from harmonia.memory.matrix import Centering, Matrix, Precision
from harmonia.memory.record_layout import Layout

# Share of the records that may change before the centring is fitted again.
DRIFT = 0.1


@dataclass(frozen=True, slots=True, eq=False)
class Records:
    """The stored records: ``layout``, the ``frames`` (centring) and ``matrices`` of their codes, by key.

    For each slot: ``bias``, in units of chance; ``count``, how many records it stands for; ``used``, how
    often it came first, the one tensor that recalls write to; ``born``, when it was inserted; ``alive``,
    whether it is not deleted. Learned parameters: ``trusts[key]``, the weight of a cue for a matrix;
    ``couplings[(to, of)]`` (d_to, d_of), linear maps between modalities.

    ``centre``: which codes have their mean subtracted. ``precision``: how codes are held. ``fixed``: the
    centring was given and is not fitted again. ``drift``: records changed since it was fitted.
    ``compacted``: how often slots have been numbered anew.
    """

    layout: Layout
    frames: Mapping[str, Centering]
    matrices: Mapping[str, Matrix]
    bias: Tensor
    count: Tensor
    used: Tensor
    born: Tensor
    alive: Tensor
    trusts: Mapping[str, float] = field(default_factory=dict)
    couplings: Mapping[tuple[str, str], Tensor] = field(default_factory=dict)
    centre: bool | frozenset[str] = True
    precision: Precision = "float32"
    fixed: bool = False
    drift: int = 0
    compacted: int = 0

    def __post_init__(self) -> None:
        for name in ("bias", "count", "used", "born", "alive"):
            shape = tuple(getattr(self, name).shape)
            if shape != (self.slots,):
                raise ValueError(f"{name} needs one entry per slot ({self.slots}, got {shape})")

    @classmethod
    def of(
        cls,
        codes: Mapping[str, Tensor],
        layout: Layout,
        frames: Mapping[str, Centering],
        *,
        centre: bool | frozenset[str] = True,
        precision: Precision = "float32",
        fixed: bool = False,
    ) -> Records:
        """Records of raw codes ``codes[key]`` (P, d), with their centring."""
        bias = torch.zeros_like(next(iter(frames.values())).mean[:1]).repeat(layout.slots)
        born = torch.zeros(layout.slots, dtype=torch.long, device=bias.device)
        matrices = {key: Matrix(c, frames[key], precision) for key, c in codes.items()}
        one, none, alive = torch.ones_like(bias), torch.zeros_like(bias), torch.ones_like(born).bool()
        return cls(
            layout, frames, matrices, bias, one, none, born, alive,
            centre=centre, precision=precision, fixed=fixed,
        )  # fmt: skip

    @property
    def slots(self) -> int:
        """How many records there are, the deleted ones included."""
        return self.layout.slots

    def is_centred(self, key: str) -> bool:
        """Whether the mean is subtracted from the codes of the matrix ``key``."""
        return self.centre if isinstance(self.centre, bool) else key in self.centre

    def matrix(self, key: str) -> Matrix:
        """The matrix ``key``; ValueError if no record has such codes."""
        if key not in self.matrices:
            known = ", ".join(map(repr, self.matrices))
            raise ValueError(f"no record has the modality {key!r}: insert one that has it first ({known})")
        return self.matrices[key]

    def checked(self, key: str, codes: Tensor) -> Tensor:
        """Raw ``codes`` (n, d) for the matrix ``key``, in its dtype; ValueError if they do not fit."""
        codes = checked_codes(key, codes)
        if key not in self.matrices:
            return codes.to(self.bias.device)
        width = len(self.frames[key].mean)
        if codes.shape[1] != width:
            raise ValueError(f"codes of {key} must have {width} dimensions (got {codes.shape[1]})")
        return codes.to(self.frames[key].mean)

    def insert(self, codes: Mapping[str, Tensor], present: Mapping[str, Tensor] | None = None) -> Records:
        """Add n records of raw codes ``codes[key]`` (n, d); their slots come after all others.

        ``present[key]`` (n,) bool says which of them have the modality (default: all). A key that no record
        has yet is a new modality.
        """
        rows = {key: self._given(key, c) for key, c in codes.items()}
        counts = {len(c) for c in rows.values()}
        if len(counts) != 1 or 0 in counts:
            raise ValueError(
                f"insert needs the same number of rows, at least one, in every modality (got {counts})"
            )
        (n,) = counts
        held = self._held(rows, present or {}, n)
        frames, matrices = dict(self.frames), dict(self.matrices)
        parts: dict[str, Tensor] = {}
        new = torch.full((n,), -1, dtype=torch.long, device=self.bias.device)
        for key, old in self.layout.parts.items():
            parts[key] = torch.cat([old, new])
        for key, raw in rows.items():
            some = raw[held[key]]
            if key not in matrices:
                # A modality of none of the records is no modality.
                if not len(some):
                    continue
                frames[key] = Centering.fit(some, centre=self.is_centred(key))
                matrices[key] = Matrix(some[:0], frames[key], self.precision)
                parts[key] = torch.full((len(self.layout.slot) + n,), -1, device=new.device)
            first = matrices[key].shape[0]
            added = new.clone()
            added[held[key]] = torch.arange(first, first + len(some), device=new.device)
            matrices[key] = matrices[key].appended(some)
            parts[key][-n:] = added
        slot = torch.cat([self.layout.slot, self.slots + torch.arange(n, device=new.device)])
        latest = int(self.born.max()) + 1 if self.slots else 0
        return replace(
            self, layout=Layout(self.slots + n, slot, parts), frames=frames, matrices=matrices,
            bias=_longer(self.bias, n, 0.0), count=_longer(self.count, n, 1.0),
            used=_longer(self.used, n, 0.0), born=_longer(self.born, n, latest),
            alive=_longer(self.alive, n, True),
        )._drifted(n)  # fmt: skip

    def delete(self, slots: Tensor | Sequence[int]) -> Records:
        """Without these slots, given by number (or bool (slots,)): no recall returns them."""
        chosen = self.chosen(slots)
        gone = int((self.alive & chosen).sum())
        return replace(self, alive=self.alive & ~chosen)._drifted(gone)

    def chosen(self, slots: Tensor | Sequence[int]) -> Tensor:
        """Which slots are meant, bool (slots,); ValueError for a number that is none of a slot."""
        given = torch.as_tensor(slots, device=self.bias.device)
        if given.dtype == torch.bool and given.shape == (self.slots,):
            return given
        if not given.numel():
            return torch.zeros_like(self.alive)
        if given.ndim > 1 or given.dtype.is_floating_point or given.dtype == torch.bool:
            raise ValueError(
                f"slots are numbers (n,), or bool ({self.slots},); got {given.dtype} {tuple(given.shape)}"
            )
        given = given.reshape(-1)
        outside = given[(given < 0) | (given >= self.slots)]
        if len(outside):
            raise ValueError(f"no slot {int(outside[0])}: there are slots 0 to {self.slots - 1}")
        chosen = torch.zeros_like(self.alive)
        chosen[given.long()] = True
        return chosen

    def update(self, slot: int, codes: Mapping[str, Tensor]) -> Records:
        """Replace a record's raw codes ``(d,)`` of some modalities, or add those it lacked.

        Raises ValueError for a record of several moments, or a modality that no record has.
        """
        if not bool((self.chosen([slot]) & self.alive).any()):
            raise ValueError(f"slot {slot} is deleted: insert the record again")
        moments = (self.layout.slot == slot).nonzero()[:, 0]
        if len(moments) != 1:
            raise ValueError(
                f"slot {slot} has {len(moments)} moments: only a record of one can be updated; insert it anew"
            )
        for key in codes:
            self.matrix(key)
        rows = {key: self._given(key, code[None] if code.ndim == 1 else code) for key, code in codes.items()}
        for key, raw in rows.items():
            if len(raw) != 1:
                raise ValueError(f"an update takes one code of {key} (got {len(raw)})")
        parts, matrices = dict(self.layout.parts), dict(self.matrices)
        for key, raw in rows.items():
            part, matrix = parts[key], matrices[key]
            row = part[moments]
            if int(row) >= 0 and int((part == row).sum()) == 1:
                matrices[key] = matrix.replaced(row, raw)
            else:
                parts[key] = part.clone()
                parts[key][moments] = matrix.shape[0]
                matrices[key] = matrix.appended(raw)
        layout = Layout(self.slots, self.layout.slot, parts)
        return replace(self, layout=layout, matrices=matrices)._drifted(1)

    def compact(self) -> tuple[Records, Tensor]:
        """Without the room of deleted records, and the old slot (slots,) of each new one."""
        kept = self.alive.nonzero()[:, 0]
        if not len(kept):
            raise ValueError("every record is deleted: build a new memory")
        new_slot = torch.full((self.slots,), -1, dtype=torch.long, device=kept.device)
        new_slot[kept] = torch.arange(len(kept), device=kept.device)
        moments = self.alive[self.layout.slot]
        parts, matrices = {}, {}
        for key, index in self.layout.parts.items():
            index = index[moments]
            rows, place = torch.unique(index[index >= 0], return_inverse=True)
            parts[key] = index.clone()
            parts[key][index >= 0] = place
            matrices[key] = Matrix(self.matrices[key].raw()[rows], self.frames[key], self.precision)
        fewer = replace(
            self, layout=Layout(len(kept), new_slot[self.layout.slot[moments]], parts), matrices=matrices,
            bias=self.bias[kept], count=self.count[kept], used=self.used[kept], born=self.born[kept],
            alive=self.alive[kept], compacted=self.compacted + 1,
        )  # fmt: skip
        return fewer._drifted(0), kept

    def refit(self) -> Records:
        """With the centring fitted to the records stored now, and all codes transformed again."""
        frames, matrices = dict(self.frames), dict(self.matrices)
        for key, matrix in self.matrices.items():
            parts = self.layout.parts[key][self.alive[self.layout.slot]]
            rows = torch.unique(parts[parts >= 0])
            if len(rows):
                raw = matrix.raw()
                frames[key] = Centering.fit(raw[rows], centre=self.is_centred(key))
                matrices[key] = Matrix(raw, frames[key], self.precision)
        return replace(self, frames=frames, matrices=matrices, drift=0)

    def narrowed(self, keys: Sequence[str]) -> Records:
        """With only the matrices ``keys``: nothing is read out of the others."""
        return replace(
            self, layout=self.layout.view(keys), matrices={key: self.matrices[key] for key in keys}
        )

    def _drifted(self, records: int) -> Records:
        drift = self.drift + records
        if not self.fixed and drift > max(1.0, DRIFT * int(self.alive.sum())):
            return self.refit()
        return replace(self, drift=drift)

    def _given(self, key: str, codes: Tensor) -> Tensor:
        """Checked codes for an edit; with int8 they are held as they come."""
        checked = self.checked(key, codes)
        return codes.to(self.bias.device) if self.precision == "int8" else checked

    def _held(self, rows: Mapping[str, Tensor], present: Mapping[str, Tensor], n: int) -> dict[str, Tensor]:
        """Which of n new records have each modality, bool (n,)."""
        for key in present:
            if key not in rows:
                raise ValueError(f"present names {key!r}, of which no codes are given")
        held = {key: torch.ones(n, dtype=torch.bool, device=self.bias.device) for key in rows}
        for key, has in present.items():
            if has.shape != (n,):
                raise ValueError(
                    f"present[{key!r}] must be ({n},), one bool per record (got {tuple(has.shape)})"
                )
            held[key] = has.to(self.bias.device).bool()
        return held


def checked_codes(key: str, codes: Tensor) -> Tensor:
    """``codes`` if they are finite numbers (n, d); a ValueError says what else they are."""
    if not isinstance(codes, Tensor):
        raise ValueError(f"codes of {key} must be a tensor (n, d), not {type(codes).__name__}")
    if codes.ndim != 2 or codes.shape[1] == 0:
        raise ValueError(f"codes of {key} must be (n, d), d at least 1 (got {tuple(codes.shape)})")
    if codes.is_complex():
        raise ValueError(f"codes of {key} must be real numbers (got {codes.dtype})")
    # One pass without a copy; a sum that overflows is looked at again.
    total = codes.sum(dtype=torch.promote_types(codes.dtype, torch.float32))
    if not bool(total.isfinite()) and not bool(codes.isfinite().all()):
        row = int((~codes.isfinite()).any(dim=1).nonzero()[0, 0])
        raise ValueError(f"codes of {key} must be finite: row {row} has NaN or infinity")
    return codes


def _longer(values: Tensor, n: int, fill: float) -> Tensor:
    return torch.cat([values, values.new_full((n,), fill)])
