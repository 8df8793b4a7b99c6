"""Generators saved in a folder and loaded from it. See ``harmonia.weights`` for the files.

config.json has the kind of the generator, its configuration and its :class:`Facts`.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from pathlib import Path

import torch

from harmonia import weights
from harmonia.generators.base import Generator
from harmonia.types import HarmoniaError
from harmonia.weights import CONFIG

FORMAT = weights.ModelFormat(
    "harmonia-generator",
    1,
    "generator",
    {
        "autoregressive": "harmonia.generators.tokens.autoregressive:Autoregressive",
        "maskgit": "harmonia.generators.tokens.maskgit:MaskGIT",
        "dalle": "harmonia.generators.tokens.dalle:DallE",
        "autoencoder": "harmonia.generators.autoencoders.autoencoder:Autoencoder",
        "vae": "harmonia.generators.autoencoders.autoencoder:VAE",
        "vqvae": "harmonia.generators.autoencoders.autoencoder:VQVAE",
        "gan": "harmonia.generators.adversarial.gan:GAN",
        "stylegan": "harmonia.generators.adversarial.stylegan:StyleGAN",
        "attngan": "harmonia.generators.adversarial.attngan:AttnGAN",
        "diffusion": "harmonia.generators.diffusion.model:Diffusion",
        "guided": "harmonia.generators.diffusion.classifier_guidance:GuidedDiffusion",
        "latent": "harmonia.generators.diffusion.latent:Latent",
        "pretrained": "harmonia.pretrained.diffusers:Pretrained",
        "cascade": "harmonia.generators.diffusion.cascade:Cascade",
        "glide": "harmonia.generators.diffusion.glide:Glide",
        "imagen": "harmonia.generators.diffusion.cascade:Imagen",
        "unclip": "harmonia.generators.diffusion.unclip:Unclip",
    },
)
"""The format of a folder of a generator, whose network is built from its ``config`` alone. To add a kind of
generator: write it, and add its line here."""


@dataclass(frozen=True, slots=True, eq=False)
class Facts:
    """Metadata of a generator.

    ``name``    its name
    ``space``   of the codes that it was conditioned on, as ``harmonia.types.Code`` names it; "" for none
    ``labels``  the words for each class, in any languages
    """

    name: str = ""
    space: str = ""
    labels: tuple[tuple[str, ...], ...] = field(default=())


@dataclass(frozen=True, slots=True, eq=False)
class Saved:
    """A loaded generator. ``identity`` is a hash of the content of its files, 16 hex digits."""

    generator: Generator
    facts: Facts
    identity: str


def save_generator(
    folder: str | Path,
    generator: Generator,
    *,
    facts: Facts | None = None,
    card: str = "",
    dtype: torch.dtype = torch.float32,
) -> None:
    """Write a generator whole or not at all. A generator that stands in ``folder`` is replaced.

    HarmoniaError if a weight is not finite (in ``dtype``), the folder holds something else, or cannot be
    written.
    """
    settings = FORMAT.describe(generator) | {"facts": asdict(facts or Facts())}
    FORMAT.write(Path(folder), settings, generator.state_dict(), card=card, dtype=dtype)


def load_generator(folder: str | Path, device: str | torch.device = "cpu") -> Saved:
    """The generator of a folder, in evaluation mode, float32.

    HarmoniaError if a file is missing, damaged, truncated or of another version.
    """
    folder = Path(folder)
    settings, tensors = FORMAT.read(folder)
    what = f"the generator {folder}"
    generator = FORMAT.build(settings, tensors, where=str(folder / CONFIG), what=what)
    assert isinstance(generator, Generator)
    try:
        facts = weights.built(Facts, settings["facts"])
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        raise HarmoniaError(f"{what} is damaged: get the model's files again") from error
    return Saved(generator.to(device).eval(), facts, weights.identity(folder))


def is_generator(folder: Path) -> bool:
    """Whether a folder holds what ``save_generator`` writes, and nothing else."""
    return FORMAT.is_model(folder)
