"""Pipelines of the diffusers library as generators, which can also be conditioned on the state of a memory.

Any pipeline for text-to-image, class-conditional or unconditional generation. Only safetensors weights are
read, and no code that comes with them is run.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from harmonia.generators.base import Batch, Generator, GeneratorConfig, Watch
from harmonia.generators.conditioning import Condition, ConditionConfig
from harmonia.types import HarmoniaError

NAMES = ("prompt_embeds", "negative_prompt_embeds", "pooled_prompt_embeds", "negative_pooled_prompt_embeds")
"""The outputs of ``encode_prompt`` of Stable Diffusion (the first two), XL and 3, as named in their calls."""

INDEX = "model_index.json"
"""The file by which the folder of a pipeline is recognised."""
LONGEST = 1024
"""Longest text in bytes; the pipeline truncates it to its number of tokens."""


@dataclass(frozen=True, kw_only=True)
class PretrainedConfig(GeneratorConfig):
    """Settings of a `Pretrained`.

    ``model``     name on the Hugging Face hub, or folder
    ``revision``  of the hub's model: a branch, tag or commit; "" for the newest
    ``tokens``    number of prompt tokens to which the state is added, the last ones (padding, unless the
                  prompt is long)
    ``guidance``  default guidance scale; None for that of the pipeline
    ``shape``     of the images; leave it to ``Pretrained.load``
    ``condition`` ``code``: width of the state, 0 for none; ``drop``: share of training samples without it
    """

    model: str
    revision: str = ""
    tokens: int = 4
    guidance: float | None = None


class Pretrained(Generator):
    """A pipeline with frozen weights and a trained projection of the memory's state.

    The projection (without bias, initially zero) is *added* to the embeddings of the prompt's last tokens, so
    that the images are exactly those of the plain pipeline until it is trained. Appended zero tokens would
    change them, since a zero key has a share in the softmax.

    Raises HarmoniaError if the pipeline cannot be loaded, or cannot take a ``code``.
    """

    config: PretrainedConfig

    def __init__(self, config: PretrainedConfig) -> None:
        super().__init__()
        self.config = config
        self.pipeline = _load(config.model, config.revision)
        settings = inspect.signature(self.pipeline.__call__).parameters
        self._takes = set(settings)
        own = settings["guidance_scale"].default if "guidance_scale" in settings else None
        self._guidance: float | None = own if isinstance(own, int | float) else None
        for network in self._networks():
            network.requires_grad_(False).eval()
        self.state: nn.Linear | None = None
        if config.condition.code:
            if "prompt_embeds" not in self._takes:
                raise HarmoniaError(
                    f"{config.model} has no text condition, so it cannot take a state: set code=0"
                )
            width = self._encoded([""], None, guided=False)["prompt_embeds"].shape[2]
            self.state = nn.Linear(config.condition.code, config.tokens * width, bias=False)
            nn.init.zeros_(self.state.weight)

    @classmethod
    def load(cls, model: str, **settings: Any) -> Self:
        """Load a pipeline with its native image size; ``settings`` are those of the configuration.

        The conditions are those of the pipeline unless ``condition`` is given.
        """
        generator = cls(PretrainedConfig(model=model, **settings))
        try:
            found = {"condition": generator._conditions(), **settings, "shape": generator._native()}
        except (AttributeError, KeyError, TypeError, ValueError) as error:
            raise HarmoniaError(
                f"the image size of {model} is unknown: give a pipeline that generates images"
            ) from error
        generator.config = PretrainedConfig(model=model, **found)
        return generator

    @property
    def labels(self) -> tuple[tuple[str, ...], ...]:
        """The words for each class, or its number; empty if the pipeline has no classes."""
        names: dict[int, list[str]] = {}
        for name, i in getattr(self.pipeline, "labels", {}).items():
            names.setdefault(i, []).append(name)
        return tuple(tuple(names.get(i, [str(i)])) for i in range(self._conditions().classes))

    def losses(self, batch: Batch) -> dict[str, Tensor]:
        """The squared error of the pipeline's network on latents, in its own parameterisation."""
        pipeline, n = self.pipeline, len(batch.x)
        abar = getattr(pipeline.scheduler, "alphas_cumprod", None)
        if self.state is None or abar is None or not hasattr(pipeline, "unet") or NAMES[2] in self._takes:
            raise HarmoniaError(
                "only the state of a Stable Diffusion pipeline can be trained: give condition.code"
            )
        latents = pipeline.vae.encode(batch.x.to(self.device)).latent_dist.sample()
        latents = latents * pipeline.vae.config.scaling_factor
        noise, t = torch.randn_like(latents), torch.randint(len(abar), (n,))
        alpha, sigma = (part[t].sqrt().to(latents).view(-1, 1, 1, 1) for part in (abar, 1 - abar))
        dropped = batch.condition.without(torch.rand(n) < self.config.condition.drop)
        embeds = self._encoded(_texts(dropped), dropped.code, guided=False)["prompt_embeds"]
        noisy = alpha * latents + sigma * noise
        output = pipeline.unet(noisy, t.to(self.device), encoder_hidden_states=embeds).sample
        kind = pipeline.scheduler.config.prediction_type
        goals = {"epsilon": noise, "sample": latents, "v_prediction": alpha * noise - sigma * latents}
        return {"model": F.mse_loss(output, goals[kind])}

    @torch.no_grad()
    def sample(
        self,
        condition: Condition,
        *,
        steps: int | None = None,
        guidance: float | None = None,
        generator: torch.Generator | None = None,
        watch: Watch | None = None,
    ) -> Tensor:
        """Draw one image for each row of ``condition``, from its text or label if the pipeline takes one.

        ``guidance`` None is that of the configuration, or else of the pipeline. ``watch`` is called for every
        step if the pipeline has step callbacks, at the cost of decoding.
        """
        condition = condition.to(self.device)
        settings: dict[str, Any] = {"generator": generator, "output_type": "np"}
        if steps is not None:
            settings["num_inference_steps"] = steps
        guidance = self.config.guidance if guidance is None else guidance
        guidance = self._guidance if guidance is None else guidance
        if guidance is not None and "guidance_scale" in self._takes:
            settings["guidance_scale"] = guidance
        if {"height", "width"} <= self._takes:
            settings["height"], settings["width"] = self.config.shape[1:]
        if watch is not None and "callback_on_step_end" in self._takes and hasattr(self.pipeline, "vae"):
            settings["callback_on_step_end"] = self._callback(watch)
        settings |= self._arguments(condition, guided=guidance is not None and guidance > 1)
        try:
            drawn = self.pipeline(**settings).images
        except (AttributeError, TypeError, ValueError) as error:
            # such as a pipeline that needs an input image
            reason = " ".join(str(error).split())[:200]
            raise HarmoniaError(
                f"{self.config.model} cannot draw this ({reason}): choose another pipeline"
            ) from error
        images = torch.from_numpy(drawn).permute(0, 3, 1, 2).float() * 2 - 1
        if images.shape[1:] != self.config.shape:
            shape = tuple(images.shape[1:])
            raise HarmoniaError(f"{self.config.model} draws images of shape {shape}: use Pretrained.load")
        return images.to(self.device)

    @property
    def device(self) -> torch.device:
        """The device of the pipeline."""
        return next(self._networks()[0].parameters()).device

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> Self:
        """Move the pipeline with the module; its weights are not registered, so they are not saved."""
        for network in self._networks():
            network._apply(fn, recurse)  # type: ignore[no-untyped-call]
        super()._apply(fn, recurse)  # type: ignore[no-untyped-call]
        return self

    def _networks(self) -> list[nn.Module]:
        return [part for part in self.pipeline.components.values() if isinstance(part, nn.Module)]

    def _arguments(self, condition: Condition, *, guided: bool) -> dict[str, Any]:
        """The arguments of the pipeline for a condition."""
        if "class_labels" in self._takes:
            if condition.label is None or (condition.label < 0).any():
                raise HarmoniaError(f"{self.config.model} is class-conditional: give every row a label")
            return {"class_labels": condition.label.tolist()}
        if "prompt" not in self._takes:
            return {"batch_size": len(condition)}
        if self.state is None:
            return {"prompt": _texts(condition)}
        return self._encoded(_texts(condition), condition.code, guided=guided)

    def _encoded(self, texts: list[str], code: Tensor | None, *, guided: bool) -> dict[str, Tensor]:
        """The embeddings of the prompts by ``NAMES``, with the state added to the positive ones."""
        try:
            found = self.pipeline.encode_prompt(
                prompt=texts, device=self.device, num_images_per_prompt=1, do_classifier_free_guidance=guided
            )
        except (AttributeError, TypeError) as error:
            raise HarmoniaError(
                f"{self.config.model} cannot take a state beside the text: set code=0"
            ) from error
        embeddings = {name: value for name, value in zip(NAMES, found, strict=False) if value is not None}
        if self.state is not None and code is not None:
            embeds, tokens = embeddings["prompt_embeds"], self.config.tokens
            added = self.state(code * code.shape[1] ** 0.5).view(len(code), tokens, -1).to(embeds)
            embeddings["prompt_embeds"] = embeds + F.pad(added, (0, 0, embeds.shape[1] - tokens, 0))
        return embeddings

    def _conditions(self) -> ConditionConfig:
        """The conditions of the pipeline."""
        if "class_labels" in self._takes:
            own = self._network().config
            return ConditionConfig(classes=own.get("num_class_embeds") or own.get("num_embeds_ada_norm") or 0)
        return ConditionConfig(text=LONGEST if "prompt" in self._takes else 0)

    def _network(self) -> Any:
        """The denoising network."""
        return self.pipeline.components.get("unet") or self.pipeline.components.get("transformer")

    def _native(self) -> tuple[int, int, int]:
        """Channels, height and width of the images that the pipeline was trained on."""
        network, vae = self._network(), self.pipeline.components.get("vae")
        factor = 1 if vae is None else 2 ** (len(vae.config.block_out_channels) - 1)
        size = network.config.sample_size
        height, width = (size, size) if isinstance(size, int) else size
        channels = (network if vae is None else vae).config.out_channels
        return channels, height * factor, width * factor

    def _callback(self, watch: Watch) -> Callable[..., dict[str, Tensor]]:
        def callback(pipeline: Any, step: int, _: int, tensors: dict[str, Tensor]) -> dict[str, Tensor]:
            seen = pipeline.vae.decode(tensors["latents"] / pipeline.vae.config.scaling_factor).sample
            watch(step + 1, pipeline.num_timesteps, seen.clamp(-1, 1))
            return {}

        return callback


