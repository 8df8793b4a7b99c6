"""Token losses: the categorical cross-entropy of the next token, or of masked tokens."""

from __future__ import annotations

from torch import Tensor
from torch.nn import functional as F

from harmonia.objectives.checks import check_mask, full_precision
from harmonia.types import HarmoniaError


@full_precision
def token_cross_entropy(
    logits: Tensor, targets: Tensor, *, smoothing: float = 0.0, counts: Tensor | None = None
) -> Tensor:
    """Categorical cross-entropy, in nats per token.

    L = -mean over tokens of sum_k q_k log softmax(logits)_k, with q one-hot at the target, mixed with the
    uniform distribution in the share ``smoothing``.

    Inputs: logits (..., K), targets int64 (...) in [0, K); ``counts`` bool (...), true for the tokens that
    the mean is over (None: all). Requirements: at least one token counts. Relations: without smoothing its
    least value is the entropy of the source, which is a test here; the excess is the Kullback-Leibler
    divergence from the source to the model, so for an autoregressive model the sum over a sequence is an
    exact negative log-likelihood. `info_nce` is this with the rows of the batch as classes.

    References: Szegedy et al. 2016 (label smoothing); Bishop 2006, 4.3.4.

        loss = token_cross_entropy(model(tokens[:, :-1]), tokens[:, 1:])
    """
    classes = logits.shape[-1]
    if logits.shape[:-1] != targets.shape:
        raise HarmoniaError(
            f"logits {tuple(logits.shape)} are not (..., K) of targets {tuple(targets.shape)}"
        )
    if not 0 <= smoothing < 1:
        raise HarmoniaError(f"smoothing must be at least 0 and less than 1, got {smoothing}")
    if counts is None:
        return F.cross_entropy(logits.reshape(-1, classes), targets.reshape(-1), label_smoothing=smoothing)
    check_mask(counts, tuple(targets.shape), "counts")
    if not bool(counts.any()):
        raise HarmoniaError("no token counts: the loss is a mean over at least one")
    return F.cross_entropy(logits[counts], targets[counts], label_smoothing=smoothing)


@full_precision
def masked_prediction(logits: Tensor, targets: Tensor, hidden: Tensor, *, smoothing: float = 0.1) -> Tensor:
    """The cross-entropy of masked tokens.

    Inputs: logits (n, t, K) of a network that sees all tokens where ``hidden``, bool (n, t), is false;
    targets int64 (n, t). Requirements: something is hidden. Relations: `token_cross_entropy` over the hidden
    ones; with the share of hidden tokens drawn anew for each row it bounds the likelihood in random order,
    with a fixed 15 % it is BERT's.

    References: Devlin et al. 2019 (BERT); Chang et al. 2022 (MaskGIT, smoothing 0.1).

        hidden = torch.rand(codes.shape) < torch.rand(len(codes), 1).mul(math.pi / 2).cos()
        loss = masked_prediction(model(codes.masked_fill(hidden, MASK)), codes, hidden)
    """
    return token_cross_entropy(logits, targets, smoothing=smoothing, counts=hidden)
