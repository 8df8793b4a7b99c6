"""Generators (Code -> Signal): GANs, autoencoders, diffusion models and token models."""

from harmonia.generators.base import SCALES, Batch, Generator, GeneratorConfig, Watch, draw
from harmonia.generators.conditioning import (
    Condition,
    ConditionConfig,
    ConditionEmbedding,
    Conditioner,
    join,
    spell,
)
from harmonia.generators.saved import Facts, Saved, is_generator, load_generator, save_generator

__all__ = [
    "SCALES",
    "Batch",
    "Condition",
    "ConditionConfig",
    "ConditionEmbedding",
    "Conditioner",
    "Facts",
    "Generator",
    "GeneratorConfig",
    "Saved",
    "Watch",
    "draw",
    "is_generator",
    "join",
    "load_generator",
    "save_generator",
    "spell",
]