def _texts(condition: Condition) -> list[str]:
    """The texts of a condition, decoded from the bytes of ``spell``."""
    if condition.text is None:
        return [""] * len(condition)
    rows = [bytes(byte - 1 for byte in row if byte) for row in condition.text.tolist()]
    return [row.decode("utf-8", errors="ignore") for row in rows]


def fetched(model: str) -> Path:
    """The folder of a pipeline: ``model`` itself, or downloaded from the hub by that name.

    HarmoniaError if it cannot be downloaded.
    """
    return Path(model) if Path(model).is_dir() else Path(_from_library("download", model))


def _load(model: str, revision: str) -> Any:
    pipeline = _from_library("from_pretrained", model, revision=revision or None)
    pipeline.set_progress_bar_config(disable=True)
    return pipeline


def _from_library(what: str, model: str, **settings: Any) -> Any:
    """Call a class method of ``DiffusionPipeline`` for a model, with errors as HarmoniaError."""
    try:
        import diffusers
    except ModuleNotFoundError as error:
        raise HarmoniaError(
            "pretrained generators need the package diffusers: pip install 'harmonia[imagine]'"
        ) from error
    diffusers.utils.logging.disable_progress_bar()
    diffusers.utils.logging.set_verbosity_error()  # errors are reported once, below
    try:
        return getattr(diffusers.DiffusionPipeline, what)(model, use_safetensors=True, **settings)
    except (OSError, ValueError, KeyError, TypeError, RuntimeError, AttributeError, ImportError) as error:
        reason = " ".join(str(error).split())[:200]
        absent = "" if Path(model).is_dir() else ", and there is no such folder"
        raise HarmoniaError(
            f"cannot load the pipeline {model!r} ({reason}){absent}: give the name or folder of one with "
            "safetensors"
        ) from error
