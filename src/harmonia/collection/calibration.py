"""The calibration of a memory, stored beside it: trust, beta, slot bias and couplings.

:mod:`harmonia.tasks.calibrate` fits it. ``learned.json`` holds all of it except the matrices of the
couplings, which are in the file that it names, ``learned-DIGEST.safetensors``. The JSON file is replaced
last, so that an interrupted save leaves the previous calibration.
"""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Container, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
import torch
from safetensors import SafetensorError
from safetensors.torch import load, save
from torch import Tensor

from harmonia.collection.encoder_set import EncoderSet
from harmonia.collection.matrices import given_by
from harmonia.memory.harmonic import Given, HarmonicMemory
from harmonia.memory.matrix import Centering
from harmonia.store.atomic import TEMPORARY, write_atomically
from harmonia.types import Cue, HarmoniaError

FILE_NAME = "learned.json"
FORMAT = 1
# The least trust, as a share of the greatest: a cue must still retrieve when it is given alone.
LEAST_TRUST = 0.02


@dataclass(frozen=True, slots=True, eq=False)
class Coupling:
    """A linear map from the codes of one matrix to those of another: ``weights`` (d_to, d_of) times the code.

    Both codes are centred; ``mean`` (d_of,) is the mean of the cue's codes. ``precision`` is how far the
    right record scores over the others by the predicted code, in units of chance.
    """

    of: str
    to: str
    weights: Tensor
    mean: Tensor
    precision: float

    def predict(self, codes: Tensor) -> Tensor:
        """Predict centred codes ``(Q, d_to)`` from raw ``codes`` (Q, d_of)."""
        nothing = torch.zeros_like(self.mean)
        cue = Centering(self.mean, nothing, nothing).transform_cue(codes.to(self.mean))
        return torch.nn.functional.normalize(cue @ self.weights.T, dim=-1)


@dataclass(frozen=True, slots=True, eq=False)
class PredictedCue(Given):
    """A code predicted through a learned coupling, given as a cue with the coupling's ``precision``."""

    precision: float = 0.0


