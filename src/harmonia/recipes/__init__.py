"""Training recipes. Each is a function from data and settings to a complete run."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from dataclasses import fields, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from harmonia.imports import lazy_entry
from harmonia.types import HarmoniaError

if TYPE_CHECKING:
    from harmonia.recipes.run import Run

RECIPES: dict[str, str] = {
    "clip": "harmonia.recipes.encoders.image_text:clip",
    "siglip": "harmonia.recipes.encoders.image_text:siglip",
    "cloob": "harmonia.recipes.encoders.image_text:cloob",
    "hfy": "harmonia.recipes.encoders.image_text:hfy",
    "cmhn": "harmonia.recipes.encoders.image_text:cmhn",
    "digits": "harmonia.recipes.encoders.trimodal:digits",
    "sounds": "harmonia.recipes.encoders.trimodal:sounds",
    "bind": "harmonia.recipes.encoders.bind:bind",
    "video": "harmonia.recipes.encoders.video:video",
    "multilingual": "harmonia.recipes.encoders.multilingual:multilingual",
    "student": "harmonia.recipes.encoders.multilingual:student",
    "mini": "harmonia.recipes.encoders.mini:mini",
    "autoencoder": "harmonia.recipes.generators.autoencoders:autoencoder",
    "denoising": "harmonia.recipes.generators.autoencoders:denoising",
    "vae": "harmonia.recipes.generators.autoencoders:vae",
    "beta-vae": "harmonia.recipes.generators.autoencoders:beta_vae",
    "vqvae": "harmonia.recipes.generators.autoencoders:vqvae",
    "vqvae-prior": "harmonia.recipes.generators.autoregressive:vqvae_prior",
    "maskgit": "harmonia.recipes.generators.autoregressive:maskgit",
    "dalle": "harmonia.recipes.generators.autoregressive:dalle",
    "recaptioned": "harmonia.recipes.generators.recaption:recaptioned",
    "imagine-mini": "harmonia.recipes.generators.mini:imagine_mini",
    "autoencoder-mini": "harmonia.recipes.generators.autoencoder_mini:autoencoder_mini",
    "judge": "harmonia.recipes.generators.judge:judge",
    "text-judge": "harmonia.recipes.encoders.text_judge:text_judge",
    "gan": "harmonia.recipes.generators.gans:gan",
    "stylegan": "harmonia.recipes.generators.gans:stylegan",
    "attngan": "harmonia.recipes.generators.attngan:attngan",
    "ddpm": "harmonia.recipes.generators.diffusion:ddpm",
    "guided": "harmonia.recipes.generators.diffusion:guided",
    "flow": "harmonia.recipes.generators.diffusion:flow",
    "dit": "harmonia.recipes.generators.diffusion:dit",
    "flow-student": "harmonia.recipes.generators.diffusion:flow_student",
    "latent-flow": "harmonia.recipes.generators.diffusion:latent_flow",
    "latent-student": "harmonia.recipes.generators.diffusion:latent_student",
    "latent-diffusion": "harmonia.recipes.generators.text_to_image:latent_diffusion",
    "glide": "harmonia.recipes.generators.text_to_image:glide",
    "dalle2": "harmonia.recipes.generators.text_to_image:dalle2",
    "imagen": "harmonia.recipes.generators.text_to_image:imagen",
}
"""The function of each recipe, ``module:function``, imported on first use. Each is called as
``recipe(data, settings)``; both have defaults. To add one, write the function and add a line."""


def recipe(name: str) -> Callable[..., Run]:
    """The function of a recipe; a HarmoniaError lists the recipes if ``name`` is not one."""
    function: Callable[..., Run] = lazy_entry(RECIPES, name, "recipe")
    return function


def settings_of(function: Callable[..., Run]) -> Any:
    """The default settings of a recipe, a frozen dataclass."""
    return inspect.signature(function).parameters["settings"].default


def prepare(name: str, data: Path | None = None, changes: Mapping[str, str] | None = None) -> Run:
    """The run of a recipe, with ``changes`` to its settings given as text.

    HarmoniaError for an unknown setting or a value of the wrong type.
    """
    function = recipe(name)
    settings = settings_of(function)
    known = {field.name: type(getattr(settings, field.name)) for field in fields(settings)}
    parsed = {}
    for key, text in (changes or {}).items():
        if key not in known:
            raise HarmoniaError(f"recipe {name} has no setting {key!r}: it has {', '.join(known)}")
        parsed[key] = _parsed(key, text, known[key])
    return function(data, replace(settings, **parsed))


def _parsed(key: str, text: str, kind: type) -> Any:
    if kind is bool:
        if text.lower() not in ("true", "false"):
            raise HarmoniaError(f"{key} must be true or false (got {text!r})")
        return text.lower() == "true"
    try:
        return kind(text)
    except ValueError as error:
        raise HarmoniaError(f"{key} must be of type {kind.__name__} (got {text!r})") from error
