"""The shipped autoencoder: photos of 64 pixels, trained to remove noise of any strength up to a limit.

The training data are random squares of a few large photos, at random scales up to the whole photo.
"""

from __future__ import annotations

import io
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from torch.nn import functional as F

from harmonia.data.files import gather
from harmonia.data.records import signal_of
from harmonia.generators import Facts, Generator
from harmonia.generators.autoencoders.autoencoder import Autoencoder, AutoencoderConfig, corrupt
from harmonia.metrics import psnr
from harmonia.recipes.generators.pictures import Pictures, load_pictures
from harmonia.recipes.generators.run import GeneratorRun, Stage
from harmonia.recipes.run import RunSettings
from harmonia.types import HarmoniaError, Record

HELD = 5
"""One photo in this many is held out."""
BATCH = 100
LEVELS = (0.1, 0.2, 0.4)
"""Standard deviations of the noise in the figures; a picture has the range [-1, 1]."""

CARD = """# Harmonia autoencoder-mini

A denoising autoencoder of photos at {resolution} pixels: {latents} numbers for each, {parameters:.2f} million
parameters. It ships with Harmonia, so that `harmonia reconstruct`, `denoise` and `anomaly` work offline, and
it is small.

* Use: `harmonia reconstruct photo.jpg`, `harmonia denoise photo.jpg`, `harmonia anomaly photo.jpg`. Each of
  them scales the centre of an image to {resolution} x {resolution} pixels first.
* Method: convolutional denoising autoencoder (Vincent et al. 2010) with Gaussian noise of a random strength,
  from none to a standard deviation of {amount} (Zhang et al. 2017); a picture has the range -1 to 1.
* Trained by `harmonia train autoencoder-mini --data PHOTOS`: {steps} steps of {batch}, seed {seed}, on one
  CPU core.
* Data: {crops} squares of {photos} photos of Budgie Backgrounds, CC0 1.0 (of its releases up to May 2025,
  without drawings); every fifth photo was held out. The weights are Apache 2.0 like the package.
* Limits: what it makes of an image is small, and fine detail is lost. Where the noise is weak, that costs
  more than the noise: compare "noisy" and "denoised" below, and leave such pictures as they are. The score of
  an anomaly is the error of the reconstruction: noise and disorder score high, but so does fine texture, and
  plain pictures, such as digits, score low, however unlike photos they are. JPEG keeps far more in as many
  bytes.

## How it is measured

"held-out" are squares of the {held} photos that were held out, "Flickr8k" the 1,000 photos of its dev part,
whole; these are only measured, since their licence allows research alone. PSNR is in dB. "bicubic" scales the
picture to {small} x {small} pixels, as many numbers as the latent has, and back; "JPEG" is the best one of as
many bytes as the latent has numbers. "noise" is the standard deviation; "noisy" does nothing, "blurred" is
a Gaussian filter of one pixel. AUROC is the chance that the stranger picture gets the higher score: 0.5 says
nothing, below 0.5 the score is the wrong way round.
"""


@dataclass(frozen=True, kw_only=True)
class AutoencoderMiniSettings(RunSettings):
    """Settings of `autoencoder_mini`.

    ``resolution``  in pixels, a multiple of 8
    ``dim``         channels of the latent grid
    ``amount``      largest standard deviation of the noise
    ``squares``     of each photo
    """

    resolution: int = 64
    size: str = "tiny"
    dim: int = 8
    amount: float = 0.4
    squares: int = 200
    steps: int = 1200
    batch: int = 24
    lr: float = 2e-3


SETTINGS = AutoencoderMiniSettings()


