"""Losses: tensors in, scalar out, one family per file. The caller runs the model.

Rows of x and y are codes of two modalities, (n, d) and (m, d); a scale multiplies their dot products.
docs/reference/objectives.md has an example of each public name.
"""

from harmonia.objectives.adversarial import (
    ADVERSARIAL,
    Adversarial,
    gradient_penalty,
    hinge,
    least_squares,
    minimax,
    non_saturating,
    path_length,
    relativistic,
)
from harmonia.objectives.consistency import audio_visual
from harmonia.objectives.contrastive import info_nce
from harmonia.objectives.damsm import damsm, word_similarity
from harmonia.objectives.diffusion import prediction_loss
from harmonia.objectives.global_batch import gather, offset
from harmonia.objectives.harmonic import bounded_harmonic_loss, energy_loob, energy_margin, energy_nce
from harmonia.objectives.hopfield_fenchel_young import hfy_loss, margin
from harmonia.objectives.loob import cloob, hopfield_retrieve, info_loob
from harmonia.objectives.pair_scores import Positives
from harmonia.objectives.perceptual import perceptual, taps
from harmonia.objectives.ranking import image_text_matching, siamese, triplet
from harmonia.objectives.reconstruction import bce, charbonnier, l1, l2
from harmonia.objectives.regularisers import (
    alignment,
    covariance,
    cross_correlation,
    cross_covariance,
    uniformity,
    variance,
)
from harmonia.objectives.sigmoid import sigmoid_loss
from harmonia.objectives.tokens import masked_prediction, token_cross_entropy
from harmonia.objectives.variational import (
    bernoulli_log_likelihood,
    gaussian_kl,
    gaussian_log_likelihood,
    uniform_kl,
    vector_quantisation,
)

__all__ = [
    "ADVERSARIAL",
    "Adversarial",
    "Positives",
    "alignment",
    "audio_visual",
    "bce",
    "bernoulli_log_likelihood",
    "bounded_harmonic_loss",
    "charbonnier",
    "cloob",
    "covariance",
    "cross_correlation",
    "cross_covariance",
    "damsm",
    "energy_loob",
    "energy_margin",
    "energy_nce",
    "gather",
    "gaussian_kl",
    "gaussian_log_likelihood",
    "gradient_penalty",
    "hfy_loss",
    "hinge",
    "hopfield_retrieve",
    "image_text_matching",
    "info_loob",
    "info_nce",
    "l1",
    "l2",
    "least_squares",
    "margin",
    "masked_prediction",
    "minimax",
    "non_saturating",
    "offset",
    "path_length",
    "perceptual",
    "prediction_loss",
    "relativistic",
    "siamese",
    "sigmoid_loss",
    "taps",
    "token_cross_entropy",
    "triplet",
    "uniform_kl",
    "uniformity",
    "variance",
    "vector_quantisation",
    "word_similarity",
]
