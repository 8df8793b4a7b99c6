"""Zero-shot classification by text codes of the class names.

Radford et al. 2021 (CLIP), section 3.1.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from harmonia.metrics.scores import BLOCK, check_codes, check_labels, score_blocks, top_shares, unit
from harmonia.types import HarmoniaError

TEMPLATES: Mapping[str, tuple[str, ...]] = {
    "photo": ("a photo of a {}.", "a picture of a {}.", "a close-up of a {}.", "{}"),
    "sound": ("the sound of a {}.", "a recording of a {}.", "one can hear a {}.", "{}"),
    "digit": ("the digit {}.", "the number {}.", "a handwritten {}.", "{}"),
}
"""Sentences in English by kind; for another language give your own."""


@dataclass(frozen=True, slots=True, eq=False)
class ZeroShot:
    """``accuracy`` by k: the label is among the k best classes. ``per_class`` (C,): accuracy at 1 of each
    class, NaN for one without examples. ``confusion`` (C, C): how many of each class (row) were taken for
    which (column); an example that ties between m classes counts 1 / m in each."""

    accuracy: dict[int, float]
    per_class: Tensor
    confusion: Tensor

    @property
    def mean_per_class(self) -> float:
        """Mean accuracy of the classes that have examples: that of a set with equally many of each."""
        return float(self.per_class.nanmean())


def prompts(classes: Sequence[str], templates: Sequence[str]) -> list[list[str]]:
    """For each class its sentences: every template with the name in place of ``{}``."""
    if not classes or not templates:
        raise HarmoniaError("zero-shot needs one class and one template at least")
    if wrong := [template for template in templates if "{}" not in template]:
        raise HarmoniaError(f"the template {wrong[0]!r} has no {{}} for the name of the class")
    return [[template.replace("{}", name) for template in templates] for name in classes]


def class_codes(
    encode: Callable[[list[str]], Tensor], classes: Sequence[str], templates: Sequence[str]
) -> Tensor:
    """A unit code for each class, float64 (C, d): the mean of the unit codes of its sentences, re-normalised.

    ``encode`` takes all sentences, (C T) of them, and gives their codes (C T, d).
    """
    sentences = prompts(classes, templates)
    codes = encode([sentence for of_class in sentences for sentence in of_class])
    check_codes(codes, "the codes of the prompts")
    if len(codes) != len(classes) * len(templates):
        raise HarmoniaError(f"{len(classes) * len(templates)} prompts were given {len(codes)} codes")
    return unit(unit(codes).view(len(classes), len(templates), -1).mean(dim=1))


def zero_shot(
    codes: Tensor, labels: Tensor, classes: Tensor, ks: Sequence[int] = (1, 5), *, block: int = BLOCK
) -> ZeroShot:
    """Classify codes (n, d) with labels (n,) from 0 by the nearest of the class codes (C, d), by cosine.

    names = class_codes(encode, ["dog", "cat"], TEMPLATES["photo"])
    zero_shot(photos, labels, names).accuracy[1]
    """
    check_codes(codes, "codes")
    check_labels(labels, codes, "labels")
    if not ks or min(ks) < 1:
        raise HarmoniaError(f"ks must be at least 1, got {tuple(ks)}")
    count = len(classes)
    if int(labels.min()) < 0 or int(labels.max()) >= count:
        raise HarmoniaError(f"labels must be 0 to {count - 1}, one of the {count} classes")
    labels = labels.to(codes.device)
    right = dict.fromkeys(ks, 0.0)
    confusion = torch.zeros(count, count, dtype=torch.float64, device=codes.device)
    for rows, scores in score_blocks(unit(codes), unit(classes).to(codes.device), block):
        own = labels[rows]
        confusion.index_add_(0, own, top_shares(scores, 1))
        for k in ks:
            right[k] += float(top_shares(scores, k).gather(1, own[:, None]).sum())
    accuracy = {k: value / len(codes) for k, value in right.items()}
    per_class = confusion.diagonal() / confusion.sum(dim=1)
    return ZeroShot(accuracy, per_class.cpu(), confusion.cpu())
