"""Training runs, one typed function each: data and settings in, a complete `Run` out."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from dataclasses import fields, replace
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any

from harmonia.types import HarmoniaError

if TYPE_CHECKING:
    from harmonia.recipes.run import Run

RECIPES: dict[str, str] = {
    "clip": "harmonia.recipes.image_text:clip",
    "siglip": "harmonia.recipes.image_text:siglip",
    "cloob": "harmonia.recipes.image_text:cloob",
    "hfy": "harmonia.recipes.image_text:hfy",
    "cmhn": "harmonia.recipes.image_text:cmhn",
    "digits": "harmonia.recipes.trimodal:digits",
    "sounds": "harmonia.recipes.trimodal:sounds",
    "bind": "harmonia.recipes.bind:bind",
    "video": "harmonia.recipes.video:video",
    "multilingual": "harmonia.recipes.multilingual:multilingual",
    "student": "harmonia.recipes.multilingual:student",
    "mini": "harmonia.recipes.mini:mini",
    "autoencoder": "harmonia.recipes.autoencoders:autoencoder",
    "denoising": "harmonia.recipes.autoencoders:denoising",
    "vae": "harmonia.recipes.autoencoders:vae",
    "beta-vae": "harmonia.recipes.autoencoders:beta_vae",
    "vqvae": "harmonia.recipes.autoencoders:vqvae",
    "vqvae-prior": "harmonia.recipes.autoregressive:vqvae_prior",
    "maskgit": "harmonia.recipes.autoregressive:maskgit",
    "dalle": "harmonia.recipes.autoregressive:dalle",
    "recaptioned": "harmonia.recipes.recaption:recaptioned",
    "imagine-mini": "harmonia.recipes.imagine:imagine_mini",
    "judge": "harmonia.recipes.judge:judge",
    "text-judge": "harmonia.recipes.text_judge:text_judge",
    "gan": "harmonia.recipes.gans:gan",
    "stylegan": "harmonia.recipes.gans:stylegan",
    "attngan": "harmonia.recipes.attngan:attngan",
    "ddpm": "harmonia.recipes.diffusion:ddpm",
    "guided": "harmonia.recipes.diffusion:guided",
    "flow": "harmonia.recipes.diffusion:flow",
    "dit": "harmonia.recipes.diffusion:dit",
    "flow-student": "harmonia.recipes.diffusion:flow_student",
    "latent-flow": "harmonia.recipes.diffusion:latent_flow",
    "latent-student": "harmonia.recipes.diffusion:latent_student",
    "latent-diffusion": "harmonia.recipes.systems:latent_diffusion",
    "glide": "harmonia.recipes.systems:glide",
    "dalle2": "harmonia.recipes.systems:dalle2",
    "imagen": "harmonia.recipes.systems:imagen",
}
"""Name of a recipe and its function, ``module:function``, imported when it is asked for. Each is called as
``recipe(data, settings)``; both may be left out. To add one, write the function and add its line."""


def recipe(name: str) -> Callable[..., Run]:
    """The function of a recipe; a HarmoniaError names those there are."""
    if name not in RECIPES:
        raise HarmoniaError(f"there is no recipe {name!r}: name one of {', '.join(RECIPES)}")
    module, function = RECIPES[name].split(":")
    found: Callable[..., Run] = getattr(import_module(module), function)
    return found


def settings_of(function: Callable[..., Run]) -> Any:
    """The settings that a recipe has by default, a frozen dataclass."""
    return inspect.signature(function).parameters["settings"].default


def prepare(name: str, data: Path | None = None, changes: Mapping[str, str] | None = None) -> Run:
    """The run of a recipe with some of its settings changed, each given as text.

    HarmoniaError for a setting that the recipe does not have, or a value of another type.
    """
    function = recipe(name)
    settings = settings_of(function)
    known = {one.name: type(getattr(settings, one.name)) for one in fields(settings)}
    parsed = {}
    for key, text in (changes or {}).items():
        if key not in known:
            raise HarmoniaError(f"recipe {name} has no setting {key!r}: it has {', '.join(known)}")
        parsed[key] = _parsed(key, text, known[key])
    return function(data, replace(settings, **parsed))


def _parsed(key: str, text: str, kind: type) -> Any:
    if kind is bool:
        if text.lower() not in ("true", "false"):
            raise HarmoniaError(f"{key} is true or false (got {text!r})")
        return text.lower() == "true"
    try:
        return kind(text)
    except ValueError as error:
        raise HarmoniaError(f"{key} takes a {kind.__name__} (got {text!r})") from error
