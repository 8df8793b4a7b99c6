"""Text-image matching: a text tower and an image tower, trained by the DAMSM loss and then frozen.

AttnGAN takes its word features and its matching loss from the pair, DALL-E 2 the codes of texts and images in
one space, and Imagen the features of the frozen text tower. The weights are saved with the generator.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from harmonia.generators.base import SCALES, Batch
from harmonia.layers import ConvNet, Transformer
from harmonia.objectives.damsm import damsm
from harmonia.types import HarmoniaError

SPACE = ord(" ") + 1


@dataclass(frozen=True, kw_only=True)
class MatchingConfig:
    """Images of ``shape`` and texts of at most ``text`` bytes and ``words`` words, embedded in ``width``
    numbers."""

    shape: tuple[int, int, int] = (1, 28, 28)
    text: int = 32
    words: int = 8
    width: int = 64
    size: str = "tiny"

    def __post_init__(self) -> None:
        """Check the settings; HarmoniaError if one is out of range."""
        if self.size not in SCALES:
            raise HarmoniaError(f"there is no size {self.size!r}: give one of {', '.join(SCALES)}")
        if min(self.text, self.words, self.width) < 1:
            raise HarmoniaError("matching needs texts: set condition=text, and words and width to 1 or more")

    def require(self, shape: tuple[int, int, int], text: int) -> None:
        """HarmoniaError unless the pair takes pictures of ``shape`` and texts of ``text`` bytes."""
        if self.shape != shape or self.text != text:
            raise HarmoniaError(
                f"the matching pair takes pictures {self.shape} and texts of {self.text} bytes, "
                f"the generator {shape} and {text}: give both the same"
            )


class TextFeatures(NamedTuple):
    """Features of texts: ``words`` (n, t, d), ``mask`` (n, t) where a word is, ``sentence`` (n, d) of unit
    length."""

    words: Tensor
    mask: Tensor
    sentence: Tensor


class ImageFeatures(NamedTuple):
    """Features of images: ``regions`` (n, r, d), ``picture`` (n, d) of unit length."""

    regions: Tensor
    picture: Tensor


class MatchingPair(nn.Module):
    """A transformer over bytes, which are averaged by word, and a convolutional network over images."""

    def __init__(self, config: MatchingConfig) -> None:
        super().__init__()
        self.config = config
        scale, width = SCALES[config.size], config.width
        hidden = scale.width // 2
        self.letter = nn.Embedding(257, hidden, padding_idx=0)
        self.place = nn.Parameter(torch.randn(config.text, hidden) * 0.02)
        self.blocks = Transformer(hidden, 2, max(1, hidden // 32))
        self.word, self.sentence = nn.Linear(hidden, width), nn.Linear(hidden, width)
        self.eye = ConvNet(config.shape[0], [2 * scale.channels], [2])
        self.region, self.picture = nn.Linear(self.eye.out, width), nn.Linear(self.eye.out, width)

    def groups(self) -> dict[str, list[nn.Parameter]]:
        """The parameters that are not frozen."""
        return {"model": [p for p in self.parameters() if p.requires_grad]}

    def losses(self, batch: Batch) -> dict[str, Tensor]:
        """The DAMSM loss of the pairs of the batch."""
        return {"model": self.match(batch.x, text_of(batch.condition.text))}

    def match(self, x: Tensor, text: Tensor) -> Tensor:
        """The DAMSM loss of images (n, c, h, w) and texts, int64 (n, t), row by row."""
        read, seen = self.read(text), self.see(x)
        same = (text[:, None] == text).all(-1)
        return damsm(read.words, read.mask, seen.regions, read.sentence, seen.picture, same=same)

    def letters(self, text: Tensor) -> Tensor:
        """Features of each byte, (n, t, hidden), with zeros for padding, as ``Condition.features``."""
        known = text > 0
        # an empty text still needs one token to attend to
        attended = known | (torch.arange(text.shape[1], device=text.device) == 0)
        said: Tensor = self.blocks(self.letter(text) + self.place[: text.shape[1]], attended)
        return said * known[..., None]

    def read(self, text: Tensor) -> TextFeatures:
        """Features of texts int64 (n, t), as ``spell`` gives them."""
        said = self.letters(text)
        words, mask = by_word(said, text, self.config.words)
        mean = said.sum(1) / (text > 0).sum(1, keepdim=True).clamp_min(1)
        return TextFeatures(self.word(words), mask, F.normalize(self.sentence(mean), dim=-1))

    def see(self, x: Tensor) -> ImageFeatures:
        """Features of images (n, c, h, w) in [-1, 1]."""
        seen = self.eye(x).flatten(2).transpose(1, 2)
        return ImageFeatures(self.region(seen), F.normalize(self.picture(seen.mean(1)), dim=-1))


def by_word(letters: Tensor, text: Tensor, words: int) -> tuple[Tensor, Tensor]:
    """The mean of the features of each word's bytes, (n, t, d), and the mask of words, (n, t).

    Words end at spaces; t is the number of words of the longest text, at most ``words``. Further words count
    as part of the last one. An empty text has one word of zeros.
    """
    space = text == SPACE
    place = space.cumsum(1).clamp_max(words - 1)
    words = int(place.max()) + 1
    member = F.one_hot(place, words).to(letters) * ((text > 0) & ~space)[..., None]
    count = member.sum(1)
    gathered = torch.einsum("ntw,ntd->nwd", member, letters) / count.clamp_min(1)[..., None]
    mask = count > 0
    return gathered, mask | (~mask.any(1, keepdim=True) & (torch.arange(words, device=mask.device) == 0))


def text_of(text: Tensor | None) -> Tensor:
    """The text of a condition; HarmoniaError if it has none."""
    if text is None:
        raise HarmoniaError("this generator needs a text: give one (in training: set condition=text)")
    return text
