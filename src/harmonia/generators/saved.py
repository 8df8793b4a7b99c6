"""A trained generator in a folder, saved and loaded.

FOLDER/config.json          "model_type": "harmonia-generator", format version, kind, configuration, facts
       model.safetensors    weights, float32 or float16
       README.md            the model card
"""

from __future__ import annotations

import json
import types
import typing
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields, is_dataclass
from pathlib import Path
from typing import Any

import torch

from harmonia import weights
from harmonia.generators.base import Generator
from harmonia.imports import lazy
from harmonia.types import HarmoniaError
from harmonia.weights import CARD, CONFIG

MODEL_TYPE = "harmonia-generator"
VERSION = 1

KINDS: dict[str, str] = {
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
}
"""Name of a kind of generator and its class, ``module:Class``; the class is built from its ``config`` alone.
To add one: write it, and add its line here."""


@dataclass(frozen=True, slots=True, eq=False)
class Facts:
    """What belongs to a generator besides its weights.

    ``name``    what it is called
    ``space``   of the codes it was conditioned on, as ``harmonia.types.Code`` names it; "" for none
    ``labels``  the words that stand for each class, in any languages
    """

    name: str = ""
    space: str = ""
    labels: tuple[tuple[str, ...], ...] = field(default=())


@dataclass(frozen=True, slots=True, eq=False)
class Saved:
    """What a folder holds; ``identity`` stands for the content of its files, 16 hex digits."""

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
    """Write a generator: all of it, or nothing. One that stands in ``folder`` is replaced.

    HarmoniaError if a weight is not finite (in ``dtype``), the folder holds something else, or cannot be
    written.
    """
    settings = {
        "model_type": MODEL_TYPE,
        "version": VERSION,
        "kind": _kind(generator),
        "config": asdict(generator.config),
        "facts": asdict(facts or Facts()),
    }
    texts = {CONFIG: json.dumps(settings, indent=1, ensure_ascii=False) + "\n", CARD: card}
    weights.write_model(Path(folder).absolute(), generator.state_dict(), texts, MODEL_TYPE, dtype)


def load_generator(folder: str | Path, device: str | torch.device = "cpu") -> Saved:
    """The generator of a folder, in evaluation mode, float32.

    HarmoniaError if a file is missing, damaged, truncated or of another version.
    """
    folder = Path(folder)
    settings = weights.read_settings(folder, MODEL_TYPE, VERSION)
    tensors = weights.read_tensors(folder)
    if settings.get("kind") not in KINDS:
        raise HarmoniaError(f"{folder / CONFIG} has a generator of no known kind: update Harmonia")
    network = lazy(KINDS[settings["kind"]])
    damaged = HarmoniaError(f"the generator {folder} is damaged: get the model's files again")
    try:
        config = built(typing.get_type_hints(network)["config"], settings["config"])
        facts = built(Facts, settings["facts"])
        with torch.random.fork_rng(devices=[]):
            generator = network(config)
        generator.load_state_dict(tensors, assign=True)
    except (AttributeError, KeyError, TypeError, ValueError, RuntimeError) as error:
        raise damaged from error
    if not all(t.isfinite().all() for t in tensors.values()):
        raise damaged
    return Saved(generator.to(device).eval(), facts, weights.identity(folder))


def is_generator(folder: Path) -> bool:
    """Whether a folder holds what ``save_generator`` writes, and nothing else."""
    return weights.is_model(folder, MODEL_TYPE)


def built(kind: Any, values: Any) -> Any:
    """A dataclass, with those inside it, from what ``dataclasses.asdict`` and JSON made of it.

    TypeError or ValueError if the values are not of its form.
    """
    if is_dataclass(kind) and isinstance(kind, type):
        if not isinstance(values, Mapping):
            raise TypeError(f"{kind.__name__} is made from an object, not from {values!r}")
        hints = typing.get_type_hints(kind)
        known = {one.name for one in fields(kind)}
        if unknown := set(values) - known:
            raise TypeError(f"{kind.__name__} has no {', '.join(sorted(unknown))}")
        return kind(**{name: built(hints[name], value) for name, value in values.items()})
    origin, inner = typing.get_origin(kind), typing.get_args(kind)
    if origin is tuple:
        each = inner[:1] * len(values) if inner[1:] == (...,) else inner
        return tuple(built(one, value) for one, value in zip(each, values, strict=True))
    if origin in (typing.Union, types.UnionType):
        rest = [one for one in inner if one is not type(None)]
        return None if values is None else built(rest[0], values)
    return values


def _kind(generator: Generator) -> str:
    own = f"{type(generator).__module__}:{type(generator).__name__}"
    for kind, where in KINDS.items():
        if where == own:
            return kind
    raise HarmoniaError(f"a {type(generator).__name__} cannot be saved: it is not in generators.saved.KINDS")
