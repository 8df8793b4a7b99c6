"""The report of a calibration: what was fitted, what was kept, and the scores that decided it."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

from harmonia.collection.calibration import Calibration
from harmonia.collection.likelihoods import Likelihoods


@dataclass(frozen=True, slots=True)
class QueryFigures:
    """Mean scores of one kind of query: their number, Recall@1 and MRR, each before and after calibration."""

    cue: str
    cues: int
    first: tuple[float, float]
    mrr: tuple[float, float]


@dataclass(frozen=True, slots=True)
class Verdict:
    """Whether a constant was kept, and the mean score of all held-out queries before and after.

    ``figure`` names the score: "MRR", or for beta "log p", the mean log probability of the right record.
    ``reason`` is set where the constant could not be fitted at all.
    """

    constant: str
    kept: bool
    figure: str = "MRR"
    before: float = 0.0
    after: float = 0.0
    reason: str = ""

    def __str__(self) -> str:
        if self.reason:
            return f"{self.constant}: {self.reason}, left out"
        change = f"{self.figure} {self.before:.3f} -> {self.after:.3f}"
        if self.kept:
            return f"{self.constant}: {change}, kept"
        return f"{self.constant}: no better ({change}), left out"


@dataclass(frozen=True, slots=True)
class CalibrationReport:
    """The calibration of one run and its scores. ``read`` of the memory's ``records`` were used."""

    records: int
    read: int
    figures: tuple[QueryFigures, ...]
    verdicts: tuple[Verdict, ...]
    calibration: Calibration


def likelihoods_json(found: Likelihoods) -> dict[str, Any]:
    """The models of likelihoods, for machines: by which cues which codes are scored, and how sharply."""
    return {
        "likelihoods": [
            {"to": to, "of": of, "directions": len(ratio.correlation), "scale": ratio.scale}
            for (to, of), ratio in found.ratios.items()
        ]
    }


def calibration_json(report: CalibrationReport) -> dict[str, Any]:
    """The documented form (docs/cli.md): stable, for machines."""
    calibration = report.calibration
    return {
        "records": report.records,
        "read": report.read,
        "cues": [
            {
                "cue": f.cue,
                "cues": f.cues,
                "recall_at_1": {"before": f.first[0], "after": f.first[1]},
                "mrr": {"before": f.mrr[0], "after": f.mrr[1]},
            }
            for f in report.figures
        ],
        "constants": [asdict(verdict) for verdict in report.verdicts],
        "precision": dict(calibration.precision),
        "couplings": [{"of": c.of, "to": c.to, "precision": c.precision} for c in calibration.couplings],
    }
