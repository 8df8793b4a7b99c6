"""Metrics: retrieval, robustness, geometry of codes, zero-shot classification, probes, significance, and
generated samples.

Codes are rows (n, d), float, of one space; records and labels (n,) integers. Every metric is its expected
value under random order of ties. docs/reference/metrics.md has an example of each public name.
"""

from harmonia.metrics.frechet import (
    Moments,
    frechet,
    frechet_at_infinity,
    frechet_distance,
    frechet_interval,
    moments,
)
from harmonia.metrics.generation import (
    Estimate,
    Manifold,
    class_accuracy,
    density_coverage,
    inception_interval,
    inception_score,
    kernel_distance,
    kernel_interval,
    precision_recall,
    psnr,
    text_match,
)
from harmonia.metrics.geometry import (
    CodeHubness,
    Gap,
    alignment,
    effective_rank,
    hubness,
    k_occurrence,
    modality_gap,
    uniformity,
)
from harmonia.metrics.image_features import (
    Classifies,
    Codes,
    Features,
    Function,
    Inception,
    bytes_of,
    distance_name,
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
from harmonia.metrics.significance import Interval, bootstrap, jackknife, paired_test, pivotal
from harmonia.metrics.zero_shot import TEMPLATES, ZeroShot, class_codes, prompts, zero_shot

__all__ = [
    "TEMPLATES",
    "Classifies",
    "CodeHubness",
    "Codes",
    "Estimate",
    "Features",
    "Function",
    "Gap",
    "Inception",
    "Interval",
    "Linear",
    "Manifold",
    "Moments",
    "Probe",
    "Records",
    "ZeroShot",
    "alignment",
    "area",
    "bootstrap",
    "bytes_of",
    "class_accuracy",
    "class_codes",
    "cross_modal",
    "cross_modal_folds",
    "density_coverage",
    "distance_name",
    "effective_rank",
    "frechet",
    "frechet_at_infinity",
    "frechet_distance",
    "frechet_interval",
    "hubness",
    "inception_interval",
    "inception_score",
    "jackknife",
    "k_occurrence",
    "kernel_distance",
    "kernel_interval",
    "knn_probe",
    "linear_probe",
    "logistic_regression",
    "missing_curve",
    "modality_gap",
    "moments",
    "noise_curve",
    "noisy_codes",
    "noisy_signals",
    "paired_test",
    "pivotal",
    "precision_recall",
    "prompts",
    "psnr",
    "query_values",
    "query_values_of",
    "ranks_of",
    "retrieval_metrics",
    "summary",
    "text_match",
    "uniformity",
    "zero_shot",
]