@dataclass(frozen=True, slots=True, eq=False)
class Calibration:
    """The calibrated constants of a memory; an empty one leaves the default.

    ``precision[key]`` is how far the right record scores over the others, in units of chance, by a cue for
    the matrix ``key``. If ``weighed``, cues are weighted in proportion to it; if ``sharp``, it determines
    beta. ``bias`` is by record id, 0 for a record without an entry. ``encoders``, ``version`` and ``records``
    describe the data of the fit.
    """

    encoders: tuple[str, ...] = ()
    version: tuple[int, ...] = ()
    records: int = 0
    precision: Mapping[str, float] = field(default_factory=dict)
    weighed: bool = False
    sharp: bool = False
    bias: Mapping[str, float] = field(default_factory=dict)
    couplings: tuple[Coupling, ...] = ()

    def apply(self, memory: HarmonicMemory, record_ids: Sequence[str]) -> None:
        """Set the memory's trusts and slot bias; slot n holds the record ``record_ids[n]``."""
        most = self._most() or 1.0
        memory.trusts = {k: max(a / most, LEAST_TRUST) for k, a in self.precision.items() if self.weighed}
        bias = [self.bias.get(record_id, 0.0) for record_id in record_ids] if self.bias else []
        memory.bias = memory.bias.new_tensor(bias) if bias else torch.zeros_like(memory.bias)

    def given(self, encoders: EncoderSet, memory: HarmonicMemory, cues: Sequence[Cue]) -> list[list[Given]]:
        """The queries of each cue to each matrix (see :func:`~.matrices.given_by`), with couplings.

        A coupling adds the code that it predicts in another modality as one more cue, clamped and weighted by
        its own precision. A matrix that a cue queries directly gets no predicted code. Cues that count
        against a record predict nothing, and neither does any cue if an index proposed the candidates.
        """
        queries = []
        for cue in cues:
            given = given_by(encoders, memory, cue)
            if self.weighed and all(g.key in self.precision for g in given):
                # The precisions give the weight of each view.
                given = [replace(g, weight=cue.weight) for g in given]
            queries.append(given)
        asked = {g.key for given in queries for g in given}
        for cue, given in zip(cues, queries, strict=True):
            if self.couplings and cue.weight > 0 and memory.population is None:
                given += self._predicted(encoders, memory, cue, asked)
        return queries

    def _predicted(
        self, encoders: EncoderSet, memory: HarmonicMemory, cue: Cue, asked: Container[str]
    ) -> list[Given]:
        """The codes that the couplings predict from a cue, for matrices that no cue queries."""
        code = cue.code
        # Without a calibrated trust, the critical beta takes its place.
        unit = self._most() or memory.beta(memory.held)
        made_by = {e.name for e in encoders.encoders if (e.modality, e.space) == (code.modality, code.space)}
        vectors = torch.from_numpy(np.atleast_2d(code.vector))
        return [
            PredictedCue(
                c.to,
                c.predict(vectors),
                cue.weight * c.precision / unit / memory.trusts.get(c.to, 1.0),
                cue.trust,
                None,
                cue.name,
                precision=c.precision,
            )
            for c in self.couplings
            if c.of in made_by and c.to in memory.matrices and c.to not in asked
        ]

    def beta(self, memory: HarmonicMemory, given: Sequence[Given]) -> float | None:
        """The beta for these cues, in units of chance; None if it is not calibrated for all of them.

        It is how far the right record scores over the others by the weighted cues, the maximum-likelihood
        beta for Gaussian scores.
        """
        if not self.sharp or any(g.key not in self.precision for g in given):
            return None
        weights = [abs(g.weight) * memory.trusts.get(g.key, 1.0) for g in given]
        rises = [g.precision if isinstance(g, PredictedCue) else self.precision[g.key] for g in given]
        rise = sum(w * a for w, a in zip(weights, rises, strict=True))
        return rise / (math.sqrt(sum(w**2 for w in weights)) or 1.0) or None

    def _most(self) -> float:
        """The greatest precision, whose trust is 1; 0 if cues are not weighted by it."""
        return max(self.precision.values(), default=0.0) if self.weighed else 0.0

    def save(self, folder: Path) -> None:
        """Write the calibration beside a store, atomically."""
        tensors = {}
        for number, c in enumerate(self.couplings):
            tensors[f"{number}.weights"] = c.weights.float().contiguous()
            tensors[f"{number}.mean"] = c.mean.float().contiguous()
        data = save(tensors)
        name = f"learned-{_digest(data)}.safetensors"
        found = {
            "format": FORMAT,
            "encoders": self.encoders,
            "version": self.version,
            "records": self.records,
            "precision": dict(self.precision),
            "weighed": self.weighed,
            "sharp": self.sharp,
            "bias": {record_id: round(value, 5) for record_id, value in self.bias.items()},
            "couplings": [{"of": c.of, "to": c.to, "precision": c.precision} for c in self.couplings],
            "tensors": name,
        }
        temporary = folder / f"{TEMPORARY}{name}"
        try:
            temporary.write_bytes(data)
            temporary.replace(folder / name)
        except OSError as error:
            temporary.unlink(missing_ok=True)
            raise HarmoniaError(f"cannot write {folder / name}: {error.strerror or error}") from error
        write_atomically(folder / FILE_NAME, json.dumps(found, indent=1))
        _clear(folder, keep=name)

    @classmethod
    def load(cls, folder: Path) -> Calibration:
        """Load the calibration of the store in a folder, an empty one if there is none.

        HarmoniaError if it is damaged, or of a newer format.
        """
        path = folder / FILE_NAME
        try:
            found = json.loads(path.read_text(encoding="utf-8"))
            if found["format"] > FORMAT:
                raise HarmoniaError(f"{path} was written by a newer Harmonia: update, or delete it")
            data = (folder / Path(found["tensors"]).name).read_bytes()
            if found["tensors"] != f"learned-{_digest(data)}.safetensors":
                raise ValueError(f"{found['tensors']} is not as it was written")
            tensors = load(data)
            couplings = tuple(
                Coupling(
                    str(c["of"]),
                    str(c["to"]),
                    tensors[f"{number}.weights"],
                    tensors[f"{number}.mean"],
                    float(c["precision"]),
                )
                for number, c in enumerate(found["couplings"])
            )
            return cls(
                encoders=tuple(map(str, found["encoders"])),
                version=tuple(map(int, found["version"])),
                records=int(found["records"]),
                precision={str(key): float(value) for key, value in found["precision"].items()},
                weighed=bool(found["weighed"]),
                sharp=bool(found["sharp"]),
                bias={str(key): float(value) for key, value in found["bias"].items()},
                couplings=couplings,
            )
        except (OSError, ValueError, LookupError, TypeError, AttributeError, SafetensorError) as error:
            if not path.exists():
                return cls()
            reason = " ".join(str(error).split())
            raise HarmoniaError(
                f"cannot read the calibration {path} ({reason}): "
                "run `harmonia learn` again, or `harmonia learn --forget`"
            ) from error

    @staticmethod
    def forget(folder: Path) -> bool:
        """Delete the calibration; returns whether there was one."""
        path = folder / FILE_NAME
        there = path.exists()
        try:
            path.unlink(missing_ok=True)
            _clear(folder)
        except OSError as error:
            raise HarmoniaError(f"cannot delete {path}: {error.strerror or error}") from error
        return there


def _digest(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()[:16]


def _clear(folder: Path, keep: str = "") -> None:
    """Delete the coupling matrices of previous calibrations."""
    for path in folder.glob("learned-*.safetensors"):
        if path.name != keep:
            path.unlink(missing_ok=True)
