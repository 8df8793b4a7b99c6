"""What a model is worth: retrieval, robustness, geometry, zero-shot classification, probes, significance.

Codes are rows (n, d), float, of one space; records and labels (n,) integers. Every figure counts ties fairly.
"""

from harmonia.metrics.geometry import (
    Gap,
    Hubness,
    alignment,
    effective_rank,
    hubness,
    k_occurrence,
    modality_gap,
    uniformity,
)
from harmonia.metrics.probe import Linear, Probe, knn_probe, linear_probe, logistic_regression
from harmonia.metrics.retrieval import (
    Records,
    cross_modal,
    cross_modal_folds,
    query_values,
    query_values_of,
    ranks_of,
    retrieval_metrics,
    summary,
)
from harmonia.metrics.robustness import area, missing_curve, noise_curve, noisy_codes, noisy_signals
from harmonia.metrics.significance import Interval, bootstrap, paired_test
from harmonia.metrics.zero_shot import TEMPLATES, ZeroShot, class_codes, prompts, zero_shot

__all__ = [
    "TEMPLATES",
    "Gap",
    "Hubness",
    "Interval",
    "Linear",
    "Probe",
    "Records",
    "ZeroShot",
    "alignment",
    "area",
    "bootstrap",
    "class_codes",
    "cross_modal",
    "cross_modal_folds",
    "effective_rank",
    "hubness",
    "k_occurrence",
    "knn_probe",
    "linear_probe",
    "logistic_regression",
    "missing_curve",
    "modality_gap",
    "noise_curve",
    "noisy_codes",
    "noisy_signals",
    "paired_test",
    "prompts",
    "query_values",
    "query_values_of",
    "ranks_of",
    "retrieval_metrics",
    "summary",
    "uniformity",
    "zero_shot",
]
