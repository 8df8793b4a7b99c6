"""The generator that ships: emoji of 32 pixels, told by a code of mini.

Words in any language, pictures and sounds have codes in that one space, and so has what a memory settles at.
A code of a picture is told as often as one of words; a little noise on it makes its neighbours mean the same.
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

Draws emoji of {resolution} pixels of what a code of Harmonia mini stands for: words in 28 languages, a
picture, a kind of sound, or what a memory settles at. {parameters:.1f} million parameters. It ships with
Harmonia, so that `harmonia imagine` works offline, and it is small.

* Use: `harmonia imagine a red apple`, in a folder with a memory or without.
* Method: rectified flow (Liu et al. 2023, Lipman et al. 2023) by a U-Net, guidance without a classifier (Ho
  and Salimans 2022).
* Trained by `harmonia train imagine-mini`: {steps} steps of {batch}, seed {seed}.
* Data: {pictures} pictures of Noto Emoji, by Google (Apache 2.0), every tenth held out; names and keywords of
  Unicode CLDR (Unicode License). The weights are Apache 2.0 like the package.
* Limits: it draws emoji like those it has seen and knows nothing else. It has seen few pictures, so what it
  draws may be close to one of them. What it draws is generated, and the files say so.

"likeness" is the cosine of the code asked for, a picture's own, and the code of what is drawn for it;
"by name" is told the English name instead. "held-out" are pictures that it was not trained on (mini was).
"""


@dataclass(frozen=True, kw_only=True)
class ImagineMiniSettings(RunSettings):
    """``texts`` is how many codes of words a picture has; it has as many of itself. ``noise`` is the norm of
    what is added to a code of norm 1, drawn from 0 to this.
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
    """Pictures whose codes get noise of a norm between 0 and ``noise``; then they are of unit norm again."""

    pictures: Pictures
    noise: float

    def __len__(self) -> int:
        return len(self.pictures)

    def batch(self, indices: Tensor, generator: torch.Generator) -> Batch:
        """Pictures in [-1, 1], and noisy codes."""
        batch = self.pictures.batch(indices, generator)
        code = batch.condition.code
        assert code is not None
        level = self.noise * torch.rand(len(code), 1, generator=generator)
        around = torch.randn(code.shape, generator=generator) / code.shape[1] ** 0.5
        return Batch(batch.x, replace(batch.condition, code=normalize(code + level * around, dim=1)))


def imagine_mini(data: Path | None = None, settings: ImagineMiniSettings = SETTINGS) -> GeneratorRun:
    """The generator that ships: emoji, from codes of mini."""
    s = settings
    image, text = (next(e for e in load_trained(MINI) if e.modality == m) for m in ("image", "text"))
    pictures = told(data, s, "train", image, text)
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
        held = told(data, s, "val", image, text)
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


def told(
    data: Path | None, settings: ImagineMiniSettings, split: str, image: Encoder, text: Encoder
) -> Pictures:
    """Emoji of a split with codes (n, 2 texts, d): ``texts`` times the picture's, then those of its words."""
    s = settings
    pictures = load_pictures("emoji", split, resolution=s.resolution, data=data, keep=("code",))
    words = _words(data, split)
    random = np.random.default_rng(s.seed)
    # the English name first, then any others; who has few says them several times
    chosen = [(own[0], *(own[i] for i in random.integers(len(own), size=s.texts - 1))) for own in words]
    said = _codes(text, [Signal("text", one) for several in chosen for one in several])
    seen = codes_of(image, pictures.x)
    codes = torch.cat([seen[:, None].expand(-1, s.texts, -1), said.view(len(words), s.texts, -1)], 1)
    return replace(pictures, codes=codes)


def codes_of(image: Encoder, x: Tensor) -> Tensor:
    """The codes (n, d) of pictures uint8 (n, 3, h, w)."""
    return _codes(image, [Signal("image", one) for one in x.permute(0, 2, 3, 1).contiguous().numpy()])


def _codes(encoder: Encoder, signals: Sequence[Signal]) -> Tensor:
    return torch.from_numpy(encoder.encode(signals))


def _words(data: Path | None, split: str) -> list[list[str]]:
    """Names and keywords of each emoji in all languages, English first, in ``load_pictures``' order."""
    records = [r for r in reader("emoji")(data, split="all", keywords=True) if isinstance(r, Record)]
    return [[str(r.metadata["name"]), *(p.text for p in r.parts if p.text)] for r in part_of(records, split)]


def likeness(generator: Generator, pictures: Pictures, image: Encoder, own: bool = True) -> float:
    """Mean cosine of the pictures' codes and those of what is drawn for them, or for their names; of 64."""
    codes = pictures.codes
    assert codes is not None
    some = torch.linspace(0, len(codes) - 1, min(64, len(codes))).long()
    asked = codes[some, 0 if own else codes.shape[1] // 2]
    random = torch.Generator().manual_seed(0)
    condition = Condition(len(some), code=asked).to(generator.device)
    drawn = generator.sample(condition, guidance=2.0, generator=random).cpu()
    found = codes_of(image, bytes_of(drawn))
    return float((found * codes[some, 0]).sum(1).mean())
