"""Probes of frozen codes: logistic regression and k nearest neighbours.

Both are computed here, in float64 on the codes' own device, because scikit-learn is not installed with the
package; the tests compare with it.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from harmonia.metrics.scores import BLOCK, check_labels, check_pair, score_blocks, top_shares, unit
from harmonia.types import HarmoniaError

L2 = tuple(10.0**exponent for exponent in range(-6, 1))
"""Penalties that `linear_probe` tries."""

STEPS = 2000
# Greatest entry of the gradient at the minimum; a line search may stop a little above it.
GRADIENT = 1e-6


@dataclass(frozen=True, slots=True, eq=False)
class Linear:
    """A linear classifier: ``weight`` (C, d), ``bias`` (C,), and the penalty ``l2`` it was fitted with."""

    weight: Tensor
    bias: Tensor
    l2: float

    def scores(self, x: Tensor) -> Tensor:
        """Log odds (n, C) of rows x (n, d)."""
        return F.linear(x.to(self.weight), self.weight, self.bias)


@dataclass(frozen=True, slots=True, eq=False)
class Probe:
    """``accuracy`` on the test rows, the classifier, and the accuracy of every penalty on the held part."""

    accuracy: float
    classifier: Linear
    held: dict[float, float]


def linear_probe(
    x: Tensor,
    labels: Tensor,
    test: Tensor,
    test_labels: Tensor,
    *,
    l2: Sequence[float] = L2,
    held: float = 0.2,
    seed: int = 0,
) -> Probe:
    """Logistic regression on codes x (n, d), labels (n,) from 0, scored on test (m, d).

    The penalty is the one of ``l2`` that is best on a share ``held`` of each class, drawn by ``seed``; of
    several, the strongest. The classifier is then fitted to all of x (Radford et al. 2021, A.3). Codes are
    taken as they are: compare models on codes of one scale, such as unit length.
    """
    classes = _classes(x, labels, test, test_labels)
    if not l2 or any(value <= 0 for value in l2):
        raise HarmoniaError(f"give one penalty l2 above zero or more, got {tuple(l2)}")
    aside = _held(labels, held, seed)
    found: dict[float, float] = {}
    fitted: Linear | None = None
    for value in sorted(l2, reverse=True) if len(l2) > 1 else ():
        fitted = logistic_regression(x[~aside], labels[~aside], value, classes=classes, start=fitted)
        found[value] = _accuracy(fitted.scores(x[aside]), labels[aside])
    best = max(found, key=lambda value: found[value]) if found else l2[0]
    classifier = logistic_regression(x, labels, best, classes=classes)
    return Probe(_accuracy(classifier.scores(test), test_labels), classifier, found)


def logistic_regression(
    x: Tensor, labels: Tensor, l2: float, *, classes: int | None = None, start: Linear | None = None
) -> Linear:
    """The minimum of mean cross-entropy + l2 / 2 |W|^2 over W (C, d) and b (C,), by L-BFGS, float64.

    The bias is not penalised. scikit-learn's ``LogisticRegression(C=1 / (n l2))`` has the same minimum for
    three classes or more. A HarmoniaError if it is not reached.
    """
    check_labels(labels, x, "labels")
    classes = classes or int(labels.max()) + 1
    x, labels = x.detach().double(), labels.to(x.device)
    zero = Linear(x.new_zeros(classes, x.shape[1]), x.new_zeros(classes), l2)
    weight, bias = (
        p.detach().clone().requires_grad_() for p in ((start or zero).weight, (start or zero).bias)
    )
    optimizer = torch.optim.LBFGS(
        [weight, bias],
        max_iter=STEPS,
        history_size=20,
        tolerance_grad=GRADIENT,
        tolerance_change=0.0,
        line_search_fn="strong_wolfe",
    )

    def closure() -> Tensor:
        optimizer.zero_grad()
        loss = F.cross_entropy(F.linear(x, weight, bias), labels) + 0.5 * l2 * weight.square().sum()
        loss.backward()  # type: ignore[no-untyped-call]
        return loss

    with torch.enable_grad():
        optimizer.step(closure)  # type: ignore[no-untyped-call]
        closure()
    assert weight.grad is not None and bias.grad is not None
    gradient = max(float(weight.grad.abs().max()), float(bias.grad.abs().max()))
    if not gradient < 10 * GRADIENT:
        raise HarmoniaError(
            f"logistic regression did not converge in {STEPS} steps (gradient {gradient:.1e}): raise l2"
        )
    return Linear(weight.detach(), bias.detach(), l2)


def knn_probe(
    x: Tensor,
    labels: Tensor,
    test: Tensor,
    test_labels: Tensor,
    *,
    k: int = 20,
    temperature: float = 0.07,
    block: int = BLOCK,
) -> float:
    """Accuracy of the vote of the k nearest codes by cosine, each with weight exp(cos / temperature).

    Wu et al. 2018 ("Unsupervised Feature Learning via Non-Parametric Instance Discrimination"); a plain
    majority with ``temperature=math.inf``. Ties of neighbours and of votes are shared.
    """
    classes = _classes(x, labels, test, test_labels)
    if not 1 <= k <= len(x) or not temperature > 0:
        raise HarmoniaError(f"a vote needs k from 1 to {len(x)} and a temperature above 0, got {k}")
    votes = F.one_hot(labels.to(test.device), classes).double()
    right = 0.0
    for rows, scores in score_blocks(unit(test), unit(x).to(test.device), block):
        weights = top_shares(scores, k) * ((scores.double() - 1.0) / temperature).exp()
        right += _accuracy(weights @ votes, test_labels[rows]) * len(scores)
    return right / len(test)


def _accuracy(scores: Tensor, labels: Tensor) -> float:
    """Share of rows (n, C) whose label is the best, one of m equally good ones counting 1 / m."""
    labels = labels.to(scores.device)
    return float(top_shares(scores, 1).gather(1, labels[:, None]).mean())


def _classes(x: Tensor, labels: Tensor, test: Tensor, test_labels: Tensor) -> int:
    check_pair(x, test)
    check_labels(labels, x, "labels")
    check_labels(test_labels, test, "test_labels")
    if min(int(labels.min()), int(test_labels.min())) < 0:
        raise HarmoniaError("labels must be at least 0")
    return int(max(int(labels.max()), int(test_labels.max()))) + 1


def _held(labels: Tensor, share: float, seed: int) -> Tensor:
    """Validation rows for the penalty, bool (n,): ``share`` of every class with two rows or more."""
    if not 0 < share < 1:
        raise HarmoniaError(f"the held-out share must lie between 0 and 1, got {share}")
    generator = torch.Generator().manual_seed(seed)
    aside = torch.zeros(len(labels), dtype=torch.bool, device=labels.device)
    for label in torch.unique(labels):
        rows = (labels == label).nonzero()[:, 0]
        rows = rows[torch.randperm(len(rows), generator=generator).to(rows.device)]
        aside[rows[: min(math.ceil(share * len(rows)), len(rows) - 1)]] = True
    if not bool(aside.any()):
        raise HarmoniaError("every class has one row: give two of a class at least, or a single l2")
    return aside