def autoencoder_mini(data: Path | None = None, settings: AutoencoderMiniSettings = SETTINGS) -> GeneratorRun:
    """The shipped autoencoder: photos, reconstructed from noisy ones. --data is a folder of photos."""
    s = settings
    train, held = photo_squares(data, s)
    side = s.resolution
    config = AutoencoderConfig(shape=(3, side, side), size=s.size, dim=s.dim, spatial=True, stride=4,
                               corruption="blind-gaussian", amount=s.amount, samples=False)  # fmt: skip
    torch.manual_seed(s.seed)
    model = Autoencoder(config)
    batch, save = min(s.batch, len(train)), max(100, s.steps // 10)
    fit = s.training(batch, weight_decay=0.01, warmup=100, save_every=save, log_every=20)
    latents = int(np.prod(config.latent))
    card = CARD.format(
        **asdict(s), latents=latents, crops=len(train), photos=len(train) // s.squares,
        held=len(held) // s.squares, small=_side(latents),
        parameters=sum(p.numel() for p in model.parameters()) / 1e6,
    )  # fmt: skip

    def figures(generator: Generator) -> dict[str, float]:
        assert isinstance(generator, Autoencoder)
        found = _figures(generator, held[:: max(1, len(held) // 1000)], "held-out")
        try:
            photos = load_pictures("flickr8k", "val", resolution=side).x
            others = {name: load_pictures(name, resolution=side).x[:1000] for name in ("emoji", "mnist")}
        except HarmoniaError:  # measured on what is there
            return found
        return found | _figures(generator, photos, "Flickr8k") | _strangeness(generator, photos, others)

    return GeneratorRun(
        "autoencoder-mini", model, (Stage("autoencoder", model, Pictures(train, keep=(), flip=True), fit),),
        Facts("autoencoder-mini"), card, figures, torch.float16,
    )  # fmt: skip


def photo_squares(data: Path | None, settings: AutoencoderMiniSettings) -> tuple[Tensor, Tensor]:
    """Random squares of the photos of a folder, uint8 (n, 3, side, side), and those of the held-out photos.

    HarmoniaError if there are fewer photos than leave one to hold out.
    """
    if data is None:
        raise HarmoniaError("this recipe needs photos: give a folder of them with --data")
    random = np.random.default_rng(settings.seed)
    parts: tuple[list[Tensor], list[Tensor]] = ([], [])
    number = 0
    for record in gather([data]):
        images = [p for p in record.parts if p.modality == "image"] if isinstance(record, Record) else []
        for part in images:
            try:
                photo = Image.fromarray(signal_of(part).array)
            except HarmoniaError:  # broken: train on the others
                continue
            number += 1
            parts[number % HELD == 0].append(_squares(photo, settings, random))
    if number < HELD:
        raise HarmoniaError(f"{data} has {number} photos: this recipe needs at least {HELD}")
    train, held = (torch.cat(part) for part in parts)
    return train, held


def _squares(photo: Image.Image, s: AutoencoderMiniSettings, random: np.random.Generator) -> Tensor:
    """``squares`` squares of a photo, of its shorter side to an eighth of it, uniform in the logarithm."""
    width, height = photo.size
    short = min(width, height)
    taken = []
    for _ in range(s.squares):
        side = max(min(short, s.resolution), short * 8.0 ** -random.random())
        left, top = random.random() * (width - side), random.random() * (height - side)
        square = photo.resize((s.resolution,) * 2, Image.Resampling.LANCZOS,
                              box=(left, top, left + side, top + side), reducing_gap=2.0)  # fmt: skip
        taken.append(np.asarray(square))
    return torch.from_numpy(np.stack(taken)).permute(0, 3, 1, 2).contiguous()


def _floats(x: Tensor) -> Tensor:
    return x.float() / 127.5 - 1


def _figures(model: Autoencoder, photos: Tensor, name: str) -> dict[str, float]:
    """PSNR of reconstructed and denoised photos, and of the baselines."""
    x, latents = _floats(photos), int(np.prod(model.config.latent))
    found = {
        f"{name}: reconstructed": _psnr(_through(model, x), x),
        f"{name}: bicubic": _psnr(_bicubic(x, _side(latents)), x),
        f"{name}: JPEG": _psnr(_floats(_jpeg(photos, latents)), x),
    }
    for level in LEVELS:
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)
            noisy = corrupt(x, "gaussian", level).clamp(-1, 1)
        found[f"{name}: noise {level}, noisy"] = _psnr(noisy, x)
        found[f"{name}: noise {level}, blurred"] = _psnr(_blurred(noisy), x)
        found[f"{name}: noise {level}, denoised"] = _psnr(_through(model, noisy), x)
    return found


def _strangeness(model: Autoencoder, photos: Tensor, drawings: Mapping[str, Tensor]) -> dict[str, float]:
    """AUROC of the novelty of other pictures against photos."""
    x, side = _floats(photos), model.config.shape[1]
    tiles = x.unfold(2, side // 8, side // 8).unfold(3, side // 8, side // 8).flatten(2, 3)
    random = torch.Generator().manual_seed(0)
    mixed = torch.randperm(64, generator=random)
    n, c, _, high, wide = tiles.shape
    grid = tiles[:, :, mixed].view(n, c, 8, 8, high, wide)
    shuffled = grid.permute(0, 1, 2, 4, 3, 5).reshape(x.shape)
    others = {
        "white noise": torch.rand(x.shape, generator=random) * 2 - 1,
        "the photos with noise 0.2": (x + 0.2 * torch.randn(x.shape, generator=random)).clamp(-1, 1),
        "the photos with shuffled tiles": shuffled,
        "emoji": _floats(drawings["emoji"]),
        "digits": _floats(drawings["mnist"]).expand(-1, 3, -1, -1),
    }
    own = _scores(model, x)
    return {f"AUROC: Flickr8k against {name}": auroc(own, _scores(model, y)) for name, y in others.items()}


def auroc(low: Tensor, high: Tensor) -> float:
    """The share of pairs of ``low`` (n,) and ``high`` (m,) in which the latter is larger; ties count half."""
    difference = torch.sign(high[None] - low[:, None])
    return float((difference.double().mean() + 1) / 2)


@torch.inference_mode()
def _scores(model: Autoencoder, x: Tensor) -> Tensor:
    return torch.cat([model.score(part.to(model.device)).cpu() for part in torch.split(x, BATCH)])


@torch.inference_mode()
def _through(model: Autoencoder, x: Tensor) -> Tensor:
    return torch.cat([model.reconstruct(part.to(model.device)).cpu() for part in torch.split(x, BATCH)])


def _psnr(y: Tensor, x: Tensor) -> float:
    return float(psnr(y, x).mean())


def _side(latents: int) -> int:
    """The side of the smallest square of 3 channels that has at least as many numbers."""
    return int(np.ceil((latents / 3) ** 0.5))


def _bicubic(x: Tensor, side: int) -> Tensor:
    small = F.interpolate(x, (side, side), mode="bicubic", antialias=True)
    return F.interpolate(small, x.shape[2:], mode="bicubic").clamp(-1, 1)


def _jpeg(photos: Tensor, most: int) -> Tensor:
    """Each picture uint8 (n, 3, h, w) as the best JPEG of at most ``most`` bytes, its header included."""
    return torch.stack([_best_jpeg(Image.fromarray(one.permute(1, 2, 0).numpy()), most) for one in photos])


def _best_jpeg(photo: Image.Image, most: int) -> Tensor:
    for quality in range(95, 0, -2):
        file = io.BytesIO()
        photo.save(file, "JPEG", quality=quality, optimize=True)
        if len(file.getvalue()) <= most:
            break
    return torch.from_numpy(np.array(Image.open(file))).permute(2, 0, 1)


def _blurred(x: Tensor) -> Tensor:
    """Each channel through a Gaussian of standard deviation 1 pixel."""
    line = torch.exp(-(torch.arange(-3.0, 4.0) ** 2) / 2)
    kernel = (torch.outer(line, line) / line.sum() ** 2).expand(x.shape[1], 1, 7, 7)
    return F.conv2d(F.pad(x, (3, 3, 3, 3), mode="reflect"), kernel, groups=x.shape[1])
