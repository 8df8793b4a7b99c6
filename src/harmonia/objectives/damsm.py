"""Words of a text against regions of an image: deep attentional multimodal similarity (DAMSM) of AttnGAN."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from harmonia.objectives.checks import check_mask, check_number, check_same, full_precision
from harmonia.objectives.contrastive import FAR
from harmonia.types import HarmoniaError


@full_precision
def word_similarity(
    words: Tensor, mask: Tensor, regions: Tensor, gamma1: float = 5.0, gamma2: float = 5.0
) -> Tensor:
    """R(Q, D) of every image Q with every text D, (n, m): how well regions explain the text's words.

    For word i and region j, s_ij = <e_i, v_j>, softmax over the words to s'_ij; the image as word i sees it
    is c_i = sum_j a_j v_j, a = softmax_j(gamma1 s'_ij); and

    R = 1/gamma2 log sum_i exp(gamma2 cos(c_i, e_i)).

    Inputs: ``words`` (m, t, d); ``mask`` (m, t) bool, true where a word is, one in each row at least;
    ``regions`` (n, r, d). gamma1 is how sharply a word looks at regions, gamma2 how much the best-matching
    word counts. Memory is O(n m t max(r, d)). Texts of t equally well matching words have R = cos + log(t)
    / gamma2: more words, more evidence.

    Relations: a text of one word has s' = 1 everywhere, hence looks at all regions alike.

    Reference: Xu et al. 2018, "AttnGAN", equations 7 to 10.

        scores = word_similarity(words, mask, regions)
    """
    _check(words, mask, regions)
    check_number(gamma1, "gamma1")
    if not gamma2 > 0:
        raise HarmoniaError(f"gamma2 must be above 0, got {gamma2}")
    scores = torch.einsum("mtd,nrd->nmtr", words, regions)
    scores = scores.masked_fill(~mask[None, :, :, None], FAR).softmax(dim=2)
    attention = (gamma1 * scores).softmax(dim=3)
    seen = torch.einsum("nmtr,nrd->nmtd", attention, regions)
    match = F.cosine_similarity(seen, words[None], dim=3)
    return (gamma2 * match).masked_fill(~mask[None], FAR).logsumexp(dim=2) / gamma2


@full_precision
def damsm(
    words: Tensor,
    mask: Tensor,
    regions: Tensor,
    sentence: Tensor,
    image: Tensor,
    *,
    same: Tensor | None = None,
    gamma1: float = 5.0,
    gamma2: float = 5.0,
    gamma3: float = 10.0,
) -> Tensor:
    """The DAMSM loss: match images and texts of the batch, by words and regions and by sentence and image.

    L = - sum over both R of mean_i [ log softmax_j(gamma3 R_ij)_i + log softmax_j(gamma3 R_ji)_i ], with R
    once `word_similarity` and once the cosine of ``image`` and ``sentence``: L1^w + L2^w + L1^s + L2^s.

    Inputs: ``words`` (n, t, d) with ``mask`` (n, t), ``regions`` (n, r, d), ``sentence`` (n, d), ``image``
    (n, d); row i of all belongs together. ``same`` (n, n) bool: rows that say the same, which are then no
    negatives for each other (two images of "three" in one batch). Requirements: two rows that differ at
    least; chance is 4 log n. Trained on real pairs first, then frozen, it judges what a generator draws:
    the gradient goes through the regions to the image.

    Relations: each half is `info_nce` with gamma3 as scale and R as scores. AttnGAN's generator has this and
    the adversarial terms; it has no L1 or other distance to a given image.

    Reference: Xu et al. 2018, "AttnGAN: Fine-Grained Text to Image Generation with Attentional Generative
    Adversarial Networks", equations 11 to 13; gammas 5, 5, 10 are the paper's.

        loss = damsm(words, mask, regions, sentence, image, same=(text[:, None] == text).all(-1))
    """
    check_same(sentence=sentence, image=image)
    check_number(gamma3, "gamma3")
    by_words = word_similarity(words, mask, regions, gamma1, gamma2)
    whole = F.normalize(image, dim=-1) @ F.normalize(sentence, dim=-1).T
    n = len(sentence)
    if n < 2 or by_words.shape != (n, n):
        raise HarmoniaError(
            f"matching tells pairs apart: give two or more texts, and as many images (got {n})"
        )
    own = torch.arange(n, device=words.device)
    others = torch.zeros(n, n, dtype=torch.bool, device=words.device) if same is None else same.clone()
    check_mask(others, (n, n), "same")
    others.fill_diagonal_(False)
    total = words.new_zeros(())
    for similarity in (by_words, whole):
        scores = (gamma3 * similarity).masked_fill(others, FAR)
        total = total + F.cross_entropy(scores, own) + F.cross_entropy(scores.T, own)
    return total


def _check(words: Tensor, mask: Tensor, regions: Tensor) -> None:
    if words.dim() != 3 or regions.dim() != 3 or words.shape[2] != regions.shape[2]:
        raise HarmoniaError(
            "words (m, t, d) and regions (n, r, d) must have one width d, got "
            f"{tuple(words.shape)} and {tuple(regions.shape)}"
        )
    check_mask(mask, tuple(words.shape[:2]), "mask")
    if not bool(mask.any(dim=1).all()):
        raise HarmoniaError("a text without words matches nothing: mask needs one true in each row")
