"""Recipes of autoencoders: plain, denoising, variational and vector-quantised."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

import torch

from harmonia.generators import Generator
from harmonia.generators.autoencoders.autoencoder import (
    VAE,
    VQVAE,
    Autoencoder,
    AutoencoderConfig,
    VAEConfig,
    VQVAEConfig,
    corrupt,
)
from harmonia.generators.autoencoders.base import AutoencoderBase
from harmonia.metrics import psnr
from harmonia.recipes.generators.pictures import Pictures
from harmonia.recipes.generators.run import GeneratorRun, GeneratorSettings, Stage, generator_run


@dataclass(frozen=True, kw_only=True)
class AutoencoderSettings(GeneratorSettings):
    """Settings of `autoencoder`: ``dim`` numbers of the latent; ``corruption`` and ``amount`` as in
    `corrupt`."""

    condition: str = "none"
    steps: int = 3000
    lr: float = 2e-3
    network: str = "conv"
    dim: int = 32
    corruption: str = "none"
    amount: float = 0.5
    loss: str = "l2"


@dataclass(frozen=True, kw_only=True)
class DenoisingSettings(AutoencoderSettings):
    """Settings of `denoising`: ``corruption`` "gaussian", "masking" or "salt-and-pepper"."""

    dim: int = 64
    corruption: str = "gaussian"


@dataclass(frozen=True, kw_only=True)
class VAESettings(GeneratorSettings):
    """Settings of `vae`: ``beta`` is the weight of the KL; ``likelihood`` of a pixel is bernoulli or
    gaussian, the latter with standard deviation ``sigma``."""

    steps: int = 3000
    lr: float = 2e-3
    network: str = "conv"
    dim: int = 32
    spatial: bool = False
    beta: float = 1.0
    likelihood: str = "bernoulli"
    sigma: float = 0.0


@dataclass(frozen=True, kw_only=True)
class BetaVAESettings(VAESettings):
    """Settings of `beta_vae`: a VAE whose KL has the weight 4."""

    beta: float = 4.0


@dataclass(frozen=True, kw_only=True)
class VQVAESettings(GeneratorSettings):
    """Settings of `vqvae`: ``bottleneck`` is vq, vq-gradient, gumbel or fsq; ``codes`` entries of width
    ``dim``."""

    condition: str = "none"
    steps: int = 3000
    lr: float = 2e-3
    network: str = "conv"
    bottleneck: str = "vq"
    codes: int = 256
    dim: int = 16
    loss: str = "l2"


def autoencoder(
    data: Path | None = None,
    settings: AutoencoderSettings = AutoencoderSettings(),
) -> GeneratorRun:
    """Autoencoder: images compressed to a small latent and back."""
    s, pictures = settings, settings.pictures(data)
    torch.manual_seed(s.seed)
    shape = pictures.shape
    config = AutoencoderConfig(shape=shape, size=s.size, dim=s.dim, stride=_stride(shape), network=s.network,
                               corruption=s.corruption, amount=s.amount, loss=s.loss)  # fmt: skip
    name, paper = "autoencoder", "autoencoder (Hinton and Salakhutdinov 2006)"
    if s.corruption != "none":
        name, paper = "denoising", f"denoising autoencoder, {s.corruption} (Vincent et al. 2010)"
    return _run(name, Autoencoder(config), pictures, s, data, paper)


def denoising(
    data: Path | None = None,
    settings: DenoisingSettings = DenoisingSettings(),
) -> GeneratorRun:
    """Denoising autoencoder: reconstruction of corrupted images."""
    return autoencoder(data, settings)


def vae(data: Path | None = None, settings: VAESettings = VAESettings()) -> GeneratorRun:
    """Conditional VAE: a Gaussian latent with a learned conditional prior."""
    s, pictures = settings, settings.pictures(data)
    torch.manual_seed(s.seed)
    shape = pictures.shape
    config = VAEConfig(shape=shape, size=s.size, condition=s.conditions(pictures), dim=s.dim,
                       spatial=s.spatial, stride=_stride(shape), network=s.network, beta=s.beta,
                       likelihood=s.likelihood, sigma=s.sigma)  # fmt: skip
    name, paper = "vae", "conditional VAE (Kingma and Welling 2014; Sohn et al. 2015)"
    if s.beta != 1:
        name, paper = "beta-vae", f"beta-VAE (Higgins et al. 2017), beta {s.beta:g}"
    return _run(name, VAE(config), pictures, s, data, paper)


def beta_vae(data: Path | None = None, settings: BetaVAESettings = BetaVAESettings()) -> GeneratorRun:
    """beta-VAE: a VAE with a stronger KL, for disentangled factors."""
    return vae(data, settings)


def vqvae(data: Path | None = None, settings: VQVAESettings = VQVAESettings()) -> GeneratorRun:
    """VQ-VAE, DALL-E's dVAE or FSQ: images as grids of discrete codes."""
    s, pictures = settings, settings.pictures(data)
    torch.manual_seed(s.seed)
    shape = pictures.shape
    config = VQVAEConfig(shape=shape, size=s.size, dim=s.dim, stride=_stride(shape), network=s.network,
                         bottleneck=s.bottleneck, codes=s.codes, anneal=max(1, s.steps * 3 // 4),
                         loss=s.loss)  # fmt: skip
    paper = {"gumbel": "dVAE (Ramesh et al. 2021)", "fsq": "FSQ (Mentzer et al. 2024)"}
    return _run("vqvae", VQVAE(config), pictures, s, data,
                paper.get(s.bottleneck, "VQ-VAE (van den Oord et al. 2017)"))  # fmt: skip


def _run(
    name: str, model: AutoencoderBase, pictures: Pictures, s: GeneratorSettings, data: Path | None, paper: str
) -> GeneratorRun:
    batch, warmup = min(s.batch, len(pictures)), min(100, s.steps // 10)
    stage = Stage(name, model, pictures, s.training(batch, warmup=warmup, weight_decay=0.01))
    run = generator_run(name, s, pictures, model, (stage,), paper)
    return replace(run, figures=lambda generator: _figures(generator, s, data))


@torch.no_grad()
def _figures(generator: Generator, s: GeneratorSettings, data: Path | None) -> dict[str, float]:
    """PSNR of reconstructed held-out images, and of corrupted and denoised ones if trained with a
    corruption."""
    assert isinstance(generator, AutoencoderBase)
    held = s.pictures(data, "val")
    x = held.x[:1000].float() / 127.5 - 1
    found = {"PSNR of held-out images, dB": _psnr(_through(generator, x), x)}
    if isinstance(generator, Autoencoder) and generator.config.corruption != "none":
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)
            noisy = corrupt(x, generator.config.corruption, generator.config.amount)
        found["PSNR of corrupted images, dB"] = _psnr(noisy.clamp(-1, 1), x)
        found["PSNR of denoised images, dB"] = _psnr(_through(generator, noisy), x)
    if isinstance(generator, VQVAE):
        codes = torch.cat([generator.codes(part.to(generator.device)) for part in torch.split(x, 100)])
        share = codes.flatten().bincount(minlength=generator.config.codes) / codes.numel()
        found["perplexity of the codes"] = float(torch.special.entr(share).sum().exp())
    return found


def _psnr(y: torch.Tensor, x: torch.Tensor) -> float:
    return float(psnr(y, x).mean())


def _through(coder: AutoencoderBase, x: torch.Tensor) -> torch.Tensor:
    return torch.cat([coder.denoise(part.to(coder.device)).cpu() for part in torch.split(x, 100)])


def _stride(shape: tuple[int, int, int]) -> int:
    """The stride that gives a grid of 7 or 8 places per side."""
    return 8 if shape[1] >= 64 else 4
