"""Conditions of samples (class, text, code, features, image) and their embeddings.

A :class:`Condition` has everything that a generator can be conditioned on. A :class:`Conditioner` embeds it
as one vector (for adaptive norms) and a sequence of tokens (for cross-attention). A missing kind, and one
that is dropped in training for classifier-free guidance (Ho and Salimans 2022), is a learned null embedding.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields

import torch
from torch import Tensor, nn

from harmonia.layers import Transformer
from harmonia.types import HarmoniaError


@dataclass(frozen=True, slots=True, eq=False)
class Condition:
    """The conditions of ``n`` samples, a row for each; None for a kind that none of them has.

    ``label``     int64 (n,), a class; -1: none
    ``text``      int64 (n, t), UTF-8 bytes as ``spell`` gives them; a row of zeros: none
    ``code``      float32 (n, d), a code of any modality in a shared space, or the settled state of the
                  memory;
                  zeros: none
    ``features``  float32 (n, t, w), token features of a frozen text encoder; zero rows are padding
    ``image``     float32 (n, c, h, w), an image of the size of the samples: an enlarged smaller image, or the
                  known pixels of an image with the mask of the known pixels (1) as the last channel
    ``level``     float32 (n,), level in [0, 1] of the noise added to ``image`` (conditioning augmentation)
    """

    n: int
    label: Tensor | None = None
    text: Tensor | None = None
    code: Tensor | None = None
    features: Tensor | None = None
    image: Tensor | None = None
    level: Tensor | None = None

    def __post_init__(self) -> None:
        for name, value in self.parts().items():
            if len(value) != self.n:
                raise HarmoniaError(
                    f"a condition of {self.n} samples has {len(value)} rows of {name}: give {self.n}"
                )

    def __len__(self) -> int:
        return self.n

    def parts(self) -> dict[str, Tensor]:
        """The kinds that are not None, by name."""
        found = {one.name: getattr(self, one.name) for one in fields(self) if one.name != "n"}
        return {name: value for name, value in found.items() if value is not None}

    def to(self, device: torch.device) -> Condition:
        """The condition on a device."""
        return Condition(self.n, **{name: value.to(device) for name, value in self.parts().items()})

    def rows(self, index: Tensor) -> Condition:
        """Some of the rows, by int64 index; a row may come several times."""
        return Condition(len(index), **{name: value[index] for name, value in self.parts().items()})

    def without(self, rows: Tensor | None = None) -> Condition:
        """The condition with ``rows``, bool (n,), or all rows set to null; ``image`` and ``level`` stay."""
        said = {}
        for name, value in self.parts().items():
            if name in ("image", "level"):
                said[name] = value
                continue
            null = torch.full_like(value, -1 if name == "label" else 0)
            said[name] = null if rows is None else torch.where(_column(rows, value), null, value)
        return Condition(self.n, **said)


def join(first: Condition, second: Condition) -> Condition:
    """The rows of two conditions of the same kinds, concatenated, so that guidance takes one pass."""
    a, b = first.parts(), second.parts()
    return Condition(first.n + second.n, **{name: torch.cat([a[name], b[name]]) for name in a})


def spell(texts: Sequence[str], length: int = 64) -> Tensor:
    """Texts of any language as int64 (n, length): each UTF-8 byte plus 1, padded with zeros; long texts are
    cut."""
    ids = torch.zeros(len(texts), length, dtype=torch.int64)
    for row, text in enumerate(texts):
        data = list(text.encode("utf-8")[:length])
        ids[row, : len(data)] = torch.tensor(data, dtype=torch.int64) + 1
    return ids


@dataclass(frozen=True, kw_only=True)
class ConditionConfig:
    """The kinds of condition of a generator; 0 for a kind that it does not take.

    ``classes``   number of labels
    ``text``      longest text in bytes
    ``code``      width of codes
    ``features``  width of a frozen text encoder's token features
    ``channels``  of ``image``
    ``drop``      share of training samples whose condition is dropped, for classifier-free guidance
    """

    classes: int = 0
    text: int = 0
    code: int = 0
    features: int = 0
    channels: int = 0
    drop: float = 0.1


@dataclass(frozen=True, slots=True, eq=False)
class ConditionEmbedding:
    """An embedded condition: ``vector`` (n, width), ``tokens`` (n, t, width), ``mask`` (n, t).

    ``mask`` is true for the tokens that count; at least one token of each row does.
    """

    vector: Tensor
    tokens: Tensor
    mask: Tensor


class Conditioner(nn.Module):
    """Embeds conditions in ``width`` dimensions; a text goes through ``blocks`` transformer blocks over its
    bytes."""

    def __init__(self, config: ConditionConfig, width: int, blocks: int = 2) -> None:
        super().__init__()
        self.config, self.width = config, width
        self.null = nn.Parameter(torch.zeros(width))
        if config.classes:
            self.label = nn.Embedding(config.classes, width)
        if config.text:
            self.letter = nn.Embedding(257, width, padding_idx=0)
            self.place = nn.Parameter(torch.randn(config.text, width) * 0.02)
            self.read = Transformer(width, blocks, max(1, width // 32))
        if config.code:
            self.code = nn.Linear(config.code, width)
        if config.features:
            self.features = nn.Linear(config.features, width)
        if config.channels:
            self.level = nn.Linear(1, width)

    def drop(self, condition: Condition) -> Condition:
        """Set a random share ``config.drop`` of the rows to null, drawn from torch's global generator."""
        return condition.without(torch.rand(condition.n) < self.config.drop)

    def forward(self, condition: Condition) -> ConditionEmbedding:
        """Embed a condition. The vector is the sum of the kinds' embeddings; kinds without a layer are
        ignored."""
        c, config = condition, self.config
        vector, tokens = self.null.expand(c.n, -1), [self.null.expand(c.n, 1, -1)]
        mask = torch.ones(c.n, 1, dtype=torch.bool, device=self.null.device)
        if config.classes and c.label is not None:
            known = (c.label >= 0)[:, None]
            said = self.label(c.label.clamp_min(0)) * known
            vector, tokens, mask = vector + said, [*tokens, said[:, None]], torch.cat([mask, known], 1)
        if config.text and c.text is not None:
            known = c.text > 0
            # an empty text still needs one token to attend to
            seen = known | (torch.arange(c.text.shape[1], device=known.device) == 0)
            said = self.read(self.letter(c.text) + self.place[: c.text.shape[1]], seen) * known[..., None]
            mean = said.sum(1) / known.sum(1, keepdim=True).clamp_min(1)
            vector, tokens, mask = vector + mean, [*tokens, said], torch.cat([mask, known], 1)
        if config.code and c.code is not None:
            known = (c.code != 0).any(1, keepdim=True)
            said = self.code(c.code * c.code.shape[1] ** 0.5) * known
            vector, tokens, mask = vector + said, [*tokens, said[:, None]], torch.cat([mask, known], 1)
        if config.features and c.features is not None:
            known = (c.features != 0).any(2)
            said = self.features(c.features) * known[..., None]
            mean = said.sum(1) / known.sum(1, keepdim=True).clamp_min(1)
            vector, tokens, mask = vector + mean, [*tokens, said], torch.cat([mask, known], 1)
        if config.channels and c.level is not None:
            vector = vector + self.level(c.level[:, None])
        return ConditionEmbedding(vector, torch.cat(tokens, 1), mask)


def _column(rows: Tensor, value: Tensor) -> Tensor:
    return rows.to(value.device).view(-1, *([1] * (value.dim() - 1)))
