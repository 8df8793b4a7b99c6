"""What a memory has learned, beside its store: trust and sharpness, slot bias, couplings. See ``learn``.

``learned.json`` holds all of it but the matrices of the couplings, which are in the file that it names,
``learned-DIGEST.safetensors``. The JSON file is replaced last, so that what was learned is the old or the
new, whatever happens.
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
# The least trust, as a share of the greatest: a cue that is given alone must still be able to answer.
LEAST_TRUST = 0.02


@dataclass(frozen=True, slots=True, eq=False)
class Coupling:
    """What a code of one matrix says of the codes of another: ``weights`` (d_to, d_of) times the code.

    Both are in their frames; ``mean`` (d_of,) is what the cue's frame takes away. ``precision`` is how far
    the right record rises over chance by it.
    """

    of: str
    to: str
    weights: Tensor
    mean: Tensor
    precision: float

    def predict(self, codes: Tensor) -> Tensor:
        """The codes ``(Q, d_to)``, centred, that raw ``codes`` (Q, d_of) predict."""
        nothing = torch.zeros_like(self.mean)
        cue = Centering(self.mean, nothing, nothing).transform_cue(codes.to(self.mean))
        return torch.nn.functional.normalize(cue @ self.weights.T, dim=-1)


@dataclass(frozen=True, slots=True, eq=False)
class PredictedCue(Given):
    """A code predicted through a learned coupling, given as a cue with the coupling's ``precision``."""

    precision: float = 0.0


@dataclass(frozen=True, slots=True, eq=False)
class Calibration:
    """The learned constants of a memory; those that are empty are as they always were.

    ``precision[key]``: how far, in units of chance, the right record rises over the others by a cue for the
    matrix ``key``. If ``weighed`` cues count in proportion to it, if ``sharp`` it gives beta. ``bias`` is by
    record id; a record without one has 0. ``encoders``, ``version`` and ``records`` say what all of it was
    learned on.
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
        """What each cue asks of each matrix (see :func:`~.matrices.given_by`), couplings included.

        A coupling makes of a cue one more cue, the code that it predicts in another modality, clamped and
        with a weight by its own precision: what follows, certificate and abstention, is as for any cue. What
        is given is not predicted; a cue against a record predicts nothing, and neither does any where an
        index proposed the records.
        """
        said = []
        for cue in cues:
            given = given_by(encoders, memory, cue)
            if self.weighed and all(g.key in self.precision for g in given):
                # Their precisions say how far each view counts.
                given = [replace(g, weight=cue.weight) for g in given]
            said.append(given)
        asked = {g.key for given in said for g in given}
        for cue, given in zip(cues, said, strict=True):
            if self.couplings and cue.weight > 0 and memory.population is None:
                given += self._predicted(encoders, memory, cue, asked)
        return said

    def _predicted(
        self, encoders: EncoderSet, memory: HarmonicMemory, cue: Cue, asked: Container[str]
    ) -> list[Given]:
        """What the couplings make of a cue for the matrices that are not asked by any."""
        code = cue.code
        # Where no trust was learned, a cue counts by the critical beta.
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
                c.precision,
            )
            for c in self.couplings
            if c.of in made_by and c.to in memory.matrices and c.to not in asked
        ]

    def beta(self, memory: HarmonicMemory, given: Sequence[Given]) -> float | None:
        """The beta for these cues, in units of chance; None where it was not learned for all of them.

        It is how far the right record rises along the weights of the cues: the maximum-likelihood beta where
        the scores are Gaussian.
        """
        if not self.sharp or any(g.key not in self.precision for g in given):
            return None
        weights = [abs(g.weight) * memory.trusts.get(g.key, 1.0) for g in given]
        rises = [g.precision if isinstance(g, PredictedCue) else self.precision[g.key] for g in given]
        rise = sum(w * a for w, a in zip(weights, rises, strict=True))
        return rise / (math.sqrt(sum(w**2 for w in weights)) or 1.0) or None

    def _most(self) -> float:
        """The greatest precision, whose trust is 1; 0 if none is weighed."""
        return max(self.precision.values(), default=0.0) if self.weighed else 0.0

    def save(self, folder: Path) -> None:
        """Write it beside a store, atomically."""
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
        """What was learned for the store in a folder, nothing if nothing was; HarmoniaError if damaged."""
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
                f"what was learned in {path} cannot be read ({reason}): "
                "run `harmonia learn` again, or `harmonia learn --forget`"
            ) from error

    @staticmethod
    def forget(folder: Path) -> bool:
        """Delete what was learned; whether there was anything."""
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
    """Delete the matrices of what is not learned any more."""
    for path in folder.glob("learned-*.safetensors"):
        if path.name != keep:
            path.unlink(missing_ok=True)
