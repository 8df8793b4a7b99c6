"""Losses: tensors in, scalar out, one family per file. The caller runs the model.

Rows of x and y are codes of two modalities, (n, d) and (m, d); a scale multiplies their dot products.
"""

from harmonia.objectives.consistency import audio_visual
from harmonia.objectives.contrastive import info_nce
from harmonia.objectives.gather import gather, offset
from harmonia.objectives.harmonic import bounded_harmonic_loss, energy_loob, energy_margin, energy_nce
from harmonia.objectives.hopfield_fenchel_young import hfy_loss, margin
from harmonia.objectives.loob import cloob, hopfield_retrieve, info_loob
from harmonia.objectives.pairs import Positives
from harmonia.objectives.ranking import image_text_matching, siamese, triplet
from harmonia.objectives.regularisers import (
    alignment,
    covariance,
    cross_correlation,
    cross_covariance,
    uniformity,
    variance,
)
from harmonia.objectives.sigmoid import sigmoid_loss

__all__ = [
    "Positives",
    "alignment",
    "audio_visual",
    "bounded_harmonic_loss",
    "cloob",
    "covariance",
    "cross_correlation",
    "cross_covariance",
    "energy_loob",
    "energy_margin",
    "energy_nce",
    "gather",
    "hfy_loss",
    "hopfield_retrieve",
    "image_text_matching",
    "info_loob",
    "info_nce",
    "margin",
    "offset",
    "siamese",
    "sigmoid_loss",
    "triplet",
    "uniformity",
    "variance",
]
