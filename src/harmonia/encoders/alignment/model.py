"""Towers with a shared space, trained as CLIP, SigLIP, CLOOB, HFY or harmonic network (CMHN).

The first four compare modalities in pairs; see ``harmonic_network`` for the CMHN.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from itertools import combinations
from typing import Literal, get_args

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from harmonia.encoders.alignment.harmonic_network import Harmonic, size_of
from harmonia.encoders.towers.base import Tower
from harmonia.memory import entropy
from harmonia.objectives import cloob, hfy_loss, info_nce, offset, sigmoid_loss
from harmonia.training.record_arrays import Batch, Views
from harmonia.types import HarmoniaError

Objective = Literal["clip", "siglip", "cloob", "hfy", "cmhn"]
# With larger scales logits overflow in half precision and training becomes unstable (Radford et al. 2021).
GREATEST_SCALE = 100.0


@dataclass(frozen=True, slots=True)
class AlignmentConfig:
    """The training objective of an alignment.

    ``pairs``      of modalities to compare, by default all; a hub is ``(("image", "text"), ("image",
                   "audio"))``
    ``scale``      initial inverse temperature, learned unless ``fixed``
    ``fixed``      do not learn ``scale`` (for CLOOB and InfoLOOB, which have no bound on it)
    ``beta``       inverse temperature of CLOOB's retrieval
    ``alpha``      of the Tsallis entropy of HFY
    ``within``     weight of the comparison between parts of one modality of a record
    ``chunk``      rows of scores computed at a time

    Of the CMHN only:

    ``whole``      weight of slots with all modalities, besides slots with one
    ``steps``      of descent before the energies are compared
    ``loob``       InfoLOOB instead of InfoNCE
    ``couplings``  learn W_mn, starting from the identity
    ``bias``       learn a slot bias, linear in the slot
    """

    objective: Objective = "cmhn"
    pairs: tuple[tuple[str, str], ...] | None = None
    scale: float = 14.0
    fixed: bool = False
    beta: float = 8.0
    alpha: float = 1.5
    within: float = 0.0
    chunk: int | None = None
    whole: float = 0.0
    steps: int = 0
    loob: bool = False
    couplings: bool = False
    bias: bool = False

    def __post_init__(self) -> None:
        if self.objective not in get_args(Objective):
            known = ", ".join(get_args(Objective))
            raise HarmoniaError(f"the objective {self.objective!r} is not known: choose from {known}")
        if not 0 < self.scale <= GREATEST_SCALE or self.steps < 0:
            raise HarmoniaError(f"an alignment needs 0 < scale <= {GREATEST_SCALE:g} and steps >= 0")


class Alignment(nn.Module):
    """One tower for each modality, all of one width, and their training objective.

    ``losses`` takes a `Batch`; with several processes the batch is that of all of them, which needs the same
    number of records on each, and for the pairwise objectives also the same number of parts.
    """

    def __init__(self, towers: Mapping[str, Tower], config: AlignmentConfig | None = None) -> None:
        super().__init__()
        widths = {name: tower.dim for name, tower in towers.items()}
        if len(set(widths.values())) != 1:
            raise HarmoniaError(f"towers with a shared space need one width, got {widths or 'no tower'}")
        self.config = config = config or AlignmentConfig()
        self.names = tuple(towers)
        self.pairs = config.pairs or tuple(combinations(self.names, 2))
        if unknown := {name for pair in self.pairs for name in pair} - set(self.names):
            raise HarmoniaError(f"there is no tower for {', '.join(sorted(unknown))}: pair {self.names}")
        self.towers = nn.ModuleDict(dict(towers))
        self.log_scale = nn.Parameter(torch.tensor(math.log(config.scale)), requires_grad=not config.fixed)
        if config.objective == "siglip":
            self.logit_bias = nn.Parameter(torch.tensor(-10.0))
        if config.objective == "cmhn":
            self.harmonic = Harmonic(
                self.names,
                self.pairs,
                next(iter(widths.values())),
                within=config.within,
                whole=config.whole,
                steps=config.steps,
                loob=config.loob,
                couplings=config.couplings,
                bias=config.bias,
            )

    @property
    def scale(self) -> Tensor:
        """The inverse temperature."""
        # the value is bounded, the gradient is not, so that it can come down from the bound
        kept = self.log_scale.clamp(max=math.log(GREATEST_SCALE))
        return (self.log_scale + (kept - self.log_scale).detach()).exp()

    def groups(self) -> dict[str, list[nn.Parameter]]:
        """All trained parameters, as one optimizer group."""
        return {"alignment": [p for p in self.parameters() if p.requires_grad]}

    def forward(self, batch: Batch) -> Batch:
        """Codes (n, d) of the parts, of unit length."""
        return {
            name: Views(F.normalize(self.towers[name](view.inputs), dim=-1), view.record)
            for name, view in batch.items()
        }

    def losses(self, batch: Batch) -> dict[str, Tensor]:
        """The loss of a batch; a HarmoniaError if no two parts of it are of one record."""
        codes = self(batch)
        if self.config.objective != "cmhn":
            return {"alignment": self._pairwise(codes)}
        # half precision is too coarse for differences of energies
        with torch.autocast(self.log_scale.device.type, enabled=False):
            whole = {name: Views(_widened(view.inputs), view.record) for name, view in codes.items()}
            return {"alignment": self.harmonic(whole, self.scale)}

    @torch.no_grad()
    def codes(self, name: str, inputs: Tensor, block: int = 256) -> Tensor:
        """Codes (n, d) of prepared inputs (n, ...), float32 on the CPU, in blocks, in evaluation mode."""
        training, device = self.training, self.log_scale.device
        self.eval()
        tower = self.towers[name]
        rows = [
            F.normalize(tower(part.to(device)), dim=-1).float().cpu() for part in torch.split(inputs, block)
        ]
        self.train(training)
        return torch.cat(rows)

    def _pairwise(self, codes: Batch) -> Tensor:
        """The mean over the pairs of modalities, and ``within`` times that over the modalities themselves."""
        shift = offset(size_of(codes))
        across, within = [], []
        for a, b in self.pairs:
            if a in codes and b in codes and bool(torch.isin(codes[a].record, codes[b].record).any()):
                records = (codes[a].record + shift, codes[b].record + shift)
                across.append(self._pair(codes[a].inputs, codes[b].inputs, records))
        if self.config.within:
            for view in codes.values():
                first, second = first_and_second(view.record)
                if len(first):
                    records = (view.record[first] + shift,) * 2
                    within.append(self._pair(view.inputs[first], view.inputs[second], records))
        if not across and not within:
            raise HarmoniaError("no record of this batch has two parts of a pair: there is nothing to align")
        total = self.log_scale.new_zeros(())
        if across:
            total = total + torch.stack(across).mean()
        if within:
            total = total + self.config.within * torch.stack(within).mean()
        return total

    def _pair(self, x: Tensor, y: Tensor, positives: tuple[Tensor, Tensor]) -> Tensor:
        config = self.config
        match config.objective:
            case "clip":
                return info_nce(x, y, self.scale, positives=positives, chunk=config.chunk)
            case "siglip":
                return sigmoid_loss(
                    x, y, self.scale, self.logit_bias, positives=positives, chunk=config.chunk
                )
            case "cloob":
                return cloob(x, y, self.scale, config.beta, positives=positives, chunk=config.chunk)
            case _:
                kind = entropy(config.alpha)
                return hfy_loss(x, y, self.scale, entropy=kind, positives=positives, chunk=config.chunk)


def first_and_second(record: Tensor) -> tuple[Tensor, Tensor]:
    """Rows of the first and the second part of each record that has two; a record's parts are neighbours."""
    again = record[1:] == record[:-1]
    start = torch.ones_like(record, dtype=torch.bool)
    start[1:] = ~again
    first = (start[:-1] & again).nonzero()[:, 0]
    return first, first + 1


def _widened(codes: Tensor) -> Tensor:
    return codes.float() if codes.dtype in (torch.float16, torch.bfloat16) else codes
