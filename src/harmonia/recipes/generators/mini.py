"""The shipped generator: emoji of 32 pixels, conditioned on codes of the shipped encoder, mini.

Words in any language, images, sounds and recalled states of a memory all have codes in that space. In
training, codes of images and of words are equally frequent; noise on the codes smooths the mapping.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import normalize

from harmonia.datasets.registry import reader
from harmonia.encoders import MINI, Encoder
from harmonia.encoders.towers.saved import load_trained
from harmonia.generators import Batch, Condition, ConditionConfig, Facts, Generator
from harmonia.generators.diffusion.model import Diffusion, DiffusionConfig
from harmonia.metrics.image_features import bytes_of
from harmonia.recipes.generators.pictures import Pictures, load_pictures, part_of
from harmonia.recipes.generators.run import GeneratorRun, Stage
from harmonia.recipes.run import RunSettings
from harmonia.types import Record, Signal

CARD = """# Harmonia imagine-mini

Draws emoji of {resolution} pixels, conditioned on codes of Harmonia mini: words in 28 languages, an image, a
kind of sound, or the recalled state of a memory. {parameters:.1f} million parameters. It ships with Harmonia,
so that `harmonia imagine` works offline, and it is small.

* Use: `harmonia imagine a red apple`, in a folder with a memory or without.
* Method: rectified flow (Liu et al. 2023, Lipman et al. 2023) with a U-Net, classifier-free guidance (Ho and
  Salimans 2022).
* Trained by `harmonia train imagine-mini`: {steps} steps of {batch}, seed {seed}.
* Data: {pictures} pictures of Noto Emoji, by Google (Apache 2.0), every tenth held out; names and keywords of
  Unicode CLDR (Unicode License). The weights are Apache 2.0 like the package.
* Limits: it only draws emoji like those of its training data. There are few of them, so an output may be
  close to one. Outputs are generated images, and their files are marked as such.

"likeness" is the cosine between the code of an image, as condition, and the code of the generated image; "by
name" is conditioned on the English name instead. "held-out" are images that were not in the training data of
the generator (they were in that of mini).
"""


@dataclass(frozen=True, kw_only=True)
class ImagineMiniSettings(RunSettings):
    """Settings of `imagine_mini`.

    ``texts``  codes of words for each image, and as many of the image
    ``noise``  largest norm of the noise on a code of norm 1
    ``ema``    decay of the moving average of the weights
    """

    resolution: int = 32
    size: str = "tiny"
    texts: int = 16
    noise: float = 0.5
    steps: int = 9000
    batch: int = 64
    ema: float = 0.999


SETTINGS = ImagineMiniSettings()


@dataclass(frozen=True, slots=True, eq=False)
class Noisy:
    """Images whose codes get noise of a norm between 0 and ``noise`` and are normalised again."""

    pictures: Pictures
    noise: float

    def __len__(self) -> int:
        return len(self.pictures)

    def batch(self, indices: Tensor, generator: torch.Generator) -> Batch:
        """Images in [-1, 1] and noisy codes."""
        batch = self.pictures.batch(indices, generator)
        code = batch.condition.code
        assert code is not None
        level = self.noise * torch.rand(len(code), 1, generator=generator)
        around = torch.randn(code.shape, generator=generator) / code.shape[1] ** 0.5
        return Batch(batch.x, replace(batch.condition, code=normalize(code + level * around, dim=1)))


def imagine_mini(data: Path | None = None, settings: ImagineMiniSettings = SETTINGS) -> GeneratorRun:
    """The shipped generator: emoji, conditioned on codes of mini."""
    s = settings
    image, text = (next(e for e in load_trained(MINI) if e.modality == m) for m in ("image", "text"))
    pictures = coded_emoji(data, s, "train", image, text)
    config = DiffusionConfig(
        shape=(3, s.resolution, s.resolution), size=s.size, condition=ConditionConfig(code=image.dim),
        channels=(1, 2, 4), attend=2, times="logit-normal", steps=20, guidance=2.0,
    )  # fmt: skip
    torch.manual_seed(s.seed)
    generator = Diffusion(config)
    train = s.training(
        s.batch, weight_decay=0.01, warmup=100, ema=s.ema, save_every=max(100, s.steps // 10), log_every=50
    )
    card = CARD.format(
        **asdict(s), pictures=len(pictures), parameters=sum(p.numel() for p in generator.parameters()) / 1e6
    )

    def figures(generator: Generator) -> dict[str, float]:
        held = coded_emoji(data, s, "val", image, text)
        return {
            "likeness": likeness(generator, pictures, image),
            "likeness, by name": likeness(generator, pictures, image, own=False),
            "likeness, held-out": likeness(generator, held, image),
            "likeness, held-out, by name": likeness(generator, held, image, own=False),
        }

    return GeneratorRun(
        "imagine-mini", generator, (Stage("flow", generator, Noisy(pictures, s.noise), train),),
        Facts("imagine-mini", image.space), card, figures, torch.float16,
    )  # fmt: skip


def coded_emoji(
    data: Path | None, settings: ImagineMiniSettings, split: str, image: Encoder, text: Encoder
) -> Pictures:
    """Emoji of a split with codes (n, 2 texts, d): ``texts`` times that of the image, then those of its
    words."""
    s = settings
    pictures = load_pictures("emoji", split, resolution=s.resolution, data=data, keep=("code",))
    words = _words(data, split)
    random = np.random.default_rng(s.seed)
    # the English name first, then random names and keywords, with repetition if there are few
    chosen = [(own[0], *(own[i] for i in random.integers(len(own), size=s.texts - 1))) for own in words]
    said = _codes(text, [Signal("text", one) for several in chosen for one in several])
    seen = codes_of(image, pictures.x)
    codes = torch.cat([seen[:, None].expand(-1, s.texts, -1), said.view(len(words), s.texts, -1)], 1)
    return replace(pictures, codes=codes)


def codes_of(image: Encoder, x: Tensor) -> Tensor:
    """The codes (n, d) of images uint8 (n, 3, h, w)."""
    return _codes(image, [Signal("image", one) for one in x.permute(0, 2, 3, 1).contiguous().numpy()])


def _codes(encoder: Encoder, signals: Sequence[Signal]) -> Tensor:
    return torch.from_numpy(encoder.encode(signals))


def _words(data: Path | None, split: str) -> list[list[str]]:
    """Names and keywords of each emoji in all languages, English first, in ``load_pictures``' order."""
    records = [r for r in reader("emoji")(data, split="all", keywords=True) if isinstance(r, Record)]
    return [[str(r.metadata["name"]), *(p.text for p in r.parts if p.text)] for r in part_of(records, split)]


def likeness(generator: Generator, pictures: Pictures, image: Encoder, own: bool = True) -> float:
    """The mean cosine between the codes of 64 images and of those generated from them, or from their
    names."""
    codes = pictures.codes
    assert codes is not None
    some = torch.linspace(0, len(codes) - 1, min(64, len(codes))).long()
    asked = codes[some, 0 if own else codes.shape[1] // 2]
    random = torch.Generator().manual_seed(0)
    condition = Condition(len(some), code=asked).to(generator.device)
    drawn = generator.sample(condition, guidance=2.0, generator=random).cpu()
    found = codes_of(image, bytes_of(drawn))
    return float((found * codes[some, 0]).sum(1).mean())
